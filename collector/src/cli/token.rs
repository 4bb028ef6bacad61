//! `chokepoint-collector token`.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{Failure, Kind};
use crate::access::{Role, Token};

/// Make tokens, by which a collector knows who asks
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token. What goes into the file of --tokens goes to standard output, the token itself to standard error or a file, once
    #[command(after_help = "\
Examples:
  chokepoint-collector token new --role reader --name grafana >> tokens.toml
  chokepoint-collector token new --role agent --name web-1 -o web-1.token >> tokens.toml")]
    New {
        /// What it lets do: agent streams, reader asks queries, operator asks and has agents do something
        #[arg(long, value_enum)]
        role: Role,
        /// Whose it is, for logs and answers. Of an agent's token: whose the agent is
        #[arg(long, value_name = "NAME", value_parser = name)]
        name: String,
        /// Write the token into a file that only its owner may read, and that is not there yet
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

fn name(text: &str) -> Result<String, String> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.@/".contains(letter);
    if text.is_empty() || text.len() > 253 || !text.chars().all(is_plain) {
        return Err("a name has letters, digits and any of -_.@/".to_owned());
    }
    Ok(text.to_owned())
}

/// Makes a token.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let Command::New { role, name, output } = command;
    let unexpected = |message: &str| Failure { kind: Kind::Unexpected, message: message.to_owned() };
    let token = Token::random().ok_or_else(|| unexpected("the kernel gives no random numbers"))?;
    if let Some(path) = output {
        write(path, &token).map_err(|error| Failure {
            kind: Kind::Usage,
            message: format!("cannot write {}: {error}", path.display()),
        })?;
    }
    let digest = token.digest();
    writeln!(std::io::stdout(), "[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{digest}\"\n")
        .map_err(|error| unexpected(&format!("cannot print: {error}")))?;
    if output.is_none() {
        eprintln!("the token of {name}, which is told only now: {}", token.reveal());
    }
    Ok(())
}

fn write(path: &Path, token: &Token) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", token.reveal())?;
    file.sync_all()
}

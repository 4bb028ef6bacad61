//! `chokepoint-collector disown`.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Kind};
use crate::store::embedded::{Disowned, Embedded, Options};

/// Have agents belong to nobody, so that the next token or certificate that streams as one owns it. The collector is to be stopped meanwhile
#[derive(Debug, Args)]
pub(super) struct DisownArguments {
    /// Directory of the store
    #[arg(long, value_name = "DIR", env = "CHOKEPOINT_STORE")]
    store: PathBuf,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Whose {
    /// One agent, as `query agents --json` lists it
    #[arg(long, value_name = "AGENT", value_parser = agent)]
    agent: Option<[u8; 16]>,
    /// All agents of a token or certificate of this name
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
}

fn agent(text: &str) -> Result<[u8; 16], String> {
    crate::access::bytes_of(text).ok_or_else(|| "an agent has 32 hexadecimal digits".to_owned())
}

/// Disowns agents.
pub(super) fn run(arguments: &DisownArguments) -> Result<(), Failure> {
    let store = |error: &dyn std::error::Error| Failure { kind: Kind::Store, message: error.to_string() };
    if !arguments.store.is_dir() {
        let message = format!("there is no store at {}", arguments.store.display());
        return Err(Failure { kind: Kind::Store, message });
    }
    let Whose { agent, owner } = &arguments.whose;
    let whose = match (agent, owner) {
        (Some(agent), _) => Disowned::Agent(*agent),
        (None, owner) => Disowned::Owner(owner.clone().unwrap_or_default()),
    };
    let embedded = Embedded::open(&arguments.store, Options::default()).map_err(|error| store(&error))?;
    let agents = embedded.disown(whose).map_err(|error| store(&error))?;
    println!("agents that belong to nobody now: {agents}");
    Ok(())
}

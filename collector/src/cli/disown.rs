//! `chokepoint-collector disown`.

use clap::Args;
use clap::builder::FalseyValueParser;

use super::place::{Access, Place};
use super::{Failure, Kind};
use crate::store::clickhouse;
use crate::store::embedded::{Disowned, Options};

/// Have agents belong to nobody, so that the next token or certificate that streams as one owns it. A collector with the store in a directory
/// is to be stopped meanwhile
#[derive(Debug, Args)]
pub(super) struct DisownArguments {
    /// The store, as `serve` has it
    #[arg(long, value_name = "DIR|SERVERS", env = "CHOKEPOINT_STORE")]
    store: Place,
    #[command(flatten)]
    access: Access,
    /// Talk to servers of other hosts although what is sent is not encrypted
    #[arg(long, env = "CHOKEPOINT_TRUST_NETWORK", value_parser = FalseyValueParser::new())]
    trust_network: bool,
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
pub(super) fn run(arguments: DisownArguments) -> Result<(), Failure> {
    let DisownArguments { store, access, trust_network, whose } = arguments;
    if let Place::Directory(path) = &store
        && !path.is_dir()
    {
        let message = format!("there is no store at {}", path.display());
        return Err(Failure { kind: Kind::Store, message });
    }
    let whose = match (whose.agent, whose.owner) {
        (Some(agent), _) => Disowned::Agent(agent),
        (None, owner) => Disowned::Owner(owner.unwrap_or_default()),
    };
    // Days are the collectors' to say: none goes before they do.
    let servers = clickhouse::Options { keep: None, ..clickhouse::Options::default() };
    let home = store.home(Options::default(), servers, access, trust_network)?;
    let agents =
        home.disown(whose).map_err(|error| Failure { kind: Kind::Store, message: error.to_string() })?;
    println!("agents that belong to nobody now: {agents}");
    Ok(())
}

//! The command line.
//!
//! Exit codes: 0 it ended as it was asked to, 1 something that should not happen, 2 the command line, a certificate, the tokens or a query
//! make no sense, 3 the store cannot be opened, 4 its address cannot be listened on, 5 no collector answers, or there is no such target, or no
//! profile came of it, 6 the output cannot be written, 7 the collector does not let this caller do that, 130 a profile was cancelled.

mod disown;
mod otlp;
mod place;
mod serve;
mod token;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{profile_command, query_command};

/// The kinds of failure. The numbers are the exit codes and part of the command line's contract; clap ends with 2 by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unexpected = 1,
    Usage = 2,
    Store = 3,
    Listen = 4,
}

/// A failed command.
struct Failure {
    kind: Kind,
    /// One line that says what to do.
    message: String,
}

/// Collects what Chokepoint's agents see on a fleet, and answers what limits it.
#[derive(Debug, Parser)]
#[command(name = "chokepoint-collector", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::ServeArguments>),
    /// Ask a running collector
    Query(query_command::Arguments),
    Profile(profile_command::Arguments),
    #[command(subcommand)]
    Token(token::Command),
    Disown(disown::DisownArguments),
}

/// Runs the command line of this process. `give_back` has the allocator give memory back that is free; a collector does so now and then.
#[must_use]
pub fn main(give_back: fn()) -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("CHOKEPOINT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
    let own = |Failure { kind, message }| (kind as u8, message);
    let result = match arguments.command {
        Command::Serve(arguments) => serve::run(*arguments, give_back).map_err(own),
        Command::Token(command) => token::run(&command).map_err(own),
        Command::Disown(arguments) => disown::run(arguments).map_err(own),
        Command::Query(arguments) => {
            query_command::run(&arguments).map_err(|failure| (failure.exit_code(), failure.message))
        }
        Command::Profile(arguments) => {
            profile_command::run(&arguments).map_err(|failure| (failure.exit_code(), failure.message))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("chokepoint-collector: {message}");
            ExitCode::from(code)
        }
    }
}

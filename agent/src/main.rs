//! The host agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    chokepoint::cli::main()
}

//! The collector.

use std::process::ExitCode;

fn main() -> ExitCode {
    chokepoint_collector::cli::main()
}

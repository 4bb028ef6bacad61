//! The one entry to every tool of the project: `cargo xtask COMMAND`, or `./x COMMAND` where there may be no
//! cargo yet.

#![deny(unsafe_code)]

mod bench;
mod build;
mod burn;
mod demo;
mod lint;
mod packages;
mod setup;
mod stack;
mod test;
mod ui;
mod verdicts;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "The one entry to every tool of the project"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what the build needs; does nothing where all is there
    Setup(setup::Args),
    /// Build the release binaries
    Build,
    /// Build everything and run all tests, as CI does
    Test(test::Args),
    /// Run the live tests on other kernels, in emulated machines
    Vm(vm::Args),
    /// Check formatting, lints and dependencies
    Lint,
    /// Profile this host while a known workload runs: a flame graph, then an agent, a collector and what it answers
    Demo(demo::Args),
    /// Record a live thread's stack, and what unwinding it takes, as a case for the tests
    Stack(stack::Args),
    /// Measure cost and speed against peers, in the same run
    Bench(bench::Args),
    /// Judge what the agent says of programs whose bottleneck is known, or prove that it is theirs
    Verdicts(verdicts::Args),
    /// Burn CPU time in three functions until standard input closes
    #[command(hide = true)]
    Burn,
    /// Send over this network's loopback device as fast as it lets one
    #[command(hide = true)]
    Lossy {
        /// For so many seconds
        seconds: u64,
    },
    /// Tell how much of a CPU's time interrupts take
    #[command(hide = true)]
    Gauge(bench::gauge::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build => build::run(),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::run(args),
        Command::Lint => lint::run(),
        Command::Demo(args) => demo::run(&args),
        Command::Stack(args) => stack::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Verdicts(args) => verdicts::run(&args),
        Command::Gauge(args) => bench::gauge::run(&args),
        Command::Burn => burn::run(),
        Command::Lossy { seconds } => bench::lossy::run_inside(seconds),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}

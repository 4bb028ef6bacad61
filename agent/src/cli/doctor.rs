//! `chokepoint doctor`.

use std::process::ExitCode;

use clap::Args;

use super::{print, print_json};
use crate::doctor::{Report, Status};
use crate::failure::Failure;

/// Arguments of `chokepoint doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 0 where profiling can work, 3 where a privilege is missing, 4 where the host lacks something."
)]
pub struct Arguments {
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// Examines the host and prints what was found to standard output.
///
/// # Errors
/// Only where the findings cannot be printed.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let report = Report::of_this_host();
    if arguments.json {
        print_json(&report)?;
    } else {
        print(&render(&report))?;
    }
    Ok(report.failure().map_or(ExitCode::SUCCESS, |kind| ExitCode::from(kind as u8)))
}

fn render(report: &Report) -> String {
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for check in &report.checks {
        let status = match check.status {
            Status::Ok => "ok  ",
            Status::Warning => "warn",
            Status::Failed => "FAIL",
        };
        text += &format!("{status}  {:width$}  {}\n", check.name, check.finding);
        if !check.advice.is_empty() {
            text += &format!("      {:width$}  {}\n", "", check.advice);
        }
    }
    text += if report.can_profile {
        "\nprofiling works on this host\n"
    } else {
        "\nprofiling does not work on this host\n"
    };
    text
}

//! `cargo xtask stack`.

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    setup,
    workspace::{Privilege, cargo, run as run_command, target_dir},
};

/// Options of the recorder, which is an example of the agent and tells them itself.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds the recorder and runs it.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[])?;
    run_command(cargo().args(["build", "--quiet", "--package", "chokepoint", "--example", "record_stack"]))?;
    let recorder = target_dir().join("debug/examples/record_stack");
    run_command(Privilege::probe().command(recorder).args(&args.arguments))
}

//! `cargo xtask lint`.

use std::path::Path;

use anyhow::Result;
use chokepoint_toolchain::{Toolchain, discover};

use crate::{
    build, setup,
    workspace::{cargo, on_path, run as run_command, step},
};

/// Runs every check, and fails at the first that finds something.
pub fn run() -> Result<()> {
    setup::ensure(&[crate::packages::Purpose::Lint])?;
    build::kernel_programs()?;

    step("formatting");
    run_command(cargo().args(["fmt", "--all", "--check"]))?;

    step("clippy, user space and the contract");
    run_command(cargo().args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))?;

    kernel_clippy(&discover()?)?;

    if on_path("cargo-deny") {
        step("dependencies");
        run_command(cargo().args(["deny", "--workspace", "check"]))?;
    } else {
        step(
            "dependencies: skipped, cargo-deny is not installed; `cargo install --locked cargo-deny` gets it",
        );
    }
    Ok(())
}

fn kernel_clippy(toolchain: &Toolchain) -> Result<()> {
    let clippy = toolchain.cargo.with_file_name("cargo-clippy");
    if !clippy.is_file() {
        step(&format!("clippy, kernel programs: skipped, {} is not there", clippy.display()));
        return Ok(());
    }
    step("clippy, kernel programs");
    let build = build::kernel_build(toolchain)?;
    let mut command = build.subcommand(Path::new(&clippy), "clippy");
    run_command(command.args(["--quiet", "--", "--deny", "warnings"]))
}

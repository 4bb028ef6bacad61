//! `cargo xtask build`.

use std::{env::consts::ARCH, path::PathBuf};

use anyhow::{Context, Result};
use chokepoint_toolchain::{KernelBuild, Toolchain, discover};

use crate::{
    setup,
    workspace::{cargo, root, run as run_command, step, target_dir},
};

/// Package and name of each program that a user installs.
const BINARIES: [&str; 1] = ["chokepoint"];

/// Builds the release binaries.
pub fn run() -> Result<()> {
    binaries()?;
    for binary in BINARIES {
        println!("{}", binary_path(binary).display());
    }
    Ok(())
}

/// Brings the release binaries up to date, with all that they need.
pub fn binaries() -> Result<()> {
    setup::ensure(&[])?;
    kernel_programs()?;
    let mut command = cargo();
    command.args(["build", "--release"]);
    for binary in BINARIES {
        command.args(["--package", binary, "--bin", binary]);
    }
    run_command(&mut command)
}

/// Compiles the kernel programs where that has never been done. The agent's build script would as well, but
/// mute, and it takes a minute.
pub fn kernel_programs() -> Result<()> {
    let toolchain = discover()?;
    let build = kernel_build(&toolchain)?;
    if build.object().exists() {
        return Ok(());
    }
    step(&format!("compiling the kernel programs with {}, about a minute", toolchain.name));
    run_command(&mut build.command())
}

/// The build of the kernel programs for this machine.
pub fn kernel_build(toolchain: &Toolchain) -> Result<KernelBuild<'_>> {
    KernelBuild::new(toolchain, root(), &target_dir(), ARCH).context("this machine cannot be profiled")
}

/// Where a release binary is.
pub fn binary_path(name: &str) -> PathBuf {
    target_dir().join("release").join(name)
}

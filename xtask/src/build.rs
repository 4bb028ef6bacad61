//! `cargo xtask build`.

use std::{env::consts::ARCH, path::PathBuf};

use anyhow::{Context, Result};
use chokepoint_toolchain::{KernelBuild, Toolchain, discover};

use crate::{
    setup, ui,
    workspace::{cargo, root, run as run_command, step, target_dir},
};

/// Package and name of the program that profiles a host.
pub const AGENT: &str = "chokepoint";
/// Package and name of the program that agents stream to.
pub const COLLECTOR: &str = "chokepoint-collector";

/// Builds the release binaries.
pub fn run() -> Result<()> {
    let all = [AGENT, COLLECTOR];
    binaries(&all)?;
    for binary in all {
        println!("{}", binary_path(binary).display());
    }
    Ok(())
}

/// Brings these release binaries up to date, with all that they need.
pub fn binaries(names: &[&str]) -> Result<()> {
    setup::ensure(&[])?;
    kernel_programs()?;
    if names.contains(&COLLECTOR) {
        ui::build()?;
    }
    let mut command = cargo();
    command.args(["build", "--release"]);
    for name in names {
        command.args(["--package", name, "--bin", name]);
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

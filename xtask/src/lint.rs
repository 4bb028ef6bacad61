//! `cargo xtask lint`.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use chokepoint_toolchain::discover;

use crate::{
    build,
    packages::Purpose,
    setup,
    workspace::{cargo, on_path, run as run_command, step},
};

/// Runs every check, and fails if any found something.
pub fn run() -> Result<()> {
    setup::ensure(&[Purpose::Lint])?;
    build::kernel_programs()?;

    let mut formatting = cargo();
    formatting.args(["fmt", "--all", "--check"]);

    let mut clippy = cargo();
    clippy.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]);

    let mut checks = vec![("formatting", formatting), ("clippy, user space and the contract", clippy)];
    if let Some(kernel_clippy) = kernel_clippy()? {
        checks.push(("clippy, kernel programs", kernel_clippy));
    }
    checks.extend(dependency_checks());

    let mut failed = Vec::new();
    for (name, mut check) in checks {
        step(name);
        if let Err(error) = run_command(&mut check) {
            eprintln!("{error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint found something in: {}", failed.join("; "));
    }
    Ok(())
}

/// What deny.toml demands. Known vulnerabilities are listed in a repository that not every machine reaches;
/// the rest needs no network.
fn dependency_checks() -> Vec<(&'static str, Command)> {
    if !on_path("cargo-deny") {
        step("dependencies: skipped, cargo-deny is not there; `cargo install --locked cargo-deny` gets it");
        return Vec::new();
    }
    let deny = |what: &[&str]| {
        let mut command = cargo();
        command.args(["deny", "--log-level", "error", "check", "--hide-inclusion-graph"]).args(what);
        command
    };
    let mut checks = vec![("dependencies", deny(&["bans", "licenses", "sources"]))];
    let mut fetch = cargo();
    fetch.args(["deny", "--log-level", "off", "fetch", "db"]).stderr(Stdio::null());
    match run_command(&mut fetch) {
        Ok(()) => checks.push(("known vulnerabilities", deny(&["--disable-fetch", "advisories"]))),
        Err(_) => step("known vulnerabilities: skipped, their list cannot be fetched"),
    }
    checks
}

/// Clippy of the toolchain that compiles the kernel programs; other toolchains' cannot read its `core`.
fn kernel_clippy() -> Result<Option<Command>> {
    let toolchain = discover()?;
    let clippy = toolchain.cargo.with_file_name("cargo-clippy");
    if !clippy.is_file() {
        step(&format!(
            "clippy, kernel programs: skipped, there is no {}; Debian packages it as rust-web-clippy, rustup as clippy",
            clippy.display()
        ));
        return Ok(None);
    }
    let mut command = build::kernel_build(&toolchain)?.subcommand(&clippy, "clippy");
    command.args(["--quiet", "--", "--deny", "warnings"]);
    Ok(Some(command))
}

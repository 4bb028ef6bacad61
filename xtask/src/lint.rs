//! `cargo xtask lint`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, bail};
use chokepoint_toolchain::{KernelBuild, discover};

use crate::{
    build,
    packages::Purpose,
    setup, ui,
    workspace::{cargo, on_path, root, run as run_command, step, target_dir},
};

/// Processors that the kernel programs are compiled for, with what the check is called. On the other one than this machine's
/// nothing is ever run.
const ARCHES: [(&str, &str); 2] =
    [("x86_64", "clippy, kernel programs for x86-64"), ("aarch64", "clippy, kernel programs for aarch64")];

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
    checks.extend(kernel_clippy()?);
    checks.extend(other_clippy());
    checks.extend(dependency_checks());
    checks.extend(ui::checks()?);

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

/// Clippy of the agent for the processor that this machine is not, where its standard library and a C compiler are there.
fn other_clippy() -> Option<(&'static str, Command)> {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    const C_COMPILER: &str = "aarch64-linux-gnu-gcc";
    if std::env::consts::ARCH == "aarch64" {
        return None;
    }
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(root())
        .output();
    let has_library = output
        .is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim_end()).read_dir().is_ok());
    if !has_library || !on_path(C_COMPILER) {
        step(&format!(
            "clippy, the agent for aarch64: skipped; it needs `rustup target add {TARGET}` and Debian's \
             gcc-aarch64-linux-gnu with libc6-dev-arm64-cross"
        ));
        return None;
    }
    let mut command = cargo();
    command.args(["clippy", "--quiet", "--locked", "--package", "chokepoint", "--target", TARGET]);
    command.args(["--", "--deny", "warnings"]).env("CC_aarch64_unknown_linux_gnu", C_COMPILER);
    Some(("clippy, the agent for aarch64", command))
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
fn kernel_clippy() -> Result<Vec<(&'static str, Command)>> {
    let toolchain = discover()?;
    let clippy = toolchain.cargo.with_file_name("cargo-clippy");
    if !clippy.is_file() {
        step(&format!(
            "clippy, kernel programs: skipped, there is no {}; Debian packages it as rust-web-clippy, rustup as clippy",
            clippy.display()
        ));
        return Ok(Vec::new());
    }
    let check = |(arch, name)| {
        let build = KernelBuild::new(&toolchain, root(), &target_dir(), arch)?;
        let mut command = build.subcommand(&clippy, "clippy");
        command.args(["--quiet", "--", "--deny", "warnings"]);
        Ok((name, command))
    };
    ARCHES.into_iter().map(check).collect()
}

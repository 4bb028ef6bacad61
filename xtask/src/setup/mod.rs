//! `cargo xtask setup`: finds what the build needs, and installs what is missing.

mod apt;
mod plan;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use chokepoint_toolchain::{BPF_LINKER_VERSION, Installed, LLVM_MAJOR, Linker, discover};

use crate::{
    packages::{Package, Purpose},
    workspace::{Privilege, cargo, run as run_command, step},
};
use plan::{Machine, Step};

/// Options of the setup.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also install what the tests need
    #[arg(long)]
    test: bool,
    /// Also install what the lints need
    #[arg(long)]
    lint: bool,
    /// Also install the peers that benchmarks compare with
    #[arg(long)]
    bench: bool,
    /// All of the above
    #[arg(long)]
    all: bool,
    /// Also install the servers of the collector's distributed home, which is not part of --all
    #[arg(long)]
    clickhouse: bool,
}

/// Sets up, and says what there is.
pub fn run(args: &Args) -> Result<()> {
    let purposes = [(args.test, Purpose::Test), (args.lint, Purpose::Lint), (args.bench, Purpose::Bench)];
    let purposes = purposes.into_iter().filter(|(asked, _)| *asked || args.all).map(|(_, purpose)| purpose);
    let servers = args.clickhouse.then_some(Purpose::ClickHouse);
    let purposes: Vec<_> = [Purpose::Page].into_iter().chain(purposes).chain(servers).collect();
    ensure(&purposes)?;
    let toolchain = discover()?;
    println!("compiler of the kernel programs: {} ({})", toolchain.name, toolchain.version);
    println!("linker of the kernel programs:   {}", toolchain.bpf_linker.display());
    Ok(())
}

/// Makes sure that the build has what it needs, and the given purposes too; silent if there is nothing to
/// do.
pub fn ensure(purposes: &[Purpose]) -> Result<()> {
    let started = Instant::now();
    let installed = Installed::probe();
    let linker_runs = installed.linker.exists && runs(&installed.linker.path);
    let present = apt::installed_packages();
    let machine = Machine { installed, linker_runs, llvm_prefix: llvm_prefix(), present };

    let wanted = machine.wanted_packages(purposes);
    if machine.can_build() && wanted.is_empty() {
        return Ok(());
    }
    let offered = if !wanted.is_empty() && apt::is_there() { Some(offers(&wanted)?) } else { None };
    let plan = match machine.plan(purposes, offered.as_ref()) {
        Ok(plan) => plan,
        Err(obstacles) => bail!("setup cannot go on:\n  - {}", obstacles.join("\n  - ")),
    };
    for notice in &plan.notices {
        step(notice);
    }
    for planned in &plan.steps {
        execute(planned)?;
    }
    if !plan.steps.is_empty() {
        discover()?;
        step(&format!("set up in {:.0} s", started.elapsed().as_secs_f64()));
    }
    Ok(())
}

/// Refreshes the package lists, as a bare machine has none, and asks for the versions they offer.
fn offers(wanted: &[Package]) -> Result<plan::Offered> {
    let privilege = Privilege::probe();
    if privilege == Privilege::User {
        bail!(
            "packages are missing, and only root can install them; run\n  sudo apt-get update\n  sudo {}\nthen try again",
            apt::install_command_line(wanted)
        );
    }
    step("refreshing the package lists");
    apt::update(privilege)?;
    apt::candidates(wanted)
}

fn execute(planned: &Step) -> Result<()> {
    match planned {
        Step::Install(packages) => {
            let names: Vec<_> = packages.iter().map(|package| package.name).collect();
            step(&format!("installing {}", names.join(" ")));
            apt::install(Privilege::probe(), packages)
        }
        Step::AddRustSrc { toolchain } => {
            step(&format!("adding rust-src to {toolchain}"));
            let mut command = std::process::Command::new("rustup");
            run_command(command.args(["component", "add", "rust-src", "--toolchain", toolchain]))
        }
        Step::BuildLinker => build_linker(),
    }
}

/// Builds bpf-linker where [`Linker::cache_root`] says. What was compiled stays until it is complete, so
/// that an interrupted build goes on where it was.
fn build_linker() -> Result<()> {
    let Some(llvm_prefix) = llvm_prefix() else {
        bail!(
            "LLVM {LLVM_MAJOR} with its headers is still not found; set LLVM_PREFIX to where it is installed"
        );
    };
    step(&format!("building bpf-linker {BPF_LINKER_VERSION}, two minutes or three, once"));
    let root = Linker::cache_root();
    let build_dir = root.join("build");
    fs::create_dir_all(&build_dir).with_context(|| format!("cannot create {}", build_dir.display()))?;
    // Else cargo warns that the executable is not on the search path, where it need not be.
    let mut search_path = env::var_os("PATH").unwrap_or_default();
    search_path.push(":");
    search_path.push(root.join("bin"));
    let mut command = cargo();
    command
        .current_dir(&root)
        .env("PATH", search_path)
        .args(["install", "bpf-linker", "--locked", "--force"])
        .arg(format!("--version={BPF_LINKER_VERSION}"))
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{LLVM_MAJOR}"))
        .arg("--root")
        .arg(&root)
        .arg("--target-dir")
        .arg(&build_dir)
        .env("LLVM_PREFIX", llvm_prefix)
        // The work is LLVM's: this takes a third off the build, and links as fast.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    run_command(&mut command)?;
    fs::remove_dir_all(&build_dir).with_context(|| format!("cannot remove {}", build_dir.display()))
}

/// Where LLVM is installed with its headers, as distributions place it.
fn llvm_prefix() -> Option<PathBuf> {
    let named = env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let usual = [format!("/usr/lib/llvm-{LLVM_MAJOR}"), format!("/usr/lib64/llvm{LLVM_MAJOR}")];
    named.into_iter().chain(usual.map(PathBuf::from)).find(|prefix| {
        prefix.join("bin/llvm-config").exists() && prefix.join("include/llvm-c/Core.h").exists()
    })
}

/// Whether the linker finds its libraries: an upgrade may have taken the LLVM it was built with.
fn runs(linker: &Path) -> bool {
    let mut command = std::process::Command::new(linker);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

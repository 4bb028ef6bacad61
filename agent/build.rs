//! Compiles the kernel programs, and leaves the object as `OUT_DIR/chokepoint-ebpf` for the loader to embed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use chokepoint_toolchain::{BPF_LINKER_ENV, KernelBuild, discover, target_dir};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    for name in [BPF_LINKER_ENV, "RUSTUP_HOME", "XDG_CACHE_HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");

    let out_dir = variable("OUT_DIR").map(PathBuf::from)?;
    let manifest_dir = variable("CARGO_MANIFEST_DIR").map(PathBuf::from)?;
    let workspace = manifest_dir.parent().ok_or("the agent's directory has no parent")?;
    let toolchain = discover().map_err(|missing| missing.to_string())?;
    // Without a tagged target directory, one below OUT_DIR still works; profiles just do not share it.
    let outer_target_dir = target_dir(&out_dir).unwrap_or_else(|| out_dir.clone());
    let build =
        KernelBuild::new(&toolchain, workspace, &outer_target_dir, &variable("CARGO_CFG_TARGET_ARCH")?)
            .map_err(|unsupported| unsupported.to_string())?;
    for source in build.sources() {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    compile(&build)?;
    copy(&build.object(), &out_dir.join("chokepoint-ebpf"))
}

/// The compiler's own words go to standard error, which cargo shows if this fails; if it does not, warnings
/// are passed on as this build script's.
fn compile(build: &KernelBuild<'_>) -> Result<(), String> {
    let mut command = build.command();
    let output = command
        .arg("--quiet")
        .output()
        .map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
    let diagnostics = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprint!("{diagnostics}");
        return Err(format!(
            "the kernel programs do not compile ({}); the compiler's output is below",
            output.status
        ));
    }
    for line in diagnostics.lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::warning={line}");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to)
        .map(drop)
        .map_err(|error| format!("cannot copy {} to {}: {error}", from.display(), to.display()))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}; this runs as a build script of cargo only"))
}

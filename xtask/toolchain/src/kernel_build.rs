//! The command that compiles the kernel programs.
//!
//! It is a cargo of another toolchain, run from inside a cargo (a build script) or from a tool that a cargo
//! started. So it must inherit nothing that describes the outer build, and must not wait for a lock that
//! the outer build holds: it gets a target directory of its own, below the outer one, which all profiles of
//! the outer build share.

use std::{
    env,
    error::Error,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Toolchain;

/// Package of the kernel side, and name of the agent's programs in it.
const PACKAGE: &str = "chokepoint-ebpf";

/// Name of the programs that the benchmarks compare those with.
const BASELINE: &str = "chokepoint-ebpf-baseline";

/// The little-endian BPF target, which all supported processors use.
const TARGET: &str = "bpfel-unknown-none";

/// Processors whose registers the kernel programs can read.
const ARCHES: [&str; 2] = ["x86_64", "aarch64"];

/// Variables of the outer build that stay, by prefix: where things are downloaded to and how, how the
/// output looks, and the job server, so that both builds together keep to the number of jobs.
const KEPT: [&str; 7] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_TERM_",
];

/// A build of the kernel programs.
#[derive(Clone, Debug)]
pub struct KernelBuild<'a> {
    toolchain: &'a Toolchain,
    workspace: &'a Path,
    arch: &'static str,
    target_dir: PathBuf,
    /// Name of the programs, and the feature that holds them.
    binary: &'static str,
    feature: &'static str,
}

/// The kernel programs have not been ported to a processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedArch(String);

impl<'a> KernelBuild<'a> {
    /// A build of `workspace`'s kernel programs for kernels of `arch`, below the target directory of the
    /// outer build.
    pub fn new(
        toolchain: &'a Toolchain,
        workspace: &'a Path,
        outer_target_dir: &Path,
        arch: &str,
    ) -> Result<Self, UnsupportedArch> {
        let arch = ARCHES
            .into_iter()
            .find(|known| *known == arch)
            .ok_or_else(|| UnsupportedArch(arch.to_owned()))?;
        // Each processor has a directory of its own, or they would compile everything anew in turns.
        let directory = if arch == env::consts::ARCH { "ebpf".to_owned() } else { format!("ebpf-{arch}") };
        let target_dir = outer_target_dir.join(directory);
        Ok(Self { toolchain, workspace, arch, target_dir, binary: PACKAGE, feature: "kernel" })
    }

    /// The same for what the benchmarks compare the agent's programs with.
    pub fn baseline(self) -> Self {
        Self { binary: BASELINE, feature: "baseline", ..self }
    }

    /// The command that brings [`Self::object`] up to date.
    pub fn command(&self) -> Command {
        let mut command = self.cargo(&self.toolchain.cargo, "build");
        command.arg("--release");
        command
    }

    /// The same programs through another subcommand of cargo, given as its own executable (`cargo-clippy`).
    pub fn subcommand(&self, executable: &Path, name: &str) -> Command {
        let mut command = self.cargo(executable, name);
        command.env("CARGO", &self.toolchain.cargo);
        command
    }

    /// The ELF object that the command leaves.
    pub fn object(&self) -> PathBuf {
        [self.target_dir.as_path(), Path::new(TARGET), Path::new("release"), Path::new(self.binary)]
            .iter()
            .collect()
    }

    /// The files and directories the object is made of; none else has to be watched.
    pub fn sources(&self) -> Vec<PathBuf> {
        ["agent-ebpf/src", "agent-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"]
            .iter()
            .map(|path| self.workspace.join(path))
            .chain([self.toolchain.bpf_linker.clone(), self.toolchain.rustc.clone()])
            .collect()
    }

    fn cargo(&self, executable: &Path, subcommand: &str) -> Command {
        let mut command = Command::new(executable);
        for (name, _) in env::vars_os().filter(|(name, _)| belongs_to_outer_build(name)) {
            command.env_remove(name);
        }
        command
            .current_dir(self.workspace)
            .env("RUSTC", &self.toolchain.rustc)
            // Empty, not absent: a wrapper in the user's cargo configuration would be for their compiler.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "")
            // `-Z build-std` is a nightly feature; this opens it in a stable compiler.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags())
            .arg(subcommand)
            .args(["--locked", "--package", PACKAGE, "--bin", self.binary, "--features", self.feature])
            .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
            .arg(&self.target_dir);
        command
    }

    /// Flags, separated as cargo wants it so that paths may contain spaces.
    fn rustflags(&self) -> String {
        let known_arches = ARCHES.map(|arch| format!("\"{arch}\"")).join(",");
        [
            format!("-Clinker={}", self.toolchain.bpf_linker.display()),
            // The loader relocates by BTF, and bpf-linker makes BTF from debug information.
            "-Clink-arg=--btf".to_owned(),
            "-Cdebuginfo=2".to_owned(),
            format!("--cfg=bpf_target_arch=\"{}\"", self.arch),
            format!("--check-cfg=cfg(bpf_target_arch,values({known_arches}))"),
        ]
        .join("\x1f")
    }
}

/// The root of the target directory that `path` lies in: the outermost ancestor that cargo has tagged as a
/// cache. Not the environment's `CARGO_TARGET_DIR`, which is one of several ways to set it.
pub fn target_dir(path: &Path) -> Option<PathBuf> {
    path.ancestors().filter(|dir| dir.join("CACHEDIR.TAG").is_file()).last().map(Path::to_owned)
}

fn belongs_to_outer_build(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let toolchain = ["CARGO", "__CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS"];
    // Set by cargo and rustup for the toolchain of the outer build.
    let exact = ["RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "MAKEFLAGS", "MFLAGS"];
    let belongs = toolchain.iter().any(|prefix| name.starts_with(prefix)) || exact.contains(&name);
    belongs && !KEPT.iter().any(|prefix| name.starts_with(prefix))
}

impl Error for UnsupportedArch {}

impl fmt::Display for UnsupportedArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel programs run on {}, not on {}", ARCHES.join(" and "), self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ffi::OsString, fs};

    use super::*;
    use crate::{LLVM_MAJOR, MIN_RUST, Origin, Version};

    fn toolchain() -> Toolchain {
        Toolchain {
            origin: Origin::System,
            name: "/usr/bin/rustc".to_owned(),
            version: Version { rust: MIN_RUST, llvm_major: LLVM_MAJOR },
            rustc: "/usr/bin/rustc".into(),
            cargo: "/usr/bin/cargo".into(),
            bpf_linker: "/a cache/bpf-linker".into(),
        }
    }

    #[test]
    fn only_what_describes_the_outer_build_is_removed() {
        let check = |name: &str, expected: bool| {
            assert_eq!(belongs_to_outer_build(OsStr::new(name)), expected, "{name}");
        };
        for name in [
            "CARGO",
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_TARGET_DIR",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
        ] {
            check(name, true);
        }
        for name in
            ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_MAKEFLAGS", "CARGO_NET_OFFLINE", "CARGO_TERM_COLOR"]
        {
            check(name, false);
        }
        for name in
            ["PATH", "HOME", "RUSTUP_HOME", "RUST_BACKTRACE", "SSL_CERT_FILE", "CHOKEPOINT_BPF_LINKER"]
        {
            check(name, false);
        }
    }

    #[test]
    fn the_command_pins_compiler_linker_and_target_directory() {
        let toolchain = toolchain();
        let build =
            KernelBuild::new(&toolchain, Path::new("/src"), Path::new("/src/target"), "x86_64").unwrap();
        let command = build.command();
        assert_eq!(command.get_program(), "/usr/bin/cargo");
        let args: Vec<_> = command.get_args().collect();
        let directory = if cfg!(target_arch = "x86_64") { "ebpf" } else { "ebpf-x86_64" };
        let directory = Path::new("/src/target").join(directory);
        assert!(
            args.windows(2).any(|pair| pair == [OsStr::new("--target-dir"), directory.as_os_str()]),
            "{args:?}"
        );
        let env: BTreeMap<_, _> =
            command.get_envs().filter_map(|(name, value)| Some((name, value?.to_owned()))).collect();
        assert_eq!(env[OsStr::new("RUSTC")], "/usr/bin/rustc");
        assert_eq!(env[OsStr::new("RUSTC_WRAPPER")], OsString::new());
        let flags = env[OsStr::new("CARGO_ENCODED_RUSTFLAGS")].to_str().unwrap();
        let flags: Vec<_> = flags.split('\x1f').collect();
        assert!(flags.contains(&"-Clinker=/a cache/bpf-linker"), "{flags:?}");
        assert!(flags.contains(&"--cfg=bpf_target_arch=\"x86_64\""), "{flags:?}");
        assert_eq!(build.object(), directory.join("bpfel-unknown-none/release/chokepoint-ebpf"));
    }

    #[test]
    fn a_processor_without_a_port_is_refused() {
        let error =
            KernelBuild::new(&toolchain(), Path::new("/src"), Path::new("/t"), "riscv64").unwrap_err();
        assert_eq!(error.to_string(), "the kernel programs run on x86_64 and aarch64, not on riscv64");
    }

    #[test]
    fn the_target_directory_is_the_outermost_tagged_one() {
        let root = env::temp_dir().join(format!("chokepoint-toolchain-{}", std::process::id()));
        let out_dir = root.join("target/x86_64-unknown-linux-gnu/debug/build/chokepoint-1/out");
        fs::create_dir_all(&out_dir).unwrap();
        let untagged = target_dir(&out_dir);
        fs::write(root.join("target/CACHEDIR.TAG"), "").unwrap();
        fs::write(root.join("target/x86_64-unknown-linux-gnu/CACHEDIR.TAG"), "").unwrap();
        let tagged = target_dir(&out_dir);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(untagged, None);
        assert_eq!(tagged, Some(root.join("target")));
    }
}

//! What this machine has: every compiler that could be meant, and the linker.

use std::{
    env, fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{BPF_LINKER_ENV, BPF_LINKER_VERSION};

/// Directories in which a distribution puts its compiler.
const SYSTEM_BIN_DIRS: [&str; 2] = ["/usr/bin", "/usr/local/bin"];

/// Everything the choice of a toolchain depends on.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Compilers in the order of preference.
    pub compilers: Vec<Compiler>,
    /// The linker.
    pub linker: Linker,
}

/// A Rust compiler, usable or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// Where it comes from.
    pub origin: Origin,
    /// How a user knows it: the toolchain's name or the executable's path.
    pub name: String,
    /// The `rustc` executable.
    pub rustc: PathBuf,
    /// The `cargo` executable beside it, if there is one.
    pub cargo: Option<PathBuf>,
    /// What `rustc -vV` reports; nothing if it does not run.
    pub version: Option<Version>,
    /// Whether the standard library's source lies in its sysroot.
    pub has_rust_src: bool,
}

/// Where a compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A toolchain below rustup's home.
    Rustup,
    /// The distribution's package.
    System,
}

/// What a compiler says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Major and minor number of the Rust release.
    pub rust: (u32, u32),
    /// Major version of the LLVM it carries.
    pub llvm_major: u32,
}

/// The `bpf-linker` executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    /// Where it is, or would be.
    pub path: PathBuf,
    /// Whether an executable file is there.
    pub exists: bool,
    /// Whether the user named it, through [`BPF_LINKER_ENV`].
    pub named_by_user: bool,
}

impl Installed {
    /// Looks at this machine.
    pub fn probe() -> Self {
        let rustup = env::var_os("RUSTUP_HOME").map_or_else(|| home().join(".rustup"), PathBuf::from);
        let mut compilers = rustup_compilers(&rustup);
        compilers.extend(SYSTEM_BIN_DIRS.iter().filter_map(|dir| system_compiler(Path::new(dir))));
        Self { compilers, linker: Linker::probe() }
    }
}

impl Linker {
    /// The directory `cargo install --root` is given: outside `target/`, because building it takes minutes
    /// and `cargo clean` should not cost them again.
    pub fn cache_root() -> PathBuf {
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .unwrap_or_else(|| home().join(".cache"));
        cache.join("chokepoint").join(format!("bpf-linker-{BPF_LINKER_VERSION}"))
    }

    fn probe() -> Self {
        let named = env::var_os(BPF_LINKER_ENV).filter(|path| !path.is_empty());
        let named_by_user = named.is_some();
        let path = named.map_or_else(|| Self::cache_root().join("bin/bpf-linker"), PathBuf::from);
        Self { exists: is_executable(&path), path, named_by_user }
    }
}

impl Version {
    /// Reads the output of `rustc -vV`.
    pub fn parse(verbose: &str) -> Option<Self> {
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let mut release = field("release")?.split(['.', '-']);
        let rust = (release.next()?.parse().ok()?, release.next()?.parse().ok()?);
        let llvm_major = field("LLVM version")?.split('.').next()?.parse().ok()?;
        Some(Self { rust, llvm_major })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rust {}.{} with LLVM {}", self.rust.0, self.rust.1, self.llvm_major)
    }
}

/// Nightly toolchains first, then the others, each by name: the choice must not depend on the order in
/// which a directory is read.
fn rustup_compilers(home: &Path) -> Vec<Compiler> {
    let mut names: Vec<String> = fs::read_dir(home.join("toolchains"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_by_key(|name| (!name.starts_with("nightly"), name.clone()));
    names
        .into_iter()
        .map(|name| {
            let sysroot = home.join("toolchains").join(&name);
            let rustc = sysroot.join("bin/rustc");
            let cargo = sysroot.join("bin/cargo");
            Compiler {
                origin: Origin::Rustup,
                version: ask_version(&rustc),
                cargo: is_executable(&cargo).then_some(cargo),
                has_rust_src: has_rust_src(&sysroot),
                rustc,
                name,
            }
        })
        .collect()
}

fn system_compiler(bin_dir: &Path) -> Option<Compiler> {
    let rustc = bin_dir.join("rustc");
    let cargo = bin_dir.join("cargo");
    if !is_executable(&rustc) {
        return None;
    }
    let sysroot = ask(&rustc, &["--print", "sysroot"]);
    Some(Compiler {
        origin: Origin::System,
        name: rustc.display().to_string(),
        version: ask_version(&rustc),
        cargo: is_executable(&cargo).then_some(cargo),
        has_rust_src: sysroot.is_some_and(|sysroot| has_rust_src(Path::new(sysroot.trim_end()))),
        rustc,
    })
}

fn has_rust_src(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
}

fn ask_version(rustc: &Path) -> Option<Version> {
    Version::parse(&ask(rustc, &["-vV"])?)
}

fn ask(rustc: &Path, args: &[&str]) -> Option<String> {
    // Below rustup's cargo both variables describe that cargo's toolchain, not this compiler's.
    let output = Command::new(rustc)
        .args(args)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn home() -> PathBuf {
    env::home_dir().unwrap_or_else(|| PathBuf::from("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A toolchain as rustup lays it out, whose compiler only tells its version.
    fn install(home: &Path, name: &str, release: &str, has_rust_src: bool) {
        let sysroot = home.join("toolchains").join(name);
        fs::create_dir_all(sysroot.join("bin")).unwrap();
        for program in ["rustc", "cargo"] {
            let path = sysroot.join("bin").join(program);
            fs::write(&path, format!("#!/bin/sh\necho 'release: {release}\nLLVM version: 22.1.8'\n"))
                .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        if has_rust_src {
            let core = sysroot.join("lib/rustlib/src/rust/library/core/src");
            fs::create_dir_all(&core).unwrap();
            fs::write(core.join("lib.rs"), "").unwrap();
        }
    }

    #[test]
    fn of_rustups_toolchains_the_first_nightly_with_the_source_is_taken() {
        let home = env::temp_dir().join(format!("chokepoint-rustup-{}", std::process::id()));
        install(&home, "1.96-x86_64", "1.96.0", true);
        install(&home, "nightly-a", "1.97.0-nightly", false);
        install(&home, "nightly-b", "1.98.0-nightly", true);
        let compilers = rustup_compilers(&home);
        let linker = Linker { path: "/linker".into(), exists: true, named_by_user: false };
        let chosen = Installed { compilers, linker }.choose();
        fs::remove_dir_all(&home).unwrap();
        let chosen = chosen.unwrap();
        assert_eq!((chosen.name.as_str(), chosen.version.rust), ("nightly-b", (1, 98)));
        assert_eq!(chosen.rustc, home.join("toolchains/nightly-b/bin/rustc"));
        assert_eq!(chosen.cargo, home.join("toolchains/nightly-b/bin/cargo"));
    }

    fn check(verbose: &str, expected: Option<(u32, u32, u32)>) {
        let found = Version::parse(verbose).map(|v| (v.rust.0, v.rust.1, v.llvm_major));
        assert_eq!(found, expected, "{verbose}");
    }

    #[test]
    fn a_compiler_is_known_by_release_and_llvm() {
        check("rustc 1.96.0\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n", Some((1, 96, 22)));
        check("release: 1.97.0-nightly\nLLVM version: 22.1.4", Some((1, 97, 22)));
        check("release: 1.95.0-beta.3\nLLVM version: 23.0", Some((1, 95, 23)));
    }

    #[test]
    fn a_compiler_that_does_not_say_is_unknown() {
        check("", None);
        check("release: 1.96.0", None);
        check("LLVM version: 22.1.8", None);
        check("release: unknown\nLLVM version: 22.1.8", None);
    }
}

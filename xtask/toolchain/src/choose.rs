//! Which of the installed compilers builds the kernel programs, or what is missing for it.

use std::{error::Error, fmt, path::PathBuf};

use crate::{
    BPF_LINKER_ENV, BPF_LINKER_VERSION, LLVM_MAJOR, MIN_RUST,
    installed::{Compiler, Installed, Linker, Origin, Version},
};

/// A compiler and a linker that fit each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Where the compiler comes from.
    pub origin: Origin,
    /// How a user knows the compiler: the toolchain's name or the executable's path.
    pub name: String,
    /// The compiler's version.
    pub version: Version,
    /// The `rustc` executable.
    pub rustc: PathBuf,
    /// The `cargo` executable that belongs to it.
    pub cargo: PathBuf,
    /// The `bpf-linker` executable.
    pub bpf_linker: PathBuf,
}

/// Everything that is missing to build the kernel programs; at least one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub Vec<Shortage>);

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// No compiler qualifies.
    Compiler {
        /// The compilers there are, each with why it does not.
        rejected: Vec<(Compiler, Rejection)>,
    },
    /// The linker is not where it is expected.
    Linker(Linker),
}

/// Why a compiler does not qualify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It does not run, or not report its version.
    Unusable,
    /// The workspace needs a newer Rust.
    TooOld(Version),
    /// Its LLVM is not the linker's.
    OtherLlvm(Version),
    /// The standard library's source is not there.
    NoRustSrc,
    /// There is no `cargo` beside it.
    NoCargo,
}

impl Installed {
    /// Takes the first compiler that qualifies.
    pub fn choose(&self) -> Result<Toolchain, Missing> {
        let mut shortages = Vec::new();
        let mut rejected = Vec::new();
        let mut chosen = None;
        for compiler in &self.compilers {
            match compiler.qualify() {
                Ok((version, cargo)) => {
                    chosen = Some((compiler, version, cargo));
                    break;
                }
                Err(rejection) => rejected.push((compiler.clone(), rejection)),
            }
        }
        if chosen.is_none() {
            shortages.push(Shortage::Compiler { rejected });
        }
        if !self.linker.exists {
            shortages.push(Shortage::Linker(self.linker.clone()));
        }
        match chosen {
            Some((compiler, version, cargo)) if shortages.is_empty() => Ok(Toolchain {
                origin: compiler.origin,
                name: compiler.name.clone(),
                version,
                rustc: compiler.rustc.clone(),
                cargo,
                bpf_linker: self.linker.path.clone(),
            }),
            _ => Err(Missing(shortages)),
        }
    }
}

impl Compiler {
    /// What cannot be mended is reported first, so that [`Rejection::NoRustSrc`] means: adding the source
    /// is all it takes.
    fn qualify(&self) -> Result<(Version, PathBuf), Rejection> {
        let version = self.version.ok_or(Rejection::Unusable)?;
        if version.rust < MIN_RUST {
            return Err(Rejection::TooOld(version));
        }
        if version.llvm_major != LLVM_MAJOR {
            return Err(Rejection::OtherLlvm(version));
        }
        let cargo = self.cargo.clone().ok_or(Rejection::NoCargo)?;
        if !self.has_rust_src {
            return Err(Rejection::NoRustSrc);
        }
        Ok((version, cargo))
    }
}

impl Missing {
    /// The compilers that were rejected, if none qualifies.
    pub fn compiler(&self) -> Option<&[(Compiler, Rejection)]> {
        self.0.iter().find_map(|shortage| match shortage {
            Shortage::Compiler { rejected } => Some(rejected.as_slice()),
            Shortage::Linker(_) => None,
        })
    }

    /// The linker, if it is missing.
    pub fn linker(&self) -> Option<&Linker> {
        self.0.iter().find_map(|shortage| match shortage {
            Shortage::Linker(linker) => Some(linker),
            Shortage::Compiler { .. } => None,
        })
    }
}

impl Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kernel programs cannot be built, for want of:")?;
        for shortage in &self.0 {
            write!(f, "\n  - {shortage}")?;
        }
        match self.0.as_slice() {
            // Setup would not touch the user's own choice.
            [Shortage::Linker(linker)] if linker.named_by_user => {
                write!(f, "\nset {BPF_LINKER_ENV} to an executable, or unset it and run `cargo xtask setup`")
            }
            _ => f.write_str("\nrun `cargo xtask setup`"),
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler { rejected } => {
                let (major, minor) = MIN_RUST;
                write!(f, "a Rust compiler, {major}.{minor} or newer, with LLVM {LLVM_MAJOR} and rust-src")?;
                for (compiler, rejection) in rejected {
                    write!(f, "\n      {}: {rejection}", compiler.name)?;
                }
                Ok(())
            }
            Self::Linker(linker) if linker.named_by_user => {
                write!(f, "bpf-linker: {BPF_LINKER_ENV} names {}, no executable file", linker.path.display())
            }
            Self::Linker(linker) => {
                write!(f, "bpf-linker {BPF_LINKER_VERSION}, at {}", linker.path.display())
            }
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable => f.write_str("does not run"),
            Self::TooOld(version) => write!(f, "too old ({version})"),
            Self::OtherLlvm(version) => write!(f, "other LLVM ({version})"),
            Self::NoRustSrc => f.write_str("has no rust-src"),
            Self::NoCargo => f.write_str("has no cargo beside it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FITS: Version = Version { rust: MIN_RUST, llvm_major: LLVM_MAJOR };

    /// A compiler that qualifies.
    fn compiler(name: &str) -> Compiler {
        Compiler {
            origin: if name.starts_with('/') { Origin::System } else { Origin::Rustup },
            name: name.to_owned(),
            rustc: PathBuf::from(format!("{name}/rustc")),
            cargo: Some(PathBuf::from(format!("{name}/cargo"))),
            version: Some(FITS),
            has_rust_src: true,
        }
    }

    fn linker(exists: bool) -> Linker {
        Linker { path: PathBuf::from("/cache/bpf-linker"), exists, named_by_user: false }
    }

    fn check(compilers: Vec<Compiler>, expected: Result<&str, Rejection>) {
        let installed = Installed { compilers, linker: linker(true) };
        match (installed.choose(), expected) {
            (Ok(toolchain), Ok(name)) => {
                assert_eq!(toolchain.name, name);
                assert_eq!(toolchain.rustc, PathBuf::from(format!("{name}/rustc")));
                assert_eq!(toolchain.cargo, PathBuf::from(format!("{name}/cargo")));
                assert_eq!(toolchain.bpf_linker, PathBuf::from("/cache/bpf-linker"));
            }
            (Err(missing), Err(rejection)) => {
                assert_eq!(
                    missing.compiler().expect("a compiler is missing").last().map(|r| r.1),
                    Some(rejection)
                );
                assert_eq!(missing.linker(), None);
            }
            (found, expected) => panic!("found {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn the_first_compiler_that_qualifies_is_taken() {
        check(vec![compiler("nightly"), compiler("/usr/bin/rustc")], Ok("nightly"));
        check(
            vec![
                Compiler { has_rust_src: false, ..compiler("nightly") },
                Compiler { version: None, ..compiler("stable") },
                compiler("/usr/bin/rustc"),
            ],
            Ok("/usr/bin/rustc"),
        );
    }

    #[test]
    fn each_rejection_has_its_cause() {
        let old = Version { rust: (MIN_RUST.0, MIN_RUST.1 - 1), ..FITS };
        let other_llvm = Version { llvm_major: LLVM_MAJOR + 1, ..FITS };
        let base = || compiler("nightly");
        check(vec![Compiler { version: None, ..base() }], Err(Rejection::Unusable));
        check(vec![Compiler { version: Some(old), ..base() }], Err(Rejection::TooOld(old)));
        check(vec![Compiler { version: Some(other_llvm), ..base() }], Err(Rejection::OtherLlvm(other_llvm)));
        check(vec![Compiler { has_rust_src: false, ..base() }], Err(Rejection::NoRustSrc));
        check(vec![Compiler { cargo: None, ..base() }], Err(Rejection::NoCargo));
    }

    #[test]
    fn a_compiler_that_could_not_be_mended_is_not_said_to_want_only_its_source() {
        let old = Version { rust: (1, 63), llvm_major: 14 };
        let debian_default =
            Compiler { version: Some(old), has_rust_src: false, ..compiler("/usr/bin/rustc") };
        check(vec![debian_default], Err(Rejection::TooOld(old)));
    }

    #[test]
    fn the_message_lists_all_that_is_missing_and_the_command() {
        let installed = Installed {
            compilers: vec![Compiler { has_rust_src: false, ..compiler("nightly") }],
            linker: linker(false),
        };
        let missing = installed.choose().expect_err("nothing qualifies");
        assert_eq!(
            missing.to_string(),
            "the kernel programs cannot be built, for want of:\n\
             \x20 - a Rust compiler, 1.95 or newer, with LLVM 22 and rust-src\n\
             \x20     nightly: has no rust-src\n\
             \x20 - bpf-linker 0.13.0, at /cache/bpf-linker\n\
             run `cargo xtask setup`"
        );
    }

    #[test]
    fn a_linker_the_user_named_is_not_looked_for_elsewhere() {
        let named = Linker { named_by_user: true, ..linker(false) };
        let installed = Installed { compilers: vec![compiler("nightly")], linker: named.clone() };
        let missing = installed.choose().expect_err("the named linker is absent");
        assert_eq!(missing, Missing(vec![Shortage::Linker(named)]));
        assert_eq!(
            missing.to_string(),
            "the kernel programs cannot be built, for want of:\n\
             \x20 - bpf-linker: CHOKEPOINT_BPF_LINKER names /cache/bpf-linker, no executable file\n\
             set CHOKEPOINT_BPF_LINKER to an executable, or unset it and run `cargo xtask setup`"
        );
    }
}

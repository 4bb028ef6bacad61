//! What setup will do, decided from what there is, without touching the machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use chokepoint_toolchain::{
    BPF_LINKER_ENV, Compiler, Installed, LLVM_MAJOR, MIN_RUST, Missing, Origin, Rejection, Shortage,
};

use crate::packages::{PACKAGES, Package, Purpose, packages_for};

/// Versions that package lists offer, by package.
pub type Offered = BTreeMap<String, String>;

/// What the decision depends on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Compilers and the linker.
    pub installed: Installed,
    /// Whether the linker runs.
    pub linker_runs: bool,
    /// Where LLVM is, with its headers.
    pub llvm_prefix: Option<PathBuf>,
    /// The project's packages that are there.
    pub present: BTreeSet<&'static str>,
}

/// What to do, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// What stays missing, though the build can do without.
    pub notices: Vec<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Install Debian packages.
    Install(Vec<Package>),
    /// Add the standard library's source to a toolchain of rustup's.
    AddRustSrc {
        /// The toolchain's name.
        toolchain: String,
    },
    /// Build bpf-linker.
    BuildLinker,
}

impl Machine {
    /// Whether the kernel programs can be built as it is.
    pub fn can_build(&self) -> bool {
        self.shortages().0.is_empty()
    }

    /// The packages that a machine of Debian's family lacks for the build and for `purposes`.
    pub fn wanted_packages(&self, purposes: &[Purpose]) -> Vec<Package> {
        let shortages = self.shortages();
        let mut wanted = Vec::new();
        if shortages.compiler().is_some() {
            // All of them, even if present: then they are too old, and installing them upgrades.
            wanted.extend(packages_for(Purpose::Compiler));
        }
        if shortages.linker().is_some_and(|linker| !linker.named_by_user) {
            wanted.extend(self.absent(Purpose::Linker));
        }
        wanted.extend(purposes.iter().flat_map(|purpose| self.absent(*purpose)));
        wanted
    }

    /// Decides. `offered` is what the package lists have of [`Self::wanted_packages`], nothing on a machine
    /// without them. Fails with all that stands in the way.
    pub fn plan(&self, purposes: &[Purpose], offered: Option<&Offered>) -> Result<Plan, Vec<String>> {
        let shortages = self.shortages();
        let mut plan = Plan::default();
        let mut install = Vec::new();
        let mut obstacles = Vec::new();

        if let Some(rejected) = shortages.compiler() {
            let wants_only_source =
                rejected.iter().find(|(c, why)| c.origin == Origin::Rustup && *why == Rejection::NoRustSrc);
            match (offered.map(check_compiler_offer), wants_only_source) {
                (Some(Ok(())), _) => install.extend(packages_for(Purpose::Compiler)),
                (_, Some((compiler, _))) => {
                    plan.steps.push(Step::AddRustSrc { toolchain: compiler.name.clone() });
                }
                (Some(Err(obstacle)), None) => obstacles.push(obstacle),
                (None, None) => obstacles.push(no_compiler(rejected)),
            }
        }

        if let Some(linker) = shortages.linker() {
            let absent: Vec<_> = self.absent(Purpose::Linker).collect();
            if linker.named_by_user {
                obstacles.push(format!(
                    "{BPF_LINKER_ENV} names {}, which does not run: set it to a bpf-linker, or unset it",
                    linker.path.display()
                ));
            } else if let Some(offered) = offered {
                obstacles.extend(absent.iter().filter_map(|package| not_offered(package, offered)));
                install.extend(absent);
            } else if self.llvm_prefix.is_none() {
                obstacles.push(format!(
                    "bpf-linker is built with LLVM {LLVM_MAJOR}: install that with its headers, and set LLVM_PREFIX \
                     if it is in an unusual place"
                ));
            }
            if !linker.named_by_user {
                plan.steps.push(Step::BuildLinker);
            }
        }

        for package in purposes.iter().flat_map(|purpose| self.absent(*purpose)) {
            match offered {
                Some(offered) => {
                    obstacles.extend(not_offered(&package, offered));
                    install.push(package);
                }
                None => plan.notices.push(format!(
                    "not there, and no apt-get to install it: what Debian packages as {}",
                    package.name
                )),
            }
        }

        if !obstacles.is_empty() {
            return Err(obstacles);
        }
        if !install.is_empty() {
            plan.steps.insert(0, Step::Install(install));
        }
        Ok(plan)
    }

    /// What the build lacks; a linker that does not run counts as missing.
    fn shortages(&self) -> Missing {
        let mut missing = self.installed.choose().err().unwrap_or(Missing(Vec::new()));
        if !self.linker_runs && missing.linker().is_none() {
            missing.0.push(Shortage::Linker(self.installed.linker.clone()));
        }
        missing
    }

    fn absent(&self, purpose: Purpose) -> impl Iterator<Item = Package> {
        PACKAGES
            .iter()
            .copied()
            .filter(move |package| package.purpose == purpose && !self.present.contains(package.name))
    }
}

/// Debian 12 has two versions of its newer compiler, and only the one of the security suite will do.
fn check_compiler_offer(offered: &Offered) -> Result<(), String> {
    for package in packages_for(Purpose::Compiler) {
        let Some(version) = offered.get(package.name) else {
            return Err(format!(
                "the package sources do not offer {}; {}",
                package.name,
                add_security_suite()
            ));
        };
        if release(version).is_none_or(|release| release < MIN_RUST) {
            let (major, minor) = MIN_RUST;
            return Err(format!(
                "the package sources offer {} {version}, older than {major}.{minor}; {}",
                package.name,
                add_security_suite()
            ));
        }
    }
    Ok(())
}

fn not_offered(package: &Package, offered: &Offered) -> Option<String> {
    let advice = match package.purpose {
        Purpose::Compiler | Purpose::Linker => add_security_suite(),
        Purpose::Page | Purpose::Test | Purpose::Lint | Purpose::Bench | Purpose::ClickHouse => {
            "install what replaces it".to_owned()
        }
    };
    (!offered.contains_key(package.name))
        .then(|| format!("the package sources do not offer {}; {advice}", package.name))
}

fn add_security_suite() -> String {
    "on Debian 12, add the suite bookworm-security, component main, to the package sources".to_owned()
}

fn no_compiler(rejected: &[(Compiler, Rejection)]) -> String {
    let (major, minor) = MIN_RUST;
    let rejected: String = rejected.iter().map(|(c, why)| format!("\n      {}: {why}", c.name)).collect();
    format!(
        "a Rust compiler {major}.{minor} or newer with LLVM {LLVM_MAJOR} and rust-src: run `rustup toolchain install \
         {major}.{minor} --profile minimal --component rust-src`{rejected}"
    )
}

/// Major and minor number at the start of a package's version.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '+', '-', '~']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use chokepoint_toolchain::{Linker, Version};

    use super::*;

    fn compiler(origin: Origin, name: &str, has_rust_src: bool) -> Compiler {
        Compiler {
            origin,
            name: name.to_owned(),
            rustc: format!("{name}/rustc").into(),
            cargo: Some(format!("{name}/cargo").into()),
            version: Some(Version { rust: MIN_RUST, llvm_major: LLVM_MAJOR }),
            has_rust_src,
        }
    }

    /// A machine on which nothing but these compilers is installed.
    fn bare(compilers: Vec<Compiler>) -> Machine {
        let linker = Linker { path: "/cache/bpf-linker".into(), exists: false, named_by_user: false };
        Machine {
            installed: Installed { compilers, linker },
            linker_runs: false,
            llvm_prefix: None,
            present: BTreeSet::new(),
        }
    }

    fn complete() -> Machine {
        let mut machine = bare(vec![compiler(Origin::System, "/usr/bin/rustc", true)]);
        machine.installed.linker.exists = true;
        machine.linker_runs = true;
        machine
    }

    /// Package lists that have everything, in the versions of Debian 12 with its security suite.
    fn everything() -> Offered {
        PACKAGES.iter().map(|p| (p.name.to_owned(), "1.96.0+dfsg1-1~deb12u2".to_owned())).collect()
    }

    fn installs(purposes: &[Purpose]) -> Step {
        Step::Install(purposes.iter().flat_map(|purpose| packages_for(*purpose)).collect())
    }

    #[test]
    fn a_complete_machine_needs_nothing() {
        let machine = complete();
        assert!(machine.can_build());
        assert_eq!(machine.wanted_packages(&[]), []);
        assert_eq!(machine.plan(&[], None), Ok(Plan::default()));
    }

    #[test]
    fn a_bare_debian_gets_packages_then_the_linker() {
        let plan = bare(Vec::new()).plan(&[Purpose::Test], Some(&everything())).unwrap();
        let packages = installs(&[Purpose::Compiler, Purpose::Linker, Purpose::Test]);
        assert_eq!(plan.steps, [packages, Step::BuildLinker]);
    }

    #[test]
    fn what_is_present_is_not_installed_again() {
        let mut machine = complete();
        machine.present = packages_for(Purpose::Test).map(|package| package.name).collect();
        assert_eq!(machine.wanted_packages(&[Purpose::Test]), []);
        assert_eq!(machine.plan(&[Purpose::Test], Some(&Offered::new())), Ok(Plan::default()));
    }

    #[test]
    fn a_linker_that_lost_its_libraries_is_built_again() {
        let mut machine = complete();
        machine.linker_runs = false;
        machine.llvm_prefix = Some("/usr/lib/llvm-22".into());
        assert!(!machine.can_build());
        assert_eq!(machine.plan(&[], None).unwrap().steps, [Step::BuildLinker]);
    }

    #[test]
    fn a_linker_the_user_named_is_left_alone() {
        let mut machine = complete();
        machine.linker_runs = false;
        machine.installed.linker.named_by_user = true;
        let obstacles = machine.plan(&[], Some(&everything())).unwrap_err();
        assert_eq!(
            obstacles,
            [
                "CHOKEPOINT_BPF_LINKER names /cache/bpf-linker, which does not run: set it to a bpf-linker, or unset it"
            ]
        );
    }

    #[test]
    fn without_apt_rustup_completes_a_toolchain_that_fits() {
        let mut machine = bare(vec![compiler(Origin::Rustup, "nightly", false)]);
        machine.llvm_prefix = Some("/usr/lib64/llvm22".into());
        let plan = machine.plan(&[Purpose::Test], None).unwrap();
        assert_eq!(plan.steps, [Step::AddRustSrc { toolchain: "nightly".to_owned() }, Step::BuildLinker]);
        assert_eq!(plan.notices.len(), packages_for(Purpose::Test).count());
    }

    #[test]
    fn without_the_security_suite_the_obstacle_says_to_add_it() {
        let mut offered = everything();
        offered.insert("rustc-web".to_owned(), "1.85.0+dfsg3-1~deb12u3".to_owned());
        offered.remove("llvm-22-dev");
        let obstacles = bare(Vec::new()).plan(&[], Some(&offered)).unwrap_err();
        assert_eq!(obstacles.len(), 2, "{obstacles:?}");
        assert!(
            obstacles[0]
                .starts_with("the package sources offer rustc-web 1.85.0+dfsg3-1~deb12u3, older than 1.95")
        );
        assert!(obstacles[1].starts_with("the package sources do not offer llvm-22-dev"));
        assert!(obstacles.iter().all(|obstacle| obstacle.contains("bookworm-security")), "{obstacles:?}");
    }

    #[test]
    fn with_neither_apt_nor_rustup_all_obstacles_are_named() {
        let old = Compiler {
            version: Some(Version { rust: (1, 63), llvm_major: 14 }),
            ..compiler(Origin::System, "/usr/bin/rustc", false)
        };
        let obstacles = bare(vec![old]).plan(&[], None).unwrap_err();
        assert_eq!(obstacles.len(), 2, "{obstacles:?}");
        assert!(obstacles[0].contains("rustup toolchain install 1.95"), "{obstacles:?}");
        assert!(obstacles[0].ends_with("/usr/bin/rustc: too old (Rust 1.63 with LLVM 14)"), "{obstacles:?}");
        assert!(obstacles[1].contains("LLVM_PREFIX"), "{obstacles:?}");
    }
}

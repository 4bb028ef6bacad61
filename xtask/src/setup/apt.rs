//! Debian's package tools.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context, Result};

use super::plan::Offered;
use crate::{
    packages::{PACKAGES, Package},
    workspace::{Privilege, on_path, run as run_command},
};

/// How long to wait for another run of the package tools, in seconds.
const LOCK_TIMEOUT_S: u32 = 300;

/// Whether this is a machine of Debian's family.
pub fn is_there() -> bool {
    on_path("apt-get") && on_path("dpkg-query")
}

/// Those of the project's packages that are there: installed, or replaced by an executable that does as
/// well.
pub fn installed_packages() -> BTreeSet<&'static str> {
    let names: BTreeSet<_> = PACKAGES.iter().map(|package| package.name).collect();
    // Fails if any name is unknown, and still reports the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Package}\n"])
        .args(&names)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let installed: BTreeSet<&str> =
        output.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    PACKAGES
        .iter()
        .filter(|package| installed.contains(package.name) || package.command.is_some_and(on_path))
        .map(|package| package.name)
        .collect()
}

/// Refreshes the package lists.
pub fn update(privilege: Privilege) -> Result<()> {
    run_command(apt_get(privilege).args(["--quiet=2", "update"]))
}

/// The versions the package lists offer.
pub fn candidates(packages: &[Package]) -> Result<Offered> {
    let output = Command::new("apt-cache")
        .arg("policy")
        .args(packages.iter().map(|package| package.name))
        .env("LC_ALL", "C")
        .output()
        .context("cannot run apt-cache")?;
    Ok(parse_policy(&String::from_utf8_lossy(&output.stdout)))
}

/// Installs packages; never removes one to make room.
pub fn install(privilege: Privilege, packages: &[Package]) -> Result<()> {
    let mut command = apt_get(privilege);
    command.args(["--yes", "--quiet", "--no-install-recommends", "--no-remove", "install"]);
    command.args(packages.iter().map(|package| package.name));
    run_command(&mut command).with_context(|| {
        format!(
            "the packages could not be installed; see apt's own message above, and if it will not remove a package \
             by itself, run `{}`, then try again",
            install_command_line(packages)
        )
    })
}

/// What a user would type to install packages.
pub fn install_command_line(packages: &[Package]) -> String {
    let names: BTreeSet<_> = packages.iter().map(|package| package.name).collect();
    let names: Vec<_> = names.into_iter().collect();
    format!("apt-get install --no-install-recommends {}", names.join(" "))
}

fn apt_get(privilege: Privilege) -> Command {
    // Through env, because sudo does not pass variables on.
    let mut command = privilege.command("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command.arg(format!("--option=DPkg::Lock::Timeout={LOCK_TIMEOUT_S}"));
    command
}

/// Reads the output of `apt-cache policy`: each package's name at the start of a line, with its candidate
/// below.
fn parse_policy(text: &str) -> Offered {
    let mut offered = Offered::new();
    let mut package = None;
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            package = Some(name);
        } else if let (Some(name), Some(version)) = (package, line.trim_start().strip_prefix("Candidate: "))
            && version != "(none)"
        {
            offered.insert(name.to_owned(), version.to_owned());
        }
    }
    offered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_each_candidate() {
        let offered = parse_policy(
            "rustc-web:\n\
             \x20 Installed: (none)\n\
             \x20 Candidate: 1.96.0+dfsg1-1~deb12u2\n\
             \x20 Version table:\n\
             \x20    1.96.0+dfsg1-1~deb12u2 500\n\
             \x20       500 http://mirror/debian-security bookworm-security/main amd64 Packages\n\
             llvm-22-dev:\n\
             \x20 Installed: (none)\n\
             \x20 Candidate: (none)\n\
             \x20 Version table:\n",
        );
        assert_eq!(offered, Offered::from([("rustc-web".to_owned(), "1.96.0+dfsg1-1~deb12u2".to_owned())]));
    }

    #[test]
    fn the_command_line_names_each_package_once() {
        let twice = [PACKAGES[0], PACKAGES[1], PACKAGES[0]];
        assert_eq!(
            install_command_line(&twice),
            format!("apt-get install --no-install-recommends {} {}", PACKAGES[1].name, PACKAGES[0].name)
        );
    }
}

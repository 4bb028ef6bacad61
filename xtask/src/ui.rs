//! The collector's page: built before the collector is, which then has it in its program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    packages::Purpose,
    setup,
    workspace::{root, run as run_command, step},
};

/// The oldest Node.js that the page's build runs on: Debian 12 has it.
const MIN_NODE: u32 = 18;
/// What the page is made of. All else in its directory is made of these.
const SOURCES: [&str; 7] =
    ["src", "public", "index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.js"];
/// Licences of what is in the page, and of what only builds it.
const LICENCES: [&str; 6] = ["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "0BSD"];
/// And of what only tests it: axe-core's binds file by file, and none of it is in the page.
const OF_TESTS: [&str; 1] = ["MPL-2.0"];

fn directory() -> PathBuf {
    root().join("collector/ui")
}

/// Brings the page up to date; silent where it is.
pub fn build() -> Result<()> {
    let ui = directory();
    install()?;
    let made = modified(&ui.join("dist/index.html"));
    let newest = SOURCES.iter().filter_map(|source| newest(&ui.join(source))).max();
    if made.is_some() && made >= newest {
        return Ok(());
    }
    step("building the collector's page");
    run_command(npm(&["run", "--silent", "build"]).env("NODE_ENV", "production"))
}

/// Fetches what builds the page, as its lock file has it, unless it is there.
fn install() -> Result<()> {
    setup::ensure(&[Purpose::Page])?;
    check_node()?;
    let ui = directory();
    let installed = modified(&ui.join("node_modules/.package-lock.json"));
    if installed.is_some() && installed >= modified(&ui.join("package-lock.json")) {
        return Ok(());
    }
    step("fetching what builds the collector's page");
    // No program of a package runs for being fetched.
    run_command(&mut npm(&["ci", "--ignore-scripts", "--no-progress", "--loglevel=error"]))
}

/// The checks of the page's sources, to be run.
pub fn checks() -> Result<Vec<(&'static str, Command)>> {
    install()?;
    licences(&fs::read_to_string(directory().join("package-lock.json"))?)?;
    Ok(vec![("the page's types", npm(&["run", "--silent", "check"]))])
}

fn npm(arguments: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(arguments).current_dir(directory());
    command
}

fn check_node() -> Result<()> {
    let output = Command::new("node").arg("--version").stderr(Stdio::null()).output();
    let output = output.context("the page's build needs Node.js: `cargo xtask setup` installs it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let major = text.trim().strip_prefix('v').and_then(|text| text.split('.').next()?.parse::<u32>().ok());
    ensure!(
        major.is_some_and(|major| major >= MIN_NODE),
        "the page's build needs Node.js {MIN_NODE} or newer, and the one on the search path is {}",
        text.trim()
    );
    Ok(())
}

/// Every package has a licence that may be used, and the lock file names no registry: whoever builds has their own.
fn licences(lock: &str) -> Result<()> {
    let lock: Value = serde_json::from_str(lock).context("package-lock.json is no JSON")?;
    let packages = lock["packages"].as_object().context("package-lock.json lists no packages")?;
    let mut bad = Vec::new();
    for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
        let licence = package["license"].as_str().unwrap_or("none");
        let is_dev = package["dev"].as_bool().unwrap_or_default();
        let is_known = LICENCES.contains(&licence) || is_dev && OF_TESTS.contains(&licence);
        if !is_known {
            bad.push(format!("{name}: its licence is {licence}"));
        }
        if !package["resolved"].is_null() {
            bad.push(format!("{name}: the lock file names a registry"));
        }
    }
    if !bad.is_empty() {
        bail!("the page's packages:\n  - {}", bad.join("\n  - "));
    }
    Ok(())
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// When the newest file at or below a path was changed; a directory changes with what is removed from it.
fn newest(path: &Path) -> Option<SystemTime> {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    below.filter_map(|entry| newest(&entry.path())).chain(modified(path)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_licences_and_no_registry_pass() {
        let lock = |package: &str| {
            format!(r#"{{"packages":{{"":{{"license":"none of these"}},"node_modules/a":{package}}}}}"#)
        };
        for good in [r#"{"license":"MIT"}"#, r#"{"license":"MPL-2.0","dev":true}"#] {
            licences(&lock(good)).unwrap();
        }
        for bad in [
            "{}",
            r#"{"license":"MPL-2.0"}"#,
            r#"{"license":"GPL-3.0"}"#,
            r#"{"license":"MIT","resolved":"https://registry/a.tgz"}"#,
        ] {
            assert!(licences(&lock(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_lock_file_passes() {
        licences(&fs::read_to_string(directory().join("package-lock.json")).unwrap()).unwrap();
    }
}

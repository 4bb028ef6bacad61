//! Fetches a package of Debian's that the machine itself does not install: with the machine's apt and its
//! settings, such as proxies, but with sources, lists and state of its own. Signatures are checked as always.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::workspace::{shown, step};

/// Names the mirror that Debian is fetched from, such as `http://mirror.example/debian`, instead of the one that
/// the machine itself uses; the security updates are next to it, in `debian-security`.
pub const MIRROR_ENV: &str = "CHOKEPOINT_DEBIAN_MIRROR";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite in one of the archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive {
    suite: &'static str,
    security: bool,
}

impl Archive {
    /// A suite of the main archive.
    pub const fn main(suite: &'static str) -> Self {
        Self { suite, security: false }
    }

    /// A suite of security updates.
    pub const fn security(suite: &'static str) -> Self {
        Self { suite, security: true }
    }

    fn source(self, mirror: &str) -> String {
        let mirror = mirror.trim_end_matches('/');
        let security = if self.security { "-security" } else { "" };
        let Self { suite, .. } = self;
        format!("deb [arch=amd64 signed-by={KEYRING}] {mirror}{security} {suite} main\n")
    }
}

/// Downloads a package into `directory`: the one that `choose` picks from the names of the first archive that
/// has one it wants.
pub fn download(
    archives: &[Archive],
    directory: &Path,
    choose: impl Fn(&str) -> Option<&str>,
) -> Result<PathBuf> {
    let mirror = match env::var(MIRROR_ENV) {
        Ok(mirror) => mirror,
        Err(_) => {
            let targets = output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]))?;
            mirror_among(&targets).with_context(|| {
                format!("this machine's package sources name no Debian mirror; name one in {MIRROR_ENV}")
            })?
        }
    };
    let mut reasons = Vec::new();
    for archive in archives {
        match download_from(*archive, &mirror, directory, &choose) {
            Ok(package) => return Ok(package),
            Err(error) => reasons.push(format!("{}: {error:#}", archive.suite)),
        }
    }
    Err(anyhow!("{}", reasons.join("; ")))
        .with_context(|| format!("is {mirror} within reach? {MIRROR_ENV} can name another mirror"))
}

/// The first of these addresses that is a main archive of Debian's.
fn mirror_among(addresses: &str) -> Option<String> {
    addresses
        .lines()
        .map(|address| address.trim_end_matches('/'))
        .find(|address| address.ends_with("/debian"))
        .map(str::to_owned)
}

/// Unpacks a package below `directory`, and returns where.
pub fn unpack(package: &Path, directory: &Path) -> Result<PathBuf> {
    let unpacked = directory.join("unpacked");
    output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&unpacked))?;
    Ok(unpacked)
}

fn download_from(
    archive: Archive,
    mirror: &str,
    directory: &Path,
    choose: impl Fn(&str) -> Option<&str>,
) -> Result<PathBuf> {
    let config = prepare(archive, mirror, &directory.join(archive.suite))?;
    output(Command::new("apt-get").arg("--config-file").arg(&config).arg("update"))?;
    let names = output(Command::new("apt-cache").arg("--config-file").arg(&config).arg("pkgnames"))?;
    let name = choose(&names).context("has no such package")?;
    step(&format!("downloading {name}"));
    output(
        Command::new("apt-get")
            .current_dir(directory)
            .arg("--config-file")
            .arg(&config)
            .args(["download", name]),
    )?;
    let mut packages = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    packages
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("nothing was downloaded")
}

/// Writes apt's settings below `root`.
fn prepare(archive: Archive, mirror: &str, root: &Path) -> Result<PathBuf> {
    for part in ["state/lists/partial", "cache/archives/partial"] {
        let part = root.join(part);
        fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
    }
    let write = |name: &str, text: String| {
        let path = root.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    let sources = write("sources.list", archive.source(mirror))?;
    let root = root.display();
    write(
        "apt.conf",
        format!(
            "Dir::Etc::SourceList \"{}\";\n\
             Dir::Etc::SourceParts \"/dev/null\";\n\
             Dir::State \"{root}/state\";\n\
             Dir::State::Status \"/dev/null\";\n\
             Dir::Cache \"{root}/cache\";\n\
             APT::Architecture \"amd64\";\n\
             #clear APT::Architectures;\n\
             APT::Architectures {{ \"amd64\"; }};\n\
             # Only the list of packages.\n\
             Acquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::Retries \"2\";\n\
             Acquire::http::Timeout \"20\";\n\
             # An index that cannot be fetched is an error.\n\
             APT::Update::Error-Mode \"any\";\n\
             # The user that apt downloads as cannot write here.\n\
             APT::Sandbox::User \"root\";\n\
             # What the machine does after its own updates is not for these.\n\
             #clear APT::Update::Pre-Invoke;\n\
             #clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n",
            sources.display(),
        ),
    )
}

/// The standard output of a command that succeeds.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        let complaints = String::from_utf8_lossy(&output.stderr);
        // Each says what went wrong with one file; what follows from it is said last.
        let first = complaints.lines().map(|line| line.trim_start_matches(['E', 'W', ':', ' '])).next();
        bail!("{}", first.unwrap_or("it failed without a word"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_signed_and_follow_the_mirror() {
        for (archive, expected) in [
            (Archive::main("trixie"), "] http://mirror/debian trixie main\n"),
            (Archive::security("trixie-security"), "] http://mirror/debian-security trixie-security main\n"),
        ] {
            let source = archive.source("http://mirror/debian/");
            assert_eq!(source, format!("deb [arch=amd64 signed-by={KEYRING}{expected}"));
        }
    }

    #[test]
    fn the_machine_s_own_mirror_is_found() {
        let addresses = "http://mirror/debian-security/\nhttp://other/nodistro/\nhttp://mirror/debian/\n";
        assert_eq!(mirror_among(addresses).as_deref(), Some("http://mirror/debian"));
        assert_eq!(mirror_among("http://mirror/ubuntu\n"), None);
    }
}

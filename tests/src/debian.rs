//! Programs of Debian packages that this machine has not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::target_dir;
use crate::workload::on_path;

/// A program of a Debian package: the installed one, else the package's files unpacked beside the tests. Nothing is
/// installed, so no server of theirs is started and nothing is to be removed.
pub struct DebianProgram {
    program: PathBuf,
    /// `None` where it is installed.
    unpacked: Option<Unpacked>,
}

/// What came with an unpacked program.
struct Unpacked {
    libraries: PathBuf,
    programs: [PathBuf; 2],
}

impl DebianProgram {
    /// The program, with the packages it is in and needs. `None` where it is not installed and the packages cannot be had.
    #[must_use]
    pub fn find(program: &str, packages: &[&str]) -> Option<Self> {
        if on_path(program) {
            return Some(Self { program: program.into(), unpacked: None });
        }
        let root = target_dir().join("test-debian").join(program);
        if !root.exists() {
            unpack(packages, &root)?;
        }
        let programs = ["usr/sbin", "usr/bin"].map(|directory| root.join(directory));
        let program =
            programs.iter().map(|directory| directory.join(program)).find(|place| place.exists())?;
        let libraries = root.join("usr/lib").join(triplet()?);
        Some(Self { program, unpacked: Some(Unpacked { libraries, programs }) })
    }

    /// To be run.
    #[must_use]
    pub fn command(&self) -> Command {
        self.prepared(Command::new(&self.program))
    }

    /// Another program of the same packages, to be run.
    #[must_use]
    pub fn beside(&self, program: &str) -> Command {
        self.prepared(Command::new(self.program.with_file_name(program)))
    }

    /// Has it find its libraries, and the programs that came with it.
    fn prepared(&self, mut command: Command) -> Command {
        if let Some(Unpacked { libraries, programs }) = &self.unpacked {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let path = programs.iter().cloned().chain(std::env::split_paths(&path));
            command.env("LD_LIBRARY_PATH", libraries);
            command.env("PATH", std::env::join_paths(path).expect("paths of this machine's own"));
        }
        command
    }
}

/// Debian's own Python, to be run, with a module for it that its packages bring where it is not installed. `None` where either
/// cannot be had.
#[must_use]
pub fn python_with(module: &str, packages: &[&str]) -> Option<Command> {
    const PYTHON: &str = "/usr/bin/python3";
    let known = Command::new(PYTHON).args(["-c", &format!("import {module}")]).output().ok()?;
    let mut command = Command::new(PYTHON);
    if !known.status.success() {
        let root = target_dir().join("test-debian").join(format!("python-{module}"));
        if !root.exists() {
            unpack(packages, &root)?;
        }
        command.env("PYTHONPATH", root.join("usr/lib/python3/dist-packages"));
        command.env("LD_LIBRARY_PATH", root.join("usr/lib").join(triplet()?));
    }
    Some(command)
}

/// Name of the directory that has the libraries of this machine's architecture.
fn triplet() -> Option<String> {
    let output = Command::new("gcc").arg("-print-multiarch").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn unpack(packages: &[&str], root: &Path) -> Option<()> {
    fs::create_dir_all(root.parent()?).ok()?;
    let directory = tempfile::tempdir_in(root.parent()?).ok()?;
    let downloaded = Command::new("apt-get")
        .args(["--quiet=2", "download"])
        .args(packages)
        .current_dir(directory.path())
        .status()
        .ok()?;
    downloaded.success().then_some(())?;
    let unpacked = directory.path().join("unpacked");
    for entry in fs::read_dir(directory.path()).ok()? {
        let package = entry.ok()?.path();
        let status = Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked).status().ok()?;
        status.success().then_some(())?;
    }
    // In one step: what is there is whole.
    fs::rename(&unpacked, root).ok()
}

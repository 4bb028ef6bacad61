//! The agent under test: the release binary, run as a user runs it. `CHOKEPOINT_TEST_AGENT` is the path of another build of it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use chokepoint_analysis::export::json;
use chokepoint_analysis::profile::Profile;
use tempfile::TempDir;

use crate::{in_vm, target_dir, workload};

/// The agent's path; built once if the tests were not started by the project's own command.
#[must_use]
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("CHOKEPOINT_TEST_AGENT") {
            return path.into();
        }
        if !in_vm() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let status = Command::new(cargo)
                .args(["build", "--release", "--quiet", "--package", "chokepoint"])
                .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
                .status()
                .expect("cargo can be run");
            assert!(status.success(), "the agent does not build");
        }
        target_dir().join("release/chokepoint")
    })
}

/// One run of the agent, in a directory of its own.
pub struct Agent {
    command: Command,
    directory: TempDir,
}

/// What a finished run left.
pub struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    directory: TempDir,
}

impl Agent {
    /// `chokepoint ARGUMENTS`.
    pub fn new<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self::through(&[], arguments)
    }

    /// The same, started by another program: `PREFIX chokepoint ARGUMENTS`.
    pub fn through<S: AsRef<OsStr>>(prefix: &[&str], arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = match prefix {
            [] => Command::new(program()),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program());
                command
            }
        };
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        command.args(arguments).current_dir(directory.path()).stdin(Stdio::null());
        workload::die_with_test(&mut command);
        Self { command, directory }
    }

    /// The directory it runs in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(mut self) -> Finished {
        let Output { status, stdout, stderr } = self.command.output().expect("the agent can be run");
        Finished {
            code: status.code(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            directory: self.directory,
        }
    }

    /// Starts it.
    #[must_use]
    pub fn start(mut self) -> Running {
        let child =
            self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the agent can be run");
        Running { child: Some(child), directory: Some(self.directory) }
    }
}

impl Finished {
    /// A file it wrote.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Names of everything it left in its directory.
    #[must_use]
    pub fn left_behind(&self) -> Vec<String> {
        fs::read_dir(self.directory.path())
            .expect("the directory is there")
            .map(|entry| entry.expect("and can be read").file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// The same run, after making sure that it succeeded.
    #[must_use]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The profile it wrote in the `json` format.
    #[must_use]
    pub fn profile(&self, name: &str) -> Profile {
        let path = self.file(name);
        let mut file =
            File::open(&path).unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), self.stderr));
        json::read(&mut file).expect("the agent's JSON can be read")
    }
}

/// A run under way; killed when dropped.
pub struct Running {
    child: Option<Child>,
    directory: Option<TempDir>,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    /// Waits for its end.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        let child = self.child.take().expect("it runs");
        let output = child.wait_with_output().expect("it ends");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            directory: self.directory.take().expect("it has its directory"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What has the agent run by a user without any privilege.
pub const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// A recording of everything that anybody may read.
pub struct ForAnybody {
    directory: TempDir,
}

impl ForAnybody {
    /// Name of its file.
    const NAME: &str = "all.chokepoint";

    /// Records a process for two seconds.
    #[must_use]
    pub fn record(pid: u32) -> Self {
        let pid = pid.to_string();
        let recorded = Agent::new(["record", "-o", Self::NAME, "-d", "2", "--pid", &pid]).run().succeeded();
        let directory = recorded.directory;
        for path in [directory.path(), &directory.path().join(Self::NAME)] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).expect("they are the test's own");
        }
        Self { directory }
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(Self::NAME)
    }
}

/// What an agent answers at the address of its metrics.
///
/// # Panics
/// Where nobody answers there.
#[must_use]
pub fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n").expect("it can be asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Records into the `json` format with these further arguments, and returns the profile.
#[must_use]
pub fn record(arguments: &[&str]) -> Profile {
    let fixed = ["record", "-o", "profile.json"];
    Agent::new(fixed.iter().chain(arguments)).run().succeeded().profile("profile.json")
}

/// The same for so long that there are at least this many samples, from a few seconds to half a minute: how many come in a time is up
/// to other work on the machine and to its hypervisor.
#[must_use]
pub fn record_samples(least: u64, arguments: &[&str]) -> Profile {
    let mut profile = record(&[arguments, &["-d", "3"]].concat());
    for duration in ["9", "27"] {
        if profile.total_count() >= least {
            break;
        }
        profile = record(&[arguments, &["-d", duration]].concat());
    }
    assert!(profile.total_count() >= least, "{} samples are too few to judge", profile.total_count());
    profile
}

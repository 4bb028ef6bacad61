//! The real program, and a disk that it fills.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// The real program, which is killed when a test ends before it does.
pub struct Collector {
    child: Child,
    pub address: SocketAddr,
}

impl Collector {
    pub fn start(store: &Path) -> Self {
        Self::try_start(store).expect("it says where it listens")
    }

    /// `None` where it ends before it listens.
    pub fn try_start(store: &Path) -> Option<Self> {
        Self::try_run(command(store))
    }

    /// The same with other arguments, or from another place.
    pub fn try_run(mut command: Command) -> Option<Self> {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        // From here on it ends with this, also where it says something else.
        let mut collector = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut line = String::new();
        let stdout = collector.child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("it can be read");
        if line.is_empty() {
            return None;
        }
        let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        collector.address = address.unwrap_or_else(|| panic!("{line:?} is no address"));
        Some(collector)
    }

    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: it takes two numbers; the child was not waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended, as it was told to.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where it is.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_chokepoint-collector");

pub fn command(store: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store"]).arg(store);
    command
}

/// A file system of few bytes, which is unmounted when this is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    pub fn mount(path: &Path, mebibytes: usize) -> Option<Self> {
        let size = format!("size={mebibytes}m");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "chokepoint-test"]).arg(path).status();
        status.is_ok_and(|status| status.success()).then(|| Self(path.to_owned()))
    }

    /// Takes all that is left of it, until what is returned is dropped.
    pub fn fill(&self) -> Ballast {
        let ballast = Ballast(self.0.join("ballast"));
        let mut file = File::create(&ballast.0).expect("a file");
        let mut bytes = 32 << 20;
        while bytes >= 4096 {
            if file.write_all(&vec![1; bytes]).is_err() {
                bytes /= 2;
            }
        }
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking(), "it unmounts");
    }
}

/// What takes all of a disk.
pub struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        assert!(fs::remove_file(&self.0).is_ok() || std::thread::panicking(), "there is room again");
    }
}

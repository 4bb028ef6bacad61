//! The life of what is profiled: a command that record starts itself, or processes that were there before.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::thread::JoinHandle;

use tokio::io::unix::AsyncFd;

use crate::failure::{Failure, Kind};

/// A command that has been forked and waits for [`HeldCommand::release`] before it becomes the program, so that sampling can
/// begin first.
pub struct HeldCommand {
    pid: u32,
    name: String,
    go: File,
    /// `Command::spawn` returns only after the exec, so it has a thread of its own.
    spawning: JoinHandle<io::Result<Child>>,
}

impl HeldCommand {
    /// Forks. The child inherits standard input, output and error.
    ///
    /// # Errors
    /// Where the kernel refuses a pipe or a process.
    pub fn fork(command: &[OsString]) -> Result<Self, Failure> {
        let failed =
            |error: io::Error| Failure::new(Kind::Target, format!("cannot start a process: {error}"));
        let name = command[0].to_string_lossy().into_owned();
        let (mut pid_reader, pid_writer) = pipe().map_err(failed)?;
        let (go_reader, go) = pipe().map_err(failed)?;

        let mut child = Command::new(&command[0]);
        child.args(&command[1..]);
        let (go_descriptor, pid_descriptor, parent_go) =
            (go_reader.as_raw_fd(), pid_writer.as_raw_fd(), go.as_raw_fd());
        // SAFETY: between fork and exec the closure only calls functions that are safe there: getpid, write, close and read.
        unsafe {
            child.pre_exec(move || {
                let pid = libc::getpid().to_ne_bytes();
                libc::write(pid_descriptor, pid.as_ptr().cast(), pid.len());
                // Its own copy of the writing end would keep the pipe open after the agent has died.
                libc::close(parent_go);
                let mut byte = 0u8;
                loop {
                    match libc::read(go_descriptor, (&raw mut byte).cast(), 1) {
                        1 => return Ok(()),
                        // The agent gave up or died.
                        0 => libc::_exit(0),
                        _ if *libc::__errno_location() == libc::EINTR => {}
                        _ => return Err(io::Error::last_os_error()),
                    }
                }
            });
        }
        let spawning = std::thread::Builder::new()
            .name("spawn".into())
            .spawn(move || {
                let result = child.spawn();
                drop((pid_writer, go_reader));
                result
            })
            .map_err(failed)?;
        let mut pid = [0; 4];
        if pid_reader.read_exact(&mut pid).is_err() {
            let error =
                spawning.join().ok().and_then(Result::err).unwrap_or_else(|| io::Error::other("no process"));
            return Err(failed(error));
        }
        Ok(Self { pid: u32::from_ne_bytes(pid), name, go, spawning })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it become the program.
    ///
    /// # Errors
    /// A [`Kind::Target`] failure where there is no such program.
    pub fn release(mut self) -> Result<RunningCommand, Failure> {
        let failed = |error: io::Error| {
            Failure::new(Kind::Target, format!("cannot run {}: {}", self.name, lowercase(&error)))
        };
        self.go.write_all(&[1]).map_err(failed)?;
        let child =
            self.spawning.join().map_err(|_| failed(io::Error::other("its thread died")))?.map_err(failed)?;
        Ok(RunningCommand { child })
    }
}

fn lowercase(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// A command under way.
pub struct RunningCommand {
    child: Child,
}

impl RunningCommand {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
    }
}

/// An exit status in words.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Processes whose end ends the recording.
pub struct WatchedProcesses {
    /// Descriptors that become readable when their process ends.
    pidfds: Vec<AsyncFd<OwnedFd>>,
}

impl WatchedProcesses {
    /// Watches these; those that have ended already count as ended. Needs a tokio runtime with IO.
    ///
    /// # Errors
    /// Where the kernel gives no descriptor for a process, or it cannot be polled.
    pub fn new(pids: &[u32]) -> io::Result<Self> {
        let mut pidfds = Vec::with_capacity(pids.len());
        for pid in pids {
            match pidfd_open(*pid) {
                // SAFETY: the descriptor is owned, and stays open as long as it is registered.
                Ok(pidfd) => pidfds.push(unsafe { AsyncFd::register(pidfd) }?),
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { pidfds })
    }

    /// Resolves when all have ended; at once when there are none. May be dropped and called again.
    ///
    /// # Errors
    /// Where a descriptor cannot be polled.
    pub async fn all_ended(&mut self) -> io::Result<()> {
        while let Some(pidfd) = self.pidfds.last() {
            // The readiness is left set: an ended process stays ended.
            let _ready = pidfd.readable().await?;
            self.pidfds.pop();
        }
        Ok(())
    }
}

fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are involved.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

fn pipe() -> io::Result<(File, File)> {
    let (reader, writer) = io::pipe()?;
    Ok((OwnedFd::from(reader).into(), OwnedFd::from(writer).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_held_command_runs_when_released() {
        let held = HeldCommand::fork(&["sh".into(), "-c".into(), "exit 7".into()]).unwrap();
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", held.pid())).unwrap();
        assert_ne!(comm.trim(), "sh", "it must not have become the program yet");
        let status = held.release().unwrap().wait().unwrap();
        assert_eq!(describe(status), "exited with 7");
    }

    #[test]
    fn a_held_command_that_is_dropped_never_runs() {
        let directory = tempfile::tempdir().unwrap();
        let witness = directory.path().join("ran");
        let HeldCommand { go, spawning, .. } =
            HeldCommand::fork(&["touch".into(), witness.clone().into()]).unwrap();
        drop(go);
        let mut child = spawning.join().unwrap().unwrap();
        child.wait().unwrap();
        assert!(!witness.exists());
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let held = HeldCommand::fork(&["/nonexistent/program".into()]).unwrap();
        let failure = held.release().err().unwrap();
        assert_eq!(failure.kind, Kind::Target);
        assert_eq!(failure.message, "cannot run /nonexistent/program: no such file or directory");
    }

    #[tokio::test]
    async fn the_end_of_all_processes_is_seen() {
        let mut children = [0; 2].map(|_| Command::new("sleep").arg("60").spawn().unwrap());
        let mut watched = WatchedProcesses::new(&children.each_ref().map(Child::id)).unwrap();
        for child in &mut children {
            let early = tokio::time::timeout(Duration::from_millis(1), watched.all_ended()).await;
            assert!(early.is_err(), "one still runs");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        watched.all_ended().await.unwrap();
    }
}

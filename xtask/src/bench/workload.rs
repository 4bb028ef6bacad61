//! The busy host: a known load on every CPU, and a stream of short processes as a build makes.

use std::{
    env,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, Result};

/// Ends with whoever started it, in whatever way that ended.
const SHORT_PROCESSES: &str =
    "while kill -0 $PPID 2>/dev/null; do ls /usr/bin | sort | head -n 3; grep -c main /proc/self/maps; done";

/// The running load. It ends with this value.
pub struct Load(Vec<Child>);

impl Load {
    /// Starts a burner for each CPU and one stream of short processes.
    pub fn start() -> Result<Self> {
        let program = env::current_exe().context("cannot find this program's own file")?;
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let mut load = Self(Vec::new());
        for _ in 0..cpus {
            load.add(Command::new(&program).arg("burn").stdin(Stdio::piped()))?;
        }
        load.add(Command::new("sh").args(["-c", SHORT_PROCESSES]).stdin(Stdio::null()))?;
        Ok(load)
    }

    fn add(&mut self, command: &mut Command) -> Result<()> {
        let child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start the load")?;
        self.0.push(child);
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Both fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

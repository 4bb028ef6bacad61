//! What the host does while the agent is measured.

use std::{
    fs::{self, File},
    io::{Read, Write, pipe},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::bench::workload::Load;

/// Pairs of threads that wake each other. Each turn has four switches, and takes its nap and some.
const PAIRS: usize = 3;
const NAP: Duration = Duration::from_millis(1);
/// Blocks that are written and waited for each second.
const WRITES_PER_S: u32 = 100;
const BLOCK: [u8; 4096] = [1; 4096];
/// Threads that start processes in a storm; one alone does not reach a thousand a second.
const STARTERS: u32 = 4;
/// How long idle processes would live if nobody ended them.
const IDLE_S: &str = "900";

/// Threads of this program that do something over and over. They end with this value.
pub struct Threads {
    goes_on: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    fn new() -> Self {
        Self { goes_on: Arc::new(AtomicBool::new(true)), threads: Vec::new() }
    }

    fn repeat(&mut self, name: &str, mut turn: impl FnMut() -> bool + Send + 'static) -> Result<()> {
        let goes_on = Arc::clone(&self.goes_on);
        let repeated = move || while goes_on.load(Ordering::Relaxed) && turn() {};
        let thread = thread::Builder::new().name(name.to_owned()).spawn(repeated);
        self.threads.push(thread.context("cannot start a thread")?);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has ended, too.
            let _ = thread.join();
        }
    }
}

/// The busy host: a burner for each CPU, short processes, threads that wake each other, and a file that is written.
pub struct Busy {
    _burners: Load,
    _threads: Threads,
}

impl Busy {
    /// Starts it; the file is in this directory.
    pub fn start(directory: &Path) -> Result<Self> {
        let mut threads = Threads::new();
        for pair in 0..PAIRS {
            let (mut to_read, mut to_write) = pipe()?;
            threads.repeat(&format!("waker-{pair}"), move || {
                thread::sleep(NAP);
                to_write.write_all(&[1]).is_ok()
            })?;
            let mut byte = [0];
            threads.repeat(&format!("woken-{pair}"), move || to_read.read_exact(&mut byte).is_ok())?;
        }
        let path = directory.join("written");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        fs::remove_file(&path)?;
        threads.repeat("writer", move || {
            thread::sleep(Duration::from_secs(1) / WRITES_PER_S);
            file.write_all_at(&BLOCK, 0).and_then(|()| file.sync_data()).is_ok()
        })?;
        Ok(Self { _burners: Load::start()?, _threads: threads })
    }
}

/// Starts so many processes a second, each of which runs another program and ends.
pub fn storm(per_second: u32) -> Result<Threads> {
    let mut threads = Threads::new();
    for starter in 0..STARTERS {
        let pause = Duration::from_secs(1) * STARTERS / per_second;
        let mut due = Instant::now();
        threads.repeat(&format!("starter-{starter}"), move || {
            due += pause;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            Command::new("true").stdin(Stdio::null()).status().is_ok()
        })?;
    }
    Ok(threads)
}

/// Processes that do nothing. They end with this value.
pub struct Idle(Vec<Child>);

impl Idle {
    /// Starts so many.
    pub fn start(number: usize) -> Result<Self> {
        let mut idle = Self(Vec::with_capacity(number));
        for _ in 0..number {
            let child = Command::new("sleep").arg(IDLE_S).stdin(Stdio::null()).spawn();
            idle.0.push(child.context("cannot start an idle process")?);
        }
        Ok(idle)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Fails only if it is gone already.
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

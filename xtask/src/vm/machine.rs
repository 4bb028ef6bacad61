//! Boots a kernel in QEMU and listens to the guest.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    kernel::Kernel,
    kernel_log::KernelLog,
    protocol::{Event, Parser},
    silence::{self, KERNEL_PARAMETER, MONITOR},
};

/// Processors of the guest, so that what happens between two of them happens.
const CPUS: u64 = 2;
/// Memory of the guest besides the one its files take.
const MEMORY_MB: u64 = 2048;
/// Where the guest's kernel writes its log.
const KERNEL_LOG: &str = "kernel.log";
/// Pieces of output that wait to be read; a guest that writes faster is stopped by the full pipe.
const PENDING_PIECES: usize = 64;

const LOOKS_FOR_THE_END: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// A running guest. It ends with this value, and with this process however that ends.
pub struct Machine {
    qemu: Child,
    directory: PathBuf,
    /// What QEMU itself has to say.
    complaints: PathBuf,
    pieces: Receiver<Vec<u8>>,
    parser: Parser,
    events: VecDeque<Event>,
    /// The guest kernel's log.
    pub kernel_log: KernelLog,
}

/// What to boot.
pub struct Boot<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The archive with the guest's files.
    pub image: &'a Path,
    /// Size of that archive.
    pub image_bytes: u64,
    /// How the guest marks its own words.
    pub mark: &'a str,
    /// Where logs go.
    pub directory: &'a Path,
}

impl Machine {
    /// Starts a guest.
    pub fn start(boot: &Boot<'_>) -> Result<Self> {
        let directory = boot.directory;
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let log = directory.join(KERNEL_LOG);
        let kernel_log =
            KernelLog::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let complaints = directory.join("qemu.log");
        let stderr =
            File::create(&complaints).with_context(|| format!("cannot write {}", complaints.display()))?;

        let mut command = command(boot);
        command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut qemu = command.spawn().context("cannot run setpriv")?;

        let mut stdout = qemu.stdout.take().expect("it is piped");
        let said = directory.join("tests.log");
        let mut said = File::create(&said).with_context(|| format!("cannot write {}", said.display()))?;
        let (sender, pieces) = sync_channel(PENDING_PIECES);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                // Only for people to look at.
                let _ = said.write_all(&buffer[..length]);
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let parser = Parser::new(boot.mark);
        Ok(Self {
            qemu,
            directory: directory.to_owned(),
            complaints,
            pieces,
            parser,
            events: VecDeque::new(),
            kernel_log,
        })
    }

    /// What the guest says next, `Ended` when it has ended, `Silent` when it says nothing until `deadline`.
    pub fn hear(&mut self, deadline: Instant) -> Heard {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Heard::Event(event);
            }
            match self.pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(piece) => self.events.extend(self.parser.push(&piece)),
                Err(RecvTimeoutError::Timeout) => return Heard::Silent,
                Err(RecvTimeoutError::Disconnected) => {
                    self.events.extend(self.parser.finish());
                    if self.events.is_empty() {
                        return Heard::Ended;
                    }
                }
            }
        }
    }

    /// Has a guest that is silent tell what it is doing, in its kernel's log and beside it. Ends the guest.
    pub fn investigate(&self) -> Result<()> {
        silence::investigate(&self.directory).context("the guest's processors cannot be looked at")
    }

    /// How QEMU itself ended, as far as it has, and what it had to say, such as why it did not start.
    pub fn ended_as(&mut self) -> String {
        let complaints = fs::read_to_string(&self.complaints).unwrap_or_default();
        // Its output ends a moment before it does.
        let mut looks = 0..LOOKS_FOR_THE_END;
        let ended = loop {
            match self.qemu.try_wait() {
                Ok(Some(status)) => break status.to_string(),
                Ok(None) if looks.next().is_none() => break "still runs".to_owned(),
                Ok(None) => thread::sleep(BETWEEN_LOOKS),
                Err(error) => break error.to_string(),
            }
        };
        format!("qemu: {ended} {}", complaints.trim()).trim_end().to_owned()
    }
}

/// What listening to a guest gave.
pub enum Heard {
    /// It said something.
    Event(Event),
    /// It has said nothing.
    Silent,
    /// It has ended.
    Ended,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn command(boot: &Boot<'_>) -> Command {
    // While it boots, the guest has both the archive and what it unpacks from it.
    let memory_mb = MEMORY_MB + 2 * (boot.image_bytes >> 20);
    // The kernel ends QEMU when the thread that started it ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
    // No graphics, network or disks.
    command.args(["-nodefaults", "-display", "none"]);
    // A processor made of software: CI has no hardware to lend. One thread for all of the guest's: where each has its own,
    // one of them may run a breakpoint that another has just replaced, of those by which the kernel changes its own code when a
    // program is attached ("Oops: int3", or a guest that falls silent).
    command.args(["-accel", "tcg,thread=single", "-cpu", "max"]);
    command.args(["-smp", &CPUS.to_string(), "-m", &memory_mb.to_string()]);
    command.arg("-kernel").arg(&boot.kernel.image).arg("-initrd").arg(boot.image);
    // Without edd=off the kernel looks for disks of the firmware's for seconds. After a panic it restarts at
    // once, which ends QEMU.
    let parameters = format!("console=ttyS0 edd=off panic=-1 {KERNEL_PARAMETER}");
    command.args(["-append", &parameters, "-no-reboot"]);
    command.args(["-monitor", &format!("unix:{MONITOR},server=on,wait=off")]);
    // The first serial port has the kernel's log, the second what the tests say.
    command.args(["-serial", &format!("file:{KERNEL_LOG}")]);
    command.args(["-chardev", "stdio,id=tests,signal=off", "-serial", "chardev:tests"]);
    command
}

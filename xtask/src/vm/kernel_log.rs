//! Reads a guest kernel's log for what must not happen.

use std::{
    fs::File,
    io::{self, Read},
    mem,
    path::{Path, PathBuf},
};

/// A guest's console, which QEMU writes to a file while the guest runs.
pub struct KernelLog {
    path: PathBuf,
    file: File,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl KernelLog {
    /// Begins a new, empty log at `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        File::create(path)?;
        Ok(Self { path: path.to_owned(), file: File::open(path)?, partial: Vec::new() })
    }

    /// The kernel's complaint in what it wrote since the last call, if there is one. The guest's console is
    /// synchronous: what happened before the guest said something is there by then.
    pub fn new_complaint(&mut self) -> io::Result<Option<String>> {
        let mut bytes = mem::take(&mut self.partial);
        self.file.read_to_end(&mut bytes)?;
        let complete = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        self.partial = bytes.split_off(complete);
        Ok(complaint(&String::from_utf8_lossy(&bytes)))
    }

    /// The last lines of the whole log.
    pub fn tail(&self) -> io::Result<String> {
        let bytes = std::fs::read(&self.path)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n"))
    }
}

/// Enough for a register dump and the stack below it.
const SHOWN_LINES: usize = 60;

/// What a kernel in good health never says.
const COMPLAINTS: [&str; 10] = [
    "BUG: ",
    "INFO: possible recursive locking",
    "Internal error",
    "Kernel panic",
    "LOCKUP",
    "Oops: ",
    "WARNING: CPU",
    "detected expedited stalls",
    "detected stall",
    "general protection fault",
];

fn complaint(log: &str) -> Option<String> {
    let lines: Vec<_> = log.lines().map(str::trim_end).collect();
    let first = lines.iter().position(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)))?;
    Some(lines[first..lines.len().min(first + SHOWN_LINES)].join("\n"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_usual_boot_is_no_complaint() {
        assert_eq!(
            complaint(
                "[    0.040000] tsc: Unable to calibrate against PIT\n\
                 [    0.503105] mtrr: your CPUs had inconsistent fixed MTRR settings\n\
                 [    0.551129] BUGs are looked for elsewhere\n\
                 [    1.545608] Unstable clock detected, switching default tracing clock to \"global\"\n\
                 [    9.123456] perf: interrupt took too long (3152 > 2500), lowering \
                 kernel.perf_event_max_sample_rate to 63250\n\
                 [   39.385669] reboot: Power down\n"
            ),
            None
        );
    }

    #[test]
    fn complaints_are_shown_from_their_first_line() {
        for first in [
            "[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "[    1.0] WARNING: CPU: 1 PID: 93 at kernel/bpf/verifier.c:1 check+0x1/0x2",
            "[    1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
            "[    1.0] rcu: INFO: rcu_sched self-detected stall on CPU",
            "[    1.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[    1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [live:93]",
            "[    1.0] Oops: 0002 [#1] SMP NOPTI",
        ] {
            let log = format!("[    0.9] fine\n{first}\n[    1.1] and then\n");
            assert_eq!(complaint(&log), Some(format!("{first}\n[    1.1] and then")));
        }
    }

    #[test]
    fn a_line_counts_once_and_when_it_is_complete() {
        let path = std::env::temp_dir().join(format!("chokepoint-kernel-log-{}", std::process::id()));
        let mut log = KernelLog::create(&path).unwrap();
        let mut console = File::options().append(true).open(&path).unwrap();
        let mut seen = Vec::new();
        for written in ["fine\n", "BU", "G: x", "\n", "fine\n"] {
            console.write_all(written.as_bytes()).unwrap();
            seen.push(log.new_complaint().unwrap());
        }
        assert_eq!(seen, [None, None, None, Some("BUG: x".to_owned()), None]);
        assert_eq!(log.tail().unwrap(), "fine\nBUG: x\nfine");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_shown_is_bounded() {
        let log = "BUG: x\n".to_owned() + &"more\n".repeat(10 * SHOWN_LINES);
        assert_eq!(complaint(&log).unwrap().lines().count(), SHOWN_LINES);
    }
}

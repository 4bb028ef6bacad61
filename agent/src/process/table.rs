//! Processes that run code of no file, with the files in which their runtimes name it.

use std::collections::HashMap;
use std::fs::File;

/// Names one program of one process for good: numbers of processes are reused, programs are replaced by exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// Start of the process, `CLOCK_BOOTTIME` nanoseconds.
    pub start_ns: u64,
    /// Counts the programs that the process has run.
    pub exec_id: u32,
}

/// Index of a [`Process`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId(u32);

impl ProcessId {
    /// Position in the table.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One program of one process.
#[derive(Debug)]
pub struct Process {
    /// Which one it is.
    pub key: ProcessKey,
    perf_map: Option<File>,
}

impl Process {
    /// The file in which the process's runtime names the code it compiled, if it has one.
    #[must_use]
    pub fn perf_map(&self) -> Option<&File> {
        self.perf_map.as_ref()
    }
}

/// The most programs that are kept.
const MAX_PROCESSES: usize = 65_536;

/// Every program of every process that was sampled in code of no file.
#[derive(Debug, Default)]
pub struct ProcessTable {
    entries: Vec<Process>,
    ids: HashMap<ProcessKey, ProcessId>,
}

impl ProcessTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The entry with this key. A new one has its perf map opened at once, because it may end soon. `None` when there are
    /// too many.
    pub fn identify(&mut self, key: ProcessKey) -> Option<ProcessId> {
        if let Some(id) = self.ids.get(&key) {
            return Some(*id);
        }
        if self.entries.len() >= MAX_PROCESSES {
            return None;
        }
        let id = ProcessId(self.entries.len() as u32);
        self.entries.push(Process { key, perf_map: open_perf_map(key.tgid) });
        self.ids.insert(key, id);
        Some(id)
    }

    /// The process at this index.
    #[must_use]
    pub fn get(&self, id: ProcessId) -> &Process {
        &self.entries[id.index()]
    }

    /// Looks once more for the perf maps: a runtime may have begun to write its own after it was first sampled.
    pub fn open_late_perf_maps(&mut self) {
        for process in self.entries.iter_mut().filter(|process| process.perf_map.is_none()) {
            process.perf_map = open_perf_map(process.key.tgid);
        }
    }
}

/// `/tmp/perf-PID.map` in the process's own mount namespace, with the number it has in its own PID namespace.
fn open_perf_map(tgid: u32) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let status = std::fs::read_to_string(format!("/proc/{tgid}/status")).ok()?;
    let own_number = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|numbers| numbers.split_whitespace().next_back())
        .map_or_else(|| tgid.to_string(), str::to_owned);
    let path = format!("/proc/{tgid}/root/tmp/perf-{own_number}.map");
    // Anyone may have put anything there.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_program_of_a_process_is_another_entry() {
        let mut table = ProcessTable::new();
        let key = ProcessKey { tgid: std::process::id(), start_ns: 1, exec_id: 1 };
        let first = table.identify(key);
        assert!(first.is_some());
        assert_eq!(table.identify(key), first);
        assert_ne!(table.identify(ProcessKey { exec_id: 2, ..key }), first);
    }
}

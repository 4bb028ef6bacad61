//! Processes that run code of no file, with the files in which their runtimes name it.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::binaries;
use super::maps::Backing;

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
#[derive(Clone, Debug)]
pub struct Process {
    /// Which one it is.
    pub key: ProcessKey,
    perf_map: Option<Arc<File>>,
    jitdump: Option<Arc<File>>,
}

impl Process {
    /// The file in perf's jitdump format in which the runtime keeps the code it compiled, if it has one.
    #[must_use]
    pub fn jitdump(&self) -> Option<&File> {
        self.jitdump.as_deref()
    }

    /// The file in which the process's runtime names the code it compiled, if it has one.
    #[must_use]
    pub fn perf_map(&self) -> Option<&File> {
        self.perf_map.as_deref()
    }
}

/// The most programs that are kept.
const MAX_PROCESSES: usize = 65_536;

/// Every program of every process that was sampled in code of no file.
#[derive(Clone, Debug, Default)]
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

    /// The entry with this key, if there is one.
    #[must_use]
    pub fn find(&self, key: ProcessKey) -> Option<ProcessId> {
        self.ids.get(&key).copied()
    }

    /// The entry with this key. A new one has its runtime's files opened at once, because it may end soon. `None` when there are
    /// too many.
    pub fn identify(&mut self, key: ProcessKey) -> Option<ProcessId> {
        if let Some(id) = self.find(key) {
            return Some(id);
        }
        if self.entries.len() >= MAX_PROCESSES {
            return None;
        }
        let id = ProcessId(self.entries.len() as u32);
        let perf_map = open_perf_map(key.tgid).map(Arc::new);
        let jitdump = open_jitdump(key.tgid).map(Arc::new);
        self.entries.push(Process { key, perf_map, jitdump });
        self.ids.insert(key, id);
        Some(id)
    }

    /// The process at this index.
    #[must_use]
    pub fn get(&self, id: ProcessId) -> &Process {
        &self.entries[id.index()]
    }

    /// Looks once more for perf maps and jitdumps: a runtime may have begun to write its own after it was first sampled.
    pub fn open_late_files(&mut self) {
        for process in &mut self.entries {
            let tgid = process.key.tgid;
            process.perf_map = process.perf_map.take().or_else(|| open_perf_map(tgid).map(Arc::new));
            process.jitdump = process.jitdump.take().or_else(|| open_jitdump(tgid).map(Arc::new));
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

/// `jit-PID.dump`, wherever the runtime put it: it maps a page of it as code for profilers to see.
fn open_jitdump(tgid: u32) -> Option<File> {
    let root = PathBuf::from(format!("/proc/{tgid}/root"));
    let mappings = binaries::mappings(tgid).ok()?.into_iter();
    let dumps = mappings.filter_map(|mapping| match mapping.backing {
        Backing::File(identity) if is_jitdump(&identity.path) => Some((mapping.range, identity)),
        _ => None,
    });
    dumps
        .filter_map(|(range, identity)| {
            binaries::open_linked(tgid, &range).or_else(|| binaries::open_in_root(&root, identity))
        })
        .map(|(_, file)| file)
        .next()
}

/// The number is that of the process that began it, of which this one may be a child.
fn is_jitdump(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = name.strip_prefix("jit-").and_then(|rest| rest.strip_suffix(".dump"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_right_name_are_jitdumps() {
        for (path, expected) in [
            ("/tmp/jit-12.dump", true),
            ("/a b/.debug/jit/jit-1.dump", true),
            ("/tmp/jit-.dump", false),
            ("/tmp/jit-x.dump", false),
            ("/tmp/jit-1.dump.so", false),
            ("/tmp/jit-1.dump/lib.so", false),
        ] {
            assert_eq!(is_jitdump(Path::new(path)), expected, "{path}");
        }
    }

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

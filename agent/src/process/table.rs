//! One entry for each program that a process has run, with its executable mappings.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::binaries::{Binaries, BinaryId};
use super::maps::{self, Backing, MAX_MAPS_BYTES};

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

/// Where an address of a process's code lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// At this offset of a file.
    File(BinaryId, u64),
    /// At this offset of the vDSO.
    Vdso(u64),
    /// In memory of no file, at this absolute address.
    Anonymous(u64),
}

/// One program of one process.
#[derive(Debug)]
pub struct Process {
    /// Which one it is.
    pub key: ProcessKey,
    mappings: Vec<Mapped>,
    /// Counts the successful readings of the mappings; 0 means that they were never had.
    generation: u32,
    last_reading: Instant,
    /// Until they may be read again. Grows with each reading, so that addresses that are in no mapping do not cost a reading
    /// for each sample.
    pause: Duration,
    perf_map: Option<File>,
}

#[derive(Debug)]
struct Mapped {
    range: Range<u64>,
    start: Place,
}

impl Process {
    /// Where this address lies by the mappings read last; `None` where no executable mapping covers it.
    #[must_use]
    pub fn place(&self, address: u64) -> Option<Place> {
        let after = self.mappings.partition_point(|mapped| mapped.range.start <= address);
        let mapped = &self.mappings[after.checked_sub(1)?];
        if !mapped.range.contains(&address) {
            return None;
        }
        let distance = address - mapped.range.start;
        Some(match mapped.start {
            Place::File(binary, offset) => Place::File(binary, offset.saturating_add(distance)),
            Place::Vdso(offset) => Place::Vdso(offset + distance),
            Place::Anonymous(_) => Place::Anonymous(address),
        })
    }

    /// Counts the successful readings of the mappings; 0 means that they were never had.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The file in which the process's runtime names the code it compiled, if it has one.
    #[must_use]
    pub fn perf_map(&self) -> Option<&File> {
        self.perf_map.as_ref()
    }
}

/// The most programs that are kept.
const MAX_PROCESSES: usize = 65_536;
/// Why the mappings are to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The process executed what is in none of them: something has been mapped since, or they were never had.
    ExecutedElsewhere,
    /// A caller is in none of them. Mostly that is no caller, but what a stack without frame pointers looks like.
    CalledFromElsewhere,
}

/// Shortest time between two readings of one process's mappings.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The same for a reason that most often is none.
const FIRST_PAUSE_FOR_CALLERS: Duration = Duration::from_secs(1);
/// Longest such time.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Every program of every process that was sampled.
#[derive(Debug, Default)]
pub struct ProcessTable {
    entries: Vec<Process>,
    ids: HashMap<ProcessKey, ProcessId>,
    binaries: Binaries,
}

impl ProcessTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The entry with this key. A new one has its mappings read at once, because it may end soon. `None` when there are too
    /// many.
    pub fn identify(&mut self, key: ProcessKey, now: Instant) -> Option<ProcessId> {
        if let Some(id) = self.ids.get(&key) {
            return Some(*id);
        }
        if self.entries.len() >= MAX_PROCESSES {
            return None;
        }
        let id = ProcessId(self.entries.len() as u32);
        self.entries.push(Process {
            key,
            mappings: Vec::new(),
            generation: 0,
            last_reading: now,
            pause: Duration::ZERO,
            perf_map: None,
        });
        self.ids.insert(key, id);
        self.refresh(id, now, Reason::ExecutedElsewhere);
        Some(id)
    }

    /// The process at this index.
    #[must_use]
    pub fn get(&self, id: ProcessId) -> &Process {
        &self.entries[id.index()]
    }

    /// The files of all processes.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Reads the mappings again, unless that was done a moment ago. Whether they were read.
    pub fn refresh(&mut self, id: ProcessId, now: Instant, reason: Reason) -> bool {
        let process = &mut self.entries[id.index()];
        let pause = match reason {
            Reason::ExecutedElsewhere => process.pause,
            Reason::CalledFromElsewhere => process.pause.max(FIRST_PAUSE_FOR_CALLERS),
        };
        if now < process.last_reading + pause {
            return false;
        }
        process.last_reading = now;
        process.pause = (process.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let tgid = process.key.tgid;
        let text = match read_maps(tgid) {
            Ok(text) if !text.is_empty() => text,
            // It ended, or is a kernel thread. What was read before stays.
            Ok(_) => return false,
            Err(error) => {
                tracing::debug!(tgid, %error, "mappings cannot be read");
                return false;
            }
        };
        let mut runs_anonymous_code = false;
        let binaries = &mut self.binaries;
        process.mappings = maps::executable_mappings(&text)
            .into_iter()
            .filter_map(|mapping| {
                let start = match &mapping.backing {
                    Backing::File(identity) => {
                        Place::File(binaries.identify(tgid, &mapping.range, identity)?, mapping.file_offset)
                    }
                    Backing::Vdso => Place::Vdso(mapping.file_offset),
                    Backing::Anonymous => {
                        runs_anonymous_code = true;
                        Place::Anonymous(mapping.range.start)
                    }
                };
                Some(Mapped { range: mapping.range, start })
            })
            .collect();
        process.generation += 1;
        if runs_anonymous_code && process.perf_map.is_none() {
            process.perf_map = open_perf_map(tgid);
        }
        true
    }

    /// Looks once more for the perf maps of processes that run code of no file: a runtime may have begun to write it after the
    /// mappings were read.
    pub fn open_late_perf_maps(&mut self) {
        for process in &mut self.entries {
            let runs_anonymous_code =
                process.mappings.iter().any(|mapped| matches!(mapped.start, Place::Anonymous(_)));
            if runs_anonymous_code && process.perf_map.is_none() {
                process.perf_map = open_perf_map(process.key.tgid);
            }
        }
    }
}

fn read_maps(tgid: u32) -> io::Result<Vec<u8>> {
    /// The kernel gives a page at a time; with less room there would be many small readings.
    const TYPICAL_BYTES: usize = 16 << 10;
    let mut text = Vec::with_capacity(TYPICAL_BYTES);
    File::open(format!("/proc/{tgid}/maps"))?.take(MAX_MAPS_BYTES).read_to_end(&mut text)?;
    Ok(text)
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

    fn own_key() -> ProcessKey {
        ProcessKey { tgid: std::process::id(), start_ns: 1, exec_id: 1 }
    }

    #[test]
    fn an_address_of_this_program_lies_in_its_own_file() {
        let mut table = ProcessTable::new();
        let id = table.identify(own_key(), Instant::now()).unwrap();
        let address = an_address_of_this_program_lies_in_its_own_file as fn() as usize as u64;
        let Some(Place::File(binary, _)) = table.get(id).place(address) else {
            panic!("{:?}", table.get(id).place(address));
        };
        let binary = table.binaries().get(binary);
        assert_eq!(binary.path, std::env::current_exe().unwrap());
        assert!(binary.file.is_some());
        assert_eq!(table.get(id).place(0), None);
    }

    #[test]
    fn mappings_are_read_again_only_after_a_pause_that_grows() {
        let mut table = ProcessTable::new();
        let start = Instant::now();
        let id = table.identify(own_key(), start).unwrap();
        assert_eq!(table.get(id).generation(), 1);
        let mut read_at = |pauses: u32, reason| table.refresh(id, start + FIRST_PAUSE * pauses, reason);
        assert!(!read_at(0, Reason::ExecutedElsewhere));
        assert!(read_at(1, Reason::ExecutedElsewhere));
        assert!(!read_at(2, Reason::ExecutedElsewhere));
        assert!(read_at(3, Reason::ExecutedElsewhere));
        // A second for callers.
        assert!(!read_at(3 + 49, Reason::CalledFromElsewhere));
        assert!(read_at(3 + 50, Reason::CalledFromElsewhere));
    }

    #[test]
    fn a_process_that_is_gone_has_no_mappings() {
        let mut table = ProcessTable::new();
        // Above the kernel's own limit for process ids.
        let key = ProcessKey { tgid: 1 << 23, start_ns: 0, exec_id: 0 };
        let id = table.identify(key, Instant::now()).unwrap();
        assert_eq!((table.get(id).generation(), table.get(id).place(4096)), (0, None));
    }
}

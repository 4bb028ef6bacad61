//! Reads the format back.

use std::borrow::Cow;
use std::io::{self, Read};

use serde::Deserialize;

use crate::connections;
use crate::coverage::{self, Coverage};
use crate::memory;
use crate::profile::{self, Builder, ModuleKind, Profile};
use crate::thread_time::{self, Parts};

use super::{
    Basis, Connection, File, Function, Group, Header, Kill, Kind, Line, Location, Loss, Memory, Module,
    Moment, Outcomes, ProcessMemory, Reclaim, Sample, Seen, Thread, ThreadTime, Unit, Wake,
};
use super::{SCHEMA, VERSION};

/// Why a file could not be read as a profile.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The reader failed.
    #[error("could not read the profile")]
    Io(#[from] io::Error),
    /// It is no JSON, or lacks a field.
    #[error("not a profile in Chokepoint's JSON format")]
    Json(#[from] serde_json::Error),
    /// It holds something else, or comes from a later version.
    #[error("the file is {schema:?} version {version}; this program reads \"{SCHEMA}\" version {VERSION}")]
    Version {
        /// What the file says that it is.
        schema: String,
        /// The version that the file says it has.
        version: u32,
    },
    /// An index points behind the end of its dictionary.
    #[error("the file is damaged: it refers to {dictionary}[{index}], and there are {length}")]
    Index {
        /// Name of the dictionary.
        dictionary: &'static str,
        /// The index.
        index: u32,
        /// Number of entries.
        length: usize,
    },
    /// A build id is not in hexadecimal.
    #[error("the file is damaged: {0:?} is no build id")]
    BuildId(String),
    /// There is no such operation of a block device.
    #[error("the file is damaged: {0:?} is no operation of a block device")]
    Operation(String),
    /// Buckets of a distribution overlap or are out of order.
    #[error("the file is damaged: buckets of a latency are out of order")]
    Buckets,
    /// Its sums exceed 2^64.
    #[error("the file is damaged: its samples add up to more than 2^64")]
    Overflow,
}

/// Reads a profile back. The file may come from anyone: whatever it refers to is checked. Memory is bounded by the
/// file's size, which is the caller's to limit.
///
/// # Errors
/// It could not be read, or is not what [`export::write`](crate::export::write) writes.
pub fn read(input: &mut dyn Read) -> Result<Profile, ReadError> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    // Before the fields are relied on, which other versions may lack.
    let Mark { schema, version } = serde_json::from_slice(&bytes)?;
    if (schema.as_str(), version) != (SCHEMA, VERSION) {
        return Err(ReadError::Version { schema, version });
    }
    serde_json::from_slice::<File<'_>>(&bytes)?.into_profile()
}

/// What tells a file's format.
#[derive(Deserialize)]
struct Mark {
    schema: String,
    version: u32,
}

impl File<'_> {
    /// The profile. Dictionary entries that the file holds twice become one.
    fn into_profile(self) -> Result<Profile, ReadError> {
        add_up(self.samples.iter().map(|sample| sample.count))?;
        add_up(self.samples.iter().map(|sample| sample.weight))?;
        add_up(self.wakes.iter().map(|wake| wake.count))?;
        add_up(self.wakes.iter().map(|wake| wake.weight))?;
        add_up(self.timeline.iter().map(|moment| moment.weight))?;
        let mut builder = Builder::new();
        let functions: Vec<_> = self
            .functions
            .into_iter()
            .map(|Function { name, file, .. }| {
                builder.function(profile::Function { name: name.into_owned(), file: file.into_owned() })
            })
            .collect();
        let modules = self
            .modules
            .into_iter()
            .map(|module| Ok(builder.module(module.into_model()?)))
            .collect::<Result<Vec<_>, ReadError>>()?;
        let locations = self
            .locations
            .into_iter()
            .map(|Location { module, address, lines, is_spin_wait }| {
                let module = entry(&modules, "modules", module)?;
                let lines = lines
                    .into_iter()
                    .map(|Line { function, line }| {
                        Ok(profile::Line { function: entry(&functions, "functions", function)?, line })
                    })
                    .collect::<Result<_, ReadError>>()?;
                Ok(builder.location(profile::Location { module, address, lines, is_spin_wait }))
            })
            .collect::<Result<Vec<_>, ReadError>>()?;
        let stacks = self
            .stacks
            .into_iter()
            .map(|stack| {
                let stack = stack.into_iter().map(|index| entry(&locations, "locations", index));
                Ok(builder.stack(stack.collect::<Result<_, _>>()?))
            })
            .collect::<Result<Vec<_>, ReadError>>()?;
        let threads: Vec<_> = self
            .threads
            .into_iter()
            .map(|Thread { pid, tid, process_name, thread_name }| {
                builder.thread(profile::Thread {
                    pid,
                    tid,
                    process_name: process_name.into_owned(),
                    thread_name: thread_name.into_owned(),
                })
            })
            .collect();
        for Sample { thread, stack, count, weight } in self.samples {
            let thread = entry(&threads, "threads", thread)?;
            builder.add(profile::Sample { thread, stack: entry(&stacks, "stacks", stack)?, count, weight });
        }
        for Moment { offset_ns, length_ns, thread, stack, weight } in self.timeline {
            let thread = entry(&threads, "threads", thread)?;
            let stack = entry(&stacks, "stacks", stack)?;
            builder.add_moment(profile::Moment { offset_ns, length_ns, thread, stack, weight });
        }
        for Wake { thread, stack, waker, waker_stack, count, weight } in self.wakes {
            builder.add_wake(profile::Wake {
                thread: entry(&threads, "threads", thread)?,
                stack: entry(&stacks, "stacks", stack)?,
                waker: waker.map(|waker| entry(&threads, "threads", waker)).transpose()?,
                waker_stack: entry(&stacks, "stacks", waker_stack)?,
                count,
                weight,
            });
        }
        let mut profile = builder.finish(self.header.into_model(), self.coverage.into_model());
        profile.thread_times = self.thread_times.into_iter().map(ThreadTime::into_model).collect();
        profile.run_queue = self.run_queue.map(|run_queue| run_queue.into_model()).transpose()?;
        profile.memory = self.memory.map(Memory::into_model);
        profile.signals = self.signals.map(Cow::into_owned);
        profile.connections = self.connections.into_iter().map(Connection::into_model).collect();
        profile.block = self.block.map(|block| block.into_model()).transpose()?;
        profile.failed_calls = self.failed_calls.map(Cow::into_owned);
        Ok(profile)
    }
}

impl ThreadTime<'_> {
    fn into_model(self) -> thread_time::ThreadTime {
        thread_time::ThreadTime {
            pid: self.pid,
            tid: self.tid,
            process_name: self.process_name.into_owned(),
            thread_name: self.thread_name.into_owned(),
            cgroup_id: self.cgroup_id,
            elapsed_ns: self.elapsed_ns,
            parts: Parts {
                on_cpu_ns: self.on_cpu_ns,
                stolen_ns: self.stolen_ns,
                woken_ns: self.woken_ns,
                preempted_ns: self.preempted_ns,
                throttled_ns: self.throttled_ns,
                interruptible_ns: self.interruptible_ns,
                uninterruptible_ns: self.uninterruptible_ns,
                io_ns: self.io_ns,
            },
            user_share: self.user_share,
            switches: self.switches,
            ended: self.ended,
        }
    }
}

impl Module<'_> {
    fn into_model(self) -> Result<profile::Module, ReadError> {
        let Self { kind, path, build_id } = self;
        Ok(profile::Module {
            kind: match kind {
                Kind::Binary => ModuleKind::Binary,
                Kind::Kernel => ModuleKind::Kernel,
                Kind::Vdso => ModuleKind::Vdso,
                Kind::Jit => ModuleKind::Jit,
                Kind::Unknown => ModuleKind::Unknown,
                Kind::Activity => ModuleKind::Activity,
            },
            path: path.into_owned(),
            build_id: bytes(&build_id).ok_or(ReadError::BuildId(build_id))?,
        })
    }
}

impl Header<'_> {
    fn into_model(self) -> profile::Header {
        profile::Header {
            title: self.title.into_owned(),
            kind: self.kind.into_owned(),
            unit: match self.unit {
                Unit::Nanoseconds => profile::Unit::Nanoseconds,
                Unit::Count => profile::Unit::Count,
            },
            basis: match self.basis {
                Basis::Samples => profile::Basis::Samples,
                Basis::Weight => profile::Basis::Weight,
            },
            period: self.period,
            start_unix_ns: self.start_unix_ns,
            duration_ns: self.duration_ns,
            host: self.host.into_owned(),
            target: self.target.into_owned(),
            cpus: self.cpus,
            kernel: self.kernel.into_owned(),
            program: self.program.into_owned(),
        }
    }
}

impl Seen<'_> {
    fn into_model(self) -> Coverage {
        let losses = |losses: Vec<Loss<'_>>| {
            losses
                .into_iter()
                .map(|Loss { cause, samples }| coverage::Loss {
                    cause: Cow::Owned(cause.into_owned()),
                    samples,
                })
                .collect()
        };
        let outcomes = |stacks: Outcomes<'_>| coverage::StackOutcomes {
            complete: stacks.complete,
            truncated: stacks.truncated,
            incomplete: losses(stacks.incomplete),
            absent: stacks.absent,
        };
        Coverage {
            expected: self.expected,
            fired: self.fired,
            idle: self.idle,
            outside_target: self.outside_target,
            other_mode: self.other_mode,
            attempted: self.attempted,
            captured: self.captured,
            lost: losses(self.lost),
            user_stacks: outcomes(self.user_stacks),
            kernel_stacks: outcomes(self.kernel_stacks),
            notes: self.notes.into_owned(),
        }
    }
}

fn add_up(mut numbers: impl Iterator<Item = u64>) -> Result<u64, ReadError> {
    numbers.try_fold(0_u64, u64::checked_add).ok_or(ReadError::Overflow)
}

fn entry<T: Copy>(entries: &[T], dictionary: &'static str, index: u32) -> Result<T, ReadError> {
    entries.get(index as usize).copied().ok_or(ReadError::Index { dictionary, index, length: entries.len() })
}

/// The bytes, two digits each.
fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = hexadecimal.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()).collect()
}

impl Memory<'_> {
    fn into_model(self) -> memory::Memory {
        memory::Memory {
            processes: self.processes.into_iter().map(ProcessMemory::into_model).collect(),
            kills: self.kills.into_iter().map(Kill::into_model).collect(),
            kswapd_runs: self.kswapd_runs,
        }
    }
}

impl Group<'_> {
    fn into_model(self) -> memory::Group {
        memory::Group { id: self.id, path: self.path.into_owned() }
    }
}

impl ProcessMemory<'_> {
    fn into_model(self) -> memory::ProcessMemory {
        let Reclaim { count, total_ns, pages, p50_ns, p95_ns, p99_ns, max_ns } = self.reclaim;
        memory::ProcessMemory {
            pid: self.pid,
            process_name: self.process_name.into_owned(),
            group: self.group.into_model(),
            minor_faults: self.minor_faults,
            major_faults: self.major_faults,
            fault_wait_ns: self.fault_wait_ns,
            reclaim: memory::Reclaim { count, total_ns, pages, p50_ns, p95_ns, p99_ns, max_ns },
            compactions: self.compactions,
        }
    }
}

impl Kill<'_> {
    fn into_model(self) -> memory::Kill {
        memory::Kill {
            offset_ns: self.offset_ns,
            pid: self.pid,
            process_name: self.process_name.into_owned(),
            group: self.group.into_model(),
            total_bytes: self.total_bytes,
            anonymous_bytes: self.anonymous_bytes,
            file_bytes: self.file_bytes,
            shared_bytes: self.shared_bytes,
            by_pid: self.by_pid,
            by_name: self.by_name.into_owned(),
        }
    }
}

impl Connection<'_> {
    fn into_model(self) -> connections::Connection {
        connections::Connection {
            namespace: self.namespace,
            local: self.local,
            remote: self.remote,
            is_accepted: self.is_accepted,
            pid: self.pid,
            process_name: self.process_name.into_owned(),
            peer_pid: self.peer_pid,
            open: self.open,
            rtt_us: self.rtt_us,
            min_rtt_us: self.min_rtt_us,
            congestion_window: self.congestion_window,
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
            retransmits: self.retransmits,
            busy_ns: self.busy_ns,
            receiver_limited_ns: self.receiver_limited_ns,
            buffer_limited_ns: self.buffer_limited_ns,
        }
    }
}

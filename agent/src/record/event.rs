//! What a recording can show: the events of `record -e`.

use std::fmt;
use std::str::FromStr;

use chokepoint_analysis::activity::{Class, Group};
use thiserror::Error;

/// One profile of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// What threads execute.
    Cpu,
    /// All time that threads do not execute.
    OffCpu,
    /// Time that threads could have run.
    RunQueue,
    /// Time waiting for devices.
    Io,
    /// Time waiting for locks, and for what may be one.
    Lock,
    /// Time waiting for the network.
    Net,
    /// All time of all threads, by class.
    Wall,
    /// Time blocked, with what ended it.
    OffWake,
    /// What TCP connections send again.
    Retransmit,
    /// Page faults.
    Fault,
    /// Time that threads are made to reclaim memory.
    Reclaim,
    /// Everything that a verdict needs: all time of all threads with what ended waits, and what the resources did.
    All,
}

/// Why there is no such event.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("no event {0:?}; the events are {list}", list = Event::names())]
pub struct UnknownEvent(String);

impl Event {
    /// Every event.
    pub const ALL: [Self; 12] = [
        Self::Cpu,
        Self::OffCpu,
        Self::RunQueue,
        Self::Io,
        Self::Lock,
        Self::Net,
        Self::Wall,
        Self::OffWake,
        Self::Retransmit,
        Self::Fault,
        Self::Reclaim,
        Self::All,
    ];

    /// The name that users and tools know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::OffCpu => "off-cpu",
            Self::RunQueue => "run-queue",
            Self::Io => "io",
            Self::Lock => "lock",
            Self::Net => "net",
            Self::Wall => "wall",
            Self::OffWake => "offwake",
            Self::Retransmit => "retransmit",
            Self::Fault => "fault",
            Self::Reclaim => "reclaim",
            Self::All => "all",
        }
    }

    /// What its weights are, in words.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU time",
            Self::OffCpu => "Off-CPU time",
            Self::RunQueue => "Run-queue time",
            Self::Io => "I/O wait",
            Self::Lock => "Lock wait",
            Self::Net => "Network wait",
            Self::Wall | Self::All => "Thread time",
            Self::OffWake => "Blocked time and wakers",
            Self::Retransmit => "TCP retransmits",
            Self::Fault => "Page faults",
            Self::Reclaim => "Direct reclaim",
        }
    }

    /// Whether time of this class is part of it.
    #[must_use]
    pub fn has(self, class: Class) -> bool {
        match self {
            Self::Wall | Self::All => true,
            Self::Cpu => class.group() == Group::Cpu,
            Self::OffCpu => class.group() != Group::Cpu,
            Self::RunQueue => class.group() == Group::Queue,
            Self::Io => class.group() == Group::Io,
            Self::Lock => class.group() == Group::Lock,
            Self::Net => class.group() == Group::Net,
            Self::OffWake => !matches!(class.group(), Group::Cpu | Group::Queue),
            Self::Retransmit | Self::Fault | Self::Reclaim => false,
        }
    }

    /// Whether it takes samples of the CPUs.
    #[must_use]
    pub const fn needs_on_cpu(self) -> bool {
        matches!(self, Self::Cpu | Self::Wall | Self::All)
    }

    /// Whether it takes the scheduler's events.
    #[must_use]
    pub const fn needs_sched(self) -> bool {
        !matches!(self, Self::Cpu | Self::Retransmit | Self::Fault | Self::Reclaim)
    }

    /// Whether it shows run queues.
    #[must_use]
    pub const fn shows_run_queue(self) -> bool {
        matches!(self, Self::RunQueue | Self::Wall | Self::All)
    }

    /// Whether it takes the events of TCP connections.
    #[must_use]
    pub const fn needs_tcp(self) -> bool {
        matches!(self, Self::Retransmit)
    }

    /// Whether it looks at the statistics of TCP connections.
    #[must_use]
    pub const fn looks_at_sockets(self) -> bool {
        matches!(self, Self::Retransmit | Self::Net | Self::All)
    }

    /// Whether it takes what processes do with memory.
    #[must_use]
    pub const fn needs_memory(self) -> bool {
        matches!(self, Self::Fault | Self::Reclaim | Self::All)
    }

    /// Whether its weights are numbers of what the title names, not time.
    #[must_use]
    pub const fn is_counted(self) -> bool {
        matches!(self, Self::Retransmit | Self::Fault)
    }

    /// Whether it takes the requests of block devices.
    #[must_use]
    pub const fn needs_block(self) -> bool {
        matches!(self, Self::Io | Self::All)
    }

    /// Whether it looks at calls that fail for want of something limited.
    #[must_use]
    pub const fn looks_at_failed_calls(self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether it takes stacks of what ends waits.
    #[must_use]
    pub const fn needs_wakers(self) -> bool {
        matches!(self, Self::OffWake | Self::All)
    }

    /// Whether the host's saturation signals are read meanwhile.
    #[must_use]
    pub const fn reads_signals(self) -> bool {
        matches!(self, Self::All)
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Event {
    type Err = UnknownEvent;

    fn from_str(text: &str) -> Result<Self, UnknownEvent> {
        Self::ALL.into_iter().find(|event| event.name() == text).ok_or_else(|| UnknownEvent(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_known_by_name() {
        for event in Event::ALL {
            assert_eq!(event.name().parse(), Ok(event));
        }
        let error = "disk".parse::<Event>().unwrap_err().to_string();
        assert!(
            error.ends_with(
                "off-cpu, run-queue, io, lock, net, wall, offwake, retransmit, fault, reclaim, all"
            ),
            "{error}"
        );
    }

    #[test]
    fn every_class_is_in_wall_and_in_one_of_cpu_and_off_cpu() {
        for class in Class::ALL {
            assert!(Event::Wall.has(class));
            assert_ne!(Event::Cpu.has(class), Event::OffCpu.has(class), "{class}");
        }
    }
}

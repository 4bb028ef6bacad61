//! The columns of numbers: one variant each.

use chokepoint_analysis::activity::{Class, Group};

use super::snapshot::{Activity, Snapshot};

/// A number that rows have, and can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// On a CPU.
    Cpu,
    /// On a CPU, in user code.
    User,
    /// On a CPU, in the kernel.
    System,
    /// Able to run and waiting for a CPU, or for one that the hypervisor took.
    RunQueue,
    /// Held back by a CPU quota.
    Throttled,
    /// Waiting for devices.
    Io,
    /// Waiting for memory.
    Memory,
    /// Waiting for locks, and for what may be one.
    Lock,
    /// Waiting for the network.
    Net,
    /// Waiting for events, pipes, children, and what is of no class.
    Wait,
    /// Waiting for a time.
    Timer,
    /// Waiting for nothing.
    Idle,
    /// Switches away from a CPU, a second.
    Switches,
    /// Threads.
    Threads,
}

impl Column {
    /// Every column, in the order they are shown in.
    pub const ALL: [Self; 14] = [
        Self::Cpu,
        Self::User,
        Self::System,
        Self::RunQueue,
        Self::Throttled,
        Self::Io,
        Self::Memory,
        Self::Lock,
        Self::Net,
        Self::Wait,
        Self::Timer,
        Self::Idle,
        Self::Switches,
        Self::Threads,
    ];

    /// The columns that give way first where the screen is narrow.
    const GIVING_WAY: [Self; 4] = [Self::Threads, Self::Memory, Self::Idle, Self::Timer];

    /// Its heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::User => "USR",
            Self::System => "SYS",
            Self::RunQueue => "RUNQ",
            Self::Throttled => "THRT",
            Self::Io => "I/O",
            Self::Memory => "MEM",
            Self::Lock => "LOCK",
            Self::Net => "NET",
            Self::Wait => "WAIT",
            Self::Timer => "TIMR",
            Self::Idle => "IDLE",
            Self::Switches => "SW/s",
            Self::Threads => "THR",
        }
    }

    /// What it says, for the help.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Cpu => "on a CPU",
            Self::User => "on a CPU, in user code",
            Self::System => "on a CPU, in the kernel",
            Self::RunQueue => "able to run, waiting for a CPU",
            Self::Throttled => "able to run, held back by a quota",
            Self::Io => "waiting for a device",
            Self::Memory => "waiting for memory reclaim",
            Self::Lock => "waiting for a lock or a futex",
            Self::Net => "waiting for the network",
            Self::Wait => "waiting for events, pipes, others",
            Self::Timer => "sleeping until a time",
            Self::Idle => "idle kernel threads, stopped ones",
            Self::Switches => "switches away from a CPU, a second",
            Self::Threads => "threads",
        }
    }

    /// Characters it takes, the gap before it included.
    #[must_use]
    pub const fn width(self) -> u16 {
        match self {
            Self::Switches => 6,
            _ => 5,
        }
    }

    /// Its number in a window: per cent of the window, unless its description says otherwise.
    #[must_use]
    pub fn value(self, activity: &Activity, snapshot: &Snapshot) -> f64 {
        let class = |class| snapshot.pct(activity.class_ns(class));
        let group = |group| snapshot.pct(activity.group_ns(group));
        match self {
            Self::Cpu => class(Class::CpuUser) + class(Class::CpuKernel),
            Self::User => class(Class::CpuUser),
            Self::System => class(Class::CpuKernel),
            Self::RunQueue => class(Class::RunQueue) + class(Class::CpuStolen),
            Self::Throttled => class(Class::Throttled),
            Self::Io => group(Group::Io),
            Self::Memory => group(Group::Memory),
            Self::Lock => group(Group::Lock),
            Self::Net => group(Group::Net),
            Self::Wait => group(Group::Wait) - class(Class::Timer),
            Self::Timer => class(Class::Timer),
            Self::Idle => group(Group::Idle),
            Self::Switches => activity.switches as f64 / snapshot.length.as_secs_f64().max(1e-9),
            Self::Threads => activity.threads as f64,
        }
    }

    /// Its number as text of at most four characters, five for switches.
    #[must_use]
    pub fn text(self, activity: &Activity, snapshot: &Snapshot) -> String {
        let value = self.value(activity, snapshot);
        match self {
            Self::Switches | Self::Threads => whole(value),
            _ if value < 0.05 => ".".to_owned(),
            _ if value < 99.95 => format!("{value:.1}"),
            _ => whole(value),
        }
    }

    /// The columns that a width has room for: `sorted` is always among them.
    #[must_use]
    pub fn fitting(width: u16, sorted: Self) -> Vec<Self> {
        let mut columns = Self::ALL.to_vec();
        let total = |columns: &[Self]| columns.iter().map(|column| column.width()).sum::<u16>();
        let rest = Self::ALL.into_iter().rev().filter(|column| !Self::GIVING_WAY.contains(column));
        for column in Self::GIVING_WAY.into_iter().chain(rest) {
            if total(&columns) <= width {
                break;
            }
            columns.retain(|known| *known == sorted || *known != column);
        }
        columns
    }
}

/// A number of at most five characters.
#[must_use]
pub fn whole(value: f64) -> String {
    match value {
        0.0..9_999.5 => format!("{value:.0}"),
        9_999.5..999_500.0 => format!("{:.0}k", value / 1e3),
        _ => format!("{:.0}M", value / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn numbers_fit_their_columns() {
        let snapshot = Snapshot { length: Duration::from_secs(1), ..Snapshot::default() };
        for (ns, expected) in [
            (0, "."),
            (400_000, "."),
            (500_000, "0.1"),
            (999_000_000, "99.9"),
            (999_900_000, "100"),
            (12_345_000_000_000, "1M"),
            (99_990_000_000, "9999"),
            (123_450_000_000, "12k"),
        ] {
            let mut activity = Activity::default();
            activity.add(Class::CpuUser, ns);
            assert_eq!(Column::User.text(&activity, &snapshot), expected, "{ns}");
        }
        let activity = Activity::of_thread(123_456);
        assert_eq!(Column::Switches.text(&activity, &snapshot), "123k");
    }

    #[test]
    fn every_class_is_in_one_column_beside_the_sum_of_the_first_two() {
        let snapshot = Snapshot { length: Duration::from_secs(1), ..Snapshot::default() };
        for class in Class::ALL {
            let mut activity = Activity::default();
            activity.add(class, 1_000_000_000);
            let shown = Column::ALL
                .into_iter()
                .filter(|column| *column != Column::Cpu && column.value(&activity, &snapshot) > 0.0)
                .count();
            assert_eq!(shown, 1, "{class}");
        }
    }

    #[test]
    fn the_column_sorted_by_never_gives_way() {
        let all: u16 = Column::ALL.iter().map(|column| column.width()).sum();
        assert_eq!(Column::fitting(all, Column::Cpu), Column::ALL);
        for sorted in Column::ALL {
            for width in 6..=all {
                let columns = Column::fitting(width, sorted);
                assert!(columns.contains(&sorted) && !columns.is_empty());
                assert!(columns.iter().map(|column| column.width()).sum::<u16>() <= width, "{width}");
            }
        }
    }
}

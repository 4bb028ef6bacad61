//! Thread time: what every thread did, by state, and the waits of which stacks were taken.

use crate::{COMM_LEN, record::Kind, run_queue::LATENCY_BUCKETS, sample::SampleHeader};

/// What a thread is doing. It is always in exactly one state, so its times add up to its life in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum State {
    /// Executing.
    OnCpu = 0,
    /// Runnable since it was woken or born, not yet executing.
    Woken = 1,
    /// Runnable since another thread took its CPU, or since it yielded.
    Preempted = 2,
    /// Runnable, and held back by its group's CPU quota.
    Throttled = 3,
    /// Waiting in a sleep that signals interrupt.
    Blocked = 4,
    /// Waiting in a sleep that signals do not interrupt.
    Uninterruptible = 5,
    /// The same, and the kernel counts it as a wait for a device.
    Io = 6,
}

impl State {
    /// Number of states, and a power of two above it, so that an index can be masked.
    pub const COUNT: usize = 7;
    /// Room for the times by state.
    pub const SLOTS: usize = 8;
    /// Every state, in the order of its number.
    pub const ALL: [Self; Self::COUNT] = [
        Self::OnCpu,
        Self::Woken,
        Self::Preempted,
        Self::Throttled,
        Self::Blocked,
        Self::Uninterruptible,
        Self::Io,
    ];

    /// The state with this number; `None` for an unknown one.
    #[must_use]
    pub fn from_u32(value: u32) -> Option<Self> {
        Self::ALL.get(value as usize).copied()
    }

    /// Whether the thread could run if a CPU were given to it.
    #[must_use]
    pub const fn is_queued(self) -> bool {
        matches!(self, Self::Woken | Self::Preempted | Self::Throttled)
    }
}

const _: () = assert!(State::COUNT <= State::SLOTS && State::SLOTS.is_power_of_two());

/// Threads accounted for at a time, at most; more count [`crate::counters::Counter::SchedTableFull`]. The agent chooses a
/// size by the threads it finds. 400 bytes each.
pub const MAX_THREADS: u32 = 1 << 18;

/// A thread's times so far: the value of the map of threads, whose key is the address of its `task_struct`.
///
/// Not its id: that passes from one thread to another when a thread that is not the first runs a new program. What every switch
/// changes comes first, so that it touches few cache lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ThreadClock {
    /// When it came into its present state, `CLOCK_MONOTONIC` nanoseconds like all times here.
    pub since_ns: u64,
    /// When it left the CPU the last time.
    pub left_ns: u64,
    /// The present [`State`].
    pub state: u32,
    /// The [`State`] in which it left the CPU the last time.
    pub left_state: u32,
    /// How often it left the CPU.
    pub switches: u64,
    /// The kernel's count of the time it has really run, when it left the CPU the last time or the accounting began, nanoseconds.
    pub ran_ns: u64,
    /// The CPU on whose queue it came the last time.
    pub queue_cpu: u32,
    /// Keeps the layout free of holes; zero.
    pub reserved: u32,
    /// Address of the queue of its group that it came onto the last time; 0 where a quota does not hold it back, or where it is not
    /// told that way.
    pub group_queue: u64,
    /// How long that queue had been held back by then, nanoseconds.
    pub group_queue_away_ns: u64,
    /// Time by [`State`] up to `since_ns`. On a CPU is also what the hypervisor or interrupts took of it.
    pub spent_ns: [u64; State::SLOTS],
    /// When its accounting began: with the window, with its birth, or when it became part of the target.
    pub begin_ns: u64,
    /// The kernel's count of its user time when the accounting began, nanoseconds.
    pub begin_user_ns: u64,
    /// The same of its time in the kernel.
    pub begin_system_ns: u64,
    /// That count when the accounting began. Of a thread that was on a CPU then it is up to a tick old.
    pub begin_ran_ns: u64,
    /// Process id when the accounting began. Other than the record's fields, it is known also of a thread that no look finds.
    pub tgid: u32,
    /// The same of the thread id.
    pub tid: u32,
    /// As in [`SampleHeader::process_start_ns`]. Read when the accounting begins: while a thread ends, its process's first thread may be
    /// gone already, and its memory another's.
    pub process_start_ns: u64,
    /// The longest of its run-queue latencies, nanoseconds.
    pub longest_queue_ns: u64,
    /// How often it was queued until it ran, by [`crate::run_queue::latency_bucket`]; 4 billion stay that.
    pub latencies: [u32; LATENCY_BUCKETS],
}

impl ThreadClock {
    /// Nothing yet.
    pub const ZERO: Self = Self {
        since_ns: 0,
        left_ns: 0,
        state: 0,
        left_state: 0,
        spent_ns: [0; State::SLOTS],
        begin_ns: 0,
        switches: 0,
        begin_user_ns: 0,
        begin_system_ns: 0,
        ran_ns: 0,
        begin_ran_ns: 0,
        tgid: 0,
        tid: 0,
        process_start_ns: 0,
        queue_cpu: 0,
        reserved: 0,
        group_queue: 0,
        group_queue_away_ns: 0,
        longest_queue_ns: 0,
        latencies: [0; LATENCY_BUCKETS],
    };
}

/// A thread of the target that is on a CPU while the accounting is about to end: what the kernel has counted of its present turn.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RunningThread {
    /// Its key in the map of threads.
    pub key: u64,
    /// When it came to the CPU, [`ThreadClock::since_ns`].
    pub since_ns: u64,
    /// Now.
    pub now_ns: u64,
    /// The kernel's count of the time it has really run, up to a tick old.
    pub ran_ns: u64,
}

/// [`ThreadRecord::ended`]: its last switch was seen.
pub const ENDED: u32 = 1;
/// [`ThreadRecord::ended`]: its last switch was not seen, and another thread has its memory by now. Only the key, the ids and the clock are
/// its own, the record's other fields mean nothing.
pub const ENDED_UNSEEN: u32 = 2;

/// A thread's times, with its name: of one that ended in the window, or of one that lives at its end.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ThreadRecord {
    /// [`Kind::Thread`].
    pub kind: u32,
    /// 0, [`ENDED`] or [`ENDED_UNSEEN`].
    pub ended: u32,
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// Thread id in the initial PID namespace.
    pub tid: u32,
    /// Its key in the map of threads.
    pub key: u64,
    /// Id of its group in the version 2 hierarchy; 0 where it could not be read.
    pub cgroup_id: u64,
    /// Id of its group in the hierarchy that controls CPUs; 0 where it could not be read.
    pub cpu_cgroup_id: u64,
    /// Name of the thread, zero-terminated.
    pub thread_comm: [u8; COMM_LEN],
    /// Name of the process, zero-terminated.
    pub process_comm: [u8; COMM_LEN],
    /// Its times.
    pub clock: ThreadClock,
    /// The kernel's count of its user time now, nanoseconds. It is counted by ticks, so it says how on-CPU time is split, not
    /// how much there was.
    pub user_ns: u64,
    /// The same of its time in the kernel.
    pub system_ns: u64,
    /// The kernel's count of the time it has really run, now: up to a tick old where it is on a CPU.
    pub ran_ns: u64,
    /// The [`State`] that it seems to be in now. Where that is not on a CPU and the clock's is, no event has told that it left: the
    /// accounting had ended by then, or this host hides it from tracing.
    pub present_state: u32,
    /// Keeps the layout free of holes; zero.
    pub reserved: u32,
}

/// Bytes of each CPU's ring buffer of interrupts, 16 for each: enough for 40,000 a second, as they are made room for ten times a
/// second.
pub const INTERRUPTS_BYTES: usize = 64 << 10;

/// Arguments of a system call that are kept.
pub const SYSCALL_ARGUMENTS: usize = 3;
/// [`WaitFacts::syscall`] of a thread that is in none.
pub const NO_SYSCALL: u64 = u64::MAX;
/// [`WaitFacts::descriptor`] of a thread that does not poll a single file.
pub const NO_DESCRIPTOR: u64 = u64::MAX;

/// A wait of which the stack was taken; a whole sample follows, whose `weight` is the time off the CPU.
///
/// Waits are chosen by their length: one of length t with the probability min(1, t / `period_ns`), so that what it stands
/// for is max(t, `period_ns`). The choice depends on nothing else, and long waits are all there.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct WaitFacts {
    /// [`Kind::Wait`].
    pub kind: u32,
    /// The [`State`] in which the thread left the CPU.
    pub state: u32,
    /// When it left the CPU.
    pub left_ns: u64,
    /// Time until it was woken; 0 where it was runnable all the time.
    pub blocked_ns: u64,
    /// Time from then on that it was runnable and held back by its group's CPU quota.
    pub throttled_ns: u64,
    /// Other time it was runnable. It is taken to be the last of the wait.
    pub queued_ns: u64,
    /// By which the wait was chosen.
    pub period_ns: u64,
    /// Number of the system call the thread is in, or [`NO_SYSCALL`].
    pub syscall: u64,
    /// Its first arguments.
    pub arguments: [u64; SYSCALL_ARGUMENTS],
    /// The file descriptor that is polled where it is a single one, or [`NO_DESCRIPTOR`].
    pub descriptor: u64,
    /// 1 where the wait was not over at the window's end.
    pub open: u64,
}

/// Whether time of this length that began at `left_ns`, waiting or queued, is chosen by a period. It stays chosen as it goes on.
#[inline(always)]
#[must_use]
pub const fn is_chosen(left_ns: u64, length_ns: u64, period_ns: u64) -> bool {
    // The golden ratio's multiples are spread evenly, whatever the times' low bits are.
    let fraction = left_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    length_ns > (period_ns.wrapping_mul(fraction) >> 32)
}

/// An earlier look at all threads: the waits that it has told of are not told again while they go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EarlierLook {
    /// When it began; 0 for none.
    pub time_ns: u64,
    /// The period by which it chose.
    pub period_ns: u64,
}

impl EarlierLook {
    /// Whether it has told of the wait that began at this time and is not over.
    #[inline(always)]
    #[must_use]
    pub const fn has_told(&self, left_ns: u64) -> bool {
        left_ns < self.time_ns && is_chosen(left_ns, self.time_ns - left_ns, self.period_ns)
    }
}

impl WaitFacts {
    /// All of the wait, nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn length_ns(&self) -> u64 {
        self.blocked_ns + self.throttled_ns + self.queued_ns
    }

    /// No wait.
    pub const NONE: Self = Self {
        kind: Kind::Wait as u32,
        state: 0,
        left_ns: 0,
        blocked_ns: 0,
        throttled_ns: 0,
        queued_ns: 0,
        period_ns: 0,
        syscall: NO_SYSCALL,
        arguments: [0; SYSCALL_ARGUMENTS],
        descriptor: NO_DESCRIPTOR,
        open: 0,
    };
}

/// What woke a thread; a whole sample follows, which is the waker's.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct WakeFacts {
    /// [`Kind::Wake`].
    pub kind: u32,
    /// Thread id of the woken thread.
    pub tid: u32,
    /// Process id of the woken thread.
    pub tgid: u32,
    /// Keeps the layout free of holes; zero.
    pub reserved: u32,
    /// When the woken thread left the CPU; with `tid` it names the wait.
    pub left_ns: u64,
    /// How long it was blocked.
    pub blocked_ns: u64,
}

const _: () = assert!(size_of::<WaitFacts>().is_multiple_of(8) && size_of::<WakeFacts>().is_multiple_of(8));
const _: () = assert!(size_of::<WakeFacts>() <= size_of::<WaitFacts>(), "both lie before the same sample");
const _: () = assert!(align_of::<SampleHeader>() == 8);

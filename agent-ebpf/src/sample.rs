//! A sample: one thread at one instant, with its stacks.

use crate::COMM_LEN;

/// Deepest user stack that is kept, in frames. Deep recursion and asynchronous code reach hundreds; the verifier pays for
/// each.
pub const MAX_USER_FRAMES: usize = 512;
/// Deepest kernel stack that is kept, in frames. `bpf_get_stack` refuses more than the sysctl
/// `kernel.perf_event_max_stack`, which is 127 unless raised.
pub const MAX_KERNEL_FRAMES: usize = 127;
/// Room for both stacks of one sample.
pub const MAX_FRAMES: usize = MAX_USER_FRAMES + MAX_KERNEL_FRAMES;

/// The program that took a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Source {
    /// A timer or cycle counter that fires while the thread runs.
    OnCpu = 1,
    /// An interrupt right after the thread was given a CPU again.
    OffCpu = 2,
    /// The wake-up of another thread, in the context of what wakes it.
    Waker = 3,
    /// A look at a thread that still waits at the window's end.
    OpenWait = 4,
    /// A thread that opens a TCP socket.
    Connect = 5,
    /// A thread that sends on a TCP connection that has lost something.
    Send = 6,
    /// A page fault that is over.
    Fault = 7,
    /// A direct reclaim that is over.
    Reclaim = 8,
}

impl Source {
    /// One more than the largest number.
    pub const COUNT: u32 = 9;

    /// The source with this number; `None` for an unknown one.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::OnCpu),
            2 => Some(Self::OffCpu),
            3 => Some(Self::Waker),
            4 => Some(Self::OpenWait),
            5 => Some(Self::Connect),
            6 => Some(Self::Send),
            7 => Some(Self::Fault),
            8 => Some(Self::Reclaim),
            _ => None,
        }
    }
}

/// Scratch spaces and counters of ids: one for each source, by its number, because one source's program may interrupt
/// another's.
pub const SLOTS: u32 = Source::COUNT;
/// That of programs which the agent has run itself; no source has it.
pub const AGENT_SLOT: u32 = 0;

/// How the capture of one of a sample's two stacks ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StackOutcome {
    /// Not captured because the recording does not ask for this kind of stack.
    NotWanted = 0,
    /// The thread has none: a kernel thread has no user stack, user mode has no kernel stack.
    Absent = 1,
    /// The kernel's own walk ended by itself.
    Walked = 2,
    /// The walk met the depth limit; the outermost frames are missing.
    DepthLimit = 3,
    /// The kernel could not capture its own stack.
    Unreadable = 4,
    /// The outermost frame is the thread's start, by its call-frame information or because the chain of frame pointers
    /// says so.
    Complete = 5,
    /// A frame's file has call-frame information that the agent has not loaded, or not yet.
    TableMissing = 6,
    /// A return address lay in no executable mapping.
    NoMapping = 7,
    /// No call-frame information covers a frame, and its frame pointer led nowhere.
    NoRule = 8,
    /// A frame's call-frame information has a form that the unwinder does not know.
    UnsupportedRule = 9,
    /// A caller's frame would not lie above its callee's.
    BadFrame = 10,
    /// A part of the stack was not in memory, or is not the process's.
    StackUnreadable = 11,
    /// The thread runs 32-bit code.
    ThirtyTwoBit = 12,
    /// The user registers could not be had.
    NoRegisters = 13,
    /// The thread did not run, and this kernel cannot read the memory of such (before 5.18).
    NotRunning = 14,
}

impl StackOutcome {
    /// One more than the largest number.
    pub const COUNT: usize = 15;

    /// The outcome with this number; `None` for an unknown one.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::NotWanted),
            1 => Some(Self::Absent),
            2 => Some(Self::Walked),
            3 => Some(Self::DepthLimit),
            4 => Some(Self::Unreadable),
            5 => Some(Self::Complete),
            6 => Some(Self::TableMissing),
            7 => Some(Self::NoMapping),
            8 => Some(Self::NoRule),
            9 => Some(Self::UnsupportedRule),
            10 => Some(Self::BadFrame),
            11 => Some(Self::StackUnreadable),
            12 => Some(Self::ThirtyTwoBit),
            13 => Some(Self::NoRegisters),
            14 => Some(Self::NotRunning),
            _ => None,
        }
    }
}

/// The fixed part of a sample. After it come `user_frames` frames ([`crate::unwind::frame::Frame`]) and then
/// `kernel_frames` absolute addresses, eight bytes each, leaf first. Every kernel address but the first is a return
/// address.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SampleHeader {
    /// [`crate::record::Kind::Sample`].
    pub kind: u32,
    /// CPU the thread was on.
    pub cpu: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// What the sample stands for: nanoseconds, or faults where it is of [`Source::Fault`]; 0 where it stands for nothing by itself: [`Source::Connect`], [`Source::Send`].
    pub weight: u64,
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// Thread id in the initial PID namespace.
    pub tid: u32,
    /// When the process started, `CLOCK_BOOTTIME` nanoseconds. With `tgid` it names a process for good, whatever
    /// happens to the number later.
    pub process_start_ns: u64,
    /// Counts the programs that the process has run (`task_struct.self_exec_id`): a change means new mappings.
    pub exec_id: u32,
    /// Keeps the layout free of holes; zero.
    pub reserved: u32,
    /// Name of the thread, zero-terminated.
    pub thread_comm: [u8; COMM_LEN],
    /// Name of the process, that is of its first thread, zero-terminated.
    pub process_comm: [u8; COMM_LEN],
    /// Number of user frames that follow.
    pub user_frames: u16,
    /// Number of kernel frames that follow the user frames.
    pub kernel_frames: u16,
    /// A [`Source`].
    pub source: u8,
    /// A [`StackOutcome`].
    pub user_outcome: u8,
    /// A [`StackOutcome`].
    pub kernel_outcome: u8,
    /// Keeps the frames at a multiple of eight bytes; zero.
    pub reserved_tail: u8,
}

const _: () = assert!(size_of::<SampleHeader>() == 88, "the frames follow without a gap");

//! What every record in the ring buffer begins with.

/// The first four bytes of a record: which type follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A [`crate::sample::SampleHeader`] and its frames.
    Sample = 1,
    /// A [`crate::unwind::file::NewFile`].
    NewFile = 2,
    /// A [`crate::sched::WaitFacts`], and a sample of the thread that waited.
    Wait = 3,
    /// A [`crate::sched::WakeFacts`], and a sample of the thread that woke it.
    Wake = 4,
    /// A [`crate::sched::ThreadRecord`].
    Thread = 5,
    /// A [`crate::tcp::TcpRecord`].
    Tcp = 6,
    /// A [`crate::tcp::OpenerFacts`], and a sample of the thread that opened a connection or sent on it.
    TcpOpener = 7,
    /// A [`crate::memory::FaultFacts`], and a sample of the thread.
    Fault = 8,
    /// A [`crate::memory::ReclaimFacts`] alone.
    Reclaim = 9,
    /// A [`crate::memory::ReclaimFacts`], and a sample of the thread.
    ReclaimStack = 10,
    /// A [`crate::memory::KillRecord`].
    Kill = 11,
}

impl Kind {
    /// The kind with this number; `None` for a number that no version of the contract has used.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Sample),
            2 => Some(Self::NewFile),
            3 => Some(Self::Wait),
            4 => Some(Self::Wake),
            5 => Some(Self::Thread),
            6 => Some(Self::Tcp),
            7 => Some(Self::TcpOpener),
            8 => Some(Self::Fault),
            9 => Some(Self::Reclaim),
            10 => Some(Self::ReclaimStack),
            11 => Some(Self::Kill),
            _ => None,
        }
    }
}

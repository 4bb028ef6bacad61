//! What a thread does with its time: the small closed set of classes that every nanosecond of it falls into.
//!
//! Running, queued and throttled are told by the scheduler. What a blocked thread waits for is told by the functions of the
//! kernel that it waits in: see [`crate::kernel_frames`]. Waits on a futex, an event or a socket may be for work that there is not; which
//! of those are idle takes more than one stack to tell, and is not decided here.

use std::fmt;

/// A class of thread time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Executing user code.
    CpuUser,
    /// Executing in the kernel.
    CpuKernel,
    /// On a CPU that the hypervisor or interrupts had meanwhile.
    CpuStolen,
    /// Able to run, and waiting for a CPU.
    RunQueue,
    /// Able to run, and held back by its group's CPU quota.
    Throttled,
    /// Waiting for a read from a device.
    IoRead,
    /// Waiting for a write to a device.
    IoWrite,
    /// Waiting until data is safe on a device.
    IoSync,
    /// Held back since too much that was written is not on the device yet.
    IoDirtyThrottled,
    /// Reclaiming memory, or waiting for what was reclaimed.
    MemoryReclaim,
    /// Waiting for a lock inside the kernel.
    LockKernel,
    /// Waiting for a lock on a file.
    LockFile,
    /// Waiting for another thread through a futex: locks, condition variables, sleeping workers.
    Futex,
    /// Waiting for room to send.
    NetSend,
    /// Waiting for a peer's data.
    NetReceive,
    /// Waiting for a connection that this thread opens.
    NetConnect,
    /// Waiting for connections of others.
    NetAccept,
    /// Waiting for any of several events.
    Event,
    /// Waiting for a pipe, a message queue or a semaphore.
    Ipc,
    /// Waiting for a child process.
    Child,
    /// Waiting for a time.
    Timer,
    /// Waiting for nothing in particular: stopped, or a thread of the kernel's own without work.
    Idle,
    /// Blocked in functions that are of no class.
    Other,
}

/// Red, green and blue.
pub type Rgb = [u8; 3];

/// Classes that belong together, as a user asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// On a CPU.
    Cpu,
    /// Able to run.
    Queue,
    /// Waiting for a device.
    Io,
    /// Waiting for memory.
    Memory,
    /// Waiting for a lock, or for what may be one.
    Lock,
    /// Waiting for the network.
    Net,
    /// Other waits for something.
    Wait,
    /// Waiting for nothing.
    Idle,
}

impl Group {
    /// The name that users and machines know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Queue => "queue",
            Self::Io => "io",
            Self::Memory => "memory",
            Self::Lock => "lock",
            Self::Net => "net",
            Self::Wait => "wait",
            Self::Idle => "idle",
        }
    }
}

impl Class {
    /// Every class, in the order they are shown in.
    pub const ALL: [Self; 23] = [
        Self::CpuUser,
        Self::CpuKernel,
        Self::CpuStolen,
        Self::RunQueue,
        Self::Throttled,
        Self::IoRead,
        Self::IoWrite,
        Self::IoSync,
        Self::IoDirtyThrottled,
        Self::MemoryReclaim,
        Self::LockKernel,
        Self::LockFile,
        Self::Futex,
        Self::NetSend,
        Self::NetReceive,
        Self::NetConnect,
        Self::NetAccept,
        Self::Event,
        Self::Ipc,
        Self::Child,
        Self::Timer,
        Self::Idle,
        Self::Other,
    ];

    /// The name that users and machines know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CpuUser => "cpu.user",
            Self::CpuKernel => "cpu.kernel",
            Self::CpuStolen => "cpu.stolen",
            Self::RunQueue => "run-queue",
            Self::Throttled => "throttled",
            Self::IoRead => "io.read",
            Self::IoWrite => "io.write",
            Self::IoSync => "io.sync",
            Self::IoDirtyThrottled => "io.throttled-dirty",
            Self::MemoryReclaim => "mem.reclaim",
            Self::LockKernel => "lock.kernel",
            Self::LockFile => "lock.file",
            Self::Futex => "futex",
            Self::NetSend => "net.send",
            Self::NetReceive => "net.recv",
            Self::NetConnect => "net.connect",
            Self::NetAccept => "net.accept",
            Self::Event => "event",
            Self::Ipc => "wait.ipc",
            Self::Child => "wait.child",
            Self::Timer => "wait.timer",
            Self::Idle => "idle",
            Self::Other => "wait.other",
        }
    }

    /// The class of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// The name of the frame that stands for the class in a stack.
    #[must_use]
    pub fn frame(self) -> String {
        format!("[{}]", self.name())
    }

    /// The class whose frame has this name.
    #[must_use]
    pub fn from_frame(name: &str) -> Option<Self> {
        Self::from_name(name.strip_prefix('[')?.strip_suffix(']')?)
    }

    /// What it is part of.
    #[must_use]
    pub const fn group(self) -> Group {
        match self {
            Self::CpuUser | Self::CpuKernel | Self::CpuStolen => Group::Cpu,
            Self::RunQueue | Self::Throttled => Group::Queue,
            Self::IoRead | Self::IoWrite | Self::IoSync | Self::IoDirtyThrottled => Group::Io,
            Self::MemoryReclaim => Group::Memory,
            Self::LockKernel | Self::LockFile | Self::Futex => Group::Lock,
            Self::NetSend | Self::NetReceive | Self::NetConnect | Self::NetAccept => Group::Net,
            Self::Event | Self::Ipc | Self::Child | Self::Timer | Self::Other => Group::Wait,
            Self::Idle => Group::Idle,
        }
    }

    /// Its colour, the same wherever it is shown.
    ///
    /// The hues are those of Okabe and Ito, which people with any colour vision tell apart; classes of one group share a hue
    /// and differ in lightness. Black text is readable on all of them.
    #[must_use]
    pub const fn colour(self) -> Rgb {
        match self {
            // Vermilion.
            Self::CpuUser => [224, 104, 12],
            Self::CpuKernel => [236, 145, 72],
            Self::CpuStolen => [246, 190, 146],
            // Yellow.
            Self::RunQueue => [240, 228, 66],
            Self::Throttled => [199, 184, 20],
            // Blue.
            Self::IoRead => [46, 145, 200],
            Self::IoWrite => [86, 170, 215],
            Self::IoSync => [0, 124, 190],
            Self::IoDirtyThrottled => [130, 195, 230],
            // Dark grey, for black.
            Self::MemoryReclaim => [140, 140, 140],
            // Reddish purple.
            Self::Futex => [204, 121, 167],
            Self::LockKernel => [184, 98, 148],
            Self::LockFile => [225, 165, 200],
            // Bluish green.
            Self::NetReceive => [0, 158, 115],
            Self::NetSend => [0, 137, 100],
            Self::NetConnect => [70, 190, 150],
            Self::NetAccept => [130, 210, 180],
            // Sky blue.
            Self::Event => [104, 188, 236],
            Self::Ipc => [120, 196, 238],
            Self::Child => [150, 210, 243],
            Self::Timer => [178, 222, 247],
            Self::Other => [200, 225, 240],
            // Grey.
            Self::Idle => [205, 205, 205],
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_colours_are_one_for_each_class() {
        for class in Class::ALL {
            assert_eq!(Class::from_name(class.name()), Some(class));
            assert_eq!(Class::from_frame(&class.frame()), Some(class));
        }
        let colours: HashSet<Rgb> = Class::ALL.into_iter().map(Class::colour).collect();
        assert_eq!(colours.len(), Class::ALL.len());
        assert_eq!(Class::from_frame("cpu.user"), None);
    }

    #[test]
    fn black_text_is_readable_on_every_colour() {
        let linear = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        for class in Class::ALL {
            let [r, g, b] = class.colour().map(linear);
            // By the Web Content Accessibility Guidelines, which ask for 4.5.
            let contrast = (0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05) / 0.05;
            assert!(contrast >= 4.5, "{class}: {contrast:.2}");
        }
    }
}

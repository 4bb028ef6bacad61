//! Segments: immutable Parquet files of history.
//!
//! Each holds samples or signals ([`Content`]) of one hour at most, at one [`Level`] of time. Rows are in the order of kind, service,
//! series, class, stack and time: what queries ask for is together, and columns repeat, which is what compresses them. Beside the store's
//! numbers, which its queries read, stand the words (kind, service, host, class, signal), so that any reader of Parquet understands the
//! rows; in this order they take next to no room. What a series' other labels are, and what a stack's number means, is in
//! files of names.

mod read;
mod schema;
mod write;

pub(super) use read::{SampleCursor, Wanted, readings, samples};
pub(super) use write::{Extent, Order, SampleWriter, Words, write_column, write_readings, writer};

use super::{HOUR_NS, MINUTE_NS};

/// What a segment holds. The numbers are the catalogue's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Samples = 0,
    Signals = 1,
}

/// By what steps of time a segment's rows are kept apart. The numbers are the catalogue's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum Level {
    Windows = 0,
    Minutes = 1,
    Hours = 2,
}

impl Level {
    /// All, the finest first.
    pub(super) const ALL: [Self; 3] = [Self::Windows, Self::Minutes, Self::Hours];

    /// Length of a step, nanoseconds; windows have their own.
    pub(super) fn step_ns(self) -> u64 {
        match self {
            Self::Windows => 1,
            Self::Minutes => MINUTE_NS,
            Self::Hours => HOUR_NS,
        }
    }

    /// When the step began that a time is in.
    pub(super) fn floor(self, unix_ns: u64) -> u64 {
        unix_ns - unix_ns % self.step_ns()
    }
}

/// The name of a segment's file.
pub(super) fn file_name(id: i64, content: Content, level: Level) -> String {
    let content = match content {
        Content::Samples => "samples",
        Content::Signals => "signals",
    };
    let level = match level {
        Level::Windows => "windows",
        Level::Minutes => "minutes",
        Level::Hours => "hours",
    };
    format!("{content}-{level}-{id:010}.parquet")
}

//! Symbols of the builds that run here, for a collector that names them: what can be had is offered, and what is asked for is sent.
//!
//! [`maker`] is a thread that looks for the files of each build that was met and makes the symbols of those that the collector asks for,
//! letting other threads run first; [`uploads`] is what one stream says of it. Capacities:
//!
//! | what | capacity | when full |
//! |---|---|---|
//! | builds and wishes that wait for the thread | [`QUEUE`] | builds are not offered, wishes fail; both are counted |
//! | builds whose files are kept open | [`maker::MAX_BUILDS`] | the one met first is not offered any more |
//! | symbols that wait to be sent | one build's, 16 MiB at most, and one more that is ready | the thread waits |

pub mod maker;
pub mod uploads;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chokepoint_proto::stream::SymbolsOffered;
use tokio::sync::Notify;

use crate::symbolize::Met;

/// Builds and wishes that wait for the thread.
const QUEUE: usize = 256;

/// What the thread is asked for.
enum Asked {
    /// Look what there is of a build.
    Look(Met),
    /// Make its symbols.
    Make(Wish),
}

/// A build whose symbols a stream's collector wants.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    /// The stream's number.
    stream: u64,
    lease: u64,
    build_id: Vec<u8>,
}

/// What came of a wish: symbols as they are written, or why there are none.
struct Made {
    wish: Wish,
    symbols: Result<Vec<u8>, String>,
}

/// What those who meet builds, the thread, and the stream have in common.
pub struct Shared {
    asked: SyncSender<Asked>,
    offers: Mutex<Offers>,
    offered: Notify,
    /// What happened.
    pub counts: Counts,
}

/// What happened since the agent began.
#[derive(Debug, Default)]
pub struct Counts {
    /// Builds that were met and have symbols.
    pub offered: AtomicU64,
    /// Builds that were met and not looked at: too many at once.
    pub passed_over: AtomicU64,
    /// Builds whose symbols were sent whole.
    pub sent: AtomicU64,
    /// Bytes of them.
    pub sent_bytes: AtomicU64,
    /// Wishes of which nothing came.
    pub failed: AtomicU64,
    /// CPU time of the thread, nanoseconds.
    pub cpu_ns: AtomicU64,
}

/// Builds that are offered, in the order in which they were met.
#[derive(Default)]
struct Offers {
    builds: VecDeque<SymbolsOffered>,
    /// How many were there before the first.
    gone: usize,
}

impl Offers {
    fn add(&mut self, build: SymbolsOffered, most: usize) {
        if self.builds.len() >= most {
            self.builds.pop_front();
            self.gone += 1;
        }
        self.builds.push_back(build);
    }

    /// What there is from this number on, no more than `most`; and the number to go on with.
    fn after(&self, number: usize, most: usize) -> (Vec<SymbolsOffered>, usize) {
        let from = number.max(self.gone);
        let builds: Vec<_> = self.builds.iter().skip(from - self.gone).take(most).cloned().collect();
        let next = from + builds.len();
        (builds, next)
    }
}

impl Shared {
    fn new(asked: SyncSender<Asked>) -> Self {
        Self { asked, offers: Mutex::default(), offered: Notify::new(), counts: Counts::default() }
    }

    fn offers(&self) -> MutexGuard<'_, Offers> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a build that was met.
    pub fn meet(&self, met: Met) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.asked.try_send(Asked::Look(met))
        {
            self.counts.passed_over.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_told_on_from_where_a_stream_is_and_the_oldest_go() {
        let mut offers = Offers::default();
        let build = |id: u8| SymbolsOffered { build_id: vec![id], quality: 1 };
        for id in 0..5 {
            offers.add(build(id), 3);
        }
        assert_eq!(offers.after(0, 2), (vec![build(2), build(3)], 4));
        assert_eq!(offers.after(4, 2), (vec![build(4)], 5));
        assert_eq!(offers.after(5, 2), (vec![], 5));
        offers.add(build(9), 3);
        assert_eq!(offers.after(5, 2), (vec![build(9)], 6));
    }
}

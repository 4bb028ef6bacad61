//! Profiles on demand: what the collector's commands come to.
//!
//! [`door`] decides whether a command is taken, without a clock or a process. What is taken is recorded by a process of its own, the agent's
//! own program again (`chokepoint on-demand`, [`crate::cli::on_demand`]): [`recorder`] starts it, has it tell how it goes ([`told`]) and cuts
//! what it writes into parts. [`commands`] are those of one stream. A fault there, or memory that a large target takes, is that process's: the
//! continuous mode does not notice, and the kernel takes everything back when it ends, however it does.

pub mod commands;
pub mod costs;
pub mod door;
mod recorder;
pub mod told;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chokepoint_proto::stream::ProfileNow;

use costs::Costs;
use door::{Door, Refused, Wanted};

/// What operators may have recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Whether any command is taken.
    pub takes_any: bool,
    /// The most samples a second on each CPU.
    pub frequency_hz: u32,
    /// The longest recording.
    pub duration: Duration,
    /// Recordings at once.
    pub at_once: usize,
    /// Recordings that may begin within a minute.
    pub per_minute: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            takes_any: true,
            frequency_hz: 999,
            duration: Duration::from_secs(300),
            // Two recordings look at the same switches twice, and their memory adds up.
            at_once: 1,
            per_minute: 6,
        }
    }
}

/// What all streams of an agent have in common.
#[derive(Debug, Default)]
pub struct OnDemand {
    limits: Mutex<Limits>,
    door: Mutex<Door>,
    /// The container runtime's socket, where it is not a usual one.
    pub cri_socket: Option<PathBuf>,
    /// What recordings cost.
    pub costs: Costs,
    /// Commands that were taken.
    pub taken: AtomicU64,
    /// Commands that were refused.
    pub refused: AtomicU64,
    /// Recordings that failed or were cancelled.
    pub failed: AtomicU64,
}

/// A recording's place; free again when it is dropped.
#[derive(Debug)]
struct Place(Arc<OnDemand>);

impl OnDemand {
    /// Within these limits.
    #[must_use]
    pub fn new(limits: Limits, cri_socket: Option<PathBuf>) -> Self {
        Self { limits: Mutex::new(limits), cri_socket, ..Self::default() }
    }

    /// Goes by other limits from now on. What is under way goes on.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn admit(self: &Arc<Self>, profile: &ProfileNow) -> Result<(Wanted, Place), Refused> {
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = door.admit(profile, &limits, Instant::now())?;
        Ok((wanted, Place(Arc::clone(self))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.door.lock().unwrap_or_else(PoisonError::into_inner).leave();
    }
}

//! A baseline: what a target and its host did over minutes to days, window by window, small enough to keep.
//!
//! [`Recorder`] takes a diagnosed profile of each window. What it keeps is bounded, whatever the time: at most [`MAX_WINDOWS`] windows
//! (when there would be more, neighbours are merged, and each is twice as long from then on), [`MAX_SERIES`] series, and a number of
//! stacks of which the rarest go. Sketches of fixed size would keep the percentiles of shorter windows, but not their order in time; and it
//! is from how far a window depends on those before it that a comparison knows how sure a difference is.

mod file;
mod measures;
mod recorder;
mod stacks;
pub mod text;

pub use file::{ReadError, is_baseline, read, write};
pub use recorder::{Observed, Recorder, of_recording};
pub use stacks::{Folded, Stacks};

use serde::{Deserialize, Serialize};

use crate::signals::Unit;
use crate::verdict::finding::Severity;

/// Windows that a baseline has at most: four hours of ten seconds each, two weeks of fourteen minutes. With [`MAX_SERIES`] they are 17 MB
/// in memory and at most 12 MB in a file.
pub const MAX_WINDOWS: usize = 1_440;
/// Series that a baseline has at most. A host with a hundred control groups and ten disks has about 800.
pub const MAX_SERIES: usize = 1_500;

/// What was recorded of a target, window by window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Of what, and when.
    pub header: Header,
    /// The windows, in order.
    pub windows: Vec<Window>,
    /// What was measured in each of them.
    pub series: Vec<Series>,
    /// The time of the target's threads by stack, of all windows together.
    pub stacks: Stacks,
    /// What is missing, in words.
    pub missing: Vec<String>,
}

/// Of what a baseline is, and when it was recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the host.
    pub host: String,
    /// What was looked at, in words: `host`, `pid 42`.
    pub target: String,
    /// CPUs of the host; 0 where that is not known.
    pub cpus: u32,
    /// Start of the first window, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// How long a window was to be, nanoseconds. They are longer where neighbours were merged.
    pub every_ns: u64,
    /// How work was counted; empty where it was not.
    #[serde(default)]
    pub work: String,
}

/// A window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Its start since that of the first, nanoseconds.
    pub offset_ns: u64,
    /// Its length, nanoseconds.
    pub duration_ns: u64,
    /// Code of what limited the target; of merged windows the worst.
    pub verdict: String,
    /// How bad that is.
    pub severity: Severity,
    /// Samples.
    pub samples: u64,
    /// Samples that were lost.
    pub lost: u64,
}

/// What kind of thing is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Work that the target did.
    Work,
    /// Time of the target's threads that somebody wants shorter, by what it is spent on; as threads at a time.
    Demand,
    /// All time of the target's threads by class, as threads at a time.
    Time,
    /// How much the target has to do, as far as the scheduler tells.
    Load,
    /// A saturation signal of the host.
    Signal,
}

impl Kind {
    /// Whether a value that was not told is zero, and not unknown.
    const fn is_zero_untold(self) -> bool {
        matches!(self, Self::Demand | Self::Time | Self::Load)
    }
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Measure {
    /// What kind of thing it is.
    pub kind: Kind,
    /// Its name: that of a class, a signal, or of what demand is for.
    pub name: String,
    /// Which one, where there are several: a device, an interface, a group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// What its values count.
    pub unit: Unit,
}

/// The values of a measure, one for each window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What is measured.
    pub measure: Measure,
    /// The values, to four digits; `None` where it is not known.
    pub values: Vec<Option<f64>>,
    /// The greatest value of a window before any were merged.
    pub max: f64,
}

/// Name of the measure of all demand together.
pub const ALL_DEMAND: &str = "all";
/// Name of the measure of work.
pub const WORK: &str = "work";

impl Baseline {
    /// The measure of this kind and name, of the host as a whole.
    #[must_use]
    pub fn series(&self, kind: Kind, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| {
            let Measure { kind: own, name: own_name, instance, .. } = &series.measure;
            *own == kind && own_name == name && instance.is_empty()
        })
    }

    /// Length of all windows together, seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.windows.iter().map(|window| window.duration_ns as f64 / 1e9).sum()
    }

    /// Length of a window, seconds: the median.
    #[must_use]
    pub fn window_seconds(&self) -> f64 {
        let mut lengths: Vec<u64> = self.windows.iter().map(|window| window.duration_ns).collect();
        lengths.sort_unstable();
        lengths.get(lengths.len() / 2).map_or(0.0, |length| *length as f64 / 1e9)
    }

    /// Whether all of the host is the target.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.header.target == "host"
    }
}

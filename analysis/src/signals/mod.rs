//! Saturation signals: what each resource of the host is used, how much work waits for it, and what goes wrong with it.
//!
//! By the USE method, a resource has utilization, saturation and errors. A [`Definition`] says what a signal means and from
//! where on it is a warning or critical; each resource's are in a file of its own, beside the function that derives their values
//! from two [`Reading`]s. [`evaluate`] turns the readings of a window into [`Signal`]s: a counter's rate over the whole window, a
//! gauge's mean, and how either was distributed over the window's steps.

mod block;
mod cpu;
pub mod display;
mod group;
mod limits;
mod memory;
mod network;
pub mod reading;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use reading::Reading;

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// The host's CPUs.
    Cpu,
    /// The host's memory.
    Memory,
    /// A block device.
    Block,
    /// A file system.
    FileSystem,
    /// A network interface, and the queues before it.
    Network,
    /// TCP connections.
    Tcp,
    /// UDP sockets.
    Udp,
    /// A limited table of the kernel's, or a process's limit.
    Limit,
    /// What a control group may use.
    Group,
}

/// Which of the three questions of the USE method a signal answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// How much of the resource is in use, or how much it does.
    Utilization,
    /// How much work waits for it.
    Saturation,
    /// What goes wrong.
    Errors,
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unit {
    /// Per cent of what there is.
    #[serde(rename = "%")]
    Percent,
    /// A plain number.
    #[serde(rename = "1")]
    Number,
    /// Events a second.
    #[serde(rename = "/s")]
    PerSecond,
    /// Bytes a second.
    #[serde(rename = "B/s")]
    BytesPerSecond,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
}

/// How urgent a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be, or a value that has no thresholds.
    #[default]
    None,
    /// Worth a look before it gets worse.
    Warning,
    /// It limits what the host does, or will soon.
    Critical,
}

/// From where on a value has a level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// At and above this it is a warning.
    pub warning: f64,
    /// At and above this it is critical; infinite, which JSON has no number for, where nothing is.
    #[serde(deserialize_with = "infinite_where_null")]
    pub critical: f64,
}

fn infinite_where_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

impl Thresholds {
    /// Operators' usual levels for what slows down before it is full: CPUs.
    const BUSY: Option<Self> = Some(Self { warning: 75.0, critical: 90.0 });
    /// Operators' usual levels for what fails when it is full: memory, disks, tables.
    const FULL: Option<Self> = Some(Self { warning: 80.0, critical: 95.0 });
    /// Time that is lost. Below a tenth, removing all of it gains less than a tenth; at a quarter it is the first thing to
    /// look at.
    const STALLED: Option<Self> = Some(Self { warning: 10.0, critical: 25.0 });
    /// What should not happen at all; how often says nothing of how bad.
    const ANY: Option<Self> = Some(Self { warning: f64::MIN_POSITIVE, critical: f64::INFINITY });
    /// What should never happen.
    const FATAL: Option<Self> = Some(Self { warning: f64::MIN_POSITIVE, critical: f64::MIN_POSITIVE });

    /// The level of a value.
    #[must_use]
    pub fn level(&self, value: f64) -> Level {
        if value >= self.critical {
            Level::Critical
        } else if value >= self.warning {
            Level::Warning
        } else {
            Level::None
        }
    }
}

/// Whether values of a window's steps add up to the window's by the counters, or by their mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Derived from counters: the window's value is that between its first and its last reading.
    Counter,
    /// Read at a moment: the window's value is the mean.
    Gauge,
}

/// What a signal is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Definition {
    /// Its name: `cpu.utilization`.
    pub name: &'static str,
    /// What it is of.
    pub resource: Resource,
    /// Which question it answers.
    pub kind: Kind,
    /// What its values count.
    pub unit: Unit,
    /// Counter or gauge.
    pub nature: Nature,
    /// Its levels by default; `None` where a value alone is neither good nor bad.
    pub thresholds: Option<Thresholds>,
    /// What it means, and where it is from.
    pub meaning: &'static str,
}

impl Definition {
    const fn new(name: &'static str, resource: Resource, kind: Kind, unit: Unit) -> Self {
        Self { name, resource, kind, unit, nature: Nature::Counter, thresholds: None, meaning: "" }
    }

    const fn gauge(mut self) -> Self {
        self.nature = Nature::Gauge;
        self
    }

    const fn levels(mut self, thresholds: Option<Thresholds>) -> Self {
        self.thresholds = thresholds;
        self
    }

    const fn means(mut self, meaning: &'static str) -> Self {
        self.meaning = meaning;
        self
    }
}

/// Every signal there is, by resource.
pub fn definitions() -> impl Iterator<Item = &'static Definition> {
    [
        cpu::DEFINITIONS,
        memory::DEFINITIONS,
        block::DEFINITIONS,
        network::DEFINITIONS,
        limits::DEFINITIONS,
        group::DEFINITIONS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The definition of this name.
#[must_use]
pub fn definition(name: &str) -> Option<&'static Definition> {
    definitions().find(|definition| definition.name == name)
}

/// Thresholds that a user set, by the signal's name.
pub type Levels = BTreeMap<String, Thresholds>;

/// The values between two readings.
struct Figures<'a> {
    before: &'a Reading,
    after: &'a Reading,
    figures: Vec<Figure>,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
struct Figure {
    definition: &'static Definition,
    instance: String,
    value: f64,
}

impl<'a> Figures<'a> {
    fn between(before: &'a Reading, after: &'a Reading) -> Vec<Figure> {
        let mut figures = Self { before, after, figures: Vec::new() };
        cpu::derive(&mut figures);
        memory::derive(&mut figures);
        block::derive(&mut figures);
        network::derive(&mut figures);
        limits::derive(&mut figures);
        group::derive(&mut figures);
        figures.figures
    }

    /// Time between the readings, seconds.
    fn seconds(&self) -> f64 {
        self.after.time_ns.saturating_sub(self.before.time_ns) as f64 / 1e9
    }

    /// Adds a value of the host; nothing where there is none, or none that is a number.
    fn add(&mut self, definition: &'static Definition, value: Option<f64>) {
        self.add_of(definition, "", value);
    }

    /// Adds a value of one of several.
    fn add_of(&mut self, definition: &'static Definition, instance: &str, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.figures.push(Figure { definition, instance: instance.to_owned(), value });
        }
    }

    /// How much a counter grew in a second. One that is less than before has begun anew: nothing is known.
    fn rate(&self, before: Option<u64>, after: Option<u64>) -> Option<f64> {
        Some(grown(before, after)? as f64 / self.seconds())
    }

    /// The share of the time that a counter of microseconds grew, per cent.
    fn share_of_time(&self, before_us: Option<u64>, after_us: Option<u64>) -> Option<f64> {
        // The counter may be a little newer than the clock.
        Some((self.rate(before_us, after_us)? / 1e4).min(100.0))
    }
}

/// A counter among those of one thing.
type Part<T> = fn(&T) -> u64;

/// How much a counter grew.
fn grown(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    after?.checked_sub(before?)
}

/// Per cent; `None` of nothing.
fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

/// Per cent that two counters' growths are of each other.
fn percent_grown(part: (Option<u64>, Option<u64>), whole: (Option<u64>, Option<u64>)) -> Option<f64> {
    percent(grown(part.0, part.1)?, grown(whole.0, whole.1)?)
}

/// A signal over a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Its definition's name.
    pub name: String,
    /// Which one, where there are several: a device, an interface, a group. Empty of the host as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// What it is of.
    pub resource: Resource,
    /// Which question it answers.
    pub kind: Kind,
    /// What its values count.
    pub unit: Unit,
    /// The value of the whole window.
    pub value: f64,
    /// How it was distributed over the window's steps.
    pub steps: Distribution,
    /// How urgent the window's value is.
    pub level: Level,
    /// The thresholds that it was judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Thresholds>,
}

/// Values of a window's steps. Of fewer than a hundred steps, the high percentiles are the highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Half of the steps are not above this.
    pub p50: f64,
    /// 95 of 100 are not.
    pub p95: f64,
    /// 99 of 100 are not.
    pub p99: f64,
    /// 999 of 1,000 are not.
    pub p999: f64,
    /// None is.
    pub max: f64,
}

impl Distribution {
    /// Of these values, by nearest rank; all 0 of none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or_default()
        };
        Self { p50: rank(0.5), p95: rank(0.95), p99: rank(0.99), p999: rank(0.999), max: rank(1.0) }
    }
}

/// The signals of a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    /// Version of this structure: 1. Fields may be added without a new version.
    pub schema: u32,
    /// The window's length, seconds.
    pub window_s: f64,
    /// Steps that it was read in.
    pub steps: usize,
    /// The signals: the most urgent first, then by resource.
    pub signals: Vec<Signal>,
    /// What could not be read, in words.
    pub missing: Vec<String>,
}

/// Derives the signals of a window from its readings, in order of time. Without two readings there is none.
#[must_use]
pub fn evaluate(readings: &[Reading], levels: &Levels) -> Signals {
    let (Some(first), Some(last)) = (readings.first(), readings.last()) else {
        return Signals { schema: 1, window_s: 0.0, steps: 0, signals: Vec::new(), missing: Vec::new() };
    };
    let mut steps: BTreeMap<(&str, String), Vec<f64>> = BTreeMap::new();
    for pair in readings.windows(2) {
        for figure in Figures::between(&pair[0], &pair[1]) {
            steps.entry((figure.definition.name, figure.instance)).or_default().push(figure.value);
        }
    }
    let whole = if readings.len() > 1 { Figures::between(first, last) } else { Vec::new() };
    let mut signals: Vec<Signal> = whole
        .into_iter()
        .map(|Figure { definition, instance, value }| {
            let values = steps.remove(&(definition.name, instance.clone())).unwrap_or_else(|| vec![value]);
            let value = match definition.nature {
                Nature::Counter => value,
                Nature::Gauge => values.iter().sum::<f64>() / values.len() as f64,
            };
            let thresholds = levels.get(definition.name).copied().or(definition.thresholds);
            Signal {
                name: definition.name.to_owned(),
                instance,
                resource: definition.resource,
                kind: definition.kind,
                unit: definition.unit,
                value,
                steps: Distribution::of(values),
                level: thresholds.map_or(Level::None, |thresholds| thresholds.level(value)),
                thresholds,
            }
        })
        .collect();
    // Stable: within a level as the resources derive them.
    signals.sort_by_key(|signal| (std::cmp::Reverse(signal.level), signal.resource));
    Signals {
        schema: 1,
        window_s: last.time_ns.saturating_sub(first.time_ns) as f64 / 1e9,
        steps: readings.len() - 1,
        signals,
        missing: last.missing.clone(),
    }
}

#[cfg(test)]
mod tests;

//! Rows: what windows and segments are made of, in the store's numbers.

/// Samples of one series in one class with one stack.
///
/// The order of the fields is the order of rows in windows and, below the service, in segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sample {
    /// What was measured.
    pub(super) kind: u32,
    /// Whose they are.
    pub(super) series: u32,
    /// Class of thread time, a string's number; 0: the kind has no classes.
    pub(super) class: u32,
    /// The stack's leaf; 0: not known.
    pub(super) stack: u32,
    /// When the window, or the step of a rollup, began.
    pub(super) start_unix_ns: u64,
    /// Samples.
    pub(super) count: u64,
    /// What they stand for.
    pub(super) weight: u64,
}

impl Sample {
    /// Whether both are sums of the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.kind, self.series, self.class, self.stack, self.start_unix_ns)
            == (other.kind, other.series, other.class, other.stack, other.start_unix_ns)
    }

    /// Adds what is a sum of the same.
    pub(super) fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.weight = self.weight.saturating_add(other.weight);
    }
}

/// A signal in one window, or over the windows of a rollup's step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// Whose it is.
    pub(super) series: u32,
    /// Which signal.
    pub(super) signal: u32,
    /// When the window or step began.
    pub(super) start_unix_ns: u64,
    /// How many windows; their values' mean is `value`.
    pub(super) windows: u32,
    /// 0: none, 1: warning, 2: critical; the worst of the windows.
    pub(super) level: u8,
    /// `value`, `p50`, `p95`, `p99`, `p999` and `max`. Percentiles of several windows are those of the worst one.
    pub(super) values: [f64; VALUES],
}

/// Values of a reading.
pub(super) const VALUES: usize = 6;
/// Where the value of the whole window is.
pub(super) const VALUE: usize = 0;
/// Where the highest of the window's steps is.
pub(super) const MAX: usize = 5;

impl Reading {
    /// What readings are in the order of, and told apart by.
    pub(super) fn key(&self) -> (u32, u32, u64) {
        (self.series, self.signal, self.start_unix_ns)
    }

    /// Adds windows of the same series and signal.
    pub(super) fn add(&mut self, other: &Self) {
        let (own, others) = (f64::from(self.windows), f64::from(other.windows));
        let mean = (self.values[VALUE] * own + other.values[VALUE] * others) / (own + others);
        for (value, other) in self.values.iter_mut().zip(other.values) {
            *value = value.max(other);
        }
        self.values[VALUE] = mean;
        self.windows = self.windows.saturating_add(other.windows);
        self.level = self.level.max(other.level);
    }
}

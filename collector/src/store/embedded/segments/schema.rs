//! The columns of segments.

use std::sync::Arc;

use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;

/// Samples. `service` to `class` are words; `kind_id` to `stack` are the catalogue's numbers, 0 where there is none.
const SAMPLES: &str = "
message samples {
  required binary kind (STRING);
  required binary service (STRING);
  required binary host (STRING);
  required binary class (STRING);
  required int32 kind_id (INTEGER(32, false));
  required int32 series (INTEGER(32, false));
  required int32 class_id (INTEGER(32, false));
  required int32 stack (INTEGER(32, false));
  required int64 start_unix_ns (TIMESTAMP(NANOS, true));
  required int64 count (INTEGER(64, false));
  required int64 weight (INTEGER(64, false));
}";

/// Signals.
const SIGNALS: &str = "
message signals {
  required binary signal (STRING);
  required binary unit (STRING);
  required binary host (STRING);
  required binary instance (STRING);
  required int32 signal_id (INTEGER(32, false));
  required int32 series (INTEGER(32, false));
  required int64 start_unix_ns (TIMESTAMP(NANOS, true));
  required int32 windows (INTEGER(32, false));
  required int32 level (INTEGER(8, false));
  required double value;
  required double p50;
  required double p95;
  required double p99;
  required double p999;
  required double max;
}";

/// Where each column of samples is that queries read.
pub(super) mod sample_column {
    pub(in super::super) const KIND: usize = 4;
    pub(in super::super) const SERIES: usize = 5;
    pub(in super::super) const CLASS: usize = 6;
    pub(in super::super) const STACK: usize = 7;
    pub(in super::super) const START: usize = 8;
    pub(in super::super) const COUNT: usize = 9;
    pub(in super::super) const WEIGHT: usize = 10;
}

/// Where each column of signals is that queries read.
pub(super) mod signal_column {
    pub(in super::super) const SIGNAL: usize = 4;
    pub(in super::super) const SERIES: usize = 5;
    pub(in super::super) const START: usize = 6;
    pub(in super::super) const WINDOWS: usize = 7;
    pub(in super::super) const LEVEL: usize = 8;
    /// The first of the six values.
    pub(in super::super) const VALUES: usize = 9;
}

/// The columns of samples.
pub(super) fn of_samples() -> Arc<Type> {
    Arc::new(parse_message_type(SAMPLES).expect("the text above is a schema"))
}

/// The columns of signals.
pub(super) fn of_signals() -> Arc<Type> {
    Arc::new(parse_message_type(SIGNALS).expect("the text above is a schema"))
}

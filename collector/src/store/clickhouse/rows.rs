//! Rows as the tables have them; [`schema.sql`](schema.sql) says what they are.

use clickhouse::Row;
use serde::{Deserialize, Serialize};

/// Seconds of an hour and of a day, in nanoseconds.
pub(super) const HOUR_NS: u64 = 3_600_000_000_000;
const DAY_NS: u64 = 24 * HOUR_NS;
/// Hours of a day and of a week, by which sums are partitioned.
pub(super) const DAY_HOURS: u32 = 24;
pub(super) const WEEK_HOURS: u32 = 168;

/// A row of `batches`, and of `windows`.
#[derive(Clone, Debug, Default, Row, Serialize, Deserialize)]
pub(super) struct WindowRow {
    pub(super) day: u16,
    pub(super) kind: String,
    pub(super) service: String,
    pub(super) hour: u32,
    pub(super) agent: [u8; 16],
    pub(super) sequence: u64,
    pub(super) start_unix_ns: u64,
    pub(super) duration_ns: u64,
    pub(super) unit: u8,
    pub(super) series: Vec<u64>,
    pub(super) class: Vec<String>,
    pub(super) stack: Vec<u64>,
    pub(super) count: Vec<u64>,
    pub(super) weight: Vec<u64>,
    pub(super) host: u64,
    pub(super) signal: Vec<String>,
    pub(super) signal_resource: Vec<String>,
    pub(super) signal_kind: Vec<String>,
    pub(super) signal_unit: Vec<String>,
    pub(super) signal_series: Vec<u64>,
    pub(super) signal_level: Vec<u8>,
    pub(super) signal_value: Vec<f64>,
    pub(super) signal_p50: Vec<f64>,
    pub(super) signal_p95: Vec<f64>,
    pub(super) signal_p99: Vec<f64>,
    pub(super) signal_p999: Vec<f64>,
    pub(super) signal_max: Vec<f64>,
    pub(super) dropped_batches: u64,
    pub(super) notes: Vec<String>,
    pub(super) given_up: Vec<String>,
    pub(super) has_verdict: u8,
    pub(super) code: String,
    pub(super) confidence: f64,
    pub(super) severity: u8,
    pub(super) share: f64,
    pub(super) summary: String,
    pub(super) diagnosis: String,
}

/// A row of `series`.
#[derive(Clone, Debug, Row, Serialize, Deserialize)]
pub(super) struct SeriesRow {
    pub(super) id: u64,
    pub(super) names: Vec<String>,
    pub(super) values: Vec<String>,
}

/// A row of `frames`.
#[derive(Clone, Debug, Row, Serialize, Deserialize)]
pub(super) struct FrameRow {
    pub(super) id: u64,
    pub(super) module_kind: i32,
    pub(super) module: String,
    #[serde(with = "bytes")]
    pub(super) build_id: Vec<u8>,
    pub(super) address: u64,
    pub(super) is_spin_wait: u8,
    pub(super) functions: Vec<String>,
    pub(super) files: Vec<String>,
    pub(super) lines: Vec<u32>,
}

/// A row of `stacks`.
#[derive(Clone, Debug, Row, Serialize, Deserialize)]
pub(super) struct StackRow {
    pub(super) id: u64,
    pub(super) frames: Vec<u64>,
}

/// A row of `kinds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Row, Serialize, Deserialize)]
pub(super) struct KindRow {
    pub(super) kind: String,
    pub(super) unit: u8,
}

/// A row of `agents`.
#[derive(Clone, Debug, Row, Serialize, Deserialize)]
pub(super) struct AgentRow {
    pub(super) agent: [u8; 16],
    pub(super) names: Vec<String>,
    pub(super) values: Vec<String>,
    pub(super) kernel: String,
    pub(super) program: String,
    pub(super) cpus: u32,
    pub(super) seen_unix_ns: u64,
}

/// A row of `owners`.
#[derive(Clone, Debug, Row, Serialize, Deserialize)]
pub(super) struct OwnerRow {
    pub(super) agent: [u8; 16],
    pub(super) claimed_unix_ns: u64,
    pub(super) claim: u64,
    pub(super) owner: String,
}

/// A row of `rolls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub(super) struct RollRow {
    pub(super) hour: u32,
    pub(super) roll: u64,
    pub(super) after_block: i64,
    pub(super) until_block: i64,
    pub(super) at_unix_ns: u64,
    pub(super) is_done: u8,
}

/// The hour since the epoch.
pub(super) fn hour(unix_ns: u64) -> u32 {
    u32::try_from(unix_ns / HOUR_NS).unwrap_or(u32::MAX)
}

/// The day since the epoch, as a `Date` has it.
pub(super) fn day(unix_ns: u64) -> u16 {
    u16::try_from(unix_ns / DAY_NS).unwrap_or(u16::MAX)
}

/// Bytes as a `String` of the database, which need not be text.
mod bytes {
    use serde::de::{Deserializer, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

//! What a batch holds.

use chokepoint_proto::dictionary::Invalid;
use chokepoint_proto::stream::{Batch, Window};
use prost::Message;
use thiserror::Error;

use super::Limits;
use super::counts::Count;
use crate::compression;

/// Longest window that is accepted. Agents make windows of seconds; what was merged while they were away is a minute.
const MAX_DURATION_NS: u64 = 3_600_000_000_000;
/// Kinds of samples in a window.
const MAX_KINDS: usize = 64;
/// Bytes of a kind's name, of a constraint's code.
const MAX_NAME: usize = 128;
/// Bytes of a sentence.
const MAX_SENTENCE: usize = 4 << 10;
/// Bytes of a diagnosis, of which each run of windows has one.
const MAX_DIAGNOSIS: usize = 1 << 20;
/// Causes of losses, each of which is a signal.
const MAX_CAUSES: usize = 64;
/// How far ahead of this host's clock a window may begin, and how far behind, before its host's clock is said to be wrong. Spools go
/// back for days.
const MAX_AHEAD_NS: u64 = 300_000_000_000;
const MAX_BEHIND_NS: u64 = 30 * 86_400_000_000_000;

/// A batch that is refused, now and whenever it comes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// It has no number, or none that can be.
    #[error("sequence {0} is no batch's")]
    Sequence(u64),
    /// It is larger than is accepted.
    #[error("its window has {bytes} bytes, and {limit} are accepted")]
    TooLarge {
        /// As it says, or as it is.
        bytes: u64,
        /// What is accepted.
        limit: usize,
    },
    /// It is not what was compressed.
    #[error("its window cannot be uncompressed, or not to the length that it says")]
    Damaged,
    /// It is no message.
    #[error("its window is no message: {0}")]
    Message(String),
    /// It refers to what is not there.
    #[error(transparent)]
    Dictionary(#[from] Invalid),
    /// A value that cannot be.
    #[error("{0}")]
    Value(&'static str),
}

impl Refused {
    /// As what it is counted.
    pub(super) fn count(&self) -> Count {
        match self {
            Self::TooLarge { .. } => Count::BatchesTooLarge,
            Self::Damaged => Count::BatchesDamaged,
            Self::Sequence(_) | Self::Message(_) | Self::Dictionary(_) | Self::Value(_) => {
                Count::BatchesInvalid
            }
        }
    }
}

/// The window of a batch, with values that can be. What it refers to is not checked yet.
pub(super) fn window(batch: &Batch, limits: &Limits) -> Result<Window, Refused> {
    if !(1..=i64::MAX.unsigned_abs()).contains(&batch.sequence) {
        return Err(Refused::Sequence(batch.sequence));
    }
    decode(&uncompress(batch, limits)?)
}

/// The window in these bytes, with values that can be.
///
/// # Errors
/// What is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Window, Refused> {
    let window = Window::decode(bytes).map_err(|error| Refused::Message(error.to_string()))?;
    check(&window)?;
    Ok(window)
}

/// Uncompressed, and never more than the batch says, nor than is accepted.
fn uncompress(batch: &Batch, limits: &Limits) -> Result<Vec<u8>, Refused> {
    let limit = limits.window_bytes;
    let length = usize::try_from(batch.window_bytes).ok().filter(|length| *length <= limit);
    let length = length.ok_or(Refused::TooLarge { bytes: batch.window_bytes, limit })?;
    let bytes = compression::decompress(&batch.window, length).map_err(|_| Refused::Damaged)?;
    if bytes.len() == length { Ok(bytes) } else { Err(Refused::Damaged) }
}

fn check(window: &Window) -> Result<(), Refused> {
    let ensure = |is_well: bool, why| if is_well { Ok(()) } else { Err(Refused::Value(why)) };
    ensure((1..=MAX_DURATION_NS).contains(&window.duration_ns), "its window has no length, or hours")?;
    let end = window.start_unix_ns.checked_add(window.duration_ns);
    ensure(end.is_some_and(|end| i64::try_from(end).is_ok()), "its window ends after the year 2262")?;
    ensure(window.profiles.len() <= MAX_KINDS, "it has too many kinds of samples")?;
    for profile in &window.profiles {
        ensure(is_name(&profile.kind), "a kind of samples has no name, or one that is too long")?;
    }
    for signal in &window.signals {
        let values = [signal.value, signal.p50, signal.p95, signal.p99, signal.p999, signal.max];
        ensure(values.into_iter().all(f64::is_finite), "a signal's value is no number")?;
        ensure(signal.level <= 2, "a signal has a level that is unknown")?;
    }
    if let Some(verdict) = &window.verdict {
        ensure(is_name(&verdict.code), "a verdict has no code, or one that is too long")?;
        ensure(verdict.summary.len() <= MAX_SENTENCE, "a verdict's summary is too long")?;
        ensure(verdict.diagnosis.len() <= MAX_DIAGNOSIS, "a diagnosis is too long")?;
        let shares = [verdict.confidence, verdict.share];
        ensure(shares.iter().all(|share| (0.0..=1.0).contains(share)), "a verdict's share is none")?;
        ensure(verdict.severity <= 3, "a verdict has a severity that is unknown")?;
    }
    if let Some(losses) = &window.losses {
        ensure(losses.lost.len() <= MAX_CAUSES, "it has too many causes of losses")?;
        ensure(
            losses.lost.iter().all(|loss| is_name(&loss.cause)),
            "a loss has no cause, or one that is too long",
        )?;
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
}

/// Whether the clock of the window's host must be wrong.
pub(super) fn is_skewed(window: &Window, now_unix_ns: u64) -> bool {
    window.start_unix_ns > now_unix_ns.saturating_add(MAX_AHEAD_NS)
        || window.start_unix_ns < now_unix_ns.saturating_sub(MAX_BEHIND_NS)
}

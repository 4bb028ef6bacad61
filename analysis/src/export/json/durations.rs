//! Durations in the format: the same form wherever something has a distribution.

use serde::{Deserialize, Serialize};

use super::ReadError;
use crate::durations as model;

#[derive(Serialize, Deserialize)]
pub(super) struct Bucket {
    from_ns: u64,
    to_ns: u64,
    count: u64,
}

pub(super) fn buckets(durations: &model::Durations) -> Vec<Bucket> {
    let bucket = |&model::Bucket { from_ns, to_ns, count }: &model::Bucket| Bucket { from_ns, to_ns, count };
    durations.buckets.iter().map(bucket).collect()
}

/// Buckets are to be in order and not empty, as sums over them rely on it.
pub(super) fn into_model(buckets: Vec<Bucket>, max_ns: u64) -> Result<model::Durations, ReadError> {
    let mut end_ns = 0;
    let mut sum = 0_u64;
    let bucket = |Bucket { from_ns, to_ns, count }| {
        if from_ns < end_ns || to_ns <= from_ns {
            return Err(ReadError::Buckets);
        }
        end_ns = to_ns;
        sum = sum.checked_add(count).ok_or(ReadError::Overflow)?;
        Ok(model::Bucket { from_ns, to_ns, count })
    };
    Ok(model::Durations { buckets: buckets.into_iter().map(bucket).collect::<Result<_, _>>()?, max_ns })
}

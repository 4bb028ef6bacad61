//! Queries: from what a user asks to what the store is asked, and from its rows to the answer. Nothing here does IO but through
//! [`Store`](crate::store::Store), and the time is told by the caller.

pub mod catalogue;
pub mod compare;
pub mod constraints;
#[cfg(test)]
mod counted_fleet;
pub mod decomposition;
pub mod diff;
pub mod export;
pub mod flame;
pub mod fleet;
pub mod latencies;
pub mod limits;
mod merged;
pub mod overview;
mod parallel;
pub mod profile_type;
pub mod question;
pub mod recording;
pub mod retransmits;
pub mod selector;
pub mod series;
pub mod signals;
pub mod table;
#[cfg(test)]
mod tests;
pub mod time;
mod tree;

use thiserror::Error;

use crate::store::StoreError;

/// A query that has no answer.
#[derive(Debug, Error)]
pub enum QueryError {
    /// It makes no sense as it is written.
    #[error("{0}")]
    Bad(String),
    /// Its answer would be larger than is allowed.
    #[error("{0}")]
    TooLarge(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The store cannot.
    #[error("{0}")]
    Failed(StoreError),
}

impl QueryError {
    /// A query that makes no sense, and what to do.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::Bad(message.into())
    }
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            StoreError::NoStack(_)
            | StoreError::NobodyAsks
            | StoreError::NotOwned
            | StoreError::TooManyAgents
            | StoreError::Failed { .. } => Self::Failed(error),
        }
    }
}

impl From<selector::BadSelector> for QueryError {
    fn from(error: selector::BadSelector) -> Self {
        Self::Bad(format!("bad query: {error}"))
    }
}

impl From<time::BadTime> for QueryError {
    fn from(error: time::BadTime) -> Self {
        Self::Bad(error.to_string())
    }
}

//! What a query may cost. All that asks may be hostile, and what it asks for is answered from memory.

use std::time::Duration;

/// Bounds of queries and of the door they come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of the time that is asked for, nanoseconds: a quarter of a year.
    pub max_range_ns: u64,
    /// Labels that sums are kept apart by. Each multiplies them.
    pub max_group_by: usize,
    /// Sums that the store may answer with: at some 150 bytes each, 45 MB for each query under way.
    pub max_sums: usize,
    /// Nodes of a flame graph. What the page draws smoothly; some 8 MB of JSON.
    pub max_nodes: usize,
    /// Rows of a table of functions.
    pub max_functions: usize,
    /// Steps of a series: more than a screen is wide.
    pub max_steps: usize,
    /// Series of one answer: more than can be told apart.
    pub max_series: usize,
    /// Values of signals in one answer.
    pub max_signal_values: usize,
    /// Values of one label that are told.
    pub max_label_values: usize,
    /// Bytes of an answer.
    pub max_answer_bytes: usize,
    /// Queries that run at a time: with their sums and answers they stay below 400 MB.
    pub max_queries: usize,
    /// How long a query waits for its turn: one page asks for several things at once.
    pub max_turn_wait: Duration,
    /// How long a query may take. The asker is told, and the store stops soon.
    pub max_query_time: Duration,
    /// Bytes of answers that are not sent yet: clients may read as slowly as they like.
    pub max_unsent_bytes: usize,
    /// Connections at a time. Further ones wait in the kernel's queue.
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_range_ns: 92 * 86_400 * 1_000_000_000,
            max_group_by: 8,
            max_sums: 300_000,
            max_nodes: 200_000,
            max_functions: 10_000,
            max_steps: 2_000,
            max_series: 1_000,
            max_signal_values: 200_000,
            max_label_values: 10_000,
            max_answer_bytes: 48 << 20,
            max_queries: 4,
            max_turn_wait: Duration::from_secs(5),
            max_query_time: Duration::from_secs(30),
            max_unsent_bytes: 128 << 20,
            max_connections: 256,
        }
    }
}

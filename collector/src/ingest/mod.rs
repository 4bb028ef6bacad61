//! Takes in what agents say: checks it, has it stored, and answers.
//!
//! What arrives is hostile until it was checked. [`hello`] checks who speaks, [`batch`] what a batch holds, [`session`] is one stream
//! without any IO but the store's, [`service`] puts sessions on gRPC,
//! and [`grpc`] gRPC on HTTP. A batch that was refused is refused for good, and ends its
//! stream; where the store cannot write, the stream ends without an answer, and the agent comes again.

mod agents;
mod batch;
mod connections;
mod counts;
mod grpc;
mod hello;
mod inbox;
mod rate;
mod service;
mod session;
mod tap;

pub use batch::{Refused, decode};
pub use counts::{Count, Counts};
pub(crate) use inbox::MAX_REQUEST_BYTES;
pub use inbox::{Inbox, NotTaken, Room, Sender};
pub use service::{Ingest, serve};
pub use session::{NotBegun, Session, Taken};
pub use tap::{Heard, Listener, Tap};

/// What is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message as it arrives. A window takes some 20 kB.
    pub message_bytes: usize,
    /// Bytes of a window uncompressed.
    pub window_bytes: usize,
    /// Batches that an agent may send before the first of them is answered.
    pub unanswered: u32,
    /// Connections at once. An agent has one; more than streams, so that who has one too many is told so.
    pub connections: usize,
    /// Streams at once. Each takes up to some hundred kilobytes: what the transport keeps, and a message.
    pub streams: usize,
    /// Bytes of windows that are uncompressed and decoded at once, with what their streams have been told, of all agents together. Who comes
    /// when they are taken waits.
    pub decoding_bytes: usize,
    /// Bytes of windows, uncompressed, that an agent may send a second for long. Who sends more waits.
    pub agent_bytes_per_s: u64,
    /// For how many seconds an agent may save what it does not send: what it has kept while the collector was away comes at once.
    pub agent_saved_s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 1 << 20,
            window_bytes: 4 << 20,
            unanswered: 8,
            connections: 4_224,
            streams: 4_096,
            decoding_bytes: 192 << 20,
            agent_bytes_per_s: 8 << 20,
            agent_saved_s: 8,
        }
    }
}

//! Whoever else is told of windows, once they are stored.

use chokepoint_proto::stream::{Dictionary, Hello, Window};

use super::counts::Counts;

/// Is told of every window that is stored.
pub trait Tap: Send + Sync {
    /// What listens to a stream; `None`: nobody wants to know of this one.
    fn stream(&self, hello: &Hello) -> Option<Box<dyn Listener>>;
}

/// Listens to one stream, so that it knows what the stream's numbers mean.
pub trait Listener: Send {
    /// A window is stored. It may not wait for anybody: the agent does.
    fn hear(&mut self, heard: &Heard<'_>, counts: &Counts);
}

/// What is heard of a window.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// The batch's number.
    pub sequence: u64,
    /// The window, without its dictionary.
    pub window: &'a Window,
    /// What the stream's dictionary has from now on beyond what it had.
    pub new: &'a Dictionary,
    /// Whether it was not stored before: what came again was heard before.
    pub is_new: bool,
}

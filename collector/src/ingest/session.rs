//! One agent's stream, from its hello on, without a network.

use std::sync::Arc;

use chokepoint_proto::dictionary::Checker;
use chokepoint_proto::stream::{Batch, Hello, Welcome};

use super::Limits;
use super::batch::{self, Refused};
use super::counts::{Count, Counts};
use super::hello::{self, PROTOCOL};
use super::tap::{Heard, Listener, Tap};
use crate::control;
use crate::store::{Appended, Appender, Store, StoreError};

/// One agent's stream.
pub struct Session {
    appender: Box<dyn Appender>,
    listener: Option<Box<dyn Listener>>,
    checker: Checker,
    limits: Limits,
    counts: Arc<Counts>,
    protocol: u32,
    /// The processes of the last window that was taken in.
    processes: Option<control::Heard>,
}

/// What becomes of a batch.
#[derive(Debug)]
pub enum Taken {
    /// It is stored, now or before.
    Stored,
    /// It is refused for good, and the stream over.
    Refused(Refused),
    /// The store cannot write now, and the stream is over.
    Failed(StoreError),
}

/// The stream cannot begin.
#[derive(Debug)]
pub enum NotBegun {
    /// The agent says what is not accepted.
    Refused(String),
    /// The agent is another one's.
    NotOwned(String),
    /// There are too many agents.
    TooMany(String),
    /// The store cannot write now.
    Failed(StoreError),
}

impl Session {
    /// Begins with a hello, of who has proven this identity; `None` where nobody asked for any.
    ///
    /// # Errors
    /// Where it is not accepted, or the store cannot write.
    pub fn begin(
        store: &dyn Store,
        hello: &Hello,
        identity: Option<&str>,
        limits: Limits,
        counts: Arc<Counts>,
    ) -> Result<Self, NotBegun> {
        let session = Self::open(store, hello, identity, limits, counts)?;
        session.counts.add(Count::Streams);
        Ok(session)
    }

    /// The same of what is no stream, but a window that somebody sends.
    pub(super) fn open(
        store: &dyn Store,
        hello: &Hello,
        identity: Option<&str>,
        limits: Limits,
        counts: Arc<Counts>,
    ) -> Result<Self, NotBegun> {
        if let Err(error) = hello::check(hello) {
            counts.add(Count::HellosRefused);
            return Err(NotBegun::Refused(error.to_string()));
        }
        let appender = store.appender(hello, identity).map_err(|error| match error {
            StoreError::NotOwned => {
                counts.add(Count::StreamsNotOwned);
                NotBegun::NotOwned(error.to_string())
            }
            StoreError::TooManyAgents => {
                counts.add(Count::StreamsTooMany);
                NotBegun::TooMany(error.to_string())
            }
            error => {
                counts.add(Count::StoreFailures);
                NotBegun::Failed(error)
            }
        })?;
        let protocol = hello.protocol.min(PROTOCOL);
        Ok(Self {
            appender,
            listener: None,
            checker: Checker::new(),
            limits,
            counts,
            protocol,
            processes: None,
        })
    }

    /// The same session, of whose windows this one is told, too.
    #[must_use]
    pub fn told_to(mut self, tap: Option<&dyn Tap>, hello: &Hello) -> Self {
        self.listener = tap.and_then(|tap| tap.stream(hello));
        self
    }

    /// What the agent is told first.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        Welcome {
            protocol: self.protocol,
            max_window_bytes: self.limits.window_bytes as u64,
            max_unanswered: self.limits.unanswered,
            ..Welcome::default()
        }
    }

    /// Bytes of memory that taking in a batch takes beside the batch itself.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.appender.held_bytes()
    }

    /// Takes in the next batch. When this returns it is stored, or the stream is over.
    pub fn take(&mut self, batch: &Batch, now_unix_ns: u64) -> Taken {
        match self.append(batch, now_unix_ns) {
            Ok(Ok(_)) => Taken::Stored,
            Ok(Err(error)) => Taken::Failed(error),
            Err(refused) => Taken::Refused(refused),
        }
    }

    /// The processes of the window that was taken in last, once.
    pub fn processes(&mut self) -> Option<control::Heard> {
        self.processes.take()
    }

    /// The same, and says whether it was there before.
    pub(super) fn append(
        &mut self,
        batch: &Batch,
        now_unix_ns: u64,
    ) -> Result<Result<Appended, StoreError>, Refused> {
        let appended = self.try_take(batch, now_unix_ns);
        match &appended {
            Ok(Ok(appended)) => {
                let is_new = *appended == Appended::New;
                self.counts.add(if is_new { Count::BatchesStored } else { Count::BatchesKnown });
                self.counts.add_many(Count::WindowBytes, batch.window.len() as u64);
            }
            Ok(Err(_)) => self.counts.add(Count::StoreFailures),
            Err(refused) => self.counts.add(refused.count()),
        }
        appended
    }

    fn try_take(&mut self, batch: &Batch, now_unix_ns: u64) -> Result<Result<Appended, StoreError>, Refused> {
        let mut window = batch::window(batch, &self.limits)?;
        let new = self.checker.take(&mut window)?;
        let processes = control::Heard::take(&mut window);
        let appended = self.appender.append(batch, &window, &new, new.reset);
        if matches!(appended, Ok(Appended::New)) {
            self.processes = processes;
        }
        if let (Some(listener), Ok(appended)) = (&mut self.listener, &appended) {
            let is_new = *appended == Appended::New;
            let heard = Heard { sequence: batch.sequence, window: &window, new: &new, is_new };
            listener.hear(&heard, &self.counts);
        }
        if batch::is_skewed(&window, now_unix_ns) && matches!(appended, Ok(Appended::New)) {
            self.counts.add(Count::WindowsSkewed);
        }
        Ok(appended)
    }
}

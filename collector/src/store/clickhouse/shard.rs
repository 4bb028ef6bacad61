//! A shard: a server that has what some of the agents tell, made ready when it answers first.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Keep;
use super::layout::{self, Marks, Place};
use super::rows::WindowRow;
use super::schema::{Dialect, prepare};
use super::server::{Failure, Server};
use super::writer::{Queue, Written};

/// How long a server that did not answer is taken for one that does not, so that not every query waits for it.
const SILENCE: Duration = Duration::from_secs(1);
/// How long a server is taken to be in the place that it was found in. Who writes asks each time.
const IN_PLACE: Duration = Duration::from_secs(1);

/// A shard.
#[derive(Debug)]
pub(super) struct Shard {
    /// As it was named, before it is known what it understands.
    named: Server,
    database: String,
    place: Place,
    /// The first shard, which has been part of the store since it began; `None`: it is this one.
    first: Option<Arc<Shard>>,
    keep: Option<Keep>,
    state: Mutex<State>,
    pub(super) queue: Queue,
    pub(super) written: Written,
}

/// What is known of a server that has its tables.
#[derive(Clone, Debug)]
struct Ready {
    /// With its settings.
    server: Server,
    /// The numbers of servers that the store had before.
    before: BTreeSet<u32>,
}

#[derive(Debug, Default)]
struct State {
    ready: Option<Ready>,
    /// When its place was looked at.
    placed: Option<Instant>,
    /// Why it does not answer, and until when it is not asked again.
    silent: Option<(Instant, String)>,
}

impl Shard {
    pub(super) fn new(
        named: Server,
        database: &str,
        place: Place,
        first: Option<Arc<Shard>>,
        keep: Option<Keep>,
        queue: Queue,
    ) -> Self {
        Self {
            named,
            database: database.to_owned(),
            place,
            first,
            keep,
            state: Mutex::default(),
            queue,
            written: Written::default(),
        }
    }

    /// The server, for who writes: with its tables.
    ///
    /// # Errors
    /// Where it does not answer, or its tables cannot be made.
    pub(super) fn to_write(&self) -> Result<Server, Failure> {
        Ok(self.ready()?.server)
    }

    /// Stores batches of one hour as one block, where the server is in its place as of now.
    ///
    /// # Errors
    /// Where it does not answer, or the store has grown.
    pub(super) fn store(&self, server: &Server, rows: &[WindowRow]) -> Result<(), Failure> {
        layout::check(server, self.place)?;
        server.insert("batches", rows)
    }

    /// The numbers of servers that the store had before.
    ///
    /// # Errors
    /// Where it does not answer, or its tables cannot be made.
    pub(super) fn before(&self) -> Result<BTreeSet<u32>, Failure> {
        Ok(self.ready()?.before)
    }

    fn ready(&self) -> Result<Ready, Failure> {
        let mut state = self.lock();
        if let Some(ready) = &state.ready {
            return Ok(ready.clone());
        }
        if let Some((until, why)) = &state.silent
            && Instant::now() < *until
        {
            return Err(Failure::Silent(why.clone()));
        }
        let ready = self.prepare();
        match &ready {
            Ok(ready) => state.ready = Some(ready.clone()),
            Err(Failure::Silent(why)) => state.silent = Some((Instant::now() + SILENCE, why.clone())),
            Err(_) => {}
        }
        ready
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server is no other shard, before any of them is made one.
    ///
    /// # Errors
    /// Where it is; where it does not answer.
    pub(super) fn fits(&self) -> Result<(), Failure> {
        let marks = format!(
            "SELECT toUInt64(count()) FROM system.tables WHERE database = '{}' AND name = 'schema'",
            self.database
        );
        match self.named.outside().rows::<u64>(&marks)?.first() {
            Some(1) => Marks::read(&self.named, self.place).map(drop),
            _ => Ok(()),
        }
    }

    fn prepare(&self) -> Result<Ready, Failure> {
        let outside = self.named.outside();
        let version: Vec<String> = outside.rows("SELECT version()")?;
        let dialect = Dialect::of(version.first().map_or("", String::as_str));
        outside.execute(&format!("CREATE DATABASE IF NOT EXISTS {}", self.database))?;
        let server = self.named.speaking(dialect);
        let marks = Marks::read(&server, self.place)?;
        // One that joins has to know what was before, and the first knows all of it.
        let before = match &self.first {
            Some(first) if marks.is_new() => first.before()?,
            _ => BTreeSet::new(),
        };
        prepare(&server, &self.database, dialect, marks.version, self.keep)?;
        let before = marks.settle(&server, self.place, &before)?;
        tracing::info!(server = server.address(), ?version, ?dialect, "a shard is ready");
        Ok(Ready { server, before })
    }

    /// Asks it something; where it did not answer a moment ago, it is not asked.
    ///
    /// # Errors
    /// Where it does not answer, or cannot; where the store has grown.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&Server) -> Result<T, Failure>) -> Result<T, Failure> {
        let silent = self.lock().silent.clone();
        if let Some((until, why)) = silent
            && Instant::now() < until
        {
            return Err(Failure::Silent(why));
        }
        let answer = self.ready().and_then(|ready| {
            self.stay_in_place(&ready.server)?;
            ask(&ready.server)
        });
        if let Err(Failure::Silent(why)) = &answer {
            self.lock().silent = Some((Instant::now() + SILENCE, why.clone()));
        }
        answer
    }

    /// Answers without the servers that have come since would be of a part only.
    fn stay_in_place(&self, server: &Server) -> Result<(), Failure> {
        let is_known = self.lock().placed.is_some_and(|at| at.elapsed() < IN_PLACE);
        if !is_known {
            layout::check(server, self.place)?;
            self.lock().placed = Some(Instant::now());
        }
        Ok(())
    }
}

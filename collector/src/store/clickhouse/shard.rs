//! A shard: a server that has what some of the agents tell, made ready when it answers first.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::schema::{Dialect, prepare};
use super::server::{Failure, Server};
use super::writer::{Queue, Written};

/// How long a server that did not answer is taken for one that does not, so that not every query waits for it.
const SILENCE: Duration = Duration::from_secs(1);

/// A shard.
#[derive(Debug)]
pub(super) struct Shard {
    /// As it was named, before it is known what it understands.
    named: Server,
    database: String,
    /// Which of how many it is, from 0 on.
    place: (u32, u32),
    keep_days: Option<u64>,
    state: Mutex<State>,
    pub(super) queue: Queue,
    pub(super) written: Written,
}

#[derive(Debug, Default)]
struct State {
    /// The server with its settings, once its tables are there.
    ready: Option<(Server, Dialect)>,
    /// Why it does not answer, and until when it is not asked again.
    silent: Option<(Instant, String)>,
}

impl Shard {
    pub(super) fn new(
        named: Server,
        database: &str,
        place: (u32, u32),
        keep_days: Option<u64>,
        queue: Queue,
    ) -> Self {
        Self {
            named,
            database: database.to_owned(),
            place,
            keep_days,
            state: Mutex::default(),
            queue,
            written: Written::default(),
        }
    }

    /// Host and port.
    pub(super) fn address(&self) -> &str {
        self.named.address()
    }

    /// The server with its tables.
    ///
    /// # Errors
    /// Where it does not answer, or its tables cannot be made.
    pub(super) fn ready(&self) -> Result<Server, Failure> {
        Ok(self.speaking()?.0)
    }

    /// The same, and what it understands.
    ///
    /// # Errors
    /// As for [`Self::ready`].
    pub(super) fn speaking(&self) -> Result<(Server, Dialect), Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn prepare(&self) -> Result<(Server, Dialect), Failure> {
        let outside = self.named.outside();
        let version: Vec<String> = outside.rows("SELECT version()")?;
        let dialect = Dialect::of(version.first().map_or("", String::as_str));
        outside.execute(&format!("CREATE DATABASE IF NOT EXISTS {}", self.database))?;
        let server = self.named.speaking(dialect);
        prepare(&server, dialect, self.place, self.keep_days)?;
        tracing::info!(server = self.address(), ?version, ?dialect, "a shard is ready");
        Ok((server, dialect))
    }

    /// Asks it something; where it did not answer a moment ago, it is not asked.
    ///
    /// # Errors
    /// Where it does not answer, or cannot.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&Server) -> Result<T, Failure>) -> Result<T, Failure> {
        let silent = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.silent.as_ref().filter(|(until, _)| Instant::now() < *until).map(|(_, why)| why.clone())
        };
        if let Some(why) = silent {
            return Err(Failure::Silent(why));
        }
        let answer = self.ready().and_then(|server| ask(&server));
        if let Err(Failure::Silent(why)) = &answer {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.silent = Some((Instant::now() + SILENCE, why.clone()));
        }
        answer
    }
}

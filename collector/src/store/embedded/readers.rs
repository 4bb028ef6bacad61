//! Connections that read, and what a query holds on to while it does.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rusqlite::Connection;

use super::series::SeriesIndex;
use super::{connect, failed};
use crate::store::StoreError;

/// Connections that are kept for the next query; how many queries run at a time is their callers' concern.
const MAX_IDLE: usize = 8;

/// All that queries share.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    index: RwLock<Arc<SeriesIndex>>,
    turns: Mutex<Turns>,
}

/// Who reads. A file that the catalogue lists no more goes when all have ended who may have read that it did.
#[derive(Debug, Default)]
struct Turns {
    next: u64,
    reading: BTreeSet<u64>,
}

/// A reader's view of the catalogue: it does not change while it is held.
pub(super) struct Access<'a> {
    readers: &'a Readers,
    /// `None` only while this is dropped.
    connection: Option<Connection>,
    /// Whose rows there are.
    pub(super) index: Arc<SeriesIndex>,
    turn: u64,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default(), index: RwLock::default(), turns: Mutex::default() }
    }

    /// Begins to read.
    ///
    /// # Errors
    /// Where the catalogue cannot be read.
    pub(super) fn access(&self) -> Result<Access<'_>, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = turns.next;
            turns.next += 1;
            turns.reading.insert(turn);
            turn
        };
        let mut access = Access { readers: self, connection: Some(connection), index: Arc::default(), turn };
        let step = || "cannot read the catalogue".to_owned();
        access.catalogue().execute_batch("BEGIN").map_err(failed(step))?;
        // The first statement is what fixes the view.
        access.index = self.index(access.catalogue())?;
        Ok(access)
    }

    /// The turn that comes next: with all before it, views end that are older than now.
    pub(super) fn next_turn(&self) -> u64 {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).next
    }

    /// Whether all turns before this one have ended.
    pub(super) fn has_ended_before(&self, turn: u64) -> bool {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.reading.first().is_none_or(|oldest| *oldest >= turn)
    }

    /// Has whose rows there are read anew: some series are gone.
    pub(super) fn forget_index(&self) {
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    fn index(&self, connection: &Connection) -> Result<Arc<SeriesIndex>, StoreError> {
        let index = Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner));
        if !index.is_behind(connection)? {
            return Ok(index);
        }
        drop(index);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        // Copied only where another query still reads it.
        Arc::make_mut(&mut index).refresh(connection)?;
        Ok(Arc::clone(&index))
    }
}

impl Access<'_> {
    /// The catalogue as it was when the access began.
    pub(super) fn catalogue(&self) -> &Connection {
        self.connection.as_ref().expect("it is there until the access is dropped")
    }

    /// Lets go of the view: what is read from here on is as it is then. For who writes segments, which takes long: the catalogue's log
    /// cannot begin anew while somebody holds a view of it.
    ///
    /// # Errors
    /// Where the catalogue cannot be read.
    pub(super) fn let_go(&self) -> Result<(), StoreError> {
        self.catalogue().execute_batch("ROLLBACK").map_err(failed(|| "cannot read the catalogue".to_owned()))
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        self.readers.turns.lock().unwrap_or_else(PoisonError::into_inner).reading.remove(&self.turn);
        let Some(connection) = self.connection.take() else { return };
        let mut idle = self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let has_let_go = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        if has_let_go && idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}

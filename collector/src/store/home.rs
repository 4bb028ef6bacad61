//! Which home a store has.

use std::path::PathBuf;
use std::sync::Arc;

use super::clickhouse::{self, ClickHouse, Servers};
use super::embedded::{self, Disowned, Embedded, OpenError};
use super::{Store, StoreError};

/// Where a store is, and what it keeps there.
#[derive(Clone, Debug)]
pub enum Home {
    /// In a directory of this host.
    Directory(PathBuf, embedded::Options),
    /// On servers.
    Servers(Servers, clickhouse::Options),
}

impl Home {
    /// Opens the store. It may take until servers answer.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(&self) -> Result<Arc<dyn Store>, OpenError> {
        Ok(match self {
            Self::Directory(path, options) => Arc::new(Embedded::open(path, options.clone())?),
            Self::Servers(servers, options) => Arc::new(ClickHouse::open(servers, options)?),
        })
    }

    /// Has agents belong to nobody, so that the next who proves an identity owns them. Returns how many.
    ///
    /// # Errors
    /// Where it cannot be opened or written.
    pub fn disown(&self, whose: Disowned) -> Result<usize, OpenError> {
        let disowned: Result<usize, StoreError> = match self {
            Self::Directory(path, options) => Embedded::open(path, options.clone())?.disown(whose),
            Self::Servers(servers, options) => ClickHouse::open(servers, options)?.disown(&whose),
        };
        Ok(disowned?)
    }
}

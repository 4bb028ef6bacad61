//! Which of how many servers each is, and what that was before the store grew.
//!
//! A server remembers its place in each number of servers that the store has had. One that joins later remembers those that it was no part
//! of, too: so whichever server an agent is on now can tell where it was before, and where its batches are looked for when they come again.
//! A place never changes, so new servers come last.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::schema::VERSION;
use super::server::{Failure, Server};

/// The statement of which versions and places are known by.
const MARKS: &str = "CREATE TABLE IF NOT EXISTS schema (version UInt32, shard UInt32, shards UInt32) \
                     ENGINE = MergeTree ORDER BY version";
/// Who writes asks for the place just before; so long after it has changed, what was asked for before is under way.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// How long one waits for what collectors of before the store grew are writing yet.
const DRAIN_TIME: Duration = Duration::from_secs(30);
/// How often one looks whether they still are.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Which shard a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// From 0 on.
    pub(super) own: u32,
    /// Of how many.
    pub(super) of: u32,
}

/// What a server remembers.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Of its schema; 0: it has none yet.
    pub(super) version: u32,
    /// With each version.
    known: Vec<(u32, u32)>,
}

impl Marks {
    /// What a server remembers, and whether that is this place.
    ///
    /// # Errors
    /// Where it does not answer, or is another shard.
    pub(super) fn read(server: &Server, place: Place) -> Result<Self, Failure> {
        server.execute(MARKS)?;
        let rows: Vec<(u32, u32, u32)> = server.rows("SELECT DISTINCT version, shard, shards FROM schema")?;
        if let Some((_, shard, shards)) = rows.iter().find(|(_, shard, _)| *shard != place.own) {
            return Err(Failure::refused(format!(
                "{} is shard {} of {shards}, and is given as shard {} of {}: list all servers, in the order in which they were listed \
                 first, and new ones after them",
                server.address(),
                shard + 1,
                place.own + 1,
                place.of,
            )));
        }
        let marks = Self {
            version: rows.iter().map(|(version, ..)| *version).max().unwrap_or(0),
            known: rows.into_iter().map(|(version, _, shards)| (version, shards)).collect(),
        };
        marks.counts().into_iter().try_for_each(|shards| not_outgrown(server, shards, place))?;
        Ok(marks)
    }

    /// The numbers of servers that the store has had, as far as this one knows.
    fn counts(&self) -> BTreeSet<u32> {
        self.known.iter().map(|(_, shards)| *shards).collect()
    }

    /// Whether it is no part of the store yet.
    pub(super) fn is_new(&self) -> bool {
        self.known.is_empty()
    }

    /// Has the server remember this place, and that the store had these numbers of servers before. Returns all numbers that it has had
    /// before this one.
    ///
    /// # Errors
    /// Where it does not answer; where others go on writing as if it had not grown.
    pub(super) fn settle(
        self,
        server: &Server,
        place: Place,
        before: &BTreeSet<u32>,
    ) -> Result<BTreeSet<u32>, Failure> {
        let has_grown = !self.is_new() && !self.counts().contains(&place.of);
        let mut counts = self.counts();
        counts.extend(before.iter().copied().filter(|shards| *shards < place.of));
        counts.insert(place.of);
        let new: Vec<String> = counts
            .iter()
            .filter(|shards| !self.known.contains(&(VERSION, **shards)))
            .map(|shards| format!("({VERSION}, {}, {shards})", place.own))
            .collect();
        if !new.is_empty() {
            server.execute(&format!("INSERT INTO schema VALUES {}", new.join(", ")))?;
        }
        if has_grown {
            tracing::info!(server = server.address(), shards = place.of, "the store has grown");
            drain(server)?;
        }
        counts.remove(&place.of);
        Ok(counts)
    }
}

/// Whether a server still is in this place, as far as what others have told it since.
///
/// # Errors
/// Where it does not answer, or the store has grown.
pub(super) fn check(server: &Server, place: Place) -> Result<(), Failure> {
    let shards: Vec<u32> = server.rows("SELECT max(shards) FROM schema")?;
    not_outgrown(server, shards.first().copied().unwrap_or(0), place)
}

fn not_outgrown(server: &Server, shards: u32, place: Place) -> Result<(), Failure> {
    if shards <= place.of {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "the store has grown to {shards} servers, as {} says, and {} are given: start the collector with all of them",
        server.address(),
        place.of
    )))
}

/// Waits until what others were writing before they could know that the store has grown is written.
fn drain(server: &Server) -> Result<(), Failure> {
    std::thread::sleep(UNDER_WAY);
    let until = Instant::now() + DRAIN_TIME;
    let writing = "SELECT toUInt64(count()) FROM system.processes WHERE query LIKE 'INSERT INTO%batches%' OR query LIKE 'INSERT INTO%windows%'";
    while server.rows::<u64>(writing)?.first() != Some(&0) {
        if Instant::now() > until {
            return Err(Failure::refused(format!(
                "others go on writing to {} as if the store had not grown: stop them",
                server.address()
            )));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

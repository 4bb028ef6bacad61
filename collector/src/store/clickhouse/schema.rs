//! The tables, and how a database becomes one that has them.
//!
//! One text serves all servers: what old ones lack is left out of it.

use super::server::{Failure, Server};

/// What leads from each version to the next. A step that was released is never changed.
const STEPS: &[&str] = &[include_str!("schema.sql")];
/// The version that this program writes.
pub(super) const VERSION: u32 = STEPS.len() as u32;

/// The statements of which the versions and the shard's place are known by.
const MARKS: &str = "CREATE TABLE IF NOT EXISTS schema (version UInt32, shard UInt32, shards UInt32) \
                     ENGINE = MergeTree ORDER BY version";

/// What a server understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Releases from 23.3 on: codecs, TTL, LowCardinality, fsync of what is inserted.
    Modern,
    /// Older ones, down to Debian's 18.16.
    Plain,
}

impl Dialect {
    /// What a server of this version understands.
    #[must_use]
    pub fn of(version: &str) -> Self {
        let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version >= (23, 3) { Self::Modern } else { Self::Plain }
    }

    /// Words of the schema that differ.
    fn words(self) -> [(&'static str, &'static str); 5] {
        match self {
            Self::Modern => [
                ("{word}", "LowCardinality(String)"),
                ("{ascending}", "CODEC(Delta, ZSTD(1))"),
                ("{packed}", "CODEC(ZSTD(1))"),
                ("{moment}", ", start DateTime64(9) ALIAS fromUnixTimestamp64Nano(start_unix_ns)"),
                (
                    "{settings}",
                    "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1",
                ),
            ],
            Self::Plain => [
                ("{word}", "String"),
                ("{ascending}", ""),
                ("{packed}", ""),
                ("{moment}", ""),
                ("{settings}", ""),
            ],
        }
    }

    /// Settings of every statement.
    pub(super) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // What is answered is to be there.
            Self::Modern => &[("async_insert", "0"), ("cancel_http_readonly_queries_on_client_close", "1")],
            Self::Plain => &[],
        }
    }

    /// The statements that make the tables of every version after `version`.
    #[must_use]
    pub fn statements_after(self, version: u32) -> Vec<String> {
        let steps = STEPS.iter().skip(version as usize);
        // A comment may have a semicolon.
        let lines = steps.flat_map(|step| step.lines()).filter(|line| !line.trim_start().starts_with("--"));
        let text = lines.collect::<Vec<_>>().join("\n");
        let worded = self.words().iter().fold(text, |text, (word, meant)| text.replace(word, meant));
        worded
            .split(';')
            .map(|statement| statement.trim().to_owned())
            .filter(|statement| !statement.is_empty())
            .collect()
    }

    /// The statement by which what is older than so many days goes by itself; `None`: its partitions are to be dropped.
    #[must_use]
    pub fn forget_after(self, days: u64) -> Option<String> {
        (self == Self::Modern).then(|| {
            format!(
                "ALTER TABLE windows MODIFY TTL day + INTERVAL {days} DAY DELETE SETTINGS materialize_ttl_after_modify = 0"
            )
        })
    }
}

/// Makes the database one of this version, for this place of so many shards. Others may do the same at the same time.
///
/// # Errors
/// Where the server does not answer, is of a newer version, or is another shard.
pub(super) fn prepare(
    server: &Server,
    dialect: Dialect,
    place: (u32, u32),
    days: Option<u64>,
) -> Result<(), Failure> {
    server.execute(MARKS)?;
    let marks: Vec<(u32, u32, u32)> = server.rows("SELECT DISTINCT version, shard, shards FROM schema")?;
    if let Some((_, shard, shards)) = marks.iter().find(|(_, shard, shards)| (*shard, *shards) != place) {
        let (own, of) = (place.0 + 1, place.1);
        return Err(Failure::refused(format!(
            "{} is shard {} of {shards}, and is given as shard {own} of {of}: list all servers, in the order in which they were listed first",
            server.address(),
            shard + 1,
        )));
    }
    let version = marks.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    if version > VERSION {
        return Err(Failure::refused(format!(
            "the store has version {version} of its schema, and this collector knows {VERSION}: use the newer one"
        )));
    }
    for statement in dialect.statements_after(version) {
        server.execute(&statement)?;
    }
    if version < VERSION {
        server.execute(&format!("INSERT INTO schema VALUES ({VERSION}, {}, {})", place.0, place.1))?;
    }
    match days.and_then(|days| dialect.forget_after(days)) {
        Some(statement) => server.execute(&statement),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_gets_what_it_understands() {
        assert_eq!(Dialect::of("18.16.1"), Dialect::Plain);
        assert_eq!(Dialect::of("26.9.1.1"), Dialect::Modern);
        assert_eq!(Dialect::of(""), Dialect::Plain);
        for dialect in [Dialect::Plain, Dialect::Modern] {
            let statements = dialect.statements_after(0);
            assert_eq!(statements.len(), 7);
            assert!(statements.iter().all(|text| text.starts_with("CREATE TABLE IF NOT EXISTS")));
            assert!(!statements.iter().any(|text| text.contains('{')), "{statements:?}");
            assert!(dialect.statements_after(VERSION).is_empty());
        }
        let plain = Dialect::Plain.statements_after(0).join(" ");
        assert!(
            !["CODEC", "TTL", "DateTime64", "Map(", "LowCardinality"].iter().any(|word| plain.contains(word))
        );
    }
}

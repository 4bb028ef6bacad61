//! The tables, and how a database becomes one that has them.
//!
//! One text serves all servers: what old ones lack is left out of it.

use super::Keep;
use super::server::{Failure, Server};

/// Days for which collectors may be away until servers have go what was to be added up.
pub(super) const UNATTENDED_DAYS: u64 = 7;

/// What leads from each version to the next. A step that was released is never changed.
const STEPS: &[&str] = &[include_str!("schema.sql"), include_str!("rollups.sql")];
/// The version that this program writes.
pub(super) const VERSION: u32 = STEPS.len() as u32;

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

    /// The statements that make the tables of every version after `version`, in this database.
    #[must_use]
    pub fn statements_after(self, version: u32, database: &str) -> Vec<String> {
        STEPS.iter().skip(version as usize).flat_map(|step| self.statements(step, database)).collect()
    }

    fn statements(self, step: &str, database: &str) -> Vec<String> {
        // A comment may have a semicolon.
        let lines: Vec<&str> = step.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        let text = lines.join("\n").replace("{database}", database);
        let worded = self.words().iter().fold(text, |text, (word, meant)| text.replace(word, meant));
        worded
            .split(';')
            .map(|statement| statement.trim().to_owned())
            .filter(|statement| !statement.is_empty())
            .collect()
    }

    /// The statements by which what is too old goes by itself, where no collector has it go before: some days later, so that an hour is
    /// added up although nobody was there to do it. None where the server does not know that.
    #[must_use]
    pub fn forget_after(self, keep: Keep) -> Vec<String> {
        let of_hour = "toDate(intDiv(hour, 24))";
        let tables = [
            ("windows", "day", keep.windows_days),
            ("batches", "day", keep.windows_days.saturating_add(UNATTENDED_DAYS)),
            ("minutes", of_hour, keep.minutes_days.saturating_add(UNATTENDED_DAYS)),
            ("signal_minutes", of_hour, keep.minutes_days.saturating_add(UNATTENDED_DAYS)),
            ("hours", of_hour, keep.hours_days.saturating_add(UNATTENDED_DAYS)),
            ("signal_hours", of_hour, keep.hours_days.saturating_add(UNATTENDED_DAYS)),
        ];
        let statement = |(table, day, days)| {
            format!(
                "ALTER TABLE {table} MODIFY TTL {day} + INTERVAL {days} DAY DELETE SETTINGS materialize_ttl_after_modify = 0"
            )
        };
        match self {
            Self::Modern => tables.map(statement).into(),
            Self::Plain => Vec::new(),
        }
    }
}

/// Makes the database one of this version. Others may do the same at the same time: each statement is one that may have been done already.
///
/// # Errors
/// Where the server does not answer, or is of a newer version.
pub(super) fn prepare(
    server: &Server,
    database: &str,
    dialect: Dialect,
    found: u32,
    keep: Option<Keep>,
) -> Result<(), Failure> {
    if found > VERSION {
        return Err(Failure::refused(format!(
            "the store has version {found} of its schema, and this collector knows {VERSION}: use the newer one"
        )));
    }
    for statement in dialect.statements_after(found, database) {
        server.execute(&statement)?;
    }
    for statement in keep.into_iter().flat_map(|keep| dialect.forget_after(keep)) {
        server.execute(&statement)?;
    }
    Ok(())
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
            let statements = dialect.statements_after(0, "fleet");
            assert_eq!(statements.len(), 14);
            assert_eq!(dialect.statements_after(1, "fleet").len(), 7);
            // So that any number of collectors may do it at once.
            assert!(statements.iter().all(|text| text.starts_with("CREATE TABLE IF NOT EXISTS")));
            assert!(!statements.iter().any(|text| text.contains('{')), "{statements:?}");
            assert!(dialect.statements_after(VERSION, "fleet").is_empty());
        }
        let plain = Dialect::Plain.statements_after(0, "fleet").join(" ");
        assert!(
            !["CODEC", "TTL", "DateTime64", "Map(", "LowCardinality"].iter().any(|word| plain.contains(word))
        );
    }
}

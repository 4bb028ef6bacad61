//! At which level a query reads which hours of a server.
//!
//! **When sums are all that there is.** A block that is inserted gets the next number of its table, and all blocks up to a number are there
//! when that number is seen; merging parts keeps the highest. A roll says up to which block it has an hour's windows. So where the highest
//! number of the hour's parts is not above it, its sums are those of all windows, and nothing that comes at the same time can be counted
//! twice or be lost: it has a higher number, and the hour is read as windows until somebody adds it up again.
//!
//! **When windows have gone.** An hour's windows go together, after they were added up. What comes later yet has numbers above those of all
//! rolls before, and is added to them: by reading both, or by a roll of what came later, which begins after the block where the others end.

use std::collections::{BTreeMap, BTreeSet};

use clickhouse::Row;
use serde::Deserialize;

use super::rows::{DAY_HOURS, HOUR_NS, RollRow, hour};
use super::server::{Failure, Server, list};
use crate::store::Asker;
use crate::store::embedded::{Level, plan};

/// The parts of an hour or of a day.
#[derive(Debug, Row, Deserialize)]
struct PartsRow {
    of: String,
    partition: String,
    first: i64,
    last: i64,
}

/// What a server has of each hour.
#[derive(Debug, Default)]
pub(super) struct History {
    hours: BTreeMap<u32, Hour>,
    /// Days since the epoch of which there are sums of minutes.
    days: BTreeSet<u32>,
}

/// What there is of an hour.
#[derive(Debug, Default)]
pub(super) struct Hour {
    /// The lowest and the highest number of its blocks; `None`: its windows have gone, or there were none.
    pub(super) blocks: Option<(i64, i64)>,
    /// Whether some of its windows are in the table of before there were sums. It is not added up then.
    pub(super) is_old: bool,
    /// Its rolls, those too that are not done, each as it was told of last.
    pub(super) rolls: Vec<RollRow>,
}

impl Hour {
    /// The rolls that together have the most, the last first; and the last block that they have.
    /// A server that has lost blocks gives their numbers again: rolls of more than there is are none of what came since.
    pub(super) fn sums(&self) -> (Vec<u64>, i64) {
        self.chain(|roll| self.blocks.is_none_or(|(_, last)| roll.until_block <= last))
    }

    /// The same of what windows are not kept of any more.
    pub(super) fn sums_of_gone(&self) -> (Vec<u64>, i64) {
        match self.blocks {
            Some((first, _)) => self.chain(|roll| roll.until_block < first),
            None => self.sums(),
        }
    }

    fn chain(&self, is_meant: impl Fn(&RollRow) -> bool) -> (Vec<u64>, i64) {
        let done: Vec<&RollRow> =
            self.rolls.iter().filter(|roll| roll.is_done == 1 && is_meant(roll)).collect();
        let mut until = done.iter().map(|roll| roll.until_block).max().unwrap_or(0);
        let whole = until;
        let mut chain = Vec::new();
        // Of those that end at the same block all say the same, if they begin at the same; every collector takes the same one.
        while let Some(roll) = done
            .iter()
            .filter(|roll| roll.until_block == until)
            .min_by_key(|roll| (roll.after_block, roll.roll))
        {
            chain.push(roll.roll);
            until = roll.after_block;
        }
        (chain, whole)
    }

    /// Whether its sums are those of all that came.
    pub(super) fn is_added_up(&self) -> bool {
        let (sums, until) = self.sums();
        !sums.is_empty() && self.blocks.is_none_or(|(_, last)| until == last)
    }
}

/// Which times are read of one table of sums, of which rolls.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rolled {
    /// From here, up to there, of any of the rolls.
    times: Vec<(u64, u64)>,
    rolls: BTreeSet<u64>,
    /// The same, of these rolls only: of hours that have windows beside.
    beside: Vec<(u64, u64, Vec<u64>)>,
}

/// Where a query reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// The times of which windows are read, in order.
    pub(super) windows: Vec<(u64, u64)>,
    pub(super) minutes: Rolled,
    pub(super) hours: Rolled,
}

impl History {
    /// What a server has of this time.
    ///
    /// # Errors
    /// Where it does not answer.
    pub(super) fn read(
        server: &Server,
        asker: &Asker,
        from_unix_ns: u64,
        until_unix_ns: u64,
    ) -> Result<Self, Failure> {
        let (first, last) = (hour(from_unix_ns), hour(until_unix_ns.saturating_sub(1)));
        let is_meant = |hour: &u32| (first..=last).contains(hour);
        let mut history = Self::default();
        let parts = "SELECT table AS of, partition, min(min_block_number) AS first, max(max_block_number) AS last \
                     FROM system.parts WHERE database = currentDatabase() AND active \
                     AND table IN ('windows', 'batches', 'minutes', 'signal_minutes') GROUP BY table, partition";
        let mut has_old = false;
        for row in server.rows_for::<PartsRow>(asker, parts)? {
            if row.of == "windows" {
                has_old = true;
                continue;
            }
            let number: u32 = row.partition.parse().map_err(|_| {
                Failure::refused(format!(
                    "the partition {:?} of {} is none of the store's",
                    row.partition, row.of
                ))
            })?;
            match &*row.of {
                "batches" if is_meant(&number) => {
                    history.hours.entry(number).or_default().blocks = Some((row.first, row.last));
                }
                // Windows of no samples have signals.
                "minutes" | "signal_minutes" => drop(history.days.insert(number)),
                _ => {}
            }
        }
        if has_old {
            let old = format!(
                "SELECT DISTINCT hour FROM windows WHERE kind = '' AND service = '' AND hour >= {first} AND hour <= {last}"
            );
            for hour in server.rows_for::<u32>(asker, &old)? {
                history.hours.entry(hour).or_default().is_old = true;
            }
        }
        let rolls = format!(
            "SELECT hour, roll, max(after_block) AS after, max(until_block) AS until, max(at_unix_ns) AS said, max(is_done) AS done \
             FROM rolls WHERE hour >= {first} AND hour <= {last} GROUP BY hour, roll"
        );
        for roll in server.rows_for::<RollRow>(asker, &rolls)? {
            history.hours.entry(roll.hour).or_default().rolls.push(roll);
        }
        Ok(history)
    }

    /// The hours, in order.
    pub(super) fn hours(&self) -> impl Iterator<Item = (u32, &Hour)> {
        self.hours.iter().map(|(hour, what)| (*hour, what))
    }

    /// Whether minutes of this hour are kept where it is added up: of a day whose sums of minutes have gone there are to be none, for who finds
    /// some takes them for all.
    pub(super) fn keeps_minutes(&self, hour: u32) -> bool {
        let day = hour / DAY_HOURS;
        let mut others = self.hours.range(day * DAY_HOURS..day.saturating_add(1).saturating_mul(DAY_HOURS));
        self.days.contains(&day) || !others.any(|(_, hour)| hour.rolls.iter().any(|roll| roll.is_done == 1))
    }

    /// Where a query of this time reads, with steps of this length.
    pub(super) fn sources(&self, from_unix_ns: u64, until_unix_ns: u64, step_ns: Option<u64>) -> Sources {
        let mut sources = Sources::default();
        let parts = plan(from_unix_ns, until_unix_ns, step_ns);
        for (number, hour) in &self.hours {
            let begin = u64::from(*number) * HOUR_NS;
            let end = begin.saturating_add(HOUR_NS);
            for part in &parts {
                let (from, until) = (part.from_unix_ns.max(begin), part.until_unix_ns.min(end));
                if from < until {
                    sources.add(hour, part.level, self.days.contains(&(number / DAY_HOURS)), from, until);
                }
            }
        }
        sources
    }
}

impl Sources {
    fn add(&mut self, hour: &Hour, level: Level, has_minutes: bool, from: u64, until: u64) {
        let has_windows = hour.blocks.is_some() || hour.is_old;
        let has_level = level == Level::Hours || level == Level::Minutes && has_minutes;
        let reads_sums = !hour.is_old && hour.is_added_up() && (!has_windows || has_level);
        if has_windows && !reads_sums {
            extend(&mut self.windows, from, until);
        }
        let rolls = if reads_sums { hour.sums().0 } else { hour.sums_of_gone().0 };
        if rolls.is_empty() {
            return;
        }
        let table = if level != Level::Hours && has_minutes { &mut self.minutes } else { &mut self.hours };
        if reads_sums {
            extend(&mut table.times, from, until);
            table.rolls.extend(rolls);
        } else {
            table.beside.push((from, until, rolls));
        }
    }
}

/// Adds a time to those in order.
fn extend(times: &mut Vec<(u64, u64)>, from: u64, until: u64) {
    match times.last_mut() {
        Some((_, end)) if *end == from => *end = until,
        _ => times.push((from, until)),
    }
}

impl Rolled {
    /// What rows of the table fulfil, whose step begins at `start`; `None`: none is read.
    pub(super) fn condition(&self, start: &str) -> Option<String> {
        let time = |from: &u64, until: &u64| {
            let (first, last) = (hour(*from), hour(until.saturating_sub(1)));
            format!("hour >= {first} AND hour <= {last} AND {start} >= {from} AND {start} < {until}")
        };
        let mut any: Vec<String> = self
            .beside
            .iter()
            .map(|(from, until, rolls)| format!("{} AND roll IN ({})", time(from, until), list(rolls)))
            .collect();
        if !self.times.is_empty() {
            let times: Vec<String> =
                self.times.iter().map(|(from, until)| format!("({})", time(from, until))).collect();
            any.push(format!("({}) AND roll IN ({})", times.join(" OR "), list(&self.rolls)));
        }
        (!any.is_empty()).then(|| format!("(({}))", any.join(") OR (")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::MINUTE_NS;

    fn roll(roll: u64, after_block: i64, until_block: i64) -> RollRow {
        RollRow { hour: 0, roll, after_block, until_block, at_unix_ns: 0, is_done: 1 }
    }

    fn history(hour: Hour) -> History {
        History { hours: [(10, hour)].into(), days: [0].into() }
    }

    #[test]
    fn sums_are_read_where_nothing_came_since() {
        let begin = 10 * HOUR_NS;
        let all = |hour: Hour| history(hour).sources(0, u64::MAX, None);
        let sums = |rolls: &[u64]| Sources {
            hours: Rolled {
                times: vec![(begin, begin + HOUR_NS)],
                rolls: rolls.iter().copied().collect(),
                beside: Vec::new(),
            },
            ..Sources::default()
        };
        let windows = Sources { windows: vec![(begin, begin + HOUR_NS)], ..Sources::default() };
        let of = |blocks, rolls: &[RollRow]| Hour { blocks, rolls: rolls.to_vec(), is_old: false };
        assert_eq!(all(of(Some((3, 9)), &[])), windows);
        assert_eq!(all(of(Some((3, 9)), &[roll(1, 0, 9)])), sums(&[1]));
        // Two collectors have added the same up, one is read. What came late is read with all the others.
        assert_eq!(all(of(Some((3, 9)), &[roll(2, 0, 9), roll(1, 0, 9), roll(3, 0, 8)])), sums(&[1]));
        assert_eq!(all(of(Some((3, 12)), &[roll(1, 0, 9)])), windows);
        assert_eq!(all(of(None, &[roll(1, 0, 9)])), sums(&[1]));
        // What is not done counts nothing.
        let begun = RollRow { is_done: 0, ..roll(1, 0, 9) };
        assert_eq!(all(of(Some((3, 9)), &[begun])), windows);
        let old = Hour { is_old: true, ..of(Some((3, 9)), &[roll(1, 0, 9)]) };
        assert_eq!(all(old), windows);
        // The server has lost the ninth.
        assert_eq!(all(of(Some((3, 8)), &[roll(1, 0, 9)])), windows);
        assert_eq!(all(of(Some((3, 8)), &[roll(1, 0, 9), roll(2, 0, 8)])), sums(&[2]));
    }

    #[test]
    fn what_comes_after_windows_have_gone_is_added_to_their_sums() {
        let begin = 10 * HOUR_NS;
        let both = |rolls: &[u64]| Sources {
            windows: vec![(begin, begin + HOUR_NS)],
            hours: Rolled { beside: vec![(begin, begin + HOUR_NS, rolls.to_vec())], ..Rolled::default() },
            ..Sources::default()
        };
        let of = |blocks, rolls: &[RollRow]| {
            history(Hour { blocks, rolls: rolls.to_vec(), is_old: false }).sources(0, u64::MAX, None)
        };
        assert_eq!(of(Some((11, 12)), &[roll(1, 0, 9)]), both(&[1]));
        // Added up, and more came.
        let later = [roll(1, 0, 9), roll(2, 9, 12)];
        assert_eq!(of(Some((11, 12)), &later).hours.rolls, [1, 2].into());
        assert_eq!(of(Some((11, 15)), &later), both(&[1]));
        let again = [roll(1, 0, 9), roll(2, 9, 12), roll(3, 9, 15)];
        assert_eq!(of(Some((11, 15)), &again).hours.rolls, [1, 3].into());
        assert_eq!(of(None, &again).hours.rolls, [1, 3].into());
    }

    #[test]
    fn minutes_that_have_gone_do_not_come_back() {
        let of = |days: &[u32], rolls: &[RollRow]| {
            let other = Hour { rolls: rolls.to_vec(), ..Hour::default() };
            let hours = [(10, Hour::default()), (23, other), (24, Hour::default())];
            History { hours: hours.into(), days: days.iter().copied().collect() }
        };
        assert!(of(&[], &[]).keeps_minutes(10) && of(&[0], &[roll(1, 0, 9)]).keeps_minutes(10));
        assert!(!of(&[], &[roll(1, 0, 9)]).keeps_minutes(10));
        assert!(of(&[], &[roll(1, 0, 9)]).keeps_minutes(24));
        assert!(of(&[], &[RollRow { is_done: 0, ..roll(1, 0, 9) }]).keeps_minutes(10));
    }

    #[test]
    fn the_finest_that_is_left_is_read() {
        let begin = 10 * HOUR_NS;
        let (from, until) = (begin + MINUTE_NS, begin + 3 * MINUTE_NS);
        let of = |blocks, days: &[u32], step| {
            let hour = Hour { blocks, rolls: vec![roll(1, 0, 9)], is_old: false };
            let history = History { hours: [(10, hour)].into(), days: days.iter().copied().collect() };
            let sources = history.sources(from, until, Some(step));
            let is_any = |rolled: &Rolled| rolled.condition("x").is_some();
            (!sources.windows.is_empty(), is_any(&sources.minutes), is_any(&sources.hours))
        };
        assert_eq!(of(Some((1, 9)), &[0], MINUTE_NS), (false, true, false));
        assert_eq!(of(Some((1, 9)), &[0], 1), (true, false, false));
        assert_eq!(of(Some((1, 9)), &[], MINUTE_NS), (true, false, false));
        assert_eq!(of(None, &[0], 1), (false, true, false));
        assert_eq!(of(None, &[], 1), (false, false, true));
    }
}

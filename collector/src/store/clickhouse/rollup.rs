//! Adds the windows of an hour up to minutes and hours, on the server that has them.
//!
//! **Once.** What is added up is the rows of one roll, a number that nobody else has; it counts when all of it is there and no block came
//! meanwhile, by one row that says so. A roll that ends half-way counts nothing, and goes later. So it does no harm when two collectors
//! add the same hour up; to spare the work, each says first that it begins.
//!
//! **Dead or slow.** What a roll has written goes when nobody has heard of it for [`SILENT_NS`]. So who adds up says again and again that it
//! still does, and gives up where it could not say so for half as long: no roll is done of which something has gone.

use std::time::{Duration, Instant};

use super::levels::{History, Hour};
use super::rows::{HOUR_NS, RollRow};
use super::select::ONCE;
use super::server::{Failure, Server, list};
use crate::store::embedded::{DAY_NS, MINUTE_NS};

/// How long after an hour's end one waits for its last windows.
const SETTLE_NS: u64 = 5 * MINUTE_NS;
/// Windows that begin so much later than now are from a host whose clock is wrong; they do not wait for their time.
const MAX_AHEAD_NS: u64 = DAY_NS;
/// How long an hour rests before it is added up again: what comes late comes in batches.
const REST_NS: u64 = 10 * MINUTE_NS;
/// How long one who has begun is waited for without a word; and how long what is not read any more stays for those who are reading it.
const SILENT_NS: u64 = 10 * MINUTE_NS;
/// How often who adds up says so.
const WORD_EVERY: Duration = Duration::from_secs(60);
/// After how long without having said so it gives up: the others still wait for it then.
const GIVE_UP_AFTER: Duration = Duration::from_nanos(SILENT_NS / 2);
/// How long a statement of it may take.
const ROLL_TIME: Duration = Duration::from_secs(120);
// Between two words there is one statement, and who gives up has had the time for it.
const _: () = assert!(WORD_EVERY.as_secs() + ROLL_TIME.as_secs() < GIVE_UP_AFTER.as_secs());
/// Minutes of an hour that are added up at a time: what differs is in memory.
const PIECE: u64 = 10;
/// Bytes of sums in the server's memory, beyond which it takes its disk.
const ROLL_MEMORY: &str = "1000000000";

/// Adds one hour up, the oldest that is due. Whether there was any.
///
/// # Errors
/// Where the server cannot. What it did until then counts nothing.
pub(super) fn roll(server: &Server, history: &History, now_unix_ns: u64) -> Result<bool, Failure> {
    let due = history.hours().find(|(number, hour)| is_due(*number, hour, now_unix_ns));
    let Some((number, hour, (_, until_block))) =
        due.and_then(|(number, hour)| Some((number, hour, hour.blocks?)))
    else {
        return sweep(server, history, now_unix_ns).map(|()| false);
    };
    let claim = RollRow {
        hour: number,
        roll: fastrand::u64(1..),
        after_block: hour.sums_of_gone().1,
        until_block,
        at_unix_ns: now_unix_ns,
        is_done: 0,
    };
    server.insert("rolls", &[claim])?;
    if first_claim(server, number, now_unix_ns)? == Some(claim.roll) {
        add_up(server, &mut Turn::new(server, claim), history.keeps_minutes(number))?;
    }
    Ok(true)
}

/// Whether an hour is to be added up now.
fn is_due(number: u32, hour: &Hour, now_unix_ns: u64) -> bool {
    let begin = u64::from(number) * HOUR_NS;
    let is_over = begin.saturating_add(HOUR_NS).saturating_add(SETTLE_NS) <= now_unix_ns
        || begin > now_unix_ns.saturating_add(MAX_AHEAD_NS);
    let rests = hour.rolls.iter().any(|roll| {
        let rest = if roll.is_done == 1 { REST_NS } else { SILENT_NS };
        roll.at_unix_ns.saturating_add(rest) > now_unix_ns
    });
    hour.blocks.is_some() && is_over && !hour.is_old && !hour.is_added_up() && !rests
}

/// Whose turn an hour is, of those who have begun lately: all who ask agree.
fn first_claim(server: &Server, hour: u32, now_unix_ns: u64) -> Result<Option<u64>, Failure> {
    let sql = format!(
        "SELECT roll FROM rolls WHERE hour = {hour} AND is_done = 0 AND at_unix_ns > {} ORDER BY at_unix_ns, roll LIMIT 1",
        now_unix_ns.saturating_sub(SILENT_NS)
    );
    Ok(server.rows::<u64>(&sql)?.first().copied())
}

/// A roll under way.
struct Turn<'a> {
    server: &'a Server,
    claim: RollRow,
    begin: Instant,
    /// When it was last said that it goes on.
    said: Instant,
}

impl<'a> Turn<'a> {
    fn new(server: &'a Server, claim: RollRow) -> Self {
        let now = Instant::now();
        Self { server, claim, begin: now, said: now }
    }

    /// Adds a part up, and says that it goes on where it is time for that.
    fn execute(&mut self, sql: &str) -> Result<(), Failure> {
        let seconds = ROLL_TIME.as_secs().to_string();
        let bounds =
            [("max_bytes_before_external_group_by", ROLL_MEMORY), ("max_execution_time", seconds.as_str())];
        self.server.execute_within(sql, ROLL_TIME, &bounds)?;
        self.check()?;
        if self.said.elapsed() >= WORD_EVERY {
            let begin = Instant::now();
            let elapsed_ns = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let at_unix_ns = self.claim.at_unix_ns.saturating_add(elapsed_ns);
            self.server.insert("rolls", &[RollRow { at_unix_ns, ..self.claim }])?;
            self.said = begin;
        }
        Ok(())
    }

    /// Whether others still wait for it.
    fn check(&self) -> Result<(), Failure> {
        if self.said.elapsed() < GIVE_UP_AFTER {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "{} has been adding hour {} up for too long without a word of it: it is done again",
            self.server.address(),
            self.claim.hour
        )))
    }
}

/// Adds the hour of a claim up: to minutes, where they are kept, and those to the hour.
fn add_up(server: &Server, turn: &mut Turn<'_>, keeps_minutes: bool) -> Result<(), Failure> {
    let RollRow { hour, roll, until_block, .. } = turn.claim;
    let begin = u64::from(hour) * HOUR_NS;
    let (level, minute, minute_of, by_minute) = if keeps_minutes {
        (
            "minutes",
            "minute, ",
            "toUInt8(intDiv(start_unix_ns, 60000000000) % 60) AS minute_of, ",
            "minute_of, ",
        )
    } else {
        ("hours", "", "", "")
    };
    for piece in 0..60 / PIECE {
        let from = begin + piece * PIECE * MINUTE_NS;
        let time = format!("start_unix_ns >= {from} AND start_unix_ns < {}", from + PIECE * MINUTE_NS);
        turn.execute(&format!(
            "INSERT INTO {level} (kind, service, hour, roll, class, stack, series, {minute}unit, windows, count, weight) \
             SELECT kind, service, hour, toUInt64({roll}) AS own, c, k, s, {minute_of}unit, count() AS found, sum(n) AS samples, \
             sum(w) AS total \
             FROM (SELECT kind, service, hour, agent, sequence, unit, start_unix_ns, series, class, stack, count, weight \
             FROM batches WHERE hour = {hour} AND kind != '' AND {time} {ONCE}) \
             ARRAY JOIN series AS s, class AS c, stack AS k, count AS n, weight AS w \
             GROUP BY kind, service, hour, c, k, s, {by_minute}unit"
        ))?;
        turn.execute(&format!(
            "INSERT INTO signal_{level} (signal, series, hour, roll, {minute}unit, windows, value, max, level) \
             SELECT g, s, hour, toUInt64({roll}) AS own, {minute_of}u, count() AS found, sum(v) AS total, max(m) AS highest, \
             max(l) AS worst \
             FROM (SELECT kind, service, hour, agent, sequence, start_unix_ns, signal, signal_series, signal_unit, signal_value, \
             signal_max, signal_level FROM batches WHERE hour = {hour} AND kind = '' AND service = '' AND {time} {ONCE}) \
             ARRAY JOIN signal AS g, signal_series AS s, signal_unit AS u, signal_value AS v, signal_max AS m, signal_level AS l \
             GROUP BY g, s, hour, {by_minute}u"
        ))?;
    }
    if keeps_minutes {
        add_minutes_up(turn)?;
    }
    let last = format!(
        "SELECT max(max_block_number) FROM system.parts WHERE database = currentDatabase() AND active \
         AND table = 'batches' AND partition = '{hour}'"
    );
    if server.rows::<i64>(&last)?.first() != Some(&until_block) {
        tracing::debug!(hour, "windows came while they were added up: it is done again later");
        return Ok(());
    }
    turn.check()?;
    server.insert("rolls", &[RollRow { is_done: 1, ..turn.claim }])
}

fn add_minutes_up(turn: &mut Turn<'_>) -> Result<(), Failure> {
    let RollRow { hour, roll, .. } = turn.claim;
    turn.execute(&format!(
        "INSERT INTO hours (kind, service, hour, roll, class, stack, series, unit, windows, count, weight) \
         SELECT kind, service, hour, roll, class, stack, series, unit, sum(windows) AS found, sum(count) AS samples, \
         sum(weight) AS total FROM minutes WHERE hour = {hour} AND roll = {roll} \
         GROUP BY kind, service, hour, roll, class, stack, series, unit"
    ))?;
    turn.execute(&format!(
        "INSERT INTO signal_hours (signal, series, hour, roll, unit, windows, value, max, level) \
         SELECT signal, series, hour, roll, unit, sum(windows) AS found, sum(value) AS total, max(max) AS highest, \
         max(level) AS worst FROM signal_minutes WHERE hour = {hour} AND roll = {roll} \
         GROUP BY signal, series, hour, roll, unit"
    ))
}

/// Has the sums go that nobody reads any more: of rolls that were not finished, or that later ones have replaced.
fn sweep(server: &Server, history: &History, now_unix_ns: u64) -> Result<(), Failure> {
    let is_past = |roll: &RollRow| roll.at_unix_ns.saturating_add(SILENT_NS) <= now_unix_ns;
    let mut gone = Vec::new();
    for (number, hour) in history.hours() {
        let (read, until) = hour.sums();
        // While it is not added up again, those before are not read: they are of no use later either.
        let is_settled = hour.rolls.iter().filter(|roll| read.contains(&roll.roll)).all(is_past);
        let is_done = |roll: u64| hour.rolls.iter().any(|other| other.roll == roll && other.is_done == 1);
        let unread = hour.rolls.iter().filter(|roll| {
            let is_replaced = is_settled && roll.until_block <= until;
            !read.contains(&roll.roll) && is_past(roll) && (is_replaced || !is_done(roll.roll))
        });
        gone.extend(unread.map(|roll| (number, roll.roll)));
    }
    if gone.is_empty() {
        return Ok(());
    }
    let busy =
        "SELECT toUInt64(count()) FROM system.mutations WHERE database = currentDatabase() AND NOT is_done";
    if server.rows::<u64>(busy)?.first() != Some(&0) {
        return Ok(());
    }
    tracing::info!(server = server.address(), rolls = gone.len(), "sums that nobody reads any more go");
    let (hours, rolls) = (list(gone.iter().map(|(hour, _)| hour)), list(gone.iter().map(|(_, roll)| roll)));
    for table in ["minutes", "hours", "signal_minutes", "signal_hours", "rolls"] {
        server
            .execute(&format!("ALTER TABLE {table} DELETE WHERE hour IN ({hours}) AND roll IN ({rolls})"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_due_when_it_is_over_and_something_came_since() {
        let roll = |until_block, at_unix_ns, is_done| RollRow {
            hour: 10,
            roll: 1,
            after_block: 0,
            until_block,
            at_unix_ns,
            is_done,
        };
        let over = 11 * HOUR_NS + SETTLE_NS;
        let due = |rolls: &[RollRow], now| {
            is_due(10, &Hour { blocks: Some((1, 9)), is_old: false, rolls: rolls.to_vec() }, now)
        };
        assert!(due(&[], over) && !due(&[], over - 1));
        assert!(!due(&[roll(9, 0, 1)], over), "it is added up");
        assert!(due(&[roll(8, over - REST_NS, 1)], over) && !due(&[roll(8, over, 1)], over), "it rests");
        assert!(
            due(&[roll(9, over - SILENT_NS, 0)], over) && !due(&[roll(9, over, 0)], over),
            "somebody has begun"
        );
        // Of a host whose clock is wrong.
        let ahead = Hour { blocks: Some((1, 9)), is_old: false, rolls: Vec::new() };
        let begin = 100 * HOUR_NS;
        assert!(is_due(100, &ahead, begin - MAX_AHEAD_NS - 1) && !is_due(100, &ahead, begin - MAX_AHEAD_NS));
        let old = Hour { blocks: Some((1, 9)), is_old: true, rolls: Vec::new() };
        assert!(!is_due(10, &old, over));
    }
}

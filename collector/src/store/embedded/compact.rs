//! Turns fresh windows into segments.
//!
//! A segment has windows of one hour only, so that what belongs to an hour can be told by its segments. Windows become one when their hour is
//! over, or earlier when there are enough of them. What comes later makes another segment of the same hour: sums are added up anyway.
//!
//! Windows are taken by agent, all of one that wait: only rows of the same agent add up. Of two thousand agents a million rows come in ten
//! seconds, so an agent's windows wait until some minutes of them are there, and it is some tens of agents whose minutes are a segment.

use std::collections::BTreeMap;

use rusqlite::{Connection, named_params, params};

use super::directory::Folder;
use super::readers::Access;
use super::rows::{Reading, Sample};
use super::segments::{Content, Extent, Level, Order, SampleWriter, Words, file_name, write_readings};
use super::writer::signed;
use super::{DAY_NS, HOUR_NS, MINUTE_NS, Shared, failed, fresh, varint};
use crate::store::StoreError;

/// A window that begins so much later than now is from a host whose clock is wrong; it does not wait for its time.
pub(super) const MAX_AHEAD_NS: u64 = DAY_NS;
/// How long an agent's windows wait for more of them, when their hour is not over.
const GATHER_NS: u64 = 5 * MINUTE_NS;
/// Time of a segment's windows at most, so that who asks for some minutes need not read an hour.
const SPAN_NS: u64 = 10 * MINUTE_NS;

/// A segment that is on the disk and not in the catalogue yet.
pub(super) struct Written {
    file: String,
    content: Content,
    level: Level,
    first_agent: i64,
    from_unix_ns: u64,
    until_unix_ns: u64,
    rows: usize,
    bytes: u64,
    series: Vec<u8>,
}

/// Writes segments of the oldest fresh windows that are due. Whether there were any.
///
/// # Errors
/// Where the disk does not take them. The windows stay then.
pub(super) fn fresh(shared: &Shared, now_unix_ns: u64) -> Result<bool, StoreError> {
    let access = shared.read()?;
    let Some(due) = due_windows(shared, &access, now_unix_ns)? else { return Ok(false) };
    // Names do not change, and nobody else deletes windows.
    access.let_go()?;
    let DueWindows { first_agent, ids, mut samples, mut readings } = due;
    let order = Order::new(&access.index, samples.iter().map(|row| row.series));
    let mut written = Vec::new();
    let mut attempt = || {
        let mut next = next_id(&access)?;
        for level in [Level::Windows, Level::Minutes] {
            samples.iter_mut().for_each(|row| row.start_unix_ns = level.floor(row.start_unix_ns));
            readings.iter_mut().for_each(|row| row.start_unix_ns = level.floor(row.start_unix_ns));
            let own = (next, level, first_agent);
            written.extend(write_samples_of(shared, &access, own, &order, &mut samples)?);
            written.extend(write_readings_of(
                shared,
                &access,
                (next + 1, level, first_agent),
                &mut readings,
            )?);
            next += 2;
        }
        let mut catalogue = shared.catalogue();
        let transaction = catalogue.transaction().map_err(failed(listing))?;
        for content in [Content::Samples, Content::Signals] {
            let mut parent = 0;
            // The coarser first: it is the finer one's parent.
            for segment in written.iter().rev().filter(|segment| segment.content == content) {
                parent = list(&transaction, segment, parent).map_err(failed(listing))?;
            }
        }
        {
            let mut delete =
                transaction.prepare_cached("DELETE FROM windows WHERE id = ?1").map_err(failed(listing))?;
            for id in &ids {
                delete.execute([id]).map_err(failed(listing))?;
            }
        }
        transaction.commit().map_err(failed(listing))
    };
    let result = attempt();
    settle(shared, &written, result)
}

struct DueWindows {
    first_agent: i64,
    ids: Vec<i64>,
    samples: Vec<Sample>,
    readings: Vec<Reading>,
}

/// When windows are due: those of whole minutes that ended before, so that a minute is in one segment, and those that are far ahead.
struct DueTimes {
    settled: u64,
    ahead: u64,
}

impl DueTimes {
    const CONDITION: &str =
        "(start_unix_ns + duration_ns <= :settled AND start_unix_ns < :minute OR start_unix_ns > :ahead)";

    fn is_over(&self, hour_unix_ns: u64) -> bool {
        hour_unix_ns.saturating_add(HOUR_NS) <= self.settled || hour_unix_ns > self.ahead
    }

    /// The values of the condition: `settled`, `minute` and `ahead`.
    fn values(&self) -> [i64; 3] {
        [self.settled, Level::Minutes.floor(self.settled), self.ahead].map(signed)
    }
}

/// The part of an hour of which a segment is to be made, and the agents that have windows in the hour.
struct DueAgents {
    from_unix_ns: u64,
    until_unix_ns: u64,
    agents: Vec<i64>,
    /// Of the hour.
    rows: usize,
}

fn due_agents(
    shared: &Shared,
    access: &Access<'_>,
    times: &DueTimes,
) -> Result<Option<DueAgents>, StoreError> {
    let sql = format!(
        "SELECT start_unix_ns / :hour, agent, sum(rows), min(start_unix_ns) FROM windows WHERE {} GROUP BY 1, 2",
        DueTimes::CONDITION
    );
    let mut list = access.catalogue().prepare_cached(&sql).map_err(failed(choosing))?;
    let [settled, minute, ahead] = times.values();
    let mut list = list
        .query(named_params! { ":hour": signed(HOUR_NS), ":settled": settled, ":minute": minute, ":ahead": ahead })
        .map_err(failed(choosing))?;
    let gathered = times.settled.saturating_sub(GATHER_NS);
    let mut hours: BTreeMap<u64, DueAgents> = BTreeMap::new();
    while let Some(row) = list.next().map_err(failed(choosing))? {
        let read = || Ok::<_, rusqlite::Error>((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let (hour, agent, rows, first): (i64, i64, usize, i64) = read().map_err(failed(choosing))?;
        let hour = hour.unsigned_abs() * HOUR_NS;
        if times.is_over(hour) || first.unsigned_abs() <= gathered {
            let from_unix_ns = Level::Minutes.floor(first.unsigned_abs());
            let due = hours.entry(hour).or_insert(DueAgents {
                from_unix_ns,
                until_unix_ns: hour.saturating_add(HOUR_NS),
                agents: Vec::new(),
                rows: 0,
            });
            due.from_unix_ns = due.from_unix_ns.min(from_unix_ns);
            due.agents.push(agent);
            due.rows += rows;
        }
    }
    let is_enough = |hour, rows| times.is_over(hour) || rows >= shared.options.segment_rows;
    let due = hours.into_iter().find(|(hour, due)| is_enough(*hour, due.rows));
    Ok(due.map(|(_, mut due)| {
        due.until_unix_ns = due.until_unix_ns.min(due.from_unix_ns.saturating_add(SPAN_NS));
        due.agents.sort_unstable();
        due
    }))
}

fn due_windows(
    shared: &Shared,
    access: &Access<'_>,
    now_unix_ns: u64,
) -> Result<Option<DueWindows>, StoreError> {
    let times = DueTimes {
        settled: now_unix_ns.saturating_sub(shared.options.fresh_ns),
        ahead: now_unix_ns.saturating_add(MAX_AHEAD_NS),
    };
    let Some(chosen) = due_agents(shared, access, &times)? else { return Ok(None) };
    let most = shared.options.segment_rows;
    let sql = format!(
        "SELECT id, start_unix_ns, samples, signals FROM windows
         WHERE agent = :agent AND start_unix_ns >= :from AND start_unix_ns < :until AND {} ORDER BY start_unix_ns",
        DueTimes::CONDITION
    );
    let mut windows = access.catalogue().prepare_cached(&sql).map_err(failed(choosing))?;
    let [settled, minute, ahead] = times.values();
    let (from, until) = (signed(chosen.from_unix_ns), signed(chosen.until_unix_ns));
    let mut due = DueWindows { first_agent: 0, ids: Vec::new(), samples: Vec::new(), readings: Vec::new() };
    // Growing would take as much again.
    due.samples.reserve_exact(chosen.rows.min(most + most / 8));
    for agent in chosen.agents {
        let mut windows = windows
            .query(named_params! {
                ":agent": agent, ":from": from, ":until": until, ":settled": settled, ":minute": minute, ":ahead": ahead,
            })
            .map_err(failed(choosing))?;
        while due.samples.len().max(due.readings.len()) < most {
            let Some(row) = windows.next().map_err(failed(choosing))? else { break };
            let start: i64 = row.get(1).map_err(failed(choosing))?;
            let blob =
                |column| row.get_ref(column).and_then(|blob| Ok(blob.as_blob()?)).map_err(failed(choosing));
            let (samples, readings) = (blob(2)?, blob(3)?);
            if !samples.is_empty() {
                due.samples.extend(fresh::samples(samples, start.unsigned_abs())?);
            }
            if !readings.is_empty() {
                due.readings.extend(fresh::readings(readings, start.unsigned_abs())?);
            }
            if due.ids.is_empty() {
                due.first_agent = agent;
            }
            due.ids.push(row.get(0).map_err(failed(choosing))?);
        }
        if due.samples.len().max(due.readings.len()) >= most {
            break;
        }
    }
    Ok((!due.ids.is_empty()).then_some(due))
}

/// What was written for nothing goes.
pub(super) fn settle(
    shared: &Shared,
    written: &[Written],
    result: Result<(), StoreError>,
) -> Result<bool, StoreError> {
    if result.is_err() {
        for segment in written {
            // What cannot be removed now is removed at the next start.
            let _ = shared.directory.remove(Folder::Segments, &segment.file);
        }
    }
    result.map(|()| true)
}

/// Writes a segment of these samples, which get into its order; none where there are none.
fn write_samples_of(
    shared: &Shared,
    access: &Access<'_>,
    (id, level, first_agent): (i64, Level, i64),
    order: &Order,
    rows: &mut [Sample],
) -> Result<Option<Written>, StoreError> {
    if rows.is_empty() {
        return Ok(None);
    }
    rows.sort_unstable_by_key(|row| order.key(row));
    let file = file_name(id, Content::Samples, level);
    let mut words = Words::new(access.catalogue(), &access.index);
    let mut extent = Extent::default();
    let bytes = shared.directory.write(Folder::Segments, &file, |file| {
        let mut writer = SampleWriter::new(file, &mut words)?;
        rows.iter().try_for_each(|row| writer.push(*row))?;
        extent = writer.finish()?;
        Ok(())
    })?;
    Ok(Some(written((file, Content::Samples, level), first_agent, bytes, &extent)))
}

/// Writes a segment of these signals, which get into its order; none where there are none.
pub(super) fn write_readings_of(
    shared: &Shared,
    access: &Access<'_>,
    (id, level, first_agent): (i64, Level, i64),
    rows: &mut Vec<Reading>,
) -> Result<Option<Written>, StoreError> {
    if rows.is_empty() {
        return Ok(None);
    }
    let file = file_name(id, Content::Signals, level);
    let mut words = Words::new(access.catalogue(), &access.index);
    let mut extent = Extent::default();
    let bytes = shared.directory.write(Folder::Segments, &file, |file| {
        extent = write_readings(file, rows, &mut words)?;
        Ok(())
    })?;
    Ok(Some(written((file, Content::Signals, level), first_agent, bytes, &extent)))
}

/// What the catalogue is to list of a segment.
pub(super) fn written(
    (file, content, level): (String, Content, Level),
    first_agent: i64,
    bytes: u64,
    extent: &Extent,
) -> Written {
    Written {
        file,
        content,
        level,
        first_agent,
        from_unix_ns: extent.from_unix_ns,
        until_unix_ns: extent.last_unix_ns.saturating_add(level.step_ns()),
        rows: extent.rows,
        bytes,
        series: varint::of_ascending(&extent.series()),
    }
}

/// A number that no segment has had.
pub(super) fn next_id(access: &Access<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'segments'), 0) + 1";
    access.catalogue().query_row(sql, (), |row| row.get(0)).map_err(failed(listing))
}

/// Lists a segment; its number.
pub(super) fn list(transaction: &Connection, segment: &Written, parent: i64) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached(
            "INSERT INTO segments (file, content, level, from_unix_ns, until_unix_ns, rows, bytes, parent, is_finest, series,
             first_agent) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            segment.file,
            segment.content as i64,
            segment.level as i64,
            signed(segment.from_unix_ns),
            signed(segment.until_unix_ns),
            segment.rows as i64,
            signed(segment.bytes),
            parent,
            segment.level == Level::Windows,
            segment.series,
            segment.first_agent,
        ])?;
    Ok(transaction.last_insert_rowid())
}

pub(super) fn listing() -> String {
    "cannot list a segment in the catalogue".to_owned()
}

fn choosing() -> String {
    "cannot read which windows are due".to_owned()
}

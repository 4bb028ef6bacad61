//! Adds samples up: the servers do, and their sums are added here.

use std::collections::HashMap;

use chokepoint_analysis::profile::Unit;
use chokepoint_proto::stream;
use clickhouse::Row;
use serde::Deserialize;

use super::Shared;
use super::index::Selected;
use super::levels::{History, Rolled, Sources};
use super::select::{HOUR, MINUTE, ONCE, selected, within};
use super::server::{quoted, quoted_list};
use crate::store::{StackId, StoreError, Sum, SumQuery, Sums};

/// A sum of one table of one server.
#[derive(Debug, Row, Deserialize)]
struct SumRow {
    grp: u32,
    step: u64,
    cls: String,
    stk: u64,
    samples: u64,
    total: u64,
    units: u8,
    found: u64,
}

/// Answers a query.
///
/// # Errors
/// Where no server answers, or there are more sums than the query allows.
pub(super) fn sums(shared: &Shared, query: &SumQuery) -> Result<Sums, StoreError> {
    let selection = &query.selection;
    let selected = selected(shared, selection, &query.group_by)?;
    if selected.series.is_empty() {
        return Ok(Sums::default());
    }
    let (from, until) = (selection.from_unix_ns, selection.until_unix_ns);
    let answers = shared.ask_all(&selection.asker, "cannot add samples up", |server| {
        let history = History::read(server, &selection.asker, from, until)?;
        let sources = history.sources(from, until, query.step_ns);
        let mut sums = Vec::new();
        for sql in statements(query, &selected, &sources) {
            sums.extend(server.rows_for::<SumRow>(&selection.asker, &sql)?);
        }
        Ok(sums)
    })?;
    let mut sums: HashMap<(u32, u64, String, u64), (u64, u64)> = HashMap::new();
    let mut unit = None;
    // Without anything to keep apart there is a sum of nothing.
    for row in answers.into_iter().flatten().filter(|row| row.found > 0) {
        let sum = sums.entry((row.grp, row.step, row.cls, row.stk)).or_default();
        *sum = (sum.0.saturating_add(row.samples), sum.1.saturating_add(row.total));
        unit = unit.max(Some(row.units));
    }
    if sums.len() > query.max_sums {
        return Err(StoreError::TooLarge { what: "sums", limit: query.max_sums });
    }
    let mut sums: Vec<Sum> = sums
        .into_iter()
        .map(|((group, start_unix_ns, class, stack), (count, weight))| Sum {
            group: selected.groups[group as usize - 1].clone(),
            start_unix_ns,
            class,
            stack: (stack != 0).then_some(StackId(stack)),
            count,
            weight,
        })
        .collect();
    sums.sort_unstable();
    Ok(Sums { sums, unit: unit.map(unit_of) })
}

/// What is asked of a server: once for each of its tables that is read.
fn statements(query: &SumQuery, selected: &Selected, sources: &Sources) -> Vec<String> {
    let kind = format!("kind = {}{}", quoted(&query.kind), selected.of_services());
    let step = |start: &str| match query.step_ns.map(|step| step.max(1)) {
        Some(step) => format!("toUInt64({start} - {start} % {step})"),
        None => "toUInt64(0)".to_owned(),
    };
    let class = |column| if query.by_class { column } else { "''" };
    let stack = |column| if query.by_stack { column } else { "toUInt64(0)" };
    let classes = |column| match query.classes.as_slice() {
        [] => String::new(),
        classes => format!(" AND {column} IN ({})", quoted_list(classes.iter().map(String::as_str))),
    };
    let most = query.max_sums.saturating_add(1);
    let windows = within(&sources.windows).map(|time| {
        format!(
            "SELECT {} AS grp, {} AS step, {} AS cls, {} AS stk, sum(n) AS samples, sum(w) AS total, max(unit) AS units, \
             count() AS found \
             FROM (SELECT kind, service, agent, sequence, unit, start_unix_ns, series, class, stack, count, weight FROM history \
             WHERE {kind} AND {time} {ONCE}) \
             ARRAY JOIN series AS s, class AS c, stack AS k, count AS n, weight AS w \
             WHERE grp > 0{} GROUP BY grp, step, cls, stk LIMIT {most}",
            selected.group_of("s"),
            step("start_unix_ns"),
            class("c"),
            stack("k"),
            classes("c"),
        )
    });
    let rolled = |table: &str, rolled: &Rolled, start: &str| {
        let time = rolled.condition(start)?;
        Some(format!(
            "SELECT {} AS grp, {} AS step, {} AS cls, {} AS stk, sum(count) AS samples, sum(weight) AS total, \
             max(unit) AS units, sum(windows) AS found \
             FROM {table} WHERE {kind} AND {time} AND grp > 0{} GROUP BY grp, step, cls, stk LIMIT {most}",
            selected.group_of("series"),
            step(start),
            class("class"),
            stack("stack"),
            classes("class"),
        ))
    };
    let minutes = rolled("minutes", &sources.minutes, MINUTE);
    let hours = rolled("hours", &sources.hours, HOUR);
    [windows, minutes, hours].into_iter().flatten().collect()
}

/// The unit of a kind as agents tell it.
pub(super) fn unit_of(unit: u8) -> Unit {
    if i32::from(unit) == stream::Unit::Nanoseconds as i32 { Unit::Nanoseconds } else { Unit::Count }
}

//! Adds samples up: the servers do, and their sums are added here.

use std::collections::HashMap;

use chokepoint_analysis::profile::Unit;
use chokepoint_proto::stream;
use clickhouse::Row;
use serde::Deserialize;

use super::Shared;
use super::select::{ONCE, of_time, selected};
use super::server::quoted_list;
use crate::store::{StackId, StoreError, Sum, SumQuery, Sums};

/// A sum of one server.
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
    let group = selected.group_of("s");
    let step = match query.step_ns.map(|step| step.max(1)) {
        Some(step) => format!("toUInt64(start_unix_ns - start_unix_ns % {step})"),
        None => "toUInt64(0)".to_owned(),
    };
    let (class, stack) =
        (if query.by_class { "c" } else { "''" }, if query.by_stack { "k" } else { "toUInt64(0)" });
    let classes = match query.classes.as_slice() {
        [] => String::new(),
        classes => format!(" AND c IN ({})", quoted_list(classes.iter().map(String::as_str))),
    };
    let sql = format!(
        "SELECT {group} AS grp, {step} AS step, {class} AS cls, {stack} AS stk, sum(n) AS samples, sum(w) AS total, \
         max(unit) AS units, count() AS found \
         FROM (SELECT kind, service, agent, sequence, unit, start_unix_ns, series, class, stack, count, weight FROM windows \
         WHERE {}{} {ONCE}) \
         ARRAY JOIN series AS s, class AS c, stack AS k, count AS n, weight AS w \
         WHERE grp > 0{classes} GROUP BY grp, step, cls, stk LIMIT {}",
        of_time(&query.kind, selection.from_unix_ns, selection.until_unix_ns),
        selected.of_services(),
        query.max_sums.saturating_add(1),
    );
    let answers = shared.ask_all(&selection.asker, "cannot add samples up", |server| {
        server.rows_for::<SumRow>(&selection.asker, &sql)
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

/// The unit of a kind as agents tell it.
pub(super) fn unit_of(unit: u8) -> Unit {
    if i32::from(unit) == stream::Unit::Nanoseconds as i32 { Unit::Nanoseconds } else { Unit::Count }
}

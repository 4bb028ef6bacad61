//! What was before: since when a constraint is there, what it usually is, and what is different since it began.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use chokepoint_analysis::activity::{Class, Group};
use chokepoint_analysis::fleet::usual::{Hour, usual};
use chokepoint_analysis::verdict::code::Code;

use super::super::QueryError;
use super::super::question::MS_NS;
use super::answer::{Change, Deviation};
use super::read::{HOST, Reader, Scope};
use crate::store::{Selection, StoreError, SumQuery};

const HOUR_NS: u64 = 3_600_000 * MS_NS;
const MINUTE_NS: u64 = 60_000 * MS_NS;
/// How far back a constraint's beginning is looked for, and by which steps: further where it was there already, as long as there is room for
/// the steps. What began hours ago is told by the hour, of which a store has sums, and a break of less is not seen.
const BACK_NS: [(u64, u64); 4] =
    [(HOUR_NS, MINUTE_NS), (4 * HOUR_NS, MINUTE_NS), (4 * HOUR_NS, 5 * MINUTE_NS), (24 * HOUR_NS, HOUR_NS)];
/// From how far back it is known what is usual: four weeks have each hour of the week four times.
const PAST_NS: u64 = 28 * 24 * HOUR_NS;
/// It has begun where it was less than half of what it is.
const HALF: f64 = 0.5;
/// Steps without anything stored that do not end it: an agent that was started anew.
const GAP: u64 = 3;
/// How long before a constraint began it is looked what was there then.
const BEFORE_NS: u64 = HOUR_NS;
/// Labels that change with what is rolled out.
const ROLLED_OUT: [&str; 2] = ["image", "version"];
/// Values of a label that are told.
const MAX_VALUES: usize = 20;
/// Baselines that are remembered: one for each service with a constraint.
const MAX_KNOWN: usize = 512;

/// Baselines by what they are of: they change once an hour.
type Remembered = BTreeMap<String, (u64, Vec<Hour>)>;

/// What is usual, remembered within bounds, as it is read from a month of hours.
#[derive(Debug, Default)]
pub struct Past(Mutex<Remembered>);

/// The time that shows a constraint: of shares of CPU time only what is lost of it.
fn shown_by(code: Code) -> Vec<Class> {
    match code {
        Code::CpuQuota => vec![Class::Throttled],
        Code::CpuSaturated | Code::CpuNoisyNeighbour => vec![Class::RunQueue],
        Code::CpuSteal => vec![Class::CpuStolen],
        _ => code.shows_in().to_vec(),
    }
}

/// When the constraint of a scope began on these hosts.
pub(super) struct Since {
    pub unix_ns: u64,
    /// It was there already at the begin of what was looked at.
    pub is_earlier: bool,
}

pub(super) struct History<'a> {
    pub reader: Reader<'a>,
    pub by: &'a [String],
    pub past: &'a Past,
}

impl History<'_> {
    /// The part of a scope's time without idling that is of the code's classes: step by step, and the time itself.
    fn shares(
        &self,
        selection: Selection,
        code: Code,
        hosts: Option<&BTreeSet<&str>>,
        step_ns: u64,
    ) -> Result<Vec<(u64, f64)>, StoreError> {
        let classes = shown_by(code);
        let sums = self.reader.store.sums(&SumQuery {
            selection,
            kind: "wall".to_owned(),
            classes: Vec::new(),
            group_by: hosts.map_or_else(Vec::new, |_| vec![HOST.to_owned()]),
            step_ns: Some(step_ns),
            by_class: true,
            by_stack: false,
            max_sums: self.reader.limits.max_sums,
        })?;
        let mut steps: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for sum in sums.sums {
            let class = Class::from_name(&sum.class).unwrap_or(Class::Other);
            let is_asked =
                hosts.is_none_or(|hosts| sum.group.first().is_some_and(|host| hosts.contains(host.as_str())));
            if !is_asked || class.group() == Group::Idle {
                continue;
            }
            let (shows, all) = steps.entry(sum.start_unix_ns).or_default();
            *all += sum.weight;
            if classes.contains(&class) {
                *shows += sum.weight;
            }
        }
        let share = |(shows, all): (u64, u64)| shows as f64 / all.max(1) as f64;
        Ok(steps.into_iter().map(|(at, sums)| (at, share(sums))).collect())
    }

    fn before(&self, scope: &Scope, back_ns: u64) -> Result<Selection, QueryError> {
        let selection = self.reader.of_scope(self.by, scope)?;
        let from_unix_ns = selection.until_unix_ns.saturating_sub(back_ns).min(selection.from_unix_ns);
        Ok(Selection { from_unix_ns, ..selection })
    }

    /// Since when hosts have a constraint, by the time that shows it; `hosts` are not given where they are all that it has. `None` where
    /// nothing shows it.
    pub(super) fn since(
        &self,
        scope: &Scope,
        code: Code,
        hosts: Option<&BTreeSet<&str>>,
    ) -> Result<Option<Since>, QueryError> {
        let (mut found, mut looked_at_ns): (Option<Since>, _) = (None, 0);
        if shown_by(code).is_empty() {
            return Ok(None);
        }
        let asked_from = self.reader.question.range.from_unix_ns;
        for (back_ns, step_ns) in BACK_NS {
            if back_ns <= looked_at_ns {
                continue;
            }
            let selection = self.before(scope, back_ns)?;
            // Whole steps: the first would lack what comes before the time asked for.
            let from_unix_ns = selection.from_unix_ns - selection.from_unix_ns % step_ns;
            let selection = Selection { from_unix_ns, ..selection };
            let steps = match self.shares(selection, code, hosts, step_ns) {
                Err(StoreError::TooLarge { .. }) => continue,
                steps => steps?,
            };
            looked_at_ns = back_ns;
            let further = since(&steps, [from_unix_ns, asked_from], step_ns);
            // By longer steps it may seem to have begun later, in the midst of one.
            let is_earlier = |further: &Since, found: &Since| further.unix_ns < found.unix_ns;
            found = match (further, found) {
                (Some(further), Some(found)) if !is_earlier(&further, &found) => {
                    Some(Since { is_earlier: further.is_earlier, ..found })
                }
                (further, found) => further.or(found),
            };
            if found.as_ref().is_some_and(|found| !found.is_earlier) {
                break;
            }
        }
        Ok(found)
    }

    /// What the part of a scope's time that shows a constraint usually is, and is now.
    pub(super) fn deviation(&self, scope: &Scope, code: Code) -> Result<Option<Deviation>, QueryError> {
        if shown_by(code).is_empty() {
            return Ok(None);
        }
        let now_unix_ns = self.reader.question.range.until_unix_ns;
        let range = self.reader.question.range;
        let selection = self.reader.of_scope(self.by, scope)?;
        let all_ns = (range.until_unix_ns - range.from_unix_ns).max(1);
        // One step of all of the time, which may begin in the one before.
        let steps = match self.shares(selection, code, None, all_ns) {
            Err(StoreError::TooLarge { .. }) => return Ok(None),
            steps => steps?,
        };
        let Some(now) = steps.iter().map(|(_, share)| *share).reduce(f64::max) else { return Ok(None) };
        let hours = self.hours(scope, code, now_unix_ns)?;
        let baselines = usual(now, now_unix_ns, &hours);
        Ok((!baselines.is_empty()).then_some(Deviation { now, baselines }))
    }

    /// The last weeks, hour by hour; remembered for an hour.
    fn hours(&self, scope: &Scope, code: Code, now_unix_ns: u64) -> Result<Vec<Hour>, QueryError> {
        let hour = now_unix_ns / HOUR_NS;
        let key = format!("{:?} {:?} {scope:?} {code}", self.reader.question.text, self.by);
        {
            let known = self.past.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, hours)) = known.get(&key).filter(|(of, _)| *of == hour) {
                return Ok(hours.clone());
            }
        }
        let until_unix_ns = hour * HOUR_NS;
        let from_unix_ns = until_unix_ns.saturating_sub(PAST_NS);
        let selection = self.reader.of_scope(self.by, scope)?;
        let selection = Selection { from_unix_ns, until_unix_ns, ..selection };
        let hours = match self.shares(selection, code, None, HOUR_NS) {
            Err(StoreError::TooLarge { .. }) => Vec::new(),
            hours => hours?,
        };
        let mut known = self.past.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            // Those of hours that are over.
            known.retain(|_, (of, _)| *of == hour);
        }
        if known.len() < MAX_KNOWN {
            known.insert(key, (hour, hours.clone()));
        }
        Ok(hours)
    }

    /// Which values of the labels that change with what is rolled out a scope has since a moment that it did not have before.
    pub(super) fn changes(&self, scope: &Scope, since_unix_ns: u64) -> Result<Vec<Change>, QueryError> {
        let selection = self.reader.of_scope(self.by, scope)?;
        let of = |from_unix_ns, until_unix_ns| -> Result<BTreeMap<String, Vec<String>>, QueryError> {
            let selection = Selection { from_unix_ns, until_unix_ns, ..selection.clone() };
            let labels = self.reader.store.labels(&selection, MAX_VALUES)?;
            Ok(labels.into_iter().filter(|(name, _)| ROLLED_OUT.contains(&name.as_str())).collect())
        };
        let before = of(since_unix_ns.saturating_sub(BEFORE_NS), since_unix_ns)?;
        let mut changes = Vec::new();
        for (label, since) in of(since_unix_ns, selection.until_unix_ns)? {
            let earlier = before.get(&label).cloned().unwrap_or_default();
            if since.iter().any(|value| !earlier.contains(value)) {
                changes.push(Change { label, before: earlier, since });
            }
        }
        Ok(changes)
    }
}

/// The begin of the run of steps that ends with the time asked for and has at least half of what that has. Looked at are the steps from the
/// first of the two moments on, asked for is the time from the second on.
fn since(steps: &[(u64, f64)], [looked_from, asked_from]: [u64; 2], step_ns: u64) -> Option<Since> {
    let asked = steps.iter().filter(|(at, _)| at + step_ns > asked_from);
    let now: Vec<f64> = asked.map(|(_, share)| *share).collect();
    let now = now.iter().sum::<f64>() / now.len().max(1) as f64;
    let follows = |at: u64, next: u64| next - at <= (GAP + 1) * step_ns;
    let mut begin: Option<u64> = None;
    for (at, share) in steps.iter().rev() {
        if *share < HALF * now || begin.is_some_and(|begin| !follows(*at, begin)) {
            break;
        }
        begin = Some(*at);
    }
    let unix_ns = begin.filter(|_| now > 0.0)?;
    // A service that is younger began with it.
    Some(Since { unix_ns, is_earlier: follows(looked_from, unix_ns) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(shares: &[f64], looked_from: u64) -> Option<(u64, bool)> {
        let steps: Vec<(u64, f64)> = (10..).map(|at| at * 60).zip(shares.iter().copied()).collect();
        let last = steps.last().map_or(0, |(at, _)| *at);
        since(&steps, [looked_from, last], 60).map(|since| (since.unix_ns, since.is_earlier))
    }

    #[test]
    fn it_began_where_it_was_less_than_half() {
        assert_eq!(began(&[0.0, 0.1, 0.5, 0.6, 0.4, 0.5], 0), Some((720, false)));
        // Already where it is looked at first, or with the service itself.
        assert_eq!(began(&[0.5, 0.5, 0.5], 600), Some((600, true)));
        assert_eq!(began(&[0.5, 0.5, 0.5], 0), Some((600, false)));
        assert_eq!(began(&[0.5, 0.0], 0), None);
        assert_eq!(began(&[], 0), None);
    }

    #[test]
    fn short_gaps_do_not_end_it_and_long_ones_do() {
        let steps = |gap: u64| [(60, 0.5), (120, 0.5), (120 + gap * 60, 0.5)];
        let began = |gap| since(&steps(gap), [60, 0], 60).map(|since| (since.unix_ns, since.is_earlier));
        assert_eq!(began(4), Some((60, true)));
        assert_eq!(began(5), Some((420, false)));
    }
}

//! Two selections compared step by step: what changed, and whether it is more than chance.
//!
//! Time is compared as threads at a time, things that are counted as so many a second. The steps at either end, which may lack a part of
//! their windows, are left out, and so are those of which nothing is stored. Signals are those of hosts, whatever else a query selects by.

use std::collections::{BTreeMap, BTreeSet};

use chokepoint_analysis::compare::selections::{self, Compared, Kind, Measured};
use chokepoint_analysis::compare::statistics::Ratio;
use chokepoint_analysis::frames::Frames;
use chokepoint_analysis::names;
use chokepoint_analysis::profile::Unit;
use chokepoint_analysis::report::{self, comparison};
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::limits::Limits;
use super::merged::Merged;
use super::profile_type::ProfileType;
use super::question::{MS_NS, Question, Range, Subject};
use super::time::written;
use crate::store::{SignalQuery, Store, SumQuery, Sums};

/// Steps that a selection is divided into, about: enough for the test, and few enough that stacks can be told apart in each.
const STEPS: u64 = 60;
/// Lengths of steps, seconds. Windows are ten seconds long: where there is time enough a step has three, so that none is empty because of
/// how they fall.
const STEPS_S: [u64; 11] = [10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400];
/// A function is compared from this part of a selection's time on.
const LEAST_SHARE: f64 = 0.001;
/// What all of a selection is called.
const ALL: &str = "all";
/// The label that tells instances of a signal apart.
const INSTANCE: &str = "instance";

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What is compared with.
    pub before: Compare,
    /// What is.
    pub after: Compare,
    /// Length of a step.
    pub step_ms: u64,
    /// All of the time, or all that was counted.
    pub total: Vec<Compared>,
    /// Classes of thread time; none of what is counted.
    pub classes: Vec<Compared>,
    /// Functions, without what they called.
    pub functions: Vec<Compared>,
    /// Functions beside these that were compared.
    pub functions_left_out: u64,
    /// Signals of the hosts.
    pub signals: Vec<Compared>,
    /// What was not compared, and why.
    pub notes: Vec<String>,
}

/// One of the selections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    /// Of what.
    #[serde(flatten)]
    pub subject: Subject,
    /// Steps of it that are compared.
    pub steps: u64,
}

/// One of the selections while it is read.
struct Side<'q> {
    question: &'q Question,
    asked: ProfileType,
    /// By class, step by step.
    sums: Sums,
    /// The steps that are compared: when each began.
    steps: Vec<u64>,
}

/// What `after` has other than `before`, and whether that is real.
///
/// # Errors
/// A question makes no sense, they are of different units, or the store cannot.
pub fn compare(
    store: &dyn Store,
    before: &Question,
    after: &Question,
    step_ns: Option<u64>,
    max_functions: usize,
    limits: &Limits,
) -> Result<Comparison, QueryError> {
    let (sides, step_ns) = sides(store, [before, after], step_ns, limits)?;
    if let [Some(one), Some(other)] = sides.each_ref().map(|side| side.sums.unit)
        && one != other
    {
        return Err(QueryError::bad("one is of times and the other is counted: compare what has one unit"));
    }
    let mut notes = Vec::new();
    if sides.iter().any(|side| side.steps.len() < chokepoint_analysis::compare::statistics::LEAST_WINDOWS) {
        notes.push(format!(
            "there are {} and {} whole steps of {}: whether a change is chance is told from {} on",
            sides[0].steps.len(),
            sides[1].steps.len(),
            written(step_ns),
            chokepoint_analysis::compare::statistics::LEAST_WINDOWS
        ));
    }
    let unit = sides[1].sums.unit.or(sides[0].sums.unit);
    let total = measured(&sides, step_ns, unit, Kind::Total);
    let classes = measured(&sides, step_ns, unit, Kind::Class);
    let functions = told(functions(store, &sides, step_ns, unit, limits), "functions", &mut notes)?;
    let signals = told(signals(store, &sides, step_ns, limits), "signals", &mut notes)?;
    let mut functions = selections::compare(&functions);
    let kept = max_functions.min(limits.max_functions);
    let functions_left_out = functions.len().saturating_sub(kept) as u64;
    functions.truncate(kept);
    let [before, after] = sides.map(|side| Compare {
        subject: Subject::new(side.question, &side.asked, unit, side.question.range),
        steps: side.steps.len() as u64,
    });
    Ok(Comparison {
        before,
        after,
        step_ms: step_ns / MS_NS,
        total: selections::compare(&total),
        classes: selections::compare(&classes),
        functions,
        functions_left_out,
        signals: selections::compare(&signals),
        notes,
    })
}

/// The comparison as a report.
///
/// # Errors
/// It cannot be written.
pub fn report(comparison: &Comparison, format: report::Format) -> Result<Vec<u8>, QueryError> {
    let Comparison { before, after, step_ms, total, classes, functions, signals, notes, .. } = comparison;
    let side = |side: &Compare| comparison::Side {
        query: names::printable(&side.subject.query),
        from_unix_ns: side.subject.from_unix_ms * MS_NS,
        until_unix_ns: side.subject.until_unix_ms * MS_NS,
        steps: format!("{} steps of {}", side.steps, written(step_ms * MS_NS)),
    };
    let kinds = [
        (Kind::Total, &total[..]),
        (Kind::Class, &classes[..]),
        (Kind::Function, &functions[..]),
        (Kind::Signal, &signals[..]),
    ];
    let document = comparison::document(&[side(before), side(after)], &kinds, notes);
    let mut bytes = Vec::new();
    report::write(&document, format, &mut bytes)
        .map_err(|error| QueryError::bad(format!("the report cannot be written: {error}")))?;
    Ok(bytes)
}

/// What is too much to be compared is told, and what else there is, is.
fn told(
    found: Result<Vec<Measured>, QueryError>,
    what: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<Measured>, QueryError> {
    match found {
        Err(QueryError::TooLarge(why)) => {
            notes.push(format!("{what} were not compared: {why}"));
            Ok(Vec::new())
        }
        found => found,
    }
}

/// Both selections by class in steps of one length: as long as was asked for, else as the longer one asks for, and no shorter than what is
/// stored.
fn sides<'q>(
    store: &dyn Store,
    questions: [&'q Question; 2],
    step_ns: Option<u64>,
    limits: &Limits,
) -> Result<([Side<'q>; 2], u64), QueryError> {
    let longest_ns = questions.map(|question| question.range.until_unix_ns - question.range.from_unix_ns);
    let mut step_ns = step_ns.unwrap_or_else(|| usual_step(longest_ns[0].max(longest_ns[1])));
    loop {
        let [before, after] = questions.map(|question| side(store, question, step_ns, limits));
        let sides = [before?, after?];
        // Sums of minutes and hours, and long windows, begin at their own steps.
        let stored_ns = sides.iter().filter_map(|side| spacing(&side.sums)).max().unwrap_or(step_ns);
        let mut longer_ns = STEPS_S.into_iter().map(|step_s| step_s * 1_000 * MS_NS);
        match longer_ns.find(|longer_ns| *longer_ns >= stored_ns).filter(|_| stored_ns > step_ns) {
            Some(longer_ns) => step_ns = longer_ns,
            None => return Ok((sides, step_ns)),
        }
    }
}

fn usual_step(length_ns: u64) -> u64 {
    let steps = STEPS_S.map(|step_s| step_s * 1_000 * MS_NS);
    steps.into_iter().find(|step_ns| *step_ns >= length_ns / STEPS).unwrap_or(steps[steps.len() - 1])
}

fn side<'q>(
    store: &dyn Store,
    question: &'q Question,
    step_ns: u64,
    limits: &Limits,
) -> Result<Side<'q>, QueryError> {
    let asked = question.profile_type()?;
    let sums = store.sums(&query(question, &asked, step_ns, false, limits)?)?;
    let present: BTreeSet<u64> = sums.sums.iter().map(|sum| sum.start_unix_ns).collect();
    // The first and the last may lack a part of their windows.
    let steps = present.iter().skip(1).take(present.len().saturating_sub(2)).copied().collect();
    Ok(Side { question, asked, sums, steps })
}

fn query(
    question: &Question,
    asked: &ProfileType,
    step_ns: u64,
    by_stack: bool,
    limits: &Limits,
) -> Result<SumQuery, QueryError> {
    let range = question.range.steps(Some(step_ns), limits)?.range;
    Ok(SumQuery {
        selection: Question { range, ..question.clone() }.selection(),
        kind: asked.kind.clone(),
        classes: asked.class_names(),
        group_by: Vec::new(),
        step_ns: Some(step_ns),
        by_class: !by_stack && asked.is_of_time(),
        by_stack,
        max_sums: limits.max_sums,
    })
}

/// How far steps of which something is stored are apart at least, where there are enough of them to tell.
fn spacing(sums: &Sums) -> Option<u64> {
    let present: BTreeSet<u64> = sums.sums.iter().map(|sum| sum.start_unix_ns).collect();
    let present: Vec<u64> = present.into_iter().collect();
    present.windows(2).map(|pair| pair[1] - pair[0]).min().filter(|_| present.len() > 2)
}

/// What sums add up to, by class or all together, step by step. What is not there of a step did not happen in it.
fn measured(sides: &[Side<'_>; 2], step_ns: u64, unit: Option<Unit>, kind: Kind) -> Vec<Measured> {
    let mut found: BTreeMap<(String, String), [BTreeMap<u64, f64>; 2]> = BTreeMap::new();
    for (at, side) in sides.iter().enumerate() {
        for sum in &side.sums.sums {
            let name = if kind == Kind::Total { ALL } else { &sum.class };
            if !name.is_empty() {
                let steps = &mut found.entry((name.to_owned(), String::new())).or_default()[at];
                *steps.entry(sum.start_unix_ns).or_default() += sum.weight as f64;
            }
        }
    }
    series(found, sides, step_ns, unit, kind)
}

fn series(
    found: BTreeMap<(String, String), [BTreeMap<u64, f64>; 2]>,
    sides: &[Side<'_>; 2],
    step_ns: u64,
    unit: Option<Unit>,
    kind: Kind,
) -> Vec<Measured> {
    let is_time = unit != Some(Unit::Count);
    // Nanoseconds of threads in nanoseconds are threads at a time.
    let by = if is_time { step_ns as f64 } else { step_ns as f64 / 1e9 };
    let ratio = |at: usize, values: &BTreeMap<u64, f64>| Ratio {
        windows: sides[at].steps.iter().map(|step| (values.get(step).copied().unwrap_or(0.0), by)).collect(),
    };
    let measured = found.into_iter().map(|((name, instance), values)| Measured {
        kind,
        name,
        instance,
        unit: if is_time { "threads" } else { "/s" }.to_owned(),
        before: ratio(0, &values[0]),
        after: ratio(1, &values[1]),
    });
    measured.collect()
}

/// Functions that have a part of either selection's time worth the name, step by step.
fn functions(
    store: &dyn Store,
    sides: &[Side<'_>; 2],
    step_ns: u64,
    unit: Option<Unit>,
    limits: &Limits,
) -> Result<Vec<Measured>, QueryError> {
    let stacks = |side: &Side<'_>| -> Result<Sums, QueryError> {
        Ok(store.sums(&query(side.question, &side.asked, step_ns, true, limits)?)?)
    };
    let sums = [stacks(&sides[0])?, stacks(&sides[1])?];
    let merged = Merged::new(store, &[&sums[0], &sums[1]], sides[1].question, &sides[1].asked, false)?;
    let frames = Frames::new(&merged.profile);
    let mut found: BTreeMap<(String, String), [BTreeMap<u64, f64>; 2]> = BTreeMap::new();
    for (at, sums) in sums.iter().enumerate() {
        for (sum, sample) in sums.sums.iter().zip(merged.samples(at, sums)) {
            let stack = merged.profile.stack(sample.stack);
            let Some(leaf) = frames.root_first(stack).last() else { continue };
            let frame = &frames.entries()[leaf];
            let module = frame.module.map_or("", |module| merged.profile.module(module).short_name());
            let key = (frame.name.clone(), names::printable(module));
            *found.entry(key).or_default()[at].entry(sum.start_unix_ns).or_default() += sum.weight as f64;
        }
    }
    let all = |at: usize| found.values().map(|values| values[at].values().sum::<f64>()).sum::<f64>();
    let all = [all(0), all(1)];
    found.retain(|_, values| {
        (0..2).any(|at| values[at].values().sum::<f64>() >= LEAST_SHARE * all[at].max(1.0))
    });
    Ok(series(found, sides, step_ns, unit, Kind::Function))
}

/// Signals of the hosts that have the labels, the mean of all hosts, step by step.
fn signals(
    store: &dyn Store,
    sides: &[Side<'_>; 2],
    step_ns: u64,
    limits: &Limits,
) -> Result<Vec<Measured>, QueryError> {
    type Steps = BTreeMap<u64, (f64, f64)>;
    let mut found: BTreeMap<(String, String, String), [Steps; 2]> = BTreeMap::new();
    for (at, side) in sides.iter().enumerate() {
        let query = SignalQuery {
            selection: side.question.selection(),
            name: String::new(),
            max_values: limits.max_signal_values,
        };
        for series in store.signals(&query)? {
            let instance = series.labels.get(INSTANCE).cloned().unwrap_or_default();
            let steps = &mut found.entry((series.name, instance, series.unit)).or_default()[at];
            for value in series.values {
                let sum = steps.entry(value.start_unix_ns - value.start_unix_ns % step_ns).or_default();
                *sum = (sum.0 + value.value, sum.1 + 1.0);
            }
        }
    }
    let inner = |steps: &Steps, range: Range| Ratio {
        windows: steps
            .iter()
            .filter(|(step, _)| **step > range.from_unix_ns && **step + step_ns < range.until_unix_ns)
            .map(|(_, sum)| *sum)
            .collect(),
    };
    let measured = found.into_iter().map(|((name, instance, unit), steps)| Measured {
        kind: Kind::Signal,
        name,
        instance,
        unit,
        before: inner(&steps[0], sides[0].question.range),
        after: inner(&steps[1], sides[1].question.range),
    });
    Ok(measured.collect())
}

#[cfg(test)]
mod tests {
    use chokepoint_analysis::compare::selections::Reality;
    use chokepoint_analysis::report::Format;

    use super::*;
    use crate::store_in_memory::fleet::{self, START_NS};

    const S: u64 = 1_000_000_000;

    fn ask(from_s: u64, until_s: u64) -> Question {
        let range = Range { from_unix_ns: START_NS + from_s * S, until_unix_ns: START_NS + until_s * S };
        Question::new("wall", range, Vec::new(), &Limits::default()).expect("a question")
    }

    /// Forty windows of ten seconds before, and forty after.
    fn compared(before: (u64, u64), after: (u64, u64)) -> Comparison {
        let windows: Vec<(u64, u64)> = (0..80_u64)
            .map(|at| {
                let (running_s, waiting_s) = if at < 40 { before } else { after };
                // Up and down, by what has nothing to do with anything.
                (running_s + at * 7 % 3, waiting_s + at * 5 % 3)
            })
            .collect();
        let store = fleet::store_of(&windows);
        compare(&store, &ask(0, 400), &ask(400, 800), None, 100, &Limits::default()).expect("a comparison")
    }

    fn is<'c>(of: &'c [Compared], name: &str) -> &'c Compared {
        of.iter().find(|change| change.name == name).unwrap_or_else(|| panic!("no {name} in {of:?}"))
    }

    #[test]
    fn what_changed_is_real_and_what_did_not_is_chance() {
        let found = compared((20, 5), (20, 15));
        assert_eq!((found.before.steps, found.after.steps, found.step_ms), (38, 38, 10_000));
        assert_eq!(is(&found.classes, "futex").is, Reality::Grew, "{:?}", found.classes);
        assert_eq!(is(&found.classes, "cpu.user").is, Reality::Chance, "{:?}", found.classes);
        let waiting = is(&found.functions, "lock");
        assert_eq!(waiting.is, Reality::Grew);
        // Of ten seconds, a mean of 6 and of 16.
        assert!((waiting.before - 0.6).abs() < 0.01 && (waiting.after - 1.6).abs() < 0.01, "{waiting:?}");
        assert_eq!(is(&found.total, "all").is, Reality::Grew);
        // The signal grows with each window, on either side: what drifts has no mean, so that a difference of means is no proof.
        let drifts = is(&found.signals, "cpu.utilization");
        assert!((drifts.change - 40.0).abs() < 0.01 && drifts.is == Reality::Chance, "{drifts:?}");
        assert_eq!(found.notes, [""; 0]);
        let report = String::from_utf8(report(&found, Format::Markdown).expect("a report")).expect("text");
        assert!(report.contains("futex") && report.contains("grew"), "{report}");
    }

    #[test]
    fn nothing_is_found_where_nothing_changed() {
        let found = compared((20, 5), (20, 5));
        let mut changes = found.total.iter().chain(&found.classes).chain(&found.functions);
        assert!(found.functions.len() > 1 && changes.all(|change| change.is == Reality::Chance), "{found:?}");
    }

    #[test]
    fn steps_are_as_long_as_was_asked_for_and_no_shorter_than_what_is_stored() {
        let store = fleet::store_of(&[(5, 5); 80]);
        let step = |step_ns| {
            let limits = Limits::default();
            let found = compare(&store, &ask(0, 400), &ask(400, 800), Some(step_ns), 100, &limits);
            found.expect("a comparison").step_ms
        };
        assert_eq!([S, 10 * S, 20 * S].map(step), [10_000, 10_000, 20_000]);
    }

    #[test]
    fn too_few_steps_and_too_much_to_compare_are_told() {
        let limits = Limits { max_signal_values: 1, ..Limits::default() };
        let store = fleet::store_of(&[(5, 5); 12]);
        let found = compare(&store, &ask(0, 60), &ask(60, 120), None, 100, &limits).expect("a comparison");
        assert!(found.classes.iter().all(|change| change.is == Reality::Unknown && change.p.is_none()));
        assert!(found.notes[0].contains("there are 4 and 4 whole steps of 10s"), "{:?}", found.notes);
        assert!(found.notes[1].starts_with("signals were not compared: more than 1"), "{:?}", found.notes);
    }
}

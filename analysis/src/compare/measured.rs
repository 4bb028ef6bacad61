//! Every measure of two baselines, compared.

use super::statistics::{Difference, Estimate, Ratio, corrected, difference, superiority};
use super::{Change, Effect};
use crate::baseline::{ALL_DEMAND, Baseline, Kind, Measure, Series, WORK};
use crate::signals::{self, Unit, definition};

/// A value of four digits may be off by this part of it; a smaller change is none, however steady the values are.
const RESOLUTION: f64 = 0.0005;

/// Measures that are corrected for their number together. Each family has its own level, so that the many things that are only told do
/// not hide the few that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Demand that decides.
    Demand,
    /// Signals with thresholds.
    Levels,
    /// Everything else.
    Told,
}

impl Family {
    const ALL: [Self; 3] = [Self::Demand, Self::Levels, Self::Told];

    /// With work counted, all demand decides and its parts do not: they may change places.
    pub(super) fn of(kind: Kind, name: &str, per_work: bool) -> Self {
        match kind {
            Kind::Demand if name == ALL_DEMAND || !per_work => Self::Demand,
            Kind::Signal if definition(name).is_some_and(|signal| signal.thresholds.is_some()) => {
                Self::Levels
            }
            _ => Self::Told,
        }
    }
}

/// All changes, in the order of the measures.
pub(super) fn changes(before: &Baseline, after: &Baseline, per_work: bool) -> Vec<Change> {
    let mut measures: Vec<&Measure> =
        before.series.iter().chain(&after.series).map(|series| &series.measure).collect();
    measures.sort_by_key(|measure| (measure.kind, &measure.name, &measure.instance));
    measures.dedup();
    let mut changes: Vec<Change> =
        measures.into_iter().filter_map(|measure| change(measure, before, after, per_work)).collect();
    for family in Family::ALL {
        let members: Vec<&mut Change> = changes
            .iter_mut()
            .filter(|change| change.p.is_some() && Family::of(change.kind, &change.name, per_work) == family)
            .collect();
        let p_values: Vec<f64> = members.iter().filter_map(|change| change.p).collect();
        for (change, p) in members.into_iter().zip(corrected(&p_values)) {
            change.p = Some(p);
        }
    }
    changes
}

fn change(measure: &Measure, before: &Baseline, after: &Baseline, per_work: bool) -> Option<Change> {
    let per_work = per_work && is_for_work(measure);
    let values = [before, after].map(|baseline| values(measure, baseline, per_work));
    let [one, other] = &values;
    let Tested { before, after, change, relative, difference } = tested(one, other)?;
    let of_windows = |ratio: &Ratio| -> Vec<f64> {
        ratio.windows.iter().filter(|(_, by)| *by > 0.0).map(|(counted, by)| counted / by).collect()
    };
    Some(Change {
        kind: measure.kind,
        name: measure.name.clone(),
        instance: measure.instance.clone(),
        unit: measure.unit,
        per_work,
        before,
        after,
        change,
        relative,
        interval: difference.map(|tested| tested.interval.into()),
        p: difference.map(|tested| tested.p),
        superiority: difference.and_then(|_| superiority(&of_windows(one), &of_windows(other))),
        effect: Effect::Unknown,
    })
}

/// Two series compared by their means.
pub(super) struct Tested {
    /// Mean of the first.
    pub(super) before: f64,
    /// Mean of the second.
    pub(super) after: f64,
    /// The second less the first.
    pub(super) change: f64,
    /// The change by the first; `None` where that is nothing.
    pub(super) relative: Option<f64>,
    /// How sure it is; `None` of too few windows.
    pub(super) difference: Option<Difference>,
}

/// Compares two series; `None` where there is nothing in either, or one has no windows.
pub(super) fn tested(before: &Ratio, after: &Ratio) -> Option<Tested> {
    let [before, after]: [Estimate; 2] = [before.estimate()?, after.estimate()?];
    if before.mean == 0.0 && after.mean == 0.0 {
        return None;
    }
    let change = after.mean - before.mean;
    let difference = difference(&before, &after).map(|tested| {
        let is_rounding = change.abs() <= RESOLUTION * before.mean.abs().max(after.mean.abs());
        Difference { p: if is_rounding { 1.0 } else { tested.p }, ..tested }
    });
    let relative = (before.mean != 0.0).then(|| change / before.mean.abs());
    Some(Tested { before: before.mean, after: after.mean, change, relative, difference })
}

/// Whether there is more of it where more work is done: time, and what resources do.
fn is_for_work(measure: &Measure) -> bool {
    match measure.kind {
        Kind::Demand | Kind::Time => true,
        Kind::Work | Kind::Load => false,
        Kind::Signal => {
            let is_use =
                definition(&measure.name).is_some_and(|signal| signal.kind == signals::Kind::Utilization);
            is_use && matches!(measure.unit, Unit::PerSecond | Unit::BytesPerSecond)
        }
    }
}

/// A measure's windows, with what they are divided by. Those of which either is unknown are left out.
fn values(measure: &Measure, baseline: &Baseline, per_work: bool) -> Ratio {
    let series = baseline.series.iter().find(|series| series.measure == *measure);
    let work = if per_work { baseline.series(Kind::Work, WORK) } else { None };
    // What a baseline never saw of its target did not happen; a signal that it has not was not read.
    let untold = (measure.kind != Kind::Signal && measure.kind != Kind::Work).then_some(0.0);
    let value_of =
        |series: Option<&Series>, window: usize| series.map_or(untold, |series| series.values[window]);
    let windows = baseline.windows.iter().enumerate().filter_map(|(position, window)| {
        let seconds = window.duration_ns as f64 / 1e9;
        let counted = value_of(series, position)? * seconds;
        let by = match work {
            Some(work) => work.values[position]? * seconds,
            None => seconds,
        };
        Some((counted, by))
    });
    Ratio { windows: windows.collect() }
}

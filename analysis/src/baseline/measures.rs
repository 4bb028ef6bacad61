//! What a window is measured by.

use std::collections::BTreeMap;

use super::{ALL_DEMAND, Kind, Measure, WORK};
use crate::activity::Class;
use crate::profile::Profile;
use crate::signals::Unit;
use crate::verdict::Diagnosis;

/// Every value of a window.
pub(super) fn of_window(
    profile: &Profile,
    diagnosis: &Diagnosis,
    work_per_s: Option<f64>,
) -> Vec<(Measure, f64)> {
    let seconds = (profile.header.duration_ns as f64 / 1e9).max(f64::MIN_POSITIVE);
    let mut values: Vec<(Measure, f64)> = Vec::new();
    values.extend(work_per_s.map(|rate| (measure(Kind::Work, WORK, Unit::PerSecond), rate)));
    // What the hypervisor takes is not of the target's making, and differs from hour to hour.
    let is_own = |of: &str| of != Class::CpuStolen.name();
    let demand: f64 = diagnosis.demand.iter().filter(|(of, _)| is_own(of)).map(|(_, time)| time).sum();
    values.push((measure(Kind::Demand, ALL_DEMAND, Unit::Number), demand / seconds));
    values.extend(
        diagnosis.demand.iter().map(|(of, time)| (measure(Kind::Demand, of, Unit::Number), time / seconds)),
    );
    values.extend(
        diagnosis
            .decomposition
            .iter()
            .map(|(class, time)| (measure(Kind::Time, class, Unit::Number), time / seconds)),
    );
    let times = &profile.thread_times;
    let switches: u64 = times.iter().map(|time| time.switches).sum();
    let ended = times.iter().filter(|time| time.ended).count();
    let threads: u64 = times.iter().map(|time| time.elapsed_ns).sum();
    values.extend([
        (measure(Kind::Load, "switches", Unit::PerSecond), switches as f64 / seconds),
        (measure(Kind::Load, "threads_ended", Unit::PerSecond), ended as f64 / seconds),
        (measure(Kind::Load, "threads", Unit::Number), threads as f64 / 1e9 / seconds),
    ]);
    let signals = profile.signals.iter().flat_map(|signals| &signals.signals);
    values.extend(signals.map(|signal| {
        let instance = signal.instance.clone();
        (Measure { instance, ..measure(Kind::Signal, &signal.name, signal.unit) }, signal.value)
    }));
    // What two instances of one name have is one value.
    let mut sums: BTreeMap<(Kind, String, String), (Measure, f64)> = BTreeMap::new();
    for (measure, value) in values.into_iter().filter(|(_, value)| value.is_finite()) {
        let key = (measure.kind, measure.name.clone(), measure.instance.clone());
        sums.entry(key).or_insert((measure, 0.0)).1 += value;
    }
    sums.into_values().collect()
}

fn measure(kind: Kind, name: &str, unit: Unit) -> Measure {
    Measure { kind, name: name.to_owned(), instance: String::new(), unit }
}

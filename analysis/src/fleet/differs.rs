//! Hosts that stand out among those of the same service.
//!
//! By the median of all hosts and the median of their distances from it, which a few odd hosts do not move. A host stands out where it is
//! further away than nearly all would be of the normal distribution with that spread, and by a factor that matters: hosts that are
//! alike to the last digit have no spread.

use super::usual::{SIGMAS, SPREAD, median};

/// Hosts below which nobody can say what is usual.
const LEAST_HOSTS: usize = 5;
/// By so much more than the median it must be to matter.
const FACTOR: f64 = 2.0;

/// A number that hosts have, and from where on it can matter at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// What it is: `cpu.utilization`, `95th percentile of latency.disk`.
    pub name: String,
    /// What it counts.
    pub unit: String,
    /// A smaller number is of no concern.
    pub least: f64,
    /// By host.
    pub values: Vec<(String, f64)>,
}

/// A host that stands out.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which.
    pub host: String,
    /// In what.
    pub name: String,
    /// What it counts.
    pub unit: String,
    /// The host's number.
    pub value: f64,
    /// The median of all hosts.
    pub median: f64,
    /// How many hosts were compared.
    pub of: usize,
}

/// The hosts that stand out in a number, those that do most first. At most a quarter of them can: of more, it is no longer they who are
/// odd.
#[must_use]
pub fn differences(measure: &Measure) -> Vec<Difference> {
    if measure.values.len() < LEAST_HOSTS {
        return Vec::new();
    }
    let all: Vec<f64> = measure.values.iter().map(|(_, value)| *value).collect();
    let middle = median(&all);
    let distances: Vec<f64> = all.iter().map(|value| (value - middle).abs()).collect();
    let spread = SPREAD * median(&distances);
    let is_odd = |value: f64| {
        value >= measure.least && value - middle > SIGMAS * spread && value > FACTOR * middle.max(0.0)
    };
    let mut odd: Vec<Difference> = measure
        .values
        .iter()
        .filter(|(_, value)| is_odd(*value))
        .map(|(host, value)| Difference {
            host: host.clone(),
            name: measure.name.clone(),
            unit: measure.unit.clone(),
            value: *value,
            median: middle,
            of: all.len(),
        })
        .collect();
    if odd.len() > all.len() / 4 {
        return Vec::new();
    }
    odd.sort_by(|one, other| other.value.total_cmp(&one.value).then_with(|| one.host.cmp(&other.host)));
    odd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[f64], least: f64) -> Vec<f64> {
        let values = values.iter().enumerate().map(|(host, value)| (format!("host-{host}"), *value));
        let measure = Measure { name: "m".into(), unit: "ms".into(), least, values: values.collect() };
        differences(&measure).into_iter().map(|found| found.value).collect()
    }

    #[test]
    fn one_that_is_far_from_the_others_stands_out() {
        assert_eq!(found(&[1.0, 1.1, 0.9, 1.2, 1.0, 0.8, 40.0], 0.0), [40.0]);
        // All alike but one.
        assert_eq!(found(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0], 0.0), [3.0]);
    }

    #[test]
    fn what_does_not_matter_or_is_usual_does_not() {
        assert_eq!(found(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.5], 1.0), [0.0; 0]);
        assert_eq!(found(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.5], 0.0), [0.0; 0]);
        // Few hosts, and hosts of two kinds.
        assert_eq!(found(&[1.0, 1.0, 1.0, 9.0], 0.0), [0.0; 0]);
        assert_eq!(found(&[1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0], 0.0), [0.0; 0]);
    }
}

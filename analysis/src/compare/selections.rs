//! Two selections of what a fleet stored, compared: all of their time, its classes, functions, and the signals of their hosts.
//!
//! Each is a series of steps of time, and means are compared by the test of [`statistics`](super::statistics), as those of baselines are.
//! Chances are corrected for the number of comparisons in each kind.

use serde::{Deserialize, Serialize};

use super::measured::{Tested, tested};
use super::statistics::{Ratio, corrected};

/// The chance that anything of a kind is taken for changed where nothing is.
const LEVEL: f64 = 0.05;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// All that was selected.
    Total,
    /// A class of thread time.
    Class,
    /// A function, without what it called.
    Function,
    /// A saturation signal.
    Signal,
}

impl Kind {
    /// All of them, in the order they are shown in.
    pub const ALL: [Self; 4] = [Self::Total, Self::Class, Self::Function, Self::Signal];
}

/// Something of both selections, step by step.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What kind of thing it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Of a function its module, of a signal its device, group or the like; else empty.
    pub instance: String,
    /// What its values count: `threads`, `/s`, or a signal's unit.
    pub unit: String,
    /// In the first selection.
    pub before: Ratio,
    /// In the second.
    pub after: Ratio,
}

/// Something of both, compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Its name.
    pub name: String,
    /// Of a function its module, of a signal its device, group or the like; else empty.
    pub instance: String,
    /// What its values count: `threads`, `/s`, or a signal's unit.
    pub unit: String,
    /// Mean of the first selection.
    pub before: f64,
    /// Mean of the second.
    pub after: f64,
    /// The second less the first.
    pub change: f64,
    /// The change by the first; `None` where that is nothing.
    pub relative: Option<f64>,
    /// What holds the true change with a confidence of 95 %; `None` of too few steps.
    pub interval: Option<[f64; 2]>,
    /// How likely so great a change is where there is none, corrected for the number of comparisons of its kind; `None` of too few steps.
    pub p: Option<f64>,
    /// Whether it is real.
    pub is: Reality,
}

/// Whether a change is real.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reality {
    /// There is more of it.
    Grew,
    /// There is less of it.
    Shrank,
    /// The difference may be chance.
    Chance,
    /// There are too few steps to tell.
    #[default]
    Unknown,
}

impl Reality {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Grew => "grew",
            Self::Shrank => "shrank",
            Self::Chance => "may be chance",
            Self::Unknown => "too few steps to tell",
        }
    }
}

/// Compares what is of one kind: what is real first, then by how much changed.
#[must_use]
pub fn compare(measured: &[Measured]) -> Vec<Compared> {
    let mut compared: Vec<Compared> = measured.iter().filter_map(of).collect();
    let known: Vec<f64> = compared.iter().filter_map(|change| change.p).collect();
    let told = compared.iter_mut().filter(|change| change.p.is_some());
    for (change, p) in told.zip(corrected(&known)) {
        change.p = Some(p);
        change.is = match p < LEVEL {
            true if change.change > 0.0 => Reality::Grew,
            true => Reality::Shrank,
            false => Reality::Chance,
        };
    }
    let is_real = |change: &Compared| matches!(change.is, Reality::Grew | Reality::Shrank);
    // Of signals the relative change, for their units differ; of times all have one unit.
    let size = |change: &Compared| match change.unit.as_str() {
        "threads" => change.change.abs(),
        _ => change.relative.map_or(f64::INFINITY, f64::abs),
    };
    compared.sort_by(|one, other| {
        is_real(other)
            .cmp(&is_real(one))
            .then_with(|| size(other).total_cmp(&size(one)))
            .then_with(|| (&one.name, &one.instance).cmp(&(&other.name, &other.instance)))
    });
    compared
}

/// One of them; `None` where there is nothing of it.
fn of(measured: &Measured) -> Option<Compared> {
    let Measured { name, instance, unit, before, after, .. } = measured;
    let Tested { before, after, change, relative, difference } = tested(before, after)?;
    Some(Compared {
        name: name.clone(),
        instance: instance.clone(),
        unit: unit.clone(),
        before,
        after,
        change,
        relative,
        interval: difference.map(|tested| tested.interval.into()),
        p: difference.map(|tested| tested.p),
        is: Reality::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    fn measured(name: &str, before: Vec<f64>, after: Vec<f64>) -> Measured {
        let ratio =
            |values: Vec<f64>| Ratio { windows: values.into_iter().map(|value| (value, 1.0)).collect() };
        Measured {
            kind: Kind::Class,
            name: name.to_owned(),
            instance: String::new(),
            unit: "threads".to_owned(),
            before: ratio(before),
            after: ratio(after),
        }
    }

    #[test]
    fn what_changed_is_told_from_chance_and_from_what_cannot_be_known() {
        let mut random = Random(11);
        let mut series = |mean: f64| random.series(40, 0.3, mean, 0.1);
        // The same values in another order: that a mean of others is found to differ by chance is what the next test is about.
        let same = series(1.0);
        let mut turned = same.clone();
        turned.rotate_left(20);
        let found = compare(&[
            measured("same", same, turned),
            measured("less", series(2.0), series(1.0)),
            measured("more", series(1.0), series(1.5)),
            measured("short", vec![1.0; 3], vec![2.0; 3]),
            measured("nothing", vec![0.0; 40], vec![0.0; 40]),
        ]);
        let shown: Vec<_> = found.iter().map(|change| (change.name.as_str(), change.is)).collect();
        let expected = [
            ("less", Reality::Shrank),
            ("more", Reality::Grew),
            ("short", Reality::Unknown),
            ("same", Reality::Chance),
        ];
        assert_eq!(shown, expected);
        let [low, high] = found[1].interval.expect("enough steps");
        assert!(low < 0.5 && 0.5 < high && found[1].p.is_some_and(|p| p < 0.001), "{:?}", found[1]);
    }

    #[test]
    fn many_comparisons_of_nothing_find_nothing() {
        let mut random = Random(5);
        let mut series = || random.series(40, 0.5, 1.0, 0.2);
        let measured: Vec<_> = (0..200).map(|at| measured(&format!("f{at}"), series(), series())).collect();
        // One in twenty would find something if it were so that nothing differs and all was exact.
        assert!(compare(&measured).iter().all(|change| change.is == Reality::Chance));
    }
}

use super::random::Random;
use super::*;
use crate::activity::Class;
use crate::baseline::{ALL_DEMAND, Folded, Header, Measure, Series, Stacks, Window};
use crate::verdict::finding::Severity;

/// A baseline of windows of a second, with these series and stacks.
fn baseline(target: &str, series: Vec<(Kind, &str, Unit, Vec<f64>)>, stacks: &[(&[&str], u64)]) -> Baseline {
    let length = series[0].3.len();
    let mut names: Vec<String> = Vec::new();
    let stacks = stacks
        .iter()
        .map(|(stack, milliseconds)| Folded {
            names: stack
                .iter()
                .map(|name| {
                    names.iter().position(|known| known == name).unwrap_or_else(|| {
                        names.push((*name).to_owned());
                        names.len() - 1
                    }) as u32
                })
                .collect(),
            class: Class::CpuUser,
            count: milliseconds / 10,
            time_ns: milliseconds * 1_000_000,
        })
        .collect();
    Baseline {
        header: Header {
            host: "h".into(),
            target: target.into(),
            cpus: 2,
            start_unix_ns: 0,
            every_ns: 1_000_000_000,
            work: String::new(),
        },
        windows: (0..length as u64)
            .map(|second| Window {
                offset_ns: second * 1_000_000_000,
                duration_ns: 1_000_000_000,
                verdict: "none.healthy".into(),
                severity: Severity::None,
                samples: 100,
                lost: 0,
            })
            .collect(),
        series: series
            .into_iter()
            .map(|(kind, name, unit, values)| Series {
                measure: Measure { kind, name: name.into(), instance: String::new(), unit },
                max: values.iter().copied().fold(0.0, f64::max),
                values: values.into_iter().map(Some).collect(),
            })
            .collect(),
        stacks: Stacks { names, stacks },
        missing: Vec::new(),
    }
}

/// Forty windows of a busy process: what it wants, and, where it counts it, the work it does.
fn process(random: &mut Random, demand: f64, work: Option<f64>) -> Baseline {
    let mut series = vec![
        (Kind::Demand, ALL_DEMAND, Unit::Number, random.series(40, 0.3, demand, 0.03 * demand)),
        (Kind::Demand, "cpu", Unit::Number, random.series(40, 0.3, demand, 0.03 * demand)),
    ];
    series.extend(
        work.map(|work| (Kind::Work, WORK, Unit::PerSecond, random.series(40, 0.3, work, 0.03 * work))),
    );
    baseline("pid 1", series, &[(&["p", "main"], 1_000)])
}

fn outcome(before: &Baseline, after: &Baseline) -> Outcome {
    compare(before, after, &Options::default()).outcome
}

#[test]
fn demand_that_grows_is_a_regression_and_one_that_shrinks_is_none() {
    let random = &mut Random(1);
    let [usual, again, more, less] = [1.0, 1.0, 1.2, 0.8].map(|demand| process(random, demand, None));
    assert_eq!(outcome(&usual, &again), Outcome::NoRegression);
    assert_eq!(outcome(&usual, &more), Outcome::Regression);
    let comparison = compare(&usual, &less, &Options::default());
    assert_eq!(
        (comparison.outcome, comparison.measures[0].effect),
        (Outcome::NoRegression, Effect::Improvement)
    );
    // Found, and too little to matter.
    let threshold = Options { threshold: 0.3, ..Options::default() };
    let comparison = compare(&usual, &more, &threshold);
    assert_eq!((comparison.outcome, comparison.measures[0].effect), (Outcome::NoRegression, Effect::Changed));
}

#[test]
fn with_work_counted_a_busier_time_is_no_regression_and_a_slower_program_is() {
    let random = &mut Random(2);
    let usual = process(random, 1.0, Some(100.0));
    let busier = process(random, 1.5, Some(150.0));
    assert_eq!(outcome(&usual, &busier), Outcome::NoRegression);
    // As busy as before with half of the work.
    let slower = process(random, 1.0, Some(50.0));
    let comparison = compare(&usual, &slower, &Options::default());
    assert!(comparison.per_work);
    assert_eq!(comparison.outcome, Outcome::Regression);
    let all = &comparison.measures[0];
    assert_eq!((all.name.as_str(), all.effect), (ALL_DEMAND, Effect::Regression));
    // 10 ms and 20 ms a unit; the means of forty windows are within 1 %, five times their error.
    assert!((all.before - 0.01).abs() < 0.0005 && (all.after - 0.02).abs() < 0.001, "{all:?}");
    // Without the counts of one of them, nothing can be divided.
    let uncounted = process(random, 1.0, None);
    let comparison = compare(&usual, &uncounted, &Options::default());
    assert!(!comparison.per_work && comparison.notes.len() == 1, "{:?}", comparison.notes);
}

#[test]
fn more_time_with_more_load_and_no_work_counted_cannot_be_told() {
    let random = &mut Random(3);
    let [usual, busier] = [1.0, 1.5].map(|factor| {
        let mut process = process(random, factor, None);
        let packets = random.series(40, 0.3, 1e6 * factor, 1e4);
        let network =
            baseline("", vec![(Kind::Signal, "net.received_bytes", Unit::BytesPerSecond, packets)], &[]);
        process.series.extend(network.series);
        process
    });
    let comparison = compare(&usual, &busier, &Options::default());
    assert_eq!(comparison.outcome, Outcome::Inconclusive);
    assert!(comparison.reasons[0].contains("--work-counter"), "{:?}", comparison.reasons);
}

#[test]
fn a_signal_decides_of_a_host_where_it_reaches_a_level() {
    let random = &mut Random(4);
    let mut host = |target: &str, pressure: f64| {
        let series = vec![
            (Kind::Demand, ALL_DEMAND, Unit::Number, random.series(40, 0.3, 1.0, 0.03)),
            (Kind::Signal, "cpu.pressure", Unit::Percent, random.series(40, 0.3, pressure, 0.5)),
        ];
        baseline(target, series, &[])
    };
    let [usual, more, level] = [5.0, 8.0, 30.0].map(|pressure| host("host", pressure));
    assert_eq!(outcome(&usual, &more), Outcome::NoRegression);
    assert_eq!(outcome(&usual, &level), Outcome::Regression);
    let [usual, level] = [5.0, 30.0].map(|pressure| host("pid 1", pressure));
    assert_eq!(outcome(&usual, &level), Outcome::NoRegression);
}

#[test]
fn a_single_window_shows_what_differs_and_claims_nothing() {
    let one = |demand| {
        let series = vec![(Kind::Demand, ALL_DEMAND, Unit::Number, vec![demand])];
        baseline("pid 1", series, &[(&["p", "main"], 1_000)])
    };
    let comparison = compare(&one(1.0), &one(3.0), &Options::default());
    assert_eq!(comparison.outcome, Outcome::Inconclusive);
    let all = &comparison.measures[0];
    assert_eq!((all.relative, all.p, all.effect), (Some(2.0), None, Effect::Unknown));
}

#[test]
fn among_many_measures_of_the_same_process_hardly_any_is_told_as_changed() {
    /// Each time the chance that anything is told at all is at most 5 %, in each of two families; five standard deviations above, of
    /// fifty rounds: 5 + 5 * sqrt(50 * 0.1 * 0.9) = 15.6.
    const MOST: usize = 15;
    let random = &mut Random(5);
    let names: Vec<String> = (0..100).map(|number| format!("class {number}")).collect();
    let mut process = || {
        let mut series = vec![(Kind::Demand, ALL_DEMAND, Unit::Number, random.series(40, 0.3, 1.0, 0.1))];
        for name in &names {
            series.push((Kind::Time, name.as_str(), Unit::Number, random.series(40, 0.3, 1.0, 0.1)));
        }
        baseline("pid 1", series, &[])
    };
    let rounds = (0..50).filter(|_| {
        let comparison = compare(&process(), &process(), &Options { threshold: 0.0, ..Options::default() });
        comparison.measures.iter().any(|change| change.effect != Effect::None)
    });
    let rounds = rounds.count();
    assert!(rounds <= MOST, "{rounds} of 50");
}

#[test]
fn what_differs_by_its_last_digit_alone_has_not_changed() {
    let steady = |files: f64| {
        let series = vec![
            (Kind::Demand, ALL_DEMAND, Unit::Number, vec![1.0; 20]),
            (Kind::Signal, "fs.files", Unit::Percent, vec![files; 20]),
        ];
        baseline("pid 1", series, &[])
    };
    let effect = |after: f64| {
        let comparison = compare(&steady(3.571), &steady(after), &Options::default());
        comparison.measures.iter().find(|change| change.name == "fs.files").expect("it is there").effect
    };
    assert_eq!((effect(3.572), effect(3.6)), (Effect::None, Effect::Changed));
}

#[test]
fn functions_are_compared_for_the_time_that_each_took() {
    let random = &mut Random(6);
    let series = |random: &mut Random, windows| {
        vec![(Kind::Demand, ALL_DEMAND, Unit::Number, random.series(windows, 0.0, 1.0, 0.01))]
    };
    // Twice as long, with twice the time of what stays as it is.
    let before = baseline(
        "pid 1",
        series(random, 10),
        &[(&["p", "main", "parse"], 2_000), (&["p", "main", "gone"], 1_000), (&["p", "main"], 1_000)],
    );
    let after = baseline(
        "pid 1",
        series(random, 20),
        &[(&["p", "main", "parse"], 4_000), (&["p", "main", "slow"], 6_000), (&["p", "main"], 2_040)],
    );
    let comparison = compare(&before, &after, &Options::default());
    let names: Vec<&str> = comparison.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["slow", "gone"]);
    let slow = &comparison.functions[0];
    assert_eq!((slow.before, slow.after, slow.change), (0.0, 0.3, 0.3));
    // 600 samples: 0.3 / sqrt(600).
    assert!((slow.error - 0.01225).abs() < 0.0001, "{slow:?}");

    let mut picture = Vec::new();
    flame::write(&before, &after, &comparison, Shown::Cpu, &mut picture).expect("there is CPU time");
    let picture = String::from_utf8(picture).expect("SVG is text");
    for expected in ["slow (6,000,000 µs, 49.83%; +49.83%)", "parse (4,000,000 µs, 33.22%; 0.00%)"] {
        assert!(picture.contains(expected), "{expected}: {picture}");
    }
    assert!(!picture.contains("gone ("));
    assert!(flame::write(&before, &after, &comparison, Shown::OffCpu, &mut Vec::new()).is_err());
}

#[test]
fn the_page_says_what_decides() {
    let random = &mut Random(7);
    let usual = process(random, 1.0, Some(100.0));
    let slower = process(random, 1.0, Some(50.0));
    let comparison = compare(&usual, &slower, &Options::default());
    let page = text::page(&comparison, text::Style::default());
    for expected in
        ["\nregression\n", "time that is wanted shorter for a unit of work grew by", "! wanted all", " ms"]
    {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    let same = text::page(&compare(&usual, &usual, &Options::default()), text::Style::default());
    assert!(same.contains("\nno regression\n") && same.contains("nothing is sure to be worse"), "{same}");
}

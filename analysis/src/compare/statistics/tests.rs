use super::*;
use crate::compare::random::Random;

fn estimate(values: Vec<f64>) -> Estimate {
    Ratio { windows: values.into_iter().map(|value| (value, 1.0)).collect() }
        .estimate()
        .expect("there are windows")
}

/// In how many of so many rounds two series were compared, and differed at the level of 5 %.
fn found(rounds: u32, mut series: impl FnMut(&mut Random) -> [Vec<f64>; 2]) -> (u32, u32) {
    let mut random = Random(7);
    let (mut compared, mut found) = (0, 0);
    for _ in 0..rounds {
        let [before, after] = series(&mut random).map(estimate);
        if let Some(Difference { p, .. }) = difference(&before, &after) {
            compared += 1;
            found += u32::from(p < 0.05);
        }
    }
    (compared, found)
}

/// What a correct test with this chance finds at most: five standard deviations of the binomial distribution above it, which is
/// exceeded once in 3.5 million times.
fn most(chance: f64, rounds: u32) -> f64 {
    let rounds = f64::from(rounds);
    rounds * chance + 5.0 * (rounds * chance * (1.0 - chance)).sqrt()
}

#[test]
fn series_of_one_process_differ_as_rarely_as_the_level_says() {
    const ROUNDS: u32 = 600;
    // What simulations of thousands of pairs found, up to a half more than 5 %: the memory that is added is estimated, too.
    for (windows, memory, level) in [
        ([60, 60], 0.0, 0.05),
        ([8, 8], 0.3, 0.05),
        ([15, 15], 0.5, 0.06),
        ([30, 30], 0.8, 0.06),
        ([120, 120], 0.8, 0.065),
        ([360, 60], 0.5, 0.065),
        ([60, 20], 0.3, 0.065),
    ] {
        let pair = |random: &mut Random| windows.map(|windows| random.series(windows, memory, 10.0, 1.0));
        let (compared, found) = found(ROUNDS, pair);
        assert_eq!(compared, ROUNDS);
        assert!(f64::from(found) <= most(level, compared), "{windows:?} {memory}: {found} of {compared}");
    }
}

#[test]
fn a_test_without_regard_to_memory_would_fail_the_same() {
    // The plain t-test of two series that remember half: its error is too small by the root of 3.
    let plain = |values: &[f64]| {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Estimate { mean, error: Some((variance / count, count - 1.0)) }
    };
    let mut random = Random(7);
    let rounds = 300;
    let found = (0..rounds)
        .filter(|_| {
            let [before, after] = [30, 30].map(|windows| plain(&random.series(windows, 0.5, 10.0, 1.0)));
            difference(&before, &after).is_some_and(|tested| tested.p < 0.05)
        })
        .count();
    assert!(found as f64 > most(0.065, rounds), "{found} of {rounds}");
}

#[test]
fn changes_are_found_that_are_as_large_as_the_error_lets_them_be() {
    // A change of one standard deviation in two series of 60 windows that remember a half: the error of their difference is
    // sqrt(2 * 3 / 60) = 0.32 of it, so that it is 3.2 errors, which t with 12 degrees finds in three of four. Of two deviations, always.
    for (change, least) in [(1.0, 0.6), (2.0, 0.98)] {
        let pair = |random: &mut Random| [10.0, 10.0 + change].map(|mean| random.series(60, 0.5, mean, 1.0));
        let (compared, found) = found(300, pair);
        assert!(f64::from(found) >= least * f64::from(compared), "{change}: {found} of {compared}");
    }
}

#[test]
fn nothing_is_claimed_of_a_few_windows_and_little_of_a_drift() {
    let mut random = Random(7);
    assert_eq!(estimate(random.series(LEAST_WINDOWS - 1, 0.0, 10.0, 1.0)).error, None);
    // Two halves of one drift: a test that takes windows as independent is certain that they differ.
    let [one, other] = [0, 20].map(|from| estimate((from..from + 20).map(f64::from).collect()));
    let tested = difference(&one, &other).expect("there are windows");
    assert!(tested.p > 0.05, "{tested:?}");
}

#[test]
fn a_ratio_is_that_of_the_sums_and_knows_windows_without_work() {
    let windows = vec![(2.0, 1.0), (0.0, 0.0), (4.0, 3.0), (0.0, 0.0)];
    let estimate = Ratio { windows }.estimate().expect("there is work");
    assert_eq!((estimate.mean, estimate.error), (1.5, None));
    assert_eq!(Ratio { windows: vec![(2.0, 0.0)] }.estimate(), None);
    // Time in proportion to the work has no error, however the work goes.
    let windows = (1..20).map(|work| (3.0 * f64::from(work % 5), f64::from(work % 5))).collect();
    let estimate = Ratio { windows }.estimate().expect("there is work");
    assert!(estimate.error.is_some_and(|(squared, _)| squared < 1e-20), "{estimate:?}");
}

#[test]
fn series_that_never_change_differ_for_certain_or_not_at_all() {
    let [one, other] = [1.0, 2.0].map(|value| estimate(vec![value; 10]));
    assert_eq!(difference(&one, &one).map(|tested| tested.p), Some(1.0));
    let tested = difference(&one, &other).expect("there are windows");
    assert_eq!((tested.p, tested.change, tested.interval), (0.0, 1.0, (1.0, 1.0)));
}

#[test]
fn p_values_are_corrected_by_holms_rule() {
    assert_eq!(corrected(&[0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]);
    assert_eq!(corrected(&[0.5, 0.9]), [1.0, 1.0]);
    assert!(corrected(&[]).is_empty());
}

#[test]
fn superiority_counts_pairs() {
    assert_eq!(superiority(&[1.0, 2.0], &[3.0, 4.0]), Some(1.0));
    assert_eq!(superiority(&[3.0, 4.0], &[1.0, 2.0]), Some(0.0));
    assert_eq!(superiority(&[1.0, 2.0], &[2.0, 1.0]), Some(0.5));
    assert_eq!(superiority(&[], &[1.0]), None);
}

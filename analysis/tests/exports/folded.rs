use chokepoint_analysis::export::{Format, Options};

use crate::{PER_THREAD, check, recording, text};

#[test]
fn folded_stacks_are_as_expected() {
    let profile = recording::everything();
    check("everything.folded", &text(&profile, Format::Folded, &Options::default()));
    check("everything.threads.folded", &text(&profile, Format::Folded, &PER_THREAD));
    assert_eq!(text(&recording::empty(), Format::Folded, &Options::default()), "");
}

#[test]
fn a_parser_of_folded_stacks_finds_every_sample() {
    let profile = recording::everything();
    for options in [Options::default(), PER_THREAD] {
        let mut total = 0;
        for line in text(&profile, Format::Folded, &options).lines() {
            let (stack, count) = line.rsplit_once(' ').expect("a count");
            assert!(stack.split(';').all(|name| !name.is_empty()), "an empty name: {line:?}");
            assert!(!line.chars().any(char::is_control), "a control character: {line:?}");
            let before = stack.rsplit(' ').next().unwrap_or_default();
            assert!(before == stack || before.parse::<f64>().is_err(), "reads as two counts: {line:?}");
            total += count.parse::<u64>().expect("a number");
        }
        assert_eq!(total, profile.total_count());
    }
}

#[test]
fn stacks_of_thread_time_are_counted_in_microseconds() {
    let folded = text(&recording::waits(), Format::Folded, &Options::default());
    let expected = "\
db;main;computes;[cpu.user] 3000
db;main;waits_for_lock;futex_wait_[k];[futex] 5001
db;main;waits_for_lock;futex_wait_[k];[run-queue] 101
";
    assert_eq!(folded, expected);
}

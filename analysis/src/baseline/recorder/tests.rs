use super::*;
use crate::activity::Class;
use crate::baseline::{ALL_DEMAND, Kind, ReadError, read, write};
use crate::coverage::Coverage;
use crate::profile::{
    Basis, Builder, Function, Header, Line, Location, Module, ModuleKind, Sample, Thread, Unit,
};
use crate::thread_time::{Parts, ThreadTime};

const SECOND: u64 = 1_000_000_000;

/// A second of a thread that runs and sleeps for these times, from this second on.
fn window(second: u64, on_cpu_ns: u64, asleep_ns: u64) -> Profile {
    let mut builder = Builder::new();
    let thread =
        builder.thread(Thread { pid: 1, tid: 1, process_name: "shop".into(), thread_name: "shop".into() });
    let activity =
        builder.module(Module { kind: ModuleKind::Activity, path: String::new(), build_id: vec![] });
    let binary =
        builder.module(Module { kind: ModuleKind::Binary, path: "/bin/shop".into(), build_id: vec![] });
    let mut named = |module, name: &str| {
        let function = builder.function(Function { name: name.into(), file: String::new() });
        builder.location(Location {
            module,
            address: 0,
            lines: vec![Line { function, line: 0 }],
            is_spin_wait: false,
        })
    };
    let (running, asleep) =
        (named(activity, &Class::CpuUser.frame()), named(activity, &Class::Timer.frame()));
    let (object, work, nap) =
        (named(activity, "[timer 0x55d2]"), named(binary, "work"), named(binary, "nap"));
    for (stack, weight) in [(vec![running, work], on_cpu_ns), (vec![object, asleep, nap], asleep_ns)] {
        if weight > 0 {
            let stack = builder.stack(stack);
            builder.add(Sample { thread, stack, count: weight / 10_000_000, weight });
        }
    }
    let header = Header {
        title: "Thread time".into(),
        kind: "all".into(),
        unit: Unit::Nanoseconds,
        basis: Basis::Weight,
        period: 1,
        start_unix_ns: 1_700_000_000 * SECOND + second * SECOND,
        duration_ns: on_cpu_ns + asleep_ns,
        host: "h".into(),
        target: "pid 1".into(),
        cpus: 2,
        kernel: "6.18".into(),
        program: "0.1".into(),
    };
    let mut profile = builder.finish(header, Coverage { captured: 100, ..Coverage::default() });
    profile.thread_times = vec![ThreadTime {
        pid: 1,
        tid: 1,
        process_name: "shop".into(),
        thread_name: "shop".into(),
        cgroup_id: 0,
        elapsed_ns: on_cpu_ns + asleep_ns,
        parts: Parts { on_cpu_ns, interruptible_ns: asleep_ns, ..Parts::default() },
        user_share: None,
        switches: 10,
        ended: false,
    }];
    profile
}

fn recorder() -> Recorder {
    Recorder::new(crate::baseline::Header {
        host: "h".into(),
        target: "pid 1".into(),
        cpus: 2,
        start_unix_ns: 0,
        every_ns: SECOND,
        work: "a file".into(),
    })
}

fn add(recorder: &mut Recorder, profile: &Profile, work_per_s: Option<f64>) {
    recorder.add(Observed { profile, diagnosis: &diagnose(profile), work_per_s });
}

fn values(baseline: &Baseline, kind: Kind, name: &str) -> Vec<Option<f64>> {
    baseline.series(kind, name).unwrap_or_else(|| panic!("there is {name}")).values.clone()
}

#[test]
fn what_was_not_told_is_zero_of_time_and_unknown_of_work() {
    let mut recorder = recorder();
    add(&mut recorder, &window(0, SECOND, 0), None);
    add(&mut recorder, &window(1, SECOND / 4, 3 * SECOND / 4), Some(12_345.678));
    let baseline = recorder.finish();
    assert_eq!(baseline.header.start_unix_ns, 1_700_000_000 * SECOND);
    assert_eq!(values(&baseline, Kind::Time, "cpu.user"), [Some(1.0), Some(0.25)]);
    assert_eq!(values(&baseline, Kind::Time, "wait.timer"), [Some(0.0), Some(0.75)]);
    assert_eq!(values(&baseline, Kind::Demand, ALL_DEMAND), [Some(1.0), Some(0.25)]);
    assert_eq!(values(&baseline, Kind::Work, "work"), [None, Some(12_350.0)]);
    assert_eq!(values(&baseline, Kind::Load, "switches"), [Some(10.0), Some(10.0)]);
    let stacks: Vec<(Vec<&str>, Class, u64)> = baseline
        .stacks
        .stacks
        .iter()
        .map(|stack| (baseline.stacks.names_of(stack).collect(), stack.class, stack.time_ns))
        .collect();
    assert_eq!(
        stacks,
        [
            (vec!["shop", "work"], Class::CpuUser, 5 * SECOND / 4),
            (vec!["shop", "nap"], Class::Timer, 3 * SECOND / 4)
        ]
    );
}

#[test]
fn days_have_no_more_windows_than_hours_and_the_same_time() {
    let mut recorder = recorder();
    // Every fourth second is busy, until there are three times too many.
    let seconds = 3 * MAX_WINDOWS as u64 + 5;
    let [busy, asleep] = [(SECOND, 0), (0, SECOND)].map(|(on_cpu, asleep)| window(0, on_cpu, asleep));
    for second in 0..seconds {
        let mut profile = if second % 4 == 0 { busy.clone() } else { asleep.clone() };
        profile.header.start_unix_ns += second * SECOND;
        add(&mut recorder, &profile, (second % 2 == 0).then_some(8.0));
        assert!(recorder.windows() <= MAX_WINDOWS);
    }
    let baseline = recorder.finish();
    let lengths: Vec<u64> = baseline.windows.iter().map(|window| window.duration_ns / SECOND).collect();
    // 4,325 seconds are 1,081 windows of 4, and the one that is left over belongs to the last.
    assert_eq!((lengths.len(), lengths[0], lengths[lengths.len() - 1]), (1_081, 4, 5));
    assert_eq!(lengths.iter().sum::<u64>(), seconds);
    assert!(
        baseline.windows.windows(2).all(|pair| pair[0].offset_ns + pair[0].duration_ns == pair[1].offset_ns)
    );
    let busy = baseline.series(Kind::Time, "cpu.user").expect("it ran");
    assert!(busy.values[..1_080].iter().all(|value| *value == Some(0.25)));
    assert_eq!((busy.values[1_080], busy.max), (Some(0.4), 1.0));
    // Of what is known of half of the time, the mean is that of the half.
    assert!(values(&baseline, Kind::Work, "work").iter().all(|rate| *rate == Some(8.0)));
    assert_eq!(baseline.stacks.stacks.iter().map(|stack| stack.time_ns).sum::<u64>(), seconds * SECOND);
}

#[test]
fn a_merged_window_has_the_worse_verdict() {
    let mut recorder = recorder();
    add(&mut recorder, &window(0, 10 * SECOND, 0), None);
    add(&mut recorder, &window(10, 0, SECOND), None);
    let baseline = recorder.finish();
    assert_eq!(baseline.windows.len(), 1);
    let first = diagnose(&window(0, 10 * SECOND, 0)).verdict;
    assert_eq!(
        (baseline.windows[0].verdict.as_str(), baseline.windows[0].severity),
        (first.code.name(), first.severity)
    );
}

#[test]
fn a_file_gives_back_what_was_written_and_damage_is_found() {
    let mut recorder = recorder();
    add(&mut recorder, &window(0, SECOND, 0), Some(3.0));
    let baseline = recorder.finish();
    let mut bytes = Vec::new();
    write(&baseline, &mut bytes).expect("memory can be written");
    assert_eq!(read(&bytes).expect("it was just written"), baseline);
    let text = String::from_utf8(bytes).expect("JSON is text");
    for (what, with) in [
        (r#""version":1"#, r#""version":2"#),
        (r#""values":[1.0]"#, r#""values":[1.0,2.0]"#),
        (r#""class":"cpu.user""#, r#""class":"cpu""#),
        (r#""names":[0,1]"#, r#""names":[0,9]"#),
        (r#""names":[0,1]"#, r#""names":[]"#),
        (r#""duration_ns":1000000000"#, r#""duration_ns":0"#),
        (r#""host""#, r#""hosts""#),
    ] {
        assert!(text.contains(what), "{what}: {text}");
        assert!(read(text.replacen(what, with, 1).as_bytes()).is_err(), "{with}");
    }
    let other = read(br#"{"schema":"chokepoint-profile","version":4}"#);
    assert!(matches!(other, Err(ReadError::Version { .. })), "{other:?}");
}

#[test]
fn the_page_shows_percentiles_and_verdicts() {
    let mut recorder = recorder();
    for second in 0..3 {
        add(&mut recorder, &window(second, SECOND / 2, SECOND / 2), Some(5.0));
    }
    let page = crate::baseline::text::page(&recorder.finish(), false);
    for expected in
        ["3 windows of 1.0 s, 3 s in all", "work counted by a file", "    3 windows", "cpu.user", "0.500"]
    {
        assert!(page.contains(expected), "{expected}: {page}");
    }
}

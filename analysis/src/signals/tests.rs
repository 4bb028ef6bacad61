use super::reading::{Cpu, CpuTimes, Disk, FileSystem, Group, Interface, Reading, Use};
use super::*;

fn at(seconds: u64) -> Reading {
    Reading { time_ns: seconds * 1_000_000_000, ..Reading::default() }
}

fn value(signals: &Signals, name: &str, instance: &str) -> Option<f64> {
    let found = signals.signals.iter().find(|signal| signal.name == name && signal.instance == instance);
    found.map(|signal| signal.value)
}

fn level(signals: &Signals, name: &str, instance: &str) -> Level {
    let found = signals.signals.iter().find(|signal| signal.name == name && signal.instance == instance);
    found.unwrap_or_else(|| panic!("{name} of {instance:?} is missing")).level
}

fn times(busy: u64, steal: u64, idle: u64) -> CpuTimes {
    CpuTimes { user: busy, steal, idle, ..CpuTimes::default() }
}

fn cpu(first: CpuTimes, second: CpuTimes, runnable: u64) -> Option<Cpu> {
    let all = CpuTimes {
        user: first.user + second.user,
        steal: first.steal + second.steal,
        idle: first.idle + second.idle,
        ..CpuTimes::default()
    };
    Some(Cpu { all, each: BTreeMap::from([(0, first), (3, second)]), runnable, ..Cpu::default() })
}

#[test]
fn names_are_unique_and_everything_has_a_meaning() {
    let mut names = std::collections::HashSet::new();
    for definition in definitions() {
        assert!(names.insert(definition.name), "{}", definition.name);
        assert!(definition.meaning.contains('('), "{} does not say where it is from", definition.name);
        assert_eq!(super::definition(definition.name), Some(definition));
    }
    assert_eq!(definition("cpu.utilisation"), None);
}

#[test]
fn cpus_are_judged_together_and_the_busiest_is_told() {
    let readings = [
        Reading { cpu: cpu(times(0, 0, 0), times(0, 0, 0), 9), ..at(0) },
        Reading { cpu: cpu(times(100, 0, 0), times(40, 10, 50), 1), ..at(1) },
        Reading { cpu: cpu(times(200, 0, 0), times(100, 20, 80), 4), ..at(2) },
    ];
    let signals = evaluate(&readings, &Levels::new());
    assert_eq!(value(&signals, "cpu.utilization", ""), Some(75.0));
    assert_eq!(level(&signals, "cpu.utilization", ""), Level::Warning);
    assert_eq!(value(&signals, "cpu.busiest", ""), Some(100.0));
    assert_eq!(value(&signals, "cpu.imbalance", ""), Some(25.0));
    assert_eq!(value(&signals, "cpu.steal", ""), Some(5.0));
    // A gauge is the mean of its steps; what it was before the window does not count.
    assert_eq!(value(&signals, "cpu.runnable_per_cpu", ""), Some(1.25));
    let utilization = signals.signals.iter().find(|signal| signal.name == "cpu.utilization").unwrap();
    assert_eq!((utilization.steps.p50, utilization.steps.max), (70.0, 80.0));
    assert_eq!((signals.window_s, signals.steps), (2.0, 2));
}

#[test]
fn the_most_urgent_comes_first_by_the_users_thresholds() {
    let readings = [
        Reading { cpu: cpu(times(0, 0, 0), times(0, 0, 0), 0), ..at(0) },
        Reading { cpu: cpu(times(80, 0, 20), times(80, 0, 20), 1), ..at(1) },
    ];
    let levels = Levels::from([("cpu.busiest".to_owned(), Thresholds { warning: 10.0, critical: 50.0 })]);
    let signals = evaluate(&readings, &levels);
    assert_eq!((&*signals.signals[0].name, signals.signals[0].level), ("cpu.busiest", Level::Critical));
    assert_eq!((&*signals.signals[1].name, signals.signals[1].level), ("cpu.utilization", Level::Warning));
    assert!(signals.signals[2..].iter().all(|signal| signal.level == Level::None));
}

#[test]
fn counters_that_begin_anew_and_devices_that_come_are_not_told() {
    let disk = |reads, read_ms| Disk { reads, read_ms, busy_ms: read_ms, ..Disk::default() };
    let readings = [
        Reading { disks: BTreeMap::from([("old".into(), disk(900, 50))]), ..at(0) },
        Reading {
            disks: BTreeMap::from([("old".into(), disk(10, 100)), ("new".into(), disk(5, 5))]),
            ..at(10)
        },
    ];
    let signals = evaluate(&readings, &Levels::new());
    assert_eq!(value(&signals, "block.reads", "old"), None);
    assert_eq!(value(&signals, "block.read_latency", "old"), None);
    assert_eq!(value(&signals, "block.utilization", "old"), Some(0.5));
    assert_eq!(value(&signals, "block.reads", "new"), None);
}

#[test]
fn what_a_device_does_and_how_long_it_takes() {
    let disk = Disk {
        reads: 100,
        read_bytes: 409_600,
        read_ms: 800,
        busy_ms: 990,
        weighted_ms: 2_500,
        ..Disk::default()
    };
    let readings = [
        Reading { disks: BTreeMap::from([("vda".into(), Disk::default())]), ..at(0) },
        Reading { disks: BTreeMap::from([("vda".into(), disk)]), ..at(1) },
    ];
    let signals = evaluate(&readings, &Levels::new());
    let value = |name| value(&signals, name, "vda");
    assert_eq!(value("block.utilization"), Some(99.0));
    assert_eq!(value("block.reads"), Some(100.0));
    assert_eq!(value("block.read_bytes"), Some(409_600.0));
    assert_eq!(value("block.read_latency"), Some(8.0));
    assert_eq!(value("block.write_latency"), None);
    assert_eq!(value("block.queue_depth"), Some(2.5));
    assert_eq!(level(&signals, "block.utilization", "vda"), Level::Critical);
}

#[test]
fn a_share_of_few_segments_is_not_told() {
    let tcp = |sent: u64, again: u64| {
        BTreeMap::from([("Tcp.OutSegs".to_owned(), sent), ("Tcp.RetransSegs".to_owned(), again)])
    };
    let between = |after| {
        let readings = [Reading { protocols: tcp(0, 0), ..at(0) }, Reading { protocols: after, ..at(1) }];
        evaluate(&readings, &Levels::new())
    };
    let few = between(tcp(98, 2));
    assert_eq!(value(&few, "tcp.retransmit_share", ""), None);
    assert_eq!(value(&few, "tcp.retransmits", ""), Some(2.0));
    let many = between(tcp(9_900, 100));
    assert_eq!(value(&many, "tcp.retransmit_share", ""), Some(1.0));
    assert_eq!(level(&many, "tcp.retransmit_share", ""), Level::Critical);
}

#[test]
fn a_link_is_as_full_as_its_busier_direction() {
    let interface = |received_bytes, speed| Interface {
        received_bytes,
        sent_bytes: 10,
        speed_bits_per_s: speed,
        ..Interface::default()
    };
    let reading = |bytes, seconds| Reading {
        interfaces: BTreeMap::from([
            ("eth0".into(), interface(bytes, Some(1_000_000_000))),
            ("veth1".into(), interface(bytes, None)),
        ]),
        ..at(seconds)
    };
    let signals = evaluate(&[reading(0, 0), reading(1_000_000_000, 10)], &Levels::new());
    assert_eq!(value(&signals, "net.utilization", "eth0"), Some(80.0));
    assert_eq!(value(&signals, "net.utilization", "veth1"), None);
    assert_eq!(value(&signals, "net.received_bytes", "veth1"), Some(100_000_000.0));
}

#[test]
fn groups_are_judged_by_their_own_limits() {
    let before = Group {
        cpu_us: Some(0),
        cpu_quota_us_per_s: Some(200_000),
        periods: Some(10),
        throttled_periods: Some(0),
        oom_kills: Some(3),
        ..Group::default()
    };
    let after = Group {
        cpu_us: Some(190_000),
        periods: Some(20),
        throttled_periods: Some(5),
        memory_bytes: Some(96),
        memory_max_bytes: Some(100),
        oom_kills: Some(4),
        threads: Some(3),
        ..before
    };
    let reading =
        |group, seconds| Reading { groups: BTreeMap::from([("/pod".into(), group)]), ..at(seconds) };
    let signals = evaluate(&[reading(before, 0), reading(after, 1)], &Levels::new());
    assert_eq!(value(&signals, "group.cpu", "/pod"), Some(19.0));
    assert_eq!(value(&signals, "group.cpu_quota", "/pod"), Some(95.0));
    assert_eq!(value(&signals, "group.throttled_periods", "/pod"), Some(50.0));
    assert_eq!(level(&signals, "group.memory", "/pod"), Level::Critical);
    assert_eq!(level(&signals, "group.oom_kills", "/pod"), Level::Critical);
    // Without a limit there is no share of it.
    assert_eq!(value(&signals, "group.threads", "/pod"), None);
}

#[test]
fn file_systems_and_tables_fill_up() {
    let full =
        FileSystem { bytes: 1_000, free_bytes: 40, files: 0, errors: Some(2), ..FileSystem::default() };
    let mut before = Reading { filesystems: BTreeMap::from([("/".into(), full)]), ..at(0) };
    before.limits.process_files = vec![("server".into(), 7, Use { used: 60, max: 64 })];
    let mut after = Reading { time_ns: 2_000_000_000, ..before.clone() };
    after.filesystems.get_mut("/").unwrap().errors = Some(3);
    let signals = evaluate(&[before, after], &Levels::new());
    assert_eq!(value(&signals, "fs.utilization", "/"), Some(96.0));
    assert_eq!(value(&signals, "fs.files", "/"), None);
    assert_eq!(level(&signals, "fs.errors", "/"), Level::Critical);
    assert_eq!(level(&signals, "limit.process_files", "server (7)"), Level::Warning);
}

#[test]
fn one_reading_or_none_gives_no_signal() {
    assert_eq!(evaluate(&[], &Levels::new()).signals, []);
    let lone = Reading { cpu: cpu(times(1, 1, 1), times(1, 1, 1), 1), ..at(5) };
    assert_eq!(evaluate(std::slice::from_ref(&lone), &Levels::new()).signals, []);
    // Two at the same moment have nothing between them; only gauges are left.
    let twice = evaluate(&[lone.clone(), lone], &Levels::new());
    assert!(twice.signals.iter().all(|signal| signal.value.is_finite()));
    assert_eq!(value(&twice, "cpu.utilization", ""), None);
}

#[test]
fn ranks_are_the_nearest() {
    let of = |values: &[f64]| Distribution::of(values.to_vec());
    assert_eq!(of(&[]), Distribution::default());
    assert_eq!(of(&[7.0]), Distribution { p50: 7.0, p95: 7.0, p99: 7.0, p999: 7.0, max: 7.0 });
    let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
    let distribution = of(&hundred);
    assert_eq!(
        (distribution.p50, distribution.p95, distribution.p99, distribution.p999, distribution.max),
        (50.0, 95.0, 99.0, 100.0, 100.0)
    );
}

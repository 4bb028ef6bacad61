use chokepoint_analysis::durations::{Bucket, Durations};
use chokepoint_analysis::export::json::{self, ReadError};
use chokepoint_analysis::export::{Format, Options};
use chokepoint_analysis::profile::{Profile, Wake};
use chokepoint_analysis::run_queue::{Queue, RunQueue, Runner};
use chokepoint_analysis::signals::reading::Reading;
use chokepoint_analysis::signals::{Levels, evaluate};

use crate::{check, export, recording, text, value};

fn read(text: &str) -> Result<Profile, ReadError> {
    json::read(&mut text.as_bytes())
}

#[test]
fn what_is_read_back_is_the_same_profile() {
    for profile in [recording::everything(), recording::interleaved(), recording::empty()] {
        let back = read(&text(&profile, Format::Json, &Options::default())).expect("readable");
        assert_eq!(format!("{back:#?}"), format!("{profile:#?}"));
        for format in Format::ALL {
            let [ours, theirs] = [&profile, &back].map(|p| export(p, format, &Options::default()));
            assert!(ours == theirs, "{format} of what was read back differs");
        }
    }
}

#[test]
fn files_are_as_expected() {
    let file = value(&recording::interleaved(), Format::Json, &Options::default());
    check("interleaved.json", &format!("{file:#}\n"));
}

#[test]
fn damaged_files_are_refused_with_the_reason() {
    let good = text(&recording::interleaved(), Format::Json, &Options::default());
    for (from, to, expected) in [
        (
            r#""version":4"#,
            r#""version":1"#,
            "version 1; this program reads \"chokepoint-profile\" version 4",
        ),
        (r#""chokepoint-profile""#, r#""another""#, "\"another\" version 4"),
        (r#"{"module":0,"#, r#"{"module":1,"#, "refers to modules[1], and there are 1"),
        (r#"{"function":2,"#, r#"{"function":3,"#, "refers to functions[3], and there are 3"),
        (r#""stacks":[[0]"#, r#""stacks":[[4294967295]"#, "refers to locations[4294967295], and there are 3"),
        (r#""samples":[{"thread":0"#, r#""samples":[{"thread":9"#, "refers to threads[9], and there are 1"),
        (r#""stack":2"#, r#""stack":7"#, "refers to stacks[7], and there are 3"),
        (r#""build_id":"ab0c02""#, r#""build_id":"ab0""#, "\"ab0\" is no build id"),
        (r#""build_id":"ab0c02""#, r#""build_id":"é""#, "is no build id"),
        (r#""count":5"#, r#""count":18446744073709551615"#, "add up to more than 2^64"),
        (r#""address":"0x1""#, r#""address":"1""#, "not a profile"),
        (r#""unit":"nanoseconds""#, r#""unit":"furlongs""#, "not a profile"),
        (r#""threads":["#, r#""threads":7,"x":["#, "not a profile"),
    ] {
        assert!(good.contains(from), "the test is out of date: {from}");
        let error = read(&good.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    for end in [0, 1, good.len() / 2, good.len() - 1] {
        assert!(matches!(read(&good[..end]), Err(ReadError::Json(_))), "cut at {end}");
    }
}

#[test]
fn every_field_is_documented() {
    let mut profile = recording::everything();
    profile.run_queue = Some(run_queue());
    check_documented(&value(&profile, Format::Json, &Options::default()));
}

fn check_documented(value: &serde_json::Value) {
    let documentation = include_str!("../../../docs/format-json.md");
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let documented = [format!("`{name}`"), format!("\"{name}\":")];
                assert!(
                    documented.iter().any(|name| documentation.contains(name)),
                    "{name} is not documented"
                );
                check_documented(value);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(check_documented),
        _ => {}
    }
}

fn run_queue() -> RunQueue {
    let queue = Queue {
        id: 7,
        name: "db \u{1b}".into(),
        queued_ns: 9_000,
        latencies: Durations {
            buckets: vec![Bucket { from_ns: 4_000, to_ns: 6_000, count: 2 }],
            max_ns: 5_000,
        },
        behind: vec![
            (Runner::One { id: 8, name: "backup".into() }, 6_000),
            (Runner::Idle, 2_000),
            (Runner::Unknown, 1_000),
        ],
    };
    RunQueue { processes: vec![queue.clone()], cgroups: vec![Queue { id: 3, name: String::new(), ..queue }] }
}

#[test]
fn thread_times_are_read_back() {
    use chokepoint_analysis::thread_time::{Parts, ThreadTime};
    let mut profile = recording::waits();
    profile.thread_times = vec![ThreadTime {
        pid: 7,
        tid: 8,
        process_name: "db".into(),
        thread_name: "worker \u{1b}".into(),
        cgroup_id: 9,
        elapsed_ns: 36,
        parts: Parts {
            on_cpu_ns: 1,
            stolen_ns: 8,
            woken_ns: 2,
            preempted_ns: 3,
            throttled_ns: 4,
            interruptible_ns: 5,
            uninterruptible_ns: 6,
            io_ns: 7,
        },
        user_share: Some(0.25),
        switches: 3,
        ended: true,
    }];
    profile.run_queue = Some(run_queue());
    let sample = profile.samples[0];
    let wake = Wake {
        thread: sample.thread,
        stack: sample.stack,
        waker: Some(sample.thread),
        waker_stack: sample.stack,
        count: 1,
        weight: 9,
    };
    profile.wakes = vec![wake, Wake { waker: None, ..wake }];
    let reading = |time_ns| Reading {
        time_ns,
        memory: [("MemTotal", 100), ("MemAvailable", 10)].map(|(name, kb)| (name.to_owned(), kb)).into(),
        // Of what should not happen at all, nothing is critical: a threshold that JSON has no number for.
        protocols: [("TcpExt.ListenOverflows".to_owned(), 1)].into(),
        ..Reading::default()
    };
    let signals = evaluate(&[reading(0), reading(1_000_000_000)], &Levels::new());
    assert!(signals.signals.iter().any(|signal| signal.thresholds.is_some_and(|t| t.critical.is_infinite())));
    profile.signals = Some(signals);
    let written = text(&profile, Format::Json, &Options::default());
    let read = json::read(&mut written.as_bytes()).expect("it is what was written");
    assert_eq!(read.run_queue, profile.run_queue);
    assert_eq!(read.thread_times, profile.thread_times);
    assert_eq!(read.thread_times[0].parts.total_ns(), read.thread_times[0].elapsed_ns);
    assert_eq!(read.header.basis, profile.header.basis);
}

#[test]
fn memory_and_connections_are_read_back_and_documented() {
    use chokepoint_analysis::connections::Connection;
    use chokepoint_analysis::memory::{Group, Kill, Memory, ProcessMemory, Reclaim};
    let group = Group { id: 9, path: "/batch \u{1b}".into() };
    let mut profile = recording::everything();
    profile.memory = Some(Memory {
        processes: vec![ProcessMemory {
            pid: 7,
            process_name: "db".into(),
            group: group.clone(),
            minor_faults: 1,
            major_faults: 2,
            fault_wait_ns: Some(3),
            reclaim: Reclaim { count: 4, total_ns: 5, pages: 6, p50_ns: 7, p95_ns: 8, p99_ns: 9, max_ns: 10 },
            compactions: 11,
        }],
        kills: vec![Kill {
            offset_ns: 1,
            pid: 7,
            process_name: "db".into(),
            group,
            total_bytes: Some(2),
            anonymous_bytes: Some(3),
            file_bytes: None,
            shared_bytes: Some(4),
            by_pid: 8,
            by_name: "other".into(),
        }],
        kswapd_runs: 12,
    });
    profile.connections = vec![Connection {
        namespace: 1,
        local: "10.0.0.1:40000".parse().expect("an address"),
        remote: "[fd00::2]:5432".parse().expect("an address"),
        is_accepted: true,
        pid: Some(7),
        process_name: "db".into(),
        peer_pid: None,
        open: true,
        rtt_us: 2,
        min_rtt_us: 3,
        congestion_window: 4,
        bytes_sent: 5,
        bytes_received: 6,
        retransmits: 7,
        busy_ns: 20,
        receiver_limited_ns: 8,
        buffer_limited_ns: 9,
    }];
    assert_eq!(profile.connections[0].network_limited_ns(), 3);
    let written = text(&profile, Format::Json, &Options::default());
    let read = json::read(&mut written.as_bytes()).expect("it is what was written");
    assert_eq!((&read.memory, &read.connections), (&profile.memory, &profile.connections));
    check_documented(&value(&profile, Format::Json, &Options::default()));
    // As earlier programs of this version wrote it.
    let without = text(&recording::everything(), Format::Json, &Options::default())
        .replace(",\"memory\":null,\"wakes\":[],\"signals\":null,\"connections\":[]", "");
    assert!(!without.contains("\"memory\"") && !without.contains("\"connections\""));
    assert_eq!(json::read(&mut without.as_bytes()).expect("it can be read").memory, None);
}

#[test]
fn block_devices_are_read_back_or_refused() {
    use chokepoint_analysis::block::{
        Block, Device, Held, Hold, Key, Latency, Operation, Owner, Requests, Totals, UnderWay,
    };
    let device = Device { name: "dm-0".into(), partition: "sda1".into(), backing: "vg-\u{1b}".into() };
    let owner = Owner { pid: 7, process_name: "db".into(), cgroup_id: u64::MAX, cgroup: "/pods".into() };
    let latency = Latency {
        total_ns: 5,
        times: Durations {
            buckets: vec![
                Bucket { from_ns: 0, to_ns: 1024, count: 2 },
                Bucket { from_ns: 1024, to_ns: 1280, count: 1 },
            ],
            max_ns: 3,
        },
    };
    let key = Key { device, operation: Operation::WriteZeroes, owner, of_target: true };
    let mut profile = recording::waits();
    profile.block = Some(Block {
        has_target: true,
        requests: vec![Requests {
            key: key.clone(),
            totals: Totals {
                requests: 4,
                bytes: 4096,
                untimed: 1,
                queue: Latency::default(),
                device: latency.clone(),
                sequential: 1,
                random: 2,
                merged: 3,
                requeues: 4,
                errors: vec![("medium".into(), 2)],
            },
        }],
        under_way: vec![UnderWay { key: key.clone(), bytes: 1, queue_ns: 2, device_ns: None }],
        holds: vec![Hold { key: key.clone(), bios: 3, bytes: 4, held: latency }],
        held: vec![Held { key, bios: 1, bytes: 2, held_ns: 3, held_max_ns: 4 }],
    });
    let written = text(&profile, Format::Json, &Options::default());
    assert_eq!(read(&written).expect("it is what was written").block, profile.block);

    let unknown = written.replace("write-zeroes", "shred");
    assert!(matches!(read(&unknown), Err(ReadError::Operation(name)) if name == "shred"));
    let overlapping = written.replace("\"to_ns\":1024", "\"to_ns\":2048");
    assert!(matches!(read(&overlapping), Err(ReadError::Buckets)));
}

//! A fleet of which latencies and what was sent again are known: two hosts, two windows of 10 s each.

use chokepoint_proto::stream::{Batch, Dictionary, Hello, Profile, Subject, Unit, Window};

use crate::store::Store;
use crate::store_in_memory::InMemory;

/// When its first windows begin, Unix seconds.
pub const START_S: u64 = 1_000_000;

/// What is told of one instance: kind, labels, and how many of each class.
type Told<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, u64)]);

/// A store that has it.
pub fn store() -> InMemory {
    let store = InMemory::default();
    for (number, host) in [(1, "a"), (2, "b")] {
        let hello = Hello { agent: vec![number; 16], host: host.to_owned(), ..Hello::default() };
        let mut appender = store.appender(&hello, None).expect("it takes all");
        for step in 0..2 {
            let local = format!("10.0.0.{number}");
            let peer = ["local", &local, "remote", "10.0.0.5:5432", "service", "web"];
            let disk = ["device", "vda", "instance", "vda read", "operation", "read"];
            let disk_counts: &[(&str, u64)] =
                if step == 0 { &[("2048", 3), ("3072", 1)] } else { &[("2048", 5), ("more", 2)] };
            let lost = u64::from(number);
            let told: [Told<'_>; 4] = [
                ("latency.disk", &disk, disk_counts),
                ("latency.run-queue", &["instance", "web", "service", "web"], &[("1000", 2 + lost)]),
                ("retransmits.peers", &peer, &[("", 4 + 2 * lost)]),
                ("retransmits.peers", &["remote", "[other]"], &[("", 1)]),
            ];
            let (mut window, dictionary) = window(&told);
            window.start_unix_ns = (START_S + 10 * step) * 1_000_000_000;
            window.duration_ns = 10_000_000_000;
            let batch = Batch { sequence: step + 1, ..Batch::default() };
            appender.append(&batch, &window, &dictionary, true).expect("it is stored");
        }
    }
    store
}

fn window(told: &[Told<'_>]) -> (Window, Dictionary) {
    let mut dictionary = Dictionary { reset: true, strings: vec![String::new()], ..Dictionary::default() };
    let mut profiles: Vec<Profile> = Vec::new();
    for (kind, labels, counts) in told {
        let mut number = |text: &str| {
            dictionary.strings.push(text.to_owned());
            dictionary.strings.len() as u32 - 1
        };
        let labels = labels.iter().map(|text| number(text)).collect();
        let classes: Vec<u32> = counts.iter().map(|(class, _)| number(class)).collect();
        dictionary.subjects.push(Subject { process: 0, thread: 0, labels });
        let subject = dictionary.subjects.len() as u32 - 1;
        let mut profile =
            Profile { kind: (*kind).to_owned(), unit: Unit::Count.into(), ..Profile::default() };
        for ((_, count), class) in counts.iter().zip(classes) {
            profile.subject.push(subject);
            profile.stack.push(0);
            profile.class.push(class);
            profile.count.push(*count);
            profile.weight.push(*count);
        }
        profiles.push(profile);
    }
    (Window { profiles, ..Window::default() }, dictionary)
}

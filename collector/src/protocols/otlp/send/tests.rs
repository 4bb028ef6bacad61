//! What is sent is what was stored: read back, windows have the same sums.

use std::collections::BTreeMap;
use std::time::Duration;

use chokepoint_proto::stream::{Dictionary, Label, Loss, Losses, ModuleKind, Window};
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message as _;

use super::known::Known;
use super::message::Message;
use super::window::{Whose, add};
use super::*;
use crate::protocols::otlp::read::windows;
use crate::protocols::sent::{Described, Kind, Sent};

const NOW_NS: u64 = 1_767_225_600_000_000_000;
/// More than the estimate is above what is sent, and a stack.
const SLACK_BYTES: usize = 64 << 10;

fn whose() -> Whose {
    let labels = [("zone".to_owned(), "z1".to_owned())].into();
    Whose { agent: vec![7; 16], host: "a1".to_owned(), labels }
}

/// A window of so many rows.
fn window_of(rows: usize, seed: u64) -> Window {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sent = Sent::default();
    for _ in 0..rows {
        let service = format!("service-{}", random.u8(..9));
        let known = [
            ("service.name", service.as_str()),
            ("k8s.pod.name", "pod-0"),
            ("k8s.container.name", "main"),
            ("process.linux.cgroup", "/a/b"),
            ("process.executable.name", "shopd"),
            ("thread.name", if random.bool() { "worker-17" } else { "main" }),
        ];
        let known = known.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let subject = sent.subject(&Described::new(&known, "pyroscope", |_| false));
        let module = match random.u8(..3) {
            0 => sent.module(ModuleKind::Kernel, "[kernel]", Vec::new()),
            1 => sent.module(ModuleKind::Binary, "/usr/bin/shopd", vec![0xab; 20]),
            _ => sent.module(ModuleKind::Unknown, "", Vec::new()),
        };
        let stack: Vec<u32> = (0..random.usize(1..6))
            .map(|_| {
                let name = format!("function_with_a_name_of_usual_length_{}", random.u16(..2000));
                let function = sent.function(&name, "source/file.c");
                // One that was not symbolized has its address.
                let is_known = random.u8(..4) > 0;
                let lines = if is_known { vec![(function, random.u32(..300))] } else { Vec::new() };
                let address = if is_known { 0 } else { random.u64(1..1 << 40) };
                sent.location(module, address, lines)
            })
            .collect();
        let stack = sent.stack(&stack);
        let kinds = ["cpu.user", "cpu.kernel", "io.read", "futex", "idle"];
        let kind = match random.usize(..kinds.len() + 2) {
            at if at < kinds.len() => Kind::Time(kinds[at]),
            at => {
                Kind::Other { name: ["faults", "retransmits"][at - kinds.len()].to_owned(), is_time: false }
            }
        };
        sent.add(kind, subject, stack, 1, random.u64(1..1 << 40));
    }
    sent.window(NOW_NS, 10_000_000_000)
}

/// Sums of a window's rows, by all that is told of them; of these kinds and classes.
fn sums(window: &Window, has: impl Fn(&str, &str) -> bool) -> BTreeMap<String, u64> {
    let known = window.dictionary.as_ref().expect("a dictionary");
    let text = |number: u32| known.strings[number as usize].as_str();
    let mut sums = BTreeMap::new();
    for kind in &window.profiles {
        for row in 0..kind.subject.len() {
            let class = kind.class.get(row).map_or("", |class| text(*class));
            if !has(&kind.kind, class) {
                continue;
            }
            let subject = &known.subjects[kind.subject[row] as usize];
            let labels: Vec<String> = subject
                .labels
                .chunks_exact(2)
                .filter(|pair| text(pair[0]) != "source" && text(pair[0]) != "zone")
                .map(|pair| format!("{}={}", text(pair[0]), text(pair[1])))
                .collect();
            let mut frames = Vec::new();
            let mut node = kind.stack[row];
            while let Some(at) = node.checked_sub(1) {
                let location = &known.locations[known.stack_location[at as usize] as usize];
                let module = &known.modules[location.module as usize];
                let lines: Vec<String> = location
                    .lines
                    .iter()
                    .map(|line| {
                        format!("{}:{}", text(known.functions[line.function as usize].name), line.line)
                    })
                    .collect();
                let build_id = module.build_id.len();
                frames.push(format!(
                    "{} {build_id} {:?} {} {lines:?}",
                    text(module.path),
                    module.kind(),
                    location.address
                ));
                node = known.stack_parent[at as usize];
            }
            let whose = format!("{} {} {labels:?}", text(subject.process), text(subject.thread));
            *sums.entry(format!("{} {class} {whose} {frames:?}", kind.kind)).or_default() += kind.weight[row];
        }
    }
    sums
}

/// Messages that a window becomes, with the last one.
fn messages(window: &Window, types: &str) -> Vec<(ExportProfilesServiceRequest, u64)> {
    let mut message = Message::default();
    let types = types.parse().expect("types");
    let mut known = Known::default();
    known.extend(window.dictionary.as_ref().expect("a dictionary"));
    let mut all = add(&mut message, &whose(), 3, window, &known, &types);
    if !message.is_empty() {
        let bytes = message.bytes;
        all.push(message.take());
        assert!(all.last().is_some_and(|(last, _)| last.encoded_len() <= bytes), "it is counted too low");
    }
    all
}

fn read_back(messages: &[(ExportProfilesServiceRequest, u64)]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (request, profiles) in messages {
        let bytes = request.encode_to_vec();
        assert!(bytes.len() < (2 << 20) + SLACK_BYTES, "{} bytes", bytes.len());
        let request = ExportProfilesServiceRequest::decode(bytes.as_slice()).expect("a request");
        let found = windows(&request, 0);
        assert_eq!((found.profiles, found.refused, &found.why), (*profiles, 0, &None));
        for (of, window) in found.windows {
            assert_eq!((of.host.as_str(), window.start_unix_ns), ("a1", NOW_NS));
            for (of, weight) in sums(&window, |_, _| true) {
                *all.entry(of).or_default() += weight;
            }
        }
    }
    all
}

#[test]
fn what_is_sent_and_read_back_has_the_same_sums() {
    for seed in 0..8 {
        let window = window_of(300, seed);
        let all = messages(&window, "wall,faults,retransmits");
        assert_eq!(read_back(&all), sums(&window, |_, _| true));
        assert!(!sums(&window, |_, _| true).is_empty());
        let some = messages(&window, "cpu,io");
        assert_eq!(
            read_back(&some),
            sums(&window, |_, class| class.starts_with("cpu.") || class == "io.read")
        );
    }
}

#[test]
fn a_window_that_is_too_large_for_a_message_goes_in_several() {
    let window = window_of(40_000, 1);
    let all = messages(&window, "wall,faults,retransmits");
    assert!(all.len() > 1, "{} messages", all.len());
    assert_eq!(read_back(&all), sums(&window, |_, _| true));
    let ids = |(request, _): &(ExportProfilesServiceRequest, u64)| -> Vec<Vec<u8>> {
        let scopes = request.resource_profiles.iter().flat_map(|resource| &resource.scope_profiles);
        scopes.flat_map(|scope| &scope.profiles).map(|profile| profile.profile_id.clone()).collect()
    };
    let mut all: Vec<Vec<u8>> = all.iter().flat_map(ids).collect();
    let profiles = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), profiles, "each profile has an id of its own");
}

#[test]
fn losses_travel_with_profiles() {
    let losses = Losses { lost: vec![Loss { cause: "ring".to_owned(), samples: 5 }], ..Losses::default() };
    let window = Window { losses: Some(losses), ..window_of(10, 1) };
    let (request, _) = messages(&window, "wall").remove(0);
    let dictionary = request.dictionary.expect("a dictionary");
    let profile = &request.resource_profiles[0].scope_profiles[0].profiles[0];
    let attribute = &dictionary.attribute_table[profile.attribute_indices[0] as usize];
    assert_eq!(dictionary.string_table[attribute.key_strindex as usize], "chokepoint.lost_samples");
    assert_eq!(format!("{:?}", attribute.value), "Some(AnyValue { value: Some(IntValue(5)) })");
}

fn options() -> Options {
    Options {
        // Nobody is sent anything: the queue alone is looked at.
        endpoint: "http://127.0.0.1:1".to_owned(),
        protocol: Protocol::Grpc,
        credentials: Credentials::default(),
        types: "wall".parse().expect("types"),
    }
}

#[tokio::test]
async fn a_queue_that_is_full_loses_what_comes_and_counts_it() {
    let (outlet, _companion) = Outlet::new(options());
    let counts = Counts::default();
    let labels = vec![Label { name: "zone".to_owned(), value: "z1".to_owned() }];
    let hello = Hello { agent: vec![1; 16], host: "a1".to_owned(), labels, ..Hello::default() };
    let mut stream = Streams(Arc::clone(&outlet)).stream(&hello).expect("a listener");
    let window = window_of(20, 1);
    let new = window.dictionary.clone().expect("a dictionary");
    for sequence in 0..QUEUE as u64 + 2 {
        // What comes again is not sent again.
        for is_new in [true, false] {
            stream.hear(&Heard { sequence, window: &window, new: &new, is_new }, &counts);
        }
        outlet.close(Duration::ZERO, &counts);
    }
    let profiles = messages(&window, "wall")[0].1;
    assert_eq!(counts.get(Count::OtlpLost), 2 * profiles);
    // What came by the protocol is not sent on.
    assert!(Streams(outlet).stream(&Hello { program: "otlp".to_owned(), ..Hello::default() }).is_none());
}

#[tokio::test]
async fn streams_that_have_no_room_are_not_sent_on_until_their_lists_begin_anew() {
    let (outlet, _companion) = Outlet::new(options());
    let counts = Counts::default();
    let window = window_of(300, 1);
    let begin = window.dictionary.clone().expect("a dictionary");
    let more = Dictionary { reset: false, ..begin.clone() };
    // The same once more may take twice as much again: lists have room for what comes.
    let own = Room::new(usize::MAX);
    let mut alone = Roomed::new(&own);
    assert!(!alone.extend(&begin));
    let room = Room::new(own.taken() * 3 / 2);
    let stream = || Stream { outlet: Arc::clone(&outlet), whose: whose(), said: Roomed::new(&room) };
    let (mut one, mut other) = (stream(), stream());
    let hear = |stream: &mut Stream, new: &Dictionary| {
        stream.hear(&Heard { sequence: 1, window: &window, new, is_new: true }, &counts);
        assert!(room.taken() <= own.taken() * 3 / 2);
        counts.get(Count::OtlpUnknown)
    };
    assert_eq!(hear(&mut one, &begin), 0);
    assert_eq!(hear(&mut other, &begin), 1);
    assert_eq!(hear(&mut other, &more), 2);
    assert_eq!(room.taken(), own.taken());
    drop(one);
    // There is room now, but what it has said before is not known any more.
    assert_eq!(hear(&mut other, &more), 3);
    assert_eq!(hear(&mut other, &begin), 3);
    drop(other);
    assert_eq!(room.taken(), 0);
}

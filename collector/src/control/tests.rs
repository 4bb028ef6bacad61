//! The stage without a network: agents are closures that note what they are told.

use std::collections::VecDeque;

use chokepoint_proto::stream::profile_now::Target;
use chokepoint_proto::stream::{Batch, Dictionary, Part, Profile, Progress, Subject, Window};

use super::ask::Ask;
use super::whereabouts::{Agent, find};
use super::*;
use crate::store::{Asker, Store};
use crate::store_in_memory::InMemory;

/// A recording of everything of a process that burns CPU time on a busy host, as `chokepoint record -e all` wrote it.
const RECORDING: &str = include_str!("../../tests/data/on-demand.json");

/// As an agent sends it.
fn recording() -> Vec<u8> {
    compressed(RECORDING.as_bytes())
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).expect("it can be")
}

type Heard = Arc<Mutex<VecDeque<Message>>>;

struct Fleet {
    control: Arc<Control>,
    heard: Heard,
    links: Vec<Link>,
}

impl Fleet {
    /// Agents 1, 2, ... of hosts a, b, ...
    fn new(limits: Limits, agents: u8) -> Self {
        let control = Arc::new(Control::new(limits));
        let mut fleet = Self { control, heard: Heard::default(), links: Vec::new() };
        for agent in 1..=agents {
            fleet.connect(agent);
        }
        fleet
    }

    fn connect(&mut self, agent: u8) {
        let heard = Arc::clone(&self.heard);
        let say: Say = Box::new(move |said| {
            heard.lock().expect("no panic").extend(said.message);
            true
        });
        let host = char::from(b'a' + agent - 1).to_string();
        let hello = Hello { agent: vec![agent; 16], host, ..Hello::default() };
        self.links.push(self.control.connect(&hello, say));
    }

    fn begin(&self, agent: u8, asker: &str) -> Result<Shown, Refusal> {
        self.begin_as(agent, asker, r#"{"pid": 7, "duration": "1s"}"#)
    }

    fn begin_as(&self, agent: u8, asker: &str, ask: &str) -> Result<Shown, Refusal> {
        let wanted = wanted(ask, self.control.limits())?;
        self.control.begin(&wanted, &format!("{agent:02x}").repeat(16), asker)
    }

    fn heard(&self) -> Option<Message> {
        self.heard.lock().expect("no panic").pop_front()
    }

    /// The number of the command that was heard.
    fn command(&self) -> u64 {
        match self.heard() {
            Some(Message::Command(command)) => command.id,
            other => panic!("{other:?} is no command"),
        }
    }

    fn tell(&self, link: usize, command: u64, told: Told) {
        self.links[link].take(CommandUpdate { id: command, what: Some(told) });
    }

    fn part(&self, link: usize, command: u64, bytes: &[u8], is_last: bool) {
        self.tell(link, command, Told::Part(Part { bytes: bytes.to_vec(), is_last }));
    }

    async fn end(&self, id: &str) -> Shown {
        let shown = self.control.look(id, Duration::from_secs(30)).await.expect("it is kept");
        assert!(shown.is_over(), "{shown:?}");
        shown
    }
}

fn wanted(ask: &str, limits: &Limits) -> Result<Wanted, Refusal> {
    Ask::read(ask.as_bytes())?.wanted(limits)
}

#[tokio::test]
async fn a_profile_comes_in_parts_and_has_a_verdict() {
    let fleet = Fleet::new(Limits::default(), 1);
    let begun =
        fleet.begin_as(1, "me", r#"{"pid": 7, "frequency": 499, "duration": "2s"}"#).expect("it begins");
    assert_eq!((begun.state.as_str(), begun.host.as_str(), begun.target.as_str()), ("asked", "a", "pid 7"));
    let Some(Message::Command(Command { id: command, what: Some(What::Profile(profile)) })) = fleet.heard()
    else {
        panic!("the agent heard of no profile");
    };
    let expected = ProfileNow { target: Some(Target::Pid(7)), frequency_hz: 499, duration_ns: 2_000_000_000 };
    assert_eq!(profile, expected);

    fleet.tell(0, command, Told::Progress(Progress { samples: 40, elapsed_ns: 500_000_000 }));
    let shown = fleet.control.look(&begun.id, Duration::ZERO).await.expect("it is there");
    assert_eq!((shown.state.as_str(), shown.samples, shown.recorded_ms), ("recording", 40, 500));
    let early = fleet.control.finished(&begun.id).expect_err("it is not there yet");
    assert!(matches!(early, Refusal::NotDone(_)), "{early}");

    let whole = recording();
    let (first, rest) = whole.split_at(whole.len() / 2);
    fleet.part(0, command, first, false);
    let shown = fleet.control.look(&begun.id, Duration::ZERO).await.expect("it is there");
    assert_eq!((shown.state.as_str(), shown.bytes), ("receiving", first.len() as u64));
    fleet.part(0, command, rest, true);
    let shown = fleet.end(&begun.id).await;
    assert_eq!((shown.state.as_str(), shown.error), ("done", None));
    let outcome = shown.outcome.expect("it has one");
    assert_eq!(outcome.verdict.code, "cpu.noisy-neighbour");
    assert_eq!(outcome.diagnosis["verdict"]["code"], "cpu.noisy-neighbour");
    assert_eq!(outcome.verdict.severity, "critical");
    assert!(outcome.captured > 0 && outcome.window_ms > 500);

    let finished = fleet.control.finished(&begun.id).expect("it is there");
    let file = |kind, format| String::from_utf8(finished.export(kind, format).expect(kind)).expect("text");
    use chokepoint_analysis::export::Format;
    let folded = file("cpu", Format::Folded);
    assert!(folded.contains(";main") && !folded.contains("[cpu.user]"), "{folded}");
    let of_all = file("wall", Format::Folded);
    assert!(of_all.contains(";main") && of_all.contains("[cpu.user]"), "{of_all}");
    assert!(file("cpu", Format::Svg).contains("<svg"));
    for bad in ["faults", "", "cpu{host=\"a\"}", "cpu{"] {
        let refused = finished.export(bad, Format::Folded);
        assert!(matches!(refused, Err(Refusal::Bad(_))), "{bad}");
    }
    assert!(finished.json().expect("it was read once").starts_with(b"{"));
    // In lists there is no room for diagnoses.
    let list = fleet.control.list().profiles;
    assert!(list.len() == 1 && list[0].outcome.as_ref().is_some_and(|outcome| outcome.diagnosis.is_null()));
    let metrics = fleet.control.metrics();
    for line in ["chokepoint_collector_demand_done_total 1", "chokepoint_collector_agents 1"] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
}

#[tokio::test]
async fn each_limit_is_told_and_ends_with_what_it_was_for() {
    let limits = Limits { at_once: 3, of_an_agent: 2, of_an_asker: 2, ..Limits::default() };
    let fleet = Fleet::new(limits, 3);
    let refused = |agent, asker| match fleet.begin(agent, asker) {
        Err(Refusal::TooMany(why)) => why,
        other => panic!("{other:?}"),
    };
    let first = fleet.begin(1, "me").expect("there is room");
    fleet.begin(1, "other").expect("there is room");
    assert!(refused(1, "third").contains("2 profiles on demand of a are"));
    fleet.begin(2, "me").expect("there is room");
    assert!(refused(3, "fourth").contains("3 profiles on demand in all are"));
    fleet.control.cancel(&first.id).expect("it is under way");
    fleet.begin(3, "me").expect("there is room again");
    fleet.tell(1, 3, Told::Failed("no process 7".to_owned()));
    fleet.begin(2, "me").expect("and again");
    assert!(matches!(fleet.begin(2, "me"), Err(Refusal::TooMany(_))));

    for (ask, tells) in [
        (r#"{"frequency": 0}"#, "1 to 10000 samples"),
        (r#"{"frequency": 10001}"#, "1 to 10000 samples"),
        (r#"{"duration": "11m"}"#, "longer than 10m"),
        (r#"{"duration": "soon"}"#, "is no duration"),
        (r#"{"pod": "web-0"}"#, "NAMESPACE/NAME"),
        (r#"{"pid": 0}"#, "no process id"),
        (r#"{"pid": 1, "cgroup": "/x"}"#, "name one of"),
        (r#"{"container": ""}"#, "1 to 4096 bytes"),
        (r#"{"pdo": "a/b"}"#, "unknown field"),
        ("[]]", "this is not what can be asked for"),
    ] {
        let refused = wanted(ask, &Limits::default()).expect_err(ask);
        assert!(matches!(&refused, Refusal::Bad(why) if why.contains(tells)), "{ask}: {refused}");
    }
}

#[tokio::test]
async fn a_profile_ends_with_its_agents_stream_and_not_with_another() {
    let mut fleet = Fleet::new(Limits::default(), 2);
    let of_first = fleet.begin(1, "me").expect("it begins");
    let command = fleet.command();
    // Who was not asked has nothing to say.
    fleet.tell(1, command, Told::Failed("no".to_owned()));
    fleet.part(1, command, b"x", true);
    fleet.tell(0, command + 1, Told::Failed("no".to_owned()));
    assert_eq!(fleet.control.look(&of_first.id, Duration::ZERO).await.expect("it is there").state, "asked");
    // The agent's next stream is another one, too.
    fleet.connect(1);
    fleet.part(2, command, b"x", true);
    assert_eq!(fleet.control.look(&of_first.id, Duration::ZERO).await.expect("it is there").state, "asked");
    assert_eq!(fleet.control.connected().len(), 2);
    drop(fleet.links.remove(0));
    let shown = fleet.end(&of_first.id).await;
    assert_eq!(shown.state, "failed");
    assert!(shown.error.is_some_and(|error| error.contains("the stream of a's agent has ended")));
    // A new question goes down the new stream.
    fleet.begin(1, "me").expect("it begins");
    let command = fleet.command();
    fleet.tell(1, command, Told::Failed("\x1b[2Jno such process".repeat(1000)));
    let shown = fleet.control.list().profiles.remove(0);
    let error = shown.error.expect("it has failed");
    assert!(error.starts_with("?[2Jno such process") && error.len() <= 1000, "{error}");
    fleet.links.clear();
    assert!(matches!(fleet.begin(1, "me"), Err(Refusal::Unavailable(_))));
}

#[tokio::test]
async fn what_is_no_recording_is_an_error() {
    let limits =
        Limits { uncompressed_bytes: 1 << 20, of_an_agent: 10, of_an_asker: 10, ..Limits::default() };
    let fleet = Fleet::new(limits, 1);
    let bomb = compressed(&vec![b' '; 64 << 20]);
    let whole = recording();
    let cut = &whole[..whole.len() - 10];
    let wrong = RECORDING.replace("\"kind\":\"all\"", "\"kind\":\"cpu\"");
    assert_ne!(wrong, RECORDING);
    let (wrong, nothing) = (compressed(wrong.as_bytes()), compressed(b"{}"));
    for (bytes, tells) in [
        (&b""[..], "cannot be uncompressed"),
        (b"abc", "cannot be uncompressed"),
        (&bomb, "larger than 1 MiB"),
        (cut, "cannot be uncompressed"),
        (&wrong, "another kind of recording"),
        (&nothing, "no recording"),
    ] {
        let begun = fleet.begin(1, "me").expect("there is room");
        fleet.part(0, fleet.command(), bytes, true);
        let shown = fleet.end(&begun.id).await;
        assert!(
            shown.error.as_ref().is_some_and(|error| error.contains(tells)),
            "{tells}: {:?}",
            shown.error
        );
    }
}

#[tokio::test]
async fn recordings_are_kept_within_bounds() {
    let whole = recording();
    let size = whole.len();
    let limits = Limits {
        recording_bytes: size,
        kept_bytes: 2 * size + size / 2,
        of_an_agent: 10,
        of_an_asker: 10,
        ..Limits::default()
    };
    let fleet = Fleet::new(limits, 1);
    // One that sends more than is accepted is told to stop.
    let begun = fleet.begin(1, "me").expect("it begins");
    let command = fleet.command();
    fleet.part(0, command, &vec![0; size + 1], false);
    assert!(fleet.end(&begun.id).await.error.is_some_and(|error| error.contains("larger than")));
    assert_eq!(fleet.heard(), Some(Message::Cancel(Cancel { id: command })));
    // The oldest makes room.
    let mut kept = Vec::new();
    for _ in 0..3 {
        let begun = fleet.begin(1, "me").expect("it begins");
        fleet.part(0, fleet.command(), &whole, true);
        assert_eq!(fleet.end(&begun.id).await.state, "done");
        kept.push(begun.id);
    }
    let is_there = |id: &String| fleet.control.finished(id).is_ok();
    assert_eq!(kept.iter().map(is_there).collect::<Vec<_>>(), [false, true, true]);
    // What is over is forgotten by who no longer wants it.
    fleet.control.cancel(&kept[2]).expect("it is kept");
    assert!(!is_there(&kept[2]) && is_there(&kept[1]));
    assert!(matches!(fleet.control.cancel(&kept[2]), Err(Refusal::NotFound(_))));
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let fleet = Fleet::new(Limits { grace: Duration::ZERO, ..Limits::default() }, 2);
    let left = fleet.begin_as(1, "me", r#"{"duration": "1m", "abandon_after": "1s"}"#).expect("it begins");
    let late = fleet.begin_as(2, "me", r#"{"duration": "500ms"}"#).expect("it begins");
    let commands = [fleet.command(), fleet.command()];
    let late = fleet.end(&late.id).await;
    assert!(late.error.is_some_and(|error| error.contains("has not sent the recording within")));
    // A list is no look at one of them.
    let start = Instant::now();
    while !fleet.control.list().profiles.iter().all(Shown::is_over) {
        assert!(start.elapsed() < Duration::from_secs(30), "it is not given up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(fleet.end(&left.id).await.state, "cancelled");
    // Both agents are told.
    let mut told: Vec<Message> = std::iter::from_fn(|| fleet.heard()).collect();
    told.sort_by_key(|told| matches!(told, Message::Cancel(cancel) if cancel.id == commands[1]));
    assert_eq!(told, commands.map(|id| Message::Cancel(Cancel { id })));
}

/// When a window of the hosts began.
const NOW_UNIX_NS: u64 = 1_000_000_000_000_000;

/// A store to which each of these hosts has told a window of a subject with these labels.
fn told(hosts: &[(&str, &[(&str, &str)])]) -> InMemory {
    let store = InMemory::default();
    for (host, labels) in hosts {
        let mut strings = vec![String::new(), "cpu.user".to_owned()];
        strings.extend(labels.iter().flat_map(|(name, value)| [name.to_string(), value.to_string()]));
        let subject = Subject { labels: (2..strings.len() as u32).collect(), ..Subject::default() };
        let dictionary =
            Dictionary { reset: true, strings, subjects: vec![subject], ..Dictionary::default() };
        let profile = Profile {
            kind: "wall".to_owned(),
            subject: vec![0],
            stack: vec![0],
            class: vec![1],
            count: vec![1],
            weight: vec![1],
            ..Profile::default()
        };
        let window = Window {
            start_unix_ns: NOW_UNIX_NS,
            duration_ns: 10_000_000_000,
            profiles: vec![profile],
            ..Window::default()
        };
        let hello = Hello { agent: vec![1; 16], host: host.to_string(), ..Hello::default() };
        let mut appender = store.appender(&hello, None).expect("an appender");
        let sequence = u64::from(host.as_bytes()[0]);
        let batch = Batch { sequence, ..Batch::default() };
        appender.append(&batch, &window, &dictionary, true).expect("a window");
    }
    store
}

#[test]
fn a_target_is_found_by_what_hosts_have_told() {
    let store = told(&[
        (
            "a",
            &[
                ("namespace", "shop"),
                ("pod", "web-0"),
                ("container", "web"),
                ("container_id", "c0ffee010101"),
            ],
        ),
        ("b", &[("namespace", "shop"), ("pod", "db-0"), ("container", "db"), ("container_id", "c0ffee02")]),
        ("c", &[("namespace", "test"), ("pod", "web-0"), ("container", "web"), ("cgroup", "/a/b")]),
        ("d", &[("cgroup", "/a/bc")]),
    ]);
    let agent = |agent: &str, host: &str| Agent { agent: agent.repeat(16), host: host.to_owned() };
    let ask = |ask: &str, connected: &[Agent], now| {
        let wanted = wanted(ask, &Limits::default()).expect(ask);
        match find(&store, &wanted, connected, now, &Asker::default()) {
            Ok(agent) => agent.host,
            Err(refusal) => refusal.to_string(),
        }
    };
    let of = |text: &str, connected: &[Agent]| ask(text, connected, NOW_UNIX_NS + 60_000_000_000);
    let all = [agent("01", "a"), agent("02", "b"), agent("03", "c")];
    for (text, expected) in [
        (r#"{"pod": "shop/web-0"}"#, "a"),
        (r#"{"pod": "test/web-0"}"#, "c"),
        (r#"{"container": "db"}"#, "b"),
        (r#"{"container": "c0ffee01"}"#, "a"),
        (r#"{"container": "c0ffee0101010000000000000000"}"#, "a"),
        (r#"{"cgroup": "/a"}"#, "c"),
        (r#"{"cgroup": "/sys/fs/cgroup/a/b/"}"#, "c"),
        // A host is taken at the user's word, by its name or its agent.
        (r#"{"host": "b", "pid": 1}"#, "b"),
        (r#"{"host": "0202020202", "pod": "no/where"}"#, "b"),
    ] {
        assert_eq!(of(text, &all), expected, "{text}");
    }
    for (text, tells) in [
        (r#"{"container": "web"}"#, "container web may be on several hosts, name the one you mean: a, c"),
        (r#"{"container": "c0ffee"}"#, "may be on several hosts, name the one you mean: a, b"),
        (r#"{"pid": 1}"#, "pid 1 may be on several hosts"),
        ("{}", "host may be on several hosts"),
        (r#"{"pod": "shop/web"}"#, "no host has told of pod shop/web in the last 15 minutes"),
        (r#"{"container": "c.*"}"#, "no host has told of container c.*"),
        (r#"{"cgroup": "/a/bc"}"#, "cgroup /a/bc was seen on d, and its agent has no stream"),
        (
            r#"{"host": "d"}"#,
            "no agent of a host \"d\" has a stream to this collector now; those that have: a, b, c",
        ),
    ] {
        assert!(of(text, &all).contains(tells), "{text}: {}", of(text, &all));
    }
    // With a single agent there is nothing to tell apart.
    assert_eq!(of(r#"{"pid": 1}"#, &all[..1]), "a");
    assert!(of("{}", &[]).contains("no agent has a stream"));
    let twins = [agent("01", "a"), agent("02", "a")];
    assert!(of(r#"{"host": "a"}"#, &twins).contains("a (agent 0101"));
    // What was seen long ago may be anywhere by now.
    let later = NOW_UNIX_NS + 3_600_000_000_000;
    assert!(ask(r#"{"pod": "shop/web-0"}"#, &all, later).contains("no host has told of"));
}

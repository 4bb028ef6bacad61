//! What TCP connections send again, on a wire that loses packets: against the kernel's own numbers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use aya::programs::{ProgramInfo, loaded_links, loaded_programs};
use chokepoint_analysis::coverage::Loss;
use chokepoint_analysis::profile::{Profile, Sample};
use chokepoint_tests::net::{SERVER_4, SERVER_6, Wire};
use chokepoint_tests::workload::{eventually, path};
use chokepoint_tests::{Agent, Workload, in_vm, live, skip_if};

/// Where the server listens: for the connection that is older than the recording,
const OLD: u16 = 7001;
/// for those that are not,
const NEW: u16 = 7002;
const NEW_6: u16 = 7003;
const MAPPED: u16 = 7004;
/// without its answers coming through.
const MUTE: u16 = 7005;
/// No packet for it arrives.
const DEAD: u16 = 7006;
/// It does not listen there.
const CLOSED: u16 = 7007;

/// Bytes that each connection sends.
const BYTES: &str = "8000000";
/// Per cent of the packets that are lost.
const LOSS_PCT: u32 = 5;

/// One end of a connection.
struct Client {
    workload: Workload,
    done: PathBuf,
}

impl Client {
    fn start(wire: &Wire, directory: &Path, how: &str, address: &str, port: u16) -> Self {
        let done = directory.join(format!("{how}-{port}"));
        let mut command = wire.client(&path("tcp_c"));
        command.args([how, address, &port.to_string(), BYTES]).arg(&done);
        Self { workload: Workload::start_program(&mut command), done }
    }

    fn send(&self) {
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(self.workload.pid() as i32, libc::SIGUSR1) };
    }

    /// Waits until the peer has everything.
    fn wait(&self) {
        eventually("the connection's end", || self.done.exists().then_some(()));
    }

    /// What the kernel told the program itself of its connection.
    fn truth(self) -> u64 {
        self.workload.truth()["retransmits"] as u64
    }
}

/// Whether the kernel programs that see retransmits are attached.
fn attached() -> Option<()> {
    // The kernel keeps fifteen bytes of a name, which both of them begin with.
    let sees = |program: &ProgramInfo| program.name_as_str() == Some("tcp_retransmit_");
    let programs: Vec<u32> = loaded_programs().flatten().filter(sees).map(|program| program.id()).collect();
    let links = loaded_links().flatten().filter(|link| programs.contains(&link.program_id())).count();
    (links >= 2).then_some(())
}

fn connected(pid: u32) -> Option<()> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    let local_and_remote = format!(":{OLD:04X} 01");
    table.contains(&local_and_remote).then_some(())
}

/// Names of a sample's frames, leaf first.
fn frames<'a>(profile: &'a Profile, sample: &Sample) -> Vec<&'a str> {
    let lines = profile.stack(sample.stack).iter().flat_map(|location| &profile.location(*location).lines);
    lines.map(|line| profile.function(line.function).name.as_str()).collect()
}

fn peer(address: &str, port: u16) -> String {
    let address = address.parse().expect("an address");
    format!("[tcp {}]", SocketAddr::new(address, port))
}

#[test]
fn retransmits_are_those_that_the_kernel_counts() {
    let _live = live();
    skip_if!(in_vm(), "the virtual machines' image has no tc");
    let Some(wire) = Wire::new() else {
        return eprintln!("skipped: this machine has no network namespaces, veth pairs or clsact queues");
    };
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let start = |how, address, port| Client::start(&wire, directory.path(), how, address, port);

    let ports = [OLD, NEW, NEW_6, MAPPED, MUTE].map(|port| port.to_string());
    let mut sink = wire.server(&path("tcp_c"));
    let sink = Workload::start_program(sink.arg("sink").args(&ports));
    let listens = || {
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp6", sink.pid())).ok()?;
        table.contains(&format!(":{MUTE:04X} ")).then_some(())
    };
    eventually("the server to listen", listens);
    let old = start("old", SERVER_4, OLD);
    eventually("the old connection", || connected(old.workload.pid()));
    let agent =
        Agent::new(["record", "-e", "retransmit", "--comm", "tcp_c", "-d", "5m", "-o", "out.json"]).start();
    eventually("the programs to be attached", attached);

    wire.lose(LOSS_PCT, DEAD, MUTE);
    let (before, syns_before) = (wire.retransmitted(), wire.syns_retransmitted());
    let clients = [
        (peer(SERVER_4, OLD), old),
        (peer(SERVER_4, NEW), start("new", SERVER_4, NEW)),
        (peer(SERVER_6, NEW_6), start("new", SERVER_6, NEW_6)),
        (peer(SERVER_4, MAPPED), start("new", &format!("::ffff:{SERVER_4}"), MAPPED)),
        (peer(SERVER_4, MUTE), start("try", SERVER_4, MUTE)),
        (peer(SERVER_4, DEAD), start("try", SERVER_4, DEAD)),
        (peer(SERVER_4, CLOSED), start("try", SERVER_4, CLOSED)),
    ];
    sleep(Duration::from_millis(300));
    for (_, client) in &clients {
        client.send();
    }
    for (_, client) in &clients {
        client.wait();
    }
    let mut last = wire.retransmitted();
    eventually("nothing more to be sent again", || {
        sleep(Duration::from_millis(1500));
        let now = wire.retransmitted();
        (std::mem::replace(&mut last, now) == now).then_some(())
    });
    agent.signal(libc::SIGINT);
    let finished = agent.finish().succeeded();
    let (after, syns_after) = (wire.retransmitted(), wire.syns_retransmitted());
    assert_eq!(after, last, "something was sent again while the agent ended");
    eprintln!("{}", finished.stderr);

    let profile = finished.profile("out.json");
    let pids: Vec<u32> = clients.iter().map(|(_, client)| client.workload.pid()).collect();
    let truth: Vec<u64> = clients.into_iter().map(|(_, client)| client.truth()).collect();
    let peers = [
        peer(SERVER_4, OLD),
        peer(SERVER_4, NEW),
        peer(SERVER_6, NEW_6),
        peer(SERVER_4, MAPPED),
        peer(SERVER_4, MUTE),
        peer(SERVER_4, DEAD),
        peer(SERVER_4, CLOSED),
    ];

    eprintln!(
        "measured: {truth:?} by connection, {} in all, {} SYNs",
        after - before,
        syns_after - syns_before
    );
    // The sum is the kernel's, SYN-ACKs of the server included; but for events within another one's, which are told as lost. Of a
    // connection that goes on, the next event tells what the lost one did not.
    let within = |loss: &&Loss| loss.cause == "within another event";
    let missed: u64 = profile.coverage.lost.iter().filter(within).map(|loss| loss.samples).sum();
    let told = profile.total_weight();
    let is = |told: u64, truth: u64| (told..=told + missed).contains(&truth);
    assert!(is(told, after - before), "{told} and {missed} lost: {}", finished.stderr);
    assert_eq!(profile.coverage.attempted, profile.coverage.captured + missed);

    let mut of_peer: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in &profile.samples {
        of_peer.entry(frames(&profile, sample)[0]).or_default().push(sample);
    }
    // The kernel forgets the count of a connection that could not be made.
    let is_made = |peer: &String| peers[..4].contains(peer);
    for ((peer, pid), truth) in peers.iter().zip(&pids).zip(&truth) {
        let samples = of_peer.remove(peer.as_str()).unwrap_or_default();
        let seen: u64 = samples.iter().map(|sample| sample.weight).sum();
        if is_made(peer) {
            assert!(is(seen, *truth), "{peer}: {seen}, {}", finished.stderr);
        } else {
            assert_eq!(seen > 0, peer != &peers[6], "{peer}: {}", finished.stderr);
        }
        for sample in samples {
            let thread = profile.thread(sample.thread);
            assert_eq!((thread.pid, thread.process_name.as_str()), (*pid, "tcp_c"), "{peer}");
            let names = frames(&profile, sample);
            let sends = names.contains(&"send_pieces") && names.contains(&"deliver");
            let opens = names.contains(&"open_connection");
            assert!(sends || opens, "{peer}: {names:?}");
            assert!(names.contains(&"main"), "{peer}: {names:?}");
            // Nobody saw it open.
            assert!(!(opens && peer == &peers[0]), "{peer}: {names:?}");
        }
    }
    // So the comparison is not of nothing.
    assert!(truth[..4].iter().all(|retransmits| *retransmits > 0), "{truth:?}");

    // What is left is the server's: its answers to the SYNs of the connection that it cannot answer.
    let synacks: u64 = of_peer.values().flatten().map(|sample| sample.weight).sum();
    assert!(synacks > 0, "{}", finished.stderr);
    let total = finished.stderr.lines().find(|line| line.ends_with(" peers")).expect("a table");
    let total: Vec<u64> = total.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    assert_eq!((total[0], total[2]), (told, synacks), "{}", finished.stderr);
    assert!(is(total[1] + total[2], syns_after - syns_before), "{}", finished.stderr);
    for sample in of_peer.values().flatten() {
        assert_eq!(profile.thread(sample.thread).pid, sink.pid(), "{:?}", frames(&profile, sample));
    }
    // The reset that the closed port answered with.
    let closed = finished.stderr.lines().find(|line| line.contains(&format!("tcp {SERVER_4}:{CLOSED}")));
    let numbers: Vec<&str> = closed.expect("it is told").split_ascii_whitespace().take(5).collect();
    assert_eq!(numbers, ["0", "0", "0", "0", "1"], "{}", finished.stderr);
}

//! Statistics of TCP connections that lose nothing, beside what `ss` says of them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use chokepoint_analysis::connections::Connection;
use chokepoint_tests::workload::{eventually, on_path};
use chokepoint_tests::{Agent, live, skip_if};

/// A connection of this process with itself, by loopback.
struct Pair {
    near: TcpStream,
    far: TcpStream,
}

impl Pair {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let near = TcpStream::connect(listener.local_addr().expect("it listens")).expect("it accepts");
        let (far, _) = listener.accept().expect("it has connected");
        Self { near, far }
    }

    fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.near.local_addr().expect("it is open"), self.near.peer_addr().expect("it is open"))
    }
}

/// What `ss` says of a connection: words such as `cwnd:10` by their names, numbers up to the first of other letters.
fn ss(ends: (SocketAddr, SocketAddr), name: &str) -> Option<f64> {
    let (local, remote) = ends;
    let mut command = Command::new("ss");
    command.args(["-tinH", "src", &local.to_string(), "dst", &remote.to_string()]);
    let output = command.output().expect("ss can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = text.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'))?;
    let end = word.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(word.len());
    word[..end].parse().ok()
}

fn record(seconds: &str) -> (Vec<Connection>, String) {
    let pid = std::process::id().to_string();
    let arguments = ["record", "-e", "retransmit", "--pid", &pid, "-d", seconds, "-o", "out.json"];
    let finished = Agent::new(arguments).run().succeeded();
    eprintln!("{}", finished.stderr);
    (finished.profile("out.json").connections, finished.stderr)
}

fn of(connections: &[Connection], ends: (SocketAddr, SocketAddr)) -> &Connection {
    let found = connections.iter().find(|connection| (connection.local, connection.remote) == ends);
    found.unwrap_or_else(|| panic!("{ends:?} is not in {connections:?}"))
}

#[test]
fn what_is_told_of_a_connection_is_what_ss_says() {
    let _live = live();
    skip_if!(!on_path("ss"), "this machine has no ss");
    let mut pair = Pair::new();
    // It waits for its turns, so that it has a history, and is then silent, so that nothing of it changes.
    let mut byte = [0];
    for _ in 0..50 {
        pair.near.write_all(&[1; 2_000]).expect("it is open");
        pair.far.read_exact(&mut [0; 2_000]).expect("it comes");
        pair.far.write_all(&[1]).expect("it is open");
        pair.near.read_exact(&mut byte).expect("it comes");
    }
    let ends = pair.ends();
    skip_if!(ss(ends, "rtt").is_none(), "ss tells nothing here: this kernel has no tcp_diag");
    let (connections, told) = record("500ms");
    let connection = of(&connections, ends);
    eprintln!("measured: {connection:?}");
    assert_eq!((connection.pid, connection.open), (Some(std::process::id()), true));
    // Thousandths of a millisecond.
    assert_eq!(Some(f64::from(connection.rtt_us)), ss(ends, "rtt").map(|ms| (ms * 1e3).round()));
    assert_eq!(Some(f64::from(connection.min_rtt_us)), ss(ends, "minrtt").map(|ms| (ms * 1e3).round()));
    assert_eq!(Some(f64::from(connection.congestion_window)), ss(ends, "cwnd"));
    // All it did was before the window.
    assert_eq!((connection.bytes(), connection.retransmits, connection.busy_ns), (0, 0, 0));
    assert!(!told.contains(&ends.0.to_string()), "what carried nothing is not in the summary: {told}");
}

#[test]
fn a_connection_whose_receiver_does_not_read_is_limited_by_it() {
    let _live = live();
    skip_if!(!on_path("ss"), "this machine has no ss");
    let pair = Pair::new();
    let ends = pair.ends();
    skip_if!(ss(ends, "rto").is_none(), "ss tells nothing here: this kernel has no tcp_diag");
    let mut sender = pair.near.try_clone().expect("it can be");
    let writer = std::thread::spawn(move || {
        let mut sent = 0;
        // Until the other end goes away.
        while let Ok(bytes) = sender.write(&[1; 65_536]) {
            sent += bytes;
        }
        sent
    });
    eventually("the receiver's window to be full", || (ss(ends, "rwnd_limited")? > 10.0).then_some(()));
    let before_ms = ss(ends, "rwnd_limited").expect("it is limited");
    let (connections, told) = record("2s");
    let after_ms = ss(ends, "rwnd_limited").expect("it is limited");
    pair.far.shutdown(Shutdown::Both).expect("it is open");
    let _ = pair.near.shutdown(Shutdown::Both);
    let _sent = writer.join().expect("it ends");
    let connection = of(&connections, ends);
    let limited_ms = connection.receiver_limited_ns as f64 / 1e6;
    eprintln!("measured: {limited_ms:.0} ms limited by the receiver, ss says {:.0}", after_ms - before_ms);
    // The window lies between the two questions, and it is limited all the time. The kernel counts in ticks, of 10 ms at most.
    let window_ms = Duration::from_secs(2).as_millis() as f64;
    assert!(limited_ms >= window_ms - 20.0 && limited_ms <= after_ms - before_ms + 20.0, "{connection:?}");
    assert!(connection.busy_ns >= connection.receiver_limited_ns);
    // Nothing goes through, and the summary says what holds it back.
    let line = told.lines().find(|line| line.contains(&format!("tcp {}-{}", ends.0, ends.1)));
    assert!(line.expect("it is told").contains(" s, 100%, 0%, 0%"), "{told}");
}

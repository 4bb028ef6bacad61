//! Hosts that send windows to a real collector, without an agent on them: so many that a machine has no room for their agents.

use std::net::SocketAddr;

use chokepoint_proto::stream::collector_client::CollectorClient;
use chokepoint_proto::stream::{
    Batch, Dictionary, FromAgent, Hello, Label, Profile, Signal, Subject, Unit, Verdict, Window, from_agent,
    from_collector,
};
use prost::Message;
use tokio_stream::wrappers::ReceiverStream;

/// Length of a window.
const WINDOW_NS: u64 = 10_000_000_000;
/// Zones that the hosts are spread over.
pub const ZONES: u64 = 4;
/// Of so many hosts one is limited.
pub const HOSTS_OF_ONE_LIMITED: u64 = 8;
/// What limits them.
pub const CONSTRAINT: &str = "cpu.saturated";

/// Has so many hosts, `host-0` on, each send so many windows, of which the last one ends at this time: each with a verdict, with how
/// busy its CPUs are, and with a thread's time.
///
/// # Panics
/// Where the collector does not take them.
pub fn send(collector: SocketAddr, hosts: u64, windows: u64, until_unix_ns: u64) {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio.block_on(async {
        for host in 0..hosts {
            send_one(collector, host, windows, until_unix_ns).await;
        }
    });
}

async fn send_one(collector: SocketAddr, host: u64, windows: u64, until_unix_ns: u64) {
    let mut client = CollectorClient::connect(format!("http://{collector}")).await.expect("it listens");
    let (outgoing, messages) = tokio::sync::mpsc::channel(8);
    let message = |message| FromAgent { message: Some(message) };
    outgoing.send(message(from_agent::Message::Hello(hello(host)))).await.expect("a channel");
    let answers = client.exchange(ReceiverStream::new(messages)).await.expect("it speaks");
    let mut answers = answers.into_inner();
    for number in 0..windows {
        let start_unix_ns = until_unix_ns - (windows - number) * WINDOW_NS;
        let window = window(host, start_unix_ns, number == 0);
        let bytes = window.encode_to_vec();
        let batch = Batch {
            sequence: number + 1,
            window_bytes: bytes.len() as u64,
            window: zstd::bulk::compress(&bytes, 1).expect("it compresses"),
            ..Batch::default()
        };
        outgoing.send(message(from_agent::Message::Batch(batch))).await.expect("a channel");
        loop {
            let answer = answers.message().await.expect("it goes on").expect("it answers");
            if let Some(from_collector::Message::Answer(answer)) = answer.message {
                assert_eq!(answer.refused, "", "of host {host}");
                break;
            }
        }
    }
}

fn hello(host: u64) -> Hello {
    Hello {
        protocol: 1,
        agent: [host.to_le_bytes(), [9; 8]].concat(),
        host: format!("host-{host}"),
        kernel: "6.1.0".to_owned(),
        program: "0.1.0".to_owned(),
        cpus: 2,
        labels: vec![Label { name: "zone".to_owned(), value: format!("z{}", host % ZONES) }],
    }
}

/// A window; the first one of a stream brings the names.
fn window(host: u64, start_unix_ns: u64, is_first: bool) -> Window {
    let names = ["", "cpu.utilization", "cpu", "utilization", "%", "web", "cpu.user", "service"];
    let dictionary = Dictionary {
        reset: true,
        strings: names.map(str::to_owned).to_vec(),
        subjects: vec![Subject { process: 5, thread: 5, labels: vec![7, 5] }],
        ..Dictionary::default()
    };
    let is_limited = host.is_multiple_of(HOSTS_OF_ONE_LIMITED);
    let busy = if is_limited { 99.0 } else { 20.0 };
    let verdict = if is_limited {
        Verdict {
            code: CONSTRAINT.to_owned(),
            confidence: 0.9,
            severity: 3,
            share: 0.5,
            summary: "threads want more CPUs than there are, and queue 50 % of their time".to_owned(),
            diagnosis: "{}".to_owned(),
        }
    } else {
        Verdict {
            code: "none.healthy".to_owned(),
            confidence: 0.9,
            summary: "nothing limits it".to_owned(),
            diagnosis: "{}".to_owned(),
            ..Verdict::default()
        }
    };
    Window {
        start_unix_ns,
        duration_ns: WINDOW_NS,
        dictionary: is_first.then_some(dictionary),
        profiles: vec![Profile {
            kind: "wall".to_owned(),
            unit: Unit::Nanoseconds.into(),
            subject: vec![0],
            stack: vec![0],
            class: vec![6],
            count: vec![1],
            weight: vec![WINDOW_NS / 100 * busy as u64],
        }],
        signals: vec![Signal {
            name: 1,
            instance: 0,
            resource: 2,
            kind: 3,
            unit: 4,
            value: busy,
            p50: busy,
            p95: busy,
            p99: busy,
            p999: busy,
            max: busy,
            level: if is_limited { 2 } else { 0 },
        }],
        verdict: Some(verdict),
        ..Window::default()
    }
}

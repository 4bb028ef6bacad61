//! Agents that stream to a collector of their own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use chokepoint_proto::dictionary::{Limits, Sender};
use chokepoint_proto::stream::collector_client::CollectorClient;
use chokepoint_proto::stream::{Batch, FromAgent, from_agent, from_collector};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::recorded::{Recorded, hello};

/// Length of a window.
const WINDOW: Duration = Duration::from_secs(10);
/// Hosts that differ in what their windows weigh; each stands for some of the agents.
const VARIANTS: u64 = 8;
/// What agents remember of a stream, as the agent does.
const REMEMBERED: Limits = Limits { entries: 1 << 16, string_bytes: 4 << 20, parts: 1 << 17 };
/// How often the collector is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Clock ticks of a second in `/proc`.
const TICKS: f64 = 100.0;

/// A window as a stream carries it, without when it began: that is a frame of its own.
struct Prepared {
    frame: Vec<u8>,
    bytes: u64,
}

#[derive(Default)]
struct Counts {
    due: AtomicU64,
    sent_bytes: AtomicU64,
    answered: AtomicU64,
    /// Of all answers together, milliseconds.
    waited_ms: AtomicU64,
    slowest_ms: AtomicU64,
    failed: AtomicU64,
}

/// Streams for so long, and prints what it took.
pub fn stream(program: &Path, store: &Path, agents: u64, seconds: u64) {
    let windows = seconds / WINDOW.as_secs() + 1;
    eprintln!("preparing {windows} windows of {VARIANTS} hosts");
    let variants: Vec<Arc<Vec<Prepared>>> =
        (0..VARIANTS).map(|host| Arc::new(prepare(host, windows))).collect();
    let collector = Collector::start(program, store);
    let counts = Arc::new(Counts::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let begin = Instant::now();
    for agent in 0..agents {
        let prepared = Arc::clone(&variants[(agent % VARIANTS) as usize]);
        let (address, counts) = (collector.address.clone(), Arc::clone(&counts));
        let first = tokio::time::Instant::from_std(begin) + WINDOW.mul_f64(agent as f64 / agents as f64);
        runtime.spawn(async move {
            if let Err(error) = one(agent, &address, &prepared, first, &counts).await {
                eprintln!("agent {agent}: {error}");
                counts.failed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (mut last, mut peak_late) = ((0, 0.0, 0), 0);
    while begin.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(LOOK);
        let (resident, cpu_s) = collector.usage();
        let (due, answered, waited) = (get(&counts.due), get(&counts.answered), get(&counts.waited_ms));
        let (own, time) = ((answered - last.0).max(1), LOOK.as_secs_f64());
        println!(
            "# {:.0} s: {:.0} windows/s, {} late, answers after {} ms, resident {resident} kB, {:.2} CPUs",
            begin.elapsed().as_secs_f64(),
            own as f64 / time,
            due - answered,
            (waited - last.2) / own,
            (cpu_s - last.1) / time,
        );
        // Within the first windows all names come.
        if begin.elapsed() > 3 * WINDOW {
            peak_late = peak_late.max(due - answered);
        }
        last = (answered, cpu_s, waited);
    }
    let (_, cpu_s) = collector.usage();
    println!("agents {agents}");
    println!("seconds {:.1}", begin.elapsed().as_secs_f64());
    println!("answered {}", get(&counts.answered));
    println!("late_at_most {peak_late}");
    println!("failed {}", get(&counts.failed));
    println!("sent_bytes {}", get(&counts.sent_bytes));
    println!("slowest_answer_ms {}", get(&counts.slowest_ms));
    println!("cpu_s {cpu_s:.1}");
    println!("peak_resident_kb {}", collector.status("VmHWM"));
    println!("resident_kb {}", collector.status("VmRSS"));
    runtime.shutdown_background();
}

fn prepare(host: u64, windows: u64) -> Vec<Prepared> {
    let recorded = Recorded::load();
    let mut sender = Sender::with_limits(REMEMBERED);
    let prepare = |number| {
        // The time is not in it.
        let window = recorded.window(host, number, 0, WINDOW.as_nanos() as u64);
        let bytes = sender.next(&window).expect("a whole window").encode_to_vec();
        Prepared { frame: zstd::bulk::compress(&bytes, 3).expect("it compresses"), bytes: bytes.len() as u64 }
    };
    (0..windows).map(prepare).collect()
}

/// One agent, for as long as it has windows.
async fn one(
    agent: u64,
    address: &str,
    prepared: &[Prepared],
    first: tokio::time::Instant,
    counts: &Counts,
) -> Result<(), String> {
    tokio::time::sleep_until(first).await;
    let mut client =
        CollectorClient::connect(format!("http://{address}")).await.map_err(|error| error.to_string())?;
    let (outgoing, messages) = mpsc::channel(1);
    let _ = outgoing.try_send(FromAgent { message: Some(from_agent::Message::Hello(hello(agent))) });
    let incoming = client.exchange(ReceiverStream::new(messages)).await.map_err(|error| error.to_string())?;
    let mut incoming = incoming.into_inner();
    let mut sent: Vec<Instant> = Vec::new();
    for (number, window) in (0..).zip(prepared) {
        tokio::time::sleep_until(first + WINDOW * number).await;
        counts.due.fetch_add(1, Ordering::Relaxed);
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos() as u64;
        // Field 1, a fixed number of 8 bytes.
        let start: Vec<u8> = [9].into_iter().chain((now - WINDOW.as_nanos() as u64).to_le_bytes()).collect();
        let mut bytes = zstd::bulk::compress(&start, 1).expect("it compresses");
        bytes.extend_from_slice(&window.frame);
        counts.sent_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let batch = Batch {
            sequence: u64::from(number) + 1,
            window: bytes,
            window_bytes: window.bytes + start.len() as u64,
            dropped_batches: 0,
        };
        sent.push(Instant::now());
        let message = FromAgent { message: Some(from_agent::Message::Batch(batch)) };
        outgoing.send(message).await.map_err(|_| "the stream has ended".to_owned())?;
        loop {
            let message = incoming.message().await.map_err(|status| status.to_string())?;
            match message.and_then(|message| message.message) {
                Some(from_collector::Message::Answer(answer)) if answer.refused.is_empty() => {
                    let waited = sent[answer.sequence as usize - 1].elapsed().as_millis() as u64;
                    counts.answered.fetch_add(1, Ordering::Relaxed);
                    counts.waited_ms.fetch_add(waited, Ordering::Relaxed);
                    counts.slowest_ms.fetch_max(waited, Ordering::Relaxed);
                    break;
                }
                Some(from_collector::Message::Welcome(_)) => {}
                other => return Err(format!("{other:?} instead of an answer")),
            }
        }
    }
    Ok(())
}

/// The real program, until this is dropped.
struct Collector {
    child: Child,
    address: String,
}

impl Collector {
    fn start(program: &Path, store: &Path) -> Self {
        let child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store"])
            .arg(store)
            .env("CHOKEPOINT_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn();
        let mut collector = Self { child: child.expect("it starts"), address: String::new() };
        let mut line = String::new();
        BufReader::new(collector.child.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("a line");
        collector.address = line.trim().strip_prefix("listening on ").expect("its address").to_owned();
        collector
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
    }

    /// Resident memory, kB, and CPU time, seconds.
    fn usage(&self) -> (u64, f64) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<f64>().expect("a number");
        (self.status("VmRSS"), (ticks(11) + ticks(12)) / TICKS)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

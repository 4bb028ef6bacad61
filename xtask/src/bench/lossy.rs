//! A network of its own that loses packets, and connections that send through it as fast as they can.

use std::{
    env, fs,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Connections at a time. Each waits most of the time until it may send again.
const CONNECTIONS: usize = 64;
/// Per cent of the packets with data that are lost.
const LOSS_PCT: u64 = 10;

/// What came of some seconds of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// How long it sent.
    pub seconds: f64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// The kernel's `TcpRetransSegs` of the network.
    pub retransmits: u64,
}

/// A network namespace whose loopback device loses packets; removed when dropped.
pub struct Network(String);

impl Network {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let network = Self(format!("cpbench{}", std::process::id()));
        let name = &network.0;
        let threshold = u64::from(u32::MAX) * LOSS_PCT / 100;
        // Classic BPF: of packets longer than 200 bytes those whose random number (32 0 0 -4040) is low are dropped (6 0 0 2).
        let filter =
            format!("6,128 0 0 0,37 0 3 200,32 0 0 4294963256,37 1 0 {threshold},6 0 0 2,6 0 0 4294967295");
        run(&["ip", "netns", "add", name])?;
        run(&["ip", "-n", name, "link", "set", "lo", "up", "mtu", "1500"])?;
        run(&["tc", "-n", name, "qdisc", "add", "dev", "lo", "clsact"])?;
        run(&["tc", "-n", name, "filter", "add", "dev", "lo", "ingress", "bpf", "da", "bytecode", &filter])?;
        Ok(network)
    }

    /// Sends through it for some time.
    pub fn send(&self, duration: Duration) -> Result<Sent> {
        let program = env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        let output = command.args(["lossy", &duration.as_secs().to_string()]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Fails only if it is gone already.
        let _ = run(&["ip", "netns", "del", &self.0]);
    }
}

/// Sends for some seconds in the network that this process is in, and prints a [`Sent`].
pub fn run_inside(seconds: u64) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (arrived, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let sink = Arc::clone(&arrived);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sink = Arc::clone(&sink);
            thread::spawn(move || drain(stream, &sink));
        }
    });
    let (before, start) = (retransmitted()?, Instant::now());
    for _ in 0..CONNECTIONS {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            let Ok(mut stream) = TcpStream::connect(address) else { return };
            while !over.load(Ordering::Relaxed) && stream.write_all(&[0; 1 << 14]).is_ok() {}
        });
    }
    thread::sleep(Duration::from_secs(seconds));
    let sent = Sent {
        seconds: start.elapsed().as_secs_f64(),
        bytes: arrived.load(Ordering::Relaxed),
        retransmits: retransmitted()? - before,
    };
    over.store(true, Ordering::Relaxed);
    println!("{}", serde_json::to_string(&sent)?);
    Ok(())
}

fn drain(mut stream: TcpStream, arrived: &AtomicU64) {
    let mut buffer = [0; 1 << 14];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(bytes) => _ = arrived.fetch_add(bytes as u64, Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn retransmitted() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let at = names.split(' ').position(|name| name == "RetransSegs");
    let number = at.and_then(|at| numbers.split(' ').nth(at)?.parse().ok());
    number.context("the kernel does not count retransmits")
}

fn run(command: &[&str]) -> Result<()> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .with_context(|| format!("cannot run {}", command[0]))?;
    ensure!(
        output.status.success(),
        "{}: {}",
        command.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

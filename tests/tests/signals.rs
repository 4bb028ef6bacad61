//! `chokepoint signals`: what the kernel counts is told, judged, and found where it was caused.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use chokepoint_tests::cgroup::Cgroup;
use chokepoint_tests::workload::{eventually, on_path, path};
use chokepoint_tests::{Agent, Workload, in_vm, live, skip_if};
use serde_json::Value;

/// What `chokepoint signals` says.
struct Signals(Value);

impl Signals {
    fn of(duration: &str) -> Self {
        Self::read(&Agent::new(["signals", "--json", "-d", duration]).run().succeeded().stdout)
    }

    fn read(text: &str) -> Self {
        let signals: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(signals["schema"], 1);
        Self(signals)
    }

    /// A signal; `None` where it is not told.
    fn get(&self, name: &str, instance: Option<&str>) -> Option<&Value> {
        let signals = self.0["signals"].as_array().expect("there are signals");
        signals.iter().find(|signal| {
            let is_it = |part: &str| signal["instance"].as_str().unwrap_or_default().contains(part);
            signal["name"] == name && instance.is_none_or(is_it)
        })
    }

    fn value(&self, name: &str) -> f64 {
        self.get(name, None).unwrap_or_else(|| panic!("{name} is missing: {}", self.0))["value"]
            .as_f64()
            .unwrap()
    }

    fn level(&self, name: &str) -> &str {
        self.get(name, None).unwrap_or_else(|| panic!("{name} is missing: {}", self.0))["level"]
            .as_str()
            .unwrap()
    }
}

/// Ticks of all CPUs: all, and those that were not idle.
fn ticks() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let fields = stat.lines().next().unwrap().split_ascii_whitespace().skip(1).take(8);
    let times: Vec<f64> = fields.map(|field| field.parse().unwrap()).collect();
    let all: f64 = times.iter().sum();
    (all, all - times[3] - times[4] - times[7])
}

#[test]
fn cpus_are_as_busy_as_they_are() {
    let _live = live();
    let _spinner = Workload::start("waits_c", &["spin"]);
    let (all, busy) = ticks();
    let signals = Signals::of("2");
    let (all, busy) = (ticks().0 - all, ticks().1 - busy);
    let expected = busy * 100.0 / all;
    let told = signals.value("cpu.utilization");
    // The test's window holds the agent's, its start and end besides, some hundredths of a second each.
    let tolerance = if in_vm() { 30.0 } else { 15.0 };
    assert!((told - expected).abs() < tolerance, "{told:.1} %, {expected:.1} % by /proc/stat");
    // The spinner wants one CPU for itself; what the hypervisor takes of it, it had none of.
    let cpus = std::thread::available_parallelism().unwrap().get() as f64;
    let stolen = signals.value("cpu.steal") * cpus;
    assert!(signals.value("cpu.busiest") + stolen > 60.0, "{}", signals.0);
    assert!(signals.value("cpu.runnable_per_cpu") >= 1.0 / cpus, "{}", signals.0);
    let window = signals.0["window_s"].as_f64().unwrap();
    assert!(window >= 2.0, "{window}");
    assert_eq!(signals.0["steps"], 10);
}

#[test]
fn a_full_queue_of_a_listening_socket() {
    let _live = live();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // SAFETY: the descriptor is open; a second call only sets the queue's length.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
    let watching = Agent::new(["signals", "--json", "-d", "3"]).start();
    std::thread::sleep(Duration::from_millis(700));
    // Nobody accepts: two fit, the others are dropped and try again.
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
    let connected: Vec<_> = (0..6).map(|_| connect()).collect();
    let refused = connected.iter().filter(|connection| connection.is_err()).count();
    assert!(refused > 0, "all were accepted");
    let signals = Signals::read(&watching.finish().succeeded().stdout);
    assert_eq!(signals.level("tcp.listen_overflows"), "warning");
    // Each that was refused met the full queue at least once in the window.
    let overflows = signals.value("tcp.listen_overflows") * signals.0["window_s"].as_f64().unwrap();
    assert!(overflows.round() >= refused as f64, "{overflows} overflows, {refused} connections refused");
}

#[test]
fn datagrams_that_find_no_room() {
    let _live = live();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let watching = Agent::new(["signals", "--json", "-d", "3"]).start();
    std::thread::sleep(Duration::from_millis(700));
    // The usual buffer holds 208 kB.
    for _ in 0..2_000 {
        match sender.send_to(&[7; 1_000], receiver.local_addr().unwrap()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    let signals = Signals::read(&watching.finish().succeeded().stdout);
    assert_eq!(signals.level("udp.receive_buffer_full"), "warning");
    let dropped = signals.value("udp.receive_buffer_full") * signals.0["window_s"].as_f64().unwrap();
    // More than half: the buffer counts what a datagram takes in memory.
    assert!((1_000.0..=2_001.0).contains(&dropped), "{dropped}");
}

#[test]
fn a_process_near_its_limit_of_open_files() {
    let _live = live();
    let mut command = Command::new(path("waits_c"));
    command.arg("spin");
    // SAFETY: both calls are safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
            for number in 3..63 {
                libc::dup2(0, number);
            }
            Ok(())
        });
    }
    let workload = Workload::start_program(&mut command);
    let files = format!("/proc/{}/fd", workload.pid());
    eventually("its files", || (std::fs::read_dir(&files).ok()?.count() > 60).then_some(()));
    let signals = Signals::of("500ms");
    let instance = format!("waits_c ({})", workload.pid());
    let signal =
        signals.get("limit.process_files", Some(&instance)).unwrap_or_else(|| panic!("{}", signals.0));
    // 63 of 64, and what the program opened itself.
    assert!(signal["value"].as_f64().unwrap() > 95.0, "{signal}");
    assert_eq!(signal["level"], "critical");
}

#[test]
fn a_group_that_uses_up_its_quota() {
    let _live = live();
    let Some(group) = Cgroup::with_quota("chokepoint-quota", 20) else {
        skip_if!(true, "no cpu controller is to be had");
        return;
    };
    let workload = Workload::start("waits_c", &["spin"]);
    group.add(workload.pid());
    let signals = Signals::of("2");
    let name = Some("chokepoint-quota");
    let throttled = signals.get("group.throttled_periods", name).unwrap_or_else(|| panic!("{}", signals.0));
    // It always wants more than it may have. Where the host is so full that it does not get that much, nothing is held back.
    assert!(throttled["value"].as_f64().unwrap() > if in_vm() { 20.0 } else { 50.0 }, "{throttled}");
    assert_ne!(throttled["level"], "none");
    if let Some(quota) = signals.get("group.cpu_quota", name) {
        let used = quota["value"].as_f64().unwrap();
        // A period and its slice more or less.
        assert!((40.0..140.0).contains(&used), "{quota}");
    }
}

#[test]
fn an_ordinary_user_sees_all_but_the_files_of_others() {
    let _live = live();
    skip_if!(!on_path("setpriv"), "there is no setpriv");
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let finished = Agent::through(&nobody, ["signals", "--json", "-d", "300ms"]).run().succeeded();
    let signals = Signals::read(&finished.stdout);
    signals.value("cpu.utilization");
    signals.value("memory.utilization");
    let missing = signals.0["missing"].to_string();
    assert!(missing.contains("run as root"), "{missing}");
}

#[test]
fn what_it_prints_for_people() {
    let _live = live();
    let finished =
        Agent::new(["signals", "-d", "300ms", "--level", "memory.utilization=0,0"]).run().succeeded();
    let first = finished.stdout.lines().nth(3).unwrap_or_default();
    assert!(first.starts_with("critical"), "{}", finished.stdout);
    assert!(finished.stdout.contains("critical  memory.utilization"), "{}", finished.stdout);
    assert!(!finished.stdout.contains('\x1b'), "a pipe gets no colours");

    let list = Agent::new(["signals", "--list"]).run().succeeded().stdout;
    assert!(list.contains("cpu.utilization [%]; warning 75, critical 90"), "{list}");
    let wrong = Agent::new(["signals", "--level", "cpu.use=1,2"]).run();
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("there is no signal cpu.use"), "{}", wrong.stderr);
}

//! Profiles on demand: a real collector has a real agent record one target, and whatever ends before its time leaves nothing behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use chokepoint_analysis::export::json;
use chokepoint_analysis::profile::Profile;
use chokepoint_tests::agent::Running;
use chokepoint_tests::bpf::Objects;
use chokepoint_tests::cgroup::Cgroup;
use chokepoint_tests::containers::{Containerd, processes_of};
use chokepoint_tests::serving::{ANY_PORT, Serving};
use chokepoint_tests::stacks::{pids, share_with};
use chokepoint_tests::{Agent, Workload, in_vm, live, skip_if};
use serde_json::Value;
use tempfile::TempDir;

/// Files that a small C program maps: itself, the C library, the loader. One more for what a distribution adds.
const FILES_OF_A_SMALL_PROGRAM: u64 = 4;
/// An unoptimised build on a busy machine takes many seconds to load its programs, and to name what they saw.
const PATIENCE: Duration = Duration::from_secs(120);
/// Burns CPU time in a container for as long as it lives.
const SPIN: &[&str] = &["sh", "-c", "while :; do :; done"];

/// Waits until something holds.
fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A collector and an agent with a stream to it.
struct Fleet {
    collector: Serving,
    agent: Running,
    directory: TempDir,
    /// What the agent has in the kernel when it is left alone.
    alone: Objects,
}

impl Fleet {
    fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let collector = Serving::start(&directory.path().join("store"), ANY_PORT, ANY_PORT);
        let (url, state) = (format!("http://{}", collector.grpc), directory.path().join("state"));
        let state = state.to_string_lossy();
        let fixed = ["--log", "warn,chokepoint=info", "agent", "--collector", &url, "--state-dir", &state];
        // An unoptimised build is not to be slowed down by its own governor.
        let always = ["--window", "2s", "--max-overhead", "100%", "--commands-per-minute", "60"];
        let agent = Agent::new(fixed.iter().chain(&always).chain(options)).start();
        let fleet = Self { collector, agent, directory, alone: Objects::default() };
        // Until then it may not have loaded all that is its own.
        let stored = "chokepoint_collector_batches_stored_total";
        eventually("an agent's first window", || (fleet.metric(stored) > 0).then_some(()));
        Self { alone: Objects::now(), ..fleet }
    }

    fn metric(&self, name: &str) -> u64 {
        let (_, page) = self.collector.ask("GET", "/metrics", "");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
    }

    fn profile(&self, arguments: &[&str]) -> Output {
        self.collector.profile(arguments).output().expect("the collector can be run")
    }

    /// The same into a file of this name.
    fn file(&self, name: &str, arguments: &[&str]) -> Vec<u8> {
        let path = self.directory.path().join(name);
        let output = self.profile(&[arguments, &["-o", &path.to_string_lossy()]].concat());
        succeeded(&output);
        std::fs::read(path).expect("it was written")
    }

    fn recording(&self, arguments: &[&str]) -> Profile {
        json::read(&mut &self.file("all.json", arguments)[..]).expect("a recording")
    }

    fn start_profile(&self, arguments: &[&str]) -> Child {
        let output = self.directory.path().join("none.svg");
        let output = output.to_string_lossy();
        let arguments = [arguments, &["-o", &output]].concat();
        let child = self.collector.profile(&arguments).spawn().expect("the collector can be run");
        self.recorder();
        child
    }

    /// The recording's process, as soon as it has its programs in the kernel.
    fn recorder(&self) -> u32 {
        eventually("a recording that runs", || {
            let pid = *recorders(self.agent.pid()).first()?;
            (Objects::now().programs > self.alone.programs).then_some(pid)
        })
    }

    /// Only what the agent has for itself is left.
    fn is_alone(&self) {
        eventually("the end of the recording", || {
            let left = (recorders(self.agent.pid()), Objects::now());
            (left == (Vec::new(), self.alone)).then_some(())
        });
    }

    fn shown(&self) -> Value {
        let (status, list) = self.collector.ask("GET", "/api/v1/profile", "");
        assert_eq!(status, 200, "{list}");
        let list: Value = serde_json::from_str(&list).expect("JSON");
        list["profiles"][0].clone()
    }
}

fn succeeded(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}: {said}", output.status);
    said
}

fn failed(output: &Output, code: i32, tells: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(tells), "{tells:?} is not in {said}");
}

/// Processes that an agent has started.
fn recorders(agent: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{agent}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    children
        .flat_map(|pids| pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: the child has not been waited for, so the number is still its own.
    unsafe { libc::kill(child.id() as i32, signal) };
}

#[test]
fn one_process_is_recorded_and_nothing_else() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no collector");
    let fleet = Fleet::start(&[]);
    let (wanted, other) = (Workload::start("waits_c", &["spin"]), Workload::start("waits_c", &["spin"]));
    let pid = wanted.pid().to_string();

    let start = Instant::now();
    let path = fleet.directory.path().join("all.json");
    let output = fleet.profile(&["--pid", &pid, "-F", "499", "-d", "3s", "-o", &path.to_string_lossy()]);
    let over = start.elapsed().saturating_sub(Duration::from_secs(3));
    let said = succeeded(&output);
    println!("from the command to its end: 3 s and {:.2} s; {said}", over.as_secs_f64());
    let profile = json::read(&mut &std::fs::read(&path).expect("it was written")[..]).expect("a recording");
    assert_eq!(pids(&profile), BTreeSet::from([wanted.pid()]), "not {}", other.pid());
    assert!(profile.thread_times.iter().all(|time| time.pid == wanted.pid()));
    assert!(share_with(&profile, "main") > 0.9, "{}", share_with(&profile, "main"));
    assert_eq!((profile.header.kind.as_str(), profile.header.target), ("all", format!("pid {pid}")));
    // The other one and the rest of the host were met and let go.
    assert!(profile.coverage.outside_target > 0, "{:?}", profile.coverage);
    assert!(said.contains("cpu.") && said.contains("confidence"), "{said}");

    // What else can be made of it, and each is asked for anew.
    let svg = String::from_utf8(fleet.file("flame.svg", &["--pid", &pid, "-d", "1s"])).expect("text");
    assert!(svg.contains("<svg") && svg.contains("main"));
    let shown = fleet.shown();
    println!("{shown}");
    assert_eq!((&shown["state"], &shown["target"]), (&"done".into(), &format!("pid {pid}").into()));
    let id = shown["id"].as_str().expect("an id");
    for (file, begins) in [("profile.pb.gz", "\u{1f}"), ("speedscope", "{"), ("folded?type=wall", "waits_c;")]
    {
        let (status, body) = fleet.collector.ask("GET", &format!("/api/v1/profile/{id}/{file}"), "");
        assert!(status == 200 && body.contains(begins), "{file}: {status} {body}");
    }
    let (status, answer) = fleet.collector.ask("GET", &format!("/api/v1/profile/{id}"), "");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert!(status == 200 && answer["outcome"]["diagnosis"]["verdict"]["code"].is_string(), "{answer}");
    fleet.is_alone();

    // It is told what it cost, beside the agent's own.
    let cost = eventually("a window that tells the cost", || {
        let signals = fleet.collector.query(&["signals", "agent.demand_cpu", "--all"]);
        let values = signals["signals"][0]["values"].as_array()?;
        let sum: f64 = values.iter().filter_map(|value| value["value"].as_f64()).sum();
        (sum > 0.0).then_some(sum)
    });
    println!("of a window of 2 s, the recordings took {cost:.1} % of a CPU in all");
    fleet.agent.signal(libc::SIGTERM);
    let finished = fleet.agent.finish().succeeded();
    // Only files of the target got tables; the agent itself has dozens.
    let tables = finished.stderr.lines().filter(|line| line.contains("a recording on demand has ended"));
    let tables: Vec<u64> =
        tables.filter_map(|line| line.split(" tables=").nth(1)?.split(' ').next()?.parse().ok()).collect();
    println!("unwind tables: {tables:?}");
    assert_eq!(tables.len(), 2, "{}", finished.stderr);
    assert!(tables.iter().all(|tables| (1..=FILES_OF_A_SMALL_PROGRAM).contains(tables)), "{tables:?}");
}

#[test]
fn groups_and_containers_are_found_by_what_the_host_has_told() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no collector");
    let id = "c0ffee".repeat(10) + "4321";
    let hierarchy = Cgroup::v2_mount().unwrap_or_else(|| "/sys/fs/cgroup/cpu".into());
    let Some(group) = Cgroup::new(&hierarchy, "chokepoint-demand") else {
        skip_if!(true, "no control groups are to be had");
        return;
    };
    let container = group.child(&format!("docker-{id}.scope"));
    let workload = Workload::start("waits_c", &["spin"]);
    container.add(workload.pid());
    let fleet = Fleet::start(&[]);
    // Until a window has told of it, it is nowhere.
    let told = |label: &str| {
        let labels = fleet.collector.query(&["labels", "--values", label]);
        labels["values"]
            .as_array()
            .is_some_and(|values| values.iter().any(|value| value == &Value::from(&id[..12])))
    };
    eventually("a window with the container", || {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| told("container_id"))).ok()?.then_some(())
    });
    let ran = |target: &[&str]| {
        let profile = fleet.recording(&[target, &["-d", "1s", "-F", "199"]].concat());
        (pids(&profile), profile.header.target)
    };
    let only = BTreeSet::from([workload.pid()]);
    assert_eq!(
        ran(&["--container", "c0ffeec0ffeec0ffee"]),
        (only.clone(), "container c0ffeec0ffee of Docker".to_owned())
    );
    let path = group.path().strip_prefix(&hierarchy).expect("it is below");
    let path = Path::new("/").join(path).display().to_string();
    assert_eq!(ran(&["--cgroup", &path]).0, only);
    failed(&fleet.profile(&["--pod", "shop/none", "-o", "-"]), 5, "no host has told of pod shop/none");
    let missing = fleet.profile(&["--host", "nowhere", "-o", "-"]);
    failed(&missing, 5, "no agent of a host \"nowhere\" has a stream");
    fleet.is_alone();
}

#[test]
fn a_pod_is_recorded_by_its_name() {
    skip_if!(in_vm(), "there is no containerd");
    let _live = live();
    let Some(mut containerd) = Containerd::start() else {
        skip_if!(true, "there is no containerd, and its package cannot be had");
        return;
    };
    let web = containerd.pod("shop", "web-0");
    let server = containerd.container(&web, "server", SPIN);
    let cache = containerd.pod("shop", "cache");
    containerd.container(&cache, "server", SPIN);
    let socket = containerd.socket();
    let fleet = Fleet::start(&["--cri-socket", &socket.to_string_lossy()]);
    let output = eventually("a pod that the collector knows", || {
        let path = fleet.directory.path().join("pod.json");
        let output =
            fleet.profile(&["--pod", "shop/web-0", "-d", "2s", "-F", "499", "-o", &path.to_string_lossy()]);
        output.status.success().then_some(output)
    });
    let said = succeeded(&output);
    let path = fleet.directory.path().join("pod.json");
    let profile = json::read(&mut &std::fs::read(path).expect("it was written")[..]).expect("a recording");
    assert_eq!(profile.header.target, "pod shop/web-0", "{said}");
    // All of its containers, that which holds the pod together included, and nothing of the other pod.
    let [server, all] = [&server, &web.id].map(|id| processes_of(id));
    assert_eq!(pids(&profile), &server | &all, "{said}");
    fleet.is_alone();
}

#[test]
fn who_is_refused_is_told_by_which_limit() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no collector");
    let fleet = Fleet::start(&["--command-frequency", "199", "--command-duration", "5s"]);
    let workload = Workload::start("waits_c", &["spin"]);
    let pid = workload.pid().to_string();
    let ask = |arguments: &[&str]| fleet.profile(&[&["--pid", &pid, "-o", "-"], arguments].concat());
    failed(&ask(&["-F", "999"]), 5, "at most 199 samples a second (command-frequency)");
    failed(&ask(&["-d", "6s"]), 5, "(command-duration)");
    failed(&ask(&["-d", "1h"]), 2, "longer than 10m");
    failed(
        &fleet.profile(&["--pid", "4194303", "-d", "1s", "-o", "-"]),
        5,
        "no process 4194303 on this host",
    );
    failed(&fleet.profile(&["--container", "x", "--host", "", "-o", "-"]), 2, "1 to 4096 bytes");
    let nowhere = fleet.profile(&["--pid", &pid, "-o", "/nowhere/flame.svg"]);
    failed(&nowhere, 6, "cannot write /nowhere/flame.svg");
    // One at a time, by the agent's own limit.
    let child = fleet.start_profile(&["--pid", &pid, "-d", "5s"]);
    failed(&ask(&["-d", "1s"]), 5, "at most 1 recordings on demand at once (commands-at-once)");
    succeeded(&child.wait_with_output().expect("it ends"));
    // Pages of other sites have nothing done, and nobody without JSON.
    let (status, answer) = fleet.collector.ask("POST", "/api/v1/profile", "{\"pid\": \"x\"}");
    assert_eq!(status, 400, "{answer}");
    fleet.is_alone();
}

#[test]
fn two_at_once_have_each_their_own() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no collector");
    let fleet = Fleet::start(&["--commands-at-once", "2"]);
    let workloads = [(); 2].map(|()| Workload::start("waits_c", &["spin"]));
    let recorded: Vec<_> = std::thread::scope(|scope| {
        let threads = workloads.each_ref().map(|workload| {
            let (fleet, pid) = (&fleet, workload.pid().to_string());
            scope.spawn(move || {
                let name = format!("{pid}.json");
                let bytes = fleet.file(&name, &["--pid", &pid, "-d", "3s", "-F", "199"]);
                pids(&json::read(&mut &bytes[..]).expect("a recording"))
            })
        });
        threads.map(|thread| thread.join().expect("no panic")).into()
    });
    assert_eq!(recorded, workloads.each_ref().map(|workload| BTreeSet::from([workload.pid()])));
    fleet.is_alone();
}

#[test]
fn what_ends_before_its_time_leaves_nothing_behind() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no collector");
    let fleet = Fleet::start(&[]);
    let workload = Workload::start("waits_c", &["spin"]);
    let pid = workload.pid().to_string();
    let minute = ["--pid", &pid, "-d", "60s"];

    // The user.
    let child = fleet.start_profile(&minute);
    signal(&child, libc::SIGINT);
    failed(&child.wait_with_output().expect("it ends"), 130, "cancelled");
    fleet.is_alone();
    assert_eq!(fleet.shown()["state"], "cancelled");

    // The user's machine: nobody asks any more.
    let mut child = fleet.start_profile(&minute);
    signal(&child, libc::SIGKILL);
    child.wait().expect("it ends");
    eventually("a profile that is given up", || (fleet.shown()["state"] == "cancelled").then_some(()));
    fleet.is_alone();

    // The recording itself, by whatever kills it.
    let child = fleet.start_profile(&minute);
    // SAFETY: the process was just seen to be the agent's child.
    unsafe { libc::kill(fleet.recorder() as i32, libc::SIGKILL) };
    failed(&child.wait_with_output().expect("it ends"), 5, "the recording ended with signal: 9");
    fleet.is_alone();

    // The target: what there was of it is there, long before the time is over.
    let short = Workload::start("waits_c", &["spin"]);
    let of_short = short.pid().to_string();
    let start = Instant::now();
    let child = fleet.start_profile(&["--pid", &of_short, "-d", "60s"]);
    eventually("a second of the target", || {
        fleet.shown()["recorded_ms"].as_u64().is_some_and(|recorded| recorded >= 1000).then_some(())
    });
    drop(short);
    succeeded(&child.wait_with_output().expect("it ends"));
    assert!(start.elapsed() < Duration::from_secs(50));
    let outcome = &fleet.shown()["outcome"];
    assert!(outcome["window_ms"].as_u64().is_some_and(|window| window > 500), "{outcome}");
    fleet.is_alone();

    // The agent, told to end: it does not wait for the recording.
    let child = fleet.start_profile(&minute);
    let recorder = fleet.recorder();
    fleet.agent.signal(libc::SIGTERM);
    failed(&child.wait_with_output().expect("it ends"), 5, "agent has ended, and the recording with it");
    let Fleet { agent, collector, directory, .. } = fleet;
    assert_eq!(agent.finish().code, Some(0));
    eventually("the end of everything", || {
        (!is_running(recorder) && Objects::now() == Objects::default()).then_some(())
    });
    drop((collector, directory));
}

#[test]
fn a_killed_agent_or_collector_takes_the_recording_along() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no collector");
    let workload = Workload::start("waits_c", &["spin"]);
    let pid = workload.pid().to_string();
    let minute = ["--pid", &pid, "-d", "60s"];

    let fleet = Fleet::start(&[]);
    let child = fleet.start_profile(&minute);
    let recorder = fleet.recorder();
    fleet.agent.signal(libc::SIGKILL);
    failed(&child.wait_with_output().expect("it ends"), 5, "agent has ended, and the recording with it");
    eventually("the end of everything", || {
        (!is_running(recorder) && Objects::now() == Objects::default()).then_some(())
    });
    drop(fleet);

    let fleet = Fleet::start(&[]);
    let mut child = fleet.start_profile(&minute);
    let Fleet { collector, agent, alone, directory } = fleet;
    collector.kill();
    eventually("the end of the recording", || {
        (recorders(agent.pid()).is_empty() && Objects::now() == alone).then_some(())
    });
    assert_eq!(child.wait().expect("it ends").code(), Some(5), "there is no collector any more");
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.finish().code, Some(0), "it goes on without a collector");
    drop(directory);
}

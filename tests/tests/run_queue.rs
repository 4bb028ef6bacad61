//! Run queues: how long threads queue is what runqlat says, and who ran meanwhile is who ran.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aya::programs::loaded_programs;
use chokepoint_analysis::profile::Profile;
use chokepoint_analysis::run_queue::{Queue, RunQueue, Runner};
use chokepoint_tests::cgroup::Cgroup;
use chokepoint_tests::workload::{die_with_test, eventually, on_path, path};
use chokepoint_tests::{Agent, Workload, agent, in_vm, live, skip_if};

fn run_queue(profile: &Profile) -> &RunQueue {
    profile.run_queue.as_ref().expect("run queues were recorded")
}

fn queue(queues: &[Queue], id: u64) -> &Queue {
    queues.iter().find(|queue| queue.id == id).unwrap_or_else(|| panic!("no {id} in {queues:?}"))
}

/// What is told of who ran adds up, and is known.
fn adds_up(queues: &[Queue]) {
    for queue in queues {
        assert_eq!(queue.behind.iter().map(|(_, ns)| ns).sum::<u64>(), queue.queued_ns, "{queue:?}");
        let latencies = &queue.latencies;
        let longest = latencies.buckets.last().map_or(0, |bucket| bucket.from_ns);
        assert!(
            latencies.max_ns >= longest && latencies.quantile_ns(0.999) <= Some(latencies.max_ns),
            "{queue:?}"
        );
    }
}

/// A program that waits, in a process that is there already, until it is told to begin.
struct Held {
    child: Child,
}

impl Held {
    fn new(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "read line; exec \"$0\" \"$@\""]).arg(program).args(arguments);
        die_with_test(&mut command);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("sh can be run");
        Self { child }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Begins, and waits for the end.
    fn run(&mut self) {
        self.child.stdin.take().expect("it is piped").write_all(b"\n").expect("it reads");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// BPF programs in the kernel.
fn programs() -> usize {
    loaded_programs().flatten().count()
}

/// Waits until more programs are loaded than were, and attached.
fn attached(what: &str, before: usize) {
    eventually(what, || (programs() > before).then_some(()));
    // From loading to attaching it is milliseconds.
    std::thread::sleep(Duration::from_millis(700));
}

#[test]
fn latencies_agree_with_runqlat() {
    let _live = live();
    skip_if!(in_vm() || !on_path("runqlat"), "runqlat is not installed");
    let _busy = [Workload::start("waits_c", &["spin"]), Workload::start("waits_c", &["spin"])];
    let mut mix = Held::new(&path("waits_c"), &["mix", "3000"]);
    let pid = mix.pid().to_string();

    let before = programs();
    let mut command = Command::new("runqlat");
    command.args(["-p", &pid]).stdout(Stdio::piped());
    die_with_test(&mut command);
    let peer = command.spawn().expect("runqlat can be run");
    attached("runqlat's programs", before);
    let before = programs();
    let agent =
        Agent::new(["record", "-e", "run-queue", "--pid", &pid, "-d", "300", "-o", "profile.json"]).start();
    attached("the agent's programs", before);
    // Both see the whole of it: all waits of the process but that for the word to begin.
    mix.run();
    let finished = agent.finish().succeeded();
    // SAFETY: the child has not been waited for, so the number is still its own.
    unsafe { libc::kill(peer.id() as i32, libc::SIGINT) };
    let output = peer.wait_with_output().expect("runqlat ends");

    let profile = finished.profile("profile.json");
    let RunQueue { processes, cgroups } = run_queue(&profile);
    adds_up(processes);
    adds_up(cgroups);
    let ours = &queue(processes, u64::from(mix.pid())).latencies;
    let theirs = histogram(&String::from_utf8_lossy(&output.stdout));
    let total: u64 = theirs.values().sum();
    assert!(total > 100, "{theirs:?}");
    // The process ends while one program is still there and the other not.
    let few = 2 + total / 200;
    assert!(ours.count().abs_diff(total) <= few, "{} ours, {total} theirs", ours.count());
    // Each has its own times, taken a moment apart: what lies that near to a bound may be on either side. Their bounds are among ours,
    // and ours have one more between them, which leaves a microsecond at least.
    for below_us in (2..24).map(|power| 1u64 << power) {
        let below =
            |ns: u64| ours.buckets.iter().filter(|bucket| bucket.to_ns <= ns).map(|b| b.count).sum::<u64>();
        let (least, most) = (below(750 * below_us), below(1_500 * below_us));
        let told: u64 =
            theirs.iter().filter(|(from_us, _)| **from_us < below_us).map(|(_, count)| count).sum();
        assert!(
            least <= told + few && told <= most + few,
            "below {below_us} us {told} by runqlat, from {least} to {most} by us: {theirs:?} {ours:?}"
        );
    }
}

/// Lines as `     4 -> 7          : 132      |****   |`, in microseconds, by where they begin.
fn histogram(text: &str) -> BTreeMap<u64, u64> {
    text.lines()
        .filter_map(|line| {
            let (range, rest) = line.split_once(" : ")?;
            let from = range.split_once("->")?.0.trim().parse().ok()?;
            Some((from, rest.split_whitespace().next()?.parse().ok()?))
        })
        .collect()
}

#[test]
fn who_ran_while_a_thread_queued_is_told() {
    let _live = live();
    let pinned = || {
        Workload::start_program(Command::new("taskset").args(["-c", "0"]).arg(path("waits_c")).arg("spin"))
    };
    let (victim, neighbour) = (pinned(), pinned());
    let groups = Cgroup::new(Path::new("/sys/fs/cgroup/cpu"), "chokepoint-queue");
    let groups = groups.map(|group| {
        let (of_victim, of_neighbour) = (group.child("victim"), group.child("neighbour"));
        of_victim.add(victim.pid());
        of_neighbour.add(neighbour.pid());
        (of_victim, of_neighbour, group)
    });
    let duration = if in_vm() { "6" } else { "3" };
    // Of the whole host, whose turns are then all accounted for.
    let profile = agent::record(&["-e", "run-queue", "-d", duration]);
    let RunQueue { processes, cgroups } = run_queue(&profile);
    adds_up(processes);
    adds_up(cgroups);

    // Both always want the CPU: whenever the neighbour has it, the victim queues.
    let time = |pid| {
        let of_process = |time: &&chokepoint_analysis::thread_time::ThreadTime| time.pid == pid;
        profile.thread_times.iter().find(of_process).expect("its time is known")
    };
    let turns = time(neighbour.pid()).parts.on_cpu_ns + time(neighbour.pid()).parts.stolen_ns;
    let victims = queue(processes, u64::from(victim.pid()));
    let behind = |queue: &Queue, id: u64| {
        let is_it = |runner: &Runner| matches!(runner, Runner::One { id: runner, .. } if *runner == id);
        queue.behind.iter().find(|(runner, _)| is_it(runner)).map_or(0, |(_, ns)| *ns)
    };
    let told = behind(victims, u64::from(neighbour.pid()));
    // Nearly all its waits are longer than those of which only some are told. A turn at each end of the window is not whole.
    let tolerance = 0.02 * turns as f64 + if in_vm() { 100e6 } else { 20e6 };
    let (unknown, known) = split_unknown(victims);
    // Where many others run, too, there are more turns in a wait than a CPU remembers: what is not known is then some of theirs, or of
    // the neighbour's before them.
    let by_others = (known - told) as f64;
    assert!(
        (told as f64 - turns as f64).abs() < tolerance + by_others.min(unknown as f64),
        "{told} ns told, {turns} ns ran: {victims:?}"
    );
    assert!((unknown as f64) < 0.02 * victims.queued_ns as f64 + by_others, "{victims:?}");

    // It only ever lost the CPU to others, and got it back each time. The window's begin and its end may each cut one wait; of some
    // times a host that hides its threads does not tell.
    let switches = time(victim.pid()).switches;
    let unseen: u64 = profile.coverage.notes.iter().filter_map(|note| unseen_arrivals(note)).sum();
    assert!(
        victims.latencies.count().abs_diff(switches) <= 2 + unseen,
        "{switches} switches, {unseen} arrivals unseen: {victims:?}"
    );

    skip_if!(groups.is_none(), "no version 1 hierarchy of the cpu controller");
    let (of_victim, of_neighbour, _) = groups.as_ref().unwrap();
    let named =
        |group: &Cgroup| format!("/{}", group.path().strip_prefix("/sys/fs/cgroup/cpu").unwrap().display());
    let name = named(of_victim);
    let of_group =
        cgroups.iter().find(|queue| queue.name == name).unwrap_or_else(|| panic!("no {name} in {cgroups:?}"));
    assert_eq!(of_group.queued_ns, victims.queued_ns);
    let name = named(of_neighbour);
    let is_it = |runner: &Runner| matches!(runner, Runner::One { name: runner, .. } if *runner == name);
    let by_group = of_group.behind.iter().find(|(runner, _)| is_it(runner)).map_or(0, |(_, ns)| *ns);
    assert!(by_group.abs_diff(told) < 1_000, "{by_group} ns by group, {told} ns by process: {of_group:?}");
}

fn unseen_arrivals(note: &str) -> Option<u64> {
    note.split_once(" times a thread came to its CPU unseen")?.0.parse().ok()
}

fn split_unknown(queue: &Queue) -> (u64, u64) {
    let unknown: u64 =
        queue.behind.iter().filter(|(runner, _)| *runner == Runner::Unknown).map(|(_, ns)| ns).sum();
    (unknown, queue.queued_ns - unknown)
}

#[test]
fn short_waits_are_told_without_bias() {
    let _live = live();
    skip_if!(in_vm(), "there is no perf");
    skip_if!(!on_path("perf"), "perf is not installed");
    // Two threads on one CPU that wake each other a hundred thousand times a second: each queues for microseconds while the other has
    // the CPU, far below what is always told.
    let mut command = Command::new("taskset");
    command.args(["-c", "1", "perf", "bench", "sched", "pipe", "-T", "-l", "100000000"]);
    let pipe = Workload::start_program(&mut command);
    let profile = agent::record(&["-e", "run-queue", "-d", "3"]);
    let RunQueue { processes, .. } = run_queue(&profile);
    adds_up(processes);
    let queue = queue(processes, u64::from(pipe.pid()));
    assert!(queue.latencies.count() > 5_000, "{queue:?}");
    assert!(queue.latencies.quantile_ns(0.5) < Some(100_000), "{queue:?}");
    let (unknown, known) = split_unknown(queue);
    assert!(unknown * 50 < known, "{queue:?}");
    // The CPU is never idle while one of them queues, and what other processes had of it is known from their own times: they can have
    // been in the way of both.
    let itself = |runner: &Runner| matches!(runner, Runner::One { id, .. } if *id == u64::from(pipe.pid()));
    let own: u64 = queue.behind.iter().filter(|(runner, _)| itself(runner)).map(|(_, ns)| ns).sum();
    let others: u64 = profile
        .thread_times
        .iter()
        .filter(|time| time.pid != pipe.pid())
        .map(|time| time.parts.on_cpu_ns + time.parts.stolen_ns)
        .sum();
    assert!(own + 2 * others > known * 9 / 10, "{own} ns behind itself, {others} ns others ran: {queue:?}");
}

//! The collector's page in a real browser, with a real agent's data of workloads whose truth is known; one of them chose names to do harm.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chokepoint_tests::agent::Running;
use chokepoint_tests::containers::Containerd;
use chokepoint_tests::serving::{ANY_PORT, Serving, new_token};
use chokepoint_tests::{Agent, Workload, browser, in_vm, live, senders, skip_if, target_dir, workload};
use serde_json::Value;

/// As short as windows may be.
const WINDOW: &str = "1s";
/// The function's share of a CPU grows by six tenths. Of 13 windows on a machine with much else to do the difference was seen to have a
/// standard error of two tenths, and the variance two degrees of freedom on each side, at which Student's t asks for a change of more than
/// four errors. Of 43 windows the error is a tenth and there are five degrees on each side, at which it asks for three.
const PERIOD: Duration = Duration::from_secs(45);
/// Of what the documentation shows: time enough for a verdict that stays.
const PICTURED: Duration = Duration::from_secs(20);
/// For these windows, on a machine that has other things to do: an unoptimised build takes its time to read them.
const PATIENCE: Duration = Duration::from_secs(600);
/// Hosts of the fleet that is looked at: as many as the first view is to show within a second; what they did in two minutes.
const FLEET_HOSTS: u64 = 200;
const FLEET_WINDOWS: u64 = 12;
/// Burns CPU time in a container for as long as it lives.
const SPIN: &[&str] = &["sh", "-c", "while :; do :; done"];
/// What it is told: four threads of which each holds a mutex most of the time.
const INVENTORY: [&str; 3] = ["mutex", "inside", "4"];
/// A function's name, which runtimes write into a file of the process's own.
const HOSTILE_FUNCTION: &str = "<img src=x onerror=owned=1>";
/// A process's name; the kernel keeps 15 bytes of it.
const HOSTILE_PROCESS: &str = "<img src=x>";

/// The page's sources, with what its tests need.
fn ui() -> PathBuf {
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("../collector/ui");
    assert!(ui.join("node_modules").is_dir(), "the page is not built: cargo xtask build does that");
    ui
}

fn stream(serving: &Serving, state: &Path, options: &[&str]) -> Running {
    let collector = format!("http://{}", serving.grpc);
    let state = state.to_string_lossy();
    // The budget is that of an optimised build.
    let arguments = [
        "agent",
        "--collector",
        &collector,
        "--state-dir",
        &state,
        "--window",
        WINDOW,
        "--max-overhead",
        "100%",
        // Enough samples of a function in each window to tell a change of half from chance.
        "--frequency",
        "199",
    ];
    Agent::new(arguments.iter().chain(options)).start()
}

/// Waits until all up to a time is stored, Unix seconds, and tells the host's name.
fn wait_until_stored(serving: &Serving, until_unix_s: u64) -> String {
    let start = Instant::now();
    loop {
        let answer: Value = serving.query(&["agents"]);
        let agent = &answer["agents"][0];
        if agent["last_window_unix_ms"].as_u64().is_some_and(|last| last > 0 && last >= until_unix_s * 1000) {
            return agent["labels"]["host"].as_str().expect("it has a name").to_owned();
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for windows up to {until_unix_s}: {answer}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}

/// A program of the tests, by another name.
fn renamed(program: &str, directory: &Path, name: &str) -> Command {
    let path = directory.join(name);
    std::fs::copy(workload::path(program), &path).expect("it can be copied");
    Command::new(path)
}

/// A program that waits for its own lock.
fn inventory(directory: &Path) -> Command {
    renamed("bound_lock_c", directory, "inventory")
}

/// Keeps a picture for the documentation, where `BLESS` asks for that.
fn keep_for_documentation(picture: &Path, view: &str) {
    if std::env::var_os("BLESS").is_some() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(format!("{view}.png"));
        std::fs::copy(picture, docs).expect("it can be written");
    }
}

/// Uses the page as people do; screenshots go into `shots`.
fn browse(serving: &Serving, shots: &Path, host: &str, times: [u64; 2]) -> Command {
    assert!(browser::is_installed(), "there is no chromium: cargo xtask setup --test installs it");
    let mut node = Command::new("node");
    node.arg("tests/browser.mjs").arg(format!("http://{}", serving.http)).arg(shots).arg(host);
    node.args(times.map(|time| time.to_string())).current_dir(ui());
    workload::die_with_test(&mut node);
    node
}

fn succeeds(mut node: Command, shots: &Path) {
    // What failed is told at its end, on stderr: there is much between.
    let output = node.stdout(Stdio::inherit()).output().expect("node can be run");
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{failed}\nScreenshots are in {}", shots.display());
}

fn shots(name: &str) -> PathBuf {
    let shots = target_dir().join("page").join(name);
    let _ = std::fs::remove_dir_all(&shots);
    shots
}

#[test]
fn people_see_what_limits_a_host_and_what_proves_it() {
    let _live = live();
    skip_if!(in_vm(), "there is no browser");
    let directory = tempfile::tempdir().expect("a directory");
    let serving = Serving::start(&directory.path().join("store"), ANY_PORT, ANY_PORT);
    let (host, pictured, [from, changed, until]) = {
        let _lock = Workload::start_program(inventory(directory.path()).args(INVENTORY));
        let mut checkout = renamed("shift_c", directory.path(), "checkout");
        let shift = Workload::start_program(checkout.arg(directory.path().join("count")));
        let _agent = stream(&serving, &directory.path().join("state"), &[]);
        wait_until_stored(&serving, 0);
        let pictured = now_unix_s();
        std::thread::sleep(PICTURED);
        let pictured = format!("{pictured}-{}", now_unix_s());
        let mut harm = renamed("jit_c", directory.path(), HOSTILE_PROCESS);
        let _harm = Workload::start_program(harm.args(["3600000", HOSTILE_FUNCTION]));
        // Two periods of a program, of which one function takes twice the time in the second.
        let from = now_unix_s();
        std::thread::sleep(PERIOD);
        let changed = now_unix_s();
        // SAFETY: the workload has not been waited for, so the number is still its own.
        unsafe { libc::kill(shift.pid() as i32, libc::SIGUSR1) };
        std::thread::sleep(PERIOD);
        let until = now_unix_s();
        (wait_until_stored(&serving, until), pictured, [from, changed, until])
    };
    // From here on, the machine is the browser's.
    let shots = shots("views");
    let mut node = browse(&serving, &shots, &host, [from, until]);
    node.env("CHANGED_AT", changed.to_string()).env("SHOWN", pictured);
    succeeds(node, &shots);
    for view in ["overview", "verdict", "explore", "host"] {
        keep_for_documentation(&shots.join(format!("docs-{view}.png")), view);
    }
}

#[test]
fn an_operator_has_a_profile_made_and_a_reader_looks_at_it() {
    let _live = live();
    skip_if!(in_vm(), "there is no browser");
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name);
    for role in ["agent", "reader", "operator"] {
        new_token(&place("tokens"), &place(role), role, role);
    }
    let [tokens, reader, agent] = ["tokens", "reader", "agent"].map(|name| place(name).display().to_string());
    let serving = Serving::start_with(&place("store"), &["--tokens", &tokens], &["--token-file", &reader]);
    let from = now_unix_s();
    let lock = Workload::start_program(inventory(directory.path()).args(INVENTORY));
    // Pods are profiled where there are any: not every machine can have a runtime for them.
    let mut containerd = Containerd::start();
    let socket = containerd.as_ref().map(|containerd| containerd.socket().display().to_string());
    if let Some(containerd) = &mut containerd {
        let web = containerd.pod("shop", "web-0");
        containerd.container(&web, "server", SPIN);
        containerd.container(&web, "side", SPIN);
        let cache = containerd.pod("shop", "cache");
        containerd.container(&cache, "store", SPIN);
    }
    let mut options = vec!["--token-file", &agent, "--commands-per-minute", "60"];
    options.extend(socket.iter().flat_map(|socket| ["--cri-socket", socket]));
    let _agent = stream(&serving, &place("state"), &options);
    let host = wait_until_stored(&serving, 0);
    let shots = shots("profile");
    let mut node = browse(&serving, &shots, &host, [from, now_unix_s()]);
    for (name, role) in [("READER_TOKEN", "reader"), ("OPERATOR_TOKEN", "operator")] {
        let token = std::fs::read_to_string(place(role)).expect("it was made");
        node.env(name, token.trim());
    }
    node.env("TARGET_PID", lock.pid().to_string()).env("TARGET_NAME", "inventory");
    if containerd.is_some() {
        node.env("TARGET_POD", "shop/web-0").env("TARGET_CONTAINER", "side");
    }
    succeeds(node, &shots);
    keep_for_documentation(&shots.join("docs-profile.png"), "profile");
    if containerd.is_some() {
        keep_for_documentation(&shots.join("docs-pod.png"), "pod");
    }
}

#[test]
fn a_fleet_is_seen_at_once_and_a_host_is_found_in_it() {
    skip_if!(in_vm(), "there is no browser");
    let directory = tempfile::tempdir().expect("a directory");
    let serving = Serving::start(&directory.path().join("store"), ANY_PORT, ANY_PORT);
    let until = now_unix_s();
    senders::send(serving.grpc, FLEET_HOSTS, FLEET_WINDOWS, until * 1_000_000_000);
    let shots = shots("fleet");
    let mut node = browse(&serving, &shots, "host-0", [until - 600, until]);
    let limited = FLEET_HOSTS.div_ceil(senders::HOSTS_OF_ONE_LIMITED);
    node.env("FLEET", FLEET_HOSTS.to_string()).env("LIMITED", limited.to_string());
    node.env("CONSTRAINT", senders::CONSTRAINT);
    node.env("ZONE", "zone=z1").env("IN_ZONE", (FLEET_HOSTS / senders::ZONES).to_string());
    succeeds(node, &shots);
}

#[test]
fn the_pages_own_tests_pass() {
    skip_if!(in_vm(), "there is no node");
    let output =
        Command::new("node").arg("tests/unit.mjs").current_dir(ui()).output().expect("node can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

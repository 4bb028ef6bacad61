//! The collector's page in a real browser, with a real agent's data of workloads whose truth is known; one of them chose names to do harm.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chokepoint_tests::agent::Running;
use chokepoint_tests::serving::{ANY_PORT, Serving, new_token};
use chokepoint_tests::{Agent, Workload, browser, in_vm, live, skip_if, target_dir, workload};
use serde_json::Value;

/// So that there is something to see over time, and something to compare.
const WINDOWS: u64 = 6;
/// For these windows, on a machine that has other things to do: an unoptimised build takes its time to read them.
const PATIENCE: Duration = Duration::from_secs(600);
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
        "5s",
        "--max-overhead",
        "100%",
    ];
    Agent::new(arguments.iter().chain(options)).start()
}

/// Waits until so many windows are stored, and tells the host's name.
fn wait_for_windows(serving: &Serving, windows: u64) -> String {
    let start = Instant::now();
    loop {
        let answer: Value = serving.query(&["agents"]);
        let agent = &answer["agents"][0];
        if agent["batches"].as_u64().is_some_and(|batches| batches >= windows) {
            return agent["labels"]["host"].as_str().expect("it has a name").to_owned();
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {windows} windows: {answer}");
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
    let from = now_unix_s();
    let host = {
        let mut harm = renamed("jit_c", directory.path(), HOSTILE_PROCESS);
        let _harm = Workload::start_program(harm.args(["3600000", HOSTILE_FUNCTION]));
        let _lock = Workload::start("bound_lock_c", &["mutex", "inside", "4"]);
        let _agent = stream(&serving, &directory.path().join("state"), &[]);
        wait_for_windows(&serving, WINDOWS)
    };
    // From here on, the machine is the browser's.
    let shots = shots("views");
    succeeds(browse(&serving, &shots, &host, [from, now_unix_s()]), &shots);
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
    let lock = Workload::start("bound_lock_c", &["mutex", "inside", "4"]);
    let _agent = stream(&serving, &place("state"), &["--token-file", &agent, "--commands-per-minute", "60"]);
    let host = wait_for_windows(&serving, 1);
    let shots = shots("profile");
    let mut node = browse(&serving, &shots, &host, [from, now_unix_s()]);
    for (name, role) in [("READER_TOKEN", "reader"), ("OPERATOR_TOKEN", "operator")] {
        let token = std::fs::read_to_string(place(role)).expect("it was made");
        node.env(name, token.trim());
    }
    node.env("TARGET_PID", lock.pid().to_string());
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

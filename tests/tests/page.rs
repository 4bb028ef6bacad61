//! The collector's page in a real browser, with a real agent's data of workloads whose truth is known; one of them chose names to do harm.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chokepoint_tests::agent::Running;
use chokepoint_tests::serving::{ANY_PORT, Serving};
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

fn stream(serving: &Serving, state: &Path) -> Running {
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
    Agent::new(arguments).start()
}

/// Waits until so many windows are stored, and tells the host's name.
fn wait_for_windows(serving: &Serving) -> String {
    let start = Instant::now();
    loop {
        let answer: Value = serving.query(&["agents"]);
        let agent = &answer["agents"][0];
        if agent["batches"].as_u64().is_some_and(|batches| batches >= WINDOWS) {
            return agent["labels"]["host"].as_str().expect("it has a name").to_owned();
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {WINDOWS} windows: {answer}");
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

#[test]
fn people_see_what_limits_a_host_and_what_proves_it() {
    let _live = live();
    skip_if!(in_vm(), "there is no browser");
    assert!(browser::is_installed(), "there is no chromium: cargo xtask setup --test installs it");
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("../collector/ui");
    assert!(
        ui.join("node_modules").is_dir(),
        "the page's own tests are not there: run cargo xtask build first"
    );

    let directory = tempfile::tempdir().expect("a directory");
    let serving = Serving::start(&directory.path().join("store"), ANY_PORT, ANY_PORT);
    let from = now_unix_s();
    let host = {
        let mut harm = renamed("jit_c", directory.path(), HOSTILE_PROCESS);
        let _harm = Workload::start_program(harm.args(["3600000", HOSTILE_FUNCTION]));
        let _lock = Workload::start("bound_lock_c", &["mutex", "inside", "4"]);
        let _agent = stream(&serving, &directory.path().join("state"));
        wait_for_windows(&serving)
    };
    // From here on, the machine is the browser's.
    let until = now_unix_s();

    let shots = target_dir().join("page");
    let _ = std::fs::remove_dir_all(&shots);
    let mut node = Command::new("node");
    node.arg("tests/browser.mjs").arg(format!("http://{}", serving.http)).arg(&shots).arg(&host);
    node.arg(from.to_string()).arg(until.to_string()).current_dir(ui);
    workload::die_with_test(&mut node);
    // What failed is told at its end, on stderr: there is much between.
    let output = node.stdout(Stdio::inherit()).output().expect("node can be run");
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{failed}\nScreenshots are in {}", shots.display());
}

#[test]
fn the_pages_own_tests_pass() {
    skip_if!(in_vm(), "there is no node");
    let output =
        Command::new("node").arg("tests/unit.mjs").current_dir(ui()).output().expect("node can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

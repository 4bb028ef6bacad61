//! Names for a fleet: agents that send addresses alone, one of which is asked for the symbols of each build, and a collector that names what it
//! has stored; also what it stored before it had the symbols.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use chokepoint_tests::serving::{ANY_PORT, Serving};
use chokepoint_tests::workload::{eventually_within, path};
use chokepoint_tests::{Agent, Running, Workload, in_vm, live, skip_if};

/// An agent makes symbols after what others want of the CPU, of an unoptimised build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn run(program: &str, arguments: &[&str], directory: &Path) {
    let status = Command::new(program).args(arguments).current_dir(directory).status();
    assert!(status.expect("it can be run").success(), "{program} {arguments:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A copy of a workload, by another name.
fn copy(workload: &str, directory: &Path, name: &str) -> PathBuf {
    let copied = directory.join(name);
    fs::copy(path(workload), &copied).expect("it can be copied");
    copied
}

/// Starts a program that takes a CPU, after all others: symbols are to be made beside it.
fn start(program: &Path) -> Workload {
    Workload::start_program(Command::new("nice").args(["-n", "19"]).arg(program))
}

fn end(agent: Running) {
    agent.signal(libc::SIGTERM);
    let _ = agent.finish().succeeded();
}

fn agent(collector: &Serving, state: &Path) -> Running {
    let url = format!("http://{}", collector.grpc);
    let arguments = ["agent", "--collector", &url, "--state-dir", text(state), "--symbols", "collector"];
    Agent::new(arguments.iter().chain(&["--window", "2s", "--max-overhead", "100%"])).start()
}

/// Functions of a process, in all that is stored.
fn functions(collector: &Serving, process: &str) -> BTreeSet<String> {
    let answer = collector.query(&["top", &format!("cpu{{process=\"{process}\"}}"), "--limit", "1000"]);
    let functions = answer["functions"].as_array().expect("functions").iter();
    functions.filter_map(|function| Some(function["name"].as_str()?.to_owned())).collect()
}

/// Waits until a process has these functions.
fn wait_for(collector: &Serving, process: &str, names: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    eventually_within(PATIENCE, &format!("{names:?} of {process}"), || {
        found = functions(collector, process);
        names.iter().all(|name| found.contains(*name)).then_some(())
    });
    found
}

#[test]
fn code_that_agents_leave_unnamed_has_names() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no collector");
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let (store, bin) = (directory.path().join("store"), directory.path().join("bin"));
    fs::create_dir(&bin).expect("a directory can be made");
    // One with debug information, a stripped one of Go, and a stripped one whose debug information comes later.
    let inlined = copy("inlined_c", &bin, "whole_c");
    let go = copy("shares_go", &bin, "bare_go");
    run("strip", &["--strip-all", "bare_go"], &bin);
    let bare = copy("nest_c", &bin, "bare_c");
    run("objcopy", &["--only-keep-debug", "bare_c", "bare_c.later"], &bin);
    run("strip", &["--strip-all", "bare_c"], &bin);
    let _running: Vec<Workload> = [&inlined, &go, &bare].map(|program| start(program)).into();

    let collector = Serving::start(&store, ANY_PORT, ANY_PORT);
    let agents = [1, 2].map(|number| agent(&collector, &directory.path().join(format!("state-{number}"))));
    wait_for(&collector, "whole_c", &["main", "noinline_outer", "inlined_middle", "inlined_inner"]);
    wait_for(&collector, "bare_go", &["main.main", "main.spin_seventy"]);
    // Nobody has names of this one: its places are shown by their module.
    let is_place = |name: &String| name.contains("bare_c+0x");
    let unnamed = eventually_within(PATIENCE, "places of bare_c", || {
        Some(functions(&collector, "bare_c")).filter(|names| names.iter().any(is_place))
    });
    assert!(!unnamed.contains("main"), "{unnamed:?}");
    // Both agents have met all of these builds: each was asked of one.
    let kept = fs::read_dir(store.join("symbols")).expect("a directory").count() as u64;
    let (asked, stored) = (collector.counted("symbol_leases"), collector.counted("symbols_kept"));
    assert!(stored >= 2 && kept >= 2, "{stored} {kept}");
    // At most one build is on its way of each agent, and of one that fails both are asked.
    assert!(asked <= stored + 2 * collector.counted("symbols_refused") + 2, "{asked} leases, {stored} kept");
    agents.into_iter().for_each(end);

    // An agent that begins now finds more, and what was stored before has names, too. It meets both files of the build: the one that says where
    // its debug information is, and the one that does not and still runs.
    fs::rename(bin.join("bare_c.later"), bin.join("bare_c.debug")).expect("it can be renamed");
    run("objcopy", &["--add-gnu-debuglink=bare_c.debug", "bare_c", "linked"], &bin);
    fs::rename(bin.join("linked"), bin.join("bare_c")).expect("it can take its place");
    let _again = start(&bare);
    let agent = agent(&collector, &directory.path().join("state-3"));
    let found = wait_for(&collector, "bare_c", &["main", "outer", "middle", "inner"]);
    assert!(!found.iter().any(|name| name.contains("bare_c+0x")), "{found:?}");
    end(agent);
}

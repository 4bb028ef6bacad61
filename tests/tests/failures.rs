//! Failures: one line that says what to do, a documented exit code, nothing left behind.

use std::process::Command;

use chokepoint_tests::agent::Finished;
use chokepoint_tests::{Agent, in_vm, live, skip_if};

/// One failed run: its exit code, and what its one line must contain.
fn fails(finished: &Finished, code: i32, parts: &[&str]) {
    assert_eq!(finished.code, Some(code), "{}", finished.stderr);
    assert_eq!(finished.stdout, "");
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "one line: {}", finished.stderr);
    for part in parts {
        assert!(lines[0].contains(part), "{part:?} is not in {:?}", lines[0]);
    }
    assert!(!finished.stderr.contains("os error"), "{}", finished.stderr);
    assert_eq!(finished.left_behind(), Vec::<String>::new());
}

fn record(arguments: &[&str]) -> Finished {
    Agent::new(["record", "-d", "1"].iter().chain(arguments)).run()
}

#[test]
fn a_command_line_that_makes_no_sense() {
    let _live = live();
    fails(&record(&["-F", "0"]), 2, &["frequency 0", "at least 1", "-F"]);
    fails(
        &record(&["-F", "4000000000"]),
        2,
        &["above this host's limit", "kernel.perf_event_max_sample_rate"],
    );
    fails(&record(&["-o", "flame.bmp"]), 2, &["flame.bmp", "svg", "folded", "--format"]);
    fails(&record(&["--format", "bmp"]), 2, &["bmp", "svg"]);
}

#[test]
fn arguments_that_contradict_each_other() {
    let _live = live();
    for arguments in [
        &["--user-only", "--kernel-only"][..],
        &["--pid", "1", "--comm", "x"],
        &["--children"],
        &["-d", "0"],
        &["-d", "soon"],
        &["--pid", "none"],
    ] {
        let finished = record(arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.stderr);
        assert_eq!(finished.left_behind(), Vec::<String>::new());
    }
}

#[test]
fn a_target_that_does_not_exist() {
    let _live = live();
    fails(&record(&["--pid", "4194399"]), 5, &["no process 4194399"]);
    fails(&record(&["--comm", ""]), 5, &["name to match is empty"]);
    fails(&record(&["--cgroup", "/no/such/group"]), 5, &["no cgroup /no/such/group", "/sys/fs/cgroup"]);
    fails(&record(&["--", "/no/such/program"]), 5, &["cannot run /no/such/program", "no such file"]);
    fails(&record(&["--", "/etc/passwd"]), 5, &["cannot run /etc/passwd", "permission denied"]);
}

#[test]
fn a_recording_that_cannot_be_diagnosed() {
    let _live = live();
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let of = |text: &str| {
        let path = directory.path().join("recording.json");
        std::fs::write(&path, text).expect("the file can be written");
        Agent::new(["diagnose", path.to_str().expect("a plain path")]).run()
    };
    fails(
        &Agent::new(["diagnose", "/does/not/exist.json"]).run(),
        5,
        &["/does/not/exist.json", "no such file"],
    );
    fails(&of("{"), 5, &["recording.json", "not a profile"]);
    fails(&of(r#"{"schema":"another","version":1}"#), 5, &["another", "version"]);
}

#[test]
fn a_report_that_cannot_be_written() {
    let _live = live();
    let run = |arguments: &[&str]| Agent::new(arguments).run();
    fails(&run(&["report", "/does/not/exist.json"]), 5, &["/does/not/exist.json", "no such file"]);
    // Before anything is recorded or read.
    for command in [&["report", "none.json"][..], &["diagnose"]] {
        let to = |output: &str| run(&[command, &["-o", output]].concat());
        fails(&to("report.pdf"), 2, &["report.pdf", "md, html", "--format"]);
        fails(&to("/no/such/directory/report.md"), 6, &["cannot write /no/such/directory/report.md", "-o"]);
    }
}

#[test]
fn an_output_that_cannot_be_written() {
    let _live = live();
    fails(
        &record(&["-o", "/no/such/directory/flame.svg"]),
        6,
        &["cannot write /no/such/directory/flame.svg", "-o"],
    );
    fails(&record(&["-o", "/proc/flame.svg"]), 6, &["cannot write /proc/flame.svg"]);
    fails(&record(&["-o", "/tmp", "--format", "svg"]), 6, &["cannot write /tmp", "is a directory"]);
}

#[test]
fn a_disk_that_is_full() {
    let _live = live();
    // Room for the file that is tried at the start, and not for the profile.
    let finished = in_mount_namespace(
        "mkdir disk && mount -t tmpfs -o size=4k tmpfs disk && head -c 4096 /dev/zero > disk/filler; \
         \"$0\" record -d 500ms -o disk/flame.svg; code=$?; ls -A disk >&3; umount disk; rmdir disk; exit $code",
    );
    fails(&finished, 6, &["cannot write disk/flame.svg", "no space", "free some space"]);
}

#[test]
fn a_kernel_without_type_information() {
    let _live = live();
    fails(
        &in_mount_namespace("mount -t tmpfs tmpfs /sys/kernel/btf && exec \"$0\" record -d 1"),
        4,
        &["no type information", "CONFIG_DEBUG_INFO_BTF"],
    );
}

/// Runs a script in a mount namespace of its own, with the agent's path as `$0`.
fn in_mount_namespace(script: &str) -> Finished {
    let script = format!("exec 3>/dev/null; {script}");
    Agent::through(&["unshare", "--mount", "sh", "-c", &script], Vec::<&str>::new()).run()
}

#[test]
fn no_privilege_at_all() {
    let _live = live();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    fails(&run_as(&nobody), 3, &["CAP_BPF", "CAP_PERFMON", "doctor"]);
}

fn run_as(prefix: &[&str]) -> Finished {
    let agent = Agent::through(prefix, ["record", "-d", "1"]);
    // The directory is the test's own; nobody may write there otherwise.
    Command::new("chmod").arg("777").arg(agent.directory()).status().unwrap();
    agent.run()
}

#[test]
fn root_without_capabilities() {
    let _live = live();
    let bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];
    fails(&run_as(&bare), 3, &["CAP_BPF"]);
}

#[test]
fn a_reader_that_has_seen_enough() {
    let _live = live();
    skip_if!(in_vm(), "says nothing about the kernel");
    let script = "\"$0\" record -d 500ms -o - | head -c 1 > /dev/null";
    let finished = Agent::through(&["bash", "-o", "pipefail", "-c", script], Vec::<&str>::new()).run();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

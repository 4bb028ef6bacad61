//! Reports of what runs now and of recordings, as a user and a browser get them.

use std::fs;

use chokepoint_tests::agent::{AS_NOBODY, ForAnybody};
use chokepoint_tests::workload::on_path;
use chokepoint_tests::{Agent, Workload, browser, in_vm, live, skip_if};

#[test]
fn a_recording_is_reported_to_anybody() {
    let _live = live();
    skip_if!(!on_path("setpriv"), "there is no setpriv");
    let workload = Workload::start("waits_c", &["spin"]);
    let pid = workload.pid().to_string();
    let recording = ForAnybody::record(workload.pid());
    drop(workload);
    let path = recording.path();
    let path = path.to_str().expect("a plain path");
    let run = |arguments: &[&str]| Agent::through(&AS_NOBODY, arguments).run().succeeded().stdout;
    let verdict: serde_json::Value =
        serde_json::from_str(&run(&["diagnose", path, "--json"])).expect("it is JSON");
    let code = verdict["verdict"]["code"].as_str().expect("a code");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("every kernel has a release");

    let audit = run(&["report", path]);
    assert!(audit.starts_with(&format!("# Audit: {code}\n")), "{audit}");
    for part in [&format!("`pid {pid}`"), &format!("`{}`", kernel.trim()), "## Baseline", "| `cpu.user` |"] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    assert!(!audit.contains("## Before and after"), "{audit}");
    let twice = run(&["report", path, path]);
    assert!(twice.contains("## Before and after") && twice.contains("was not begun after"), "{twice}");

    let page = run(&["diagnose", path, "-o", "-", "--format", "html"]);
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"), "{page}");
    // It runs all the time, in one function.
    for part in [&format!("<code>pid {pid}</code>"), "Flame graph: On CPUs", "<title>main ("] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[test]
fn what_runs_now_is_reported_into_a_file() {
    let _live = live();
    let workload = Workload::start("waits_c", &["spin"]);
    let pid = workload.pid().to_string();
    for (name, format, beginning) in
        [("found.md", "md", "# Diagnosis: "), ("found.html", "html", "<!DOCTYPE html>")]
    {
        let finished = Agent::new(["diagnose", "-d", "1", "--pid", &pid, "-o", name]).run().succeeded();
        assert_eq!(finished.stdout, "");
        assert!(finished.stderr.contains(&format!("wrote {name} ({format})\n")), "{}", finished.stderr);
        assert_eq!(finished.left_behind(), [name]);
        let report = fs::read_to_string(finished.file(name)).expect("it is there");
        assert!(report.starts_with(beginning) && report.contains(&format!("pid {pid}")), "{report}");
    }
}

#[test]
fn a_browser_shows_the_page_and_its_flame_graphs() {
    skip_if!(in_vm(), "there is no browser");
    skip_if!(!browser::is_installed(), "there is no Chromium");
    let _live = live();
    let workload = Workload::start("nest_c", &[]);
    let pid = workload.pid().to_string();
    let finished = Agent::new(["diagnose", "-d", "1", "--pid", &pid, "-o", "page.html"]).run().succeeded();
    drop(workload);
    // Scripts of the pages within, and the policy of the page, complain here.
    let dom = browser::open(&["--dump-dom"], &finished.file("page.html"));
    assert_eq!(browser::complaints(&dom.stderr), Vec::<String>::new());

    // What is within a page is not part of what the browser tells of it: it is opened by itself.
    let page = fs::read_to_string(finished.file("page.html")).expect("it is there");
    let of_cpus = page.split("title='Flame graph: On CPUs'").nth(1).expect("the flame graph");
    let of_cpus =
        of_cpus.split("srcdoc='").nth(1).and_then(|rest| rest.split('\'').next()).expect("its page");
    let picture = finished.file("picture.html");
    fs::write(&picture, of_cpus.replace("&#39;", "'").replace("&amp;", "&")).expect("it can be written");
    let dom = browser::open(&["--dump-dom"], &picture);
    let shown = String::from_utf8(dom.stdout).expect("UTF-8");
    for function in ["nest_c", "main", "outer", "middle", "inner"] {
        // The text that the script has fitted into its box.
        assert!(
            shown.contains(&format!(">{function} </text>")),
            "{function} is not written into its box: {shown}"
        );
    }
}

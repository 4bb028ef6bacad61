//! `chokepoint top` in a real terminal, and as text: on workloads whose truth is known.

use std::collections::HashMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};
use chokepoint_tests::agent::program;
use chokepoint_tests::net::{SERVER_4, Wire};
use chokepoint_tests::tmux::Terminal;
use chokepoint_tests::workload::{eventually, on_path, path};
use chokepoint_tests::{Agent, Workload, in_vm, live, skip_if};

/// A row: its number, and its values by the headings of the columns.
struct Row {
    id: u32,
    values: HashMap<String, f64>,
}

impl Row {
    fn get(&self, column: &str) -> f64 {
        *self.values.get(column).unwrap_or_else(|| panic!("no column {column} in {:?}", self.values))
    }

    /// All time that it has.
    fn total(&self) -> f64 {
        ["USR", "SYS", "RUNQ", "THRT", "I/O", "MEM", "LOCK", "NET", "WAIT", "TIMR", "IDLE"]
            .iter()
            .map(|column| self.get(column))
            .sum()
    }
}

/// The rows of a window, on a screen or as text.
fn rows<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Row> {
    let mut columns: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for line in lines {
        let words: Vec<&str> =
            line.split_whitespace().filter(|word| word.chars().any(|c| c != '|')).collect();
        if matches!(words.first(), Some(&"PID" | &"TID")) {
            columns = words[2..].iter().map(|title| title.trim_start_matches('^').to_owned()).collect();
        } else if let Some(id) = words.first().and_then(|word| word.parse().ok())
            && !columns.is_empty()
            && words.len() > columns.len()
        {
            let numbers = &words[words.len() - columns.len()..];
            let value = |word: &&str| match word.strip_suffix('k') {
                Some(thousands) => thousands.parse().map(|value: f64| 1e3 * value),
                None if *word == "." => Ok(0.0),
                None => word.parse(),
            };
            let values: Result<Vec<f64>, _> = numbers.iter().map(value).collect();
            if let Ok(values) = values {
                rows.push(Row { id, values: columns.iter().cloned().zip(values).collect() });
            }
        }
    }
    rows
}

fn screen_rows(lines: &[String]) -> Vec<Row> {
    rows(lines.iter().map(String::as_str))
}

/// On a screen of this size.
fn top(arguments: &[&str], width: u16, height: u16) -> Terminal {
    let all: Vec<&str> = ["top"].iter().chain(arguments).copied().collect();
    Terminal::start(program().to_str().unwrap(), &all, width, height)
}

/// The windows of a run that writes text.
fn windows(text: &str) -> Vec<Vec<Row>> {
    text.split("\n\n").filter(|part| part.contains("PID")).map(|part| rows(part.lines())).collect()
}

/// Ids of what a process has loaded into the kernel.
fn loaded_by(pid: u32) -> Vec<(&'static str, u32)> {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let mut loaded = Vec::new();
    for info in infos.filter_map(|info| fs::read_to_string(info.path()).ok()) {
        for kind in ["prog_id", "map_id", "link_id"] {
            let id =
                info.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':')?.trim().parse().ok());
            loaded.extend(id.map(|id| (kind, id)));
        }
    }
    loaded
}

fn is_loaded((kind, id): (&str, u32)) -> bool {
    match kind {
        "prog_id" => loaded_programs().flatten().any(|program| program.id() == id),
        "map_id" => loaded_maps().flatten().any(|map| map.id() == id),
        _ => loaded_links().flatten().any(|link| link.id() == id),
    }
}

#[test]
fn the_screen_shows_who_runs_and_who_waits_and_for_what() {
    skip_if!(in_vm() || !on_path("tmux"), "there is no tmux");
    let _live = live();
    let spinner = Workload::start("waits_c", &["spin"]);
    let hanging = Workload::start("waits_c", &["hang"]);
    let terminal = top(&["--comm", "waits_c"], 80, 24);

    // The spinner never waits for anything but a CPU, whatever else has the CPUs. The look at a thread comes a little after the
    // window's end where others have them, so not every window is exact.
    terminal.until("the spinner's share on top", |lines| {
        let rows = screen_rows(lines);
        let first = rows.first().filter(|row| row.id == spinner.pid())?;
        let all = first.get("CPU") + first.get("RUNQ");
        ((all - 100.0).abs() < 2.0 && first.get("CPU") > 1.0).then_some(())
    });
    terminal.until("the share of the one that hangs", |lines| {
        let rows = screen_rows(lines);
        let row = rows.iter().find(|row| row.id == hanging.pid())?;
        ((row.get("WAIT") - 100.0).abs() < 0.15 && row.get("CPU") == 0.0).then_some(())
    });
    // All of it is there.
    let lines = terminal.lines();
    assert!(lines.len() == 24 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    assert!(
        lines[0].starts_with("chokepoint top  comm waits_c") && lines[23].ends_with("q quit"),
        "{lines:#?}"
    );

    // From the CPU to what is waited for.
    terminal.press(&[">"; 9]);
    terminal.until("the one that hangs on top", |lines| {
        screen_rows(lines).first().filter(|row| row.id == hanging.pid()).map(|_| ())
    });
    terminal.press(&["Enter"]);
    terminal.until("its thread", |lines| {
        let rows = screen_rows(lines);
        let is_thread = lines.iter().any(|line| line.trim_start().starts_with("TID"));
        (is_thread && rows.len() == 1 && rows[0].id == hanging.pid()).then_some(())
    });
    terminal.press(&["Enter"]);
    terminal.until("the function it hangs in, and the pipe", |lines| {
        let has = |text: &str| lines.iter().any(|line| line.contains(text));
        (has("wait.ipc") && has("hangs <") && has("[pipe ")).then_some(())
    });
    terminal.press(&["Escape"]);
    terminal.press(&["Escape", "1"]);
    terminal.press(&["/", "n", "o", "b", "o", "d", "y", "Enter"]);
    terminal.until("nobody", |lines| {
        lines.iter().any(|line| line.contains("no name has this in it")).then_some(())
    });

    // Another size is drawn on as well.
    terminal.resize(132, 30);
    terminal.until("the larger screen", |lines| {
        (lines.len() == 30 && lines[29].ends_with("q quit")).then_some(())
    });

    let loaded = loaded_by(terminal.program());
    assert!(loaded.len() > 10 && loaded.iter().all(|object| is_loaded(*object)), "{loaded:?}");
    terminal.press(&["q"]);
    assert_eq!(terminal.end(), 0);
    eventually("an empty kernel", || loaded.iter().all(|object| !is_loaded(*object)).then_some(()));
}

#[test]
fn signals_and_the_targets_end_give_the_terminal_back() {
    skip_if!(in_vm() || !on_path("tmux"), "there is no tmux");
    let _live = live();
    let hanging = Workload::start("waits_c", &["hang"]);
    let pid = hanging.pid().to_string();
    for signal in [libc::SIGTERM, libc::SIGHUP] {
        let terminal = top(&["--pid", &pid], 80, 24);
        terminal.until("a window", |lines| screen_rows(lines).first().map(|_| ()));
        // SAFETY: it runs in the terminal that waits for it.
        unsafe { libc::kill(terminal.program() as i32, signal) };
        assert_eq!(terminal.end(), 0);
    }
    let terminal = top(&["--pid", &pid], 80, 24);
    terminal.until("a window", |lines| screen_rows(lines).first().map(|_| ()));
    drop(hanging);
    assert_eq!(terminal.end(), 0);
    let said = format!("pid {pid} has ended");
    assert!(terminal.lines().iter().any(|line| line.contains(&said)), "{:#?}", terminal.lines());
}

#[test]
fn windows_follow_each_other_and_add_up() {
    let _live = live();
    let hanging = Workload::start("waits_c", &["hang"]);
    let mixing = Workload::start("waits_c", &["mix"]);
    let _churning = Workload::start("waits_c", &["churn", "100000"]);
    let pids = format!("{},{}", hanging.pid(), mixing.pid());
    let arguments = ["top", "-b", "-n", "6", "-d", "500ms", "--pid", &pids];
    let finished = Agent::new(arguments).run().succeeded();
    let windows = windows(&finished.stdout);
    assert_eq!(windows.len(), 6, "{}", finished.stdout);
    // The first begins with the accounting, not quite together for all.
    let of = |pid: u32| -> Vec<&Row> {
        windows[1..]
            .iter()
            .map(|rows| {
                rows.iter()
                    .find(|row| row.id == pid)
                    .unwrap_or_else(|| panic!("no {pid}\n{}", finished.stdout))
            })
            .collect()
    };
    // One wait that no event tells of is whole in every window, and of its class. A tenth of a per cent is the last digit.
    for row in of(hanging.pid()) {
        assert!((row.get("WAIT") - 100.0).abs() < 0.15, "{:?}", row.values);
        assert_eq!((row.get("SW/s"), row.get("THR")), (0.0, 1.0));
    }
    // Two threads that do all kinds of things: no time is missing, and none is there twice. How late the looks at the first
    // window's end and at the last one's are is all that the sum can be off, and of ten columns of five rows the last digits.
    let rows = of(mixing.pid());
    let total: f64 = rows.iter().map(|row| row.total()).sum::<f64>() / rows.len() as f64;
    let late = if in_vm() { 30.0 } else { 10.0 };
    assert!(
        (total - 200.0).abs() < late,
        "{total}: {:?}",
        rows.iter().map(|row| row.total()).collect::<Vec<_>>()
    );
    for column in ["USR", "TIMR", "WAIT", "LOCK"] {
        assert!(rows.iter().any(|row| row.get(column) > 1.0), "{column}\n{}", finished.stdout);
    }
}

#[test]
fn retransmits_of_all_windows_are_the_connections_own() {
    let _live = live();
    skip_if!(in_vm(), "the virtual machines' image has no tc");
    let Some(wire) = Wire::new() else {
        return eprintln!("skipped: this machine has no network namespaces, veth pairs or clsact queues");
    };
    const PORT: &str = "7002";
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut sink = wire.server(&path("tcp_c"));
    let sink = Workload::start_program(sink.args(["sink", PORT]));
    eventually("the server to listen", || {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp6", sink.pid())).ok()?;
        table.contains(&format!(":{:04X} ", PORT.parse::<u16>().unwrap())).then_some(())
    });
    let agent = Agent::new(["top", "-b", "-d", "500ms", "--comm", "tcp_c", "--rows", "1000"]).start();
    // What it writes first is a window.
    eventually("the programs", || (loaded_by(agent.pid()).len() > 30).then_some(()));
    sleep(Duration::from_secs(1));
    wire.lose(5, 1, 2);
    let done = directory.path().join("done");
    let mut client = wire.client(&path("tcp_c"));
    client.args(["new", SERVER_4, PORT, "8000000"]).arg(&done);
    let client = Workload::start_program(&mut client);
    sleep(Duration::from_millis(300));
    // SAFETY: the child has not been waited for, so the number is still its own.
    unsafe { libc::kill(client.pid() as i32, libc::SIGUSR1) };
    eventually("the connection's end", || done.exists().then_some(()));
    // Two windows more.
    sleep(Duration::from_secs(2));
    agent.signal(libc::SIGTERM);
    let finished = agent.finish().succeeded();
    let owner = format!("{SERVER_4}:{PORT} tcp_c ({})", client.pid());
    let truth = client.truth()["retransmits"] as u64;
    let told: Vec<u64> = finished
        .stdout
        .lines()
        .filter(|line| line.ends_with(&owner))
        .map(|line| line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number"))
        .collect();
    assert!(truth > 20, "only {truth} segments were lost");
    assert_eq!(told.iter().sum::<u64>(), truth, "{told:?}\n{}", finished.stdout);
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let finished = Agent::new(["top"]).run();
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains("--batch"), "{}", finished.stderr);
    let unknown = Agent::new(["top", "-b", "--sort", "colour"]).run();
    assert!(unknown.code == Some(2) && unknown.stderr.contains("runq"), "{}", unknown.stderr);
}

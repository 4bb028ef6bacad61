//! `chokepoint top` in a real terminal, and as text: on workloads whose truth is known.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};
use chokepoint_tests::agent::program;
use chokepoint_tests::block::{IoGroup, Limited, LoopDevice};
use chokepoint_tests::bpf::attached;
use chokepoint_tests::cgroup::Cgroup;
use chokepoint_tests::containers::Containerd;
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

/// Titles of the tables of latencies; times of devices have two words.
const QUEUE_TITLES: &str = "RUNQ N/s P50 P95 P99 P99.9 MAX";
const QUEUE_COLUMNS: usize = 7;
const DISK_TITLES: &str = "REQ/s MB/s Q P50 Q P99 D P50 D P99 MAX HELD";
const DISK_COLUMNS: usize = 8;

/// Lines of a table below the heading that ends with these titles: what each is of, and its columns.
fn table<'a>(
    lines: impl IntoIterator<Item = &'a str>,
    titles: &str,
    columns: usize,
) -> Vec<(String, Vec<String>)> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let below = lines.into_iter().skip_while(|line| !words(line).ends_with(titles)).skip(1);
    below
        .map_while(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (name, columns) = words.split_at_checked(words.len().checked_sub(columns)?)?;
            Some((name.join(" "), columns.iter().map(|&column| column.to_owned()).collect()))
        })
        .collect()
}

fn screen_table(lines: &[String], titles: &str, columns: usize) -> Vec<(String, Vec<String>)> {
    table(lines.iter().map(String::as_str), titles, columns)
}

/// A time of a table, nanoseconds; 0 for none.
fn ns(text: &str) -> f64 {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let factor = match unit {
        "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return 0.0,
    };
    number.parse::<f64>().expect("a number is before the unit") * factor
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
    let others = attached("block_rq_insert");
    let agent = Agent::new(["top", "-b", "-d", "500ms", "--comm", "tcp_c", "--rows", "1000"]).start();
    // The last one to be attached.
    eventually("the programs to be attached", || (attached("block_rq_insert") > others).then_some(()));
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
fn the_screen_shows_how_long_threads_queue() {
    skip_if!(in_vm() || !on_path("tmux"), "there is no tmux");
    let _live = live();
    let pinned = || {
        Workload::start_program(Command::new("taskset").args(["-c", "0"]).arg(path("waits_c")).arg("spin"))
    };
    let pair = [pinned(), pinned()];
    let terminal = top(&["--comm", "waits_c", "--view", "queue"], 80, 24);
    for spinner in &pair {
        terminal.until("the half of its time that it queues, and for how long", |lines| {
            let rows = screen_table(lines, QUEUE_TITLES, QUEUE_COLUMNS);
            let (_, columns) = rows.iter().find(|(name, _)| *name == format!("{} waits_c", spinner.pid()))?;
            let queued_pct: f64 = columns[0].parse().ok()?;
            let often: f64 = columns[1].parse().ok()?;
            let times: Vec<f64> = columns[2..].iter().map(|time| ns(time)).collect();
            // Whatever others take comes on top. A scheduler has turns of milliseconds, so waits are as long, and there are no more of
            // them than the queued time has room for.
            let is_half = queued_pct >= 35.0 && times[1] > 500e3;
            let grow = times.is_sorted() && times[0] > 0.0;
            (is_half && grow && often > 0.0 && often * times[0] <= 2e9).then_some(())
        });
    }
    let lines = terminal.lines();
    assert!(lines.len() == 24 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    terminal.press(&["c"]);
    // Both are in the same group.
    let group = terminal.until("the group", |lines| {
        let rows = screen_table(lines, QUEUE_TITLES, QUEUE_COLUMNS);
        let both = rows.first().filter(|(_, columns)| columns[0].parse().is_ok_and(|pct: f64| pct >= 70.0));
        let is_group = lines.iter().any(|line| line.trim_start().starts_with("CGROUP"));
        both.filter(|_| is_group).map(|(name, _)| name.clone())
    });
    assert!(!group.is_empty());
    terminal.press(&["q"]);
    assert_eq!(terminal.end(), 0);
}

#[test]
fn the_screen_shows_how_long_requests_take_and_what_a_limit_holds_back() {
    skip_if!(in_vm() || !on_path("tmux"), "there is no tmux");
    let _live = live();
    let Some(device) = LoopDevice::new(32 << 20) else {
        return eprintln!("skipped: this machine has no loop devices");
    };
    let Some(group) = IoGroup::new("chokepoint-top") else {
        return eprintln!("skipped: no group can be made");
    };
    let limit = group.limit(&device, Limited::ReadsPerSecond);
    skip_if!(!limit.is_there(), "this kernel has no limits for block devices");
    const READS_PER_S: f64 = 40.0;
    limit.set(READS_PER_S as u64);
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec dd if={} of=/dev/null bs=4k iflag=direct status=none",
        group.path().display(),
        device.path().display()
    );
    let reader = Workload::start_program(Command::new("sh").args(["-c", &script]));
    let terminal = top(&["--view", "disks"], 80, 24);
    // One at a time, and each held until the next fortieth of a second: no more than the limit allows, over any second a quarter more
    // because what it saved up counts. Where others have the CPUs, there may be less.
    let is_limited = |columns: &[String]| {
        let per_s =
            columns[0].parse::<f64>().is_ok_and(|rate| rate > 0.0 && rate <= 1.25 * READS_PER_S + 1.0);
        per_s && ns(&columns[4]) > 0.0 && ns(&columns[4]) <= ns(&columns[6])
    };
    let is_held = |columns: &[String]| ns(&columns[7]) >= 1e9 / READS_PER_S / 2.0;
    let found = |lines: &[String], name: &str, is_it: &dyn Fn(&[String]) -> bool| {
        let rows = screen_table(lines, DISK_TITLES, DISK_COLUMNS);
        rows.into_iter().find(|(found, columns)| found == name && is_it(columns)).map(|_| ())
    };
    let both = |columns: &[String]| is_limited(columns) && is_held(columns);
    let of_device = format!("{} read", device.name());
    terminal.until("the device", |lines| found(lines, &of_device, &both));
    let lines = terminal.lines();
    assert!(lines.len() == 24 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    terminal.press(&["c"]);
    let of_process = format!("{} dd", reader.pid());
    terminal.until("the process", |lines| found(lines, &of_process, &is_limited));
    // Where the agent itself looks at what is held, nobody knows whose it is.
    terminal.until("what is held", |lines| {
        let of_nobody = found(lines, "0 [no process]", &is_held);
        of_nobody.or_else(|| found(lines, &of_process, &is_held))
    });
    terminal.press(&["c"]);
    // What the file behind the device takes of its own disk counts for the group, too.
    terminal.until("the group", |lines| {
        let name = group.name();
        // Of a name that is too long the end is there.
        let rows = screen_table(lines, DISK_TITLES, DISK_COLUMNS);
        let end = |found: &str| name.ends_with(found.trim_start_matches('+')) && !found.is_empty();
        rows.iter().find(|(found, columns)| end(found) && is_held(columns)).map(|_| ())
    });
    limit.set(0);
    terminal.press(&["q"]);
    assert_eq!(terminal.end(), 0);
}

#[test]
fn requests_of_all_windows_are_those_that_the_kernel_counts() {
    let _live = live();
    skip_if!(in_vm(), "two thousand reads and their windows take minutes in emulation");
    let Some(device) = LoopDevice::new(32 << 20) else {
        return eprintln!("skipped: this machine has no loop devices");
    };
    let direct = device.open();
    let others = attached("block_rq_insert");
    let agent = Agent::new(["top", "-b", "-d", "500ms", "--view", "disks", "--rows", "1000"]).start();
    // The last one to be attached.
    eventually("the programs to be attached", || (attached("block_rq_insert") > others).then_some(()));
    let before = device.statistics().reads;
    for page in 0..2_000 {
        direct.read(page * 4096, 4096).expect("it is read");
        sleep(Duration::from_micros(500));
    }
    let reads = (device.statistics().reads - before) as f64;
    // Two windows more.
    sleep(Duration::from_secs(2));
    agent.signal(libc::SIGTERM);
    let finished = agent.finish().succeeded();
    let of_device = format!("{} read", device.name());
    let mut told = 0.0;
    let mut slack = 0.0;
    for window in finished.stdout.split(" s\ncpu ").collect::<Vec<_>>().windows(2) {
        let seconds: f64 = window[0].rsplit(' ').next().unwrap().parse().expect("how long it was");
        let rows = table(window[1].lines(), DISK_TITLES, DISK_COLUMNS);
        let of_window = rows.iter().find(|(name, _)| *name == of_device);
        let Some((_, columns)) = of_window else { continue };
        let per_s: f64 = columns[0].parse().expect("a rate");
        told += per_s * seconds;
        // Half of the last digit of either.
        slack += 0.5 * seconds + per_s * 0.005;
    }
    eprintln!("measured: {told} requests told of {reads}, within {slack}");
    assert!(reads >= 2_000.0 && (told - reads).abs() <= slack, "{told} {reads}\n{}", finished.stdout);
}

#[test]
fn containers_have_the_names_that_people_know() {
    skip_if!(in_vm() || !on_path("tmux"), "there is no tmux");
    let _live = live();
    let hierarchy = Cgroup::v2_mount().unwrap_or_else(|| "/sys/fs/cgroup/cpu".into());
    let Some(group) = Cgroup::new(&hierarchy, "chokepoint-top") else {
        return eprintln!("skipped: no control groups are to be had");
    };
    let of_docker = group.child(&format!("docker-{}.scope", "c0ffee".repeat(10) + "1234"));
    let spinner = Workload::start("waits_c", &["spin"]);
    of_docker.add(spinner.pid());
    let mut arguments = vec!["--view".to_owned(), "cgroups".to_owned()];
    // Where there is a runtime, it knows more than the id.
    let mut containerd = Containerd::start();
    let pod = containerd.as_mut().map(|containerd| {
        let web = containerd.pod("shop", "web-0");
        let id = containerd.container(&web, "server", &["sh", "-c", "while :; do :; done"]);
        arguments.extend(["--cri-socket".to_owned(), containerd.socket().display().to_string()]);
        (web, id)
    });
    let terminal = top(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), 80, 24);
    let shows = |lines: &[String], name: &str| lines.iter().any(|line| line.starts_with(name)).then_some(());
    terminal.until("the container by its id", |lines| shows(lines, "c0ffeec0ffee of Docker"));
    if pod.is_some() {
        terminal.until("the container by its name", |lines| shows(lines, "shop/web-0 server "));
    } else {
        eprintln!("skipped: there is no containerd, and its package cannot be had: no pod is shown");
    }
    // Its processes, on a screen that has room for where they run.
    terminal.resize(160, 30);
    terminal.press(&["1", "/", "c", "0", "f", "f", "e", "e", "Enter"]);
    terminal.until("the process of the container", |lines| {
        let row = screen_rows(lines).into_iter().next().filter(|row| row.id == spinner.pid());
        let behind = lines.iter().any(|line| line.contains("of c0ffeec0ffee of Docker"));
        row.filter(|_| behind).map(|_| ())
    });
    terminal.press(&["q"]);
    assert_eq!(terminal.end(), 0);
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let finished = Agent::new(["top"]).run();
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains("--batch"), "{}", finished.stderr);
    let unknown = Agent::new(["top", "-b", "--sort", "colour"]).run();
    assert!(unknown.code == Some(2) && unknown.stderr.contains("runq"), "{}", unknown.stderr);
}

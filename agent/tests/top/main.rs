//! The screen of `chokepoint top`, on a terminal that is none: what it shows of a window that is known, and what keys do.
//!
//! What is shown is compared with the files in `screens`; `BLESS=1` accepts what is new.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chokepoint::connections::{Counts, Owner, Peer, Statistics};
use chokepoint::process::place::ProcessKey;
use chokepoint::top::app::{App, Command, Page};
use chokepoint::top::columns::Column;
use chokepoint::top::groups::GroupNames;
use chokepoint::top::host_use::{CpuUse, HostUse};
use chokepoint::top::latencies::Queued;
use chokepoint::top::reader::{Scope, Stack, Stacks};
use chokepoint::top::screen::draw;
use chokepoint::top::snapshot::{Activity, OwnCost, Snapshot, Thread};
use chokepoint_analysis::activity::Class;
use chokepoint_analysis::block::{Block, Device, Held, Key, Latency, Operation, Requests, Totals};
use chokepoint_analysis::durations::Durations;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (200, 50);

/// A thread that spends a second by these shares, in thousandths.
fn thread(pid: u32, tid: u32, names: (&str, &str), cgroup: &str, shares: &[(Class, u64)]) -> Thread {
    let mut activity = Activity::of_thread(u64::from(tid % 1000));
    for (class, thousandths) in shares {
        activity.add(*class, thousandths * 1_000_000);
    }
    Thread {
        process: ProcessKey { pid, start_ns: 1 },
        tid,
        process_name: names.0.to_owned(),
        name: names.1.to_owned(),
        cgroup: Arc::from(cgroup),
        parent: if pid == 1 { 0 } else { 1 },
        activity,
    }
}

/// So many times of 1, 2, 3, ... milliseconds.
fn durations(number: u64) -> Durations {
    let mut durations = Durations::default();
    (1..=number).for_each(|ms| durations.add(ms * 1_000_000));
    durations
}

fn queued(pid: u32, name: &str, cgroup: &str, times: u64) -> Queued {
    let queued_ns = (1..=times).sum::<u64>() * 1_000_000;
    Queued { pid, name: name.to_owned(), cgroup: cgroup.into(), queued_ns, latencies: durations(times) }
}

fn block(cgroup: &str) -> Block {
    let key = |name: &str, operation, pid, process: &str| {
        let device = Device { name: name.to_owned(), ..Device::default() };
        let owner = chokepoint_analysis::block::Owner {
            pid,
            process_name: process.to_owned(),
            cgroup: cgroup.to_owned(),
            ..Default::default()
        };
        Key { device, operation, owner, of_target: true }
    };
    let latency = |number| Latency { total_ns: number * 1_000_000, times: durations(number) };
    let totals = |requests| Totals {
        requests,
        bytes: requests * 8192,
        queue: latency(requests / 10),
        device: latency(requests),
        ..Totals::default()
    };
    let read = key("nvme0n1", Operation::Read, 4242, "postgres");
    let flush = key("nvme0n1", Operation::Flush, 0, "");
    let held =
        Held { key: read.clone(), bios: 1, bytes: 4096, held_ns: 250_000_000, held_max_ns: 250_000_000 };
    Block {
        requests: vec![
            Requests { key: read, totals: totals(200) },
            Requests { key: flush, totals: totals(3) },
        ],
        held: vec![held],
        ..Block::default()
    }
}

fn snapshot() -> Snapshot {
    use Class::*;
    let kube = "/kubepods.slice/kubepods-burstable.slice/cri-containerd-4f2a.scope";
    Snapshot {
        // Noon in whatever zone would do; only its form is compared.
        end_unix_s: 1_700_000_000,
        length: Duration::from_secs(1),
        threads: vec![
            thread(1, 1, ("systemd", "systemd"), "/init.scope", &[(Event, 1000)]),
            thread(
                4242,
                4242,
                ("postgres", "postgres"),
                kube,
                &[(CpuUser, 420), (CpuKernel, 80), (IoRead, 300), (RunQueue, 200)],
            ),
            thread(4242, 4243, ("postgres", "wal\x1b[31mwriter"), kube, &[(IoSync, 650), (Futex, 350)]),
            thread(
                5151,
                5151,
                ("spinner-with-a-long-name", "spinner"),
                "/user.slice",
                &[(CpuUser, 900), (Throttled, 100)],
            ),
            thread(77, 77, ("kworker/0:1", "kworker/0:1"), "/", &[(Idle, 999), (CpuKernel, 1)]),
            thread(
                88,
                88,
                ("sleepy", "sleepy"),
                "/user.slice",
                &[(Timer, 500), (NetReceive, 400), (MemoryReclaim, 100)],
            ),
        ],
        ended: 2,
        peers: vec![Peer {
            remote: "10.0.0.5:5432".parse::<SocketAddr>().unwrap(),
            owner: Some(Owner { tgid: 4242, name: "postgres".to_owned(), cgroup_id: None }),
            connections: 3,
            counts: Counts { segments: 12, syns: 2, resets_received: 1, ..Counts::default() },
            statistics: Some(Statistics { srtt_us: 1_234, congestion_window: 10, ..Statistics::default() }),
        }],
        queues: vec![
            queued(4242, "postgres", kube, 4),
            queued(5151, "spinner-with-a-long-name", "/user.slice", 1),
            queued(77, "kworker/0:1", "/", 0),
        ],
        block: Some(block(kube)),
        block_refused: None,
        groups: GroupNames::default(),
        host: HostUse {
            cpus: 2,
            cpu: Some(CpuUse { user_pct: 66.0, system_pct: 4.1, stolen_pct: 2.5 }),
            load: Some([1.5, 0.75, 0.25]),
            stalled_cpu_pct: Some(21.0),
            stalled_io_pct: Some(48.5),
            stalled_memory_pct: None,
            segments: Some((1_000, 14)),
        },
        losses: Vec::new(),
        own: OwnCost {
            programs: Some(Duration::from_micros(2_500)),
            agent: Duration::from_millis(6),
            resident_bytes: 43 << 20,
        },
    }
}

fn stacks(scope: Scope) -> Stacks {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Stacks {
        scope,
        length: Duration::from_secs(1),
        total_ns: 1_000_000_000,
        stacks: vec![
            Stack {
                class: Class::CpuUser,
                time_ns: 420_000_000,
                samples: 42,
                object: None,
                frames: names(&["sorts_tuples", "executor_run", "main"]),
                user_from: 0,
            },
            Stack {
                class: Class::IoRead,
                time_ns: 300_000_000,
                samples: 7,
                object: Some("file /data/db on vda".to_owned()),
                frames: names(&["io_schedule_[k]", "ksys_read_[k]", "reads_page", "executor_run", "main"]),
                user_from: 2,
            },
        ],
        left_out: 3,
    }
}

fn app() -> App {
    let mut app = App::new("host".to_owned());
    assert_eq!(app.show(snapshot()), None);
    app
}

fn press(app: &mut App, keys: &str) -> Option<Command> {
    let mut command = None;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            'v' => KeyCode::Down,
            '}' => KeyCode::Right,
            letter => KeyCode::Char(letter),
        };
        command = app.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    command
}

/// The text of the screen; the time of day is that of the host's zone.
fn text(app: &mut App, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = (0..height).map(|y| {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned()
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    let time = chokepoint::top::plain::time_of_day(snapshot().end_unix_s);
    text.replacen(&time, "HH:MM:SS", 1)
}

fn check(app: &mut App, size: (u16, u16), name: &str) {
    let actual = text(app, size);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/top/screens").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &actual).expect("write the golden file");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, golden, "{name}; BLESS=1 accepts what is new");
}

#[test]
fn pages_show_what_the_window_has() {
    let mut app = app();
    check(&mut app, SMALL, "processes_80x24.txt");
    check(&mut app, LARGE, "processes_200x50.txt");
    press(&mut app, "2");
    check(&mut app, SMALL, "cgroups_80x24.txt");
    press(&mut app, "3");
    check(&mut app, SMALL, "threads_80x24.txt");
    press(&mut app, "4");
    check(&mut app, SMALL, "peers_80x24.txt");
    for (keys, name) in [
        ("5", "queue_80x24.txt"),
        ("c", "queue_of_cgroups_80x24.txt"),
        ("6", "disks_80x24.txt"),
        ("c", "disks_of_processes_80x24.txt"),
        ("c", "disks_of_cgroups_80x24.txt"),
    ] {
        press(&mut app, keys);
        check(&mut app, SMALL, name);
    }
    press(&mut app, "4?");
    check(&mut app, SMALL, "help_80x24.txt");
    check(&mut app, LARGE, "help_200x50.txt");
}

#[test]
fn a_thread_is_two_steps_below_its_process_and_its_stacks_three() {
    let mut app = app();
    assert_eq!(app.rows[1].name, "postgres");
    press(&mut app, "v\n");
    assert_eq!(app.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [Some(4242), Some(4243)]);
    let scope = Scope::Thread(ProcessKey { pid: 4242, start_ns: 1 }, 4242);
    assert_eq!(press(&mut app, "\n"), Some(Command::Stacks(scope.clone())));
    assert!(text(&mut app, SMALL).contains("naming the stacks"));
    // Those of another scope come too late.
    app.show_stacks(stacks(Scope::Name("other".to_owned())));
    assert!(app.stacks.is_none());
    app.show_stacks(stacks(scope.clone()));
    press(&mut app, "v");
    check(&mut app, SMALL, "stacks_80x24.txt");
    // With each window they are asked for again, and the selection stays with its stack.
    assert_eq!(app.show(snapshot()), Some(Command::Stacks(scope.clone())));
    let mut turned = stacks(scope);
    turned.stacks.reverse();
    app.show_stacks(turned);
    assert_eq!((app.selected, app.selected_stack().unwrap().class), (0, Class::IoRead));
    press(&mut app, "}}");
    assert!(text(&mut app, SMALL).contains("  reads_page"));
    press(&mut app, "\x1b\x1b");
    assert_eq!((app.rows.len(), app.rows[app.selected].name.as_str()), (5, "postgres"));
}

#[test]
fn rows_are_sorted_filtered_and_folded() {
    let mut app = app();
    let names = |app: &App| app.rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&app)[..2], ["spinner-with-a-long-name", "postgres"]);
    for _ in 0..5 {
        press(&mut app, ">");
    }
    assert_eq!((app.sort, names(&app)[0].as_str()), (Column::Io, "postgres"));
    press(&mut app, "r");
    assert_eq!(names(&app).last().unwrap(), "postgres");
    press(&mut app, "r/SPIN\n");
    assert_eq!(names(&app), ["spinner-with-a-long-name"]);
    press(&mut app, "/x");
    assert!(text(&mut app, SMALL).contains("no name has this in it"));
    press(&mut app, "\x1bt");
    assert_eq!((app.rows.len(), names(&app)[0].as_str()), (5, "systemd"));
    check(&mut app, SMALL, "tree_80x24.txt");
}

#[test]
fn the_selection_stays_with_its_row_and_in_sight() {
    let mut app = app();
    press(&mut app, "vv");
    let followed = app.rows[2].name.clone();
    let mut next = snapshot();
    // It becomes the busiest.
    for thread in next.threads.iter_mut().filter(|thread| thread.process_name == followed) {
        thread.activity.add(Class::CpuUser, 2_000_000_000);
    }
    app.show(next);
    assert_eq!((app.selected, app.rows[0].name.as_str()), (0, followed.as_str()));
    let mut many = snapshot();
    many.threads =
        (1..500).map(|pid| thread(pid, pid, ("many", "many"), "/", &[(Class::Idle, 1000)])).collect();
    app.show(many);
    press(&mut app, "G");
    assert_eq!(app.selected, 498);
    assert!(text(&mut app, SMALL).contains("    499 many"));
    app.show(snapshot());
    assert!(app.selected < app.rows.len() && text(&mut app, SMALL).contains("postgres"));
}

#[test]
fn what_is_not_seen_is_said() {
    let mut app = app();
    assert!(text(&mut app, SMALL).contains("nothing lost"));
    let losses =
        vec!["4 samples lost: ring buffer full".to_owned(), "7 threads are not told apart".to_owned()];
    app.show(Snapshot { losses, ..snapshot() });
    assert!(text(&mut app, SMALL).contains("losses: l"));
    press(&mut app, "l");
    let shown = text(&mut app, SMALL);
    assert!(
        shown.contains("4 samples lost: ring buffer full") && shown.contains("7 threads are not told apart"),
        "{shown}"
    );
    press(&mut app, "l");
    app.show(snapshot());
    assert!(text(&mut app, SMALL).contains("losses in 1 windows"));
}

#[test]
fn every_size_is_drawn_on_and_no_name_moves_the_cursor() {
    let mut app = app();
    for keys in ["", "2", "3", "4", "5", "c", "6", "c", "c", "3s", "?", "x/abc"] {
        press(&mut app, keys);
        for width in (1..130).step_by(3) {
            for height in [1, 5, 11, 12, 13, 24, 60] {
                let shown = text(&mut app, (width, height));
                assert!(!shown.contains('\x1b'), "{width}x{height}");
            }
        }
    }
    assert!(text(&mut app, (30, 10)).contains("too small"));
}

#[test]
fn keys_end_it() {
    let mut app = app();
    assert_eq!(press(&mut app, "q"), Some(Command::Quit));
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut app, "/");
    assert_eq!(app.press(control_c), Some(Command::Quit));
    // What is typed is no command.
    assert_eq!((press(&mut app, "q"), app.filter.as_str()), (None, "q"));
    assert_eq!(app.page, Page::Rows(chokepoint::top::rows::Level::Processes));
}

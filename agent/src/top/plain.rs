//! A window as plain text: the lines that the screen has too, and for pipes all of it.

use super::columns::Column;
use super::fitted::{cut, cut_left, printable};
use super::latencies::{self, By};
use super::latency_lines;
use super::rows::{Level, Query, Row, rows};
use super::snapshot::Snapshot;
use crate::connections::Peer;

/// Heading of the lines of peers.
pub const PEER_TITLE: &str = "   AGAIN   SYN S-ACK  RSTs  RSTr   RTT ms  CWND  PEER AND PROCESS";

/// Use of the CPUs, load, and threads that wait for a CPU.
#[must_use]
pub fn cpu_line(snapshot: &Snapshot) -> String {
    let host = &snapshot.host;
    let cpu = host.cpu.map_or_else(
        || "cpu not told".to_owned(),
        |cpu| {
            let stolen =
                if cpu.stolen_pct >= 0.05 { format!(" stolen {:.1}", cpu.stolen_pct) } else { String::new() };
            let (busy, user, system) = (cpu.busy_pct(), cpu.user_pct, cpu.system_pct);
            format!("cpu {busy:.1}% (usr {user:.1} sys {system:.1}{stolen}) of {}", host.cpus)
        },
    );
    let load = host.load.map(|[one, five, fifteen]| format!("  load {one:.2} {five:.2} {fifteen:.2}"));
    format!("{cpu}{}  queued {:.1}", load.unwrap_or_default(), snapshot.queued())
}

/// Pressure stalls and retransmits; what the kernel does not tell is left out.
#[must_use]
pub fn stall_line(snapshot: &Snapshot) -> String {
    let host = &snapshot.host;
    let stalls: Vec<String> =
        [("cpu", host.stalled_cpu_pct), ("io", host.stalled_io_pct), ("memory", host.stalled_memory_pct)]
            .into_iter()
            .filter_map(|(what, pct)| Some(format!("{what} {:.1}%", pct?)))
            .collect();
    let stalls = if stalls.is_empty() {
        "no pressure stall information".to_owned()
    } else {
        format!("stalled {}", stalls.join(" "))
    };
    let segments = host
        .segments
        .map(|(sent, again)| format!("  tcp {sent} segments sent, {again} again"))
        .unwrap_or_default();
    format!("{stalls}{segments}")
}

/// Threads, switches, and what the profiler itself takes, per cent of one CPU.
#[must_use]
pub fn own_line(snapshot: &Snapshot) -> String {
    let own = &snapshot.own;
    let pct = |time: std::time::Duration| snapshot.pct(time.as_nanos() as u64);
    let programs = own.programs.map(|time| format!("{:.1}+", pct(time))).unwrap_or_default();
    format!(
        "{} threads, {} ended  {:.0} switches/s  own {programs}{:.1}% {} MB",
        snapshot.threads.len(),
        snapshot.ended,
        snapshot.switches_per_s(),
        pct(own.agent),
        own.resident_bytes >> 20,
    )
}

/// A peer.
#[must_use]
pub fn peer_line(peer: &Peer) -> String {
    let counts = &peer.counts;
    let (rtt, window) = peer.statistics.map_or_else(
        || ("-".to_owned(), "-".to_owned()),
        |known| (format!("{:.1}", f64::from(known.srtt_us) / 1e3), known.congestion_window.to_string()),
    );
    let owner = peer.owner.as_ref().map_or_else(
        || "[no process]".to_owned(),
        |owner| format!("{} ({})", printable(&owner.name), owner.tgid),
    );
    format!(
        "{:>8} {:>5} {:>5} {:>5} {:>5} {rtt:>8} {window:>5}  {} {owner}",
        counts.retransmits(),
        counts.syns,
        counts.syn_acks,
        counts.resets_sent,
        counts.resets_received,
        peer.remote,
    )
}

/// Hours, minutes and seconds of a time since 1970, of the host's time zone.
#[must_use]
pub fn time_of_day(unix_s: u64) -> String {
    let seconds = unix_s as libc::time_t;
    // SAFETY: all zeros is a valid tm.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    unsafe { libc::localtime_r(&seconds, &mut time) };
    format!("{:02}:{:02}:{:02}", time.tm_hour, time.tm_min, time.tm_sec)
}

/// What is written of a window.
#[derive(Clone, Debug)]
pub enum Table {
    /// Rows of processes, cgroups or threads, and the peers that something was lost with.
    Rows(Query),
    /// The peers alone.
    Peers,
    /// Run-queue latencies.
    Queues(By),
    /// Requests of block devices.
    Disks(By),
}

/// A window, with at most so many rows and every column.
#[must_use]
pub fn window(snapshot: &Snapshot, table: &Table, most_rows: usize) -> String {
    let mut text = format!(
        "{}  {:.2} s\n{}\n{}\n{}\n",
        time_of_day(snapshot.end_unix_s),
        snapshot.length.as_secs_f64(),
        cpu_line(snapshot),
        stall_line(snapshot),
        own_line(snapshot),
    );
    for loss in &snapshot.losses {
        text += &format!("not seen: {}\n", printable(loss));
    }
    text.push('\n');
    match table {
        Table::Rows(query) => {
            let all = rows(snapshot, query);
            let lines = all.iter().map(|row| row_line(row, snapshot, query.level));
            add_table(&mut text, &row_title(query.level), lines, most_rows);
            if !snapshot.peers.is_empty() {
                text.push('\n');
                add_table(&mut text, PEER_TITLE, snapshot.peers.iter().map(peer_line), most_rows);
            }
        }
        Table::Peers => add_table(&mut text, PEER_TITLE, snapshot.peers.iter().map(peer_line), most_rows),
        Table::Queues(by) => {
            let all = latencies::queue_rows(snapshot, *by);
            let lines = all.iter().map(|row| latency_lines::queue_line(row, snapshot, WIDTH));
            add_table(&mut text, &latency_lines::queue_title(*by, WIDTH), lines, most_rows);
        }
        Table::Disks(by) => {
            let all = latencies::disk_rows(snapshot, *by);
            let lines = all.iter().map(|row| latency_lines::disk_line(row, snapshot, WIDTH));
            add_table(&mut text, &latency_lines::disk_title(*by, WIDTH), lines, most_rows);
        }
    }
    text
}

fn add_table(text: &mut String, title: &str, lines: impl ExactSizeIterator<Item = String>, most_rows: usize) {
    let more = lines.len().saturating_sub(most_rows);
    for line in std::iter::once(title.to_owned()).chain(lines.take(most_rows)) {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if more > 0 {
        *text += &format!("        {more} more\n");
    }
}

/// Width of the name of a row, and of a whole line of latencies.
const NAME_WIDTH: usize = 24;
const WIDTH: usize = 100;

fn row_title(level: Level) -> String {
    let (id, name) = match level {
        Level::Processes => ("PID", "PROCESS"),
        Level::Cgroups => ("", "CGROUP"),
        Level::Threads => ("TID", "THREAD"),
    };
    let columns = Column::ALL
        .map(|column| format!(" {:>width$}", column.title(), width = usize::from(column.width()) - 1));
    format!("{id:>7} {name:<NAME_WIDTH$}{}", columns.concat())
}

fn row_line(row: &Row, snapshot: &Snapshot, level: Level) -> String {
    let id = row.id.map_or_else(|| format!("{}x", row.activity.threads), |id| id.to_string());
    let name = printable(&row.name);
    let name = if level == Level::Cgroups { cut_left(&name, NAME_WIDTH) } else { cut(&name, NAME_WIDTH) };
    let columns = Column::ALL.map(|column| {
        format!(" {:>width$}", column.text(&row.activity, snapshot), width = usize::from(column.width()) - 1)
    });
    format!("{id:>7} {name:<NAME_WIDTH$}{}", columns.concat())
}

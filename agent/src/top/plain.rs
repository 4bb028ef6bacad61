//! A window as plain text: the lines that the screen has too, and for pipes all of it.

use super::columns::Column;
use super::rows::{Level, Query, rows};
use super::screen::{cut, cut_left, printable};
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

/// Width of a name.
const NAME_WIDTH: usize = 24;

/// All of a window, with at most so many rows and every column.
#[must_use]
pub fn window(snapshot: &Snapshot, query: &Query, most_rows: usize) -> String {
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
    let (id, name) = match query.level {
        Level::Processes => ("PID", "PROCESS"),
        Level::Cgroups => ("", "CGROUP"),
        Level::Threads => ("TID", "THREAD"),
    };
    text += &format!("\n{id:>7} {name:<NAME_WIDTH$}");
    for column in Column::ALL {
        text += &format!(" {:>width$}", column.title(), width = usize::from(column.width()) - 1);
    }
    text += "\n";
    let all = rows(snapshot, query);
    for row in all.iter().take(most_rows) {
        let id = row.id.map_or_else(|| format!("{}x", row.activity.threads), |id| id.to_string());
        let name = printable(&row.name);
        let name =
            if query.level == Level::Cgroups { cut_left(&name, NAME_WIDTH) } else { cut(&name, NAME_WIDTH) };
        text += &format!("{id:>7} {name:<NAME_WIDTH$}");
        for column in Column::ALL {
            let number = column.text(&row.activity, snapshot);
            text += &format!(" {number:>width$}", width = usize::from(column.width()) - 1);
        }
        text += "\n";
    }
    if all.len() > most_rows {
        text += &format!("        {} more\n", all.len() - most_rows);
    }
    if !snapshot.peers.is_empty() {
        text += &format!("\n{PEER_TITLE}\n");
        for peer in snapshot.peers.iter().take(most_rows) {
            text += &peer_line(peer);
            text += "\n";
        }
    }
    text
}

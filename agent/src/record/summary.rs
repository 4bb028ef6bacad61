//! What `record` tells at its end: how complete the profile is, what is in it, where it is, and what it cost.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::Duration;

use chokepoint_analysis::coverage::Coverage;
use chokepoint_analysis::names;
use chokepoint_analysis::profile::Profile;
use chokepoint_analysis::top::{self, FunctionTotals};

use super::block_table;
use super::event::Event;
use super::memory_summary;
use super::output::Output;
use super::run_queue_summary;
use super::sockets_summary;
use crate::connections::{Counts, Peer};
use crate::destination::Destination;
use crate::host::cost::Cost;
use crate::load::OnCpuEvent;
use crate::pipeline::{End, Facts};
use crate::symbolized::Profiles;
use crate::unwind;

/// Functions listed.
const TOP_FUNCTIONS: usize = 10;
/// Peers listed.
const TOP_PEERS: usize = 10;
/// Columns of a terminal whose width is not known.
const DEFAULT_COLUMNS: usize = 100;

/// A recording that has been written.
pub struct Finished<'a> {
    /// The profiles; there is at least one.
    pub profiles: &'a Profiles,
    /// How it was made.
    pub facts: Facts,
    /// Where each was written.
    pub outputs: &'a [Output],
    /// Time from the end of the window to the written file.
    pub finishing: Duration,
    /// What this process has cost.
    pub cost: Cost,
}

/// Prints the summary to standard error, with colours on a terminal.
pub fn print(finished: &Finished<'_>) {
    let style = if io::stderr().is_terminal() { Style::COLOURS } else { Style::PLAIN };
    eprint!("{}", render(finished, style));
}

/// Terminal codes around what stands out.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) bold: &'static str,
    pub(super) warn: &'static str,
    pub(super) dim: &'static str,
    pub(super) reset: &'static str,
}

impl Style {
    const COLOURS: Self = Self { bold: "\x1b[1m", warn: "\x1b[33m", dim: "\x1b[2m", reset: "\x1b[0m" };
    pub(super) const PLAIN: Self = Self { bold: "", warn: "", dim: "", reset: "" };
}

fn render(finished: &Finished<'_>, style: Style) -> String {
    let Finished { profiles, facts, outputs, finishing, cost } = finished;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = profiles
        .profiles
        .iter()
        .try_for_each(|(event, profile)| {
            recorded(&mut text, *event, profile, facts, style)?;
            match &profile.memory {
                Some(memory) => memory_summary::write(&mut text, *event, memory, style),
                None if *event == Event::Cpu => top_functions(&mut text, profile, style),
                None => Ok(()),
            }
        })
        .and_then(|()| times(&mut text, profiles, style))
        .and_then(|()| {
            let shown = profiles.profiles.iter().find_map(|(_, profile)| profile.run_queue.as_ref());
            shown.map_or(Ok(()), |run_queue| run_queue_summary::render(&mut text, run_queue, style))
        })
        .and_then(|()| {
            let watched =
                profiles.profiles.iter().find_map(|(_, profile)| Some((profile, profile.block.as_ref()?)));
            match watched {
                Some((profile, block)) => block_table::write(&mut text, block, &profile.header, style),
                None => Ok(()),
            }
        })
        .and_then(|()| peers(&mut text, &profiles.peers, style))
        .and_then(|()| {
            let looked = profiles.profiles.iter().find(|(event, _)| event.looks_at_sockets());
            looked
                .map_or(Ok(()), |(_, profile)| sockets_summary::write(&mut text, &profile.connections, style))
        })
        .and_then(|()| outputs.iter().try_for_each(|output| written(&mut text, output, *finishing, style)))
        .and_then(|()| match profiles.profiles.first() {
            Some((_, profile)) => costs(&mut text, profile, facts, cost, style),
            None => Ok(()),
        });
    text
}

/// The time of all threads by class, and whether it adds up.
fn times(text: &mut String, profiles: &Profiles, style: Style) -> std::fmt::Result {
    let total: u64 = profiles.classes.iter().map(|(_, ns)| ns).sum();
    let times = profiles
        .profiles
        .iter()
        .find(|(event, _)| event.needs_sched())
        .map(|(_, profile)| &profile.thread_times);
    let Some(times) = times.filter(|_| total > 0) else { return Ok(()) };
    let elapsed: u64 = times.iter().map(|time| time.elapsed_ns).sum();
    let switches: u64 = times.iter().map(|time| time.switches).sum();
    writeln!(text, "{}  share      time  class{}", style.dim, style.reset)?;
    for (class, ns) in &profiles.classes {
        writeln!(text, "{:6.1}% {:8.3} s  {class}", *ns as f64 * 100.0 / total as f64, *ns as f64 / 1e9)?;
    }
    writeln!(
        text,
        "{}{:6.1}% {:8.3} s  of {:.3} s that {} threads lived; {switches} switches{}",
        style.dim,
        total as f64 * 100.0 / elapsed.max(1) as f64,
        total as f64 / 1e9,
        elapsed as f64 / 1e9,
        times.len(),
        style.reset
    )
}

/// The TCP peers that most was lost with.
fn peers(text: &mut String, peers: &[Peer], style: Style) -> std::fmt::Result {
    if peers.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "{}retransmits     SYN SYN-ACK resets sent  received  rtt, window, limited by receiver, buffer  peer and process{}",
        style.dim, style.reset
    )?;
    for Peer { remote, owner, connections, counts, statistics } in peers.iter().take(TOP_PEERS) {
        let state = statistics.map_or_else(
            || "-".to_owned(),
            |statistics| {
                let share = |ns: u64| ns as f64 * 100.0 / statistics.busy_ns.max(1) as f64;
                format!(
                    "{:.1} ms, {}, {:.0}%, {:.0}%",
                    f64::from(statistics.srtt_us) / 1e3,
                    statistics.congestion_window,
                    share(statistics.receiver_limited_ns),
                    share(statistics.buffer_limited_ns)
                )
            },
        );
        let process = match owner {
            Some(owner) => format!("{} ({})", names::printable(&owner.name), owner.tgid),
            None => "no process".to_owned(),
        };
        let several = if *connections > 1 { format!(", {connections} connections") } else { String::new() };
        writeln!(
            text,
            "{:11} {:7} {:7} {:11} {:9}  {state:38}  {}tcp {remote}{} {process}{several}",
            counts.retransmits(),
            counts.syns,
            counts.syn_acks,
            counts.resets_sent,
            counts.resets_received,
            style.bold,
            style.reset,
        )?;
    }
    let total = peers.iter().fold(Counts::default(), |mut total, peer| {
        total.add(&peer.counts);
        total
    });
    writeln!(
        text,
        "{}{:11} {:7} {:7} {:11} {:9}  with {} peers{}",
        style.dim,
        total.retransmits(),
        total.syns,
        total.syn_acks,
        total.resets_sent,
        total.resets_received,
        peers.len(),
        style.reset
    )
}

fn recorded(
    text: &mut String,
    event: Event,
    profile: &Profile,
    facts: &Facts,
    style: Style,
) -> std::fmt::Result {
    let by = match facts.event.filter(|_| event.needs_on_cpu()) {
        Some(OnCpuEvent::Cycles) => format!(" at {} Hz on {} CPUs (cycles", facts.frequency_hz, facts.cpus),
        Some(OnCpuEvent::CpuClock) => {
            format!(" at {} Hz on {} CPUs (cpu-clock", facts.frequency_hz, facts.cpus)
        }
        None => format!(" on {} CPUs ({event}", facts.cpus),
    };
    let end = match facts.end {
        End::Elapsed => "",
        End::Interrupted => ", stopped early",
        End::TargetEnded => ", until the target ended",
    };
    writeln!(
        text,
        "{}{}{}: {} in {:.1} s{by}{end})",
        style.bold,
        profile.header.target,
        style.reset,
        profile.coverage.statements()[0],
        profile.header.duration_ns as f64 / 1e9,
    )?;
    for remark in remarks(event, &profile.coverage) {
        writeln!(text, "  {}{remark}{}", style.warn, style.reset)?;
    }
    Ok(())
}

/// Everything that makes the profile less than complete.
fn remarks(event: Event, coverage: &Coverage) -> Vec<String> {
    let mut remarks: Vec<String> = coverage.statements().into_iter().skip(1).collect();
    remarks.extend(coverage.notes.iter().cloned());
    if coverage.captured == 0 && event == Event::Cpu {
        remarks.push(format!(
            "no samples: the target did not run ({} ticks on idle CPUs, {} in other threads)",
            coverage.idle, coverage.outside_target
        ));
    }
    remarks
}

fn top_functions(text: &mut String, profile: &Profile, style: Style) -> std::fmt::Result {
    let total = profile.total_weight();
    if total == 0 {
        return Ok(());
    }
    let percent = |weight: u64| weight as f64 * 100.0 / total as f64;
    writeln!(text, "{}   self   total  function{}", style.dim, style.reset)?;
    for FunctionTotals { name, module, self_weight, total_weight, .. } in
        top::functions(profile).iter().take(TOP_FUNCTIONS).filter(|function| function.self_weight > 0)
    {
        let name = shortened(name, DEFAULT_COLUMNS.saturating_sub(20 + module.len()));
        writeln!(
            text,
            "{:6.1}% {:6.1}%  {name}  {}{module}{}",
            percent(*self_weight),
            percent(*total_weight),
            style.dim,
            style.reset
        )?;
    }
    Ok(())
}

/// Cuts the middle out of a name that is too long; both ends tell functions apart.
fn shortened(name: &str, columns: usize) -> String {
    let columns = columns.max(20);
    let length = name.chars().count();
    if length <= columns {
        return name.to_owned();
    }
    let tail = columns / 2;
    let head = columns - tail - 1;
    let start: String = name.chars().take(head).collect();
    let end: String = name.chars().skip(length - tail).collect();
    format!("{start}…{end}")
}

fn written(text: &mut String, output: &Output, finishing: Duration, style: Style) -> std::fmt::Result {
    match &output.destination {
        Destination::Stdout => Ok(()),
        Destination::File(path) => writeln!(
            text,
            "wrote {}{}{} ({}) {:.2} s after the last sample",
            style.bold,
            path.display(),
            style.reset,
            output.format,
            finishing.as_secs_f64()
        ),
    }
}

fn costs(text: &mut String, profile: &Profile, facts: &Facts, cost: &Cost, style: Style) -> std::fmt::Result {
    let programs = match facts.program_cost {
        Some(cost) => {
            let each =
                if cost.run_count == 0 { Duration::ZERO } else { cost.run_time / cost.run_count as u32 };
            let share = cost.run_time.as_nanos() as f64 * 100.0 / profile.header.duration_ns.max(1) as f64;
            format!(
                "kernel programs {:.1} ms ({share:.2}% of one CPU, {:.1} µs a tick)",
                cost.run_time.as_secs_f64() * 1e3,
                each.as_secs_f64() * 1e6
            )
        }
        None => "kernel programs not measured (needs CAP_SYS_ADMIN)".to_owned(),
    };
    writeln!(
        text,
        "{}cost: {programs}, agent {:.0} ms CPU, {:.0} MB{}{}",
        style.dim,
        cost.cpu.as_secs_f64() * 1e3,
        cost.peak_resident_bytes as f64 / 1e6,
        unwind_tables(&facts.unwind_tables),
        style.reset
    )
}

/// What the tables took that stacks were unwound by; nothing where no stack was.
fn unwind_tables(tables: &unwind::Statistics) -> String {
    let made = tables.built + tables.cached;
    if made == 0 {
        return String::new();
    }
    format!(
        "; {} unwind tables, {:.1} MB in the kernel, {} built in {:.0} ms",
        tables.tables,
        tables.row_bytes as f64 / 1e6,
        tables.built,
        tables.build_time.as_secs_f64() * 1e3
    )
}

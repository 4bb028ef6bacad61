//! What page faults and TCP retransmits cost when they are thousands a second, beside bpftrace.

use std::{fmt::Write, time::Duration};

use anyhow::Result;

use super::{
    alongside::{self, TOOL_S, alongside, program_time},
    lossy::{Network, Sent},
    report::{Table, verdict},
    sides::Sides,
    stats::Readings,
    sys::touch_fresh_pages,
};

/// Events a second that the bars are for.
const EVENTS_PER_S: f64 = 5_000.0;
/// Per cent of a CPU that they may cost: less than what one measurement differs from the next.
const COST_BAR_PCT: f64 = 0.5;
/// Pages of one measurement of faults, and how often they are mapped anew.
const PAGES: usize = 20_000;
const ROUNDS: usize = 10;
/// How long connections send.
const SENDING: Duration = Duration::from_secs(4);

/// The peers: what counts the same events with the stacks of who has them.
const FAULTS_PEER: &str = "software:minor-faults:1 { @[comm, ustack] = count(); }";
const RETRANSMITS_PEER: &str = "tracepoint:tcp:tcp_retransmit_skb { @[ntop(args->saddr), ntop(args->daddr), args->sport, args->dport] = count(); }";

/// Turns of all sides: about four minutes, or less than one.
pub const fn turns(quick: bool) -> usize {
    if quick { 1 } else { 5 }
}

/// Measures everything and says it as Markdown.
pub fn measure(sides: &Sides, turns: usize) -> Result<String> {
    let mut text = alongside::heading()?;
    let network = Network::new()?;
    let [mut fault, mut fault_own, mut fault_peer, mut fault_programs]: [Readings; 4] = Default::default();
    let [mut rate, mut bytes, mut bytes_own, mut bytes_peer, mut retransmit_programs]: [Readings; 5] =
        Default::default();
    for _ in alongside::turns(turns) {
        fault.push(faults()?);
        let (operation, programs) = with_chokepoint(sides, "fault", faults)?;
        fault_own.push(operation);
        fault_programs.push(programs.as_nanos() as f64 / (PAGES * ROUNDS) as f64);
        fault_peer.push(with_bpftrace(sides, FAULTS_PEER, faults)?);

        let sends = || network.send(SENDING);
        bytes.push(megabytes_per_s(&sends()?));
        let (sent, programs) = with_chokepoint(sides, "retransmit", sends)?;
        rate.push(sent.retransmits as f64 / sent.seconds);
        bytes_own.push(megabytes_per_s(&sent));
        retransmit_programs.push(programs.as_nanos() as f64 / sent.retransmits.max(1) as f64);
        bytes_peer.push(megabytes_per_s(&with_bpftrace(sides, RETRANSMITS_PEER, sends)?));
    }
    let pct = |ns: &Readings| ns.map(|ns| ns * EVENTS_PER_S / 1e9 * 100.0);
    let (faults_pct, retransmits_pct) = (pct(&fault_programs), pct(&retransmit_programs));
    let mut bars = Table::new(["bar", "measured", ""]);
    for (what, pct) in [("minor faults", &faults_pct), ("retransmits", &retransmits_pct)] {
        bars.row([
            format!("kernel programs at {EVENTS_PER_S} {what} a second: below {COST_BAR_PCT} % of a CPU"),
            pct.show(2, "%").to_string(),
            verdict(pct.median() < COST_BAR_PCT),
        ]);
    }
    let mut table = Table::new(["side", "a minor fault", "added", "lossy network"]);
    for (name, fault_side, bytes_side) in [
        ("bare", &fault, &bytes),
        ("chokepoint record -e fault, -e retransmit; the whole host", &fault_own, &bytes_own),
        ("bpftrace with a map of counts", &fault_peer, &bytes_peer),
    ] {
        let less = fault_side.less(&fault);
        let added = if name == "bare" { String::new() } else { less.show(0, "ns").to_string() };
        let cells = [fault_side.show(0, "ns").to_string(), added, bytes_side.show(0, "MB/s").to_string()];
        table.row([name.to_owned()].into_iter().chain(cells));
    }
    write!(text, "{bars}\n{table}\n")?;
    writeln!(
        text,
        "Of a fault, the kernel's own count of chokepoint's programs is {}; of a retransmit, of which there were {:.0} a second, with all that they look at for it, {}.",
        fault_programs.show(0, "ns"),
        rate.median(),
        retransmit_programs.show(0, "ns"),
    )?;
    Ok(text)
}

fn megabytes_per_s(sent: &Sent) -> f64 {
    sent.bytes as f64 / 1e6 / sent.seconds
}

/// Measures while chokepoint records; with the time its kernel programs took.
fn with_chokepoint<T>(sides: &Sides, event: &str, measured: impl Fn() -> Result<T>) -> Result<(T, Duration)> {
    let (result, summary) = alongside(sides.chokepoint_record(event, TOOL_S), measured)?;
    Ok((result, program_time(&summary)?))
}

/// Measures while bpftrace runs a program.
fn with_bpftrace<T>(sides: &Sides, program: &str, measured: impl Fn() -> Result<T>) -> Result<T> {
    let mut command = sides.privileged("bpftrace");
    command.args(["-e", &format!("{program} interval:s:{TOOL_S} {{ clear(@); exit(); }}")]);
    Ok(alongside(command, measured)?.0)
}

/// Time of a minor fault of this process, nanoseconds.
fn faults() -> Result<f64> {
    let mut spent = Duration::ZERO;
    for _ in 0..ROUNDS {
        spent += touch_fresh_pages(PAGES)?;
    }
    Ok(spent.as_nanos() as f64 / (PAGES * ROUNDS) as f64)
}

//! What `record` tells of TCP connections, also of those that lose nothing.

use std::fmt::Write as _;

use chokepoint_analysis::connections::Connection;
use chokepoint_analysis::names;
use chokepoint_analysis::units::bytes;

use super::summary::Style;

/// Connections listed.
const TOP_CONNECTIONS: usize = 10;

/// Writes the table of those that carried most, or tried to.
pub(super) fn write(text: &mut String, connections: &[Connection], style: Style) -> std::fmt::Result {
    // One that is held back altogether carries nothing.
    let is_active = |connection: &&Connection| connection.bytes() > 0 || connection.busy_ns > 0;
    let shown: Vec<&Connection> = connections.iter().filter(is_active).take(TOP_CONNECTIONS).collect();
    if shown.is_empty() {
        return Ok(());
    }
    let Style { bold, dim, reset, .. } = style;
    writeln!(
        text,
        "{dim}     sent  received       rtt  window  busy, of it limited by receiver, buffer, network  connection and process{reset}"
    )?;
    for connection in &shown {
        let share = |ns: u64| ns as f64 * 100.0 / connection.busy_ns.max(1) as f64;
        let limits = match connection.busy_ns {
            0 => "-".to_owned(),
            busy_ns => format!(
                "{:.2} s, {:.0}%, {:.0}%, {:.0}%",
                busy_ns as f64 / 1e9,
                share(connection.receiver_limited_ns),
                share(connection.buffer_limited_ns),
                share(connection.network_limited_ns())
            ),
        };
        let process = match connection.pid {
            Some(pid) => format!("{} ({pid})", names::printable(&connection.process_name)),
            None => "no process".to_owned(),
        };
        let ended = if connection.open { "" } else { ", ended" };
        writeln!(
            text,
            "{:>9} {:>9} {:6.1} ms {:7}  {limits:<50}  {bold}tcp {}-{}{reset} {process}{ended}",
            bytes(connection.bytes_sent),
            bytes(connection.bytes_received),
            f64::from(connection.rtt_us) / 1e3,
            connection.congestion_window,
            connection.local,
            connection.remote,
        )?;
    }
    writeln!(text, "{dim}  {} of {} connections{reset}", shown.len(), connections.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_parts_of_the_busy_time() {
        let connection = Connection {
            namespace: 1,
            local: "10.0.0.1:40000".parse().unwrap(),
            remote: "10.0.0.2:5432".parse().unwrap(),
            is_accepted: false,
            pid: Some(7),
            process_name: "db\u{1b}".to_owned(),
            peer_pid: None,
            open: false,
            rtt_us: 1_250,
            min_rtt_us: 1_000,
            congestion_window: 22,
            bytes_sent: 1_500_000,
            bytes_received: 20,
            retransmits: 0,
            busy_ns: 2_000_000_000,
            receiver_limited_ns: 500_000_000,
            buffer_limited_ns: 100_000_000,
        };
        let silent = Connection { bytes_sent: 0, bytes_received: 0, busy_ns: 0, ..connection.clone() };
        let mut text = String::new();
        write(&mut text, &[connection, silent], Style::PLAIN).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].starts_with("   1.5 MB      20 B    1.2 ms      22  2.00 s, 25%, 5%, 70% "),
            "{text}"
        );
        assert!(
            lines[1].contains("tcp 10.0.0.1:40000-10.0.0.2:5432 db") && lines[1].ends_with(" (7), ended"),
            "{text}"
        );
        assert_eq!(lines[2], "  1 of 2 connections");
    }
}

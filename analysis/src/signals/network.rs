//! Network interfaces, TCP and UDP.

use std::collections::BTreeMap;

use super::{
    Definition, Figures, Kind, Nature, Part, Resource, Thresholds, Unit, grown, percent, percent_grown,
};
use crate::signals::reading::Backlog;

const fn network(name: &'static str, kind: Kind, unit: Unit) -> Definition {
    Definition::new(name, Resource::Network, kind, unit)
}

const fn tcp(name: &'static str, kind: Kind, unit: Unit) -> Definition {
    Definition::new(name, Resource::Tcp, kind, unit)
}

const fn udp(name: &'static str) -> Definition {
    Definition::new(name, Resource::Udp, Kind::Errors, Unit::PerSecond).levels(Thresholds::ANY)
}

static UTILIZATION: Definition =
    network("net.utilization", Kind::Utilization, Unit::Percent).levels(Thresholds::FULL).means(
        "share of the link's speed in use, in the busier direction (/proc/net/dev, /sys/class/net/*/speed)",
    );
static RECEIVED: Definition = network("net.received_bytes", Kind::Utilization, Unit::BytesPerSecond)
    .means("bytes received (/proc/net/dev)");
static SENT: Definition =
    network("net.sent_bytes", Kind::Utilization, Unit::BytesPerSecond).means("bytes sent (/proc/net/dev)");
static RECEIVED_PACKETS: Definition = network("net.received_packets", Kind::Utilization, Unit::PerSecond)
    .means("packets received (/proc/net/dev)");
static SENT_PACKETS: Definition =
    network("net.sent_packets", Kind::Utilization, Unit::PerSecond).means("packets sent (/proc/net/dev)");
static ERRORS: Definition = network("net.errors", Kind::Errors, Unit::PerSecond)
    .levels(Thresholds::ANY)
    .means("packets that were damaged (/proc/net/dev)");
static DROPS: Definition = network("net.drops", Kind::Errors, Unit::PerSecond)
    .levels(Thresholds::ANY)
    .means("packets that the interface or its queue dropped (/proc/net/dev)");
static BACKLOG_DROPS: Definition = network("net.backlog_drops", Kind::Errors, Unit::PerSecond)
    .levels(Thresholds::ANY)
    .means("packets dropped since a CPU's queue of received packets was full (/proc/net/softnet_stat)");
static SQUEEZED: Definition = network("net.squeezed", Kind::Saturation, Unit::PerSecond)
    .means("times a CPU had to leave received packets for later (/proc/net/softnet_stat)");

static RETRANSMIT_SHARE: Definition = tcp("tcp.retransmit_share", Kind::Errors, Unit::Percent)
    // At 0.1 % loss is to be suspected; at 1 % it bounds what a connection can carry.
    .levels(Some(Thresholds { warning: 0.1, critical: 1.0 }))
    .means("share of segments out that were sent again; of fewer than 1,000 segments nothing is said (/proc/net/snmp)");
static RETRANSMITS: Definition = tcp("tcp.retransmits", Kind::Errors, Unit::PerSecond)
    .means("segments sent again (/proc/net/snmp RetransSegs)");
static SEGMENTS: Definition = tcp("tcp.segments_sent", Kind::Utilization, Unit::PerSecond)
    .means("segments sent, those sent again included (/proc/net/snmp OutSegs, RetransSegs)");
static ESTABLISHED: Definition = tcp("tcp.established", Kind::Utilization, Unit::Number)
    .gauge()
    .means("connections that are open (/proc/net/snmp CurrEstab)");
static TIME_WAIT: Definition = tcp("tcp.time_wait", Kind::Utilization, Unit::Number)
    .gauge()
    .means("closed connections whose ports are not free yet (/proc/net/sockstat)");
static OPENED: Definition = tcp("tcp.opened", Kind::Utilization, Unit::PerSecond)
    .means("connections opened by this host and by others (/proc/net/snmp ActiveOpens, PassiveOpens)");
static OPEN_FAILURES: Definition = tcp("tcp.open_failures", Kind::Errors, Unit::PerSecond)
    .means("connections that failed while they were opened (/proc/net/snmp AttemptFails)");
static RESETS: Definition = tcp("tcp.resets", Kind::Errors, Unit::PerSecond)
    .means("open connections that were cut off, and resets sent (/proc/net/snmp EstabResets, OutRsts)");
static LISTEN_OVERFLOWS: Definition = tcp("tcp.listen_overflows", Kind::Saturation, Unit::PerSecond)
    .levels(Thresholds::ANY)
    .means("connections that found the queue of a listening socket full (/proc/net/netstat ListenOverflows)");
static LISTEN_DROPS: Definition = tcp("tcp.listen_drops", Kind::Errors, Unit::PerSecond)
    .levels(Thresholds::ANY)
    .means("connections that a listening socket dropped (/proc/net/netstat ListenDrops)");
static MEMORY: Definition = tcp("tcp.memory", Kind::Utilization, Unit::Percent)
    .gauge()
    .levels(Thresholds::FULL)
    .means("share of the memory that TCP may use (/proc/net/sockstat, tcp_mem)");
static MEMORY_PRESSURE: Definition = tcp("tcp.memory_pressure", Kind::Saturation, Unit::PerSecond)
    .levels(Thresholds::ANY)
    .means("times TCP came under memory pressure or cut a connection off for it (/proc/net/netstat)");
static ORPHANS: Definition =
    tcp("tcp.orphans", Kind::Utilization, Unit::Percent).gauge().levels(Thresholds::FULL).means(
        "share of the connections without a process that there may be (/proc/net/sockstat, tcp_max_orphans)",
    );
static PORTS: Definition = tcp("tcp.ephemeral_ports", Kind::Utilization, Unit::Percent)
    .gauge()
    .levels(Thresholds::FULL)
    .means("share of the ports for new connections that are in use towards the one remote address and port with most (/proc/net/tcp)");
static CONNTRACK: Definition = network("net.conntrack", Kind::Utilization, Unit::Percent)
    .gauge()
    .levels(Thresholds::FULL)
    .means("share of the connection tracking table in use; when it is full, new connections are dropped (nf_conntrack_count)");

static UDP_RECEIVE_FULL: Definition = udp("udp.receive_buffer_full")
    .means("datagrams dropped since the receiver's buffer was full (/proc/net/snmp RcvbufErrors)");
static UDP_SEND_FULL: Definition = udp("udp.send_buffer_full")
    .means("datagrams not sent since the sender's buffer was full (/proc/net/snmp SndbufErrors)");
static UDP_DAMAGED: Definition =
    udp("udp.damaged").means("datagrams whose checksum was wrong (/proc/net/snmp InCsumErrors)");

pub const DEFINITIONS: &[&Definition] = &[
    &UTILIZATION,
    &RECEIVED,
    &SENT,
    &RECEIVED_PACKETS,
    &SENT_PACKETS,
    &ERRORS,
    &DROPS,
    &BACKLOG_DROPS,
    &SQUEEZED,
    &CONNTRACK,
    &RETRANSMIT_SHARE,
    &RETRANSMITS,
    &SEGMENTS,
    &ESTABLISHED,
    &TIME_WAIT,
    &OPENED,
    &OPEN_FAILURES,
    &RESETS,
    &LISTEN_OVERFLOWS,
    &LISTEN_DROPS,
    &MEMORY,
    &MEMORY_PRESSURE,
    &ORPHANS,
    &PORTS,
    &UDP_RECEIVE_FULL,
    &UDP_SEND_FULL,
    &UDP_DAMAGED,
];

/// Segments below which a share of them says nothing: one in a hundred of those would be a warning.
const FEW_SEGMENTS: u64 = 1_000;

pub fn derive(figures: &mut Figures<'_>) {
    derive_interfaces(figures);
    derive_protocols(figures);
    let sockets = figures.after.sockets;
    let share = |used: Option<u64>, max: Option<u64>| percent(used?, max?);
    figures.add(&TIME_WAIT, sockets.time_wait.map(|sockets| sockets as f64));
    figures.add(&MEMORY, share(sockets.tcp_pages, sockets.tcp_pages_max));
    figures.add(&ORPHANS, share(sockets.orphans, sockets.orphans_max));
    figures.add(&PORTS, share(sockets.ephemeral_ports_used, sockets.ephemeral_ports));
    figures.add(&CONNTRACK, share(sockets.conntrack, sockets.conntrack_max));
}

fn derive_interfaces(figures: &mut Figures<'_>) {
    let (before, after) = (figures.before, figures.after);
    for (name, after) in &after.interfaces {
        let Some(before) = before.interfaces.get(name) else { continue };
        let rate = |figures: &Figures<'_>, before, after| figures.rate(Some(before), Some(after));
        let received = rate(figures, before.received_bytes, after.received_bytes);
        let sent = rate(figures, before.sent_bytes, after.sent_bytes);
        let busier = received.zip(sent).map(|(received, sent)| received.max(sent));
        let speed = after.speed_bits_per_s.filter(|speed| *speed > 0);
        let used = busier.zip(speed).map(|(bytes, speed)| bytes * 800.0 / speed as f64);
        figures.add_of(&UTILIZATION, name, used);
        figures.add_of(&RECEIVED, name, received);
        figures.add_of(&SENT, name, sent);
        for (definition, before, after) in [
            (&RECEIVED_PACKETS, before.received_packets, after.received_packets),
            (&SENT_PACKETS, before.sent_packets, after.sent_packets),
            (&ERRORS, before.errors, after.errors),
            (&DROPS, before.drops, after.drops),
        ] {
            figures.add_of(definition, name, rate(figures, before, after));
        }
    }
    let (old, new) = (before.backlog, after.backlog);
    let part = |part: Part<Backlog>| (old.as_ref().map(part), new.as_ref().map(part));
    let (dropped, squeezed) = (part(|backlog| backlog.dropped), part(|backlog| backlog.squeezed));
    figures.add(&BACKLOG_DROPS, figures.rate(dropped.0, dropped.1));
    figures.add(&SQUEEZED, figures.rate(squeezed.0, squeezed.1));
}

fn derive_protocols(figures: &mut Figures<'_>) {
    let (before, after) = (&figures.before.protocols, &figures.after.protocols);
    // What a kernel does not count is no part of a sum.
    let counter = |names: &[&str]| {
        let sum = |counters: &BTreeMap<String, u64>| {
            names.iter().filter_map(|name| counters.get(*name)).copied().reduce(|a, b| a + b)
        };
        (sum(before), sum(after))
    };
    let (again, sent) = (counter(&["Tcp.RetransSegs"]), counter(&["Tcp.OutSegs", "Tcp.RetransSegs"]));
    let has_enough = grown(sent.0, sent.1).is_some_and(|segments| segments >= FEW_SEGMENTS);
    let share = percent_grown(again, sent).filter(|_| has_enough);
    let rates: [(&'static Definition, &[&str]); 12] = [
        (&RETRANSMITS, &["Tcp.RetransSegs"]),
        (&SEGMENTS, &["Tcp.OutSegs", "Tcp.RetransSegs"]),
        (&OPENED, &["Tcp.ActiveOpens", "Tcp.PassiveOpens"]),
        (&OPEN_FAILURES, &["Tcp.AttemptFails"]),
        (&RESETS, &["Tcp.EstabResets", "Tcp.OutRsts"]),
        (&LISTEN_OVERFLOWS, &["TcpExt.ListenOverflows"]),
        (&LISTEN_DROPS, &["TcpExt.ListenDrops"]),
        (&MEMORY_PRESSURE, &["TcpExt.TCPMemoryPressures", "TcpExt.TCPAbortOnMemory"]),
        (&UDP_RECEIVE_FULL, &["Udp.RcvbufErrors", "Udp6.RcvbufErrors"]),
        (&UDP_SEND_FULL, &["Udp.SndbufErrors", "Udp6.SndbufErrors"]),
        (&UDP_DAMAGED, &["Udp.InCsumErrors", "Udp6.InCsumErrors"]),
        (&ESTABLISHED, &["Tcp.CurrEstab"]),
    ];
    let mut values: Vec<(&'static Definition, Option<f64>)> = vec![(&RETRANSMIT_SHARE, share)];
    values.extend(rates.map(|(definition, names)| {
        let (before, after) = counter(names);
        let value = match definition.nature {
            Nature::Counter => figures.rate(before, after),
            Nature::Gauge => after.map(|after| after as f64),
        };
        (definition, value)
    }));
    for (definition, value) in values {
        figures.add(definition, value);
    }
}

//! The forms of the kernel's text files. Lines and fields of a form not known are left out; nothing is assumed of what was read.

use std::collections::{BTreeMap, HashMap};

use chokepoint_analysis::signals::reading::{Backlog, Cpu, CpuTimes, Disk, Interface};

/// A sector of `/proc/diskstats`, whatever the device's own are.
const SECTOR_BYTES: u64 = 512;

/// `/proc/stat` and `/proc/loadavg`.
pub fn cpu(stat: &str, loadavg: &str) -> Option<Cpu> {
    let mut cpu = Cpu::default();
    let mut has_times = false;
    for line in stat.lines() {
        let (name, rest) = line.split_once(' ')?;
        let first = || rest.split_ascii_whitespace().next().and_then(|number| number.parse().ok());
        match name {
            "cpu" => {
                cpu.all = cpu_times(rest)?;
                has_times = true;
            }
            "ctxt" => cpu.context_switches = first()?,
            "processes" => cpu.forks = first()?,
            "procs_running" => cpu.runnable = first()?,
            _ => {
                if let Some(number) = name.strip_prefix("cpu").and_then(|number| number.parse().ok()) {
                    cpu.each.insert(number, cpu_times(rest)?);
                }
            }
        }
    }
    cpu.load_1m = loadavg.split(' ').next()?.parse().ok()?;
    has_times.then_some(cpu)
}

fn cpu_times(fields: &str) -> Option<CpuTimes> {
    let numbers: Vec<u64> = fields.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    // Guests' time is part of user's.
    let [user, nice, system, idle, iowait, hard, soft, steal, ..] = numbers[..] else { return None };
    Some(CpuTimes {
        user: user.saturating_add(nice),
        system,
        interrupts: hard.saturating_add(soft),
        iowait,
        idle,
        steal,
    })
}

/// A file below `/proc/pressure`, or `*.pressure` of a group: time of some and of all, microseconds.
pub fn pressure(text: &str) -> (Option<u64>, Option<u64>) {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        line.rsplit_once("total=")?.1.trim().parse().ok()
    };
    (total("some "), total("full "))
}

/// Lines of a name and a number, as of `/proc/vmstat` and `cpu.stat`.
pub fn counters(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(name, number)| Some((name.to_owned(), number.trim().parse().ok()?))).collect()
}

/// `/proc/meminfo`, bytes; lines that count something else are left out.
pub fn memory(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter_map(|(name, size)| {
            let kilobytes: u64 = size.trim().strip_suffix(" kB")?.parse().ok()?;
            Some((name.to_owned(), kilobytes.checked_mul(1024)?))
        })
        .collect()
}

/// `/proc/diskstats`: devices that have done something since boot and are `whole`.
pub fn disks(text: &str, whole: impl Fn(&str) -> bool) -> BTreeMap<String, Disk> {
    let disk = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let name = fields.next()?;
        let numbers: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        let [
            reads,
            _,
            read_sectors,
            read_ms,
            writes,
            _,
            written_sectors,
            write_ms,
            _,
            busy_ms,
            weighted_ms,
            ..,
        ] = numbers[..]
        else {
            return None;
        };
        let disk = Disk {
            reads,
            read_bytes: read_sectors.saturating_mul(SECTOR_BYTES),
            read_ms,
            writes,
            written_bytes: written_sectors.saturating_mul(SECTOR_BYTES),
            write_ms,
            busy_ms,
            weighted_ms,
        };
        (disk != Disk::default() && whole(name)).then(|| (name.to_owned(), disk))
    };
    text.lines().filter_map(disk).collect()
}

/// `/proc/net/dev`, without links' speeds.
pub fn interfaces(text: &str) -> BTreeMap<String, Interface> {
    let interface = |line: &str| {
        let (name, fields) = line.split_once(':')?;
        let numbers: Vec<u64> =
            fields.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
        let [
            received_bytes,
            received_packets,
            in_errors,
            in_drops,
            _,
            _,
            _,
            _,
            sent_bytes,
            sent_packets,
            out_errors,
            out_drops,
            ..,
        ] = numbers[..]
        else {
            return None;
        };
        let interface = Interface {
            received_bytes,
            received_packets,
            sent_bytes,
            sent_packets,
            errors: in_errors.saturating_add(out_errors),
            drops: in_drops.saturating_add(out_drops),
            speed_bits_per_s: None,
        };
        Some((name.trim().to_owned(), interface))
    };
    text.lines().filter_map(interface).collect()
}

/// `/proc/net/snmp` and `/proc/net/netstat`: for each protocol a line of names and one of numbers.
pub fn protocols(text: &str) -> impl Iterator<Item = (String, u64)> {
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(':')).collect();
    let tables = lines.chunks_exact(2).filter(|pair| pair[0].0 == pair[1].0);
    let counters: Vec<(String, u64)> = tables
        .flat_map(|pair| {
            let (protocol, names) = pair[0];
            let numbers = pair[1].1.split_ascii_whitespace();
            names
                .split_ascii_whitespace()
                .zip(numbers)
                .filter_map(move |(name, number)| Some((format!("{protocol}.{name}"), number.parse().ok()?)))
        })
        .collect();
    counters.into_iter()
}

/// `/proc/net/snmp6`, the counters of UDP over IPv6.
pub fn udp6(text: &str) -> impl Iterator<Item = (String, u64)> {
    counters(text)
        .into_iter()
        .filter_map(|(name, number)| Some((format!("Udp6.{}", name.strip_prefix("Udp6")?), number)))
}

/// A number of `/proc/net/sockstat`.
pub fn sockstat(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

/// `/proc/net/softnet_stat`, all CPUs together.
pub fn backlog(text: &str) -> Option<Backlog> {
    let mut sum = Backlog::default();
    for line in text.lines() {
        let mut fields = line.split(' ').map(|field| u64::from_str_radix(field, 16));
        let (Some(Ok(_)), Some(Ok(dropped)), Some(Ok(squeezed))) =
            (fields.next(), fields.next(), fields.next())
        else {
            return None;
        };
        sum.dropped += dropped;
        sum.squeezed += squeezed;
    }
    Some(sum)
}

/// State of a socket that waits for connections, in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Adds the connections of `/proc/net/tcp` or `tcp6` whose own port is in a range, by remote address and port.
pub fn count_remotes<'a>(text: &'a str, ports: (u16, u16), remotes: &mut HashMap<&'a str, u64>) {
    for line in text.lines().skip(1) {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (Some(local), Some(remote), Some(state)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let port = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        if state != LISTEN && port.is_some_and(|port| (ports.0..=ports.1).contains(&port)) {
            *remotes.entry(remote).or_default() += 1;
        }
    }
}

/// The soft limit of open files in `/proc/PID/limits`; `None` where there is none.
pub fn files_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_host_whose_second_cpu_is_offline() {
        let stat = "cpu  10 1 5 100 7 2 3 4 1 0\ncpu0 10 1 5 100 7 2 3 4 1 0\ncpu2 0 0 0 0 0 0 0 0 0 0\nintr 9 8 7\nctxt 42\nbtime 1\nprocesses 77\nprocs_running 3\nprocs_blocked 0\n";
        let cpu = cpu(stat, "0.20 0.18 0.12 1/80 11206\n").unwrap();
        let times = CpuTimes { user: 11, system: 5, interrupts: 5, iowait: 7, idle: 100, steal: 4 };
        assert_eq!((cpu.all, cpu.all.total(), cpu.all.busy()), (times, 132, 21));
        assert_eq!(cpu.each.keys().copied().collect::<Vec<_>>(), [0, 2]);
        assert_eq!((cpu.context_switches, cpu.forks, cpu.runnable, cpu.load_1m), (42, 77, 3, 0.2));
        assert_eq!(super::cpu("", ""), None);
        assert_eq!(super::cpu("cpu  1 2\n", "0.1 "), None);
    }

    #[test]
    fn pressure_with_and_without_full() {
        let text = "some avg10=0.45 avg60=12.19 avg300=12.39 total=157\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(pressure(text), (Some(157), Some(9)));
        assert_eq!(pressure("some avg10=0.00 total=1\n"), (Some(1), None));
        assert_eq!(pressure("some total=x"), (None, None));
    }

    #[test]
    fn sizes_and_counters() {
        let sizes =
            memory("MemTotal:       24682416 kB\nHugePages_Total:       0\nX: 99999999999999999999 kB\n");
        assert_eq!(sizes, BTreeMap::from([("MemTotal".to_owned(), 24_682_416 * 1024)]));
        let vm = counters("pgfault 5\nnr_foo -1\nbroken\n");
        assert_eq!(vm, BTreeMap::from([("pgfault".to_owned(), 5)]));
    }

    #[test]
    fn disks_that_did_something() {
        let text = " 254 0 vda 10 1 80 5 20 2 160 9 0 12 14 0 0 0 0 1 1\n 254 1 vda1 10 1 80 5 20 2 160 9 0 12 14\n   7 0 loop0 0 0 0 0 0 0 0 0 0 0 0\n 1 2 short 1 2\n";
        let disks = disks(text, |name| name != "vda1");
        let vda = Disk {
            reads: 10,
            read_bytes: 40_960,
            read_ms: 5,
            writes: 20,
            written_bytes: 81_920,
            write_ms: 9,
            busy_ms: 12,
            weighted_ms: 14,
        };
        assert_eq!(disks, BTreeMap::from([("vda".to_owned(), vda)]));
    }

    #[test]
    fn network_files() {
        let text = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo: 100 2 1 0 0 0 0 0 300 4 0 5 0 0 0 0\neth0:7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0\n";
        let found = interfaces(text);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["eth0", "lo"]);
        assert_eq!((found["lo"].received_bytes, found["lo"].errors, found["lo"].drops), (100, 1, 5));
        let snmp = "Tcp: RtoAlgorithm MaxConn OutSegs\nTcp: 1 -1 99\nUdp: InErrors\nUdp: 3\n";
        let found: BTreeMap<_, _> = protocols(snmp).collect();
        assert_eq!(
            (found.get("Tcp.OutSegs"), found.get("Udp.InErrors"), found.get("Tcp.MaxConn")),
            (Some(&99), Some(&3), None)
        );
        assert_eq!(
            udp6("Ip6InReceives 1\nUdp6RcvbufErrors 4\n").collect::<Vec<_>>(),
            [("Udp6.RcvbufErrors".to_owned(), 4)]
        );
        let sockets = "sockets: used 12\nTCP: inuse 1 orphan 2 tw 3 alloc 4 mem 47\nUDP: inuse 0 mem 0\n";
        assert_eq!(
            (sockstat(sockets, "TCP", "mem"), sockstat(sockets, "TCP", "orphan")),
            (Some(47), Some(2))
        );
        assert_eq!((sockstat(sockets, "UDP", "tw"), sockstat(sockets, "RAW", "inuse")), (None, None));
        let dropped = backlog("0000000a 00000001 00000002 0\n0000000b 00000010 00000000 0\n").unwrap();
        assert_eq!((dropped.dropped, dropped.squeezed), (17, 2));
        assert_eq!(backlog("zz 1 2"), None);
    }

    #[test]
    fn ports_by_remote() {
        let text = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:1F90 00000000:0000 0A 0\n   1: 0100007F:9C40 0100007F:1F90 01 0\n   2: 0100007F:9C41 0100007F:1F90 06 0\n   3: 0100007F:1F90 0100007F:9C40 01 0\n   4: broken\n";
        let mut remotes = HashMap::new();
        count_remotes(text, (32768, 60999), &mut remotes);
        assert_eq!(remotes, HashMap::from([("0100007F:1F90", 2)]));
    }

    #[test]
    fn limits_of_open_files() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 524288               files     \n";
        assert_eq!(files_limit(limits), Some(1024));
        assert_eq!(
            files_limit("Max open files            unlimited            unlimited            files"),
            None
        );
    }
}

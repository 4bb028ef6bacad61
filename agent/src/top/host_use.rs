//! What the kernel says of the whole host: use of the CPUs, load, stalls, retransmits.

use std::fs;

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Ticks of all CPUs: user, nice, system, idle, I/O wait, hard and soft interrupts, stolen.
    ticks: Option<[u64; 8]>,
    /// Microseconds in which some task stalled: for a CPU, I/O, memory.
    stalled_us: [Option<u64>; 3],
    /// TCP segments sent, and sent again.
    segments: Option<(u64, u64)>,
    /// Mean numbers of tasks in the last 1, 5 and 15 minutes, in hundredths.
    load: Option<[u64; 3]>,
}

/// The host in a window. What the kernel does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostUse {
    /// CPUs online.
    pub cpus: usize,
    /// Shares of all CPUs' time.
    pub cpu: Option<CpuUse>,
    /// Mean numbers of tasks that run or wait for a device, in the last 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Share of the window in which some task stalled for a CPU, per cent.
    pub stalled_cpu_pct: Option<f64>,
    /// The same for I/O.
    pub stalled_io_pct: Option<f64>,
    /// The same for memory.
    pub stalled_memory_pct: Option<f64>,
    /// TCP segments sent, those sent again left out, and those sent again. Of the agent's network namespace.
    pub segments: Option<(u64, u64)>,
}

/// Shares of the CPUs' time, per cent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuUse {
    /// User code.
    pub user_pct: f64,
    /// The kernel, interrupts included.
    pub system_pct: f64,
    /// Taken by the hypervisor for others.
    pub stolen_pct: f64,
}

impl CpuUse {
    /// Time that no other may have: all but idle.
    #[must_use]
    pub fn busy_pct(&self) -> f64 {
        self.user_pct + self.system_pct + self.stolen_pct
    }
}

impl Reading {
    /// As of now.
    #[must_use]
    pub fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            ticks: ticks(&read("/proc/stat")),
            stalled_us: ["cpu", "io", "memory"]
                .map(|what| stalled_us(&read(&format!("/proc/pressure/{what}")))),
            segments: segments(&read("/proc/net/snmp")),
            load: load(&read("/proc/loadavg")),
        }
    }

    /// The host between an earlier moment and this one, `window_us` microseconds apart.
    #[must_use]
    pub fn since(&self, earlier: &Self, window_us: u64, cpus: usize) -> HostUse {
        let stalled = |what: usize| {
            let us = self.stalled_us[what]?.saturating_sub(earlier.stalled_us[what]?);
            Some((100.0 * us as f64 / window_us.max(1) as f64).min(100.0))
        };
        HostUse {
            cpus,
            cpu: self.ticks.zip(earlier.ticks).and_then(|(now, before)| cpu_use(now, before)),
            load: self.load.map(|load| load.map(|hundredths| hundredths as f64 / 100.0)),
            stalled_cpu_pct: stalled(0),
            stalled_io_pct: stalled(1),
            stalled_memory_pct: stalled(2),
            segments: self
                .segments
                .zip(earlier.segments)
                .map(|(now, before)| (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1))),
        }
    }
}

fn cpu_use(now: [u64; 8], before: [u64; 8]) -> Option<CpuUse> {
    let ticks: [u64; 8] = std::array::from_fn(|kind| now[kind].saturating_sub(before[kind]));
    let all: u64 = ticks.iter().sum();
    let pct = |ticks: u64| 100.0 * ticks as f64 / all as f64;
    let [user, nice, system, _idle, _io_wait, hard, soft, stolen] = ticks;
    (all > 0).then(|| CpuUse {
        user_pct: pct(user + nice),
        system_pct: pct(system + hard + soft),
        stolen_pct: pct(stolen),
    })
}

/// The first line of `/proc/stat`.
fn ticks(text: &str) -> Option<[u64; 8]> {
    let mut numbers = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let mut ticks = [0; 8];
    for tick in &mut ticks {
        *tick = numbers.next()?.parse().ok()?;
    }
    Some(ticks)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`.
fn stalled_us(text: &str) -> Option<u64> {
    text.lines().find(|line| line.starts_with("some"))?.rsplit_once("total=")?.1.parse().ok()
}

/// Segments sent and sent again, by the names in the line above the numbers.
fn segments(text: &str) -> Option<(u64, u64)> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let number = |name| {
        let at = names.split(' ').position(|known| known == name)?;
        numbers.split(' ').nth(at)?.parse().ok()
    };
    Some((number("OutSegs")?, number("RetransSegs")?))
}

/// `0.20 0.18 0.12 1/80 11206`.
fn load(text: &str) -> Option<[u64; 3]> {
    let mut numbers =
        text.split(' ').map(|number| number.parse::<f64>().ok().map(|load| (100.0 * load) as u64));
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(ticks("cpu  10 1 5 100 2 3 4 6 0 0\ncpu0 1"), Some([10, 1, 5, 100, 2, 3, 4, 6]));
        assert_eq!(ticks("cpu 1 2"), None);
        let pressure = "some avg10=1.00 avg60=0.10 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!((stalled_us(pressure), stalled_us("")), (Some(123), None));
        let snmp = "Ip: a\nIp: 1\nTcp: MaxConn OutSegs RetransSegs\nTcp: -1 200 7\n";
        assert_eq!((segments(snmp), segments("Tcp: OutSegs\n")), (Some((200, 7)), None));
        assert_eq!((load("0.20 1.18 12.00 1/80 1"), load("")), (Some([20, 118, 1200]), None));
    }

    #[test]
    fn a_window_is_the_difference() {
        let at = |ticks, us, segments| Reading {
            ticks: Some(ticks),
            stalled_us: [Some(us), None, Some(0)],
            segments: Some(segments),
            load: None,
        };
        let before = at([0; 8], 500_000, (10, 1));
        let now = at([40, 10, 20, 100, 10, 2, 3, 15], 750_000, (110, 3));
        let host = now.since(&before, 1_000_000, 2);
        assert_eq!(host.cpu, Some(CpuUse { user_pct: 25.0, system_pct: 12.5, stolen_pct: 7.5 }));
        assert_eq!((host.stalled_cpu_pct, host.stalled_io_pct), (Some(25.0), None));
        assert_eq!(host.segments, Some((100, 2)));
    }
}

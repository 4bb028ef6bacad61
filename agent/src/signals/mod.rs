//! Reads what the kernel says of the host's resources: [`Reading`]s for [`chokepoint_analysis::signals`].
//!
//! [`text`] knows the forms of the files, [`groups`] those of control groups, [`watch`] reads beside a recording; here is which files are read, and how often.

mod groups;
mod text;
pub mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use chokepoint_analysis::signals::reading::{FileSystem, Limits, Pressure, Reading, Sockets, Use};

use crate::host::{self, cgroups, clock::monotonic_ns};
use crate::process;

/// Longest time between two readings.
const MAX_STEP: Duration = Duration::from_secs(1);
/// The same in windows without end, whose steps are told as percentiles alone.
const MAX_SPARING_STEP: Duration = Duration::from_secs(2);
/// Shortest: the kernel counts CPU time in ticks of 10 ms, of which a step is to have some.
const MIN_STEP: Duration = Duration::from_millis(100);
/// Steps that a short window is to have.
const STEPS: u32 = 10;

/// Of a file more than this is not read. `/proc/net/tcp` has 150 bytes a connection.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Processes whose open files are counted.
const MAX_PROCESSES: usize = 8_192;
/// Processes that are told of, nearest to their limit of open files.
const TOLD_PROCESSES: usize = 5;

/// How much to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What costs a fraction of a millisecond.
    Step,
    /// Control groups, too: some 50 microseconds for each.
    Groups,
    /// Everything: the limits of processes, too, some 50 microseconds for each.
    Everything,
}

/// The time between two readings of a window of this length.
#[must_use]
pub fn step(window: Duration) -> Duration {
    (window / STEPS).clamp(MIN_STEP, MAX_STEP)
}

/// The same for windows without end: a reading costs a millisecond.
#[must_use]
pub fn sparing_step(window: Duration) -> Duration {
    (window / (STEPS / 2)).clamp(MIN_STEP, MAX_SPARING_STEP)
}

/// Reads the host's resources now.
#[must_use]
pub fn read(depth: Depth) -> Reading {
    let mut reading = Reading { time_ns: monotonic_ns(), ..Reading::default() };
    let mut missing = Vec::new();
    let mut file = |path: &str, what: &str| {
        let text = read_text(Path::new(path));
        if text.is_none() {
            missing.push(format!("{what}: {path} cannot be read"));
        }
        text.unwrap_or_default()
    };
    reading.cpu = text::cpu(&file("/proc/stat", "CPU times"), &file("/proc/loadavg", "load"));
    let [cpu, memory, io] = ["cpu", "memory", "io"]
        .map(|resource| text::pressure(&file(&format!("/proc/pressure/{resource}"), "pressure (PSI)")));
    reading.pressure = Pressure {
        cpu_some: cpu.0,
        // The host's is always 0.
        cpu_full: None,
        memory_some: memory.0,
        memory_full: memory.1,
        io_some: io.0,
        io_full: io.1,
    };
    reading.memory = text::memory(&file("/proc/meminfo", "memory"));
    reading.vm = text::counters(&file("/proc/vmstat", "paging"));
    reading.disks = text::disks(&file("/proc/diskstats", "block devices"), |name| {
        // In sysfs, `!` stands for the slash in a name.
        Path::new("/sys/block").join(name.replace('/', "!")).exists()
    });
    reading.interfaces = text::interfaces(&file("/proc/net/dev", "network interfaces"));
    for (name, interface) in &mut reading.interfaces {
        let speed = read_text(&Path::new("/sys/class/net").join(name).join("speed"));
        let megabits: Option<u64> = speed.and_then(|speed| speed.trim().parse().ok());
        interface.speed_bits_per_s = megabits.and_then(|megabits| megabits.checked_mul(1_000_000));
    }
    let protocols =
        [file("/proc/net/snmp", "protocol counters"), file("/proc/net/netstat", "protocol counters")];
    reading.protocols = protocols.iter().flat_map(|text| text::protocols(text)).collect();
    // Absent without IPv6.
    reading.protocols.extend(text::udp6(&read_text(Path::new("/proc/net/snmp6")).unwrap_or_default()));
    reading.backlog = text::backlog(&file("/proc/net/softnet_stat", "packet backlog"));
    reading.sockets = sockets();
    reading.limits = Limits { files: open_files(), threads: threads(), process_files: Vec::new() };
    if depth >= Depth::Groups {
        let mountinfo = file("/proc/self/mountinfo", "mounts");
        reading.filesystems = filesystems(&mountinfo);
        reading.groups = groups::read(&cgroups::hierarchies().unwrap_or_default(), &mut missing);
    }
    if depth >= Depth::Everything {
        (reading.sockets.ephemeral_ports, reading.sockets.ephemeral_ports_used) = ephemeral_ports();
        reading.limits.process_files = process_files(&mut missing);
    }
    missing.dedup();
    reading.missing = missing;
    reading
}

/// A file's text as far as it is read; `None` where it cannot be, or is no text.
fn read_text(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_end(&mut text).ok()?;
    String::from_utf8(text).ok()
}

fn sysctl(name: &str) -> Option<u64> {
    host::sysctl(name)?.try_into().ok()
}

fn sockets() -> Sockets {
    let sockstat = read_text(Path::new("/proc/net/sockstat")).unwrap_or_default();
    let tcp = |name| text::sockstat(&sockstat, "TCP", name);
    let pages_max = read_text(Path::new("/proc/sys/net/ipv4/tcp_mem"))
        .and_then(|text| text.split_ascii_whitespace().nth(2)?.parse().ok());
    Sockets {
        tcp_pages: tcp("mem"),
        tcp_pages_max: pages_max,
        orphans: tcp("orphan"),
        orphans_max: sysctl("net.ipv4.tcp_max_orphans"),
        time_wait: tcp("tw"),
        ephemeral_ports: None,
        ephemeral_ports_used: None,
        conntrack: sysctl("net.netfilter.nf_conntrack_count"),
        conntrack_max: sysctl("net.netfilter.nf_conntrack_max"),
    }
}

/// The ports that there are for new connections, and those in use towards one remote address and port.
fn ephemeral_ports() -> (Option<u64>, Option<u64>) {
    let range = read_text(Path::new("/proc/sys/net/ipv4/ip_local_port_range"));
    let Some((first, last)) = range.as_deref().and_then(|range| {
        let mut ports = range.split_ascii_whitespace().map(str::parse::<u16>);
        Some((ports.next()?.ok()?, ports.next()?.ok()?))
    }) else {
        return (None, None);
    };
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| read_text(Path::new(path)).unwrap_or_default());
    let mut remotes = HashMap::new();
    for table in &tables {
        text::count_remotes(table, (first, last), &mut remotes);
    }
    (Some(u64::from(last.saturating_sub(first)) + 1), Some(remotes.into_values().max().unwrap_or_default()))
}

fn open_files() -> Option<Use> {
    let text = read_text(Path::new("/proc/sys/fs/file-nr"))?;
    let mut numbers = text.split_ascii_whitespace();
    Some(Use { used: numbers.next()?.parse().ok()?, max: numbers.nth(1)?.parse().ok()? })
}

fn threads() -> Option<Use> {
    let max = [sysctl("kernel.pid_max"), sysctl("kernel.threads-max")].into_iter().flatten().min()?;
    Some(Use { used: host::threads().into(), max })
}

/// The processes that are nearest to their limit of open files.
fn process_files(missing: &mut Vec<String>) -> Vec<(String, u32, Use)> {
    let (mut refused, mut left_out) = (0, 0);
    let mut found = Vec::new();
    for (index, tgid) in process::all().enumerate() {
        if index >= MAX_PROCESSES {
            left_out += 1;
            continue;
        }
        let Some(max) =
            read_text(Path::new(&format!("/proc/{tgid}/limits"))).and_then(|text| text::files_limit(&text))
        else {
            continue;
        };
        match count_files(tgid) {
            Ok(used) => found.push((tgid, Use { used, max })),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => refused += 1,
            // It has ended.
            Err(_) => {}
        }
    }
    if refused > 0 {
        missing.push(format!("open files of {refused} processes: they belong to other users, run as root"));
    }
    if left_out > 0 {
        missing.push(format!("open files of {left_out} processes: there are more than {MAX_PROCESSES}"));
    }
    let share = |of: &Use| of.used as f64 / of.max.max(1) as f64;
    found.sort_by(|(_, one), (_, other)| share(other).total_cmp(&share(one)));
    found.truncate(TOLD_PROCESSES);
    let named = found.into_iter().map(|(tgid, of)| Some((process::name(tgid)?, tgid, of)));
    named.flatten().collect()
}

fn count_files(tgid: u32) -> std::io::Result<u64> {
    let path = format!("/proc/{tgid}/fd");
    // Since 6.2 the directory's size is their number; the size of others is 0.
    match fs::metadata(&path)?.len() {
        0 => Ok(fs::read_dir(&path)?.count() as u64),
        number => Ok(number),
    }
}

/// File systems that are always full.
const READ_ONLY_TYPES: &[&str] = &["squashfs", "iso9660", "erofs", "cramfs"];

/// Local file systems: those on a device of this host. What is mounted from elsewhere may keep who asks waiting for ever.
fn filesystems(mountinfo: &str) -> BTreeMap<String, FileSystem> {
    let mut devices = HashSet::new();
    let mut found = BTreeMap::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let (mut before, mut after) = (before.split(' ').skip(2), after.split(' '));
        let (Some(device), Some(_root), Some(place)) = (before.next(), before.next(), before.next()) else {
            continue;
        };
        let (Some(kind), Some(source)) = (after.next(), after.next()) else { continue };
        let is_local = source.starts_with("/dev/") && !READ_ONLY_TYPES.contains(&kind);
        if is_local
            && devices.insert(device.to_owned())
            && let Some(room) = room(Path::new(&unescaped(place)))
        {
            let name = source.rsplit('/').next().unwrap_or_default();
            let errors = read_text(&Path::new("/sys/fs").join(kind).join(name).join("errors_count"));
            let errors = errors.and_then(|errors| errors.trim().parse().ok());
            found.insert(unescaped(place), FileSystem { errors, ..room });
        }
    }
    found
}

/// A path of `mountinfo`, where blanks and some more are octal.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn room(place: &Path) -> Option<FileSystem> {
    let path = CString::new(place.as_os_str().as_bytes()).ok()?;
    // SAFETY: integers alone, for which zeros are valid.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    if unsafe { libc::statvfs(path.as_ptr(), &mut stat) } != 0 {
        return None;
    }
    // As df(1) tells it: what only root may use is no room.
    let reserved = stat.f_bfree.saturating_sub(stat.f_bavail);
    Some(FileSystem {
        bytes: stat.f_blocks.saturating_sub(reserved).saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        files: stat.f_files,
        free_files: stat.f_ffree,
        errors: None,
    })
}

//! What threads wait for: the system call's file descriptor or address, turned into words while its process lives.
//!
//! A descriptor is looked up when a wait on it is met for the first time, and again after a second, since its number may be
//! another file's by then. All of this is best effort: where the process is gone there is no object.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::sockets::Diag;

/// Index of an object's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(u32);

/// Names that are kept; of further ones the waits have no object. About 60 bytes each.
const MAX_OBJECTS: usize = 65_536;
/// Descriptors of processes that are remembered at a time.
const MAX_DESCRIPTORS: usize = 65_536;
/// How long a descriptor is taken for the same file.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Descriptors looked up in a second, at most: half a per cent of a CPU.
const LOOKUPS_PER_S: u32 = 500;
/// What is read of one table of sockets: some fifty thousand of them.
const MAX_TABLE_BYTES: u64 = 8 << 20;
/// Flag of a pause.
const UNTIL_A_TIME: u64 = libc::TIMER_ABSTIME as u64;
/// What is read of the list of files that an epoll waits for: more than one of them takes.
const MAX_EPOLL_BYTES: u64 = 4 << 10;
/// Unix sockets of a namespace whose peers are looked at.
const MAX_UNIX: usize = 50_000;
/// Longest name.
const MAX_NAME: usize = 200;

/// A system call that waits, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Its first argument is a file descriptor.
    Descriptor,
    /// It polls descriptors, of which the kernel program tells a single one.
    Polled,
    /// Its first argument is the address of a futex.
    Futex,
    /// A pause, whose second argument says whether it is until a set time.
    Pause,
    Nothing,
}

fn names(syscall: u32) -> Names {
    match i64::from(syscall) {
        libc::SYS_futex => Names::Futex,
        libc::SYS_clock_nanosleep => Names::Pause,
        libc::SYS_ppoll | libc::SYS_pselect6 => Names::Polled,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll | libc::SYS_select => Names::Polled,
        libc::SYS_read
        | libc::SYS_write
        | libc::SYS_pread64
        | libc::SYS_pwrite64
        | libc::SYS_readv
        | libc::SYS_writev
        | libc::SYS_preadv
        | libc::SYS_pwritev
        | libc::SYS_preadv2
        | libc::SYS_pwritev2
        | libc::SYS_connect
        | libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_sendto
        | libc::SYS_recvfrom
        | libc::SYS_sendmsg
        | libc::SYS_recvmsg
        | libc::SYS_sendmmsg
        | libc::SYS_recvmmsg
        | libc::SYS_sendfile
        | libc::SYS_splice
        | libc::SYS_copy_file_range
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_sync_file_range
        | libc::SYS_fallocate
        | libc::SYS_ftruncate
        | libc::SYS_flock
        | libc::SYS_fcntl
        | libc::SYS_ioctl
        | libc::SYS_epoll_pwait
        | libc::SYS_epoll_pwait2
        | libc::SYS_io_uring_enter => Names::Descriptor,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait => Names::Descriptor,
        _ => Names::Nothing,
    }
}

/// A system call that waits.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Its number.
    pub number: u64,
    /// Its first arguments.
    pub arguments: &'a [u64],
    /// The file descriptor that it polls, where it is a single one.
    pub descriptor: Option<u32>,
}

/// A process, its descriptor's number and what was found behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Descriptor {
    tgid: u32,
    process_start_ns: u64,
    number: u32,
}

/// The objects that were waited for.
#[derive(Clone, Debug)]
pub struct Objects {
    names: Vec<String>,
    ids: HashMap<String, ObjectId>,
    descriptors: HashMap<Descriptor, (Instant, Option<ObjectId>)>,
    sockets: HashMap<u64, Sockets>,
    lookups: u32,
    lookups_since: Instant,
    skipped: u64,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            ids: HashMap::new(),
            descriptors: HashMap::new(),
            sockets: HashMap::new(),
            lookups: 0,
            lookups_since: Instant::now(),
            skipped: 0,
        }
    }
}

impl Objects {
    /// The name of an object.
    #[must_use]
    pub fn name(&self, id: ObjectId) -> &str {
        &self.names[id.0 as usize]
    }

    /// Waits whose descriptors were not looked up: too many in a second.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether what a wait in this system call is for may have a name.
    #[must_use]
    pub fn has_name(syscall: u64) -> bool {
        u32::try_from(syscall).is_ok_and(|syscall| names(syscall) != Names::Nothing)
    }

    /// Counts from here on for another window.
    pub fn begin_window(&mut self) {
        self.skipped = 0;
    }

    /// What a thread waits for in this system call; `None` where that is nothing that has a name, or its
    /// process is gone.
    pub fn of_call(&mut self, tgid: u32, process_start_ns: u64, call: Call<'_>) -> Option<ObjectId> {
        let first = *call.arguments.first()?;
        match names(u32::try_from(call.number).ok()?) {
            Names::Nothing => None,
            Names::Futex => self.intern(format!("futex {first:#x}")),
            // Others are for so long, whatever the time is.
            Names::Pause if call.arguments.get(1)? & UNTIL_A_TIME == 0 => None,
            Names::Pause => self.intern("until a set time".to_owned()),
            // The kernel takes the low half.
            Names::Descriptor => self.descriptor(Descriptor { tgid, process_start_ns, number: first as u32 }),
            Names::Polled => self.descriptor(Descriptor { tgid, process_start_ns, number: call.descriptor? }),
        }
    }

    fn descriptor(&mut self, descriptor: Descriptor) -> Option<ObjectId> {
        let now = Instant::now();
        if let Some((found, object)) = self.descriptors.get(&descriptor)
            && now.duration_since(*found) < REMEMBERED
        {
            return *object;
        }
        if now.duration_since(self.lookups_since) >= Duration::from_secs(1) {
            (self.lookups, self.lookups_since) = (0, now);
        }
        if self.lookups >= LOOKUPS_PER_S {
            self.skipped += 1;
            return None;
        }
        self.lookups += 1;
        let name = self.look_up(descriptor.tgid, descriptor.number, true);
        let object = name.and_then(|name| self.intern(name));
        if self.descriptors.len() >= MAX_DESCRIPTORS {
            self.descriptors.clear();
        }
        self.descriptors.insert(descriptor, (now, object));
        object
    }

    /// The name of an open file. An epoll that waits for one file waits as a read of that would; not one behind another.
    fn look_up(&mut self, tgid: u32, number: u32, behind_epoll: bool) -> Option<String> {
        let path = format!("/proc/{tgid}/fd/{number}");
        let target = fs::read_link(&path).ok()?;
        let target = target.to_string_lossy();
        let inside = |prefix: &str| target.strip_prefix(prefix)?.strip_suffix(']');
        if let Some(inode) = inside("socket:[") {
            let inode = inode.parse().ok()?;
            return Some(self.socket(tgid, inode).unwrap_or_else(|| "socket".to_owned()));
        }
        if let Some(inode) = inside("pipe:[") {
            return Some(format!("pipe {inode}"));
        }
        if inside("anon_inode:[") == Some("eventpoll") {
            let single = if behind_epoll { single_of_epoll(tgid, number) } else { None };
            let named = single.and_then(|number| self.look_up(tgid, number, false));
            return Some(named.unwrap_or_else(|| "epoll".to_owned()));
        }
        if let Some(kind) = inside("anon_inode:[") {
            return Some(kind.to_owned());
        }
        if let Some(kind) = target.strip_prefix("anon_inode:") {
            return Some(kind.to_owned());
        }
        let facts = fs::metadata(&path).ok();
        let device = facts.filter(|facts| facts.is_file()).and_then(|facts| device_name(facts.dev()));
        Some(match device {
            Some(device) => format!("file {target} on {device}"),
            None => format!("file {target}"),
        })
    }

    /// The two ends of a socket. The tables of the network namespace are read anew where it is not in them, at most once a
    /// second.
    fn socket(&mut self, tgid: u32, inode: u64) -> Option<String> {
        let namespace = fs::metadata(format!("/proc/{tgid}/ns/net")).ok()?.ino();
        let known = self.sockets.get(&namespace);
        if known.is_none_or(|known| !known.names.contains_key(&inode) && known.read.elapsed() > REMEMBERED) {
            self.sockets.insert(namespace, Sockets::read(tgid));
        }
        let known = self.sockets.get_mut(&namespace)?;
        if !known.has_peers && known.names.get(&inode).is_some_and(|name| name == NAMELESS) {
            // Another system call, and in another namespace a thread: only for those who ask through such a socket.
            known.has_peers = true;
            name_by_peers(tgid, &mut known.names);
        }
        known.names.get(&inode).cloned()
    }

    fn intern(&mut self, mut name: String) -> Option<ObjectId> {
        name.truncate(name.floor_char_boundary(MAX_NAME));
        if let Some(id) = self.ids.get(&name) {
            return Some(*id);
        }
        if self.names.len() >= MAX_OBJECTS {
            return None;
        }
        let id = ObjectId(self.names.len() as u32);
        self.names.push(name.clone());
        self.ids.insert(name, id);
        Some(id)
    }
}

/// The only file descriptor that an epoll waits for; `None` of several.
fn single_of_epoll(tgid: u32, number: u32) -> Option<u32> {
    let file = File::open(format!("/proc/{tgid}/fdinfo/{number}")).ok()?;
    let mut text = String::new();
    file.take(MAX_EPOLL_BYTES).read_to_string(&mut text).ok()?;
    only_target(&text)
}

/// The number in the only line that begins with `tfd:`.
fn only_target(text: &str) -> Option<u32> {
    let mut targets = text.lines().filter_map(|line| line.strip_prefix("tfd:"));
    let only = targets.next().filter(|_| targets.next().is_none())?;
    only.split_ascii_whitespace().next()?.parse().ok()
}

/// The name of the block device with this number; `None` where a file system has no device of its own.
fn device_name(device: u64) -> Option<String> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// The sockets of one network namespace at one time, by their inodes.
#[derive(Clone, Debug)]
struct Sockets {
    names: HashMap<u64, String>,
    /// Whether Unix sockets without a name have their peers'.
    has_peers: bool,
    read: Instant,
}

impl Sockets {
    /// As a process in the namespace sees them.
    fn read(tgid: u32) -> Self {
        let mut names = HashMap::new();
        for protocol in ["tcp", "tcp6", "udp", "udp6"] {
            let text = table(format!("/proc/{tgid}/net/{protocol}"));
            let kind = protocol.trim_end_matches('6');
            names.extend(text.lines().skip(1).filter_map(|line| inet_socket(kind, line)));
        }
        let text = table(format!("/proc/{tgid}/net/unix"));
        names.extend(text.lines().skip(1).filter_map(unix_socket));
        Self { names, has_peers: false, read: Instant::now() }
    }
}

/// Gives Unix sockets the names of their peers where they have none of their own: who connects has none, who listened does.
fn name_by_peers(tgid: u32, names: &mut HashMap<u64, String>) {
    let mut peers = Vec::new();
    let asked =
        Diag::open_of(tgid).and_then(|diag| diag.ask_for_unix(MAX_UNIX, |own, peer| peers.push((own, peer))));
    if let Err(error) = asked {
        tracing::debug!(%error, "peers of Unix sockets");
    }
    let named = |(own, peer): (u64, u64)| {
        let is_nameless = names.get(&own).is_some_and(|name| name == NAMELESS);
        let of_peer = names.get(&peer).filter(|_| is_nameless)?;
        Some((
            own,
            match of_peer.strip_prefix("unix ") {
                Some(path) => format!("unix -{path}"),
                None => "unix pair".to_owned(),
            },
        ))
    };
    let named: Vec<(u64, String)> = peers.into_iter().filter_map(named).collect();
    names.extend(named);
}

fn table(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What could be read is used.
        let _ = file.take(MAX_TABLE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A line of `/proc/net/tcp` and the like. One that listens, or is not connected, has one end.
fn inet_socket(kind: &str, line: &str) -> Option<(u64, String)> {
    let mut fields = line.split_ascii_whitespace();
    let local = socket_address(fields.nth(1)?)?;
    let remote = socket_address(fields.next()?)?;
    // State, queues, timer, retransmits, user, time-out.
    let inode = fields.nth(6)?.parse().ok().filter(|inode| *inode != 0)?;
    let name =
        if remote.port() == 0 { format!("{kind} {local}") } else { format!("{kind} {local}-{remote}") };
    Some((inode, name))
}

/// `0100007F:1F90`: words in the machine's byte order.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(8 * index)?);
            }
            let address = Ipv6Addr::from(bytes);
            address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// A Unix socket without a path.
const NAMELESS: &str = "unix";

/// A line of `/proc/net/unix`; most sockets have no path.
fn unix_socket(line: &str) -> Option<(u64, String)> {
    let inode = line.split_ascii_whitespace().nth(6)?.parse().ok()?;
    // A path may have spaces in it.
    let path = (0..7).try_fold(line, |rest, _| {
        let (_, rest) = rest.trim_start().split_once(' ')?;
        Some(rest)
    });
    let path = path.map(str::trim).filter(|path| !path.is_empty());
    Some((inode, path.map_or_else(|| NAMELESS.to_owned(), |path| format!("unix {path}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn lines_of_socket_tables() {
        let line = "   1: 0100007F:1F90 0500000A:1538 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 20";
        assert_eq!(inet_socket("tcp", line), Some((4711, "tcp 127.0.0.1:8080-10.0.0.5:5432".to_owned())));
        let listens = "   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 12 1";
        assert_eq!(inet_socket("tcp", listens), Some((12, "tcp [::]:22".to_owned())));
        let mapped = "0: 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000200007F:0051 01 0:0 0:0 0 0 0 13 1";
        assert_eq!(inet_socket("tcp", mapped), Some((13, "tcp 127.0.0.1:80-127.0.0.2:81".to_owned())));
        assert_eq!(inet_socket("tcp", "garbage"), None);
        let path = "ffff8881: 00000002 00000000 00010000 0001 01 15557 /run/a b.sock";
        assert_eq!(unix_socket(path), Some((15557, "unix /run/a b.sock".to_owned())));
        let nameless = "ffff8881: 00000003 00000000 00000000 0001 03 15558";
        assert_eq!(unix_socket(nameless), Some((15558, "unix".to_owned())));
    }

    #[test]
    fn descriptors_of_this_process_are_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let unix = UnixListener::bind(&path).unwrap();
        let file = File::create(directory.path().join("data")).unwrap();

        let mut objects = Objects::default();
        let mut name = |call: i64, descriptor: i32| {
            let (arguments, polled) = ([descriptor as u64, 0], Some(descriptor as u32));
            let call = Call { number: call as u64, arguments: &arguments, descriptor: polled };
            let id = objects.of_call(std::process::id(), 1, call);
            id.map(|id| objects.name(id).to_owned())
        };
        let expected = format!("tcp {}-{address}", stream.local_addr().unwrap());
        assert_eq!(name(libc::SYS_read, stream.as_raw_fd()), Some(expected));
        assert_eq!(name(libc::SYS_accept, listener.as_raw_fd()), Some(format!("tcp {address}")));
        assert_eq!(name(libc::SYS_accept, unix.as_raw_fd()), Some(format!("unix {}", path.display())));
        let data = name(libc::SYS_fsync, file.as_raw_fd()).unwrap();
        assert!(data.starts_with(&format!("file {}/data", directory.path().display())), "{data}");
        assert_eq!(name(libc::SYS_read, 99_999), None);
        assert_eq!(name(libc::SYS_futex, 0x1000), Some("futex 0x1000".to_owned()));
        assert_eq!(name(libc::SYS_nanosleep, 0), None);
        // Who polls one file waits for it.
        assert_eq!(name(libc::SYS_ppoll, stream.as_raw_fd()), name(libc::SYS_read, stream.as_raw_fd()));
        assert_eq!(name(libc::SYS_clock_nanosleep, libc::CLOCK_MONOTONIC), None);
        let until = Call {
            number: libc::SYS_clock_nanosleep as u64,
            arguments: &[libc::CLOCK_MONOTONIC as u64, UNTIL_A_TIME],
            descriptor: None,
        };
        let until = objects.of_call(std::process::id(), 1, until).map(|id| objects.name(id));
        assert_eq!(until, Some("until a set time"));
    }

    #[test]
    fn a_client_of_a_unix_socket_is_named_by_whom_it_asks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        let mut objects = Objects::default();
        let mut name = |socket: i32| {
            let call =
                Call { number: libc::SYS_ppoll as u64, arguments: &[0; 3], descriptor: Some(socket as u32) };
            objects.of_call(std::process::id(), 1, call).map(|id| objects.name(id).to_owned()).unwrap()
        };
        let path = path.display();
        assert_eq!(name(server.as_raw_fd()), format!("unix {path}"));
        if name(client.as_raw_fd()) == NAMELESS {
            return eprintln!("skipped: this kernel has no unix_diag");
        }
        assert_eq!(name(client.as_raw_fd()), format!("unix -{path}"));
        assert_eq!(name(one.as_raw_fd()), "unix pair");
    }

    #[test]
    fn an_epoll_of_one_file_waits_for_that() {
        assert_eq!(only_target("pos:\t0\nflags:\t02\ntfd:        5 events:       19 data: 5\n"), Some(5));
        let two = "tfd:        5 events: 19\ntfd:        7 events: 19\n";
        assert_eq!((only_target(two), only_target("pos: 0\n")), (None, None));
    }
}

//! The kernel's own list of TCP connections with their statistics: `inet_diag` over netlink, which needs no privilege. One socket
//! tells of the network namespace that it was opened in.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_INFO`: the attribute that is a `struct tcp_info`.
const INFO: u16 = 2;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
/// Size of `struct inet_diag_msg`; attributes follow.
const MESSAGE_BYTES: usize = 72;
/// The state LISTEN.
const LISTEN: u8 = 10;
/// Connections that carry or carried data, and what listens: all states but SYN_SENT, SYN_RECV, TIME_WAIT, CLOSE and NEW_SYN_RECV.
const STATES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << LISTEN | 1 << 11;
/// Room for the kernel's answers: it sends at most 32 KiB at a time.
const ANSWER_BYTES: usize = 64 << 10;

/// What the kernel tells of a connection. Numbers are since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Names the socket for good, in its namespace.
    pub cookie: u64,
    /// Inode number by which `/proc/PID/fd` names it; 0 where no process has it open any more.
    pub inode: u64,
    /// Whether it is no connection, but listens for them.
    pub listens: bool,
    /// This side.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// The least one, microseconds.
    pub min_rtt_us: u32,
    /// Congestion window, segments.
    pub congestion_window: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Bytes sent, those sent again included.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Time with something to send, microseconds.
    pub busy_us: u64,
    /// The part of it that the receiver's window held it back.
    pub receiver_limited_us: u64,
    /// The part of it that the send buffer held it back.
    pub buffer_limited_us: u64,
}

/// A way to ask for the connections of one network namespace.
#[derive(Debug)]
pub struct Diag(OwnedFd);

impl Diag {
    /// Of this thread's namespace.
    ///
    /// # Errors
    /// Where the kernel has no such interface.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: the call has no preconditions.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the file is new, and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Of the namespace of a process.
    ///
    /// # Errors
    /// Where the kernel refuses, or the process is gone.
    pub fn open_of(tgid: u32) -> io::Result<Self> {
        let path = format!("/proc/{tgid}/ns/net");
        let namespace = |path: &str| fs::metadata(path).map(|facts| facts.ino());
        if namespace(&path)? == namespace("/proc/self/ns/net")? {
            Self::open()
        } else {
            Self::open_in(&File::open(path)?)
        }
    }

    /// Of the namespace that this file of `/proc/PID/ns` is. A thread of its own enters it, which needs `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// Where the kernel refuses.
    fn open_in(namespace: &File) -> io::Result<Self> {
        std::thread::scope(|scope| {
            let enter = || {
                // SAFETY: the file is open; only this thread changes its namespace, and it ends.
                if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(io::Error::last_os_error());
                }
                Self::open()
            };
            let entered =
                std::thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, enter)?;
            entered.join().unwrap_or_else(|_| Err(io::Error::other("the thread died")))
        })
    }

    /// Tells of every connection, at most `max`. Whether that were all.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub fn ask(&self, max: usize, mut told: impl FnMut(Told)) -> io::Result<bool> {
        let mut left = max;
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut request = [0; 56];
            request[..4].copy_from_slice(&[family as u8, libc::IPPROTO_TCP as u8, 1 << (INFO - 1), 0]);
            request[4..8].copy_from_slice(&STATES.to_ne_bytes());
            self.dump(&request, |message| {
                if left > 0
                    && let Some(connection) = parse(message)
                {
                    left -= 1;
                    told(connection);
                }
            })?;
        }
        Ok(left > 0)
    }

    /// Asks for all sockets of a kind, and hands over every message of the answer: all are read, so that the next answer begins where it
    /// should.
    pub(super) fn dump(&self, asked: &[u8], mut sink: impl FnMut(&[u8])) -> io::Result<()> {
        let length = HEADER_BYTES + asked.len();
        let mut request = Vec::with_capacity(length);
        request.extend((length as u32).to_ne_bytes());
        request.extend(BY_FAMILY.to_ne_bytes());
        request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
        request.extend([0; 8]);
        request.extend(asked);
        // SAFETY: the bytes are there for the call.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), request.as_ptr().cast(), length, 0) };
        if sent != length as isize {
            return Err(io::Error::last_os_error());
        }
        let mut answer = vec![0; ANSWER_BYTES];
        let mut is_done = false;
        while !is_done {
            let length = self.receive(&mut answer)?;
            is_done = messages(&answer[..length], &mut sink)?;
        }
        Ok(())
    }

    fn receive(&self, answer: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the kernel writes no more than there is room for.
            let length =
                unsafe { libc::recv(self.0.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
            match usize::try_from(length) {
                Ok(length) => return Ok(length),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// Hands over the messages of one answer, without their headers. Whether the last one is among them.
fn messages(mut answer: &[u8], mut sink: impl FnMut(&[u8])) -> io::Result<bool> {
    let damaged = || io::Error::other("the kernel's list of connections is damaged");
    if answer.is_empty() {
        return Err(damaged());
    }
    while !answer.is_empty() {
        let length = u32_at(answer, 0).ok_or_else(damaged)? as usize;
        let kind = u16_at(answer, 4).ok_or_else(damaged)?;
        let body = answer.get(HEADER_BYTES..length).ok_or_else(damaged)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(body, 0).ok_or_else(damaged)?.cast_signed();
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            _ => sink(body),
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// A connection of a `struct inet_diag_msg` with its attributes; `None` where that has no statistics.
fn parse(message: &[u8]) -> Option<Told> {
    let family = i32::from(*message.first()?);
    let mut attributes = message.get(MESSAGE_BYTES..)?;
    let info = loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let body = attributes.get(4..length)?;
        if u16_at(attributes, 2)? == INFO {
            break body;
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    };
    let port = |at: usize| message.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    // Places in `struct tcp_info`, to which kernels only ever add at the end.
    Some(Told {
        cookie: u64::from(u32_at(message, 44)?) | u64::from(u32_at(message, 48)?) << 32,
        inode: u64::from(u32_at(message, 68)?),
        listens: *message.get(1)? == LISTEN,
        local: SocketAddr::new(address(family, message.get(8..)?)?, port(4)?),
        remote: SocketAddr::new(address(family, message.get(24..)?)?, port(6)?),
        rtt_us: u32_at(info, 68)?,
        min_rtt_us: u32_at(info, 148)?,
        congestion_window: u32_at(info, 80)?,
        retransmits: u32_at(info, 100)?,
        bytes_sent: u64_at(info, 200)?,
        bytes_received: u64_at(info, 128)?,
        busy_us: u64_at(info, 168)?,
        receiver_limited_us: u64_at(info, 176)?,
        buffer_limited_us: u64_at(info, 184)?,
    })
}

fn address(family: i32, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => bytes.first_chunk().map(|bytes: &[u8; 4]| IpAddr::V4(Ipv4Addr::from(*bytes))),
        libc::AF_INET6 => {
            let address = Ipv6Addr::from(*bytes.first_chunk::<16>()?);
            Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
        }
        _ => None,
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn message() -> Vec<u8> {
        let mut message = vec![0; MESSAGE_BYTES];
        message[0] = libc::AF_INET as u8;
        message[4..8].copy_from_slice(&[0x1f, 0x90, 0x00, 0x50]);
        message[8..12].copy_from_slice(&[10, 0, 0, 1]);
        message[24..28].copy_from_slice(&[10, 0, 0, 2]);
        // Another attribute, of five bytes, and then the statistics.
        message.extend([9, 0, 7, 0, 1, 2, 3, 4, 5, 0, 0, 0]);
        message.extend([4 + 208, 0, 2, 0]);
        let mut info = vec![0; 208];
        info[68..72].copy_from_slice(&1_500_u32.to_ne_bytes());
        info[200..208].copy_from_slice(&9_u64.to_ne_bytes());
        message.extend(info);
        message
    }

    #[test]
    fn a_connection_is_read_whole_or_not_at_all() {
        let message = message();
        let told = parse(&message).unwrap();
        assert_eq!(
            (told.local.to_string(), told.remote.to_string()),
            ("10.0.0.1:8080".into(), "10.0.0.2:80".into())
        );
        assert_eq!((told.rtt_us, told.bytes_sent), (1_500, 9));
        for length in 0..message.len() {
            assert_eq!(parse(&message[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn answers_are_cut_into_messages() {
        let of = |kind: u16, body: &[u8]| {
            let mut bytes = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(body);
            bytes
        };
        let mut seen = Vec::new();
        let answer = [of(BY_FAMILY, &[1; 4]), of(BY_FAMILY, &[2; 8]), of(NLMSG_DONE, &[0; 4])].concat();
        assert!(messages(&answer, |body| seen.push(body.len())).unwrap());
        assert_eq!(seen, [4, 8]);
        assert!(!messages(&of(BY_FAMILY, &[1; 4]), |_| {}).unwrap());
        let refused = messages(&of(NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes()), |_| {}).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
        for length in 0..HEADER_BYTES + 4 {
            assert!(messages(&of(BY_FAMILY, &[1; 4])[..length], |_| {}).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn the_kernel_tells_of_both_ends_of_a_connection() {
        let Ok(diag) = Diag::open() else { return eprintln!("skipped: this kernel has no sock_diag") };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let (mut seen, mut listening) = (Vec::new(), Vec::new());
        let told = |told: Told| {
            seen.push((told.local, told.remote));
            listening.extend(told.listens.then_some(told.local));
        };
        match diag.ask(1_000_000, told) {
            Ok(all) => assert!(all),
            Err(error) => return eprintln!("skipped: this kernel has no tcp_diag: {error}"),
        }
        assert!(seen.contains(&(local, remote)) && seen.contains(&(remote, local)), "{seen:?}");
        assert!(listening.contains(&remote) && !listening.contains(&local), "{listening:?}");
        let mut few = 0;
        assert!(!diag.ask(1, |_| few += 1).unwrap());
        assert_eq!(few, 1);
        // What was left of that answer is gone.
        assert!(diag.ask(1_000_000, |_| few += 1).unwrap());
        assert!(few >= 3, "{few}");
    }
}

//! Unix sockets and their peers, by the kernel's own list: `unix_diag` over netlink, which needs no privilege.

use std::io;

use super::diag::{Diag, u16_at, u32_at};

/// Size of `struct unix_diag_msg`; attributes follow.
const MESSAGE_BYTES: usize = 16;
/// `UDIAG_SHOW_PEER`.
const SHOW_PEER: u32 = 4;
/// `UNIX_DIAG_PEER`: the attribute that is the peer's inode number.
const PEER: u16 = 2;
/// Connected sockets have peers: `TCP_ESTABLISHED`, which Unix sockets use, too.
const STATES: u32 = 1 << 1;

impl Diag {
    /// Tells of the inode numbers of every connected Unix socket of the namespace, at most `max`, and of its peer.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    pub fn ask_for_unix(&self, max: usize, mut told: impl FnMut(u64, u64)) -> io::Result<()> {
        let mut request = [0; 24];
        request[0] = libc::AF_UNIX as u8;
        request[4..8].copy_from_slice(&STATES.to_ne_bytes());
        request[12..16].copy_from_slice(&SHOW_PEER.to_ne_bytes());
        let mut left = max;
        self.dump(&request, |message| {
            if left > 0
                && let Some((inode, peer)) = parse(message)
            {
                left -= 1;
                told(inode, peer);
            }
        })
    }
}

/// A socket of a `struct unix_diag_msg` and its peer; `None` where it has none.
fn parse(message: &[u8]) -> Option<(u64, u64)> {
    let inode = u32_at(message, 4)?;
    let mut attributes = message.get(MESSAGE_BYTES..)?;
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let body = attributes.get(4..length)?;
        if u16_at(attributes, 2)? == PEER {
            return Some((u64::from(inode), u64::from(u32_at(body, 0)?)));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_is_read_with_its_peer_or_not_at_all() {
        let mut message = vec![1, 1, 1, 0];
        message.extend(77_u32.to_ne_bytes());
        message.extend([0; 8]);
        // Another attribute, of five bytes, and then the peer.
        message.extend([9, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0]);
        message.extend([8, 0, 2, 0]);
        message.extend(78_u32.to_ne_bytes());
        assert_eq!(parse(&message), Some((77, 78)));
        for length in 0..message.len() {
            assert_eq!(parse(&message[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn the_kernel_tells_of_both_ends_of_a_pair() {
        let Ok(diag) = Diag::open() else { return eprintln!("skipped: this kernel has no sock_diag") };
        let (one, other) = UnixStream::pair().unwrap();
        let inode = |socket: &UnixStream| -> u64 {
            let target = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
            let target = target.to_string_lossy().into_owned();
            target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).unwrap().parse().unwrap()
        };
        let mut seen = Vec::new();
        if let Err(error) = diag.ask_for_unix(1_000_000, |inode, peer| seen.push((inode, peer))) {
            return eprintln!("skipped: this kernel has no unix_diag: {error}");
        }
        let (one, other) = (inode(&one), inode(&other));
        assert!(seen.contains(&(one, other)) && seen.contains(&(other, one)), "{seen:?}");
        let mut few = 0;
        diag.ask_for_unix(1, |_, _| few += 1).unwrap();
        assert_eq!(few, 1);
    }
}

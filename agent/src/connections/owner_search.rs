//! Finds the processes of connections that the kernel programs could not tell: by their sockets' inode numbers, among the open files
//! of all processes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;

use super::{Connection, Ends, Owner};
use crate::process;

/// Open files looked at in one go: some ten milliseconds. The next goes on from there.
const MAX_FILES_AT_ONCE: usize = 10_000;
/// Times that all open files are searched for the same connection.
const MAX_SEARCHES: u8 = 3;

/// How far the search is.
#[derive(Debug, Default)]
pub(super) struct OwnerSearch {
    /// The process that it goes on from.
    next_process: u32,
    /// Connections that it is for.
    waiting: HashSet<Ends>,
}

impl OwnerSearch {
    /// Has a connection searched for, which knows its inode number.
    pub(super) fn want(&mut self, ends: Ends) {
        self.waiting.insert(ends);
    }

    /// Whether there is anything left to find.
    pub(super) fn goes_on(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Searches some of the open files for those of the connections that have no owner yet. `is_target` tells whether a process is part
    /// of the target.
    pub(super) fn look(
        &mut self,
        connections: &mut HashMap<Ends, Connection>,
        is_target: impl Fn(u32) -> bool,
    ) {
        self.waiting.retain(|ends| {
            connections.get(ends).is_some_and(|known| known.owner.is_none() && known.searches < MAX_SEARCHES)
        });
        if self.waiting.is_empty() {
            return;
        }
        let mut wanted: BTreeMap<u64, Vec<Ends>> = BTreeMap::new();
        for ends in &self.waiting {
            wanted.entry(connections[ends].inode).or_default().push(*ends);
        }
        let mut left = MAX_FILES_AT_ONCE;
        let mut tgids: Vec<u32> = process::all().filter(|tgid| *tgid >= self.next_process).collect();
        tgids.sort_unstable();
        for tgid in tgids {
            if left == 0 {
                self.next_process = tgid;
                return;
            }
            let found = sockets_of(tgid, &mut left).into_iter().filter_map(|inode| wanted.remove(&inode));
            for ends in found.flatten() {
                let Some(connection) = connections.get_mut(&ends) else { continue };
                connection.outside_target = !is_target(tgid);
                connection.owner =
                    Some(Owner { tgid, name: process::name(tgid).unwrap_or_default(), cgroup_id: None });
            }
        }
        self.next_process = 0;
        for ends in wanted.into_values().flatten() {
            if let Some(connection) = connections.get_mut(&ends) {
                connection.searches += 1;
            }
        }
    }
}

/// Inode numbers of a process's sockets. What it looks at is taken from `left`; of a process with very many open files, the rest
/// is not looked at.
pub(crate) fn sockets_of(tgid: u32, left: &mut usize) -> Vec<u64> {
    let files = fs::read_dir(format!("/proc/{tgid}/fd")).into_iter().flatten().flatten();
    files
        .take(MAX_FILES_AT_ONCE)
        .filter_map(|file| {
            *left = left.saturating_sub(1);
            let target = fs::read_link(file.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use crate::connections::Counts;

    #[test]
    fn an_owner_is_found_by_the_sockets_inode() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap();
        let inode = link.to_str().unwrap().strip_prefix("socket:[").unwrap().strip_suffix(']').unwrap();
        let ends =
            Ends { namespace: 1, local: stream.local_addr().unwrap(), remote: stream.peer_addr().unwrap() };
        let lost = Connection { inode: inode.parse().unwrap(), ..Connection::with_counts(Counts::default()) };
        let mut connections = HashMap::from([(ends, lost)]);
        let mut search = OwnerSearch::default();
        search.want(ends);
        // More files may be open on this host than are looked at in one go.
        for _ in 0..1_000 {
            if !search.goes_on() {
                break;
            }
            search.look(&mut connections, |tgid| tgid == std::process::id());
        }
        let owner = connections[&ends].owner.as_ref().map(|owner| owner.tgid);
        assert_eq!((owner, connections[&ends].outside_target), (Some(std::process::id()), false));
    }
}

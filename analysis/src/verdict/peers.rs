//! Whom a host's processes wait for over TCP, and where they are asked themselves: what leads from the verdict of one host to another's.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::account::{Account, Wait};
use super::flow::{Root, Via};
use super::roles::{Behind, Roles};
use crate::activity::Class;

/// Which side of a service a process is on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// It asks, from this address of its own, without a port: that was chosen by chance.
    Asks {
        /// Its own address.
        local: String,
        /// The service's.
        service: SocketAddr,
    },
    /// It is asked at this address.
    Serves(SocketAddr),
}

/// A process's part in a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Process id.
    pub pid: u32,
    /// Its name, as it is.
    pub process: String,
    /// What it does.
    pub side: Side,
    /// The class of its waits; of one that serves [`Class::NetAccept`].
    pub class: Class,
    /// Of one that asks how long its threads waited for answers, nanoseconds; of one that serves the window's length.
    pub ns: u64,
}

/// What all processes of an account do, in the order of the processes.
pub(super) fn of(account: &Account<'_>) -> Vec<Peer> {
    let roles = Roles::of(account);
    let mut sums: BTreeMap<(u32, Side, Class), u64> = BTreeMap::new();
    for wait in account.waits.iter().filter(|wait| is_of_sockets(wait.class)) {
        let Some(ends) = wait.object.and_then(Ends::of) else { continue };
        let pid = account.nodes[wait.node].pid;
        if wait.class == Class::NetAccept {
            sums.insert((pid, Side::Serves(ends.local), Class::NetAccept), account.window_ns);
            continue;
        }
        let Some(remote) = ends.remote else { continue };
        let (asked_ns, serves) = divided(account, wait, &roles);
        if asked_ns > 0 {
            let side = Side::Asks { local: ends.local.ip().to_string(), service: remote };
            *sums.entry((pid, side, wait.class)).or_default() += asked_ns;
        }
        if serves {
            sums.insert((pid, Side::Serves(ends.local), Class::NetAccept), account.window_ns);
        }
    }
    // Who waits for any of several events is seen by its connections alone.
    for connection in account.profile.connections.iter().filter(|connection| connection.is_accepted) {
        if let Some(pid) = connection.pid {
            sums.insert((pid, Side::Serves(connection.local), Class::NetAccept), account.window_ns);
        }
    }
    let names: BTreeMap<u32, &str> =
        account.profile.threads.iter().map(|thread| (thread.pid, thread.process_name.as_str())).collect();
    let name = |pid: u32| names.get(&pid).map_or_else(String::new, |name| (*name).to_owned());
    let peers = sums.into_iter();
    peers.map(|((pid, side, class), ns)| Peer { pid, process: name(pid), side, class, ns }).collect()
}

fn is_of_sockets(class: Class) -> bool {
    matches!(class, Class::NetSend | Class::NetReceive | Class::NetConnect | Class::NetAccept | Class::Event)
}

/// How much of a wait is for answers, and whether some of it is for what others ask.
fn divided(account: &Account<'_>, wait: &Wait<'_>, roles: &Roles<'_>) -> (u64, bool) {
    let (mut asked_ns, mut serves) = (0, false);
    for end in &wait.ends {
        match roles.behind(account, wait, end, false) {
            Behind::Root(Root::Downstream) | Behind::Node(Via::Socket | Via::Event, _, true) => {
                asked_ns += end.ns;
            }
            Behind::Root(Root::Work) | Behind::Node(Via::Socket, _, false) => {
                serves |= wait.class != Class::Event;
            }
            _ => {}
        }
    }
    (asked_ns, serves)
}

/// The ends of an object's name, `tcp 10.0.0.1:40000-10.0.0.5:5432`.
struct Ends {
    local: SocketAddr,
    remote: Option<SocketAddr>,
}

impl Ends {
    fn of(object: &str) -> Option<Self> {
        let ends = object.strip_prefix("tcp ")?;
        match ends.split_once('-') {
            Some((local, remote)) => {
                Some(Self { local: local.parse().ok()?, remote: Some(remote.parse().ok()?) })
            }
            None => Some(Self { local: ends.parse().ok()?, remote: None }),
        }
    }
}

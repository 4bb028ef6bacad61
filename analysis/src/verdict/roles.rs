//! What a wait is for: a lock or a queue, an answer or work to come. That can be told only from all waits and connections together.

use std::collections::{HashMap, HashSet};

use super::account::{Account, End, Ender, NodeId, Wait};
use super::flow::{Root, Via};
use super::leaders::Leaders;
use super::lock_names::{Kind, kind};
use super::polls;
use crate::activity::Class;
use crate::kernel_frames;
use crate::profile::ThreadId;

/// A wait for a lock that a timer ends may go on at once: interpreters ask for theirs anew every 5 ms. Idle threads of pools look
/// around a few times a second.
const ASKED_ANEW_NS: u64 = 20_000_000;

/// What a wait is for.
pub(super) enum Behind {
    Root(Root),
    /// Another's doing; whether an answer is awaited.
    Node(Via, NodeId, bool),
}

/// What can be told only from all waits together.
pub(super) struct Roles<'p> {
    /// Futexes, by process, that are locks: who waits for them also ends waits for them. With the node that ends most.
    locks: HashMap<(u32, Option<&'p str>), NodeId>,
    /// Places in which processes of one program wait for each other in turns, by its name and the functions that wait: who waits there
    /// also ends such waits. Databases have such locks.
    shared_locks: HashSet<Place<'p>>,
    /// Threads that look again and again whether another is done.
    polling: HashSet<ThreadId>,
    leaders: Leaders<'p>,
    /// Ports that are listened on.
    listening: HashSet<u16>,
    /// Connections of the target by their ports, this side's first; whether they came to a port that is listened on.
    accepted: HashMap<(u16, u16), bool>,
    /// Processes with connections that they opened, and with such that others did.
    clients: HashSet<u32>,
    servers: HashSet<u32>,
    /// Client and server.
    pairs: HashSet<(u32, u32)>,
}

/// The name of a program, and its functions that wait, leaf first.
type Place<'p> = (String, Vec<&'p str>);

/// Where it waits; `None` where its functions have no names, so that one place is as good as another.
fn place<'p>(account: &Account<'p>, wait: &Wait<'p>) -> Option<Place<'p>> {
    let functions: Vec<&str> = account.own_functions(wait.stack).collect();
    (!functions.is_empty()).then(|| (account.nodes[wait.node].process.clone(), functions))
}

impl<'p> Roles<'p> {
    pub(super) fn of(account: &Account<'p>) -> Self {
        let accepting = account.waits.iter().filter(|wait| wait.class == Class::NetAccept);
        let listening = accepting.filter_map(|wait| Some(Endpoints::of(wait.object?)?.local)).collect();
        let mut roles = Self {
            locks: locks(account),
            shared_locks: shared_locks(account),
            polling: polls::of(account).into_keys().collect(),
            leaders: Leaders::of(account),
            listening,
            accepted: HashMap::new(),
            clients: HashSet::new(),
            servers: HashSet::new(),
            pairs: HashSet::new(),
        };
        let connections = &account.profile.connections;
        let owners: HashMap<_, u32> =
            connections.iter().filter_map(|c| Some(((c.namespace, c.local, c.remote), c.pid?))).collect();
        roles.listening.extend(connections.iter().filter(|c| c.is_accepted).map(|c| c.local.port()));
        for connection in connections.iter().filter(|connection| connection.bytes() > 0) {
            let Some(pid) = connection.pid else { continue };
            roles
                .accepted
                .insert((connection.local.port(), connection.remote.port()), connection.is_accepted);
            if let Some(peer) = connection.peer_pid {
                roles.pairs.insert(if connection.is_accepted { (peer, pid) } else { (pid, peer) });
            }
            if connection.is_accepted {
                roles.servers.insert(pid);
                // The other end may be in another namespace; ports and addresses are the same there.
                let other = owners.get(&(connection.namespace, connection.remote, connection.local));
                roles.pairs.extend(other.map(|client| (*client, pid)));
            } else {
                roles.clients.insert(pid);
            }
        }
        roles
    }

    /// Whether a futex is waited for as a lock.
    pub(super) fn is_lock(&self, account: &Account<'_>, wait: &Wait<'_>) -> bool {
        wait.class == Class::Futex && self.locks.contains_key(&(account.nodes[wait.node].pid, wait.object))
    }

    /// Whether a thread waits in a place where processes of its program wait for each other in turns.
    pub(super) fn is_shared_lock(&self, account: &Account<'p>, wait: &Wait<'p>) -> bool {
        place(account, wait).is_some_and(|place| self.shared_locks.contains(&place))
    }

    /// Whether the functions that a thread waits in say that it waits for a lock with one holder.
    pub(super) fn is_named_lock(&self, account: &Account<'_>, wait: &Wait<'_>) -> bool {
        wait.class == Class::Futex
            && kind(account.user_functions(wait.stack)).is_some_and(|kind| kind != Kind::Counted)
    }

    /// The part of a wait for a lock in which its holder waited for work, 0 to 1.
    pub(super) fn led(&self, account: &Account<'p>, wait: &Wait<'p>) -> f64 {
        self.leaders.part_of(account, wait)
    }

    /// What a wait is for that ended so.
    pub(super) fn behind(
        &self,
        account: &Account<'p>,
        wait: &Wait<'p>,
        end: &End,
        is_named_lock: bool,
    ) -> Behind {
        let by = end.by;
        let waiter = &account.nodes[wait.node];
        if let Some((node, _)) = sibling(account, wait, end)
            && self.is_shared_lock(account, wait)
        {
            return Behind::Node(Via::SharedLock, node, true);
        }
        let held = |via| match by {
            Ender::Thread(node, _) => Behind::Node(via, node, true),
            _ => Behind::Root(Root::Held(via)),
        };
        match wait.class {
            Class::IoRead if wait.in_fault => Behind::Root(Root::FaultIo),
            Class::IoRead | Class::IoWrite | Class::IoSync | Class::IoDirtyThrottled => {
                Behind::Root(Root::Io(wait.class))
            }
            Class::MemoryReclaim => Behind::Root(Root::Memory),
            Class::LockKernel => held(Via::KernelLock),
            Class::LockFile => held(Via::FileLock),
            Class::Timer if self.polling.contains(&wait.thread) => Behind::Root(Root::Polling),
            Class::Timer => Behind::Root(Root::Timer),
            Class::Idle => Behind::Root(Root::Idle),
            Class::NetAccept => Behind::Root(Root::Work),
            Class::Futex => {
                let usual_ender = self.locks.get(&(waiter.pid, wait.object)).copied();
                let is_lock = usual_ender.is_some() || is_named_lock;
                match by {
                    Ender::Thread(node, _) if is_lock => Behind::Node(Via::Lock, node, true),
                    Ender::Thread(node, _) => Behind::Node(Via::Queue, node, false),
                    Ender::Timer if is_lock && end.ns < ASKED_ANEW_NS * end.count => match usual_ender {
                        Some(node) => Behind::Node(Via::Lock, node, true),
                        None => Behind::Root(Root::Held(Via::Lock)),
                    },
                    Ender::Timer => Behind::Root(Root::Timer),
                    _ if is_lock => Behind::Root(Root::Held(Via::Lock)),
                    // Not ended in the window: a thread that waits for work.
                    _ => Behind::Root(Root::Work),
                }
            }
            Class::NetReceive | Class::NetSend | Class::NetConnect => {
                self.network(account, wait, by, Via::Socket)
            }
            Class::Event => self.network(account, wait, by, Via::Event),
            Class::Ipc => match by {
                Ender::Thread(node, _) if account.nodes[node].members > 0 => {
                    Behind::Node(Via::Ipc, node, false)
                }
                // Who cannot get rid of its work is held up; who reads may wait for work that there is not.
                Ender::Thread(..)
                    if account.functions(wait.stack).any(|name| name.ends_with("pipe_write")) =>
                {
                    Behind::Root(Root::Outside)
                }
                Ender::Timer => Behind::Root(Root::Timer),
                _ => Behind::Root(Root::Work),
            },
            Class::Child => match by {
                Ender::Thread(node, _) => Behind::Node(Via::Child, node, true),
                // One that lives on: this is what supervisors do.
                _ => Behind::Root(Root::Work),
            },
            _ => match by {
                Ender::Thread(node, _) if account.nodes[node].members > 0 => {
                    Behind::Node(Via::Event, node, false)
                }
                Ender::Timer => Behind::Root(Root::Timer),
                _ => Behind::Root(Root::Unexplained(wait.class)),
            },
        }
    }

    /// A wait on a socket, or on several. Who serves waits for work, who asks waits for the answer.
    fn network(&self, account: &Account<'_>, wait: &Wait<'_>, by: Ender, via: Via) -> Behind {
        let pid = account.nodes[wait.node].pid;
        let other = match by {
            Ender::Thread(node, _) => Some(account.nodes[node].pid),
            _ => None,
        };
        let asks = self.asks(wait.object).or_else(|| self.asks_process(pid, other));
        let behind_known = match asks {
            Some(true) => Root::Downstream,
            Some(false) => Root::Work,
            // It serves some and asks others: which of them this wait is for is not known.
            None if self.clients.contains(&pid) => Root::Unexplained(wait.class),
            None => Root::Work,
        };
        match by {
            Ender::Thread(node, _) if account.nodes[node].members > 0 => {
                Behind::Node(via, node, asks == Some(true))
            }
            Ender::Timer => Behind::Root(Root::Timer),
            // A wait for several that had not ended: nobody came.
            Ender::Unknown if wait.class == Class::Event => Behind::Root(Root::Work),
            _ => Behind::Root(behind_known),
        }
    }

    /// Whether this side of a connection awaits the other's answers; `None` where that is not known.
    fn asks(&self, object: Option<&str>) -> Option<bool> {
        let object = object?;
        if let Some(path) = object.strip_prefix("unix") {
            // Only the side that listened has a name; that of its peer stands behind a dash.
            return match path.trim() {
                "pair" => None,
                path => Some(path.is_empty() || path.starts_with('-')),
            };
        }
        let Endpoints { local, remote } = Endpoints::of(object)?;
        Some(!self.is_server(local, remote?))
    }

    /// The same of a process, by its connections.
    fn asks_process(&self, pid: u32, other: Option<u32>) -> Option<bool> {
        if let Some(other) = other {
            match (self.pairs.contains(&(pid, other)), self.pairs.contains(&(other, pid))) {
                (true, false) => return Some(true),
                (false, true) => return Some(false),
                _ => {}
            }
        }
        match (self.clients.contains(&pid), self.servers.contains(&pid)) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        }
    }

    /// Who accepts; where that is not seen, who listens; else servers have ports below those that the kernel gives to clients.
    fn is_server(&self, local: u16, remote: u16) -> bool {
        match self.accepted.get(&(local, remote)) {
            Some(is_accepted) => *is_accepted,
            None => self.listening.contains(&local) || (!self.listening.contains(&remote) && local < remote),
        }
    }
}

/// The futexes, by process, that are locks, and who ends most waits for them.
fn locks<'p>(account: &Account<'p>) -> HashMap<(u32, Option<&'p str>), NodeId> {
    #[derive(Default)]
    struct Users {
        waiters: HashSet<ThreadId>,
        enders: HashSet<ThreadId>,
        nodes: HashMap<NodeId, u64>,
    }
    let mut users: HashMap<(u32, Option<&str>), Users> = HashMap::new();
    for wait in account.waits.iter().filter(|wait| wait.class == Class::Futex) {
        let users = users.entry((account.nodes[wait.node].pid, wait.object)).or_default();
        users.waiters.insert(wait.thread);
        for end in &wait.ends {
            if let Ender::Thread(node, thread) = end.by {
                users.enders.insert(thread);
                *users.nodes.entry(node).or_default() += end.ns;
            }
        }
    }
    let lock = |(key, Users { waiters, enders, nodes }): (_, Users)| {
        let most = nodes.into_iter().max_by_key(|(node, ns)| (*ns, *node))?.0;
        is_shared_by(&waiters, &enders).then_some((key, most))
    };
    users.into_iter().filter_map(lock).collect()
}

/// The thread of another process of the same program that ended waits, not by bringing data: it woke a futex or a semaphore that they
/// share, or sent a signal.
fn sibling(account: &Account<'_>, wait: &Wait<'_>, end: &End) -> Option<(NodeId, ThreadId)> {
    let Ender::Thread(node, thread) = end.by else { return None };
    let (waiter, ender) = (&account.nodes[wait.node], &account.nodes[node]);
    if ender.pid == waiter.pid || ender.process != waiter.process {
        return None;
    }
    let is_told = match wait.class {
        Class::Futex => true,
        Class::Ipc => account
            .functions(wait.stack)
            .any(|name| name.contains("semtimedop") || name.ends_with("sys_semop")),
        Class::Event => {
            end.stack.is_some_and(|stack| account.functions(stack).any(kernel_frames::is_signalling))
        }
        _ => false,
    };
    is_told.then_some((node, thread))
}

/// See [`Roles::shared_locks`].
fn shared_locks<'p>(account: &Account<'p>) -> HashSet<Place<'p>> {
    let mut users: HashMap<Place<'p>, [HashSet<ThreadId>; 2]> = HashMap::new();
    for wait in &account.waits {
        let siblings: Vec<_> = wait.ends.iter().filter_map(|end| sibling(account, wait, end)).collect();
        let Some(place) = (!siblings.is_empty()).then(|| place(account, wait)).flatten() else { continue };
        let [waiters, enders] = users.entry(place).or_default();
        waiters.insert(wait.thread);
        enders.extend(siblings.into_iter().map(|(_, ender)| ender));
    }
    let is_lock = |[waiters, enders]: &[HashSet<ThreadId>; 2]| is_shared_by(waiters, enders);
    users.into_iter().filter(|(_, users)| is_lock(users)).map(|(place, _)| place).collect()
}

/// Whether those who wait for something are those who end waits for it. A few of either side may have been missed.
fn is_shared_by(waiters: &HashSet<ThreadId>, enders: &HashSet<ThreadId>) -> bool {
    let both = waiters.intersection(enders).count();
    both > 0 && 2 * both >= waiters.len().min(enders.len())
}

/// Ports of an object's name, `tcp 10.0.0.1:40000-10.0.0.5:5432`.
struct Endpoints {
    local: u16,
    remote: Option<u16>,
}

impl Endpoints {
    fn of(object: &str) -> Option<Self> {
        let ends = object.strip_prefix("tcp ").or_else(|| object.strip_prefix("udp "))?;
        let port = |end: &str| end.rsplit_once(':')?.1.parse().ok();
        match ends.split_once('-') {
            Some((local, remote)) => Some(Self { local: port(local)?, remote: Some(port(remote)?) }),
            None => Some(Self { local: port(ends)?, remote: None }),
        }
    }
}

//! What is behind waits: time blocked on another thread moves to what that thread was doing, and so on, until a resource is met.
//!
//! For each wait it is known who ended it, and of that thread what its time went into. The wait is taken to be made of that, in
//! proportion, without what cannot have been part of it: the ender's own waits for the one that waits for it, its waits for the
//! same lock, and its waits for work.

use std::collections::HashMap;

use super::account::{Account, Ender, NodeId, Wait};
use super::roles::{Behind, Roles};
use crate::activity::Class;

/// From where on a wait is not followed any further.
const DEPTH: usize = 4;
/// A wait shorter than this part of the target's time is taken for what its ender did itself: so the work grows with what there is
/// to tell, and not with the number of threads.
const LEAST: f64 = 1e-5;
/// Ends of a node's waits that are followed, the longest first; of the rest the same is assumed. Their number to the power of
/// the depth bounds the work.
const BREADTH: usize = 8;

/// How one thread waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    /// A lock of the program: those that wait for it also end waits for it.
    Lock,
    /// A lock inside the kernel.
    KernelLock,
    /// A lock on a file.
    FileLock,
    /// A lock that processes of one program have among themselves.
    SharedLock,
    /// A queue or a condition: one side waits, another ends the waits.
    Queue,
    /// A socket.
    Socket,
    /// A pipe, a message queue, a semaphore.
    Ipc,
    /// The end of a child.
    Child,
    /// Any of several events.
    Event,
}

impl Via {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::KernelLock => "kernel lock",
            Self::FileLock => "file lock",
            Self::SharedLock => "shared lock",
            Self::Queue => "queue",
            Self::Socket => "socket",
            Self::Ipc => "pipe",
            Self::Child => "child",
            Self::Event => "event",
        }
    }

    /// Whether it is held by one and wanted by others.
    #[must_use]
    pub const fn is_lock(self) -> bool {
        matches!(self, Self::Lock | Self::KernelLock | Self::FileLock | Self::SharedLock)
    }
}

/// What is at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// A thread that runs.
    OnCpu,
    /// A CPU that the hypervisor or interrupts had.
    Stolen,
    /// The queue for a CPU.
    RunQueue,
    /// A CPU quota.
    Throttled,
    /// A device, by the class of the wait.
    Io(Class),
    /// A CPU, or the queue for one, within a flush: there is less of it with fewer flushes, and not with more CPUs.
    Flushing,
    /// A device, for pages of memory that were not there.
    FaultIo,
    /// Memory that must be freed first.
    Memory,
    /// A lock of which it is not known who holds it.
    Held(Via),
    /// A pause.
    Timer,
    /// A pause after which a thread looks whether another is done.
    Polling,
    /// A service on another host, or outside of the target: the ender is its process where that is known.
    Downstream,
    /// A process outside of the target, through a pipe or another means that has no direction.
    Outside,
    /// Work that others are to bring.
    Work,
    /// Nothing.
    Idle,
    /// It is not known what for.
    Unexplained(Class),
}

impl Root {
    /// Whether time at it is time that somebody wants shorter, whoever waits for it.
    #[must_use]
    const fn is_demand(self) -> bool {
        !matches!(self, Self::Work | Self::Idle | Self::Timer | Self::Unexplained(_))
    }
}

/// A step from a thread that waits to what ends its waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// How.
    pub via: Via,
    /// What it waits for.
    pub object: Option<String>,
    /// The node that it waits for.
    pub to: NodeId,
    /// Whether an answer is awaited, or a lock: then whatever the other does delays this one. Otherwise it may be waiting for work
    /// that there is not.
    pub asks: bool,
}

/// Time of one node that has the same root behind the same hops.
#[derive(Clone, Debug)]
pub struct Part {
    /// Whose time it is.
    pub from: NodeId,
    /// From there to the root.
    pub hops: Vec<Hop>,
    /// The node that is at the root: that of the last hop, or the first.
    pub at: NodeId,
    /// What is at the end.
    pub root: Root,
    /// What is waited for at the end, where that has a name.
    pub object: Option<String>,
    /// How long, nanoseconds.
    pub ns: f64,
}

impl Part {
    /// Whether somebody wants that it went faster.
    #[must_use]
    pub fn is_demand(&self) -> bool {
        self.root.is_demand() || (self.root == Root::Timer && self.hops.first().is_some_and(|hop| hop.asks))
    }

    /// Whether it is behind a hop of this kind.
    #[must_use]
    pub fn is_via(&self, via: Via) -> bool {
        self.hops.iter().any(|hop| hop.via == via)
    }

    /// Whether it is behind a lock.
    #[must_use]
    pub fn is_behind_lock(&self) -> bool {
        self.hops.iter().any(|hop| hop.via.is_lock())
    }
}

/// Where all time of a target goes.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// The parts; they add up to the time of the target's threads.
    pub parts: Vec<Part>,
}

impl Flow {
    /// Follows every wait of an account.
    #[must_use]
    pub fn of(account: &Account<'_>) -> Self {
        let following = Following::new(account);
        let mut parts = Vec::new();
        for node in 0..account.nodes.len() {
            if account.nodes[node].members > 0 {
                let own = following.own[node].iter();
                parts.extend(own.map(|own| own.part(node)));
                for link in &following.links[node] {
                    let mut path = vec![node];
                    following.follow(link, link.ns, &mut path, &mut Vec::new(), &mut parts);
                }
            }
        }
        Self { parts: merged(parts) }
    }

    /// Time of the target that somebody wants shorter, nanoseconds.
    #[must_use]
    pub fn demand_ns(&self) -> f64 {
        self.sum(Part::is_demand)
    }

    /// Sum of the parts that this holds for, nanoseconds.
    pub fn sum(&self, holds: impl Fn(&Part) -> bool) -> f64 {
        // Where there is none, `sum` would say -0.
        self.parts.iter().filter(|part| holds(part)).fold(0.0, |sum, part| sum + part.ns)
    }

    /// The longest of the parts that this holds for.
    pub fn longest(&self, holds: impl Fn(&Part) -> bool) -> Option<&Part> {
        self.parts.iter().filter(|part| holds(part)).max_by(|a, b| a.ns.total_cmp(&b.ns))
    }

    /// Nodes by the time of the parts that this holds for, the most first.
    pub fn nodes(&self, of: impl Fn(&Part) -> NodeId, holds: impl Fn(&Part) -> bool) -> Vec<NodeId> {
        let mut sums: HashMap<NodeId, f64> = HashMap::new();
        for part in self.parts.iter().filter(|part| holds(part)) {
            *sums.entry(of(part)).or_default() += part.ns;
        }
        let mut sums: Vec<(NodeId, f64)> = sums.into_iter().collect();
        sums.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        sums.into_iter().map(|(node, _)| node).collect()
    }
}

fn merged(parts: Vec<Part>) -> Vec<Part> {
    let mut sums: HashMap<(NodeId, Vec<Hop>, Root, Option<String>), Part> = HashMap::new();
    for part in parts.into_iter().filter(|part| part.ns > 0.0) {
        match sums.entry((part.from, part.hops.clone(), part.root, part.object.clone())) {
            std::collections::hash_map::Entry::Occupied(mut sum) => sum.get_mut().ns += part.ns,
            std::collections::hash_map::Entry::Vacant(room) => {
                room.insert(part);
            }
        }
    }
    let mut parts: Vec<Part> = sums.into_values().collect();
    parts.sort_by(|a, b| {
        b.ns.total_cmp(&a.ns)
            .then_with(|| (a.from, &a.hops, a.root, &a.object).cmp(&(b.from, &b.hops, b.root, &b.object)))
    });
    parts
}

/// Time that is a node's own: its root is met at once.
#[derive(Clone, Debug)]
struct Own {
    root: Root,
    object: Option<String>,
    /// Who is at it, where that is another.
    at: Option<NodeId>,
    ns: f64,
}

impl Own {
    fn part(&self, node: NodeId) -> Part {
        let at = self.at.unwrap_or(node);
        Part { from: node, hops: Vec::new(), at, root: self.root, object: self.object.clone(), ns: self.ns }
    }
}

/// Time that a node waits for another.
#[derive(Clone, Debug)]
struct Link {
    hop: Hop,
    ns: f64,
}

struct Following<'a> {
    own: Vec<Vec<Own>>,
    links: Vec<Vec<Link>>,
    least_ns: f64,
    account: &'a Account<'a>,
}

impl<'a> Following<'a> {
    fn new(account: &'a Account<'a>) -> Self {
        let nodes = account.nodes.len();
        let total: u64 = account.by_class().iter().map(|(_, ns)| ns).sum();
        let mut following = Self {
            own: vec![Vec::new(); nodes],
            links: vec![Vec::new(); nodes],
            least_ns: total as f64 * LEAST,
            account,
        };
        for (id, node) in account.nodes.iter().enumerate() {
            let flushing = node.flushing();
            let running = node.time_ns(Class::CpuUser) + node.time_ns(Class::CpuKernel) - flushing.on_cpu_ns;
            for (root, ns) in [
                (Root::OnCpu, running),
                (Root::Stolen, node.time_ns(Class::CpuStolen)),
                (Root::RunQueue, node.time_ns(Class::RunQueue) - flushing.queued_ns),
                (Root::Flushing, flushing.on_cpu_ns + flushing.queued_ns),
                (Root::Throttled, node.time_ns(Class::Throttled)),
            ] {
                if ns > 0 {
                    following.own[id].push(Own { root, object: None, at: None, ns: ns as f64 });
                }
            }
        }
        let roles = Roles::of(account);
        for wait in &account.waits {
            following.add(wait, &roles);
        }
        for links in &mut following.links {
            let mut sums: HashMap<Hop, f64> = HashMap::new();
            for link in links.drain(..) {
                *sums.entry(link.hop).or_default() += link.ns;
            }
            links.extend(sums.into_iter().map(|(hop, ns)| Link { hop, ns }));
            links.sort_by(|a, b| b.ns.total_cmp(&a.ns).then_with(|| a.hop.cmp(&b.hop)));
            keep_longest(links);
        }
        following
    }

    fn add(&mut self, wait: &Wait<'a>, roles: &Roles<'a>) {
        let is_named = roles.is_named_lock(self.account, wait);
        // A monitor has a futex for each thread that waits for it.
        let object =
            wait.object.filter(|_| !is_named || roles.is_lock(self.account, wait)).map(str::to_owned);
        for end in &wait.ends {
            let ns = end.ns as f64;
            match roles.behind(self.account, wait, end, is_named) {
                Behind::Root(root) => {
                    let is_lock = matches!(root, Root::Held(via) if via.is_lock());
                    let led = if is_lock { roles.led(self.account, wait) } else { 0.0 };
                    self.waits_for_work(wait.node, ns * led);
                    let ns = ns * (1.0 - led);
                    let at = match (root, end.by) {
                        (Root::Downstream | Root::Outside, Ender::Thread(node, _)) => Some(node),
                        _ => None,
                    };
                    self.own[wait.node].push(Own { root, object: object.clone(), at, ns });
                }
                Behind::Node(via, to, asks) => {
                    // A holder that waits for work leaves those behind it without any, too.
                    let led = if via.is_lock() { roles.led(self.account, wait) } else { 0.0 };
                    self.waits_for_work(wait.node, ns * led);
                    let ns = ns * (1.0 - led);
                    let hop = Hop { via, object: object.clone(), to, asks };
                    self.links[wait.node].push(Link { hop, ns });
                }
            }
        }
    }

    fn waits_for_work(&mut self, node: NodeId, ns: f64) {
        if ns > 0.0 {
            self.own[node].push(Own { root: Root::Work, object: None, at: None, ns });
        }
    }

    /// Divides `ns` that are behind a link by what the node it leads to was doing.
    fn follow(
        &self,
        link: &Link,
        ns: f64,
        path: &mut Vec<NodeId>,
        hops: &mut Vec<Hop>,
        parts: &mut Vec<Part>,
    ) {
        let (from, to) = (path[0], link.hop.to);
        hops.push(link.hop.clone());
        let is_lock = link.hop.via.is_lock();
        let own: Vec<&Own> =
            self.own[to].iter().filter(|own| !matches!(own.root, Root::Work | Root::Idle)).collect();
        let may_follow = |next: &&Link| {
            let is_same_lock = is_lock && next.hop.via == link.hop.via && next.hop.object == link.hop.object;
            let is_long = ns >= self.least_ns && path.len() < DEPTH;
            is_long && !path.contains(&next.hop.to) && next.hop.to != to && !is_same_lock
        };
        let links: Vec<&Link> = self.links[to].iter().filter(may_follow).collect();
        let total: f64 =
            own.iter().map(|own| own.ns).sum::<f64>() + links.iter().map(|link| link.ns).sum::<f64>();
        if total <= 0.0 {
            let root = if self.account.nodes[to].members > 0 { Root::Idle } else { Root::Outside };
            parts.push(Part { from, hops: hops.clone(), at: to, root, object: None, ns });
        } else {
            for own in own {
                let (hops, object, at) = (hops.clone(), own.object.clone(), own.at.unwrap_or(to));
                parts.push(Part { from, hops, at, root: own.root, object, ns: ns * own.ns / total });
            }
            path.push(to);
            for next in links {
                self.follow(next, ns * next.ns / total, path, hops, parts);
            }
            path.pop();
        }
        hops.pop();
    }
}

/// Keeps the longest links, and has them stand for the others.
fn keep_longest(links: &mut Vec<Link>) {
    let all: f64 = links.iter().map(|link| link.ns).sum();
    links.truncate(BREADTH);
    let kept: f64 = links.iter().map(|link| link.ns).sum();
    for link in links {
        link.ns *= all / kept.max(1.0);
    }
}

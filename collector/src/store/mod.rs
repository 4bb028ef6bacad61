//! Where what agents tell is kept. The store is a trait, for it has more than one home; the same tests run on each.
//!
//! What every home keeps to:
//! - A batch is there as a whole or not at all, and once it was acknowledged it survives the loss of power.
//! - A batch is there once, however often it comes: agent and sequence number name it.
//! - Stacks are kept once for all hosts: two hosts that run the same file have the same locations.
//! - What is old goes, by age and by bytes; how much went is told.

use chokepoint_analysis::profile::{Function, Module, ModuleKind};
use chokepoint_proto::stream::{self, Batch, Dictionary, Hello, Window};
use thiserror::Error;

mod agent_signals;
mod asker;
pub mod clickhouse;
pub mod embedded;
mod home;

pub use asker::{Asker, Waiting};
pub use home::Home;

use crate::labels::{Labels, Matcher};

/// A home of what agents tell.
pub trait Store: Send + Sync {
    /// Begins to take in the stream of an agent, for who has proven this identity. The first who proves one owns the agent from then on.
    /// `None`: nobody was asked; the agent is who it says it is, and stays whose it was.
    ///
    /// # Errors
    /// [`StoreError::NotOwned`] where another one owns it, and where the store cannot write.
    fn appender(&self, hello: &Hello, identity: Option<&str>) -> Result<Box<dyn Appender>, StoreError>;

    /// Sums of samples.
    ///
    /// # Errors
    /// Where the store cannot read, or the answer would be larger than the query allows.
    fn sums(&self, query: &SumQuery) -> Result<Sums, StoreError>;

    /// The frames of stacks, in the order asked for.
    ///
    /// # Errors
    /// Where the store cannot read, or there is no such stack.
    fn frames(&self, stacks: &[StackId]) -> Result<Frames, StoreError>;

    /// The values of signals in the order of time.
    ///
    /// # Errors
    /// As for [`Store::sums`].
    fn signals(&self, query: &SignalQuery) -> Result<Vec<SignalSeries>, StoreError>;

    /// What limited hosts, in the order of host and time: one entry for each run of windows with the same constraint.
    ///
    /// # Errors
    /// As for [`Store::sums`].
    fn verdicts(&self, selection: &Selection) -> Result<Vec<VerdictSpan>, StoreError>;

    /// Label names with the values that rows of this time have, each sorted; no more than `max_values` values a name.
    ///
    /// # Errors
    /// As for [`Store::sums`].
    fn labels(
        &self,
        selection: &Selection,
        max_values: usize,
    ) -> Result<Vec<(String, Vec<String>)>, StoreError>;

    /// Every kind of samples that is stored, with its unit, in the order of their names.
    ///
    /// # Errors
    /// Where the store cannot read.
    fn kinds(&self) -> Result<Vec<(String, chokepoint_analysis::profile::Unit)>, StoreError>;

    /// Every agent that is known.
    ///
    /// # Errors
    /// Where the store cannot read.
    fn agents(&self) -> Result<Vec<AgentStatus>, StoreError>;

    /// The same of those parts of the store that answer; the others are told to the asker.
    ///
    /// # Errors
    /// Where the store cannot read.
    fn agents_for(&self, _asker: &Asker) -> Result<Vec<AgentStatus>, StoreError> {
        self.agents()
    }

    /// How much it holds.
    ///
    /// # Errors
    /// Where the store cannot read.
    fn holdings(&self) -> Result<Holdings, StoreError>;

    /// Does what is due, a bounded part of it: writes segments and rollups, deletes what is old. Returns whether more is due.
    ///
    /// # Errors
    /// Where the store cannot write.
    fn maintain(&self, now_unix_ns: u64) -> Result<bool, StoreError>;
}

/// Takes in one agent's stream.
pub trait Appender: Send {
    /// Stores a window, so that it survives the loss of power when this returns. `new` is what the stream's dictionary has beyond that of
    /// the window before, and `begins_anew` says that it begins at zero and numbers mean something else than with the window before.
    ///
    /// # Errors
    /// Where the store cannot write. Nothing of the batch is there then, and the stream cannot go on before it begins anew.
    fn append(
        &mut self,
        batch: &Batch,
        window: &Window,
        new: &Dictionary,
        begins_anew: bool,
    ) -> Result<Appended, StoreError>;

    /// Bytes of memory that the next window takes while it is taken in, beside what it takes itself: what the stream was told before.
    fn held_bytes(&self) -> usize {
        0
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is stored.
    New,
    /// It was stored before.
    Known,
}

/// Which rows: those whose labels fulfil all matchers, of windows that began in the time.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// What labels are to fulfil.
    pub matchers: Vec<Matcher>,
    /// From here, inclusive.
    pub from_unix_ns: u64,
    /// Up to here, exclusive.
    pub until_unix_ns: u64,
    /// For whom. Where it has gone, the store stops soon.
    pub asker: Asker,
}

/// Which samples are added up, and by what they are kept apart.
#[derive(Clone, Debug, Default)]
pub struct SumQuery {
    /// Whose, and when.
    pub selection: Selection,
    /// Of which kind: `wall`.
    pub kind: String,
    /// Of which classes of thread time; empty for all.
    pub classes: Vec<String>,
    /// Labels by which sums are kept apart.
    pub group_by: Vec<String>,
    /// Length of the steps of time by which they are kept apart, nanoseconds; they begin at its multiples since the epoch. `None`: not by
    /// time.
    pub step_ns: Option<u64>,
    /// Whether sums are kept apart by class.
    pub by_class: bool,
    /// Whether sums are kept apart by stack.
    pub by_stack: bool,
    /// Sums at most; more are an error.
    pub max_sums: usize,
}

/// A stack's name in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub u64);

/// Samples, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// The sums, in the order of group, time, class and stack.
    pub sums: Vec<Sum>,
    /// Nanoseconds, or things that are counted; `None` where there are no rows.
    pub unit: Option<chokepoint_analysis::profile::Unit>,
}

/// One sum. What it was not kept apart by is empty or zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sum {
    /// Values of the labels that were asked for, in that order.
    pub group: Vec<String>,
    /// When its step began.
    pub start_unix_ns: u64,
    /// Class of thread time.
    pub class: String,
    /// The stack; `None` where it is not known.
    pub stack: Option<StackId>,
    /// Samples.
    pub count: u64,
    /// What they stand for.
    pub weight: u64,
}

/// Frames of stacks: each function, module and place once, and callers that stacks have in common once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Functions.
    pub functions: Vec<Function>,
    /// Modules.
    pub modules: Vec<Module>,
    /// Places in code.
    pub locations: Vec<FrameLocation>,
    /// Stacks as a tree: callers before what they call.
    pub nodes: Vec<FrameNode>,
    /// For each stack that was asked for, its leaf: a position in `nodes`.
    pub leaves: Vec<usize>,
}

impl Frames {
    /// The places of a stack, leaf first.
    pub fn leaf_first(&self, leaf: usize) -> impl Iterator<Item = usize> {
        let nodes = std::iter::successors(Some(leaf), |node| self.nodes[*node].caller);
        nodes.map(|node| self.nodes[node].location)
    }
}

/// A place in code with those that called it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameNode {
    /// The caller, a position in [`Frames::nodes`]; `None`: it is a thread's outermost frame.
    pub caller: Option<usize>,
    /// The place, a position in [`Frames::locations`].
    pub location: usize,
}

/// A place in code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameLocation {
    /// Its module, a position in [`Frames::modules`].
    pub module: usize,
    /// As in [`chokepoint_analysis::profile::Location`].
    pub address: u64,
    /// Its functions, the innermost inlined one first, positions in [`Frames::functions`], with their lines.
    pub lines: Vec<(usize, u32)>,
}

/// Which signals.
#[derive(Clone, Debug, Default)]
pub struct SignalQuery {
    /// Whose, and when. Signals have the labels of their host, and `instance`.
    pub selection: Selection,
    /// The signal's name; empty for all.
    pub name: String,
    /// Values at most; more are an error.
    pub max_values: usize,
}

/// A signal over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SignalSeries {
    /// Its name.
    pub name: String,
    /// Of which host and which instance.
    pub labels: Labels,
    /// `%`, `1`, `/s`, `B/s`, `ms`.
    pub unit: String,
    /// Its windows, in the order of time.
    pub values: Vec<SignalValue>,
}

/// A signal in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SignalValue {
    /// When the window began.
    pub start_unix_ns: u64,
    /// Of the whole window.
    pub value: f64,
    /// The highest of the window's steps.
    pub max: f64,
    /// 0: none, 1: warning, 2: critical.
    pub level: u8,
}

/// Windows that follow each other in which the same limited a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerdictSpan {
    /// The host's labels.
    pub labels: Labels,
    /// The constraint's code.
    pub code: String,
    /// When the first window began.
    pub from_unix_ns: u64,
    /// When the last ended.
    pub until_unix_ns: u64,
    /// How many windows.
    pub windows: u64,
    /// Of the last window, as all that follows: how sure it is, 0 to 1.
    pub confidence: f64,
    /// 0: nothing is wrong, 1: low, 2: warning, 3: critical.
    pub severity: u8,
    /// The part of the demand that it takes, 0 to 1.
    pub share: f64,
    /// In one sentence.
    pub summary: String,
    /// The diagnosis, JSON.
    pub diagnosis: String,
}

/// What is known of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStatus {
    /// Its identity, 16 bytes in hexadecimal digits.
    pub agent: String,
    /// Who may stream as it: the name that a token or certificate proved first. Empty: nobody has yet.
    pub owner: String,
    /// Its host's labels.
    pub labels: Labels,
    /// Release of the host's kernel.
    pub kernel: String,
    /// The agent's version.
    pub program: String,
    /// When its last window ended; 0 where it has sent none.
    pub last_window_unix_ns: u64,
    /// Batches stored.
    pub batches: u64,
    /// Batches that it has dropped.
    pub dropped_batches: u64,
    /// What is missing of its last window beside samples, each a sentence; some of them where there are very many.
    pub notes: Vec<String>,
    /// What it had given up in its last window to stay within its budget, likewise.
    pub given_up: Vec<String>,
}

/// What the store holds, for those who watch over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Rows that are in no segment yet.
    pub fresh_rows: u64,
    /// Segments.
    pub segments: u64,
    /// Their rows; those of rollups too.
    pub segment_rows: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Rows that were deleted since the store was made, because they were old or too many.
    pub deleted_rows: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Bytes of names in the catalogue, about: of strings, stacks and the like.
    pub name_bytes: u64,
    /// Names that were deleted since the store was made, because nothing referred to them any more.
    pub deleted_names: u64,
    /// Agents that were forgotten since the store was made, because nothing of them was stored any more.
    pub forgotten_agents: u64,
}

impl Holdings {
    /// All of it as Prometheus reads it.
    #[must_use]
    pub fn metrics(&self) -> String {
        let Self { fresh_rows, segments, segment_rows, segment_bytes, .. } = *self;
        let Self { deleted_rows, deleted_bytes, name_bytes, deleted_names, forgotten_agents, .. } = *self;
        let gauges = [
            ("fresh_rows", fresh_rows),
            ("segments", segments),
            ("segment_rows", segment_rows),
            ("segment_bytes", segment_bytes),
            ("name_bytes", name_bytes),
        ];
        let counters = [
            ("deleted_rows_total", deleted_rows),
            ("deleted_bytes_total", deleted_bytes),
            ("deleted_names_total", deleted_names),
            ("forgotten_agents_total", forgotten_agents),
        ];
        let metric = |kind: &'static str| {
            move |(name, value)| {
                let name = format!("chokepoint_collector_store_{name}");
                format!("# TYPE {name} {kind}\n{name} {value}\n")
            }
        };
        gauges.into_iter().map(metric("gauge")).chain(counters.into_iter().map(metric("counter"))).collect()
    }
}

/// The store cannot.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The answer would be too large.
    #[error("more than {limit} {what}: ask for less time, fewer labels, or by fewer things")]
    TooLarge {
        /// What there are too many of.
        what: &'static str,
        /// How many would be accepted.
        limit: usize,
    },
    /// Who asked has gone.
    #[error("nobody waits for the answer any more")]
    NobodyAsks,
    /// The agent is another one's. Whose is not told.
    #[error(
        "the agent belongs to another token or certificate: give it that one, or have the collector's operator disown it"
    )]
    NotOwned,
    /// There are as many agents as may be known.
    #[error(
        "as many agents are known as may be: those of which nothing is stored any more are forgotten in time"
    )]
    TooManyAgents,
    /// There is no such stack.
    #[error("there is no stack {0}")]
    NoStack(u64),
    /// The disk, or what is on it.
    #[error("{what}: {source}")]
    Failed {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The kind of a module as agents tell it. One that only a newer agent knows is an unknown one.
pub(crate) fn module_kind(kind: i32) -> ModuleKind {
    match stream::ModuleKind::try_from(kind).unwrap_or_default() {
        stream::ModuleKind::Unknown => ModuleKind::Unknown,
        stream::ModuleKind::Binary => ModuleKind::Binary,
        stream::ModuleKind::Kernel => ModuleKind::Kernel,
        stream::ModuleKind::Vdso => ModuleKind::Vdso,
        stream::ModuleKind::Jit => ModuleKind::Jit,
        stream::ModuleKind::Activity => ModuleKind::Activity,
    }
}

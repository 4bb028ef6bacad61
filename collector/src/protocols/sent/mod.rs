//! Profiles that other programs send, as windows: whatever the protocol, each thing once, and sums by whose and where.

mod labels;
mod pprof;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use chokepoint_proto::stream::{
    Dictionary, Function, Line, Location, Module, ModuleKind, Profile, Subject, Unit, Window,
};

pub(super) use self::labels::{Described, attribute_of, hex};
pub(super) use self::pprof::{Kinds, add as add_pprof, decode as decode_pprof};
use crate::query::profile_type::{WALL, is_of_time};

/// The shortest window: where nobody says how long it took.
const USUAL_LENGTH_NS: u64 = 10_000_000_000;

/// A stack's leaf as windows have it: its number plus one; 0: none.
pub(super) type NodePlusOne = u32;

/// What a sample's value is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Time of threads of this class.
    Time(&'static str),
    /// Something else, by its name.
    Other { name: String, is_time: bool },
}

impl Kind {
    /// What is not time of threads, by a name that no question has for something else.
    pub(super) fn other(name: &str, is_time: bool) -> Self {
        let mut name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '_' })
            .take(64)
            .collect();
        if name.is_empty() {
            name = "unnamed".to_owned();
        }
        if is_of_time(&name) {
            name = format!("sent_{name}");
        }
        Self::Other { name, is_time }
    }
}

/// Functions with their lines.
type Lines = Vec<(u32, u32)>;

/// By subject and stack: samples, and what they stand for.
type Rows = BTreeMap<(u32, NodePlusOne), (u64, u64)>;

/// A window in the making.
#[derive(Default)]
pub(super) struct Sent {
    strings: Numbers<String>,
    functions: Numbers<(u32, u32)>,
    modules: Numbers<(i32, u32, Vec<u8>)>,
    locations: Numbers<(u32, u64, Lines)>,
    nodes: Numbers<(NodePlusOne, u32)>,
    subjects: Numbers<(u32, u32, Vec<u32>)>,
    sums: BTreeMap<Kind, Rows>,
}

/// Things in the order of their numbers.
pub(super) struct Numbers<T> {
    entries: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T> Numbers<T> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of them.
    pub(super) fn entries(self) -> impl Iterator<Item = T> {
        self.entries.into_iter()
    }
}

impl Numbers<String> {
    /// The number of a text that is known.
    pub(super) fn known(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }
}

impl<T: Clone + Eq + Hash> Numbers<T> {
    /// The number of a thing, which is added where it has none yet.
    pub(super) fn number(&mut self, thing: T) -> u32 {
        // A request has fewer bytes than there are numbers.
        let next = self.entries.len() as u32;
        *self.numbers.entry(thing).or_insert_with_key(|thing| {
            self.entries.push(thing.clone());
            next
        })
    }
}

impl Sent {
    pub(super) fn string(&mut self, text: &str) -> u32 {
        match self.strings.known(text) {
            Some(number) => number,
            None => self.strings.number(text.to_owned()),
        }
    }

    pub(super) fn function(&mut self, name: &str, file: &str) -> u32 {
        let names = (self.string(name), self.string(file));
        self.functions.number(names)
    }

    pub(super) fn module(&mut self, kind: ModuleKind, path: &str, build_id: Vec<u8>) -> u32 {
        let path = self.string(path);
        self.modules.number((kind.into(), path, build_id))
    }

    /// A place in code; `lines` are functions and their lines, the innermost inlined one first.
    pub(super) fn location(&mut self, module: u32, address: u64, lines: Lines) -> u32 {
        self.locations.number((module, address, lines))
    }

    /// The leaf of a stack.
    pub(super) fn stack(&mut self, leaf_first: &[u32]) -> NodePlusOne {
        leaf_first.iter().rev().fold(0, |caller, location| self.nodes.number((caller, *location)) + 1)
    }

    /// Whose samples are.
    pub(super) fn subject(&mut self, of: &Described) -> u32 {
        let labels = of.labels.iter().flat_map(|(name, value)| [name, value]);
        let labels = labels.map(|text| self.string(text)).collect();
        let names = (self.string(&of.process), self.string(&of.thread), labels);
        self.subjects.number(names)
    }

    /// Adds samples.
    pub(super) fn add(&mut self, kind: Kind, subject: u32, stack: NodePlusOne, count: u64, weight: u64) {
        let sum = self.sums.entry(kind).or_default().entry((subject, stack)).or_default();
        *sum = (sum.0.saturating_add(count), sum.1.saturating_add(weight));
    }

    /// Whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// The whole window. Without a length it has the usual one.
    pub(super) fn window(mut self, start_unix_ns: u64, duration_ns: u64) -> Window {
        let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
        for (kind, sums) in std::mem::take(&mut self.sums) {
            let (name, class, is_time) = match kind {
                Kind::Time(class) => (WALL.to_owned(), Some(self.string(class)), true),
                Kind::Other { name, is_time } => (name, None, is_time),
            };
            let unit = if is_time { Unit::Nanoseconds } else { Unit::Count };
            let profile = profiles.entry(name.clone()).or_insert_with(|| Profile {
                kind: name,
                unit: unit.into(),
                ..Profile::default()
            });
            for ((subject, stack), (count, weight)) in sums {
                profile.subject.push(subject);
                profile.stack.push(stack);
                profile.class.extend(class);
                profile.count.push(count);
                profile.weight.push(weight);
            }
        }
        Window {
            start_unix_ns,
            duration_ns: if duration_ns == 0 { USUAL_LENGTH_NS } else { duration_ns },
            dictionary: Some(self.dictionary()),
            profiles: profiles.into_values().collect(),
            ..Window::default()
        }
    }

    fn dictionary(self) -> Dictionary {
        let (stack_parent, stack_location) = self.nodes.entries.into_iter().unzip();
        let line = |(function, line)| Line { function, line };
        Dictionary {
            reset: true,
            strings: self.strings.entries,
            functions: self
                .functions
                .entries
                .into_iter()
                .map(|(name, file)| Function { name, file })
                .collect(),
            modules: (self.modules.entries.into_iter())
                .map(|(kind, path, build_id)| Module { kind, path, build_id })
                .collect(),
            locations: (self.locations.entries.into_iter())
                .map(|(module, address, lines)| Location {
                    module,
                    address,
                    lines: lines.into_iter().map(line).collect(),
                    is_spin_wait: false,
                })
                .collect(),
            stack_parent,
            stack_location,
            subjects: (self.subjects.entries.into_iter())
                .map(|(process, thread, labels)| Subject { process, thread, labels })
                .collect(),
        }
    }
}

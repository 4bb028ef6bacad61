//! Merged flame graphs: the stacks of many hosts in one tree, as columns of numbers and a dictionary of names, so that a page draws two
//! hundred thousand nodes without an object for each.

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::frames::{Frame, Frames, Origin};
use chokepoint_analysis::names;
use chokepoint_analysis::profile::Profile;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::limits::Limits;
use super::merged::{Merged, label_name};
use super::question::{Question, Subject};
use super::tree::Tree;
use crate::store::{Store, Sum, Sums};

/// Where the class of time stands in a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassFrames {
    /// Nowhere.
    None,
    /// As the innermost frame: what ended each path.
    Leaf,
    /// As the outermost frame: one tree for each class.
    Root,
}

/// What a frame is. Its position in [`FrameKind::ALL`] is its number in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameKind {
    /// The frame that all others are in.
    Root,
    /// A label's value.
    Label,
    /// A class of thread time.
    Class,
    /// What a thread was doing, beside its class.
    Activity,
    /// Code of a program or library.
    User,
    /// Code of the kernel.
    Kernel,
    /// Code that a runtime compiled.
    Jit,
    /// A runtime that interprets.
    Interpreter,
    /// An address that has no name.
    NoSymbol,
    /// Lighter frames than there is room for, together.
    Merged,
}

impl FrameKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Root,
        Self::Label,
        Self::Class,
        Self::Activity,
        Self::User,
        Self::Kernel,
        Self::Jit,
        Self::Interpreter,
        Self::NoSymbol,
        Self::Merged,
    ];

    /// The name that answers have.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Label => "label",
            Self::Class => "class",
            Self::Activity => "activity",
            Self::User => "user",
            Self::Kernel => "kernel",
            Self::Jit => "jit",
            Self::Interpreter => "interpreter",
            Self::NoSymbol => "no-symbol",
            Self::Merged => "merged",
        }
    }

    fn of(frame: &Frame) -> Self {
        match frame.origin {
            Origin::Activity if Class::from_frame(&frame.name).is_some() => Self::Class,
            Origin::Activity => Self::Activity,
            _ if !frame.symbolized => Self::NoSymbol,
            Origin::User => Self::User,
            Origin::Kernel => Self::Kernel,
            Origin::Jit => Self::Jit,
            Origin::Interpreter => Self::Interpreter,
        }
    }
}

/// A flame graph, or two of which one is compared with the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlameGraph {
    /// Of what.
    #[serde(flatten)]
    pub subject: Subject,
    /// Every text, once.
    pub strings: Vec<String>,
    /// Names of the kinds of frames.
    pub kinds: Vec<String>,
    /// Frames, in columns.
    pub frames: FrameColumns,
    /// Nodes, in columns: callers before what they call, what has one caller by name.
    pub nodes: NodeColumns,
    /// What was measured: one side, or first the one that is compared with, and then the one that is.
    pub sides: Vec<Side>,
    /// How many nodes were merged into others because they were too many.
    pub merged_nodes: u64,
}

/// Frames: what nodes are of. Numbers are positions in `strings` and `kinds`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameColumns {
    /// Function, or what stands for one.
    pub name: Vec<u32>,
    /// Source file; the empty string where it is not known.
    pub file: Vec<u32>,
    /// The file or memory that holds the code; the empty string where there is none.
    pub module: Vec<u32>,
    /// What it is.
    pub kind: Vec<u8>,
}

/// Nodes of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeColumns {
    /// The caller, a position in these columns. The root, which is the first, has itself.
    pub parent: Vec<u32>,
    /// A position in `frames`.
    pub frame: Vec<u32>,
}

/// One measurement of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Samples.
    pub samples: u64,
    /// Weight of all.
    pub weight: u64,
    /// Weight of each node without what it called.
    #[serde(rename = "self")]
    pub own: Vec<u64>,
    /// Weight of each node with what it called.
    pub total: Vec<u64>,
}

/// The flame graph that a question asks for.
///
/// # Errors
/// The question makes no sense, or the store cannot.
pub fn flame(
    store: &dyn Store,
    question: &Question,
    class_frames: Option<ClassFrames>,
    max_nodes: usize,
    limits: &Limits,
) -> Result<FlameGraph, QueryError> {
    let asked = question.profile_type()?;
    let class_frames =
        class_frames.unwrap_or(if asked.is_told_by_class() { ClassFrames::Leaf } else { ClassFrames::None });
    let sums = question.sums_by_stack(store, &asked, class_frames != ClassFrames::None, limits)?;
    let merged = Merged::of_frames(store, &[&sums], question, &asked)?;
    let subject = Subject::new(question, &asked, sums.unit, question.range);
    Ok(graph(subject, &merged, &[&sums], &question.by, class_frames, max_nodes.min(limits.max_nodes)))
}

/// The flame graph of a recording, with its processes as the outermost frames.
#[must_use]
pub(super) fn of_recording(subject: Subject, profile: &Profile, max_nodes: usize) -> FlameGraph {
    let frames = Frames::new(profile);
    let mut dictionary = FrameDictionary::new(profile, &frames);
    let mut tree = Tree::new(dictionary.root);
    for sample in &profile.samples {
        let process = dictionary.label("process", &profile.thread(sample.thread).process_name);
        let mut node = tree.callee(0, process);
        let walked: Vec<usize> = frames.root_first(profile.stack(sample.stack)).collect();
        if let Some((leaf, callers)) = walked.split_last() {
            for frame in callers {
                node = tree.callee(node, dictionary.of_profile(*frame));
            }
            // What ended a stack is seen however deep it is.
            node = tree.last(node, dictionary.of_profile(*leaf));
        }
        tree.add(0, node, sample.weight);
    }
    drawn(subject, tree, dictionary, &[profile.total_count()], max_nodes)
}

/// The tree of one or two answers of the store.
pub(super) fn graph(
    subject: Subject,
    merged: &Merged,
    sides: &[&Sums],
    by: &[String],
    class_frames: ClassFrames,
    max_nodes: usize,
) -> FlameGraph {
    let frames = Frames::new(&merged.profile);
    let mut dictionary = FrameDictionary::new(&merged.profile, &frames);
    let mut tree = Tree::new(dictionary.root);
    let mut grafts = Grafts { merged, frames: &frames, positions: HashMap::new() };
    for (side, sums) in sides.iter().enumerate() {
        // Sums are in the order of group and class, so that what stands above stacks is the same for many.
        let same = |one: &Sum, other: &Sum| one.group == other.group && one.class == other.class;
        for sums in sums.sums.chunk_by(same) {
            let class = (class_frames != ClassFrames::None).then(|| dictionary.class(&sums[0].class));
            let mut top = 0;
            if let (Some(class), ClassFrames::Root) = (class, class_frames) {
                top = tree.callee(top, class);
            }
            for (name, value) in by.iter().zip(&sums[0].group) {
                top = tree.callee(top, dictionary.label(name, value));
            }
            for sum in sums {
                let leaf = sum.stack.and_then(|stack| merged.leaf(stack));
                let mut node = match leaf {
                    Some(leaf) => grafts.node(&mut tree, &dictionary, top, leaf),
                    None if class_frames == ClassFrames::Leaf => top,
                    None => tree.callee(top, dictionary.of_profile(frames.no_stack())),
                };
                if let (Some(class), ClassFrames::Leaf) = (class, class_frames)
                    && tree.frame(node) != class
                {
                    node = tree.last(node, class);
                }
                tree.add(side, node, sum.weight);
            }
        }
    }
    let samples: Vec<u64> = sides
        .iter()
        .map(|sums| sums.sums.iter().fold(0, |all: u64, sum| all.saturating_add(sum.count)))
        .collect();
    drawn(subject, tree, dictionary, &samples, max_nodes)
}

/// A tree as it is answered; `samples` are those of each side.
fn drawn(
    subject: Subject,
    mut tree: Tree,
    dictionary: FrameDictionary,
    samples: &[u64],
    max_nodes: usize,
) -> FlameGraph {
    tree.add_up();
    let merged_frame = dictionary.merged;
    let merged_nodes = tree.merge_lightest(max_nodes, merged_frame);
    let ranks = dictionary.ranks();
    let nodes = tree.in_order(|frame| ranks[frame as usize]);
    let columns = |value: fn(&super::tree::Node, usize) -> u64, side| {
        nodes.iter().map(|node| value(node, side)).collect()
    };
    let sides = samples
        .iter()
        .enumerate()
        .map(|(side, samples)| Side {
            samples: *samples,
            weight: nodes[0].total[side],
            own: columns(|node, side| node.own[side], side),
            total: columns(|node, side| node.total[side], side),
        })
        .collect();
    let parent = nodes.iter().map(|node| node.parent).collect();
    let (strings, frame_columns, frame) = dictionary.columns(nodes.iter().map(|node| node.frame));
    FlameGraph {
        subject,
        strings,
        kinds: FrameKind::ALL.map(|kind| kind.name().to_owned()).to_vec(),
        frames: frame_columns,
        nodes: NodeColumns { parent, frame },
        sides,
        merged_nodes,
    }
}

/// Stacks as they were put into the tree, below each top: most have their callers in common.
struct Grafts<'a> {
    merged: &'a Merged,
    frames: &'a Frames,
    /// By top and node of the store.
    positions: HashMap<(u32, usize), u32>,
}

impl Grafts<'_> {
    /// The tree's node of a stack below a top.
    fn node(&mut self, tree: &mut Tree, dictionary: &FrameDictionary, top: u32, leaf: usize) -> u32 {
        let mut at = top;
        let mut new = Vec::new();
        let mut next = Some(leaf);
        while let Some(node) = next {
            if let Some(position) = self.positions.get(&(top, node)) {
                at = *position;
                break;
            }
            let (caller, location) = self.merged.node(node);
            new.push((node, location));
            next = caller;
        }
        for (node, location) in new.into_iter().rev() {
            for frame in self.frames.at(location) {
                at = tree.callee(at, dictionary.of_profile(*frame));
            }
            self.positions.insert((top, node), at);
        }
        at
    }
}

/// A frame of an answer. Frames are in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Entry {
    name: String,
    file: String,
    module: String,
    kind: FrameKind,
}

/// Every frame of an answer, once.
struct FrameDictionary {
    entries: Vec<Entry>,
    positions: HashMap<Entry, u32>,
    /// Of each frame of the profile.
    of_profile: Vec<u32>,
    /// Of labels and classes that were met.
    labels: HashMap<(String, String), u32>,
    classes: HashMap<String, u32>,
    root: u32,
    merged: u32,
}

impl FrameDictionary {
    fn new(profile: &Profile, frames: &Frames) -> Self {
        let mut dictionary = Self {
            entries: Vec::new(),
            positions: HashMap::new(),
            of_profile: Vec::new(),
            labels: HashMap::new(),
            classes: HashMap::new(),
            root: 0,
            merged: 0,
        };
        dictionary.root = dictionary.without_code("all", FrameKind::Root);
        dictionary.merged = dictionary.without_code("[lighter frames]", FrameKind::Merged);
        for frame in frames.entries() {
            let kind = FrameKind::of(frame);
            let position = match kind {
                FrameKind::Class | FrameKind::Activity => dictionary.without_code(&frame.name, kind),
                _ => {
                    let module = frame.module.map_or("", |module| profile.module(module).path.as_str());
                    dictionary.position(Entry {
                        name: frame.name.clone(),
                        file: frame.file.clone(),
                        module: names::printable(module),
                        kind,
                    })
                }
            };
            dictionary.of_profile.push(position);
        }
        dictionary
    }

    fn of_profile(&self, frame: usize) -> u32 {
        self.of_profile[frame]
    }

    fn class(&mut self, class: &str) -> u32 {
        if let Some(position) = self.classes.get(class) {
            return *position;
        }
        let shown = if class.is_empty() { "no class" } else { class };
        let position = self.without_code(&format!("[{}]", names::printable(shown)), FrameKind::Class);
        self.classes.insert(class.to_owned(), position);
        position
    }

    fn label(&mut self, name: &str, value: &str) -> u32 {
        let key = (name.to_owned(), value.to_owned());
        if let Some(position) = self.labels.get(&key) {
            return *position;
        }
        let position = self.without_code(&names::printable(&label_name(name, value)), FrameKind::Label);
        self.labels.insert(key, position);
        position
    }

    fn without_code(&mut self, name: &str, kind: FrameKind) -> u32 {
        self.position(Entry { name: name.to_owned(), file: String::new(), module: String::new(), kind })
    }

    fn position(&mut self, entry: Entry) -> u32 {
        if let Some(position) = self.positions.get(&entry) {
            return *position;
        }
        let position = u32::try_from(self.entries.len()).expect("fewer frames than addresses");
        self.entries.push(entry.clone());
        self.positions.insert(entry, position);
        position
    }

    /// The place of each frame in the order of all.
    fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_unstable_by_key(|frame| &self.entries[*frame]);
        let mut ranks = vec![0; order.len()];
        for (rank, frame) in (0..).zip(order) {
            ranks[frame] = rank;
        }
        ranks
    }

    /// The strings and frames that these nodes refer to, and what they refer to now.
    fn columns(self, nodes: impl Iterator<Item = u32>) -> (Vec<String>, FrameColumns, Vec<u32>) {
        let mut strings = Strings::default();
        let mut columns = FrameColumns::default();
        let mut moved: Vec<Option<u32>> = vec![None; self.entries.len()];
        let frames = nodes
            .map(|frame| {
                *moved[frame as usize].get_or_insert_with(|| {
                    let entry = &self.entries[frame as usize];
                    columns.name.push(strings.position(&entry.name));
                    columns.file.push(strings.position(&entry.file));
                    columns.module.push(strings.position(&entry.module));
                    // In `ALL` they are in the order of their declaration.
                    columns.kind.push(entry.kind as u8);
                    u32::try_from(columns.name.len() - 1).expect("no more frames than before")
                })
            })
            .collect();
        (strings.entries, columns, frames)
    }
}

#[derive(Default)]
struct Strings {
    entries: Vec<String>,
    positions: HashMap<String, u32>,
}

impl Strings {
    fn position(&mut self, string: &str) -> u32 {
        if let Some(position) = self.positions.get(string) {
            return *position;
        }
        let position = u32::try_from(self.entries.len()).expect("fewer strings than frames have");
        self.entries.push(string.to_owned());
        self.positions.insert(string.to_owned(), position);
        position
    }
}

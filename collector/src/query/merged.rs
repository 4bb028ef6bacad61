//! Sums and the frames of their stacks, put together to a profile as the rest of the project knows it.

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::coverage::Coverage;
use chokepoint_analysis::profile::{
    Basis, Builder, Function, Header, Line, Location, LocationId, Module, ModuleKind, Profile, Sample,
    StackId, Thread, ThreadId, Unit,
};
use hashbrown::HashMap;

use super::QueryError;
use super::profile_type::ProfileType;
use super::question::Question;
use crate::store::{self, Store, Sum, Sums};

/// One or several answers of the store, with one dictionary.
#[derive(Debug)]
pub(super) struct Merged {
    /// Dictionaries, and the samples of all answers where they were asked for.
    pub(super) profile: Profile,
    /// What the store says of the stacks.
    frames: store::Frames,
    /// The leaf of each stack, a position in the frames' nodes.
    leaves: HashMap<store::StackId, usize>,
    /// Where each of the frames' locations is in the profile.
    locations: Vec<LocationId>,
    /// Of each answer, for each sum, which sample it is part of.
    sides: Vec<Vec<(ThreadId, StackId)>>,
}

impl Merged {
    /// What the stacks of these answers are made of, without samples: for who walks the tree of stacks itself.
    pub(super) fn of_frames(
        store: &dyn Store,
        sides: &[&Sums],
        question: &Question,
        asked: &ProfileType,
    ) -> Result<Self, QueryError> {
        Ok(Parts::new(store, sides)?.finish(sides, question, asked))
    }

    /// The same as samples. With `class_leaf`, the class of a sum's time is the innermost frame of its stack.
    pub(super) fn new(
        store: &dyn Store,
        sides: &[&Sums],
        question: &Question,
        asked: &ProfileType,
        class_leaf: bool,
    ) -> Result<Self, QueryError> {
        let mut parts = Parts::new(store, sides)?;
        let mut known: HashMap<(Option<store::StackId>, &str), StackId> = HashMap::new();
        let mut of_sides = Vec::new();
        for sums in sides {
            let mut of_sums = Vec::with_capacity(sums.sums.len());
            for sum in &sums.sums {
                let class = if class_leaf { sum.class.as_str() } else { "" };
                let stack = *known.entry((sum.stack, class)).or_insert_with(|| parts.stack(sum.stack, class));
                let thread = parts.builder.thread(thread(&question.by, sum));
                parts.builder.add(Sample { thread, stack, count: sum.count, weight: sum.weight });
                of_sums.push((thread, stack));
            }
            of_sides.push(of_sums);
        }
        let mut merged = parts.finish(sides, question, asked);
        merged.sides = of_sides;
        let captured = merged.profile.total_count();
        merged.profile.coverage = Coverage { attempted: captured, captured, ..Coverage::default() };
        Ok(merged)
    }

    /// The leaf of a stack, a node.
    pub(super) fn leaf(&self, stack: store::StackId) -> Option<usize> {
        self.leaves.get(&stack).copied()
    }

    /// Who called a node, and its place in the profile.
    pub(super) fn node(&self, node: usize) -> (Option<usize>, LocationId) {
        let node = self.frames.nodes[node];
        (node.caller, self.locations[node.location])
    }

    /// The samples of one answer alone.
    pub(super) fn samples(&self, side: usize, sums: &Sums) -> Vec<Sample> {
        let of_sums = self.sides[side].iter().zip(&sums.sums);
        of_sums
            .map(|((thread, stack), sum)| Sample {
                thread: *thread,
                stack: *stack,
                count: sum.count,
                weight: sum.weight,
            })
            .collect()
    }
}

/// What a group is called, where a profile has threads: the process alone by its name, as everywhere.
fn thread(by: &[String], sum: &Sum) -> Thread {
    let process_name = match by {
        [] => "all".to_owned(),
        [name] if name == "process" => sum.group.first().cloned().unwrap_or_default(),
        _ => by
            .iter()
            .zip(&sum.group)
            .map(|(name, value)| label_name(name, value))
            .collect::<Vec<_>>()
            .join(", "),
    };
    Thread { pid: 0, tid: 0, thread_name: process_name.clone(), process_name }
}

/// A label as the name of a frame.
pub(super) fn label_name(name: &str, value: &str) -> String {
    match (name, value) {
        (_, "") => format!("no {name}"),
        ("process", _) => value.to_owned(),
        _ => format!("{name}={value}"),
    }
}

fn header(question: &Question, asked: &ProfileType, unit: Unit) -> Header {
    Header {
        title: asked.title.clone(),
        kind: asked.name.clone(),
        unit,
        basis: Basis::Weight,
        period: 1,
        start_unix_ns: question.range.from_unix_ns,
        duration_ns: question.range.until_unix_ns - question.range.from_unix_ns,
        host: "fleet".to_owned(),
        target: question.text.clone(),
        cpus: 0,
        kernel: String::new(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The store's frames, and the dictionaries of a profile to be.
struct Parts {
    builder: Builder,
    frames: store::Frames,
    leaves: HashMap<store::StackId, usize>,
    locations: Vec<LocationId>,
}

impl Parts {
    /// Asks the store for the frames of these answers.
    fn new(store: &dyn Store, sides: &[&Sums]) -> Result<Self, QueryError> {
        let mut wanted: Vec<store::StackId> =
            sides.iter().flat_map(|sums| &sums.sums).filter_map(|sum| sum.stack).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let frames = store.frames(&wanted)?;
        let leaves = wanted.into_iter().zip(frames.leaves.iter().copied()).collect();

        let mut builder = Builder::new();
        let functions: Vec<_> =
            frames.functions.iter().map(|function| builder.function(function.clone())).collect();
        let modules: Vec<_> = frames.modules.iter().map(|module| builder.module(module.clone())).collect();
        let location = |location: &store::FrameLocation| {
            let line = |(function, line): &(usize, u32)| Line { function: functions[*function], line: *line };
            builder.location(Location {
                module: modules[location.module],
                address: location.address,
                lines: location.lines.iter().map(line).collect(),
                is_spin_wait: false,
            })
        };
        let locations = frames.locations.iter().map(location).collect();
        Ok(Self { builder, frames, leaves, locations })
    }

    fn stack(&mut self, stack: Option<store::StackId>, class: &str) -> StackId {
        let leaf = stack.and_then(|stack| self.leaves.get(&stack)).copied();
        let mut stack: Vec<LocationId> = Vec::new();
        if let Some(class) = Class::from_name(class)
            && !leaf.is_some_and(|leaf| self.is_class(leaf, class))
        {
            stack.push(class_location(class, &mut self.builder));
        }
        if let Some(leaf) = leaf {
            stack.extend(self.frames.leaf_first(leaf).map(|location| self.locations[location]));
        }
        self.builder.stack(stack)
    }

    /// Whether a node already says the class.
    fn is_class(&self, node: usize, class: Class) -> bool {
        let location = &self.frames.locations[self.frames.nodes[node].location];
        self.frames.modules[location.module].kind == ModuleKind::Activity
            && location.lines.first().is_some_and(|(function, _)| {
                Class::from_frame(&self.frames.functions[*function].name) == Some(class)
            })
    }

    fn finish(self, sides: &[&Sums], question: &Question, asked: &ProfileType) -> Merged {
        let Self { builder, frames, leaves, locations } = self;
        let unit = sides.iter().find_map(|sums| sums.unit).unwrap_or(Unit::Nanoseconds);
        let profile = builder.finish(header(question, asked, unit), Coverage::default());
        Merged { profile, frames, leaves, locations, sides: Vec::new() }
    }
}

fn class_location(class: Class, builder: &mut Builder) -> LocationId {
    let function = builder.function(Function { name: class.frame(), file: String::new() });
    let module = builder.module(Module {
        kind: ModuleKind::Activity,
        path: "[activity]".to_owned(),
        build_id: Vec::new(),
    });
    builder.location(Location {
        module,
        address: 0,
        lines: vec![Line { function, line: 0 }],
        is_spin_wait: false,
    })
}

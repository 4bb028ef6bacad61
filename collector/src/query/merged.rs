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
    /// Dictionaries, and the samples of all answers.
    pub(super) profile: Profile,
    /// Of each answer, for each sum, which sample it is part of.
    sides: Vec<Vec<(ThreadId, StackId)>>,
}

impl Merged {
    /// Asks the store for the frames. With `class_leaf`, the class of a sum's time is the innermost frame of its stack.
    pub(super) fn new(
        store: &dyn Store,
        sides: &[&Sums],
        question: &Question,
        asked: &ProfileType,
        class_leaf: bool,
    ) -> Result<Self, QueryError> {
        let mut wanted: Vec<store::StackId> =
            sides.iter().flat_map(|sums| &sums.sums).filter_map(|sum| sum.stack).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let frames = store.frames(&wanted)?;

        let mut builder = Builder::new();
        let mut dictionary = Dictionary::new(&frames, &mut builder);
        let stacks: HashMap<store::StackId, &Vec<store::FrameLocation>> =
            wanted.into_iter().zip(&frames.stacks).collect();
        let mut known: HashMap<(Option<store::StackId>, &str), StackId> = HashMap::new();
        let mut of_sides = Vec::new();
        for sums in sides {
            let mut of_sums = Vec::with_capacity(sums.sums.len());
            for sum in &sums.sums {
                let class = if class_leaf { sum.class.as_str() } else { "" };
                let stack = *known.entry((sum.stack, class)).or_insert_with(|| {
                    let locations = sum.stack.and_then(|stack| stacks.get(&stack)).copied();
                    dictionary.stack(locations.map_or(&[], Vec::as_slice), class, &mut builder)
                });
                let thread = builder.thread(thread(&question.by, sum));
                builder.add(Sample { thread, stack, count: sum.count, weight: sum.weight });
                of_sums.push((thread, stack));
            }
            of_sides.push(of_sums);
        }
        let unit = sides.iter().find_map(|sums| sums.unit).unwrap_or(Unit::Nanoseconds);
        let profile = builder.finish(header(question, asked, unit), Coverage::default());
        let mut merged = Self { profile, sides: of_sides };
        let captured = merged.profile.total_count();
        merged.profile.coverage = Coverage { attempted: captured, captured, ..Coverage::default() };
        Ok(merged)
    }

    /// The stack of each sum of an answer.
    pub(super) fn stacks(&self, side: usize) -> impl Iterator<Item = StackId> {
        self.sides[side].iter().map(|(_, stack)| *stack)
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

/// The store's frames in the profile's dictionaries.
struct Dictionary<'f> {
    frames: &'f store::Frames,
    functions: Vec<chokepoint_analysis::profile::FunctionId>,
    modules: Vec<chokepoint_analysis::profile::ModuleId>,
    /// By module and address, which are nearly always the same place: stacks have millions of frames and few places.
    known: HashMap<(usize, u64), Vec<(&'f store::FrameLocation, LocationId)>>,
}

impl<'f> Dictionary<'f> {
    fn new(frames: &'f store::Frames, builder: &mut Builder) -> Self {
        Self {
            frames,
            functions: frames.functions.iter().map(|function| builder.function(function.clone())).collect(),
            modules: frames.modules.iter().map(|module| builder.module(module.clone())).collect(),
            known: HashMap::new(),
        }
    }

    fn stack(
        &mut self,
        locations: &'f [store::FrameLocation],
        class: &str,
        builder: &mut Builder,
    ) -> StackId {
        let mut stack: Vec<LocationId> = Vec::with_capacity(locations.len() + 1);
        if let Some(class) = Class::from_name(class)
            && !locations.first().is_some_and(|leaf| self.is_class(leaf, class))
        {
            stack.push(class_location(class, builder));
        }
        stack.extend(locations.iter().map(|location| self.location(location, builder)));
        builder.stack(stack)
    }

    fn location(&mut self, location: &'f store::FrameLocation, builder: &mut Builder) -> LocationId {
        let known = self.known.entry((location.module, location.address)).or_default();
        if let Some((_, id)) = known.iter().find(|(known, _)| *known == location) {
            return *id;
        }
        let line =
            |(function, line): &(usize, u32)| Line { function: self.functions[*function], line: *line };
        let id = builder.location(Location {
            module: self.modules[location.module],
            address: location.address,
            lines: location.lines.iter().map(line).collect(),
            is_spin_wait: false,
        });
        known.push((location, id));
        id
    }

    /// Whether a frame already says the class.
    fn is_class(&self, location: &store::FrameLocation, class: Class) -> bool {
        self.frames.modules[location.module].kind == ModuleKind::Activity
            && location.lines.first().is_some_and(|(function, _)| {
                Class::from_frame(&self.frames.functions[*function].name) == Some(class)
            })
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

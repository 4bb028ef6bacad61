//! The dictionary of one window: each thing once.

use std::collections::HashMap;
use std::hash::Hash;

use chokepoint_analysis::profile::{LocationId, ModuleKind as Kind, Profile};
use chokepoint_proto::stream::{Dictionary, Function, Line, Location, Module, ModuleKind, Subject};

/// A node's number plus one, or 0 for none: as the messages have it.
pub(super) type NodePlusOne = u32;

/// A dictionary in the making.
#[derive(Default)]
pub(super) struct Entries {
    strings: Numbers<String>,
    functions: Numbers<(u32, u32)>,
    modules: Numbers<(i32, u32, Vec<u8>)>,
    locations: Numbers<Place>,
    /// Of one profile's modules and locations, what they are here.
    module_numbers: HashMap<usize, u32>,
    location_numbers: HashMap<LocationId, u32>,
    nodes: Numbers<(NodePlusOne, u32)>,
    subjects: Vec<Subject>,
}

/// A location: its module, address, functions with their lines, and whether it is in a loop that waits.
type Place = (u32, u64, Vec<(u32, u32)>, bool);

/// Things in the order of their numbers.
struct Numbers<T> {
    entries: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Numbers<T> {
    fn number(&mut self, thing: T) -> u32 {
        let next = self.entries.len() as u32;
        *self.numbers.entry(thing).or_insert_with_key(|thing| {
            self.entries.push(thing.clone());
            next
        })
    }
}

impl Entries {
    pub(super) fn string(&mut self, text: &str) -> u32 {
        match self.strings.numbers.get(text) {
            Some(number) => *number,
            None => self.strings.number(text.to_owned()),
        }
    }

    /// Adds a subject, which is not there yet.
    pub(super) fn subject<'t>(
        &mut self,
        process: &str,
        thread: &str,
        labels: impl Iterator<Item = (&'t str, &'t str)>,
    ) -> u32 {
        let labels = labels.flat_map(|(name, value)| [name, value]).map(|text| self.string(text)).collect();
        let subject = Subject { process: self.string(process), thread: self.string(thread), labels };
        self.subjects.push(subject);
        self.subjects.len() as u32 - 1
    }

    /// Stacks are of another profile from now on, whose locations have other numbers.
    pub(super) fn begin_profile(&mut self) {
        self.module_numbers.clear();
        self.location_numbers.clear();
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.entries.len()
    }

    /// The node of a stack's leaf.
    pub(super) fn stack(&mut self, profile: &Profile, leaf_first: &[LocationId]) -> NodePlusOne {
        leaf_first.iter().rev().fold(0, |caller, id| {
            let location = self.location(profile, *id);
            self.nodes.number((caller, location)) + 1
        })
    }

    fn location(&mut self, profile: &Profile, id: LocationId) -> u32 {
        if let Some(number) = self.location_numbers.get(&id) {
            return *number;
        }
        let location = profile.location(id);
        let module = self.module(profile, location.module.index());
        let lines = location
            .lines
            .iter()
            .map(|line| {
                let function = profile.function(line.function);
                let names = (self.string(&function.name), self.string(&function.file));
                (self.functions.number(names), line.line)
            })
            .collect();
        let (address, is_spin_wait) = (location.address, location.is_spin_wait);
        let number = self.locations.number((module, address, lines, is_spin_wait));
        self.location_numbers.insert(id, number);
        number
    }

    fn module(&mut self, profile: &Profile, index: usize) -> u32 {
        if let Some(number) = self.module_numbers.get(&index) {
            return *number;
        }
        let module = &profile.modules[index];
        let kind = match module.kind {
            Kind::Unknown => ModuleKind::Unknown,
            Kind::Binary => ModuleKind::Binary,
            Kind::Kernel => ModuleKind::Kernel,
            Kind::Vdso => ModuleKind::Vdso,
            Kind::Jit => ModuleKind::Jit,
            Kind::Activity => ModuleKind::Activity,
        };
        let path = self.string(&module.path);
        let number = self.modules.number((kind.into(), path, module.build_id.clone()));
        self.module_numbers.insert(index, number);
        number
    }

    pub(super) fn finish(self) -> Dictionary {
        let (stack_parent, stack_location) = self.nodes.entries.into_iter().unzip();
        let functions = self.functions.entries.into_iter();
        let modules = self.modules.entries.into_iter();
        let locations = self.locations.entries.into_iter().map(|(module, address, lines, is_spin_wait)| {
            let lines = lines.into_iter().map(|(function, line)| Line { function, line }).collect();
            Location { module, address, lines, is_spin_wait }
        });
        Dictionary {
            reset: true,
            strings: self.strings.entries,
            functions: functions.map(|(name, file)| Function { name, file }).collect(),
            modules: modules.map(|(kind, path, build_id)| Module { kind, path, build_id }).collect(),
            locations: locations.collect(),
            stack_parent,
            stack_location,
            subjects: self.subjects,
        }
    }
}

//! The dictionary of a stream: what was said once is afterwards referred to by its number.
//!
//! A window as an agent makes and keeps it is whole: its dictionary begins with a reset and has all that the window refers to. On a
//! stream only what is new goes along: [`Sender`] turns whole windows into such, with the numbers of the stream, and [`Receiver`] keeps
//! what they refer to. Both are bounded by [`LIMITS`]; where a sender's lists would become longer, it begins them anew.

use std::collections::HashMap;
use std::hash::Hash;

use crate::stream::{Dictionary, Location, Module, Profile, Subject, Window};

/// How long the lists of a dictionary may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of each list.
    pub entries: usize,
    /// Bytes of all strings.
    pub string_bytes: usize,
    /// Lines and labels of all locations and subjects.
    pub parts: usize,
}

/// What both ends hold. A host has some ten thousand stacks with some hundred thousand nodes an hour; a node takes 8 bytes at the receiver
/// and about 32 at the sender.
pub const LIMITS: Limits = Limits { entries: 1 << 19, string_bytes: 32 << 20, parts: 1 << 20 };

/// A window is not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// It refers to a number that its stream has not named.
    Reference(&'static str),
    /// Columns that belong together have different lengths.
    Columns(&'static str),
    /// A name that must not be there twice is.
    Twice(&'static str),
    /// It is longer than [`LIMITS`].
    TooLong(&'static str),
    /// The first window of a stream refers to what nobody has said.
    NoReset,
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reference(what) => write!(f, "it refers to a {what} that was not named before"),
            Self::Columns(what) => write!(f, "its columns of {what} differ in length"),
            Self::Twice(what) => write!(f, "it names a {what} twice"),
            Self::TooLong(what) => write!(f, "its list of {what} is longer than is accepted"),
            Self::NoReset => write!(f, "a stream's first window must begin its dictionary"),
        }
    }
}

impl std::error::Error for Invalid {}

/// What a receiver knows of its stream: every number that windows may use.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    checker: Checker,
    known: Dictionary,
}

impl Receiver {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything that numbers refer to now: list by list, the entry of each number.
    #[must_use]
    pub fn known(&self) -> &Dictionary {
        &self.known
    }

    /// Takes in what is new, and checks that all that the window refers to is known. Returns whether the lists began anew.
    ///
    /// # Errors
    /// Where the window is not what the protocol says. The stream cannot go on then.
    pub fn take(&mut self, window: &mut Window) -> Result<bool, Invalid> {
        let new = self.checker.take(window)?;
        let reset = new.reset;
        extend(&mut self.known, new);
        Ok(reset)
    }
}

/// Adds what is new to what was known of a stream. It must have been checked: see [`Checker::take`].
pub fn extend(known: &mut Dictionary, new: Dictionary) {
    let Dictionary { reset, strings, functions, modules, locations, stack_parent, stack_location, subjects } =
        new;
    if reset {
        *known = Dictionary::default();
    }
    known.strings.extend(strings);
    known.functions.extend(functions);
    known.modules.extend(modules);
    known.locations.extend(locations);
    known.stack_parent.extend(stack_parent);
    known.stack_location.extend(stack_location);
    known.subjects.extend(subjects);
}

/// How much a receiver knows of its stream: enough to check every number, and some bytes whatever the stream has said. For who keeps
/// elsewhere what numbers refer to, as a collector of thousands of agents does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checker {
    strings: usize,
    functions: usize,
    modules: usize,
    locations: usize,
    nodes: usize,
    subjects: usize,
    string_bytes: usize,
    parts: usize,
    has_begun: bool,
}

impl Checker {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what is new out of the window, and checks that all that it and the window refer to is known.
    ///
    /// # Errors
    /// Where the window is not what the protocol says. The stream cannot go on then.
    pub fn take(&mut self, window: &mut Window) -> Result<Dictionary, Invalid> {
        let new = window.dictionary.take().unwrap_or_default();
        if new.reset {
            *self = Self::new();
        } else if !self.has_begun {
            return Err(Invalid::NoReset);
        }
        self.has_begun = true;
        let earlier_nodes = self.nodes;
        self.count(&new)?;
        self.check_entries(&new, earlier_nodes)?;
        self.check(window)?;
        Ok(new)
    }

    fn count(&mut self, new: &Dictionary) -> Result<(), Invalid> {
        let (string_bytes, parts) = size(new);
        self.string_bytes += string_bytes;
        self.parts += parts;
        at_most(self.string_bytes, LIMITS.string_bytes, "strings")?;
        at_most(self.parts, LIMITS.parts, "lines and labels")?;
        same_length(new.stack_parent.len(), new.stack_location.len(), "stacks")?;
        let lists = [
            (&mut self.strings, new.strings.len(), "strings"),
            (&mut self.functions, new.functions.len(), "functions"),
            (&mut self.modules, new.modules.len(), "modules"),
            (&mut self.locations, new.locations.len(), "locations"),
            (&mut self.nodes, new.stack_parent.len(), "stacks"),
            (&mut self.subjects, new.subjects.len(), "subjects"),
        ];
        for (length, new, what) in lists {
            *length += new;
            at_most(*length, LIMITS.entries, what)?;
        }
        Ok(())
    }

    /// All new entries refer to what is there, and nodes to nodes before them.
    fn check_entries(&self, new: &Dictionary, earlier_nodes: usize) -> Result<(), Invalid> {
        for function in &new.functions {
            known(function.name, self.strings, "string")?;
            known(function.file, self.strings, "string")?;
        }
        for module in &new.modules {
            known(module.path, self.strings, "string")?;
        }
        for location in &new.locations {
            known(location.module, self.modules, "module")?;
            location.lines.iter().try_for_each(|line| known(line.function, self.functions, "function"))?;
        }
        for (node, (parent, location)) in new.stack_parent.iter().zip(&new.stack_location).enumerate() {
            // One more than the caller's number: at most the node's own number.
            known(*parent, earlier_nodes + node + 1, "caller")?;
            known(*location, self.locations, "location")?;
        }
        for subject in &new.subjects {
            known(subject.process, self.strings, "string")?;
            known(subject.thread, self.strings, "string")?;
            subject.labels.iter().try_for_each(|string| known(*string, self.strings, "string"))?;
            same_length(subject.labels.len() % 2, 0, "labels")?;
        }
        Ok(())
    }

    fn check(&self, window: &Window) -> Result<(), Invalid> {
        for (position, profile) in window.profiles.iter().enumerate() {
            let rows = profile.subject.len();
            for length in [profile.stack.len(), profile.count.len(), profile.weight.len()] {
                same_length(length, rows, "samples")?;
            }
            if !profile.class.is_empty() {
                same_length(profile.class.len(), rows, "samples")?;
            }
            profile.subject.iter().try_for_each(|subject| known(*subject, self.subjects, "subject"))?;
            profile.stack.iter().try_for_each(|stack| known(*stack, self.nodes + 1, "stack"))?;
            profile.class.iter().try_for_each(|class| known(*class, self.strings, "string"))?;
            if window.profiles[..position].iter().any(|other| other.kind == profile.kind) {
                return Err(Invalid::Twice("kind of profile"));
            }
        }
        for signal in &window.signals {
            for string in [signal.name, signal.instance, signal.resource, signal.kind, signal.unit] {
                known(string, self.strings, "string")?;
            }
        }
        Ok(())
    }
}

fn at_most(length: usize, most: usize, what: &'static str) -> Result<(), Invalid> {
    if length > most { Err(Invalid::TooLong(what)) } else { Ok(()) }
}

fn same_length(one: usize, other: usize, what: &'static str) -> Result<(), Invalid> {
    if one == other { Ok(()) } else { Err(Invalid::Columns(what)) }
}

fn known(number: u32, length: usize, what: &'static str) -> Result<(), Invalid> {
    if (number as usize) < length { Ok(()) } else { Err(Invalid::Reference(what)) }
}

/// What a sender has said on its stream.
#[derive(Debug)]
pub struct Sender {
    said: Said,
    has_begun: bool,
    limits: Limits,
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

impl Sender {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(LIMITS)
    }

    /// Nothing yet, and with lists that begin anew where they would become longer than these: less memory for more bytes. What is longer
    /// by itself still goes, up to [`LIMITS`].
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self { said: Said::default(), has_begun: false, limits }
    }

    /// A whole window as the stream is to carry it.
    ///
    /// # Errors
    /// Where the window is not whole or refers to what it does not have: it was damaged. Nothing of it has been said then.
    pub fn next(&mut self, whole: &Window) -> Result<Window, Invalid> {
        let mut window = whole.clone();
        let mut receiver = Receiver::new();
        receiver.take(&mut window)?;
        let own = receiver.known();
        let reset = !self.has_begun || !self.said.has_room(own, &self.limits);
        if reset {
            self.said = Said::default();
        }
        self.has_begun = true;
        let mut new = Dictionary { reset, ..Dictionary::default() };
        self.said.renumber(own, &mut window, &mut new);
        window.dictionary = Some(new);
        Ok(window)
    }
}

/// The numbers of what was said.
#[derive(Debug, Default)]
struct Said {
    strings: Numbers<String>,
    functions: Numbers<crate::stream::Function>,
    modules: Numbers<Module>,
    locations: Numbers<Location>,
    nodes: Numbers<(u32, u32)>,
    subjects: Numbers<Subject>,
    string_bytes: usize,
    parts: usize,
}

impl Said {
    /// Whether all of a window's dictionary could be added.
    fn has_room(&self, own: &Dictionary, limits: &Limits) -> bool {
        let lengths = [
            (self.strings.0.len(), own.strings.len()),
            (self.functions.0.len(), own.functions.len()),
            (self.modules.0.len(), own.modules.len()),
            (self.locations.0.len(), own.locations.len()),
            (self.nodes.0.len(), own.stack_parent.len()),
            (self.subjects.0.len(), own.subjects.len()),
        ];
        let (string_bytes, parts) = size(own);
        lengths.iter().all(|(said, new)| said + new <= limits.entries)
            && self.string_bytes + string_bytes <= limits.string_bytes
            && self.parts + parts <= limits.parts
    }

    /// Gives the window the stream's numbers, and adds to `new` what was not said before.
    fn renumber(&mut self, own: &Dictionary, window: &mut Window, new: &mut Dictionary) {
        let strings = of_each(&own.strings, |string| self.strings.number(string.clone(), &mut new.strings));
        let of = |numbers: &[u32], number: u32| numbers[number as usize];
        let functions = of_each(&own.functions, |function| {
            let function = crate::stream::Function {
                name: of(&strings, function.name),
                file: of(&strings, function.file),
            };
            self.functions.number(function, &mut new.functions)
        });
        let modules = of_each(&own.modules, |module| {
            let module = Module { path: of(&strings, module.path), ..module.clone() };
            self.modules.number(module, &mut new.modules)
        });
        let locations = of_each(&own.locations, |location| {
            let mut location = Location { module: of(&modules, location.module), ..location.clone() };
            for line in &mut location.lines {
                line.function = of(&functions, line.function);
            }
            self.locations.number(location, &mut new.locations)
        });
        let mut nodes: Vec<u32> = Vec::with_capacity(own.stack_parent.len());
        let mut new_nodes = Vec::new();
        // Numbers plus one, where 0 is none.
        let node_of = |nodes: &[u32], plus_one: u32| match plus_one.checked_sub(1) {
            Some(node) => of(nodes, node) + 1,
            None => 0,
        };
        for (parent, location) in own.stack_parent.iter().zip(&own.stack_location) {
            let node = (node_of(&nodes, *parent), of(&locations, *location));
            nodes.push(self.nodes.number(node, &mut new_nodes));
        }
        (new.stack_parent, new.stack_location) = new_nodes.into_iter().unzip();
        let subjects = of_each(&own.subjects, |subject| {
            let subject = Subject {
                process: of(&strings, subject.process),
                thread: of(&strings, subject.thread),
                labels: subject.labels.iter().map(|string| of(&strings, *string)).collect(),
            };
            self.subjects.number(subject, &mut new.subjects)
        });
        let (string_bytes, parts) = size(new);
        self.string_bytes += string_bytes;
        self.parts += parts;
        for Profile { subject, stack, class, .. } in &mut window.profiles {
            subject.iter_mut().for_each(|subject| *subject = of(&subjects, *subject));
            stack.iter_mut().for_each(|stack| *stack = node_of(&nodes, *stack));
            class.iter_mut().for_each(|class| *class = of(&strings, *class));
        }
        for signal in &mut window.signals {
            let numbers = [
                &mut signal.name,
                &mut signal.instance,
                &mut signal.resource,
                &mut signal.kind,
                &mut signal.unit,
            ];
            for number in numbers {
                *number = of(&strings, *number);
            }
        }
    }
}

/// Bytes of strings, and lines with labels.
fn size(dictionary: &Dictionary) -> (usize, usize) {
    let strings = dictionary.strings.iter().map(String::len);
    let build_ids = dictionary.modules.iter().map(|module| module.build_id.len());
    let lines = dictionary.locations.iter().map(|location| location.lines.len());
    let labels = dictionary.subjects.iter().map(|subject| subject.labels.len());
    (strings.chain(build_ids).sum(), lines.chain(labels).sum())
}

fn of_each<T>(list: &[T], number: impl FnMut(&T) -> u32) -> Vec<u32> {
    list.iter().map(number).collect()
}

/// Things with their numbers.
#[derive(Debug)]
struct Numbers<T>(HashMap<T, u32>);

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Clone + Eq + Hash> Numbers<T> {
    /// The number of a thing, which goes into `new` where it has none yet.
    fn number(&mut self, thing: T, new: &mut Vec<T>) -> u32 {
        // No list is longer than its limit, which is below 2^32.
        let next = self.0.len() as u32;
        *self.0.entry(thing).or_insert_with_key(|thing| {
            new.push(thing.clone());
            next
        })
    }
}

#[cfg(test)]
mod tests;

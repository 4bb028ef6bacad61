//! What the numbers of a stream mean, in as little memory as that takes, and how much all streams may have of it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chokepoint_proto::stream::{Dictionary, Function, Line, Module};

/// Lists without a piece of memory for each entry. What is asked for must have been said: windows are checked before.
#[derive(Debug, Default)]
pub(super) struct Known {
    text: String,
    text_ends: Vec<u32>,
    functions: Vec<Function>,
    modules: Vec<Module>,
    locations: Vec<Location>,
    lines: Vec<Line>,
    callers: Vec<u32>,
    callees: Vec<u32>,
    subjects: Vec<Subject>,
    labels: Vec<u32>,
}

/// A place in a module; its lines end here, and begin where those of the one before end.
#[derive(Clone, Copy, Debug)]
struct Location {
    address: u64,
    module: u32,
    lines_end: u32,
}

/// A thread's names; its labels as the lines of places.
#[derive(Clone, Copy, Debug)]
struct Subject {
    process: u32,
    thread: u32,
    labels_end: u32,
}

impl Known {
    /// Takes in what is new: all that was known is forgotten where lists begin anew.
    pub(super) fn extend(&mut self, new: &Dictionary) {
        if new.reset {
            *self = Self::default();
        }
        for string in &new.strings {
            self.text.push_str(string);
            self.text_ends.push(self.text.len() as u32);
        }
        self.functions.extend_from_slice(&new.functions);
        self.modules.extend_from_slice(&new.modules);
        for location in &new.locations {
            self.lines.extend_from_slice(&location.lines);
            let (address, module) = (location.address, location.module);
            self.locations.push(Location { address, module, lines_end: self.lines.len() as u32 });
        }
        self.callers.extend_from_slice(&new.stack_parent);
        self.callees.extend_from_slice(&new.stack_location);
        for subject in &new.subjects {
            self.labels.extend_from_slice(&subject.labels);
            let (process, thread) = (subject.process, subject.thread);
            self.subjects.push(Subject { process, thread, labels_end: self.labels.len() as u32 });
        }
    }

    pub(super) fn string(&self, number: u32) -> &str {
        let (start, end) = (before(number, |number| self.text_ends[number]), self.text_ends[number as usize]);
        &self.text[start as usize..end as usize]
    }

    pub(super) fn function(&self, number: u32) -> &Function {
        &self.functions[number as usize]
    }

    /// The module, the address, and the lines of a place.
    pub(super) fn location(&self, number: u32) -> (&Module, u64, &[Line]) {
        let Location { address, module, lines_end } = self.locations[number as usize];
        let lines = range(before(number, |number| self.locations[number].lines_end), lines_end);
        (&self.modules[module as usize], address, &self.lines[lines])
    }

    /// The caller of a node of a stack, counted from 1, and its place.
    pub(super) fn node(&self, at: u32) -> (u32, u32) {
        (self.callers[at as usize], self.callees[at as usize])
    }

    /// The process, the thread and the labels of a subject.
    pub(super) fn subject(&self, number: u32) -> (u32, u32, &[u32]) {
        let Subject { process, thread, labels_end } = self.subjects[number as usize];
        let labels = range(before(number, |number| self.subjects[number].labels_end), labels_end);
        (process, thread, &self.labels[labels])
    }

    /// Memory that it takes.
    fn bytes(&self) -> usize {
        fn of<T>(list: &Vec<T>) -> usize {
            list.capacity() * size_of::<T>()
        }
        let build_ids: usize = self.modules.iter().map(|module| module.build_id.capacity()).sum();
        let numbers =
            [&self.text_ends, &self.callers, &self.callees, &self.labels].map(of).iter().sum::<usize>();
        self.text.capacity()
            + numbers
            + of(&self.functions)
            + of(&self.modules)
            + build_ids
            + of(&self.locations)
            + of(&self.lines)
            + of(&self.subjects)
    }
}

/// The end of the entry before this one.
fn before(number: u32, end_of: impl Fn(usize) -> u32) -> u32 {
    number.checked_sub(1).map_or(0, |number| end_of(number as usize))
}

fn range(start: u32, end: u32) -> Range<usize> {
    start as usize..end as usize
}

/// Memory for what streams have said, of all streams together.
#[derive(Debug)]
pub(super) struct Room {
    taken: AtomicUsize,
    max_bytes: usize,
}

impl Room {
    pub(super) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max_bytes })
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// What a stream has said, within the room of all; gives its own back when it is dropped.
#[derive(Debug)]
pub(super) struct Roomed {
    room: Arc<Room>,
    taken: usize,
    /// `None`: there was no room for all of it, until its lists begin anew.
    known: Option<Known>,
}

impl Roomed {
    /// Nothing yet.
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), taken: 0, known: Some(Known::default()) }
    }

    /// Takes in what is new. Returns whether it is the first for which there is no room: all of the stream is forgotten then.
    pub(super) fn extend(&mut self, new: &Dictionary) -> bool {
        if new.reset {
            self.known = Some(Known::default());
        }
        let Some(known) = &mut self.known else { return false };
        known.extend(new);
        let bytes = known.bytes();
        let has_room = self.take(bytes);
        if !has_room {
            self.known = None;
            self.take(0);
        }
        !has_room
    }

    /// What its numbers mean; `None` where that was forgotten.
    pub(super) fn known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// Takes so much in place of what it has. Returns whether all streams together have no more than they may.
    fn take(&mut self, bytes: usize) -> bool {
        let Room { taken, max_bytes } = &*self.room;
        taken.fetch_sub(self.taken, Ordering::Relaxed);
        let before = taken.fetch_add(bytes, Ordering::Relaxed);
        self.taken = bytes;
        before + bytes <= *max_bytes
    }
}

impl Drop for Roomed {
    fn drop(&mut self) {
        self.take(0);
    }
}

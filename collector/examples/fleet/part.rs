//! The part of a window that is of some processes, with a dictionary of that alone.

use std::collections::HashMap;

use chokepoint_proto::stream::{Dictionary, Function, Line, Location, Module, Profile, Subject, Window};

/// The window without the rows of other processes and without what was diagnosed of the host. What is of no process, such as latencies of disks,
/// stays where no service of others is named.
pub fn of_processes(window: &Window, processes: &[&str]) -> Window {
    let old = window.dictionary.as_ref().expect("it is whole");
    let mut new =
        Renumbered { old, new: Dictionary { reset: true, ..Dictionary::default() }, known: HashMap::new() };
    let is_kept = |number: u32| {
        let subject = &old.subjects[number as usize];
        let process = old.strings[subject.process as usize].as_str();
        let mut labels = subject.labels.chunks(2);
        let service = labels.find(|pair| old.strings[pair[0] as usize] == "service");
        let service = service.map_or("", |pair| old.strings[pair[1] as usize].as_str());
        match process {
            "" => service.is_empty() || processes.contains(&service),
            process => processes.contains(&process),
        }
    };
    let profiles = window.profiles.iter().map(|profile| {
        let mut kept = Profile { kind: profile.kind.clone(), unit: profile.unit, ..Profile::default() };
        for row in (0..profile.subject.len()).filter(|row| is_kept(profile.subject[*row])) {
            kept.subject.push(new.subject(profile.subject[row]));
            kept.stack.push(new.node(profile.stack[row]));
            if let Some(class) = profile.class.get(row) {
                kept.class.push(new.string(*class));
            }
            kept.count.push(profile.count[row]);
            kept.weight.push(profile.weight[row]);
        }
        kept
    });
    let profiles = profiles.filter(|profile| !profile.subject.is_empty()).collect();
    let signals = window.signals.iter().filter(|signal| !is_of_group(old, signal.name)).map(|signal| {
        let mut signal = *signal;
        for number in
            [&mut signal.name, &mut signal.instance, &mut signal.resource, &mut signal.kind, &mut signal.unit]
        {
            *number = new.string(*number);
        }
        signal
    });
    let signals = signals.collect();
    Window { profiles, signals, verdict: None, dictionary: Some(new.new), ..window.clone() }
}

/// Signals of groups and processes are of others.
fn is_of_group(dictionary: &Dictionary, name: u32) -> bool {
    let name = &dictionary.strings[name as usize];
    name.starts_with("group.") || name.starts_with("limit.")
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Of {
    String,
    Function,
    Module,
    Location,
    Node,
    Subject,
}

struct Renumbered<'w> {
    old: &'w Dictionary,
    new: Dictionary,
    known: HashMap<(Of, u32), u32>,
}

impl Renumbered<'_> {
    fn number(&mut self, of: Of, old: u32, add: impl FnOnce(&mut Self) -> u32) -> u32 {
        if let Some(known) = self.known.get(&(of, old)) {
            return *known;
        }
        let new = add(self);
        self.known.insert((of, old), new);
        new
    }

    fn string(&mut self, old: u32) -> u32 {
        self.number(Of::String, old, |all| push(&mut all.new.strings, all.old.strings[old as usize].clone()))
    }

    fn function(&mut self, old: u32) -> u32 {
        self.number(Of::Function, old, |all| {
            let Function { name, file } = all.old.functions[old as usize];
            let function = Function { name: all.string(name), file: all.string(file) };
            push(&mut all.new.functions, function)
        })
    }

    fn module(&mut self, old: u32) -> u32 {
        self.number(Of::Module, old, |all| {
            let module = all.old.modules[old as usize].clone();
            let module = Module { path: all.string(module.path), ..module };
            push(&mut all.new.modules, module)
        })
    }

    fn location(&mut self, old: u32) -> u32 {
        self.number(Of::Location, old, |all| {
            let location = all.old.locations[old as usize].clone();
            let line = |line: &Line| Line { function: all.function(line.function), line: line.line };
            let lines = location.lines.iter().map(line).collect();
            let location = Location { module: all.module(location.module), lines, ..location };
            push(&mut all.new.locations, location)
        })
    }

    /// Numbers of nodes are one more than their positions; 0 is none.
    fn node(&mut self, old: u32) -> u32 {
        let Some(at) = old.checked_sub(1) else { return 0 };
        self.number(Of::Node, old, |all| {
            let parent = all.node(all.old.stack_parent[at as usize]);
            let location = all.location(all.old.stack_location[at as usize]);
            all.new.stack_parent.push(parent);
            push(&mut all.new.stack_location, location) + 1
        })
    }

    fn subject(&mut self, old: u32) -> u32 {
        self.number(Of::Subject, old, |all| {
            let subject = all.old.subjects[old as usize].clone();
            let labels = subject.labels.iter().map(|number| all.string(*number)).collect();
            let subject =
                Subject { process: all.string(subject.process), thread: all.string(subject.thread), labels };
            push(&mut all.new.subjects, subject)
        })
    }
}

fn push<T>(list: &mut Vec<T>, entry: T) -> u32 {
    list.push(entry);
    list.len() as u32 - 1
}

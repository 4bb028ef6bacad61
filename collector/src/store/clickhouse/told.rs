//! What one agent's stream was told so far: from its numbers to those of the content.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use chokepoint_proto::stream::{Dictionary, Subject};

use super::content::{Content, Of, of_labels};
use super::rows::{FrameRow, KindRow, SeriesRow, StackRow};
use crate::labels::Labels;
use crate::store::StoreError;

/// Texts of all streams, each once, for hosts have most in common.
#[derive(Debug, Default)]
pub(super) struct Texts(Mutex<Interned>);

#[derive(Debug, Default)]
struct Interned {
    texts: HashSet<Arc<str>>,
    /// From how many on those that no stream has any more are looked for.
    look_at: usize,
}

/// Texts before it is worth to look for those that nobody has any more.
const MIN_LOOK: usize = 1 << 14;

impl Texts {
    fn of(&self, text: &str) -> Arc<str> {
        let interned = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = interned.texts.get(text) {
            return Arc::clone(known);
        }
        if interned.texts.len() >= interned.look_at.max(MIN_LOOK) {
            interned.texts.retain(|text| Arc::strong_count(text) > 1);
            interned.look_at = 2 * interned.texts.len();
        }
        let text: Arc<str> = text.into();
        interned.texts.insert(Arc::clone(&text));
        text
    }
}

/// Names that are to be written before what refers to them.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) series: Vec<SeriesRow>,
    pub(super) frames: Vec<FrameRow>,
    pub(super) stacks: Vec<StackRow>,
    pub(super) kinds: Vec<KindRow>,
}

/// Whose samples they are.
#[derive(Clone, Debug)]
pub(super) struct Whose {
    pub(super) series: u64,
    /// What rows are told apart by first: the service that its host's operator or its pod names, else the process.
    pub(super) service: Arc<str>,
}

/// A node of the stream's tree of stacks.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Plus one; 0: there is none.
    parent: u32,
    frame: u64,
    /// Of this frame and its callers.
    stack: u64,
}

/// What a stream was told.
#[derive(Debug)]
pub(super) struct Told {
    texts: Arc<Texts>,
    host: Labels,
    strings: Vec<Arc<str>>,
    /// Name and file, numbers of strings.
    functions: Vec<(u32, u32)>,
    modules: Vec<(i32, u32, Box<[u8]>)>,
    /// Numbers of frames.
    locations: Vec<u64>,
    nodes: Vec<Node>,
    subjects: Vec<Whose>,
    /// Series of what has labels of its own without being a subject, by the instance.
    instances: HashMap<Arc<str>, u64>,
    /// What was named and is not written yet.
    pub(super) unwritten: Names,
}

impl Told {
    pub(super) fn new(texts: Arc<Texts>, host: Labels) -> Self {
        Self {
            texts,
            host,
            strings: Vec::new(),
            functions: Vec::new(),
            modules: Vec::new(),
            locations: Vec::new(),
            nodes: Vec::new(),
            subjects: Vec::new(),
            instances: HashMap::new(),
            unwritten: Names::default(),
        }
    }

    /// Numbers mean something else from here on.
    pub(super) fn forget(&mut self) {
        *self = Self::new(Arc::clone(&self.texts), std::mem::take(&mut self.host));
    }

    /// Takes in what is new.
    ///
    /// # Errors
    /// Where something refers to what was not named.
    pub(super) fn extend(&mut self, new: &Dictionary) -> Result<(), StoreError> {
        for text in &new.strings {
            let text = self.texts.of(text);
            self.strings.push(text);
        }
        for function in &new.functions {
            self.text(function.name)?;
            self.text(function.file)?;
            self.functions.push((function.name, function.file));
        }
        for module in &new.modules {
            self.text(module.path)?;
            self.modules.push((module.kind, module.path, module.build_id.as_slice().into()));
        }
        for location in &new.locations {
            let (module_kind, path, build_id) = at(&self.modules, location.module)?;
            let mut frame = FrameRow {
                id: 0,
                module_kind: *module_kind,
                module: self.text(*path)?.to_string(),
                build_id: build_id.to_vec(),
                address: location.address,
                is_spin_wait: u8::from(location.is_spin_wait),
                functions: Vec::with_capacity(location.lines.len()),
                files: Vec::with_capacity(location.lines.len()),
                lines: Vec::with_capacity(location.lines.len()),
            };
            for line in &location.lines {
                let (name, file) = *at(&self.functions, line.function)?;
                frame.functions.push(self.text(name)?.to_string());
                frame.files.push(self.text(file)?.to_string());
                frame.lines.push(line.line);
            }
            frame.id = number_of(&frame);
            self.locations.push(frame.id);
            self.unwritten.frames.push(frame);
        }
        for (parent, location) in new.stack_parent.iter().zip(&new.stack_location) {
            let callers = match parent.checked_sub(1) {
                Some(caller) => at(&self.nodes, caller)?.stack,
                None => 0,
            };
            let frame = *at(&self.locations, *location)?;
            let stack = Content::new(Of::Stack).number(callers).number(frame).finish();
            self.nodes.push(Node { parent: *parent, frame, stack });
        }
        for subject in &new.subjects {
            let labels = self.own_labels(subject)?;
            let whose = self.whose(labels);
            self.subjects.push(whose);
        }
        Ok(())
    }

    /// A string of the stream.
    ///
    /// # Errors
    /// Where it was not named.
    pub(super) fn text(&self, number: u32) -> Result<&Arc<str>, StoreError> {
        at(&self.strings, number)
    }

    /// Whose samples they are.
    ///
    /// # Errors
    /// As for the others.
    pub(super) fn subject(&self, number: u32) -> Result<&Whose, StoreError> {
        at(&self.subjects, number)
    }

    /// The stack of a leaf's number plus one, 0 where there is none, and its frames where they may have to be written.
    ///
    /// # Errors
    /// As for the others.
    pub(super) fn stack(
        &mut self,
        leaf: u32,
        mut is_written: impl FnMut(u64) -> bool,
    ) -> Result<u64, StoreError> {
        let Some(leaf) = leaf.checked_sub(1) else { return Ok(0) };
        let stack = at(&self.nodes, leaf)?.stack;
        if !is_written(stack) {
            let nodes = std::iter::successors(self.nodes.get(leaf as usize), |node| {
                self.nodes.get(node.parent.checked_sub(1)? as usize)
            });
            let frames = nodes.map(|node| node.frame).collect();
            self.unwritten.stacks.push(StackRow { id: stack, frames });
        }
        Ok(stack)
    }

    /// The series of the host's instance of something.
    pub(super) fn instance(&mut self, instance: &Arc<str>) -> u64 {
        if let Some(series) = self.instances.get(instance) {
            return *series;
        }
        let own = [("instance".to_owned(), instance.to_string())].into();
        let series = self.whose(own).series;
        self.instances.insert(Arc::clone(instance), series);
        series
    }

    /// The same by a name that the stream has not.
    pub(super) fn instance_named(&mut self, instance: &str) -> u64 {
        let instance = self.texts.of(instance);
        self.instance(&instance)
    }

    /// The series of the host.
    pub(super) fn host(&mut self) -> u64 {
        self.instance_named("")
    }

    /// The labels of a subject. What it may not call itself by is left out: the host is who says hello.
    fn own_labels(&self, subject: &Subject) -> Result<Labels, StoreError> {
        let mut labels = Labels::new();
        for pair in subject.labels.chunks_exact(2) {
            let (name, value) = (self.text(pair[0])?, self.text(pair[1])?);
            if !["process", "thread", "host"].contains(&name.as_ref()) {
                labels.insert(name.to_string(), value.to_string());
            }
        }
        labels.insert("process".to_owned(), self.text(subject.process)?.to_string());
        labels.insert("thread".to_owned(), self.text(subject.thread)?.to_string());
        Ok(labels)
    }

    /// A series by its own labels, which hide those of the host. Labels that are empty are absent.
    fn whose(&mut self, own: Labels) -> Whose {
        let mut labels = self.host.clone();
        labels.extend(own.into_iter().filter(|(_, value)| !value.is_empty()));
        let series = of_labels(&labels);
        let service = self.texts.of(service(&labels));
        let (names, values) = labels.into_iter().unzip();
        self.unwritten.series.push(SeriesRow { id: series, names, values });
        Whose { series, service }
    }
}

/// What rows are told apart by first: the service that its host's operator or its pod names, else the process.
pub(super) fn service(labels: &Labels) -> &str {
    labels.get("service").or_else(|| labels.get("process")).map_or("", String::as_str)
}

fn number_of(frame: &FrameRow) -> u64 {
    let mut content = Content::new(Of::Frame)
        .number(u64::from(frame.module_kind.cast_unsigned()))
        .bytes(frame.module.as_bytes())
        .bytes(&frame.build_id)
        .number(frame.address)
        .number(u64::from(frame.is_spin_wait));
    for ((function, file), line) in frame.functions.iter().zip(&frame.files).zip(&frame.lines) {
        content = content.bytes(function.as_bytes()).bytes(file.as_bytes()).number(u64::from(*line));
    }
    content.finish()
}

/// What a stream's number stands for.
fn at<T>(list: &[T], number: u32) -> Result<&T, StoreError> {
    list.get(number as usize).ok_or_else(|| StoreError::Failed {
        what: "cannot store a window".to_owned(),
        source: "it refers to what was not named".into(),
    })
}

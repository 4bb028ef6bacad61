//! The frames of a profile as people read them: one for each function, inlined ones included, with a name for every
//! address that has no symbol.

use crate::interpreters;
use crate::names;
use crate::profile::{
    Function, Interner, Location, LocationId, Module, ModuleId, ModuleKind, Profile, Stack,
};

/// A function, or what stands for one, in a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The function; `module+0xaddress` or `0xaddress` where there is no symbol. An element of a folded stack.
    pub name: String,
    /// Where it runs.
    pub origin: Origin,
    /// Whether the address has a symbol.
    pub symbolized: bool,
    /// Where its code comes from; `None` in [`NO_STACK`].
    pub module: Option<ModuleId>,
    /// Source file; empty where unknown.
    pub file: String,
}

/// The name of the frame that stands in a sample without a stack, so that the sample is seen.
pub const NO_STACK: &str = "[no stack]";

/// Where a frame's code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// In a process, as a program's file has it.
    User,
    /// In the kernel.
    Kernel,
    /// In a process, compiled by a runtime.
    Jit,
    /// A runtime that interprets a program here.
    Interpreter,
    /// No code: what the thread was doing.
    Activity,
}

impl Frame {
    /// The name with the mark that tools colour frames by.
    #[must_use]
    pub fn label(&self) -> String {
        match self.origin {
            Origin::User | Origin::Interpreter | Origin::Activity => self.name.clone(),
            Origin::Kernel => format!("{}_[k]", self.name),
            Origin::Jit => format!("{}_[j]", self.name),
        }
    }
}

/// Index of a [`Frame`] in [`Frames`].
pub type FrameIndex = usize;

/// All frames of a profile, each once.
#[derive(Debug)]
pub struct Frames {
    entries: Vec<Frame>,
    /// Of each location, outermost function first.
    of_location: Vec<Vec<FrameIndex>>,
    no_stack: [FrameIndex; 1],
}

impl Frames {
    /// The frames of this profile's locations.
    #[must_use]
    pub fn new(profile: &Profile) -> Self {
        let mut frames = Interner::default();
        let of_location = profile
            .locations
            .iter()
            .map(|location| in_location(profile, location).into_iter().map(|f| frames.intern(f)).collect())
            .collect();
        let no_stack = frames.intern(Frame {
            name: NO_STACK.to_owned(),
            origin: Origin::User,
            symbolized: false,
            module: None,
            file: String::new(),
        });
        Self { entries: frames.entries, of_location, no_stack: [no_stack] }
    }

    /// Each frame, at its index.
    #[must_use]
    pub fn entries(&self) -> &[Frame] {
        &self.entries
    }

    /// The frames at a location, outermost function first.
    #[must_use]
    pub fn at(&self, location: LocationId) -> &[FrameIndex] {
        &self.of_location[location.index()]
    }

    /// The frame that stands in for a stack that is not known.
    #[must_use]
    pub fn no_stack(&self) -> FrameIndex {
        self.no_stack[0]
    }

    /// A stack's frames, root first; never empty.
    pub fn root_first(&self, stack: &Stack) -> impl Iterator<Item = FrameIndex> {
        let stackless: &[FrameIndex] = if stack.is_empty() { &self.no_stack } else { &[] };
        let walked = stack.iter().rev().flat_map(|location| self.at(*location));
        walked.chain(stackless).copied()
    }
}

/// What an address without a symbol is called.
#[must_use]
pub fn address_name(module: &Module, address: u64) -> String {
    match module.kind {
        ModuleKind::Unknown => format!("{address:#x}"),
        _ => names::element(&format!("{}+{address:#x}", module.short_name())),
    }
}

/// The frames at one location, outermost function first; never empty.
fn in_location(profile: &Profile, location: &Location) -> Vec<Frame> {
    let module = profile.module(location.module);
    let origin = match module.kind {
        ModuleKind::Kernel => Origin::Kernel,
        ModuleKind::Jit => Origin::Jit,
        ModuleKind::Binary | ModuleKind::Vdso | ModuleKind::Unknown => Origin::User,
        ModuleKind::Activity => Origin::Activity,
    };
    let frame = |name, symbolized, file: &str| Frame {
        name,
        origin,
        symbolized,
        module: Some(location.module),
        file: names::printable(file),
    };
    if location.lines.is_empty() {
        return vec![frame(address_name(module, location.address), false, "")];
    }
    // A name where there is no code says why nothing is known.
    let symbolized = module.kind != ModuleKind::Unknown;
    let named = |function: &Function| {
        let mut frame = frame(names::element(&function.name), symbolized, &function.file);
        if !matches!(frame.origin, Origin::Kernel | Origin::Activity)
            && interpreters::runtime(&function.name).is_some()
        {
            frame.origin = Origin::Interpreter;
        }
        frame
    };
    location.lines.iter().rev().map(|line| named(profile.function(line.function))).collect()
}

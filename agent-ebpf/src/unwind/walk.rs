//! The unwinder: from one frame to the next, until the thread's start.
//!
//! Written without loops over frames and without a kernel: [`advance`] does one frame and a [`Host`] gives it memory,
//! mappings and rules. In the kernel the loop is one that every verifier since 5.10 accepts; elsewhere it is a `while`.
//!
//! A frame's caller is found by its row. Where there is none the frame pointer is tried. In code of no file that is what runtimes
//! do; in a file, it may hold an older frame's value, and frames between may be missing: the walk is in **doubt** from there on,
//! and ends with the reason of the doubt, wherever it arrives.

use super::{
    file::FileEntry,
    frame::Frame,
    table::{Cfa, Rule},
};
use crate::sample::StackOutcome;

/// Words of the stack that are read at a time: those of several frames, because a read costs more than what it copies.
pub const WINDOW_WORDS: usize = 64;
/// Bytes of them.
pub const WINDOW_BYTES: u64 = (WINDOW_WORDS * size_of::<u64>()) as u64;
/// Below a frame's end are the return address and the registers it saved, most often within these bytes.
const SAVED_BYTES: u64 = 64;
/// General registers, as many as the processor with the most has.
pub const REGISTERS: usize = 32;
/// Mappings that one walk remembers.
pub const WALK_MAPPINGS: usize = 4;

/// An executable mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Position of the first address in the file.
    pub file_offset: u64,
    /// Id of the file, or [`Mapping::NO_FILE`].
    pub file: u32,
    /// The file's table: index of its first page,
    pub first_page: u32,
    /// number of its pages,
    pub pages: u32,
    /// whether there is anything to wait for (see [`super::file::FileEntry::known`]),
    pub known: u32,
    /// and index of its first rule.
    pub first_rule: u32,
    /// Keeps the layout free of holes; zero.
    pub reserved: u32,
}

impl Mapping {
    /// Stands for a file's id where memory of no file is mapped.
    pub const NO_FILE: u32 = u32::MAX;

    /// Takes over what is known of the file.
    #[inline(always)]
    pub fn set_file(&mut self, entry: &FileEntry) {
        self.file = entry.id;
        self.first_page = entry.first_page;
        self.pages = entry.pages;
        self.known = entry.known;
        self.first_rule = entry.first_rule;
    }
}

/// A walk under way. Zeroed memory is a valid value.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Walk {
    /// The frame's general registers, as the processor's module numbers them.
    pub registers: [u64; REGISTERS],
    /// Where the frame executes, or where it will when its callee returns.
    pub pc: u64,
    /// 1 where `pc` is what executes or was interrupted; 0 where it is a return address.
    pub exact: u64,
    /// Registers whose values were lost on the way, one bit each, as the processor's module numbers them.
    pub lost: u64,
    /// The host's own: in the kernel, the address of the process's `mm_struct`.
    pub space: u64,
    /// A [`StackOutcome`] that the walk ends with wherever it arrives; 0 for none.
    pub doubt: u64,
    /// What was read of the stack last,
    pub window: [u64; WINDOW_WORDS],
    /// the address of its first word,
    pub window_start: u64,
    /// and how many bytes of it are valid: none or all.
    pub window_bytes: u64,
    /// The mappings met last.
    pub mappings: [Mapping; WALK_MAPPINGS],
    /// Which of them is overwritten next.
    pub next_mapping: u64,
}

impl Walk {
    /// Makes it ready for a new stack; the caller writes the registers. The mappings stay: what they are worth, the host knows.
    #[inline(always)]
    pub fn begin(&mut self, pc: u64, space: u64) {
        self.pc = pc;
        self.exact = 1;
        self.lost = 0;
        self.doubt = 0;
        self.space = space;
        self.window_bytes = 0;
    }

    /// Forgets the mappings.
    #[inline(always)]
    pub fn forget_mappings(&mut self) {
        self.next_mapping = 0;
        for mapping in &mut self.mappings {
            mapping.end = 0;
        }
    }

    /// Has the end of the frame that ends at `cfa` in the window, if it can be read: its return address and most of what it
    /// saved. Nothing below the stack pointer `sp` is touched.
    #[inline(always)]
    pub fn cover(&mut self, host: &impl Host, sp: u64, cfa: u64) {
        let needed = cfa.wrapping_sub(SAVED_BYTES);
        let start = if sp < cfa && sp > needed { sp } else { needed };
        let distance = start.wrapping_sub(self.window_start);
        if distance < self.window_bytes && distance.wrapping_add(cfa.wrapping_sub(start)) <= self.window_bytes
        {
            return;
        }
        self.window_start = start;
        self.window_bytes = if host.read_window(self, start) { WINDOW_BYTES } else { 0 };
    }

    /// A word of the stack: from the window where it lies there, else read by itself.
    #[inline(always)]
    pub fn stack_word(&self, host: &impl Host, address: u64) -> Result<u64, StackOutcome> {
        let distance = address.wrapping_sub(self.window_start);
        if distance < self.window_bytes && distance & 7 == 0 {
            Ok(self.window[(distance / 8) as usize & (WINDOW_WORDS - 1)])
        } else {
            host.read_word(address).ok_or(StackOutcome::StackUnreadable)
        }
    }

    /// A general register.
    #[inline(always)]
    #[must_use]
    pub fn register(&self, number: u8) -> u64 {
        self.registers[usize::from(number) & (REGISTERS - 1)]
    }

    /// Whether a register's value was lost on the way.
    #[inline(always)]
    #[must_use]
    pub fn is_lost(&self, number: u8) -> bool {
        self.lost & 1 << (number & 31) != 0
    }

    /// Takes note that a register's value is not the frame's any more.
    #[inline(always)]
    pub fn lose_register(&mut self, number: u8) {
        self.lost |= 1 << (number & 31);
    }

    /// Sets a general register.
    #[inline(always)]
    pub fn set_register(&mut self, number: u8, value: u64) {
        self.lost &= !(1 << (number & 31));
        self.registers[usize::from(number) & (REGISTERS - 1)] = value;
    }

    /// An address within the code that is meant: the call rather than what follows it.
    #[inline(always)]
    #[must_use]
    pub fn code(&self) -> u64 {
        self.pc.wrapping_sub(1 - (self.exact & 1))
    }

    /// The slot of the remembered mapping that covers this address.
    #[inline(always)]
    fn remembered(&self, address: u64) -> Option<usize> {
        for slot in 0..WALK_MAPPINGS {
            let mapping = &self.mappings[slot];
            // One that is not set ends at 0.
            if address >= mapping.start && address < mapping.end {
                return Some(slot);
            }
        }
        None
    }

    /// Casts doubt on what follows; the first doubt stays.
    #[inline(always)]
    pub fn cast_doubt(&mut self, outcome: StackOutcome) {
        if self.doubt == 0 {
            self.doubt = outcome as u64;
        }
    }
}

/// What the walk needs of the world.
pub trait Host {
    /// Reads [`WINDOW_BYTES`] of the process's memory from `address` into [`Walk::window`]. Whether that was possible.
    fn read_window(&self, walk: &mut Walk, address: u64) -> bool;
    /// Reads one word of the process's memory.
    fn read_word(&self, address: u64) -> Option<u64>;
    /// Writes the executable mapping that covers the address to `walk.mappings[slot]`. Whether there is one.
    fn map(&self, walk: &mut Walk, slot: usize, address: u64) -> bool;
    /// The rule for an offset of a mapping's file; [`Rule::NONE`] where no row covers it.
    fn rule(&self, mapping: &Mapping, offset: u64) -> Rule;
}

/// A processor's way of applying a rule.
pub trait Processor {
    /// Changes the walk from a frame to its caller by `rule`, whose kind is [`Cfa::Register`], [`Cfa::Deref`],
    /// [`Cfa::Plt`], [`Cfa::Signal`] or [`Cfa::ReturnInRegister`].
    ///
    /// # Errors
    /// The outcome that the walk ends with.
    fn apply(walk: &mut Walk, host: &impl Host, rule: Rule) -> Result<(), StackOutcome>;
    /// The same by frame pointer. `Ok(false)` where the chain says that it ends here.
    ///
    /// # Errors
    /// The outcome that the walk ends with.
    fn follow_frame_pointer(walk: &mut Walk, host: &impl Host) -> Result<bool, StackOutcome>;
    /// Whether the code at `pc` is what returns from a signal handler, in a C library that has no call-frame information
    /// for it.
    fn is_signal_return(walk: &Walk, host: &impl Host) -> bool;
}

/// One frame of a walk: what to keep, and whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The frame; `None` where the return address was none.
    pub frame: Option<Frame>,
    /// How the walk ended; `None` if it goes on.
    pub end: Option<StackOutcome>,
}

/// Finds the current frame's place and moves on to its caller.
#[inline(always)]
pub fn advance<P: Processor>(walk: &mut Walk, host: &impl Host) -> Advance {
    let code = walk.code();
    let slot = match walk.remembered(code) {
        Some(slot) => slot,
        None => {
            let slot = walk.next_mapping as usize & (WALK_MAPPINGS - 1);
            if !host.map(walk, slot, code) {
                // What executes is a frame wherever it lies; a return address from nowhere is none.
                let frame = (walk.exact != 0).then_some(Frame::unmapped(code));
                return Advance { frame, end: Some(blame(walk, StackOutcome::NoMapping)) };
            }
            walk.next_mapping = slot as u64 + 1;
            slot
        }
    };
    let mapping = &walk.mappings[slot & (WALK_MAPPINGS - 1)];
    let (frame, rule, code) = if mapping.file == Mapping::NO_FILE {
        (Frame::anonymous(code), Rule::NONE, Code::OfNoFile)
    } else {
        let offset = code.wrapping_sub(mapping.start).wrapping_add(mapping.file_offset);
        let code = if mapping.known == 0 { Code::TableMissing } else { Code::InFile };
        (Frame::in_file(mapping.file, offset), host.rule(mapping, offset), code)
    };
    let end = go_up::<P>(walk, host, code, rule).err();
    Advance { frame: Some(frame), end }
}

/// What is known of the code that a frame executes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Code {
    OfNoFile,
    InFile,
    TableMissing,
}

/// Moves from a frame to its caller.
#[inline(always)]
fn go_up<P: Processor>(
    walk: &mut Walk,
    host: &impl Host,
    code: Code,
    rule: Rule,
) -> Result<(), StackOutcome> {
    let kind = Cfa::of(rule.cfa);
    match kind {
        Cfa::End => return Err(blame(walk, StackOutcome::Complete)),
        Cfa::Unsupported => return Err(blame(walk, StackOutcome::UnsupportedRule)),
        Cfa::None | Cfa::FramePointer => {}
        _ => return P::apply(walk, host, rule).map_err(|outcome| blame(walk, outcome)),
    }
    if matches!(kind, Cfa::None) && code != Code::OfNoFile {
        if P::is_signal_return(walk, host) {
            return P::apply(walk, host, Rule::SIGNAL).map_err(|outcome| blame(walk, outcome));
        }
        if code == Code::TableMissing {
            walk.cast_doubt(StackOutcome::TableMissing);
        } else if walk.exact != 0 {
            // A start without call-frame information, as the dynamic loader's, is reached as a caller only.
            walk.cast_doubt(StackOutcome::NoRule);
        }
    }
    match P::follow_frame_pointer(walk, host) {
        Ok(true) => {
            if matches!(kind, Cfa::None) && code != Code::OfNoFile {
                walk.cast_doubt(StackOutcome::NoRule);
            }
            Ok(())
        }
        Ok(false) => Err(blame(walk, StackOutcome::Complete)),
        // That the chain breaks shows that this code keeps none.
        Err(_) if matches!(kind, Cfa::None) => Err(blame(walk, StackOutcome::NoRule)),
        Err(outcome) => Err(blame(walk, outcome)),
    }
}

/// The doubt, if there is one; else the outcome.
#[inline(always)]
fn blame(walk: &Walk, outcome: StackOutcome) -> StackOutcome {
    if walk.doubt == StackOutcome::TableMissing as u64 {
        StackOutcome::TableMissing
    } else if walk.doubt == StackOutcome::NoRule as u64 {
        StackOutcome::NoRule
    } else {
        outcome
    }
}

//! Reads `.eh_frame` and `.debug_frame`.

use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;

use chokepoint_ebpf::unwind::table::Rule;
use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, EndianSlice, LittleEndian, PartialFrameDescriptionEntry,
    UnwindOffset, UnwindSection, constants,
};
use hashbrown::HashMap;

use super::bytes::Bytes;
use super::cfi::{Factors, Interpreter, Processor, State};
use super::runs::Runs;
use super::table::TooLarge;
use crate::symbolize::elf::Code;

/// Common entries that are kept. Linkers merge equal ones; a file has one to a few hundred. Beyond, they are read again.
const MAX_COMMON_ENTRIES: usize = 1 << 14;

/// Common entries have some twenty bytes. The bound is on the work that a million functions can cause, each with a common
/// entry of its own in the same bytes.
const MAX_COMMON_ENTRY_BYTES: usize = 1024;

/// Segments with code: one, or a few in packed files.
const MAX_SEGMENTS: usize = 16;

/// A file's call-frame information, and what is needed to read it.
pub struct Frames<'a> {
    /// `.eh_frame`, or `.debug_frame`.
    pub section: &'a [u8],
    /// Whether it is `.debug_frame`.
    pub is_debug_frame: bool,
    /// What pointers in it are relative to.
    pub bases: BaseAddresses,
    /// Where code is.
    pub code: Vec<Code>,
    /// Code, by its virtual addresses, that is known already.
    pub except: Range<u64>,
}

/// How the reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// At the section's end.
    Whole,
    /// Where it made no sense any more.
    Damaged,
}

impl Frames<'_> {
    /// Adds every function to `runs`.
    ///
    /// # Errors
    /// [`TooLarge`]
    pub fn read<P: Processor>(&self, runs: &mut Runs) -> Result<Read, TooLarge> {
        if self.is_debug_frame {
            let mut section = gimli::DebugFrame::new(self.section, LittleEndian);
            section.set_address_size(8);
            Reader::<P, _>::new(self, section).read(runs)
        } else {
            let mut section = gimli::EhFrame::new(self.section, LittleEndian);
            section.set_address_size(8);
            Reader::<P, _>::new(self, section).read(runs)
        }
    }
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

struct Reader<'a, P, S> {
    frames: &'a Frames<'a>,
    section: S,
    interpreter: Interpreter,
    common: HashMap<usize, Option<Rc<Common<'a>>>>,
    last_common: Option<(usize, Option<Rc<Common<'a>>>)>,
    /// The segment that the last function lies in.
    code: Option<Code>,
    processor: PhantomData<P>,
}

impl<'a, P: Processor, S: UnwindSection<Slice<'a>>> Reader<'a, P, S> {
    fn new(frames: &'a Frames<'a>, section: S) -> Self {
        Self {
            frames,
            section,
            interpreter: Interpreter::new(),
            common: HashMap::new(),
            last_common: None,
            code: None,
            processor: PhantomData,
        }
    }

    fn read(mut self, runs: &mut Runs) -> Result<Read, TooLarge> {
        let section = self.section.clone();
        let mut entries = section.entries(&self.frames.bases);
        loop {
            match entries.next() {
                Ok(Some(CieOrFde::Cie(_))) => {}
                Ok(Some(CieOrFde::Fde(entry))) => self.function(&entry, runs)?,
                Ok(None) => return Ok(Read::Whole),
                // A length that leads out of the section: nothing says where the next entry would be.
                Err(_) => return Ok(Read::Damaged),
            }
        }
    }

    fn function(
        &mut self,
        entry: &PartialFrameDescriptionEntry<'_, S, Slice<'a>>,
        runs: &mut Runs,
    ) -> Result<(), TooLarge> {
        let Some(common) = self.common(entry.cie_offset()) else { return Ok(()) };
        let Ok(function) = entry.parse(|_, _, _| Ok(common.entry.clone())) else { return Ok(()) };
        let Some(instructions) = self.frames.instructions(entry.offset(), &common) else { return Ok(()) };
        let address = function.initial_address();
        let Some(code) = self.code(address) else { return Ok(()) };
        let in_segment = address - code.address;
        let len = function.len().min(code.size - in_segment);
        let Some(start) = code.offset.checked_add(in_segment) else { return Ok(()) };
        let Some(end) = start.checked_add(len) else { return Ok(()) };
        // What the linker dropped has address zero or no length.
        if len == 0 || address == 0 || self.frames.except.contains(&address) {
            return Ok(());
        }
        runs.begin(start, end)?;
        self.interpreter.function::<P, _>(instructions, common.factors, &common.initial, len, |at, state| {
            runs.row(start + at, state.map_or(Rule::UNSUPPORTED, |state| P::rule(state, common.signal)))
        })
    }

    /// The segment that this address lies in.
    fn code(&mut self, address: u64) -> Option<Code> {
        let covers = |code: &Code| address.wrapping_sub(code.address) < code.size;
        if !self.code.as_ref().is_some_and(covers) {
            self.code = self.frames.code.iter().take(MAX_SEGMENTS).copied().find(covers);
        }
        self.code
    }

    /// What the functions that refer to this entry have in common; `None` where it makes no sense.
    fn common(&mut self, offset: S::Offset) -> Option<Rc<Common<'a>>> {
        let at: usize = UnwindOffset::into(offset);
        if let Some((last, common)) = &self.last_common
            && *last == at
        {
            return common.clone();
        }
        let common = match self.common.get(&at) {
            Some(common) => common.clone(),
            None => {
                if self.common.len() == MAX_COMMON_ENTRIES {
                    self.common.clear();
                }
                let common = self.read_common(offset).map(Rc::new);
                self.common.insert(at, common.clone());
                common
            }
        };
        self.last_common = Some((at, common.clone()));
        common
    }

    fn read_common(&mut self, offset: S::Offset) -> Option<Common<'a>> {
        let mut body = self.frames.body(UnwindOffset::into(offset))?;
        if body.0.len() > MAX_COMMON_ENTRY_BYTES {
            return None;
        }
        let entry = self.section.cie_from_offset(&self.frames.bases, offset).ok()?;
        if entry.address_size() != 8 {
            return None;
        }
        let version = body.u8()?;
        let augmentation_bytes = body.0.iter().position(|&byte| byte == 0)?;
        let is_augmented = body.take(augmentation_bytes + 1)?.starts_with(b"z");
        if self.frames.is_debug_frame && version >= 4 {
            // The sizes of addresses and segment selectors.
            body.u16()?;
        }
        let factors = Factors { code: body.unsigned()?, data: body.signed()? };
        if version == 1 {
            u64::from(body.u8()?)
        } else {
            body.unsigned()?
        };
        if is_augmented {
            body.block()?;
        }
        let initial = self.interpreter.initial_state::<P>(body.0, factors).ok()?;
        let signal = entry.is_signal_trampoline();
        let address_bytes = entry.fde_address_encoding().map_or(Some(8), address_bytes)?;
        Some(Common { entry, is_augmented, address_bytes, factors, initial, signal })
    }
}

impl<'a> Frames<'a> {
    /// What follows an entry's length and kind. gimli has these bytes, but does not give them.
    fn body(&self, offset: usize) -> Option<Bytes<'a>> {
        let mut entry = Bytes(self.section.get(offset..)?);
        let (len, is_wide) = match entry.u32()? {
            u32::MAX => (entry.u64()?, true),
            len => (len.into(), false),
        };
        let mut body = Bytes(entry.take(usize::try_from(len).ok()?)?);
        body.take(if is_wide && self.is_debug_frame { 8 } else { 4 })?;
        Some(body)
    }

    /// The instructions of a function's entry.
    fn instructions(&self, offset: usize, common: &Common<'_>) -> Option<&'a [u8]> {
        let mut body = self.body(offset)?;
        body.take(2 * common.address_bytes)?;
        if common.is_augmented {
            body.block()?;
        }
        Some(body.0)
    }
}

/// Bytes that an address takes in this encoding; `None` for one of variable length, which nobody uses.
fn address_bytes(encoding: constants::DwEhPe) -> Option<usize> {
    match encoding.format() {
        constants::DW_EH_PE_absptr | constants::DW_EH_PE_udata8 | constants::DW_EH_PE_sdata8 => Some(8),
        constants::DW_EH_PE_udata4 | constants::DW_EH_PE_sdata4 => Some(4),
        constants::DW_EH_PE_udata2 | constants::DW_EH_PE_sdata2 => Some(2),
        _ => None,
    }
}

/// What functions have in common.
struct Common<'a> {
    entry: CommonInformationEntry<Slice<'a>>,
    /// Whether entries have a block for their augmentation.
    is_augmented: bool,
    /// Bytes of a function's start, and of its length.
    address_bytes: usize,
    factors: Factors,
    initial: State,
    signal: bool,
}

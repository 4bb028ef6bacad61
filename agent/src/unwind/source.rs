//! From an open file to its table.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use gimli::BaseAddresses;

use super::aarch64::Aarch64;
use super::eh_frame::{Frames, Read};
use super::go::GoSection;
use super::prologue;
use super::runs::Runs;
use super::table::{MAX_CODE_OFFSET, Table, TooLarge};
use super::x86_64::{X86_64, linkage_rules};
use crate::symbolize::elf::{self, Elf, ElfError, LINKAGE_SECTIONS, SHF_COMPRESSED, Section};
use crate::symbolize::{image, vdso};

/// Call-frame information and Go's tables of one file: a 555 MB library has 60 MB of them. They are in memory while the table
/// is built.
const MAX_SECTION_BYTES: u64 = 128 << 20;

const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

/// Why a file has no table.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It is not a binary, or one without call-frame information, or with none for this kind of processor. Its code can be
    /// unwound by frame pointer only.
    #[error("it has no call-frame information")]
    NoCallFrames,
    /// Its headers or its call-frame information contradict themselves.
    #[error("its call-frame information is damaged: {0}")]
    Damaged(&'static str),
    /// It is over a limit.
    #[error("it is too large for a table: {0}")]
    TooLarge(&'static str),
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
}

impl From<TooLarge> for BuildError {
    fn from(TooLarge(limit): TooLarge) -> Self {
        Self::TooLarge(limit)
    }
}

impl From<ElfError> for BuildError {
    fn from(error: ElfError) -> Self {
        match error {
            ElfError::NotElf | ElfError::ByteOrder => Self::NoCallFrames,
            ElfError::Malformed(reason) => Self::Damaged(reason),
            ElfError::Io(error) => Self::Io(error),
        }
    }
}

/// Builds the table of a regular file.
///
/// # Errors
/// [`BuildError`]
pub fn build(file: &File) -> Result<Table, BuildError> {
    let elf = Elf::read(file)?;
    if !elf.is_64_bit || !matches!(elf.machine, EM_X86_64 | EM_AARCH64) {
        return Err(BuildError::NoCallFrames);
    }
    let mut runs = Runs::default();
    // Go's tables win for Go's code; what a binary has of C is behind or before it.
    let mut go_code = 0..0;
    if let Some(go) = GoSection::find(file, &elf) {
        go_code = go.read(&read_section(file, go.section())?, &elf, &mut runs)?;
    }
    let mut damaged = false;
    for (section, is_debug_frame) in call_frames(&elf) {
        let frames = Frames {
            section: &read_section(file, section)?,
            is_debug_frame,
            bases: bases(&elf, section),
            code: elf.code().collect(),
            except: go_code.clone(),
        };
        let read = match elf.machine {
            EM_AARCH64 => frames.read::<Aarch64>(&mut runs)?,
            _ => frames.read::<X86_64>(&mut runs)?,
        };
        damaged |= read == Read::Damaged;
        if !runs.is_empty() {
            break;
        }
    }
    if !runs.is_empty() {
        if elf.machine == EM_X86_64 {
            add_linkage(&elf, &mut runs)?;
            add_undescribed(file, &mut runs)?;
        }
        return Ok(runs.into_table()?);
    }
    Err(if damaged {
        BuildError::Damaged("its first entry makes no sense")
    } else {
        BuildError::NoCallFrames
    })
}

/// Builds the table of an ELF image in memory.
///
/// # Errors
/// [`BuildError`]
pub fn build_from_bytes(image: &[u8]) -> Result<Table, BuildError> {
    build(&image::memory_file_of(image)?)
}

/// Builds the table of the vDSO, which is the same in every 64-bit process; offsets are those in its mapping.
///
/// # Errors
/// [`BuildError`]
pub fn build_vdso() -> Result<Table, BuildError> {
    build(&vdso::copy()?)
}

/// Adds the procedure linkage tables. What call-frame information says of them came first and stays.
fn add_linkage(elf: &Elf, runs: &mut Runs) -> Result<(), TooLarge> {
    for name in LINKAGE_SECTIONS {
        let Some(section) = elf.section(name) else { continue };
        let end = section.offset.saturating_add(section.size);
        if end > MAX_CODE_OFFSET {
            continue;
        }
        runs.begin(section.offset, end)?;
        for (offset, rule) in linkage_rules(name).iter().filter(|(offset, _)| *offset < section.size) {
            runs.row(section.offset + offset, *rule)?;
        }
    }
    Ok(())
}

/// Adds short functions that nothing describes.
fn add_undescribed(file: &File, runs: &mut Runs) -> Result<(), TooLarge> {
    for gap in runs.gaps(MIN_GAP_BYTES..prologue::MAX_BYTES as u32 + 1) {
        let start = gap.start.next_multiple_of(prologue::ALIGNMENT);
        let mut code = [0; prologue::MAX_BYTES];
        let Some(length) = gap.end.checked_sub(start).map(|length| length as usize) else { continue };
        if file.read_exact_at(&mut code[..length], start).is_err() {
            continue;
        }
        let Some(rules) = prologue::rules(&code[..length]) else { continue };
        runs.begin(start, gap.end)?;
        for (offset, rule) in rules {
            runs.row(start + offset, rule)?;
        }
    }
    Ok(())
}

/// Gaps below are padding.
const MIN_GAP_BYTES: u32 = 16;

/// The sections with call-frame information, best first, and which of them have the form of debug information.
fn call_frames(elf: &Elf) -> impl Iterator<Item = (&Section, bool)> {
    let sections = [(".eh_frame", false), (".debug_frame", true)];
    let section = |(name, is_debug_frame)| Some((elf.section(name)?, is_debug_frame));
    sections.into_iter().filter_map(section).filter(|(section, _)| section.flags & SHF_COMPRESSED == 0)
}

fn read_section(file: &File, section: &Section) -> Result<Vec<u8>, BuildError> {
    if section.size > MAX_SECTION_BYTES {
        return Err(BuildError::TooLarge("a section is larger than tables are made of"));
    }
    Ok(elf::read_range(file, section.offset, section.size, MAX_SECTION_BYTES)?)
}

fn bases(elf: &Elf, call_frames: &Section) -> BaseAddresses {
    let address = |name| elf.section(name).map_or(0, |section| section.address);
    BaseAddresses::default()
        .set_eh_frame(call_frames.address)
        .set_eh_frame_hdr(address(".eh_frame_hdr"))
        .set_text(address(".text"))
        .set_got(address(".got"))
}

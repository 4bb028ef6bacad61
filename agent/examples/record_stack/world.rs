//! What the walk sees of a stopped process, and keeps.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chokepoint::address::{AbsoluteAddress, FileOffset};
use chokepoint::process::maps::{Backing, executable_mappings};
use chokepoint::symbolize::{Options, Symbolizer};
use chokepoint::unwind::Table;
use chokepoint_ebpf::sample::StackOutcome;
use chokepoint_ebpf::unwind::frame::{Frame, Place};
use chokepoint_ebpf::unwind::table::Rule;
use chokepoint_ebpf::unwind::walk::{Host, Mapping, Walk};

use crate::case::{Case, Excerpt, Hex, Mapped};
use crate::excerpt;
use crate::replay::{self, Replay, mapping_at, show, table_of};
use crate::stopped::Stopped;

/// The files, code and memory of a process.
pub struct World {
    pid: u32,
    files: Vec<MappedFile>,
    anonymous: Vec<Mapped>,
    /// What the walk has read.
    memory: RefCell<BTreeMap<u64, u64>>,
    symbolizer: RefCell<Symbolizer>,
}

struct MappedFile {
    path: PathBuf,
    name: String,
    file: File,
    table: Table,
    mappings: Vec<Mapped>,
}

/// The frames, leaf first, and how they end.
pub struct Walked {
    pub frames: Vec<Frame>,
    pub end: StackOutcome,
}

const VDSO: &str = "[vdso]";
/// Of a wrong walk's stack, so much is kept.
const MAX_STACK_BYTES: u64 = 32 << 10;

impl World {
    pub fn new(pid: u32) -> Self {
        let options = Options { inlined: false, ..Options::default() };
        Self {
            pid,
            files: Vec::new(),
            anonymous: Vec::new(),
            memory: RefCell::default(),
            symbolizer: RefCell::new(Symbolizer::new(options)),
        }
    }

    /// Takes note of what is mapped now. Tables are built once for each file.
    pub fn look(&mut self, stopped: &Stopped) -> Result<(), Box<dyn Error>> {
        self.anonymous.clear();
        self.files.iter_mut().for_each(|file| file.mappings.clear());
        let text = fs::read(format!("/proc/{}/maps", self.pid))?;
        for mapping in executable_mappings(&text) {
            let (start, end) = (mapping.range.start, mapping.range.end);
            let mapped = Mapped { start: Hex(start), end: Hex(end), offset: Hex(mapping.file_offset) };
            let path = match &mapping.backing {
                Backing::Anonymous => {
                    self.anonymous.push(mapped);
                    continue;
                }
                Backing::Vdso => PathBuf::from(VDSO),
                Backing::File(identity) => identity.path.clone(),
            };
            let number = match self.files.iter().position(|file| file.path == path) {
                Some(number) => number,
                None => {
                    let file = if path == Path::new(VDSO) {
                        let mut copy = tempfile::tempfile()?;
                        copy.write_all(&stopped.bytes(start, end - start)?)?;
                        copy
                    } else {
                        File::open(format!("/proc/{}/map_files/{start:x}-{end:x}", self.pid))?
                    };
                    let name = path.file_name().unwrap_or_default().to_string_lossy().replace(' ', "_");
                    let table = table_of(&file)?;
                    self.files.push(MappedFile { path, name, file, table, mappings: Vec::new() });
                    self.files.len() - 1
                }
            };
            self.files[number].mappings.push(mapped);
        }
        Ok(())
    }

    /// Walks the stack, and keeps what that reads in place of what was read before.
    pub fn walk(&self, stopped: &Stopped) -> Walked {
        self.memory.borrow_mut().clear();
        let (frames, end) = replay::walk(&Live { world: self, stopped }, &stopped.registers);
        Walked { frames, end }
    }

    /// What was read, as a case has it.
    pub fn memory_lines(&self) -> BTreeMap<Hex, String> {
        memory_lines(&self.memory.borrow())
    }

    /// Keeps the stack up to an address, too.
    pub fn read_stack(&self, stopped: &Stopped, end: u64) {
        let start = stopped.registers["rsp"].0 & !7;
        let end = end.saturating_add(64).min(start + MAX_STACK_BYTES);
        let words = (start..end).step_by(8).filter_map(|at| Some((at, stopped.word(at)?)));
        self.memory.borrow_mut().extend(words);
    }

    /// The frame at an absolute address.
    pub fn place(&self, address: u64) -> Frame {
        match self.mapping(address) {
            Some(mapping) if mapping.file == Mapping::NO_FILE => Frame::anonymous(address),
            Some(mapping) => Frame::in_file(mapping.file, address - mapping.start + mapping.file_offset),
            None => Frame::unmapped(address),
        }
    }

    fn mapping(&self, address: u64) -> Option<Mapping> {
        let files = self.files.iter().enumerate();
        files
            .filter_map(|(number, file)| mapping_at(Some(number), &file.mappings, address))
            .next()
            .or_else(|| mapping_at(None, &self.anonymous, address))
    }

    /// Frames as cases write them, with the functions' names.
    pub fn lines(&self, frames: &[Frame]) -> Vec<String> {
        let name = |number: usize| self.files[number].name.clone();
        let line =
            |frame: &Frame| format!("{} {}", show(*frame, name), self.function(*frame).unwrap_or_default());
        frames.iter().map(line).collect()
    }

    fn function(&self, frame: Frame) -> Option<String> {
        let mut symbolizer = self.symbolizer.borrow_mut();
        let lines = match frame.place()? {
            Place::File(id, offset) => {
                let MappedFile { path, file, .. } = &self.files[id as usize - 1];
                let root = PathBuf::from(format!("/proc/{}/root", self.pid));
                let found = if path == Path::new(VDSO) {
                    symbolizer.vdso(&[FileOffset(offset)])
                } else {
                    symbolizer.binary(file, path, &root, &[FileOffset(offset)])
                };
                found.ok()?.symbols.pop()?.lines
            }
            Place::Anonymous(address) => {
                let map = File::open(format!("/tmp/perf-{}.map", self.pid)).ok()?;
                symbolizer.perf_map(&map, &[AbsoluteAddress(address)]).ok()?.symbols.pop()?.lines
            }
            Place::Vdso(_) | Place::Unmapped(_) => return None,
        };
        Some(lines.into_iter().next()?.function)
    }

    /// What is to be kept of the files that these frames are in, and the mappings of the code in none.
    pub fn excerpts(&self, frames: &[Frame]) -> Result<(Vec<Excerpt>, Vec<Mapped>), Box<dyn Error>> {
        let mut offsets: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        let mut anonymous = Vec::new();
        for frame in frames {
            match frame.place() {
                Some(Place::File(id, offset)) => {
                    offsets.entry(id as usize - 1).or_default().insert(offset);
                }
                Some(Place::Anonymous(address)) => anonymous.extend(
                    self.anonymous.iter().find(|mapped| (mapped.start.0..mapped.end.0).contains(&address)),
                ),
                _ => {}
            }
        }
        anonymous.sort_by_key(|mapped: &Mapped| mapped.start);
        anonymous.dedup();
        let files = offsets.into_iter().map(|(number, offsets)| {
            let MappedFile { name, file, mappings, .. } = &self.files[number];
            let covers = |mapped: &&Mapped| {
                let bytes = mapped.end.0 - mapped.start.0;
                offsets.range(mapped.offset.0..mapped.offset.0 + bytes).next().is_some()
            };
            let mappings = mappings.iter().filter(covers).copied().collect();
            let excerpt = excerpt::take(file, &offsets)?;
            Ok(Excerpt { name: name.clone(), mappings, ..excerpt })
        });
        Ok((files.collect::<Result<_, Box<dyn Error>>>()?, anonymous))
    }

    /// Whether the case's tables say of these frames what those of the whole files say.
    pub fn check(&self, replay: &Replay<'_>, case: &Case, frames: &[Frame]) -> io::Result<()> {
        for frame in frames {
            let Some(Place::File(id, offset)) = frame.place() else { continue };
            let MappedFile { name, table, .. } = &self.files[id as usize - 1];
            let number = case.files.iter().position(|file| file.name == *name);
            let kept = number.map_or(Rule::NONE, |number| replay.rule_at(number, offset));
            let whole = table.rule_at(offset);
            // Where no frame of what is kept is counted from the second register, nothing is said of it.
            let same = Rule { other: whole.other, ..kept } == whole;
            if !same {
                let message = format!("{name}+{offset:#x}: {whole:?}, but {kept:?} by what is kept of it");
                return Err(io::Error::other(message));
            }
        }
        Ok(())
    }
}

struct Live<'a> {
    world: &'a World,
    stopped: &'a Stopped,
}

impl Host for Live<'_> {
    fn read_window(&self, walk: &mut Walk, address: u64) -> bool {
        replay::read_window(walk, address, |address| self.read_word(address))
    }

    fn read_word(&self, address: u64) -> Option<u64> {
        let word = self.stopped.word(address)?;
        self.world.memory.borrow_mut().insert(address, word);
        Some(word)
    }

    fn map(&self, walk: &mut Walk, slot: usize, address: u64) -> bool {
        let found = self.world.mapping(address);
        if let Some(mapping) = found {
            walk.mappings[slot] = mapping;
        }
        found.is_some()
    }

    fn rule(&self, mapping: &Mapping, offset: u64) -> Rule {
        self.world.files[mapping.file as usize - 1].table.rule_at(offset)
    }
}

/// Words of one line of a case's memory.
const LINE_WORDS: usize = 4;

/// Memory as a case has it.
fn memory_lines(words: &BTreeMap<u64, u64>) -> BTreeMap<Hex, String> {
    let mut lines: Vec<(u64, Vec<String>)> = Vec::new();
    for (address, word) in words {
        let word = format!("{word:x}");
        match lines.last_mut() {
            Some((start, line)) if line.len() < LINE_WORDS && *start + 8 * line.len() as u64 == *address => {
                line.push(word);
            }
            _ => lines.push((*address, vec![word])),
        }
    }
    lines.into_iter().map(|(address, line)| (Hex(address), line.join(" "))).collect()
}

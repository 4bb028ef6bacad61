//! Names frames, file by file.

use std::collections::BTreeMap;

use chokepoint_analysis::names::INCOMPLETE;
use chokepoint_analysis::profile::{Module, ModuleKind};

use super::{Found, module};
use crate::address::{AbsoluteAddress, FileOffset};
use crate::aggregate::{Aggregate, RawFrame, cause};
use crate::process::binaries::{Binary, BinaryId};
use crate::process::table::{Process, ProcessId};
use crate::symbolize::{BinarySymbols, JitSymbols, Note, SourceLine, SymbolizeError, Symbolized, Symbolizer};

/// What some of the aggregate's frames are, by their positions; `None` for the others.
pub(crate) fn name_frames(
    aggregate: &Aggregate,
    symbolizer: &mut Symbolizer,
    wanted: impl Iterator<Item = usize>,
    notes: &mut Vec<String>,
) -> Vec<Option<Found>> {
    let frames = Frames::of(aggregate, wanted);
    let mut naming = Naming { found: Vec::new(), remarks: BTreeMap::new() };
    naming.found.resize_with(aggregate.frames().len(), || None);

    for (index, address) in frames.unmapped {
        naming.found[index] = Some(Found::new(unknown(), address, Vec::new()));
    }
    for (index, cause) in frames.missing {
        let function = format!("{INCOMPLETE}{cause}]");
        let lines = vec![SourceLine { function, file: String::new(), line: 0 }];
        naming.found[index] = Some(Found::new(unknown(), 0, lines));
    }
    naming.kernel(symbolizer, &frames.kernel);
    naming.vdso(symbolizer, &frames.vdso);
    for (id, frames) in &frames.binaries {
        naming.binary(symbolizer, aggregate.binaries().get(*id), frames);
    }
    for (id, frames) in &frames.jit {
        naming.jit(symbolizer, aggregate.processes().get(*id), frames);
    }
    notes.extend(naming.remarks.into_iter().map(|(what, files)| match files {
        0 => what,
        1 => format!("1 file {what}"),
        files => format!("{files} files {what}"),
    }));
    naming.found
}

/// Frames by where they are looked up, each with its position among the aggregate's.
#[derive(Default)]
struct Frames {
    kernel: Vec<(usize, AbsoluteAddress)>,
    vdso: Vec<(usize, FileOffset)>,
    binaries: BTreeMap<BinaryId, Vec<(usize, FileOffset)>>,
    jit: BTreeMap<ProcessId, Vec<(usize, AbsoluteAddress)>>,
    unmapped: Vec<(usize, u64)>,
    missing: Vec<(usize, &'static str)>,
}

impl Frames {
    fn of(aggregate: &Aggregate, wanted: impl Iterator<Item = usize>) -> Self {
        let mut frames = Self::default();
        for index in wanted {
            match aggregate.frames()[index] {
                RawFrame::Kernel(address) => frames.kernel.push((index, AbsoluteAddress(address))),
                RawFrame::Vdso(offset) => frames.vdso.push((index, FileOffset(offset))),
                RawFrame::File(id, offset) => match aggregate.binaries().find(id) {
                    Some(binary) => {
                        frames.binaries.entry(binary).or_default().push((index, FileOffset(offset)));
                    }
                    None => frames.unmapped.push((index, offset)),
                },
                RawFrame::Jit(id, address) => {
                    frames.jit.entry(id).or_default().push((index, AbsoluteAddress(address)));
                }
                RawFrame::Unmapped(address) => frames.unmapped.push((index, address)),
                RawFrame::Missing(outcome) => {
                    frames.missing.push((index, cause(outcome).unwrap_or("depth limit")));
                }
            }
        }
        frames
    }
}

/// The frames that have been named so far.
struct Naming {
    found: Vec<Option<Found>>,
    /// What is less than it could be, and the number of files of which that is true; 0 where it is not about files.
    remarks: BTreeMap<String, u64>,
}

impl Naming {
    fn kernel(&mut self, symbolizer: &mut Symbolizer, frames: &[(usize, AbsoluteAddress)]) {
        if frames.is_empty() {
            return;
        }
        let symbols = symbolizer.kernel(&inputs(frames)).unwrap_or_else(|error| {
            self.remarks.insert(format!("kernel frames have no names: {error}"), 0);
            Vec::new()
        });
        for (position, (index, address)) in frames.iter().enumerate() {
            let symbol = symbols.get(position);
            let name = symbol.and_then(|symbol| symbol.module.as_deref()).unwrap_or("[kernel]");
            let lines = symbol.map(|symbol| symbol.lines.clone()).unwrap_or_default();
            self.found[*index] = Some(Found::new(module(ModuleKind::Kernel, name), address.0, lines));
        }
    }

    fn vdso(&mut self, symbolizer: &mut Symbolizer, frames: &[(usize, FileOffset)]) {
        if frames.is_empty() {
            return;
        }
        let symbols = symbolizer
            .vdso(&inputs(frames))
            .inspect_err(|error| {
                self.remarks.insert(format!("vDSO frames have no names: {error}"), 0);
            })
            .ok();
        self.file(module(ModuleKind::Vdso, "[vdso]"), frames, symbols);
    }

    fn binary(&mut self, symbolizer: &mut Symbolizer, binary: &Binary, frames: &[(usize, FileOffset)]) {
        // Files that could not be opened are remarked on where that happened.
        let symbols = binary.file.as_ref().and_then(|file| {
            symbolizer
                .binary(file, &binary.path, &binary.root, &inputs(frames))
                .inspect_err(|error| {
                    tracing::debug!(path = %binary.path.display(), %error, "binary cannot be symbolized");
                    *self.remarks.entry(format!("without symbols: {error}")).or_default() += 1;
                })
                .ok()
        });
        for note in symbols.iter().flat_map(|symbols| &symbols.notes) {
            tracing::debug!(path = %binary.path.display(), ?note, "binary has less than it could have");
            *self.remarks.entry(describe(note).to_owned()).or_default() += 1;
        }
        let path = binary.path.to_string_lossy();
        self.file(module(ModuleKind::Binary, &path), frames, symbols);
    }

    /// Frames of one ELF image. An offset of which nothing is known stays what it is.
    fn file(&mut self, mut module: Module, frames: &[(usize, FileOffset)], symbols: Option<BinarySymbols>) {
        if let Some(symbols) = &symbols {
            module.build_id = symbols.build_id.as_bytes().to_vec();
        }
        let mut symbols = symbols.map(|symbols| symbols.symbols).unwrap_or_default().into_iter();
        for (index, offset) in frames {
            let symbol = symbols.next();
            let address =
                symbol.as_ref().and_then(|symbol| symbol.address).map_or(offset.0, |address| address.0);
            let lines = symbol.map(|symbol| symbol.lines).unwrap_or_default();
            self.found[*index] = Some(Found::new(module.clone(), address, lines));
        }
    }

    fn jit(&mut self, symbolizer: &mut Symbolizer, process: &Process, frames: &[(usize, AbsoluteAddress)]) {
        let addresses = inputs(frames);
        let dumped = process.jitdump().map(|file| symbolizer.jitdump(file, &addresses));
        let dumped = self.compiled("jitdump", dumped);
        let is_whole = !dumped.is_empty() && dumped.iter().all(|symbol| !symbol.lines.is_empty());
        let map = process.perf_map().filter(|_| !is_whole);
        let mapped = map.map(|file| symbolizer.perf_map(file, &addresses));
        let mapped = self.compiled("perf map", mapped);
        let (mut dumped, mut mapped) = (dumped.into_iter(), mapped.into_iter());
        for (index, address) in frames {
            let (dumped, mapped) = (dumped.next(), mapped.next());
            let known = dumped.filter(|symbol| !symbol.lines.is_empty()).or(mapped);
            let lines = known.map(|symbol| symbol.lines).unwrap_or_default();
            self.found[*index] = Some(Found::new(module(ModuleKind::Jit, "[jit]"), address.0, lines));
        }
    }

    /// What a file says of code compiled at run time, with remarks on what it does not say.
    fn compiled(
        &mut self,
        what: &str,
        symbols: Option<Result<JitSymbols, SymbolizeError>>,
    ) -> Vec<Symbolized<AbsoluteAddress>> {
        match symbols {
            None => Vec::new(),
            Some(Err(error)) => {
                self.remarks.insert(format!("a {what} could not be read: {error}"), 0);
                Vec::new()
            }
            Some(Ok(symbols)) => {
                if symbols.unread_bytes > 0 {
                    self.remarks.insert(format!("a {what} was too large to read in full"), 0);
                }
                symbols.symbols
            }
        }
    }
}

fn inputs<A: Copy>(frames: &[(usize, A)]) -> Vec<A> {
    frames.iter().map(|(_, address)| *address).collect()
}

fn unknown() -> Module {
    module(ModuleKind::Unknown, "[unknown]")
}

/// What is said of files in which this was met.
fn describe(note: &Note) -> &'static str {
    match note {
        Note::DebugInfoTooLarge => "without source lines: their debug information is too large",
        Note::DebugInfoDamaged(_) => "without source lines: their debug information is damaged",
        Note::SymbolsDamaged => "without symbols: their symbol tables are damaged",
        Note::DebugFilesOfOtherBuilds(_) => "whose separate debug files belong to other builds",
    }
}

//! The symbolizer: batches of addresses in, functions and lines out.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use blazesym::symbolize as blaze;

use super::cache::{self, Binary, Cache, Identity, Layer, Resident};
use super::debug_file;
use super::elf::{BuildId, Elf, ElfError, SHF_COMPRESSED, SHT_NOTE, SHT_PROGBITS};
use super::guard::{Fault, guarded};
use super::image::{self, Image, ImageError};
use super::jitdump;
use super::kernel::Kernel;
use super::known::{Answer, KnownFunctions};
use super::name;
use super::perf_map;
use super::places::{Meet, Places};
use super::scan::{self, Piece};
use super::symbols::{
    BinarySymbols, Counters, JitSymbols, Note, Options, SourceLine, SymbolizeError, Symbolized,
};
use super::vdso;
use crate::address::{AbsoluteAddress, FileOffset, VirtualOffset};
use crate::host::heap::return_free_memory;
use crate::unwind::GoFunctions;

/// How many addresses, in the order of the file, are looked up between two looks at the memory that costs. A look
/// costs microseconds; an address in a large unit of a debug build up to 2 MB.
const CHUNK: usize = 8;

/// Resident file pages beyond this are given back, within a batch and at its end.
const MAX_FILE_PAGES_BYTES: u64 = 8 << 20;

/// A symbol table is sorted by address, at 8 bytes a symbol: this is 5.6 million symbols and 45 MB of memory while
/// the file is in use. `librustc_driver` has 0.4 million.
const MAX_SYMBOL_TABLE_BYTES: u64 = 128 << 20;
/// Name of stubs through which a binary calls functions of others.
const LINKAGE: &str = "[plt]";

/// Finds functions and lines; keeps binaries open and indexed between batches, within bounds.
///
/// Lives on one thread. Batches are worth their while: what an address needs is mostly what its neighbours need.
///
/// Two attacks on it are not fended off, because blazesym offers no way and only a process of its own would: debug
/// information with thousands of functions inlined into each other, which real code does not have, overflows the
/// thread's stack; and a file larger than an image may be, whose owner rewrites its headers in the microseconds
/// between our look at them and blazesym's, can make blazesym open a file of the owner's choice or reserve too much.
pub struct Symbolizer {
    options: Options,
    engine: blaze::Symbolizer,
    cache: Cache,
    kernel: Kernel,
    vdso: Option<File>,
    /// Only where nothing but functions is asked for: lines and inlined functions differ within one.
    known: KnownFunctions,
    /// Where binaries are named by somebody else.
    places: Option<Places>,
    counters: Counters,
}

impl Symbolizer {
    /// Reads nothing yet.
    pub fn new(options: Options) -> Self {
        Self {
            engine: engine(&options),
            cache: Cache::new(options.cache_bytes, options.cache_binaries),
            options,
            kernel: Kernel::default(),
            vdso: None,
            known: KnownFunctions::default(),
            places: None,
            counters: Counters::default(),
        }
    }

    /// The same, but leaves naming what is in binaries to somebody else, who is told of each: their addresses have no lines.
    pub fn leaving_binaries(options: Options, meet: Meet) -> Self {
        Self { places: Some(Places::new(meet)), ..Self::new(options) }
    }

    /// Reads the kernel's symbols now. The first [`Symbolizer::kernel`] does so itself; a caller with time to spare
    /// before the first batch saves it 50 ms. BPF programs loaded later are found half a minute later.
    pub fn load_kernel(&mut self) -> Result<(), SymbolizeError> {
        self.kernel.load()
    }

    /// Kernel functions, those of modules and BPF programs (with net.core.bpf_jit_kallsyms) included.
    pub fn kernel(
        &mut self,
        addresses: &[AbsoluteAddress],
    ) -> Result<Vec<Symbolized<AbsoluteAddress>>, SymbolizeError> {
        self.kernel.symbolize(addresses)
    }

    /// Functions and lines in a mapped binary.
    ///
    /// The content is that of the open `file`, whatever is at its path by now. `path_in_process` and `root`, the
    /// `/proc/PID/root` of a process that maps it, only tell where to look for a separate debug file; neither needs
    /// to exist any more.
    pub fn binary(
        &mut self,
        file: &File,
        path_in_process: &Path,
        root: &Path,
        offsets: &[FileOffset],
    ) -> Result<BinarySymbols, SymbolizeError> {
        let metadata = regular(file)?;
        let identity = Identity::of(&metadata);
        if let Some(places) = &mut self.places {
            return places.of(file, identity, (path_in_process, root), offsets);
        }
        let mut answers: Vec<Option<Answer>> = vec![None; offsets.len()];
        if let Some(known) = self.known.file(identity) {
            answers = offsets.iter().map(|offset| known.answer(*offset)).collect();
            if answers.iter().all(Option::is_some) {
                let symbols = answers.into_iter().flatten().collect();
                return Ok(BinarySymbols {
                    build_id: known.build_id.clone(),
                    symbols,
                    notes: known.notes.clone(),
                });
            }
        }
        let unknown = offsets.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        let unknown: Vec<FileOffset> = unknown.map(|(offset, _)| *offset).collect();
        let mut binary = match self.cache.take(identity) {
            Some(binary) => binary,
            None => self.open(file, identity, Some((path_in_process, root)))?,
        };
        let looked_up = self.ask_layers(&mut binary, &unknown);
        let mut looked_up = looked_up.into_iter();
        let found = answers.into_iter().filter_map(|answer| answer.or_else(|| looked_up.next())).collect();
        let symbols =
            BinarySymbols { build_id: binary.build_id.clone(), symbols: found, notes: binary.notes.clone() };
        self.cache.put(binary);
        self.evict_surplus();
        Ok(symbols)
    }

    /// Functions of the vDSO, by their offset in it.
    pub fn vdso(&mut self, offsets: &[FileOffset]) -> Result<BinarySymbols, SymbolizeError> {
        let file = match &self.vdso {
            Some(file) => file.try_clone()?,
            None => self.vdso.insert(vdso::copy()?).try_clone()?,
        };
        let identity = Identity::of(&file.metadata()?);
        let mut binary = match self.cache.take(identity) {
            Some(binary) => binary,
            None => self.open(&file, identity, None)?,
        };
        let symbols = self.ask_layers(&mut binary, offsets);
        let build_id = binary.build_id.clone();
        self.cache.put(binary);
        Ok(BinarySymbols { build_id, symbols, notes: Vec::new() })
    }

    /// Functions compiled at run time, from the open `/tmp/perf-PID.map`.
    pub fn perf_map(
        &mut self,
        file: &File,
        addresses: &[AbsoluteAddress],
    ) -> Result<JitSymbols, SymbolizeError> {
        regular(file)?;
        let symbols = perf_map::symbolize(file, addresses)?;
        self.counters.perf_map_lines_skipped += symbols.skipped;
        self.counters.perf_map_bytes_unread += symbols.unread_bytes;
        Ok(symbols)
    }

    /// Functions compiled at run time, from an open file in perf's jitdump format.
    pub fn jitdump(
        &mut self,
        file: &File,
        addresses: &[AbsoluteAddress],
    ) -> Result<JitSymbols, SymbolizeError> {
        regular(file)?;
        let symbols = jitdump::symbolize(file, addresses)?;
        self.counters.jitdumps_damaged += symbols.skipped;
        self.counters.jitdump_bytes_unread += symbols.unread_bytes;
        Ok(symbols)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Opens a binary: decides which files will be asked for its symbols, best first.
    fn open(
        &mut self,
        file: &File,
        identity: Identity,
        place: Option<(&Path, &Path)>,
    ) -> Result<Binary, SymbolizeError> {
        let elf = Elf::read(file)?;
        let build_id = elf.build_id(file)?;
        self.counters.binaries += 1;
        let mut binary = Binary::new(identity, elf, build_id);

        let own = Rc::new(file.try_clone()?);
        if binary.elf.has_debug_info() {
            self.add_debug_info(&mut binary, &own, None, place);
        } else if let Some((path, root)) = place {
            let search = debug_file::find(file, &binary.elf, path, root, &self.options.debug_dirs);
            if search.rejected > 0 {
                self.counters.debug_files_rejected += search.rejected;
                binary.note(Note::DebugFilesOfOtherBuilds(search.rejected));
            }
            if let Some(found) = search.found {
                self.counters.debug_files += 1;
                let file = Rc::new(found.file);
                self.add_debug_info(&mut binary, &file, Some(&found.elf), Some((&found.path, root)));
                self.add_symbols(&mut binary, &file, Some(&found.elf));
            }
        }
        self.add_symbols(&mut binary, &own, None);
        if binary.elf.section(".symtab").is_none() {
            binary.go = GoFunctions::with_headers(file, &binary.elf);
            binary.cost_bytes += binary.go.as_ref().map_or(0, GoFunctions::bytes);
        }
        Ok(binary)
    }

    /// Adds the DWARF of the binary itself or of its debug file, unless nobody asks for it or it is too large.
    fn add_debug_info(
        &mut self,
        binary: &mut Binary,
        file: &Rc<File>,
        separate: Option<&Elf>,
        place: Option<(&Path, &Path)>,
    ) {
        let elf = separate.unwrap_or(&binary.elf);
        let Some(debug_info) = elf.section(".debug_info") else { return };
        if self.options.wants_functions_alone() || has_absurd_symbol_table(elf) {
            return;
        }
        if debug_info.size > self.options.max_debug_info_bytes {
            self.counters.debug_info_too_large += 1;
            return binary.note(Note::DebugInfoTooLarge);
        }
        // Whatever blazesym would unfold, or follow to another file, it gets without.
        let needs_image = elf.sections.iter().any(|section| {
            let links = [".gnu_debuglink", ".gnu_debugaltlink", ".debug_sup"];
            section.flags & SHF_COMPRESSED != 0 || links.contains(&section.name.as_str())
        });
        if !needs_image {
            return binary.layers.push(Layer { file: Rc::clone(file), dwarf: true, common: None });
        }
        let common = place.and_then(|(path, root)| self.common_image(file, elf, path, root));
        let image = image::Builder::new(elf).and_then(|mut builder| {
            builder.copy(elf, file, &image::DWARF_SECTIONS)?;
            builder.copy(elf, file, &image::SYMBOL_SECTIONS)?;
            if let Some((common, id)) = &common {
                let path = cache::path_of(&common.file);
                let link = [path.as_os_str().as_encoded_bytes(), b"\0", id.as_bytes()].concat();
                builder.add(".gnu_debugaltlink", SHT_PROGBITS, &link)?;
            }
            builder.finish()
        });
        match image {
            Ok(image) => self.add_image(binary, image, true, common.map(|(common, _)| common)),
            Err(ImageError::TooLarge) => {
                self.counters.debug_info_too_large += 1;
                binary.note(Note::DebugInfoTooLarge);
            }
            Err(error) => {
                self.counters.damaged += 1;
                binary.note(Note::DebugInfoDamaged(error.to_string()));
            }
        }
    }

    /// Adds the symbol tables of the binary itself or of its debug file.
    fn add_symbols(&mut self, binary: &mut Binary, file: &Rc<File>, separate: Option<&Elf>) {
        let elf = separate.unwrap_or(&binary.elf);
        if has_absurd_symbol_table(elf) {
            self.counters.damaged += 1;
            return binary.note(Note::SymbolsDamaged);
        }
        let mini_debug_info = match (elf.section(".symtab"), elf.section(".gnu_debugdata")) {
            (None, Some(mini_debug_info)) => mini_debug_info,
            (None, None) if elf.section(".dynsym").is_none() => return,
            _ => return binary.layers.push(Layer { file: Rc::clone(file), dwarf: false, common: None }),
        };
        let dynamic_symbols = |mut builder: image::Builder| {
            builder.copy(elf, file, &image::DYNAMIC_SYMBOL_SECTIONS)?;
            builder.finish()
        };
        let all_symbols = image::Builder::new(elf).and_then(|mut builder| {
            let unfolded = image::unfold_mini_debug_info(file, mini_debug_info)?;
            let unreadable = |error: ElfError| ImageError::Unreadable(io::Error::other(error.to_string()));
            let inner = Elf::read(&unfolded).map_err(unreadable)?;
            builder.copy(&inner, &unfolded, &image::SYMBOL_SECTIONS)?;
            dynamic_symbols(builder)
        });
        let (image, damage) = match all_symbols {
            Ok(image) => (Ok(image), None),
            // An image still, because blazesym would try to unfold the rest again.
            Err(error) => (image::Builder::new(elf).and_then(dynamic_symbols), Some(error)),
        };
        if let Some(error) = damage {
            self.counters.damaged += 1;
            binary.note(Note::DebugInfoDamaged(error.to_string()));
        }
        match image {
            Ok(image) => self.add_image(binary, image, false, None),
            Err(_) => binary.note(Note::SymbolsDamaged),
        }
    }

    fn add_image(&self, binary: &mut Binary, image: Image, dwarf: bool, common: Option<Image>) {
        binary.cost_bytes += image.bytes + common.as_ref().map_or(0, |common| common.bytes);
        let common = common.map(|common| Rc::new(common.file));
        binary.layers.push(Layer { file: Rc::new(image.file), dwarf, common });
    }

    /// What debug information has in common with others, and the id it is referred to by. Without it there are
    /// functions without names, which the symbol table then has, so that its failures are none.
    fn common_image(&self, file: &File, elf: &Elf, path: &Path, root: &Path) -> Option<(Image, BuildId)> {
        let found = debug_file::find_common(file, elf, path, root, &self.options.debug_dirs)?;
        let id = found.elf.gnu_build_id.clone()?;
        let mut builder = image::Builder::new(&found.elf).ok()?;
        builder.copy(&found.elf, &found.file, &image::DWARF_SECTIONS).ok()?;
        builder.add(".note.gnu.build-id", SHT_NOTE, &id.to_note()).ok()?;
        Some((builder.finish().ok()?, id))
    }

    /// What is at these offsets of a binary.
    fn ask_layers(
        &mut self,
        binary: &mut Binary,
        offsets: &[FileOffset],
    ) -> Vec<Symbolized<Option<VirtualOffset>>> {
        let addresses: Vec<_> = offsets.iter().map(|&offset| binary.elf.virtual_offset(offset)).collect();
        let mut sorted: Vec<u64> = addresses.iter().flatten().map(|address| address.0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let found = if self.options.wants_functions_alone() {
            self.functions(binary, &sorted)
        } else {
            self.functions_and_lines(binary, &sorted)
        };
        let lines = |address: Option<VirtualOffset>| {
            let at = address.and_then(|address| sorted.binary_search(&address.0).ok());
            at.map(|at| found[at].clone()).unwrap_or_default()
        };
        let symbolized =
            |address: Option<VirtualOffset>| Symbolized { address, module: None, lines: lines(address) };
        addresses.into_iter().map(symbolized).collect()
    }

    /// The function at each of the `sorted` addresses, by symbol tables alone.
    fn functions(&mut self, binary: &mut Binary, sorted: &[u64]) -> Vec<Vec<SourceLine>> {
        let linkage = |address: &u64| match binary.elf.linkage(*address) {
            Some(range) => Piece { range, function: Some(LINKAGE.to_owned()) },
            None => Piece::NOTHING,
        };
        let mut found: Vec<Piece> = sorted.iter().map(linkage).collect();
        let mut layers = std::mem::take(&mut binary.layers);
        layers.retain(|layer| {
            let open: Vec<usize> = (0..sorted.len()).filter(|&at| found[at].function.is_none()).collect();
            if open.is_empty() {
                return true;
            }
            let addresses: Vec<u64> = open.iter().map(|&at| sorted[at]).collect();
            match scan::look_up(&layer.file, &addresses) {
                Ok(pieces) => {
                    for (at, piece) in open.into_iter().zip(pieces) {
                        found[at] = std::mem::replace(&mut found[at], Piece::NOTHING).or(piece);
                    }
                    true
                }
                Err(error) => {
                    tracing::debug!(%error, "symbol tables");
                    self.counters.damaged += 1;
                    binary.note(Note::SymbolsDamaged);
                    false
                }
            }
        });
        binary.layers = layers;
        if let Some(go) = &binary.go {
            for (piece, &address) in
                found.iter_mut().zip(sorted).filter(|(piece, _)| piece.function.is_none())
            {
                // It does not tell where the function ends.
                *piece = Piece {
                    range: address..address.saturating_add(1),
                    function: go_function(go, address).map(|line| line.function),
                };
            }
        }
        self.known.opened(binary.identity, &binary.build_id, &binary.notes, binary.elf.code());
        for piece in &found {
            self.known.found(binary.identity, piece);
        }
        found
            .into_iter()
            .map(|piece| piece.function.into_iter().map(SourceLine::of_function).collect())
            .collect()
    }

    /// Functions at each of the `sorted` addresses, those that were inlined first, with their lines.
    fn functions_and_lines(&mut self, binary: &mut Binary, sorted: &[u64]) -> Vec<Vec<SourceLine>> {
        let images_bytes = binary.cost_bytes;
        let mut before = Resident::now();
        // A stub has no symbol, and the function before it often no size.
        let stub = |_| SourceLine::of_function(LINKAGE.to_owned());
        let known = |address: &u64| binary.elf.linkage(*address).map(stub).into_iter().collect();
        let mut found: Vec<Vec<SourceLine>> = sorted.iter().map(known).collect();
        let mut layers = std::mem::take(&mut binary.layers);
        layers.retain(|layer| {
            let open: Vec<usize> = (0..sorted.len()).filter(|&at| found[at].is_empty()).collect();
            if open.is_empty() {
                return true;
            }
            match self.ask(layer, sorted, &open, &mut found, before) {
                Ok(()) => true,
                Err(reason) => {
                    // Nothing is held of it any more; what it left behind is not the next layer's.
                    before = Resident::now();
                    self.counters.damaged += 1;
                    binary.note(match layer.dwarf {
                        true => Note::DebugInfoDamaged(reason),
                        false => Note::SymbolsDamaged,
                    });
                    false
                }
            }
        });
        binary.layers = layers;
        if let Some(go) = &binary.go {
            for (lines, &address) in found.iter_mut().zip(sorted).filter(|(lines, _)| lines.is_empty()) {
                lines.extend(go_function(go, address));
            }
        }
        let grown = Resident::now().anonymous_bytes.saturating_sub(before.anonymous_bytes);
        binary.cost_bytes = images_bytes + grown;
        found
    }

    /// Looks up those of the `sorted` addresses that are `open`, in one layer. After an error the layer is of no use.
    fn ask(
        &mut self,
        layer: &Layer,
        sorted: &[u64],
        open: &[usize],
        found: &mut [Vec<SourceLine>],
        before: Resident,
    ) -> Result<(), String> {
        let mut elf = blaze::source::Elf::new(cache::path_of(&layer.file));
        elf.debug_syms = layer.dwarf;
        let source = blaze::source::Source::Elf(elf);
        let mut file_pages_bytes = before.file_bytes;
        let mut anonymous_bytes = before.anonymous_bytes;
        // The first lookup in a file indexes all of it; what that touched is given back before the next.
        let (first, rest) = open.split_at(open.len().min(1));
        for chunk in [first].into_iter().chain(rest.chunks(CHUNK)) {
            let addresses: Vec<u64> = chunk.iter().map(|&at| sorted[at]).collect();
            let engine = &self.engine;
            let options = &self.options;
            let outcome = guarded(|| {
                let symbols = engine.symbolize(&source, blaze::Input::VirtOffset(&addresses))?;
                Ok(symbols.iter().map(|symbol| lines(symbol, options)).collect::<Vec<_>>())
            });
            match outcome {
                Ok(Ok(symbols)) => {
                    for (&at, lines) in chunk.iter().zip(symbols) {
                        found[at] = lines;
                    }
                }
                Ok(Err(error)) => {
                    self.forget(layer);
                    let error: blazesym::Error = error;
                    return Err(format!("{error:#}"));
                }
                Err(Fault::Panicked(message)) => {
                    self.counters.panics += 1;
                    self.reset();
                    return Err(message);
                }
                Err(Fault::FileShrank) => {
                    self.counters.shrunk += 1;
                    self.forget(layer);
                    return Err("the file was cut short while it was read".to_owned());
                }
            }
            let now = Resident::now();
            if now.anonymous_bytes.saturating_sub(anonymous_bytes) > self.options.cache_bytes {
                self.forget(layer);
                return_free_memory();
                anonymous_bytes = Resident::now().anonymous_bytes.max(before.anonymous_bytes);
            } else if now.file_bytes.saturating_sub(file_pages_bytes) > MAX_FILE_PAGES_BYTES {
                // Failing, it leaves memory resident that the kernel can take back any time.
                let _ = cache::release_file_pages(&layer.file);
                file_pages_bytes = Resident::now().file_bytes.max(before.file_bytes);
            }
        }
        Ok(())
    }

    /// Drops what blazesym holds of one file.
    fn forget(&mut self, layer: &Layer) {
        for file in [Some(&layer.file), layer.common.as_ref()].into_iter().flatten() {
            let evict = blaze::evict::Evict::Elf(blaze::evict::Elf::new(cache::path_of(file)));
            // There is no error for a path; were there one, a new engine has nothing of the file either.
            if self.engine.evict(&evict).is_err() {
                self.reset();
            }
        }
    }

    /// Drops all that blazesym holds, whose state after a panic is unknown.
    fn reset(&mut self) {
        self.engine = engine(&self.options);
        self.cache.clear();
    }

    fn evict_surplus(&mut self) {
        let mut freed = false;
        while let Some(binary) = self.cache.surplus() {
            binary.layers.iter().for_each(|layer| self.forget(layer));
            self.counters.evicted += 1;
            freed = true;
        }
        if freed {
            return_free_memory();
        }
    }
}

fn has_absurd_symbol_table(elf: &Elf) -> bool {
    let tables = [".symtab", ".dynsym"].map(|name| elf.section(name));
    tables.iter().flatten().any(|table| table.size > MAX_SYMBOL_TABLE_BYTES)
}

fn engine(options: &Options) -> blaze::Symbolizer {
    blaze::Symbolizer::builder()
        .enable_code_info(options.inlined || options.source_lines)
        .enable_inlined_fns(options.inlined)
        .enable_demangling(false)
        // Debug files are found by `debug_file`, within the right root.
        .set_debug_dirs(Some(Vec::<PathBuf>::new()))
        .build()
}

fn lines(symbol: &blaze::Symbolized<'_>, options: &Options) -> Vec<SourceLine> {
    let Some(symbol) = symbol.as_sym() else { return Vec::new() };
    let line = |function: &str, code: Option<&blaze::CodeInfo<'_>>| {
        let code = code.filter(|_| options.source_lines);
        SourceLine {
            function: name::function(function),
            file: code.map(|code| name::path(&code.to_path())).unwrap_or_default(),
            line: code.and_then(|code| code.line).unwrap_or(0),
        }
    };
    // Some DWARF names nothing, or has its names in a file that is not here; a symbol table may know better.
    if symbol.name.is_empty() {
        return Vec::new();
    }
    let inlined = symbol.inlined.iter().rev().map(|f| line(&f.name, f.code_info.as_ref()));
    let outer = line(&symbol.name, symbol.code_info.as_deref());
    inlined.chain([outer]).filter(|line| !line.function.is_empty()).collect()
}

/// The function by Go's own table, which has files and lines, too, in a form of its own.
fn go_function(go: &GoFunctions, address: u64) -> Option<SourceLine> {
    let function = name::function(&go.name(address)?);
    (!function.is_empty()).then(|| SourceLine::of_function(function))
}

fn regular(file: &File) -> Result<std::fs::Metadata, SymbolizeError> {
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok(metadata) } else { Err(SymbolizeError::NotRegular) }
}

//! The symbolizer: batches of addresses in, functions and lines out.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use blazesym::symbolize as blaze;

use super::cache::{self, Binary, Cache, Identity, Layer, Resident};
use super::debug_file;
use super::elf::{BuildId, Elf, ElfError, SHF_COMPRESSED};
use super::guard::{Fault, guarded};
use super::image::{self, Image, ImageError};
use super::kernel::Kernel;
use super::name;
use super::perf_map::{self, PerfMapSymbols};
use super::vdso;
use crate::address::{AbsoluteAddress, FileOffset, VirtualOffset};

/// How many addresses, in the order of the file, are looked up between two looks at the memory that costs. A look
/// costs microseconds; 32 addresses in distinct large units of a debug build cost up to 8 MB.
const CHUNK: usize = 32;

/// Resident file pages beyond this are given back, within a batch and at its end.
const MAX_FILE_PAGES_BYTES: u64 = 8 << 20;

/// A symbol table is sorted by address, at 8 bytes a symbol: this is 5.6 million symbols and 45 MB of memory while
/// the file is in use. `librustc_driver` has 0.4 million.
const MAX_SYMBOL_TABLE_BYTES: u64 = 128 << 20;

/// What to look for, where, and what it may cost.
#[derive(Clone, Debug)]
pub struct Options {
    /// Report the functions that were inlined at an address as frames of their own. On: without them a flame graph of
    /// optimised code blames callers, and they cost nothing beside the lines.
    pub inlined: bool,
    /// Report source files and lines. On.
    pub source_lines: bool,
    /// Where separate debug files are looked for, in each root.
    pub debug_dirs: Vec<PathBuf>,
    /// Binaries with more `.debug_info` than this, uncompressed, are symbolized from their symbol tables, with a
    /// [`Note`]. The first lookup reads the header of every unit, which takes about a second and makes about as much
    /// memory resident as there is `.debug_info`, for a moment. The default of 256 MB takes about 0.2 s.
    pub max_debug_info_bytes: u64,
    /// What binaries may cost in memory between batches.
    pub cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inlined: true,
            source_lines: true,
            debug_dirs: vec![PathBuf::from("/usr/lib/debug")],
            max_debug_info_bytes: 256 << 20,
            cache_bytes: 24 << 20,
        }
    }
}

/// A function, and where in its source an address is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceLine {
    /// The demangled name, without control characters.
    pub function: String,
    /// The source file as the compiler recorded it; empty where unknown.
    pub file: String,
    /// 0 where unknown.
    pub line: u32,
}

/// An address and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbolized<A> {
    /// The address.
    pub address: A,
    /// In the kernel, the module that it belongs to, as `[nf_tables]`, or `[bpf]`; else `None`.
    pub module: Option<Box<str>>,
    /// The function, preceded by those inlined into it, innermost first. Empty where nothing is known.
    pub lines: Vec<SourceLine>,
}

/// What is known of a batch of addresses in one binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinarySymbols {
    /// The build that was mapped.
    pub build_id: BuildId,
    /// Parallel to the offsets asked for. An offset that the loader maps nowhere has no address.
    pub symbols: Vec<Symbolized<Option<VirtualOffset>>>,
    /// Why there is less than there could be.
    pub notes: Vec<Note>,
}

/// Why a binary is symbolized with less than all it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Its debug information is over [`Options::max_debug_info_bytes`], or, compressed, unfolds to too much.
    DebugInfoTooLarge,
    /// Its debug information could not be read, for this reason.
    DebugInfoDamaged(String),
    /// Its symbol tables are larger than any real ones, or could not be read.
    SymbolsDamaged,
    /// This many separate debug files were in place but belong to another build.
    DebugFilesOfOtherBuilds(u64),
}

/// What happened since the symbolizer was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Binaries opened, again after eviction included.
    pub binaries: u64,
    /// Separate debug files in use.
    pub debug_files: u64,
    /// Separate debug files in place that belong to another build.
    pub debug_files_rejected: u64,
    /// Binaries whose debug information was left out for its size.
    pub debug_info_too_large: u64,
    /// Binaries of which debug information or symbols could not be read.
    pub damaged: u64,
    /// Panics of the parsers, each on a malformed file.
    pub panics: u64,
    /// Binaries that lost content while they were read.
    pub shrunk: u64,
    /// Binaries dropped from the cache.
    pub evicted: u64,
    /// Lines of perf maps that are not of the format.
    pub perf_map_lines_skipped: u64,
    /// Bytes of perf maps too large to read in full.
    pub perf_map_bytes_unread: u64,
}

/// Why nothing is known of a whole batch.
#[derive(Debug, thiserror::Error)]
pub enum SymbolizeError {
    /// A directory, pipe or device stands where a binary or a map should be.
    #[error("not a regular file")]
    NotRegular,
    /// What is mapped is not a binary.
    #[error("not an ELF file")]
    NotElf,
    /// The headers contradict themselves or the file.
    #[error("malformed ELF file: {0}")]
    Malformed(String),
    /// The file cannot be read.
    #[error("cannot read the file: {0}")]
    Io(#[from] io::Error),
    /// The kernel's symbols cannot be read.
    #[error("cannot read /proc/kallsyms: {0}")]
    Kernel(#[source] io::Error),
    /// `/proc/kallsyms` has no addresses.
    #[error(
        "the kernel hides its addresses; give the agent CAP_SYSLOG, or set kernel.kptr_restrict to 0 or 1 if it is 2"
    )]
    KernelAddressesHidden,
}

/// Finds functions and lines; keeps binaries open and indexed between batches, within bounds.
///
/// Lives on one thread. Batches are worth their while: what an address needs is mostly what its neighbours need.
pub struct Symbolizer {
    options: Options,
    engine: blaze::Symbolizer,
    cache: Cache,
    kernel: Kernel,
    vdso: Option<File>,
    counters: Counters,
}

impl Symbolizer {
    /// Reads nothing yet.
    pub fn new(options: Options) -> Self {
        Self {
            engine: engine(&options),
            cache: Cache::new(options.cache_bytes),
            options,
            kernel: Kernel::default(),
            vdso: None,
            counters: Counters::default(),
        }
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
        let before = Resident::now();
        let mut binary = match self.cache.take(identity) {
            Some(binary) => binary,
            None => self.open(file, identity, Some((path_in_process, root)))?,
        };
        let images_bytes = binary.cost_bytes;

        let found = self.symbolize(&mut binary, offsets, before);

        let grown = Resident::now().anonymous_bytes.saturating_sub(before.anonymous_bytes);
        binary.cost_bytes = images_bytes + grown;
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
        let symbols = self.symbolize(&mut binary, offsets, Resident::now());
        let build_id = binary.build_id.clone();
        self.cache.put(binary);
        Ok(BinarySymbols { build_id, symbols, notes: Vec::new() })
    }

    /// Functions compiled at run time, from the open `/tmp/perf-PID.map`.
    pub fn perf_map(
        &mut self,
        file: &File,
        addresses: &[AbsoluteAddress],
    ) -> Result<PerfMapSymbols, SymbolizeError> {
        regular(file)?;
        let symbols = perf_map::symbolize(file, addresses)?;
        self.counters.perf_map_lines_skipped += symbols.skipped_lines;
        self.counters.perf_map_bytes_unread += symbols.unread_bytes;
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
            self.add_debug_info(&mut binary, &own, None);
        } else if let Some((path, root)) = place {
            let search = debug_file::find(file, &binary.elf, path, root, &self.options.debug_dirs);
            if search.rejected > 0 {
                self.counters.debug_files_rejected += search.rejected;
                binary.note(Note::DebugFilesOfOtherBuilds(search.rejected));
            }
            if let Some(found) = search.found {
                self.counters.debug_files += 1;
                let file = Rc::new(found.file);
                self.add_debug_info(&mut binary, &file, Some(&found.elf));
                self.add_symbols(&mut binary, &file, Some(&found.elf));
            }
        }
        self.add_symbols(&mut binary, &own, None);
        Ok(binary)
    }

    /// Adds the DWARF of the binary itself or of its debug file, unless nobody asks for it or it is too large.
    fn add_debug_info(&mut self, binary: &mut Binary, file: &Rc<File>, separate: Option<&Elf>) {
        let elf = separate.unwrap_or(&binary.elf);
        let Some(debug_info) = elf.section(".debug_info") else { return };
        if !self.options.inlined && !self.options.source_lines || has_absurd_symbol_table(elf) {
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
            return binary.layers.push(Layer { file: Rc::clone(file), dwarf: true });
        }
        let image = image::Builder::new(elf).and_then(|mut builder| {
            builder.copy(elf, file, &image::DWARF_SECTIONS)?;
            builder.copy(elf, file, &image::SYMBOL_SECTIONS)?;
            builder.finish()
        });
        match image {
            Ok(image) => self.add_image(binary, image, true),
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
            _ => return binary.layers.push(Layer { file: Rc::clone(file), dwarf: false }),
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
            Ok(image) => self.add_image(binary, image, false),
            Err(_) => binary.note(Note::SymbolsDamaged),
        }
    }

    fn add_image(&self, binary: &mut Binary, image: Image, dwarf: bool) {
        binary.cost_bytes += image.bytes;
        binary.layers.push(Layer { file: Rc::new(image.file), dwarf });
    }

    fn symbolize(
        &mut self,
        binary: &mut Binary,
        offsets: &[FileOffset],
        before: Resident,
    ) -> Vec<Symbolized<Option<VirtualOffset>>> {
        let addresses: Vec<_> = offsets.iter().map(|&offset| binary.elf.virtual_offset(offset)).collect();
        let mut sorted: Vec<u64> = addresses.iter().flatten().map(|address| address.0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut found = vec![Vec::new(); sorted.len()];
        let mut layers = std::mem::take(&mut binary.layers);
        layers.retain(|layer| {
            let open: Vec<usize> = (0..sorted.len()).filter(|&at| found[at].is_empty()).collect();
            if open.is_empty() {
                return true;
            }
            match self.ask(layer, &sorted, &open, &mut found, before) {
                Ok(()) => true,
                Err(reason) => {
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
        let lines = |address: Option<VirtualOffset>| {
            let at = address.and_then(|address| sorted.binary_search(&address.0).ok());
            at.map(|at| found[at].clone()).unwrap_or_default()
        };
        let symbolized =
            |address: Option<VirtualOffset>| Symbolized { address, module: None, lines: lines(address) };
        addresses.into_iter().map(symbolized).collect()
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
        let path = layer.path();
        let mut elf = blaze::source::Elf::new(&path);
        elf.debug_syms = layer.dwarf;
        let source = blaze::source::Source::Elf(elf);
        let mut file_pages_bytes = before.file_bytes;
        let mut anonymous_bytes = before.anonymous_bytes;
        for chunk in open.chunks(CHUNK) {
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
                cache::return_free_memory();
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
        let evict = blaze::evict::Evict::Elf(blaze::evict::Elf::new(layer.path()));
        // There is no error for a path; were there one, a new engine has nothing of the file either.
        if self.engine.evict(&evict).is_err() {
            self.reset();
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
            cache::return_free_memory();
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

fn regular(file: &File) -> Result<std::fs::Metadata, SymbolizeError> {
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok(metadata) } else { Err(SymbolizeError::NotRegular) }
}

impl From<ElfError> for SymbolizeError {
    fn from(error: ElfError) -> Self {
        match error {
            ElfError::NotElf => Self::NotElf,
            ElfError::Io(error) => Self::Io(error),
            error => Self::Malformed(error.to_string()),
        }
    }
}

//! Sections copied into a sealed file of our own, decompressed where they are compressed.
//!
//! blazesym can decompress sections by itself, but believes what they say about their size and reads on until they
//! end: a kilobyte of a hostile file becomes gigabytes of the agent. It also follows links to other debug files by
//! path, and would open whatever a file names, as root. So it is built without any decompression and is never given
//! a file that asks for either. Instead it gets an [`Image`]: an ELF file in memory that holds just the sections it
//! needs, within a limit, and that nobody can change while it is mapped.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use chokepoint_symbols::unfold::{Range, UnfoldError, unfold};

use super::elf::{Elf, Section};

/// The most that one image may hold. Debian's compressed debug file of libc unfolds to 10 MB; the limit leaves room
/// for several times that and keeps the agent within its memory. What is larger is symbolized from symbol tables.
pub(super) const MAX_BYTES: u64 = 48 << 20;

/// The DWARF sections that functions, inlining and lines are read from; `.debug_loclists` and `.debug_macro`, often
/// a quarter of the whole, are not among them.
pub(super) const DWARF_SECTIONS: [&str; 11] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_aranges",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
    ".debug_types",
];

/// Each symbol table and the strings it needs.
pub(super) const SYMBOL_SECTIONS: [&str; 2] = [".symtab", ".strtab"];
pub(super) const DYNAMIC_SYMBOL_SECTIONS: [&str; 2] = [".dynsym", ".dynstr"];

/// A finished image.
pub(super) struct Image {
    pub(super) file: File,
    pub(super) bytes: u64,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error("the sections unfold to more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("cannot read a section: {0}")]
    Unreadable(io::Error),
    #[error("cannot make a file in memory: {0}")]
    Memory(io::Error),
    #[error(transparent)]
    Unfold(#[from] UnfoldError),
}

/// An image in the making.
pub(super) struct Builder {
    file: File,
    file_type: u16,
    machine: u16,
    end: u64,
    sections: Vec<(String, u32, u64, u64, u64)>,
}

impl Builder {
    /// Starts an image of the same kind of ELF file as `elf`.
    pub(super) fn new(elf: &Elf) -> Result<Self, ImageError> {
        if !elf.is_64_bit {
            return Err(UnfoldError::Class.into());
        }
        let file = memory_file(c"chokepoint-symbols").map_err(ImageError::Memory)?;
        let (file_type, machine) = (elf.file_type, elf.machine);
        Ok(Self { file, file_type, machine, end: HEADER_BYTES, sections: Vec::new() })
    }

    /// Copies those of the named sections that `elf` has.
    pub(super) fn copy(&mut self, elf: &Elf, from: &File, names: &[&str]) -> Result<(), ImageError> {
        for section in names.iter().filter_map(|name| elf.section(name)) {
            let start = self.end;
            let (mut stream, size) = unfold(from, section)?;
            self.append(&mut stream, size)?;
            let size = self.end - start;
            self.sections.push((section.name.clone(), section.kind, start, size, section.entry_size));
            self.end = self.end.next_multiple_of(16);
        }
        Ok(())
    }

    /// Adds a section of our own making, a few bytes long.
    pub(super) fn add(&mut self, name: &str, kind: u32, content: &[u8]) -> Result<(), ImageError> {
        let start = self.end;
        self.append(&mut &content[..], content.len() as u64)?;
        self.sections.push((name.to_owned(), kind, start, content.len() as u64, 0));
        self.end = self.end.next_multiple_of(16);
        Ok(())
    }

    /// Writes the headers and seals the file.
    pub(super) fn finish(self) -> Result<Image, ImageError> {
        let mut names = vec![0];
        let mut table = vec![0; SECTION_BYTES];
        let names_section = [(".shstrtab".to_owned(), SHT_STRTAB, self.end, 0, 0)];
        for (name, kind, offset, size, entry_size) in self.sections.iter().chain(&names_section) {
            let name_at = names.len() as u32;
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            let size = if *kind == SHT_STRTAB && size == &0 { names.len() as u64 } else { *size };
            table.extend(name_at.to_ne_bytes());
            table.extend(kind.to_ne_bytes());
            for word in [0, 0, *offset, size, 0, 1, *entry_size] {
                table.extend(word.to_ne_bytes());
            }
        }
        let names_at = self.end;
        let table_at = (names_at + names.len() as u64).next_multiple_of(16);
        let count = (table.len() / SECTION_BYTES) as u16;

        let mut header =
            vec![0x7f, b'E', b'L', b'F', 2, if cfg!(target_endian = "little") { 1 } else { 2 }, 1];
        header.resize(16, 0);
        header.extend(self.file_type.to_ne_bytes());
        header.extend(self.machine.to_ne_bytes());
        header.extend(1_u32.to_ne_bytes());
        for word in [0, 0, table_at] {
            header.extend(word.to_ne_bytes());
        }
        header.extend(0_u32.to_ne_bytes());
        for half in [HEADER_BYTES as u16, 56, 0, SECTION_BYTES as u16, count, count - 1] {
            header.extend(half.to_ne_bytes());
        }

        let write = |bytes: &[u8], at| self.file.write_all_at(bytes, at).map_err(ImageError::Memory);
        write(&header, 0)?;
        write(&names, names_at)?;
        write(&table, table_at)?;
        seal(&self.file).map_err(ImageError::Memory)?;
        Ok(Image { bytes: table_at + table.len() as u64, file: self.file })
    }

    /// Appends `size` bytes; the stream must have them.
    fn append(&mut self, from: &mut dyn Read, size: u64) -> Result<(), ImageError> {
        if size > MAX_BYTES.saturating_sub(self.end) {
            return Err(ImageError::TooLarge);
        }
        let copied = self.copy_stream(&mut from.take(size))?;
        if copied < size {
            return Err(ImageError::Unreadable(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    fn copy_stream(&mut self, from: &mut dyn Read) -> Result<u64, ImageError> {
        let mut buffer = vec![0; 64 << 10];
        let start = self.end;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(self.end - start),
                Ok(read) => {
                    self.file.write_all_at(&buffer[..read], self.end).map_err(ImageError::Memory)?;
                    self.end += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ImageError::Unreadable(error)),
            }
        }
    }
}

/// Unfolds the "mini debug info" that some distributions put into stripped files: an xz-compressed ELF file with a
/// symbol table of the functions that are not in `.dynsym`.
pub(super) fn unfold_mini_debug_info(from: &File, section: &Section) -> Result<File, ImageError> {
    // xz files made at the default level need 9 MB of working memory.
    const WORKING_MEMORY_BYTES: u64 = 32 << 20;
    let file = memory_file(c"chokepoint-mini-debug-info").map_err(ImageError::Memory)?;
    let stream = liblzma::stream::Stream::new_stream_decoder(WORKING_MEMORY_BYTES, 0)
        .map_err(|error| ImageError::Memory(error.into()))?;
    let mut decoder = liblzma::read::XzDecoder::new_stream(Range::of(from, section), stream);
    let copied = io::copy(&mut decoder.by_ref().take(MAX_BYTES + 1), &mut &file);
    match copied.map_err(ImageError::Unreadable)? {
        bytes if bytes > MAX_BYTES => Err(ImageError::TooLarge),
        _ => Ok(file),
    }
}

/// An unnamed file in memory with this content, sealed.
pub(crate) fn memory_file_of(content: &[u8]) -> io::Result<File> {
    let mut file = memory_file(c"chokepoint-vdso")?;
    file.write_all(content)?;
    seal(&file)?;
    Ok(file)
}

const HEADER_BYTES: u64 = 64;
const SECTION_BYTES: usize = 64;
const SHT_STRTAB: u32 = 3;

fn memory_file(name: &std::ffi::CStr) -> io::Result<File> {
    // SAFETY: the name is a C string; the returned descriptor belongs to nobody else.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd)) }
    }
}

fn seal(file: &File) -> io::Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: an open descriptor and an integer argument.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(offset: u64, size: u64) -> Section {
        let (name, kind, flags, entry_size) = (".debug_info".to_owned(), 1, 0, 0);
        Section { name, kind, flags, address: 0, offset, size, entry_size }
    }

    #[test]
    fn sections_are_copied_whole_or_not_at_all() {
        let own = File::open("/proc/self/exe").unwrap();
        let length = own.metadata().unwrap().len();
        let mut elf = Elf::read(&own).unwrap();
        let copy = |elf: &Elf| {
            let mut builder = Builder::new(elf)?;
            builder.copy(elf, &own, &[".debug_info"])?;
            builder.finish()
        };
        elf.sections = vec![section(1000, 5000)];
        let image = copy(&elf).unwrap();
        let copied = Elf::read(&image.file).unwrap();
        let section_of_copy = copied.section(".debug_info").unwrap();
        let (mut expected, mut found) = (vec![0; 5000], vec![0; 5000]);
        own.read_exact_at(&mut expected, 1000).unwrap();
        image.file.read_exact_at(&mut found, section_of_copy.offset).unwrap();
        assert_eq!((section_of_copy.size, found), (5000, expected));
        // Sealed: what blazesym maps cannot shrink or change under it.
        assert!(image.file.write_at(b"x", 0).is_err() && image.file.set_len(0).is_err());

        elf.sections = vec![section(length - 10, 11)];
        assert!(matches!(copy(&elf), Err(ImageError::Unreadable(_))));
        elf.sections = vec![section(u64::MAX - 5, 11)];
        assert!(matches!(copy(&elf), Err(ImageError::Unreadable(_))));
        elf.sections = vec![section(0, MAX_BYTES)];
        assert!(matches!(copy(&elf), Err(ImageError::TooLarge)));
    }
}

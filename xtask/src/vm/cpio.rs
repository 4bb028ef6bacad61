//! Writes the archive format that the kernel unpacks into its first root file system: cpio, "newc".

use std::{
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// An archive being written. Parents must come before what they hold.
pub struct Archive<W> {
    out: W,
    /// Every entry needs one of its own, or the kernel takes entries for hard links of each other.
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &Path, permissions: u32) -> io::Result<()> {
        self.header(path, DIRECTORY | permissions, 0)
    }

    /// Adds a symbolic link to `target`.
    pub fn symlink(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        self.bytes(path, SYMLINK | 0o777, target.as_os_str().as_bytes())
    }

    /// Adds a file that holds `contents`.
    pub fn contents(&mut self, path: &Path, permissions: u32, contents: &[u8]) -> io::Result<()> {
        self.bytes(path, REGULAR | permissions, contents)
    }

    /// Adds a file of `size` bytes that are read from `source`.
    pub fn file(&mut self, path: &Path, permissions: u32, size: u64, source: impl Read) -> io::Result<()> {
        self.header(path, REGULAR | permissions, size)?;
        let copied = io::copy(&mut source.take(size), &mut self.out)?;
        if copied < size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter meanwhile"));
        }
        self.pad(size)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.header(Path::new("TRAILER!!!"), 0, 0)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn bytes(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.header(path, mode, bytes.len() as u64)?;
        self.out.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn header(&mut self, path: &Path, mode: u32, size: u64) -> io::Result<()> {
        let size = u32::try_from(size)
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "the archive holds files below 4 GB"))?;
        // The kernel unpacks relative to its root.
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes();
        let name_size = name.len() + 1;
        self.inode += 1;
        let (inode, links) = (self.inode, if mode & DIRECTORY == DIRECTORY { 2 } else { 1 });
        write!(
            self.out,
            "070701{inode:08X}{mode:08X}{uid:08X}{gid:08X}{links:08X}{mtime:08X}{size:08X}{device:016X}\
             {special_device:016X}{name_size:08X}{checksum:08X}",
            uid = 0,
            gid = 0,
            mtime = 0,
            device = 0,
            special_device = 0,
            checksum = 0,
        )?;
        self.out.write_all(name)?;
        self.out.write_all(&[0])?;
        self.pad((HEADER_BYTES + name_size) as u64)
    }

    /// Fills up to a multiple of four after `written` bytes.
    fn pad(&mut self, written: u64) -> io::Result<()> {
        let padding = written.next_multiple_of(4) - written;
        self.out.write_all(&[0; 3][..padding as usize])
    }
}

const HEADER_BYTES: usize = 110;

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: name, mode, inode and contents of each entry.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let hex = std::str::from_utf8(&bytes[6 + index * 8..14 + index * 8]).unwrap();
                u32::from_str_radix(hex, 16).unwrap()
            };
            let (inode, mode, size, name_size) = (field(0), field(1), field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&bytes[HEADER_BYTES..HEADER_BYTES + name_size]).unwrap();
            let name = name.strip_suffix('\0').expect("names end with a zero").to_owned();
            let start = (HEADER_BYTES + name_size).next_multiple_of(4);
            let contents = bytes[start..start + size].to_vec();
            bytes = &bytes[(start + size).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert_eq!(bytes, b"");
                return entries;
            }
            entries.push((name, mode, inode, contents));
        }
    }

    #[test]
    fn entries_of_every_kind_and_alignment_are_read_back() {
        let mut archive = Archive::new(Vec::new());
        archive.directory(Path::new("/usr"), 0o755).unwrap();
        archive.symlink(Path::new("/lib"), Path::new("usr/lib")).unwrap();
        for length in 0..9 {
            let name = format!("/usr/{}", "n".repeat(length + 1));
            archive.contents(Path::new(&name), 0o755, &b"contents"[..length.min(8)]).unwrap();
        }
        archive.file(Path::new("/usr/file"), 0o644, 5, &b"12345678"[..]).unwrap();

        let entries = read(&archive.finish().unwrap());
        assert_eq!(entries[0], ("usr".to_owned(), 0o040_755, 1, vec![]));
        assert_eq!(entries[1], ("lib".to_owned(), 0o120_777, 2, b"usr/lib".to_vec()));
        for length in 0..9 {
            let (name, mode, _, contents) = &entries[2 + length];
            assert_eq!(*name, format!("usr/{}", "n".repeat(length + 1)));
            assert_eq!(*mode, 0o100_755);
            assert_eq!(contents, &b"contents"[..length.min(8)]);
        }
        assert_eq!(entries[11], ("usr/file".to_owned(), 0o100_644, 12, b"12345".to_vec()));
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_packed_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        let error = archive.file(Path::new("/short"), 0o644, 10, &b"12345"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

//! Reads `/proc/PID/maps`. Its text is hostile input: the paths are the process's own.

use std::ops::Range;
use std::path::PathBuf;

/// The most text that is read of one process: about 80,000 mappings. Linux allows 65,530 unless told otherwise.
pub const MAX_MAPS_BYTES: u64 = 8 << 20;

/// What an executable mapping is backed by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Backing {
    /// A file.
    File(FileIdentity),
    /// The kernel's page of code in every process.
    Vdso,
    /// Memory of no file, where a runtime puts the code it compiles.
    Anonymous,
}

/// Which file is mapped, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Device, major number.
    pub major: u32,
    /// Device, minor number.
    pub minor: u32,
    /// Inode number.
    pub inode: u64,
    /// Path in the process's mount namespace, without the ` (deleted)` that the kernel may append.
    pub path: PathBuf,
}

/// One executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses in the process.
    pub range: Range<u64>,
    /// Position in the file of the first address.
    pub file_offset: u64,
    /// What it maps.
    pub backing: Backing,
}

/// The executable mappings in the text of a maps file, in the order of their addresses. Lines that are not as the kernel
/// writes them are passed over.
#[must_use]
pub fn executable_mappings(text: &[u8]) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = text.split(|byte| *byte == b'\n').filter_map(parse_line).collect();
    // The kernel writes them in order; a file read in pieces while it changed may repeat some.
    mappings.sort_by_key(|mapping| mapping.range.start);
    mappings.dedup_by(|next, kept| next.range.start < kept.range.end);
    mappings
}

/// `start-end perms offset major:minor inode  path`
fn parse_line(line: &[u8]) -> Option<Mapping> {
    let line = String::from_utf8_lossy(line);
    let (range, rest) = line.split_once(' ')?;
    let (permissions, rest) = rest.split_once(' ')?;
    if permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let (file_offset, rest) = rest.split_once(' ')?;
    let (device, rest) = rest.split_once(' ')?;
    let (inode, path) = rest.split_once(' ').unwrap_or((rest, ""));
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let (start, end) = range.split_once('-')?;
    let range = hex(start)?..hex(end)?;
    if range.is_empty() {
        return None;
    }
    let (major, minor) = device.split_once(':')?;
    Some(Mapping {
        range,
        file_offset: hex(file_offset)?,
        backing: backing(
            u32::from_str_radix(major, 16).ok()?,
            u32::from_str_radix(minor, 16).ok()?,
            inode.parse().ok()?,
            path.trim_start(),
        ),
    })
}

fn backing(major: u32, minor: u32, inode: u64, path: &str) -> Backing {
    /// Files without a name in any file system, in which runtimes keep code they compile.
    const MEMORY_FILES: [&str; 4] = ["/memfd:", "/dev/zero", "/anon_hugepage", "/SYSV"];
    if path == "[vdso]" {
        Backing::Vdso
    } else if inode == 0 || MEMORY_FILES.iter().any(|prefix| path.starts_with(prefix)) {
        Backing::Anonymous
    } else {
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        Backing::File(FileIdentity { major, minor, inode, path: unescape(path).into() })
    }
}

/// Undoes the kernel's one escape in paths: a newline is written as `\012`.
fn unescape(path: &str) -> String {
    path.replace("\\012", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_lines_become_mappings() {
        let text = b"\
55d0c8a00000-55d0c8a02000 r--p 00000000 fe:00 1234                       /usr/bin/a b\n\
55d0c8a02000-55d0c8a06000 r-xp 00002000 fe:00 1234                       /usr/bin/a b\n\
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n\
7f0000002000-7f0000003000 r-xp 00001000 08:11 77                         /tmp/x\\012y (deleted)\n\
7f0000004000-7f0000005000 r-xs 00000000 00:01 9                          /memfd:doublemapper (deleted)\n\
7ffd3f9fe000-7ffd3fa00000 r-xp 00000000 00:00 0                          [vdso]\n";
        let file = |major, minor, inode, path: &str| {
            Backing::File(FileIdentity { major, minor, inode, path: path.into() })
        };
        let expected = [
            (0x55d0_c8a0_2000..0x55d0_c8a0_6000, 0x2000, file(0xfe, 0, 1234, "/usr/bin/a b")),
            (0x7f00_0000_0000..0x7f00_0000_1000, 0, Backing::Anonymous),
            (0x7f00_0000_2000..0x7f00_0000_3000, 0x1000, file(8, 0x11, 77, "/tmp/x\ny")),
            (0x7f00_0000_4000..0x7f00_0000_5000, 0, Backing::Anonymous),
            (0x7ffd_3f9f_e000..0x7ffd_3fa0_0000, 0, Backing::Vdso),
        ]
        .map(|(range, file_offset, backing)| Mapping { range, file_offset, backing });
        assert_eq!(executable_mappings(text), expected);
    }

    #[test]
    fn lines_that_are_not_the_kernels_are_passed_over() {
        for line in
            ["", "x", "1-2", "2-1 r-xp 0 0:0 0", "zz-ff r-xp 0 0:0 0", "1-2 r-xp 0 00 0", "1-2 r-xp 0 0:0 -1"]
        {
            assert_eq!(executable_mappings(line.as_bytes()), [], "{line}");
        }
    }

    #[test]
    fn overlapping_lines_keep_the_first() {
        let text = b"1000-3000 r-xp 0 0:0 0\n2000-4000 r-xp 0 0:0 0\n";
        assert_eq!(executable_mappings(text).len(), 1);
    }
}

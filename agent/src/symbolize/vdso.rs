//! The kernel's code in user memory: the vDSO has no file, but is the same in every 64-bit process.

use std::fs::{self, File};
use std::io;

use super::image;

/// The vDSO has two or three pages. This bounds the copy.
const MAX_BYTES: usize = 1 << 20;

/// Our own vDSO, copied into a file.
pub(crate) fn copy() -> io::Result<File> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let range = maps.lines().filter(|line| line.ends_with("[vdso]")).find_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
    });
    let Some((start, end)) = range.filter(|(start, end)| end - start <= MAX_BYTES) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "this kernel gives processes no vDSO"));
    };
    // SAFETY: the kernel maps the vDSO readable for as long as the process lives, and its code does not change.
    let content = unsafe { std::slice::from_raw_parts(start as *const u8, end - start) };
    image::memory_file_of(content)
}

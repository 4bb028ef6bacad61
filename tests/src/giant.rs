//! A library as large as the largest there are, most of it holes in the file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Functions of the library.
const FUNCTIONS: u64 = 2_000_000;
/// Bytes of each.
const FUNCTION_BYTES: u64 = 272;
/// Where the first one begins, in the file and in memory.
const CODE: u64 = 4096;
const FRAMES: u64 = CODE + FUNCTIONS * FUNCTION_BYTES;
/// What a function does first: `sub $24, %rsp`, and then it spins.
const SPIN: [u8; 6] = [0x48, 0x83, 0xec, 24, 0xeb, 0xfe];

const SECTION_NAMES: &[u8] = b"\0.text\0.eh_frame\0.shstrtab\0";

/// Writes the library, of 555 MB of which 60 are on the disk; returns the offset of its last function, which never returns.
///
/// # Errors
/// Where the file cannot be written.
pub fn write(path: &Path) -> io::Result<u64> {
    let last = CODE + (FUNCTIONS - 1) * FUNCTION_BYTES;
    let frames = frames();
    let names_at = FRAMES + frames.len() as u64;
    let sections_at = (names_at + SECTION_NAMES.len() as u64).next_multiple_of(8);
    let file = File::create(path)?;
    file.write_all_at(&header(sections_at), 0)?;
    file.write_all_at(&program_header(sections_at), 64)?;
    file.write_all_at(&SPIN, last)?;
    file.write_all_at(&frames, FRAMES)?;
    file.write_all_at(SECTION_NAMES, names_at)?;
    let mut sections = vec![0; 64];
    sections.extend(section(1, 1, 6, CODE, FUNCTIONS * FUNCTION_BYTES));
    sections.extend(section(7, 1, 2, FRAMES, frames.len() as u64));
    sections.extend(section(17, 3, 0, names_at, SECTION_NAMES.len() as u64));
    file.write_all_at(&sections, sections_at)?;
    (&file).flush()?;
    Ok(last)
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn header(sections_at: u64) -> Vec<u8> {
    bytes(&[
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        &3_u16.to_le_bytes(),  // a shared library
        &62_u16.to_le_bytes(), // x86-64
        &1_u32.to_le_bytes(),
        &[0; 8],
        &64_u64.to_le_bytes(),
        &sections_at.to_le_bytes(),
        &[0; 4],
        &64_u16.to_le_bytes(),
        &56_u16.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &64_u16.to_le_bytes(),
        &4_u16.to_le_bytes(),
        &3_u16.to_le_bytes(),
    ])
}

/// All of it is loaded, to be read and executed, where it is in the file.
fn program_header(size: u64) -> Vec<u8> {
    let words = [0, 0, 0, size, size, 4096_u64].map(u64::to_le_bytes).concat();
    bytes(&[&1_u32.to_le_bytes(), &5_u32.to_le_bytes(), &words])
}

fn section(name: u32, kind: u32, flags: u64, offset: u64, size: u64) -> Vec<u8> {
    let words = [flags, offset, offset, size, 0, 8, 0].map(u64::to_le_bytes).concat();
    bytes(&[&name.to_le_bytes(), &kind.to_le_bytes(), &words])
}

/// Call-frame information: each function makes room on the stack, and makes more of it twice.
fn frames() -> Vec<u8> {
    const COMMON: &[u8] = &[
        20, 0, 0, 0, // length
        0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1,
        0x1b, // addresses relative to themselves, four bytes
        0x0c, 7, 8, // CFA = rsp + 8
        0x90, 1, // return address at CFA - 8
        0, 0,
    ];
    let mut frames = COMMON.to_vec();
    for function in 0..FUNCTIONS {
        let start = frames.len() as u64;
        let address = CODE + function * FUNCTION_BYTES;
        frames.extend(28_u32.to_le_bytes());
        frames.extend((start as u32 + 4).to_le_bytes());
        frames.extend((address.wrapping_sub(FRAMES + start + 8) as u32).to_le_bytes());
        frames.extend((FUNCTION_BYTES as u32).to_le_bytes());
        // Advance by 4: CFA = rsp + 32. By 60, twice: + 48, + 64 + 8 * (0 to 7).
        let most = 64 + 8 * (function % 8) as u8;
        frames.extend([0, 0x44, 0x0e, 32, 0x7c, 0x0e, 48, 0x7c, 0x0e, most, 0, 0, 0, 0, 0, 0]);
    }
    frames.extend([0; 4]);
    frames
}

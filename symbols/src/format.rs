//! How the symbols of a build are written: some kilobytes for a small program, a few megabytes for a large one.
//!
//! ```text
//! zstd( "CPSYMBOL" version:u8 quality:u8 is_cut:u8 n(build id) bytes
//!       n(names) length*  n(bytes) bytes
//!       n(functions) { gap since the last end, length, name }*
//!       n(inlined) { gap since the last start, length, name, file + 1, line }*
//!       n(rows) { gap since the last start, file + 1, line }* )
//! ```
//! where n is how many follow, all numbers take seven bits a byte, and a file of 0 is none. Readers refuse what is longer than
//! they would write, or refers to what is not there.

use std::io::{self, Read, Write};

use thiserror::Error;

use crate::symbols::{
    Inlined, MAX_FUNCTIONS, MAX_INLINED, MAX_NAMES, MAX_ROWS, MAX_TEXT_BYTES, Named, Names, Quality, Row,
    Symbols,
};
use crate::varint::{put, take};

/// Bytes of symbols as they are written, at most.
pub const MAX_BYTES: u64 = 16 << 20;
/// Bytes of them uncompressed, at most.
const MAX_CONTENT_BYTES: u64 = 64 << 20;
const MAGIC: &[u8; 8] = b"CPSYMBOL";
const VERSION: u8 = 1;
const LEVEL: i32 = 3;
/// Bytes of a build id.
const MAX_BUILD_ID_BYTES: usize = 64;

/// Symbols that cannot be read.
#[derive(Debug, Error)]
pub enum FormatError {
    /// They do not decompress.
    #[error("they do not decompress: {0}")]
    Compression(#[from] io::Error),
    /// They are longer than any that are written.
    #[error("they are longer than any that are written")]
    TooLarge,
    /// They are not what the format says.
    #[error("they are no symbols: {0}")]
    Malformed(&'static str),
    /// They are of a version that is not known here.
    #[error("they are of version {0} of the format, and known is version {VERSION}")]
    Version(u8),
}

impl Symbols {
    /// As they are written.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] where nobody would read them, and where there is no memory.
    pub fn write(&self) -> Result<Vec<u8>, FormatError> {
        let mut writer = Writer::new()?;
        writer.bytes(MAGIC)?;
        writer.bytes(&[VERSION, self.quality as u8, u8::from(self.is_cut)])?;
        writer.number(self.build_id.len() as u64)?;
        writer.bytes(&self.build_id)?;
        writer.number(self.names.ends.len() as u64)?;
        let mut before = 0;
        for end in &self.names.ends {
            writer.number(u64::from(end - before))?;
            before = *end;
        }
        writer.number(self.names.text.len() as u64)?;
        writer.bytes(self.names.text.as_bytes())?;
        let file = |number: u32| u64::from(number.wrapping_add(1));
        writer.number(self.functions.len() as u64)?;
        let mut before = 0;
        for function in &self.functions {
            writer.number(function.start - before)?;
            writer.number(function.end - function.start)?;
            writer.number(u64::from(function.name))?;
            before = function.end;
        }
        writer.number(self.inlined.len() as u64)?;
        let mut before = 0;
        for inlined in &self.inlined {
            writer.number(inlined.start - before)?;
            writer.number(inlined.end - inlined.start)?;
            writer.number(u64::from(inlined.name))?;
            writer.number(file(inlined.call_file))?;
            writer.number(u64::from(inlined.call_line))?;
            before = inlined.start;
        }
        writer.number(self.rows.len() as u64)?;
        let mut before = 0;
        for row in &self.rows {
            writer.number(row.start - before)?;
            writer.number(file(row.file))?;
            writer.number(u64::from(row.line))?;
            before = row.start;
        }
        writer.finish()
    }

    /// Reads what [`Symbols::write`] wrote, or whatever else somebody sends as that.
    ///
    /// # Errors
    /// Where it is anything else.
    pub fn read(compressed: &[u8]) -> Result<Self, FormatError> {
        if compressed.len() as u64 > MAX_BYTES {
            return Err(FormatError::TooLarge);
        }
        let mut content = Vec::new();
        let mut decoder = zstd::Decoder::new(compressed)?;
        // What is written has no larger window: this much is allocated.
        decoder.window_log_max(23)?;
        decoder.take(MAX_CONTENT_BYTES + 1).read_to_end(&mut content)?;
        if content.len() as u64 > MAX_CONTENT_BYTES {
            return Err(FormatError::TooLarge);
        }
        Self::of_content(&content)
    }

    fn of_content(content: &[u8]) -> Result<Self, FormatError> {
        let malformed = FormatError::Malformed;
        let rest = content.strip_prefix(MAGIC).ok_or(malformed("the beginning is missing"))?;
        let (head, mut rest) = rest.split_first_chunk::<3>().ok_or(malformed("the beginning is missing"))?;
        let [version, quality, is_cut] = *head;
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let quality = Quality::of_number(quality.into()).ok_or(malformed("their quality is not known"))?;
        let build_id = bytes(&mut rest, MAX_BUILD_ID_BYTES)?.to_vec();
        if build_id.is_empty() {
            return Err(malformed("the build id is missing"));
        }
        let names = names(&mut rest)?;
        let count = names.ends.len() as u64;
        let name = |number: u64| (number < count).then_some(number as u32);
        // 0 becomes the number of no file.
        let file = |number: u64| (number <= count).then(|| (number as u32).wrapping_sub(1));
        let mut before = 0_u64;
        let functions = list(&mut rest, MAX_FUNCTIONS, |rest| {
            let start = before.checked_add(take(rest)?)?;
            let end = start.checked_add(take(rest)?)?;
            before = end;
            Some(Named { start, end, name: name(take(rest)?)? })
        })?;
        let mut before = 0_u64;
        let inlined = list(&mut rest, MAX_INLINED, |rest| {
            let start = before.checked_add(take(rest)?)?;
            before = start;
            let end = start.checked_add(take(rest)?)?;
            let (name, call_file) = (name(take(rest)?)?, file(take(rest)?)?);
            Some(Inlined { start, end, name, call_file, call_line: take(rest)?.try_into().ok()? })
        })?;
        let mut before = 0_u64;
        let rows = list(&mut rest, MAX_ROWS, |rest| {
            let start = before.checked_add(take(rest)?)?;
            before = start;
            Some(Row { start, file: file(take(rest)?)?, line: take(rest)?.try_into().ok()? })
        })?;
        if !rest.is_empty() {
            return Err(malformed("something follows their end"));
        }
        Ok(Self { build_id, quality, is_cut: is_cut != 0, names, functions, inlined, rows })
    }
}

/// Compresses as it is written to, so that what is uncompressed is never there as a whole.
struct Writer {
    /// What was not compressed yet.
    buffer: Vec<u8>,
    compressor: zstd::Encoder<'static, Vec<u8>>,
    /// What was.
    content_bytes: u64,
}

impl Writer {
    /// From how much on it is compressed.
    const FULL_BYTES: usize = 64 << 10;

    fn new() -> io::Result<Self> {
        Ok(Self { buffer: Vec::new(), compressor: zstd::Encoder::new(Vec::new(), LEVEL)?, content_bytes: 0 })
    }

    fn number(&mut self, number: u64) -> Result<(), FormatError> {
        put(&mut self.buffer, number);
        if self.buffer.len() >= Self::FULL_BYTES { self.compress() } else { Ok(()) }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        for part in bytes.chunks(Self::FULL_BYTES) {
            self.buffer.extend(part);
            self.compress()?;
        }
        Ok(())
    }

    fn compress(&mut self) -> Result<(), FormatError> {
        self.content_bytes += self.buffer.len() as u64;
        self.compressor.write_all(&self.buffer)?;
        self.buffer.clear();
        let is_small =
            self.content_bytes <= MAX_CONTENT_BYTES && self.compressor.get_ref().len() as u64 <= MAX_BYTES;
        if is_small { Ok(()) } else { Err(FormatError::TooLarge) }
    }

    fn finish(mut self) -> Result<Vec<u8>, FormatError> {
        self.compress()?;
        let compressed = self.compressor.finish()?;
        if compressed.len() as u64 > MAX_BYTES { Err(FormatError::TooLarge) } else { Ok(compressed) }
    }
}

fn bytes<'b>(rest: &mut &'b [u8], limit: usize) -> Result<&'b [u8], FormatError> {
    let length = take(rest).ok_or(FormatError::Malformed("a length is missing"))?;
    let length =
        usize::try_from(length).ok().filter(|length| *length <= limit).ok_or(FormatError::TooLarge)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(FormatError::Malformed("they are cut short"))?;
    *rest = after;
    Ok(bytes)
}

fn names(rest: &mut &[u8]) -> Result<Names, FormatError> {
    let mut end = 0_u64;
    let ends = list(rest, MAX_NAMES, |rest| {
        end = end.checked_add(take(rest)?)?;
        u32::try_from(end).ok()
    })?;
    let text = bytes(rest, MAX_TEXT_BYTES)?;
    let text = std::str::from_utf8(text).map_err(|_| FormatError::Malformed("a name is no text"))?;
    if text.contains(char::is_control) {
        return Err(FormatError::Malformed("a name has control characters"));
    }
    let is_whole = ends.iter().all(|end| text.is_char_boundary(*end as usize));
    if !is_whole || end != text.len() as u64 {
        return Err(FormatError::Malformed("names end where none do"));
    }
    Ok(Names { text: text.to_owned(), ends })
}

fn list<T>(
    rest: &mut &[u8],
    limit: usize,
    mut entry: impl FnMut(&mut &[u8]) -> Option<T>,
) -> Result<Vec<T>, FormatError> {
    let count = take(rest).ok_or(FormatError::Malformed("a list is missing"))?;
    if count > limit as u64 {
        return Err(FormatError::TooLarge);
    }
    // Every entry takes a byte at least.
    let mut entries = Vec::with_capacity((count as usize).min(rest.len()));
    for _ in 0..count {
        entries.push(entry(rest).ok_or(FormatError::Malformed("an entry makes no sense"))?);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::{Builder, Function, NO_FILE};

    fn some() -> Symbols {
        let mut builder = Builder::new(vec![0xab; 20]);
        let function = |start: u64, name: &str| Function { range: start..start + 9, name: name.to_owned() };
        builder.fill(vec![function(0x1000, "main"), function(0x2000, "größe")], Quality::Functions);
        let name = builder.name("inlined").expect("there is room");
        builder.inline(Inlined { start: 0x1001, end: 0x1003, name, call_file: NO_FILE, call_line: 9 });
        let rows = [(0x1000, name, 3), (0x1008, NO_FILE, 0)];
        builder.lines(&rows.map(|(start, file, line)| Row { start, file, line }));
        builder.finish()
    }

    #[test]
    fn what_is_written_is_read() {
        let symbols = some();
        let written = symbols.write().expect("it is small");
        assert_eq!(Symbols::read(&written).expect("it was written"), symbols);
    }

    #[test]
    fn every_damage_is_an_error_or_other_symbols_and_never_a_panic() {
        let mut content = Vec::new();
        let written = some().write().expect("it is small");
        zstd::Decoder::new(&*written).expect("it is").read_to_end(&mut content).expect("it was written");
        for length in 0..content.len() {
            assert!(Symbols::of_content(&content[..length]).is_err(), "{length}");
            for byte in [0, 0x7f, 0x80, 0xff] {
                let mut damaged = content.clone();
                damaged[length] = byte;
                if let Ok(symbols) = Symbols::of_content(&damaged) {
                    for address in [0, 0x1002, 0x2001, u64::MAX] {
                        let _ = symbols.at(address);
                    }
                    let _ = symbols.write();
                }
            }
        }
        assert!(Symbols::read(b"").is_err() && Symbols::read(&[0x28; 100]).is_err());
        let bomb = zstd::bulk::compress(&vec![0; MAX_CONTENT_BYTES as usize + 1], 1).expect("memory");
        assert!(matches!(Symbols::read(&bomb), Err(FormatError::TooLarge)));
    }
}

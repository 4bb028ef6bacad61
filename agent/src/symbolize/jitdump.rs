//! Functions compiled at run time, from the file in perf's jitdump format that a runtime writes: `jit-PID.dump`.
//!
//! A header, then records, each with its kind and length: code was loaded (with its name and the code itself), code was moved,
//! where the lines of the code loaded next are. As with a perf map, memory is reused and what was written last about an address
//! names it, and the file is read once per batch, checking each record against the addresses asked for. The code itself is passed
//! over. What was moved is known by a number only: where an address lies in such code, the records are read again for it.
//!
//! Format: `tools/perf/Documentation/jitdump-specification.txt` of Linux.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use super::name;
use super::symbols::{JitSymbols, SourceLine, Symbolized};
use crate::address::AbsoluteAddress;

/// Bytes that are read of one file for one batch, from its start: a record can only be found by the one before it. Code between
/// is passed over where it is long.
const MAX_READ_BYTES: u64 = 512 << 20;
/// Records that are looked at. A large server has some hundred thousand.
const MAX_RECORDS: u64 = 8 << 20;
/// What is read at a time.
const WINDOW_BYTES: usize = 16 << 10;
/// Names are cut far below it.
const MAX_NAME_BYTES: usize = 4096;
/// The lines of one function: a thousand of them with a path each. What is larger has no lines.
const MAX_LINES_BYTES: u64 = 1 << 20;

/// `JiTD` as a number, where the file has this machine's byte order.
const MAGIC: u32 = 0x4a69_5444;
const HEADER_BYTES: u64 = 40;
const RECORD_BYTES: u64 = 16;
const LOAD: u32 = 0;
const MOVE: u32 = 1;
const LINES: u32 = 2;
const CLOSE: u32 = 3;
/// Bytes before the name in a record of loaded code, and those of a record of moved code.
const LOAD_BYTES: u64 = RECORD_BYTES + 40;
const MOVE_BYTES: u64 = RECORD_BYTES + 48;
const LINES_BYTES: u64 = RECORD_BYTES + 16;
const LINE_BYTES: usize = 16;

/// V8 counts the addresses of lines from 64 bytes before the code, where perf's copy of it has an ELF header.
const V8_BEFORE_BYTES: u64 = 64;
/// How names begin that V8 gives to code with lines.
const V8_KINDS: [&[u8]; 5] = [b"JS:", b"Function:", b"LazyCompile:", b"Script:", b"Eval:"];

pub(super) fn symbolize(file: &File, addresses: &[AbsoluteAddress]) -> io::Result<JitSymbols> {
    let mut records = Records::new(file)?;
    let mut matches = Matches::new(addresses);
    while let Some(record) = records.next()? {
        matches.take(&record, &mut records)?;
    }
    let (skipped, unread_bytes) = (records.skipped, records.unread_bytes);
    if matches.has_moved() {
        records.rewind();
        while let Some(record) = records.next()? {
            matches.resolve(&record, &mut records)?;
        }
    }
    matches.find_lines(&mut records)?;
    Ok(JitSymbols { symbols: matches.finish(addresses), skipped, unread_bytes })
}

/// The file, record by record.
struct Records<'f> {
    file: &'f File,
    /// As long as it was at the start, or it might never end.
    length: u64,
    /// Place of the next record.
    at: u64,
    first: u64,
    window: Vec<u8>,
    window_at: u64,
    left_to_read: u64,
    left_records: u64,
    /// 1 if something is no record, so that what follows cannot be found.
    skipped: u64,
    unread_bytes: u64,
}

struct Record {
    kind: u32,
    at: u64,
    bytes: u64,
}

impl<'f> Records<'f> {
    fn new(file: &'f File) -> io::Result<Self> {
        let mut records = Self {
            file,
            length: file.metadata()?.len(),
            at: 0,
            first: 0,
            window: Vec::new(),
            window_at: 0,
            left_to_read: MAX_READ_BYTES,
            left_records: MAX_RECORDS,
            skipped: 0,
            unread_bytes: 0,
        };
        let header = records.bytes(0, HEADER_BYTES as usize)?.map(Fields);
        let bytes = header.filter(|header| header.u32(0) == MAGIC).map(|header| header.u32(8).into());
        match bytes.filter(|bytes| *bytes >= HEADER_BYTES) {
            Some(bytes) => records.first = bytes,
            None => {
                records.skipped = 1;
                records.first = records.length;
            }
        }
        records.at = records.first;
        Ok(records)
    }

    fn rewind(&mut self) {
        self.at = self.first;
        self.left_to_read = MAX_READ_BYTES;
        self.left_records = MAX_RECORDS;
    }

    /// `None` at the end, and at a record that the runtime is still writing.
    fn next(&mut self) -> io::Result<Option<Record>> {
        let at = self.at;
        let left = self.length.saturating_sub(at);
        if left < RECORD_BYTES {
            return Ok(None);
        }
        let may_go_on = self.left_records > 0;
        let head = self.bytes(at, RECORD_BYTES as usize)?.filter(|_| may_go_on).map(Fields);
        let Some(head) = head else {
            self.unread_bytes = left;
            return Ok(None);
        };
        let record = Record { kind: head.u32(0), at, bytes: head.u32(4).into() };
        if record.bytes < RECORD_BYTES {
            self.skipped = 1;
            return Ok(None);
        }
        if record.bytes > left || record.kind == CLOSE {
            return Ok(None);
        }
        self.left_records -= 1;
        self.at += record.bytes;
        Ok(Some(record))
    }

    /// These bytes of the file, at most a window; `None` where it ends before, or too much was read.
    fn bytes(&mut self, at: u64, count: usize) -> io::Result<Option<&[u8]>> {
        let held = |records: &Self| {
            let start = usize::try_from(at.checked_sub(records.window_at)?).ok()?;
            let end = start.checked_add(count)?;
            (end <= records.window.len()).then_some(start..end)
        };
        if held(self).is_none() {
            let room = self.length.saturating_sub(at).min(WINDOW_BYTES as u64);
            if room < count as u64 || room > self.left_to_read {
                return Ok(None);
            }
            self.left_to_read -= room;
            self.window.resize(room as usize, 0);
            self.window_at = at;
            if let Err(error) = self.file.read_exact_at(&mut self.window, at) {
                self.window.clear();
                // It was cut meanwhile.
                return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
            }
        }
        Ok(held(self).map(|range| &self.window[range]))
    }

    /// The text at this place, up to the zero behind it.
    fn text(&mut self, at: u64, end: u64) -> io::Result<Option<Vec<u8>>> {
        let room = end.saturating_sub(at).min(MAX_NAME_BYTES as u64) as usize;
        let Some(bytes) = self.bytes(at, room)? else { return Ok(None) };
        let length = bytes.iter().position(|byte| *byte == 0);
        Ok(length.filter(|length| *length > 0).map(|length| bytes[..length].to_vec()))
    }
}

/// Numbers at places that are known to be there.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&self, at: usize) -> u32 {
        self.0[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }

    fn u64(&self, at: usize) -> u64 {
        self.0[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }
}

/// The code that was last at an address.
#[derive(Clone)]
enum Code {
    Loaded(Loaded),
    /// The code with this number, which has been at `start` since.
    Moved {
        number: u64,
        start: u64,
    },
}

#[derive(Clone)]
struct Loaded {
    name: Rc<[u8]>,
    /// Of the first byte, when it was loaded.
    address: u64,
    /// And now.
    start: u64,
    /// Place and bytes of the record with its lines.
    lines: Option<(u64, u64)>,
    line: Option<(String, u32)>,
}

/// What is known of each address so far.
struct Matches {
    sorted: Vec<u64>,
    codes: Vec<Option<Code>>,
    /// The last record of lines: the code that it is about, its place and its bytes.
    lines: Option<(u64, u64, u64)>,
    /// Code that was moved, by its number.
    moved: HashMap<u64, Option<Loaded>>,
}

impl Matches {
    fn new(addresses: &[AbsoluteAddress]) -> Self {
        let mut sorted: Vec<u64> = addresses.iter().map(|address| address.0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        Self { codes: vec![None; sorted.len()], sorted, lines: None, moved: HashMap::new() }
    }

    fn take(&mut self, record: &Record, records: &mut Records<'_>) -> io::Result<()> {
        match record.kind {
            LOAD => {
                let Some(load) = Load::read(record, records)? else { return Ok(()) };
                let range = self.range(load.address, load.bytes);
                if !range.is_empty()
                    && let Some(loaded) = load.named(self.lines, records)?
                {
                    self.codes[range].fill(Some(Code::Loaded(loaded)));
                }
            }
            MOVE if record.bytes >= MOVE_BYTES => {
                let Some(fields) = records.bytes(record.at, MOVE_BYTES as usize)?.map(Fields) else {
                    return Ok(());
                };
                let (start, bytes, number) = (fields.u64(40), fields.u64(48), fields.u64(56));
                let range = self.range(start, bytes);
                self.codes[range].fill(Some(Code::Moved { number, start }));
            }
            LINES => self.note_lines(record, records)?,
            _ => {}
        }
        Ok(())
    }

    fn note_lines(&mut self, record: &Record, records: &mut Records<'_>) -> io::Result<()> {
        if record.bytes >= LINES_BYTES
            && let Some(fields) = records.bytes(record.at, LINES_BYTES as usize)?.map(Fields)
        {
            self.lines = Some((fields.u64(16), record.at, record.bytes));
        }
        Ok(())
    }

    /// The positions of the addresses in this code.
    fn range(&self, start: u64, bytes: u64) -> std::ops::Range<usize> {
        let end = start.saturating_add(bytes);
        let first = self.sorted.partition_point(|address| *address < start);
        first..first + self.sorted[first..].partition_point(|address| *address < end)
    }

    /// Whether some address is in code that was moved.
    fn has_moved(&mut self) -> bool {
        for code in self.codes.iter().flatten() {
            if let Code::Moved { number, .. } = code {
                self.moved.insert(*number, None);
            }
        }
        self.lines = None;
        !self.moved.is_empty()
    }

    /// Takes the name of code that was moved from where it was loaded.
    fn resolve(&mut self, record: &Record, records: &mut Records<'_>) -> io::Result<()> {
        match record.kind {
            LOAD => {
                let Some(load) = Load::read(record, records)? else { return Ok(()) };
                if let Some(slot) = self.moved.get_mut(&load.number)
                    && let Some(loaded) = load.named(self.lines, records)?
                {
                    *slot = Some(loaded);
                }
            }
            LINES => self.note_lines(record, records)?,
            _ => {}
        }
        Ok(())
    }

    /// Finds the line of each address, where there are any.
    fn find_lines(&mut self, records: &mut Records<'_>) -> io::Result<()> {
        for code in self.codes.iter_mut().flatten() {
            if let Code::Moved { number, start } = *code
                && let Some(Some(loaded)) = self.moved.get(&number)
            {
                *code = Code::Loaded(Loaded { start, ..loaded.clone() });
            }
        }
        records.left_to_read = MAX_READ_BYTES;
        // Addresses in the same code follow each other.
        let mut last: Option<((u64, u64), Vec<u8>)> = None;
        for (address, code) in self.sorted.iter().zip(&mut self.codes) {
            let Some(Code::Loaded(loaded)) = code else { continue };
            let Some((at, bytes)) = loaded.lines.filter(|(_, bytes)| *bytes <= MAX_LINES_BYTES) else {
                continue;
            };
            if last.as_ref().is_none_or(|(place, _)| *place != (at, bytes)) {
                if bytes > records.left_to_read {
                    break;
                }
                records.left_to_read -= bytes;
                let mut content = vec![0; bytes as usize];
                if records.file.read_exact_at(&mut content, at).is_err() {
                    continue;
                }
                last = Some(((at, bytes), content));
            }
            let is_v8 = V8_KINDS.iter().any(|kind| loaded.name.starts_with(kind));
            let before = if is_v8 { V8_BEFORE_BYTES } else { 0 };
            let wanted =
                address.wrapping_sub(loaded.start).wrapping_add(loaded.address).saturating_add(before);
            loaded.line = last.as_ref().and_then(|(_, content)| line_at(content, wanted));
        }
        Ok(())
    }

    fn finish(self, addresses: &[AbsoluteAddress]) -> Vec<Symbolized<AbsoluteAddress>> {
        let symbolize = |&address: &AbsoluteAddress| {
            let at = self.sorted.binary_search(&address.0).ok();
            let line = match at.and_then(|at| self.codes[at].as_ref()) {
                Some(Code::Loaded(loaded)) => {
                    let (file, line) = loaded.line.clone().unwrap_or_default();
                    Some(SourceLine { function: name::plain(&loaded.name), file, line })
                }
                Some(Code::Moved { .. }) | None => None,
            };
            Symbolized { address, module: None, lines: line.into_iter().collect() }
        };
        addresses.iter().map(symbolize).collect()
    }
}

/// A record of loaded code.
struct Load {
    address: u64,
    bytes: u64,
    number: u64,
    name_at: u64,
    end: u64,
}

impl Load {
    fn read(record: &Record, records: &mut Records<'_>) -> io::Result<Option<Self>> {
        if record.bytes <= LOAD_BYTES {
            return Ok(None);
        }
        let fields = records.bytes(record.at, LOAD_BYTES as usize)?.map(Fields);
        Ok(fields.map(|fields| Self {
            address: fields.u64(32),
            bytes: fields.u64(40),
            number: fields.u64(48),
            name_at: record.at + LOAD_BYTES,
            end: record.at + record.bytes,
        }))
    }

    /// With its name, and its lines if the last record of lines was about it.
    fn named(&self, lines: Option<(u64, u64, u64)>, records: &mut Records<'_>) -> io::Result<Option<Loaded>> {
        let Some(name) = records.text(self.name_at, self.end)? else { return Ok(None) };
        let lines = lines.filter(|(address, ..)| *address == self.address).map(|(_, at, bytes)| (at, bytes));
        Ok(Some(Loaded { name: name.into(), address: self.address, start: self.address, lines, line: None }))
    }
}

/// The file and line of an address, from a record of lines: those of the last entry at or before it.
fn line_at(record: &[u8], address: u64) -> Option<(String, u32)> {
    /// In place of a name: the one before.
    const SAME: &[u8] = &[0xff];
    let count = Fields(record).u64(24);
    let mut entries = &record[LINES_BYTES as usize..];
    let mut file: &[u8] = &[];
    let mut best: Option<(u64, &[u8], u32)> = None;
    for _ in 0..count {
        let Some((head, rest)) = entries.split_at_checked(LINE_BYTES) else { break };
        let Some(length) = rest.iter().position(|byte| *byte == 0) else { break };
        if &rest[..length] != SAME {
            file = &rest[..length];
        }
        entries = &rest[length + 1..];
        let start = Fields(head).u64(0);
        if start <= address && best.is_none_or(|(best, ..)| best <= start) {
            best = Some((start, file, Fields(head).u32(8)));
        }
    }
    best.map(|(_, file, line)| (name::plain(file), line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::file_of;

    /// What is known of an address: function, file and line.
    type Known<'a> = Option<(&'a str, &'a str, u32)>;

    /// A file in the format.
    struct Dump(Vec<u8>);

    impl Dump {
        fn new() -> Self {
            let mut header = Vec::new();
            for field in [MAGIC, 1, HEADER_BYTES as u32, 62, 0, 1] {
                header.extend(field.to_ne_bytes());
            }
            header.resize(HEADER_BYTES as usize, 0);
            Self(header)
        }

        fn record(mut self, kind: u32, fields: &[u64], rest: &[u8]) -> Self {
            let bytes = RECORD_BYTES as usize + 8 * fields.len() + rest.len();
            self.0.extend(kind.to_ne_bytes());
            self.0.extend((bytes as u32).to_ne_bytes());
            self.0.extend(0_u64.to_ne_bytes());
            self.0.extend(fields.iter().flat_map(|field| field.to_ne_bytes()));
            self.0.extend(rest);
            self
        }

        /// Code with 32 KiB of instructions, more than is read at a time.
        fn load(self, address: u64, bytes: u64, number: u64, name: &str) -> Self {
            let mut rest = name.as_bytes().to_vec();
            rest.push(0);
            rest.resize(32 << 10, 0x90);
            self.record(LOAD, &[0, address, address, bytes, number], &rest)
        }

        fn moved(self, from: u64, to: u64, bytes: u64, number: u64) -> Self {
            self.record(MOVE, &[0, to, from, to, bytes, number], &[])
        }

        fn lines(self, address: u64, lines: &[(u64, u32, &[u8])]) -> Self {
            let mut rest = Vec::new();
            for (at, line, file) in lines {
                rest.extend(at.to_ne_bytes());
                rest.extend(line.to_ne_bytes());
                rest.extend(0_u32.to_ne_bytes());
                rest.extend(*file);
                rest.push(0);
            }
            self.record(LINES, &[address, lines.len() as u64], &rest)
        }

        fn symbolize(&self, addresses: &[u64]) -> JitSymbols {
            let addresses: Vec<_> = addresses.iter().map(|address| AbsoluteAddress(*address)).collect();
            symbolize(&file_of(&self.0), &addresses).unwrap()
        }

        fn check(&self, expected: &[(u64, Known<'_>)]) {
            let addresses: Vec<u64> = expected.iter().map(|(address, _)| *address).collect();
            let found = self.symbolize(&addresses);
            assert_eq!((found.skipped, found.unread_bytes), (0, 0));
            for (symbol, (address, expected)) in found.symbols.iter().zip(expected) {
                let line = symbol.lines.first();
                let line = line.map(|line| (line.function.as_str(), line.file.as_str(), line.line));
                assert_eq!((symbol.address.0, line), (*address, *expected));
            }
        }
    }

    #[test]
    fn addresses_find_the_code_that_was_loaded_there_last() {
        let dump = Dump::new()
            .load(0x1000, 0x100, 1, "old")
            .load(0x2000, 0x10, 2, "other one")
            .load(0x1080, 0x100, 3, "new\x1b");
        let only = |name| Some((name, "", 0));
        dump.check(&[
            (0x107f, only("old")),
            (0x1080, only("new?")),
            (0x117f, only("new?")),
            (0x1180, None),
            (0xfff, None),
            (0x2008, only("other one")),
            (0x107f, only("old")),
        ]);
        Dump::new().check(&[(1, None)]);
        // What is behind the end, or not yet written, does not count.
        let mut cut = dump.record(CLOSE, &[], &[]).load(0x1000, 1, 4, "late");
        cut.check(&[(0x1000, only("old"))]);
        cut = Dump::new().load(0x1000, 1, 1, "whole").load(0x1000, 1, 2, "half");
        cut.0.truncate(cut.0.len() - 1);
        cut.check(&[(0x1000, only("whole"))]);
    }

    #[test]
    fn code_that_was_moved_keeps_its_name_and_lines() {
        let dump = Dump::new()
            .lines(0x1000, &[(0x1000, 7, b"/a.js"), (0x1020, 8, b"\xff"), (0x1030, 9, b"/b.js")])
            .load(0x1000, 0x40, 1, "moves")
            .load(0x3000, 0x40, 2, "stays")
            .moved(0x1000, 0x2000, 0x40, 1)
            .moved(0x2000, 0x5000, 0x40, 1)
            .moved(0x7000, 0x8000, 0x40, 77);
        dump.check(&[
            (0x1005, Some(("moves", "/a.js", 7))),
            (0x5000, Some(("moves", "/a.js", 7))),
            (0x5025, Some(("moves", "/a.js", 8))),
            (0x503f, Some(("moves", "/b.js", 9))),
            (0x3000, Some(("stays", "", 0))),
            (0x8000, None),
        ]);
    }

    #[test]
    fn lines_of_v8_begin_64_bytes_later() {
        let lines: &[(u64, u32, &[u8])] = &[(0x1040, 3, b"x.js"), (0x1050, 4, b"\xff")];
        let dump = Dump::new().lines(0x1000, lines).load(0x1000, 0x100, 1, "JS:*f x.js:3:1");
        let at = |line| Some(("JS:*f x.js:3:1", "x.js", line));
        dump.check(&[(0x1000, at(3)), (0x100f, at(3)), (0x1010, at(4)), (0x10ff, at(4))]);
        // Before the first line there is none.
        Dump::new().lines(0x1000, lines).load(0x1000, 0x100, 1, "f").check(&[(0x103f, Some(("f", "", 0)))]);
    }

    #[test]
    fn damaged_files_are_read_up_to_the_damage() {
        let dump = Dump::new().load(0x1000, 0x10, 1, "before").record(9, &[1, 2], b"unknown");
        let mut bad = dump.0.clone();
        bad.extend([0; 64]);
        let found = Dump(bad).symbolize(&[0x1000]);
        assert_eq!((found.skipped, found.symbols[0].lines[0].function.as_str()), (1, "before"));
        for content in [&b""[..], b"JiTD", &[0xff; 4096], &[0; 4096]] {
            let found = Dump(content.to_vec()).symbolize(&[0, 0x1000]);
            assert!(found.symbols.iter().all(|symbol| symbol.lines.is_empty()), "{content:?}");
        }
        // Records that are too short for what they are, and names without an end.
        let short = Dump::new()
            .record(LOAD, &[0, 1, 1], &[])
            .record(MOVE, &[0], &[])
            .record(LINES, &[0x1000], &[])
            .record(LOAD, &[0, 0x1000, 0x1000, 16, 1], b"no end")
            .lines(0x1000, &[(0, 1, b"f")])
            .record(LINES, &[0x1000, u64::MAX], &[1; 40])
            .load(0x1000, u64::MAX, 2, "named");
        short.check(&[(0x1000, Some(("named", "", 0))), (u64::MAX - 1, Some(("named", "", 0)))]);
    }

    #[test]
    fn a_file_of_any_size_is_read_in_bounded_time() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&Dump::new().0, 0).unwrap();
        // Each record leads as far ahead as one can.
        let mut at = HEADER_BYTES;
        for _ in 0..64 {
            file.write_all_at(&[9, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], at).unwrap();
            at += u64::from(u32::MAX);
        }
        file.set_len(1 << 42).unwrap();
        let found = symbolize(&file, &[AbsoluteAddress(1)]).unwrap();
        assert_eq!((found.skipped, found.symbols[0].lines.len()), (1, 0));
    }
}

//! Functions compiled at run time, from the map a runtime writes to `/tmp/perf-PID.map`.
//!
//! Each line is `START SIZE NAME`, hexadecimal without prefix, appended when a function is compiled. Code memory is
//! reused, so a later line replaces whatever it overlaps, in part or in whole: the last line that covers an address
//! names it. The map of a long-lived process has hundreds of thousands of lines and grows; instead of a table of
//! them, the file is read once per batch and each line is checked against the addresses asked for. Memory is then a
//! matter of the batch alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::name;
use super::symbols::{JitSymbols, SourceLine, Symbolized};
use crate::address::AbsoluteAddress;

/// The most that is read of one map, from its end, where the newest entries are: 64 MB are some 800,000 functions
/// and take about 0.2 s. A process may write as much as its disk holds.
const MAX_BYTES: u64 = 64 << 20;

/// A line beyond this is skipped; names are cut far below it.
const MAX_LINE_BYTES: usize = 64 << 10;

pub(super) fn symbolize(file: &File, addresses: &[AbsoluteAddress]) -> io::Result<JitSymbols> {
    let length = file.metadata()?.len();
    let unread_bytes = length.saturating_sub(MAX_BYTES);
    let mut matches = Matches::new(addresses);

    let mut buffer = vec![0; MAX_LINE_BYTES * 2];
    let (mut filled, mut at) = (0, unread_bytes);
    // The first line read may be the rest of one, and so may what follows a line that did not fit.
    let mut is_partial = unread_bytes > 0;
    loop {
        // A growing file is read to where it ended at the start, or it might never end.
        let room = (buffer.len() - filled).min(usize::try_from(length - at).unwrap_or(usize::MAX));
        let read = match file.read_at(&mut buffer[filled..filled + room], at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        at += read as u64;
        filled += read;
        let mut start = 0;
        while let Some(newline) = buffer[start..filled].iter().position(|&byte| byte == b'\n') {
            let line = &buffer[start..start + newline];
            start += newline + 1;
            if std::mem::take(&mut is_partial) {
                continue;
            }
            matches.line(line);
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        if read == 0 {
            if filled > 0 && !is_partial {
                matches.line(&buffer[..filled]);
            }
            break;
        }
        if filled >= MAX_LINE_BYTES {
            matches.skipped_lines += u64::from(!is_partial);
            is_partial = true;
            filled = 0;
        }
    }
    Ok(matches.finish(addresses, unread_bytes))
}

/// The last name seen for each address.
struct Matches {
    sorted: Vec<u64>,
    names: Vec<Option<Box<str>>>,
    skipped_lines: u64,
}

impl Matches {
    fn new(addresses: &[AbsoluteAddress]) -> Self {
        let mut sorted: Vec<u64> = addresses.iter().map(|address| address.0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        Self { names: vec![None; sorted.len()], sorted, skipped_lines: 0 }
    }

    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return;
        }
        let Some((start, size, name)) = parse(line) else {
            self.skipped_lines += 1;
            return;
        };
        let end = start.saturating_add(size);
        let first = self.sorted.partition_point(|&address| address < start);
        for (&address, slot) in self.sorted[first..].iter().zip(&mut self.names[first..]) {
            if address >= end {
                break;
            }
            *slot = Some(name::plain(name).into_boxed_str());
        }
    }

    fn finish(self, addresses: &[AbsoluteAddress], unread_bytes: u64) -> JitSymbols {
        let symbolize = |&address: &AbsoluteAddress| {
            let at = self.sorted.binary_search(&address.0).ok();
            let name = at.and_then(|at| self.names[at].as_deref());
            let line = |name: &str| SourceLine { function: name.to_owned(), file: String::new(), line: 0 };
            Symbolized { address, module: None, lines: name.map(line).into_iter().collect() }
        };
        let symbols = addresses.iter().map(symbolize).collect();
        JitSymbols { symbols, skipped: self.skipped_lines, unread_bytes }
    }
}

/// Some runtimes write `0x` before the numbers, though the format has none.
fn parse(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (start, rest) = number(line)?;
    let (size, name) = number(rest)?;
    (size > 0 && !name.is_empty()).then_some((start, size, name))
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let text = text.strip_prefix(b"0x").unwrap_or(text);
    let end = text.iter().position(|&byte| byte == b' ')?;
    let mut value = 0_u64;
    for &digit in &text[..end] {
        // At most 16 digits: more would be a number that no address has.
        value = (value >> 60 == 0).then_some(value << 4)? | u64::from(char::from(digit).to_digit(16)?);
    }
    (end > 0).then(|| (value, &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::file_of;

    /// The name of each address, and how many lines were skipped.
    fn check(content: &str, expected: &[(u64, Option<&str>)], skipped_lines: u64) {
        let addresses: Vec<_> = expected.iter().map(|&(address, _)| AbsoluteAddress(address)).collect();
        let result = symbolize(&file_of(content.as_bytes()), &addresses).unwrap();
        for (symbol, &(address, name)) in result.symbols.iter().zip(expected) {
            assert_eq!(symbol.address.0, address);
            assert_eq!(
                symbol.lines.first().map(|l| l.function.as_str()),
                name,
                "{address:#x} in {content:?}"
            );
        }
        assert_eq!(result.symbols.len(), expected.len());
        assert_eq!(result.skipped, skipped_lines, "{content:?}");
        assert_eq!(result.unread_bytes, 0);
    }

    #[test]
    fn addresses_find_their_functions() {
        let map = "2000 10 LazyCompile:~f /a b.js:1\n1000 100 py::main:/x.py\n3000 1 Interpreter";
        check(
            map,
            &[
                (0x2005, Some("LazyCompile:~f /a b.js:1")),
                (0x10ff, Some("py::main:/x.py")),
                (0x1100, None),
                (0xfff, None),
                (0x3000, Some("Interpreter")),
                (0x2005, Some("LazyCompile:~f /a b.js:1")),
                (u64::MAX, None),
            ],
            0,
        );
        check("", &[(1, None)], 0);
        check("0x1000 0x10 Foo::bar\r\n", &[(0x1001, Some("Foo::bar"))], 0);
    }

    #[test]
    fn the_last_line_that_covers_an_address_wins() {
        let map = "1000 100 old\n1000 20 newer\n1010 10 newest\n1000 8 last\n";
        let expected = [(0x1004, "last"), (0x100c, "newer"), (0x1018, "newest"), (0x1050, "old")];
        check(map, &expected.map(|(address, name)| (address, Some(name))), 0);
    }

    #[test]
    fn hostile_lines_are_skipped_and_counted() {
        let map = "\nnonsense\n1000\n1000 10\n1000 10 \nzz 10 name\n11112222333344445 1 toolong\n1000 0 empty\n\
                   -1 5 x\nffffffffffffffff ffffffffffffffff end\n1000 8 g\x1b[2Jood\x07\n";
        check(map, &[(0x1000, Some("g?[2Jood?")), (u64::MAX - 1, None)], 8);
        let long = format!("1000 10 {}\n2000 10 after\n", "x".repeat(300_000));
        check(&long, &[(0x1000, None), (0x2000, Some("after"))], 1);
        let binary = symbolize(&file_of(&[0xff; 200_000]), &[AbsoluteAddress(0)]).unwrap();
        assert!(binary.symbols[0].lines.is_empty());
    }

    #[test]
    fn the_end_of_a_huge_map_is_read() {
        let sparse = tempfile::tempfile().unwrap();
        sparse.write_all_at(b"1000 10 first\n", 0).unwrap();
        sparse.write_all_at(b"\n1000 10 last\n", MAX_BYTES + 1000).unwrap();
        let result = symbolize(&sparse, &[AbsoluteAddress(0x1000)]).unwrap();
        assert_eq!(result.symbols[0].lines[0].function, "last");
        assert_eq!(result.unread_bytes, 1014);
    }
}

//! Kernel functions, from `/proc/kallsyms`.
//!
//! The kernel spends most of the time of a first lookup on writing that file (some 45 ms for 120,000 symbols), so it
//! is read once and kept as a compact table of the functions alone: about 3 MB. blazesym's own reader keeps every
//! symbol in an allocation of its own, several times as much, and knows neither modules nor hidden addresses.
//! Function sizes are not in the file; a function reaches to the next symbol, data included.
//!
//! Modules and BPF programs come and go. Outside of the kernel's own text, an address that has no name has the file read again when the
//! table is older than [`RELOAD_AFTER`], or than twice the time before if that named nothing; one that has a name when it is older than
//! [`RELOAD_ALL_AFTER`], as another program may have taken the place of the one that is known.

use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::name;
use super::symbols::{SourceLine, SymbolizeError, Symbolized};
use crate::address::AbsoluteAddress;
use crate::host::heap::return_free_memory;

/// Reading the file again costs tens of milliseconds; twice a minute that is a tenth of a percent of one CPU.
const RELOAD_AFTER: Duration = Duration::from_secs(30);
/// Whoever samples all of a host meets BPF programs at every turn, if only its own.
const RELOAD_ALL_AFTER: Duration = Duration::from_secs(600);

/// A distribution kernel with all its modules loaded has some 300,000 functions.
const MAX_FUNCTIONS: usize = 2_000_000;
/// Those have 10 MB of names.
const MAX_NAMES_BYTES: usize = 64 << 20;

/// An address further than this past a symbol is not in that function: it lies in a gap between modules or BPF
/// programs. The largest real functions have some tens of kilobytes.
const MAX_FUNCTION_BYTES: u64 = 1 << 20;

/// The kernel's functions, read when first needed.
#[derive(Default)]
pub(super) struct Kernel {
    table: Option<(Table, Instant)>,
    pace: Pace,
}

/// How soon the file is read again for addresses without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace(Duration);

impl Default for Pace {
    fn default() -> Self {
        Self(RELOAD_AFTER)
    }
}

impl Pace {
    /// Whether a table of this age is to be read again, for addresses outside of the kernel's own text of which there are some, or some
    /// without a name.
    fn is_due(self, age: Duration, has_outside: bool, has_nameless: bool) -> bool {
        has_nameless && age > self.0 || has_outside && age > RELOAD_ALL_AFTER
    }

    /// Takes note of whether reading it named what had no name.
    fn reloaded(&mut self, named: bool) {
        self.0 = if named { RELOAD_AFTER } else { (2 * self.0).min(RELOAD_ALL_AFTER) };
    }
}

impl Kernel {
    pub(super) fn load(&mut self) -> Result<(), SymbolizeError> {
        if self.table.is_none() {
            self.read()?;
        }
        Ok(())
    }

    pub(super) fn symbolize(
        &mut self,
        addresses: &[AbsoluteAddress],
    ) -> Result<Vec<Symbolized<AbsoluteAddress>>, SymbolizeError> {
        self.load()?;
        let Some((table, read_at)) = &self.table else { unreachable!("loaded above") };
        let outside = addresses.iter().copied().filter(|&address| !table.is_core_text(address));
        let outside: Vec<AbsoluteAddress> = outside.collect();
        let has_nameless = |table: &Table| outside.iter().any(|&address| table.find(address).is_none());
        let was_nameless = has_nameless(table);
        // Failing, it leaves the table that was right some time ago.
        if self.pace.is_due(read_at.elapsed(), !outside.is_empty(), was_nameless) && self.read().is_ok() {
            let named = was_nameless && self.table.as_ref().is_some_and(|(table, _)| !has_nameless(table));
            self.pace.reloaded(named);
        }
        let Some((table, _)) = &self.table else { unreachable!("loaded above") };
        Ok(addresses.iter().map(|&address| table.symbolize(address)).collect())
    }

    fn read(&mut self) -> Result<(), SymbolizeError> {
        let file = File::open("/proc/kallsyms").map_err(SymbolizeError::Kernel)?;
        let table = Table::parse(file).map_err(SymbolizeError::Kernel)?;
        if table.entries.is_empty() {
            return Err(SymbolizeError::KernelAddressesHidden);
        }
        self.table = Some((table, Instant::now()));
        // What the vectors outgrew on their way.
        return_free_memory();
        Ok(())
    }
}

/// Symbols by address. A name is the text from its offset to the next newline: `name` or `name\tmodule`.
#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    names: Vec<u8>,
    text: Option<(u64, u64)>,
}

#[derive(Clone, Copy)]
struct Entry {
    address: u64,
    /// [`DATA`] where a symbol only ends the function before it.
    name_at: u32,
    preference: u8,
}

const DATA: u32 = u32::MAX;

impl Table {
    fn parse(mut from: impl Read) -> io::Result<Self> {
        let mut table = Self::default();
        let mut text = (None, None);
        let mut buffer = vec![0; 128 << 10];
        let mut filled = 0;
        loop {
            let read = from.read(&mut buffer[filled..])?;
            filled += read;
            let end = match buffer[..filled].iter().rposition(|&byte| byte == b'\n') {
                Some(newline) => newline + 1,
                None if read == 0 => filled,
                // A line longer than the buffer is no kernel symbol; it is dropped.
                None if filled == buffer.len() => {
                    filled = 0;
                    continue;
                }
                None => continue,
            };
            for line in buffer[..end].split(|&byte| byte == b'\n') {
                if let Some((address, kind, rest)) = parse_line(line) {
                    match rest {
                        b"_stext" => text.0 = Some(address),
                        b"_etext" => text.1 = Some(address),
                        _ => {}
                    }
                    table.add(address, kind, rest);
                }
            }
            buffer.copy_within(end..filled, 0);
            filled -= end;
            if read == 0 && filled == 0 {
                break;
            }
        }
        table.text = text.0.zip(text.1);
        // The best of the names of one address comes last, which is where a lookup ends.
        table.entries.sort_unstable_by_key(|entry| (entry.address, entry.preference));
        table.entries.dedup_by(|later, kept| {
            let same = later.address == kept.address;
            if same {
                *kept = *later;
            }
            same
        });
        table.entries.shrink_to_fit();
        table.names.shrink_to_fit();
        Ok(table)
    }

    fn add(&mut self, address: u64, kind: u8, name: &[u8]) {
        if address == 0 || self.entries.len() >= MAX_FUNCTIONS || self.names.len() >= MAX_NAMES_BYTES {
            return;
        }
        let is_function = matches!(kind, b't' | b'T' | b'w' | b'W' | b'i');
        // Markers of the padding before a function, never executed, would double the table.
        let is_padding = name.starts_with(b"__pfx_") || name.starts_with(b"__cfi_");
        if is_function && !is_padding {
            let name_at = self.names.len() as u32;
            self.names.extend_from_slice(name);
            self.names.push(b'\n');
            self.entries.push(Entry { address, name_at, preference: preference(kind, name) });
        } else if self.entries.last().is_some_and(|last| last.name_at != DATA) && !is_padding {
            // One symbol is enough to end a function; runs of data need no more.
            self.entries.push(Entry { address, name_at: DATA, preference: 0 });
        }
    }

    fn is_core_text(&self, address: AbsoluteAddress) -> bool {
        self.text.is_some_and(|(start, end)| (start..end).contains(&address.0))
    }

    /// The function that holds an address.
    fn find(&self, address: AbsoluteAddress) -> Option<Entry> {
        let after = self.entries.partition_point(|entry| entry.address <= address.0);
        let entry = self.entries[after.checked_sub(1)?];
        (entry.name_at != DATA && address.0 - entry.address < MAX_FUNCTION_BYTES).then_some(entry)
    }

    fn symbolize(&self, address: AbsoluteAddress) -> Symbolized<AbsoluteAddress> {
        let mut symbolized = Symbolized { address, module: None, lines: Vec::new() };
        let Some(entry) = self.find(address) else { return symbolized };
        let text = &self.names[entry.name_at as usize..];
        let text = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let mut parts = text.splitn(2, |byte| byte.is_ascii_whitespace());
        let function = name::function(&name::plain(parts.next().unwrap_or_default()));
        symbolized.module = parts.next().map(|module| name::plain(module.trim_ascii()).into_boxed_str());
        symbolized.lines.push(SourceLine::of_function(function));
        symbolized
    }
}

/// `ffffffff81000000 T _stext` or `ffffffffc0001000 t nft_do_chain\t[nf_tables]`.
fn parse_line(line: &[u8]) -> Option<(u64, u8, &[u8])> {
    let digits = line.iter().position(|&byte| byte == b' ')?;
    let mut address = 0_u64;
    for &digit in &line[..digits] {
        address = address.checked_mul(16)? | u64::from(char::from(digit).to_digit(16)?);
    }
    let kind = *line.get(digits + 1)?;
    let name = line.get(digits + 3..)?;
    (!name.is_empty()).then_some((address, kind, name))
}

/// Of several names of one address, the one a reader knows: a global symbol before a local one and a weak one, one
/// without leading underscores before one with, and section markers last.
fn preference(kind: u8, name: &[u8]) -> u8 {
    let binding = match kind {
        b'T' => 2,
        b't' => 1,
        _ => 0,
    };
    let underscores = name.iter().take_while(|&&byte| byte == b'_').count().min(4) as u8;
    let is_marker =
        [&b"_start"[..], b"_end", b"_stext", b"_text", b"_etext"].iter().any(|m| name.ends_with(m));
    if is_marker { binding } else { 16 + (4 - underscores) * 3 + binding }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000100 T do_one
ffffffff81000100 t __do_one
ffffffff810001f0 t __pfx_schedule
ffffffff81000200 T schedule
ffffffff81000200 T __schedule_start
ffffffff81000280 T wake_up
ffffffff81000280 T __wake_up
ffffffff81000300 T _etext
ffffffff82000000 D some_data
ffffffff82000010 d more_data
ffffffffc0100000 t nft_do_chain\t[nf_tables]
ffffffffc0100080 t bpf_prog_0123456789abcdef_on_cpu\t[bpf]
";

    fn check(table: &Table, address: u64, function: Option<&str>, module: Option<&str>) {
        let symbolized = table.symbolize(AbsoluteAddress(address));
        assert_eq!(symbolized.lines.first().map(|line| line.function.as_str()), function, "{address:#x}");
        assert_eq!(symbolized.module.as_deref(), module, "{address:#x}");
    }

    #[test]
    fn addresses_find_the_function_that_holds_them() {
        let table = Table::parse(KALLSYMS.as_bytes()).unwrap();
        check(&table, 0xffff_ffff_8100_0100, Some("do_one"), None);
        check(&table, 0xffff_ffff_8100_01ff, Some("do_one"), None);
        check(&table, 0xffff_ffff_8100_0200, Some("schedule"), None);
        check(&table, 0xffff_ffff_8100_0281, Some("wake_up"), None);
        check(&table, 0xffff_ffff_8200_0005, None, None);
        check(&table, 0xffff_ffff_c010_007f, Some("nft_do_chain"), Some("[nf_tables]"));
        check(&table, 0xffff_ffff_c010_0090, Some("bpf_prog_0123456789abcdef_on_cpu"), Some("[bpf]"));
        // Far behind the last symbol, and before the first.
        check(&table, 0xffff_ffff_d000_0000, None, None);
        check(&table, 0x1000, None, None);
        assert!(table.is_core_text(AbsoluteAddress(0xffff_ffff_8100_0200)));
        assert!(!table.is_core_text(AbsoluteAddress(0xffff_ffff_c010_0000)));
    }

    #[test]
    fn the_file_is_read_again_for_what_has_no_name_and_less_often_where_that_is_of_no_use() {
        const SECOND: Duration = Duration::from_secs(1);
        let mut pace = Pace::default();
        assert!(!pace.is_due(RELOAD_AFTER, true, true));
        assert!(pace.is_due(RELOAD_AFTER + SECOND, true, true));
        assert!(!pace.is_due(RELOAD_ALL_AFTER, true, false));
        assert!(pace.is_due(RELOAD_ALL_AFTER + SECOND, true, false));
        assert!(!pace.is_due(Duration::MAX, false, false));
        pace.reloaded(false);
        assert!(!pace.is_due(2 * RELOAD_AFTER, true, true));
        assert!(pace.is_due(2 * RELOAD_AFTER + SECOND, true, true));
        for _ in 0..20 {
            pace.reloaded(false);
        }
        assert!(pace.is_due(RELOAD_ALL_AFTER + SECOND, true, true));
        pace.reloaded(true);
        assert_eq!(pace, Pace::default());
    }

    #[test]
    fn hidden_addresses_leave_an_empty_table() {
        let hidden: String =
            KALLSYMS.lines().map(|line| format!("0000000000000000{}\n", &line[16..])).collect();
        assert!(Table::parse(hidden.as_bytes()).unwrap().entries.is_empty());
    }

    #[test]
    fn lines_that_straddle_reads_are_whole() {
        struct Trickle<'a>(&'a [u8]);
        impl Read for Trickle<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = self.0.len().min(buffer.len()).min(7);
                buffer[..length].copy_from_slice(&self.0[..length]);
                self.0 = &self.0[length..];
                Ok(length)
            }
        }
        let table = Table::parse(Trickle(KALLSYMS.as_bytes())).unwrap();
        check(&table, 0xffff_ffff_8100_0200, Some("schedule"), None);
        check(&table, 0xffff_ffff_c010_0090, Some("bpf_prog_0123456789abcdef_on_cpu"), Some("[bpf]"));
        let unterminated = Table::parse(&b"ffffffff81000100 T do_one"[..]).unwrap();
        check(&unterminated, 0xffff_ffff_8100_0101, Some("do_one"), None);
        assert!(Table::parse(&b"zz\n\n 1\nffffffff81000100 T\n"[..]).unwrap().entries.is_empty());
    }
}

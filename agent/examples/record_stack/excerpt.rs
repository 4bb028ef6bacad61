//! The parts of a file that decide on the rules of some places in its code. Read by others than the agent's own readers,
//! but for Go's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;

use gimli::{BaseAddresses, CieOrFde, EndianSlice, LittleEndian, UnwindOffset, UnwindSection};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, SegmentFlags};

use crate::case::{Bytes, Excerpt, Go, GoFunction, Hex, Stretch};

/// Sections whose place or content tables depend on.
const SECTIONS: [&str; 8] =
    [".eh_frame", ".debug_frame", ".text", ".got", ".plt", ".plt.sec", ".plt.got", ".iplt"];
/// The longest stretch without call-frame information whose instructions are looked at, and some.
const MAX_GAP_BYTES: u64 = 112;

type Elf<'a> = ElfFile64<'a, object::LittleEndian, &'a ReadCache<File>>;

/// Takes them for these file offsets.
pub fn take(file: &File, offsets: &BTreeSet<u64>) -> Result<Excerpt, Box<dyn Error>> {
    let cache = ReadCache::new(file.try_clone()?);
    let elf = Elf::parse(&cache)?;
    let mut excerpt =
        Excerpt { build_id: elf.build_id()?.map(|id| Bytes(id.to_vec())), ..Excerpt::default() };
    for segment in elf.segments() {
        let SegmentFlags::Elf { p_flags } = segment.flags() else { continue };
        let (offset, bytes) = segment.file_range();
        if p_flags & object::elf::PF_X != 0 && bytes > 0 {
            let address = Hex(segment.address());
            excerpt.code.push(Stretch { address, offset: Hex(offset), bytes: Hex(bytes) });
        }
    }
    let addresses: BTreeSet<u64> = offsets
        .iter()
        .filter_map(|offset| excerpt.code.iter().find_map(|code| address_of(code, *offset)))
        .collect();
    for section in elf.sections() {
        let (Ok(name), Some((offset, bytes))) = (section.name(), section.file_range()) else { continue };
        if SECTIONS.contains(&name) && bytes > 0 {
            let stretch = Stretch { address: Hex(section.address()), offset: Hex(offset), bytes: Hex(bytes) };
            excerpt.sections.insert(name.to_owned(), stretch);
        }
    }
    if excerpt.sections.contains_key(".eh_frame") {
        excerpt.sections.remove(".debug_frame");
    }
    // The agent's reader takes Go's tables first, and from there on leaves their code out.
    excerpt.go = go(&elf, &addresses)?;
    let described = excerpt.go.iter().flat_map(|go| &go.functions);
    let described: Vec<_> = described.map(|function| function.start.0..function.end.0).collect();
    let is_described = |address: &u64| described.iter().any(|range| range.contains(address));
    let rest = addresses.iter().copied().filter(|address| !is_described(address)).collect();
    call_frames(&elf, file, &rest, &mut excerpt)?;
    Ok(excerpt)
}

/// The address of what is at this place in the file.
fn address_of(stretch: &Stretch, offset: u64) -> Option<u64> {
    let distance = offset.checked_sub(stretch.offset.0).filter(|distance| *distance < stretch.bytes.0)?;
    Some(stretch.address.0 + distance)
}

/// A function's entry: its code, its own place, and that of the entry it refers to.
struct Function {
    start: u64,
    end: u64,
    at: usize,
    common: usize,
}

fn call_frames(
    elf: &Elf<'_>,
    file: &File,
    addresses: &BTreeSet<u64>,
    excerpt: &mut Excerpt,
) -> Result<(), Box<dyn Error>> {
    let Some(name) =
        [".eh_frame", ".debug_frame"].into_iter().find(|name| excerpt.sections.contains_key(*name))
    else {
        return Ok(());
    };
    let section = elf.section_by_name(name).ok_or("a section is gone")?;
    let content = section.data()?;
    let address = |name: &str| excerpt.sections.get(name).map_or(0, |section| section.address.0);
    let bases = BaseAddresses::default()
        .set_eh_frame(section.address())
        .set_text(address(".text"))
        .set_got(address(".got"));
    let mut functions = if name == ".eh_frame" {
        functions(gimli::EhFrame::new(content, LittleEndian), &bases)
    } else {
        let mut section = gimli::DebugFrame::from(EndianSlice::new(content, LittleEndian));
        section.set_address_size(8);
        functions(section, &bases)
    };
    functions.sort_by_key(|function| function.start);
    let mut kept: BTreeMap<usize, usize> = BTreeMap::new();
    for address in addresses {
        let covering: Vec<_> =
            functions.iter().filter(|function| (function.start..function.end).contains(address)).collect();
        kept.extend(covering.iter().map(|function| (function.at, function.common)));
        if !covering.is_empty() {
            continue;
        }
        // What is between two functions may be guessed, from how much it is and from its instructions.
        let before =
            functions.iter().filter(|function| function.end <= *address).max_by_key(|function| function.end);
        let after = functions.iter().find(|function| function.start > *address);
        kept.extend(before.iter().chain(&after).map(|function| (function.at, function.common)));
        if let (Some(before), Some(after)) = (before, after)
            && after.start - before.end <= MAX_GAP_BYTES
            && let Some(code) =
                excerpt.code.iter().find(|code| before.end.wrapping_sub(code.address.0) < code.bytes.0)
        {
            let mut bytes = vec![0; (after.start - before.end) as usize];
            let offset = before.end - code.address.0 + code.offset.0;
            file.read_exact_at(&mut bytes, offset)?;
            excerpt.content.insert(Hex(offset), Bytes(bytes));
        }
    }
    for at in kept.iter().flat_map(|(at, common)| [*at, *common]) {
        let entry = entry(content, at).ok_or("an entry is cut short")?;
        excerpt.call_frames.insert(Hex(at as u64), Bytes(entry.to_vec()));
    }
    Ok(())
}

fn functions<'a, S: UnwindSection<EndianSlice<'a, LittleEndian>>>(
    section: S,
    bases: &BaseAddresses,
) -> Vec<Function> {
    let mut functions = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(entry) = entry else { continue };
        let common = UnwindOffset::into(entry.cie_offset());
        let Ok(function) = entry.parse(S::cie_from_offset) else { continue };
        let start = function.initial_address();
        if function.len() > 0 && start > 0 {
            functions.push(Function {
                start,
                end: start.saturating_add(function.len()),
                at: function.offset(),
                common,
            });
        }
    }
    functions
}

/// An entry with its length before it.
fn entry(content: &[u8], at: usize) -> Option<&[u8]> {
    let len = u32::from_le_bytes(*content.get(at..)?.first_chunk()?);
    let len = if len == u32::MAX {
        12 + u64::from_le_bytes(*content.get(at + 4..)?.first_chunk()?) as usize
    } else {
        4 + len as usize
    };
    content.get(at..at + len)
}

/// Go's functions at these addresses. Layout: `runtime/symtab.go` since Go 1.20.
fn go(elf: &Elf<'_>, addresses: &BTreeSet<u64>) -> Result<Option<Go>, Box<dyn Error>> {
    let names = [".gopclntab", ".data.rel.ro.gopclntab"];
    let Some(section) = names.iter().find_map(|name| elf.section_by_name(name)) else { return Ok(None) };
    let content = section.data()?;
    let short = "Go's tables are cut short";
    let word = |at: usize| content.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let wide = |at: usize| content.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    if word(0) != Some(0xffff_fff1) {
        return Err("only tables of Go 1.20 and later can be recorded".into());
    }
    let count = wide(8).ok_or(short)? as usize;
    let at = |number: usize| wide(24 + 8 * number).map(|at| at as usize).ok_or(short);
    let (names_at, distances_at, index_at) = (at(1)?, at(4)?, at(5)?);
    let symbol =
        || elf.symbols().find(|symbol| symbol.name() == Ok("runtime.text")).map(|symbol| symbol.address());
    let text = wide(24).filter(|text| *text != 0).or_else(symbol).ok_or("Go's code has no known place")?;
    let start_of = |number: usize| word(index_at + 8 * number).map(|start| text + u64::from(start));
    let mut functions: Vec<GoFunction> = Vec::new();
    // What a signal handler returns to begins a byte earlier for the agent.
    let addresses: BTreeSet<u64> = addresses.iter().flat_map(|address| [*address, address + 1]).collect();
    for address in &addresses {
        let (mut low, mut high) = (0, count);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if start_of(middle).ok_or(short)? <= *address { low = middle } else { high = middle }
        }
        let (start, end) = (start_of(low).ok_or(short)?, start_of(low + 1).ok_or(short)?);
        if !(start..end).contains(address) {
            continue;
        }
        let description = index_at + word(index_at + 8 * low + 4).ok_or(short)? as usize;
        let name = content.get(names_at + word(description + 4).ok_or(short)? as usize..).ok_or(short)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let pcsp = match word(description + 16).ok_or(short)? as usize {
            0 => Vec::new(),
            pcsp => distances(content.get(distances_at + pcsp..).ok_or(short)?).to_vec(),
        };
        functions.push(GoFunction {
            name: String::from_utf8_lossy(name).into_owned(),
            start: Hex(start),
            end: Hex(end),
            flag: *content.get(description + 41).ok_or(short)?,
            pcsp: Bytes(pcsp),
        });
    }
    functions.dedup();
    Ok((!functions.is_empty()).then_some(Go { text: Hex(text), functions }))
}

/// Pairs of numbers, up to a first one of a pair that is zero.
fn distances(bytes: &[u8]) -> &[u8] {
    let mut at = 0;
    for pair in 0.. {
        if pair > 0 && bytes.get(at) == Some(&0) {
            return &bytes[..=at];
        }
        for _ in 0..2 {
            while bytes.get(at).is_some_and(|byte| byte & 0x80 != 0) {
                at += 1;
            }
            at += 1;
        }
        if at >= bytes.len() {
            break;
        }
    }
    bytes
}

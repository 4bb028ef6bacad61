//! What the fuzzer calls with any bytes. The agent's tests call it with the corpus.

#[path = "../agent/src/unwind/tests/fixture.rs"]
mod fixture;

use std::io::Write;

use chokepoint::address::AbsoluteAddress;
use chokepoint::symbolize::{Options, Symbolizer};
use chokepoint::unwind::{GoFunctions, Table, build_from_bytes, cache};

/// `.eh_frame` of an otherwise sound file.
pub fn eh_frame(content: &[u8]) {
    for machine in [fixture::X86_64, fixture::AARCH64] {
        look_everywhere(&fixture::elf(machine, &[(".eh_frame", 0x50_0000, content)]));
    }
}

/// A whole file.
pub fn elf_table(content: &[u8]) {
    look_everywhere(content);
}

/// `.gopclntab` of an otherwise sound file.
pub fn gopclntab(content: &[u8]) {
    let content = fixture::elf(fixture::X86_64, &[(".gopclntab", 0x50_0000, content)]);
    look_everywhere(&content);
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&content).expect("space for it");
    if let Some(functions) = GoFunctions::open(&file) {
        for address in (0..64).map(|bit| 1 << bit).chain([fixture::CODE_ADDRESS]) {
            let name = functions.name(address).unwrap_or_default();
            assert!(name.len() <= 4096);
        }
    }
}

/// A file of the cache.
pub fn cache_file(content: &[u8]) {
    if let Some((key, table)) = cache::decode(content) {
        check(&table);
        assert_eq!(cache::decode(&cache::encode(&key, &table)), Some((key, table)));
    }
    // Behind the right checksum, too.
    if let Some((head, rest)) = content.split_at_checked(16) {
        let mut sealed = head[..12].to_vec();
        sealed.extend(crc32fast::hash(rest).to_le_bytes());
        sealed.extend(rest);
        if let Some((_, table)) = cache::decode(&sealed) {
            check(&table);
        }
    }
}

/// A file in perf's jitdump format. The corpus has its code at 0x1000.
pub fn jitdump(content: &[u8]) {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(content).expect("space for it");
    let addresses = (0..64).map(|bit| 1 << bit).chain([0x1008, 0x1010, u64::MAX]);
    let addresses: Vec<_> = addresses.map(AbsoluteAddress).collect();
    let found = Symbolizer::new(Options::default()).jitdump(&file, &addresses).expect("a regular file");
    assert_eq!(found.symbols.len(), addresses.len());
    for line in found.symbols.iter().flat_map(|symbol| &symbol.lines) {
        assert!(line.function.len() <= 1024 && line.file.len() <= 1024);
    }
}

fn look_everywhere(file: &[u8]) {
    if let Ok(table) = build_from_bytes(file) {
        check(&table);
    }
}

fn check(table: &Table) {
    assert!(table.check());
    for offset in (0..64).map(|bit| 1 << bit).chain([0, u64::MAX, fixture::CODE_OFFSET]) {
        let _ = table.rule_at(offset);
    }
}

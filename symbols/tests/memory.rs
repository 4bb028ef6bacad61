//! Memory that it takes to make symbols: what is read, and what may come of it, whatever the file has.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use chokepoint_symbols::elf::Elf;
use chokepoint_symbols::extract::{Extracted, Limits, Part, extract};
use chokepoint_symbols::{Quality, dwarf};

/// Counts what is taken. The one test of this program runs alone.
struct Counted;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counted = Counted;

// SAFETY: all is handed on to the system's allocator as it came. A list that grows is counted twice until it has grown, as the default of
// `realloc` allocates, copies and frees.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(TAKEN.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Abbreviations and files of a unit, names that others refer to, buffers, a compressor's tables.
const BESIDE: usize = 6 << 20;

/// Makes this program's own symbols. Returns what was made, the bytes of what was sent, and how much memory it took at most.
fn make(limits: &Limits) -> (Extracted, usize, usize) {
    let file = File::open("/proc/self/exe").expect("it is there");
    let elf = Elf::read(&file).expect("it is a binary");
    let before = TAKEN.load(Relaxed);
    MOST.store(before, Relaxed);
    let made = extract(b"id", &[Part { file: &file, elf: &elf }], Vec::new(), limits, &mut || false);
    let written = made.symbols.as_ref().expect("there are some").write().expect("they are small").len();
    (made, written, MOST.load(Relaxed) - before)
}

#[test]
fn symbols_take_no_more_than_what_is_read_and_what_was_allowed() {
    let file = File::open("/proc/self/exe").expect("it is there");
    let elf = Elf::read(&file).expect("it is a binary");
    let debug_bytes = dwarf::bytes(&elf).expect("it has debug information");
    let table: u64 =
        [".symtab", ".strtab"].iter().filter_map(|name| elf.section(name)).map(|section| section.size).sum();
    let limits = Limits { table_bytes: table, debug_bytes, symbols_bytes: 64 << 20 };
    let read = debug_bytes.max(table) as usize;

    let (whole, whole_bytes, most) = make(&limits);
    let symbols = whole.symbols.expect("there are some");
    assert_eq!((symbols.quality(), symbols.is_cut()), (Quality::Debug, false), "{:?}", whole.remarks);
    // A list that grows is there twice, the second time twice as long.
    assert!(most < read + 3 * symbols.bytes() + BESIDE, "{most} of {read} and {}", symbols.bytes());

    let room = symbols.bytes() / 4;
    let (cut, cut_bytes, most) = make(&Limits { symbols_bytes: room, ..limits });
    let symbols = cut.symbols.expect("there are some");
    assert!(
        symbols.is_cut() && cut.remarks.iter().any(|remark| remark.contains("no room")),
        "{:?}",
        cut.remarks
    );
    assert!(symbols.functions() > 0 && symbols.bytes() <= room && cut_bytes < whole_bytes);
    assert!(most < read + 3 * room + BESIDE, "{most} of {read} and {room}");

    // What is too large is not read at all.
    let (functions, _, most) = make(&Limits { debug_bytes: debug_bytes - 1, ..limits });
    assert_eq!(functions.symbols.expect("there are some").quality(), Quality::Functions);
    assert!(most < table as usize * 3 + BESIDE, "{most} of {table}");
}

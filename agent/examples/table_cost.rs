//! What a table costs: rows, bytes in the kernel, and the time to build it, against the time that gimli takes to read the same section
//! without keeping anything.
//!
//! `cargo run --release --example table_cost -- [--json] FILE...`

use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use chokepoint::unwind::{self, Table};
use chokepoint_ebpf::unwind::table::{PackedRow, Page};
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindContext, UnwindSection};
use serde::Serialize;

/// Times are the best of this many.
const RUNS: usize = 5;

/// What one file's table costs.
#[derive(Serialize)]
struct Cost {
    file: String,
    /// Rows of its call-frame information.
    cfi_rows: usize,
    /// Rows, rules, and pages that have any, of the table.
    rows: usize,
    rules: usize,
    pages: usize,
    /// All of them in the kernel's maps.
    kernel_bytes: usize,
    /// `None` for Go binaries, which have nothing that gimli could read.
    gimli_ms: Option<f64>,
    build_ms: f64,
}

fn main() {
    let mut paths: Vec<String> = std::env::args().skip(1).collect();
    let as_json = paths.first().is_some_and(|first| first == "--json");
    if as_json {
        paths.remove(0);
    } else {
        println!(
            "{:<44} {:>9} {:>9} {:>6} {:>6} {:>8} {:>8} {:>8} {:>6}",
            "file", "cfi rows", "rows", "rules", "pages", "kB", "gimli ms", "build ms", "ratio"
        );
    }
    for path in paths {
        match measure(Path::new(&path)) {
            Ok(cost) if as_json => println!("{}", serde_json::to_string(&cost).expect("it is only numbers")),
            Ok(cost) => cost.print(),
            Err(error) => eprintln!("{path}: {error}"),
        }
    }
}

impl Cost {
    fn print(&self) {
        let ratio = self.gimli_ms.map(|gimli_ms| format!("{:.2}", self.build_ms / gimli_ms));
        println!(
            "{:<44} {:>9} {:>9} {:>6} {:>6} {:>8} {:>8.2} {:>8.2} {:>6}",
            self.file,
            self.cfi_rows,
            self.rows,
            self.rules,
            self.pages,
            self.kernel_bytes / 1024,
            self.gimli_ms.unwrap_or_default(),
            self.build_ms,
            ratio.unwrap_or_default(),
        );
    }
}

fn measure(path: &Path) -> Result<Cost, Box<dyn Error>> {
    let file = File::open(path)?;
    let section = Section::of(path);
    let (mut bare, mut build) = (Duration::MAX, Duration::MAX);
    let mut cfi_rows = 0;
    let mut table = Table::default();
    // In turns, so that a busy moment of the machine hits both.
    for _ in 0..RUNS {
        bare = bare.min(time(|| cfi_rows = section.as_ref().map_or(0, Section::rows)));
        let mut built = None;
        build = build.min(time(|| built = Some(unwind::build(&file).map(Table::compact))));
        table = built.transpose()?.unwrap_or_default();
    }
    Ok(Cost {
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        cfi_rows,
        rows: table.rows.len(),
        rules: table.rules.len(),
        pages: table.pages.iter().filter(|page| page.count > 0).count(),
        kernel_bytes: size_of::<PackedRow>() * table.rows.len()
            + size_of::<Page>() * table.pages.len()
            + size_of_val(&table.rules[..]),
        gimli_ms: section.map(|_| bare.as_secs_f64() * 1e3),
        build_ms: build.as_secs_f64() * 1e3,
    })
}

fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// `.eh_frame` as it is in memory.
struct Section {
    content: Vec<u8>,
    bases: BaseAddresses,
}

impl Section {
    fn of(path: &Path) -> Option<Self> {
        let content = fs::read(path).ok()?;
        let word = |at: usize| Some(u64::from_le_bytes(*content.get(at..)?.first_chunk()?));
        let half = |at: usize| Some(usize::from(u16::from_le_bytes(*content.get(at..)?.first_chunk()?)));
        let name = |at: usize| Some(u32::from_le_bytes(*content.get(at..)?.first_chunk()?) as usize);
        let header = |index: usize| Some(word(40)? as usize + 64 * index);
        let names = word(header(half(62)?)? + 24)? as usize;
        (0..half(60)?).find_map(|index| {
            let at = header(index)?;
            if !content.get(names + name(at)?..)?.starts_with(b".eh_frame\0") {
                return None;
            }
            let (address, offset, size) = (word(at + 16)?, word(at + 24)? as usize, word(at + 32)? as usize);
            let bases = BaseAddresses::default().set_eh_frame(address);
            Some(Self { content: content.get(offset..offset + size)?.to_vec(), bases })
        })
    }

    /// Reads every row of every function.
    fn rows(&self) -> usize {
        let section = EhFrame::new(&self.content, LittleEndian);
        let mut context = UnwindContext::new();
        let mut rows = 0;
        let mut entries = section.entries(&self.bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(function) = entry else { continue };
            let Ok(function) = function.parse(EhFrame::cie_from_offset) else { continue };
            let Ok(mut table) = function.rows(&section, &self.bases, &mut context) else { continue };
            while let Ok(Some(row)) = table.next_row() {
                black_box(row);
                rows += 1;
            }
        }
        rows
    }
}

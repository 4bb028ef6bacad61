//! What symbolizing costs: `cargo run --release -p chokepoint --example symbolize_cost -- [FILE...]`.
//!
//! For each binary, 200 addresses spread evenly over its code, which is the worst case, in a new symbolizer; then the
//! same again, from its cache. One process does it all, so that peaks of earlier files would show in later ones:
//! files are best measured one at a time.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use chokepoint::address::{AbsoluteAddress, FileOffset};
use chokepoint::symbolize::{Options, Symbolizer};

const ADDRESSES: u64 = 200;

fn main() {
    for path in std::env::args().skip(1) {
        let file = File::open(&path).expect("a readable file");
        let code = code_range(&file).expect("a 64-bit ELF file");
        let step = (code.end - code.start) / ADDRESSES;
        let offsets: Vec<_> = (0..ADDRESSES).map(|i| FileOffset(code.start + i * step + step / 2)).collect();
        println!("{path}, {} MB", file.metadata().unwrap().len() >> 20);
        let lines_only = Options { inlined: false, ..Options::default() };
        let symbols_only = Options { inlined: false, source_lines: false, ..Options::default() };
        for (what, options) in
            [("symbols", symbols_only), ("lines", lines_only), ("inlined", Options::default())]
        {
            let mut symbolizer = Symbolizer::new(options);
            let mut batch = || {
                let start = Clock::start();
                let symbols = symbolizer.binary(&file, Path::new(&path), Path::new("/"), &offsets).unwrap();
                (start.elapsed(), symbols)
            };
            let (first, symbols) = batch();
            let resident = status();
            let (again, _) = batch();
            let named = symbols.symbols.iter().filter(|symbol| !symbol.lines.is_empty()).count();
            let frames: usize = symbols.symbols.iter().map(|symbol| symbol.lines.len()).sum();
            println!(
                "  {what:8} first {} again {} named {named} frames {frames} {resident} {:?}",
                ms(first),
                ms(again),
                symbols.notes
            );
        }
    }

    let floor = Clock::start();
    let bytes = fs::read("/proc/kallsyms").map(|content| content.len()).unwrap_or(0);
    let floor = floor.elapsed();
    let mut symbolizer = Symbolizer::new(Options::default());
    let start = Clock::start();
    let loaded = symbolizer.load_kernel();
    let first = start.elapsed();
    let addresses: Vec<_> =
        (0..ADDRESSES).map(|i| AbsoluteAddress(0xffff_ffff_8100_0000 + i * 4096)).collect();
    let start = Clock::start();
    let _ = symbolizer.kernel(&addresses);
    let again = start.elapsed();
    println!(
        "kernel: reading {bytes} bytes {} table {} {loaded:?} then {again:?} {}",
        ms(floor),
        ms(first),
        status()
    );
}

/// Elapsed time and this thread's CPU time: on a busy machine only the latter tells what the work itself costs.
struct Clock(Duration, Duration);

impl Clock {
    fn start() -> Self {
        Self(now(libc::CLOCK_MONOTONIC), now(libc::CLOCK_THREAD_CPUTIME_ID))
    }

    fn elapsed(&self) -> (Duration, Duration) {
        (now(libc::CLOCK_MONOTONIC) - self.0, now(libc::CLOCK_THREAD_CPUTIME_ID) - self.1)
    }
}

fn now(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer outlives the call.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn ms((elapsed, cpu): (Duration, Duration)) -> String {
    format!("{:.1} ms (CPU {:.1})", elapsed.as_secs_f64() * 1e3, cpu.as_secs_f64() * 1e3)
}

fn status() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = ["VmHWM", "VmRSS", "RssAnon"];
    let lines = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

/// The last executable segment that is worth the name.
fn code_range(file: &File) -> Option<std::ops::Range<u64>> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    (0..u64::from(header[56])).rev().find_map(|i| {
        let mut segment = [0; 56];
        file.read_exact_at(&mut segment, word(&header, 32) + i * 56).ok()?;
        let (offset, size) = (word(&segment, 8), word(&segment, 32));
        (segment[0] == 1 && segment[4] & 1 != 0 && size > 0x1000).then_some(offset..offset + size)
    })
}

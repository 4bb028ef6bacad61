//! Files made to break the reader: whatever they hold, there is an error or there are no symbols.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use chokepoint::address::FileOffset;
use chokepoint::symbolize::{BinarySymbols, Note, Options, SymbolizeError, Symbolizer};

use crate::build::{C, C_LINES, Workshop, check, run};

fn symbolize(
    symbolizer: &mut Symbolizer,
    path: &Path,
    at: FileOffset,
) -> Result<BinarySymbols, SymbolizeError> {
    // As the agent opens what it does not know: a pipe must not hold it up.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
    symbolizer.binary(&file, path, Path::new("/"), &[at])
}

#[test]
fn what_is_no_binary_is_an_error() {
    let workshop = Workshop::new();
    let mut symbolizer = Symbolizer::new(Options::default());
    let mut check = |name: &str, content: &[u8], expected: &str| {
        let path = workshop.path(name);
        fs::write(&path, content).unwrap();
        let error = symbolize(&mut symbolizer, &path, FileOffset(0)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check("empty", b"", "not an ELF file");
    check("script", b"#!/bin/sh\nexit 0\n", "not an ELF file");
    check("magic", b"\x7fELF", "malformed ELF file: unknown class");
    check("short", b"\x7fELF\x02\x01\x01", "malformed ELF file: the header is cut short");

    let mut symbolizer = Symbolizer::new(Options::default());
    let pipe = workshop.path("pipe");
    let name = CString::new(pipe.as_os_str().as_bytes()).unwrap();
    // SAFETY: a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    for path in [pipe.as_path(), &workshop.path(""), Path::new("/dev/zero")] {
        let error = symbolize(&mut symbolizer, path, FileOffset(0)).unwrap_err();
        assert!(matches!(error, SymbolizeError::NotRegular), "{error}");
    }
}

#[test]
fn a_binary_cut_short_anywhere() {
    let workshop = Workshop::new();
    let program = workshop.c("program", &["-g", "-O2"]);
    let whole = fs::read(&program.path).unwrap();
    let mut symbolizer = Symbolizer::new(Options::default());
    for length in (0..whole.len()).step_by(97) {
        let path = workshop.path("cut");
        fs::write(&path, &whole[..length]).unwrap();
        let _ = symbolize(&mut symbolizer, &path, program.offset("marker"));
    }
    assert_eq!(symbolizer.counters().shrunk, 0);
    check(&program.symbolize(Options::default()), "program.c", &C_LINES);
}

/// Bits flipped all over the file, in particular in headers and debug information, and sealed off: nothing may panic
/// out of the symbolizer, take long or much memory, or spoil what is symbolized afterwards.
#[test]
fn a_binary_with_flipped_bits() {
    let workshop = Workshop::new();
    let mut symbolizer = Symbolizer::new(Options::default());
    for flags in [&["-g", "-O2"][..], &["-g", "-O2", "-gz=zlib"]] {
        let program = workshop.c("program", flags);
        let whole = fs::read(&program.path).unwrap();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let start = Instant::now();
        for round in 0..600 {
            let mut content = whole.clone();
            for _ in 0..1 + round % 40 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                // A third of them in the section headers at the end, a third in the last sections before them.
                let from = [0, content.len() / 2, content.len() - content.len() / 5][round % 3];
                let at = from + random as usize % (content.len() - from);
                content[at] ^= 1 << (random >> 61);
            }
            let path = workshop.path("flipped");
            fs::write(&path, &content).unwrap();
            let _ = symbolize(&mut symbolizer, &path, program.offset("marker"));
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    }
    println!("{:?}", symbolizer.counters());
    assert!(symbolizer.counters().damaged > 0);
    let program = workshop.c("program", &["-g", "-O2"]);
    check(
        &symbolize(&mut symbolizer, &program.path, program.offset("marker")).unwrap(),
        "program.c",
        &C_LINES,
    );
}

/// A section that says it unfolds to 2^62 bytes, and one that does unfold to far more than it says.
#[test]
fn sections_that_unfold_without_end() {
    let workshop = Workshop::new();
    let program = workshop.c("program", &["-g", "-O2", "-gz=zlib"]);
    let content = fs::read(&program.path).unwrap();
    // Compression headers: type 1, reserved, size, alignment 1; then zlib's own first byte.
    let headers: Vec<usize> = (0..content.len() - 25)
        .filter(|&at| {
            content[at..at + 8] == [1, 0, 0, 0, 0, 0, 0, 0]
                && content[at + 11..at + 16] == [0; 5]
                && content[at + 16..at + 24] == [1, 0, 0, 0, 0, 0, 0, 0]
                && content[at + 24] == 0x78
        })
        .collect();
    assert!(headers.len() >= 4, "{headers:?}");
    for size in [1_u64 << 62, u64::MAX, 1 << 40, 100 << 20] {
        let mut hostile = content.clone();
        for &at in &headers {
            hostile[at + 8..at + 16].copy_from_slice(&size.to_le_bytes());
        }
        let path = workshop.path("bomb");
        fs::write(&path, &hostile).unwrap();
        let mut symbolizer = Symbolizer::new(Options::default());
        let symbols = symbolize(&mut symbolizer, &path, program.offset("marker")).unwrap();
        check(&symbols, "", &[("outer", 0)]);
        assert_eq!(symbols.notes, [Note::DebugInfoTooLarge]);
        assert_eq!(symbolizer.counters().debug_info_too_large, 1);
    }
    let mut hostile = content;
    for &at in &headers {
        hostile[at + 8..at + 16].copy_from_slice(&5_u64.to_le_bytes());
    }
    let path = workshop.path("liar");
    fs::write(&path, &hostile).unwrap();
    let symbols =
        symbolize(&mut Symbolizer::new(Options::default()), &path, program.offset("marker")).unwrap();
    check(&symbols, "", &[("outer", 0)]);
}

/// Links that lead to a pipe would hold a reader up for ever.
#[test]
fn links_to_pipes_are_not_opened() {
    let workshop = Workshop::new();
    let program = workshop.c("program", &["-g", "-O2"]);
    let pipe = workshop.path("pipe.debug");
    let name = CString::new(pipe.as_os_str().as_bytes()).unwrap();
    fs::write(&pipe, "for objcopy to read").unwrap();
    let linking = program.stripped(&workshop.path("linking"));
    linking.objcopy(&["--add-gnu-debuglink", pipe.to_str().unwrap()]);
    // With debug information of its own too, and a link of the kind that dwz makes.
    program.objcopy(&["--add-gnu-debuglink", pipe.to_str().unwrap()]);
    let link = workshop.path("link");
    fs::write(&link, [pipe.as_os_str().as_bytes(), b"\0\x01\x02\x03\x04\x05\x06\x07\x08"].concat()).unwrap();
    program.objcopy(&["--add-section", &format!(".gnu_debugaltlink={}", link.display())]);
    fs::remove_file(&pipe).unwrap();
    // SAFETY: a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);

    check(&linking.symbolize(Options::default()), "", &[]);
    check(&program.symbolize(Options::default()), "program.c", &C_LINES);
}

/// blazesym panics where a line refers to a file that its table does not have.
#[test]
fn a_panic_costs_the_debug_information_only() {
    let workshop = Workshop::new();
    // A second source file, so that there is an instruction to switch to it.
    let source = C.replace("    return x * 3;", "#line 3 \"second.c\"\n    return x * 3;");
    let program = workshop.compile("gcc", "program.c", &source, "program", &["-g", "-O2"]);
    let headers = run("readelf", &["-SW".as_ref(), program.path.as_os_str()]);
    let lines = headers.lines().find(|line| line.contains(" .debug_line ")).unwrap();
    let mut fields = lines.split(" PROGBITS ").nth(1).unwrap().split_whitespace().skip(1);
    let mut number = || usize::from_str_radix(fields.next().unwrap(), 16).unwrap();
    let (start, size) = (number(), number());
    let whole = fs::read(&program.path).unwrap();
    let mut symbolizer = Symbolizer::new(Options::default());
    // DW_LNS_set_file 2 becomes DW_LNS_set_file 127, wherever the bytes might be it.
    let places: Vec<_> = (start..start + size - 1).filter(|&at| whole[at..at + 2] == [4, 2]).collect();
    for at in places {
        let mut hostile = whole.clone();
        hostile[at + 1] = 127;
        let path = workshop.path(&format!("hostile-{at}"));
        fs::write(&path, &hostile).unwrap();
        let panics = symbolizer.counters().panics;
        let symbols = symbolize(&mut symbolizer, &path, program.offset("marker")).unwrap();
        if symbolizer.counters().panics > panics {
            check(&symbols, "", &[("outer", 0)]);
            assert!(matches!(symbols.notes[..], [Note::DebugInfoDamaged(_)]), "{:?}", symbols.notes);
            // Known now, and not tried again.
            assert_eq!(symbolize(&mut symbolizer, &path, program.offset("marker")).unwrap(), symbols);
            assert_eq!(symbolizer.counters().panics, panics + 1);
        }
    }
    assert!(symbolizer.counters().panics > 0, "{:?}", symbolizer.counters());
}

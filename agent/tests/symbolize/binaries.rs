//! Languages, kinds of ELF file and of debug information.

use std::fs;
use std::path::Path;

use chokepoint::address::FileOffset;
use chokepoint::symbolize::{Note, Options, SourceLine, Symbolizer};

use crate::build::{C_LINES, Workshop, check, run};

#[test]
fn inlined_functions_and_lines_of_every_kind_of_c_binary() {
    let workshop = Workshop::new();
    let kinds: &[&[&str]] = &[
        &["-g", "-O2"],
        &["-g", "-O2", "-no-pie"],
        &["-g", "-O2", "-fPIC", "-shared"],
        &["-gdwarf-4", "-O2"],
        &["-gdwarf-5", "-O2", "-Wl,--build-id=none"],
        &["-g", "-O2", "-gz=zlib"],
        // Segments whose addresses and file offsets differ by odd pages.
        &["-g", "-O2", "-no-pie", "-Wl,-Ttext-segment=0x7654000"],
        &["-g", "-O2", "-Wl,-z,noseparate-code"],
    ];
    for flags in kinds {
        let program = workshop.c("program", flags);
        let symbols = program.symbolize(Options::default());
        check(&symbols, "program.c", &C_LINES);
        assert_eq!(symbols.symbols[0].address, Some(program.address("marker")), "{flags:?}");
        assert_eq!(symbols.notes, [], "{flags:?}");
        if !flags.contains(&"-Wl,--build-id=none") {
            assert_eq!(symbols.build_id.to_string(), program.build_id(), "{flags:?}");
        }
    }
}

#[test]
fn debug_information_compressed_with_zstd() {
    let workshop = Workshop::new();
    let program = workshop.c("program", &["-g", "-O2"]);
    let help = run("objcopy", &["--help".as_ref()]);
    if !help.contains("zstd") {
        eprintln!("skipped: this objcopy cannot compress with zstd");
        return;
    }
    program.objcopy(&["--compress-debug-sections=zstd"]);
    let sections = run("readelf", &["-tW".as_ref(), program.path.as_os_str()]);
    assert!(sections.contains("ZSTD"), "{sections}");
    check(&program.symbolize(Options::default()), "program.c", &C_LINES);
}

#[test]
fn options_leave_out_inlining_lines_or_debug_information() {
    let workshop = Workshop::new();
    let program = workshop.c("program", &["-g", "-O2"]);
    let without_inlining = Options { inlined: false, ..Options::default() };
    check(&program.symbolize(without_inlining), "program.c", &[("outer", 2)]);
    let without_lines = Options { source_lines: false, ..Options::default() };
    check(&program.symbolize(without_lines), "", &C_LINES.map(|(function, _)| (function, 0)));
    let neither = Options { inlined: false, source_lines: false, ..Options::default() };
    check(&program.symbolize(neither), "", &[("outer", 0)]);
    let too_large = program.symbolize(Options { max_debug_info_bytes: 10, ..Options::default() });
    check(&too_large, "", &[("outer", 0)]);
    assert_eq!(too_large.notes, [Note::DebugInfoTooLarge]);
}

#[test]
fn functions_of_binaries_without_debug_information() {
    let workshop = Workshop::new();
    // The symbol table, then only the exported functions, then nothing.
    check(&workshop.c("plain", &["-O2"]).symbolize(Options::default()), "", &[("outer", 0)]);
    let library = workshop.c("library.so", &["-O2", "-fPIC", "-shared"]);
    let library = library.stripped(&workshop.path("stripped.so"));
    check(&library.symbolize(Options::default()), "", &[("outer", 0)]);
    let nothing = workshop.c("whole", &["-O2"]).stripped(&workshop.path("nothing"));
    let symbols = nothing.symbolize(Options::default());
    check(&symbols, "", &[]);
    assert_eq!(symbols.symbols[0].address, Some(nothing.address("marker")));
    assert_eq!(symbols.notes, []);
}

#[test]
fn mini_debug_info() {
    let workshop = Workshop::new();
    let program = workshop.c("program", &["-O2"]);
    let mini = workshop.path("mini");
    program.debug_file(&mini);
    run("xz", &["--keep".as_ref(), mini.as_os_str()]);
    let stripped = program.stripped(&workshop.path("stripped"));
    let section = format!(".gnu_debugdata={}.xz", mini.display());
    stripped.objcopy(&["--add-section", &section]);
    let symbols = stripped.symbolize(Options::default());
    check(&symbols, "", &[("outer", 0)]);
    assert_eq!(symbols.notes, []);

    // Damaged, it leaves what the dynamic symbol table has.
    let library = workshop.c("library.so", &["-O2", "-fPIC", "-shared"]);
    let library = library.stripped(&workshop.path("stripped.so"));
    let section = format!(".gnu_debugdata={}", program.path.display());
    library.objcopy(&["--add-section", &section]);
    let symbols = library.symbolize(Options::default());
    check(&symbols, "", &[("outer", 0)]);
    assert!(matches!(symbols.notes[..], [Note::DebugInfoDamaged(_)]), "{:?}", symbols.notes);
}

#[test]
fn functions_alone_come_from_the_same_tables() {
    let alone = || Options { inlined: false, source_lines: false, ..Options::default() };
    let workshop = Workshop::new();
    check(&workshop.c("plain", &["-O2"]).symbolize(alone()), "", &[("outer", 0)]);
    let library = workshop.c("library.so", &["-O2", "-fPIC", "-shared"]);
    check(&library.stripped(&workshop.path("stripped.so")).symbolize(alone()), "", &[("outer", 0)]);
    let program = workshop.c("whole", &["-O2"]);
    let mini = workshop.path("mini");
    program.debug_file(&mini);
    run("xz", &["--keep".as_ref(), mini.as_os_str()]);
    let stripped = program.stripped(&workshop.path("stripped"));
    check(&stripped.symbolize(alone()), "", &[]);
    stripped.objcopy(&["--add-section", &format!(".gnu_debugdata={}.xz", mini.display())]);
    check(&stripped.symbolize(alone()), "", &[("outer", 0)]);

    // This program, all over, beside what blazesym says of it. Of several names of one function either may tell one.
    let own = fs::File::open("/proc/self/exe").unwrap();
    // Most of it is debug information, which comes last.
    let code = own.metadata().unwrap().len() / 16;
    let offsets: Vec<_> = (0..500).map(|at| FileOffset(at * code / 500)).collect();
    let of = |options| {
        let mut symbolizer = Symbolizer::new(options);
        let path = Path::new("/proc/self/exe");
        let mut ask = || symbolizer.binary(&own, path, Path::new("/"), &offsets).unwrap().symbols;
        let symbols = ask();
        // What is remembered is the same.
        assert_eq!(ask(), symbols);
        let function = |lines: &[SourceLine]| lines.last().map(|line| line.function.clone());
        symbols.iter().map(|symbol| function(&symbol.lines)).collect::<Vec<_>>()
    };
    let without_lines =
        Options { inlined: true, source_lines: false, max_debug_info_bytes: 0, ..Options::default() };
    let (functions, truth) = (of(alone()), of(without_lines));
    let known = functions.iter().flatten().count();
    let equal = functions.iter().zip(&truth).filter(|(function, truth)| function == truth).count();
    assert!(known > 100 && equal > 480, "{known} are known, {equal} of 500 as blazesym has them");
    assert!(functions.iter().zip(&truth).all(|(function, truth)| function.is_some() == truth.is_some()));
}

#[test]
fn cpp_names_have_no_parameters() {
    const SOURCE: &str = r#"namespace shop {
template <typename T> struct Basket {
    T total;
    __attribute__((always_inline)) T add(T price, const char *) {
        __asm__ volatile(".globl marker\nmarker: nop");
        return total += price;
    }
    __attribute__((noinline)) T pay(T price) {
        return add(price, "x") * 2;
    }
};
}
int main(int argc, char **) {
    shop::Basket<long> basket{argc};
    return basket.pay(7);
}
"#;
    let workshop = Workshop::new();
    let program = workshop.compile("g++", "shop.cpp", SOURCE, "shop", &["-g", "-O2"]);
    let expected = [("shop::Basket<long>::add", 5), ("shop::Basket<long>::pay", 9)];
    check(&program.symbolize(Options::default()), "shop.cpp", &expected);
    // The same function by its symbol.
    let plain = workshop.compile("g++", "shop.cpp", SOURCE, "plain", &["-O2"]);
    check(&plain.symbolize(Options::default()), "", &[("shop::Basket<long>::pay", 0)]);
}

#[test]
fn rust_names_have_no_hashes() {
    const SOURCE: &str = r#"use std::arch::asm;
trait Work {
    fn work(&self, x: u32) -> u32;
}
struct Miller<T>(T);
impl<T: Copy + Into<u32>> Work for Miller<T> {
    #[inline(never)]
    fn work(&self, x: u32) -> u32 {
        let grind = |y: u32| mill::grind(y + self.0.into());
        grind(x) ^ 5
    }
}
mod mill {
    #[inline(always)]
    pub fn grind(x: u32) -> u32 {
        unsafe { super::asm!(".globl marker", "marker: nop") };
        x.wrapping_mul(3)
    }
}
fn main() {
    let x = std::env::args().count() as u32;
    std::process::exit(Miller(7u8).work(x) as i32);
}
"#;
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let workshop = Workshop::new();
    let flags = ["-g", "-O", "--edition=2021", "-Anamed-asm-labels", "-Csymbol-mangling-version=v0"];
    for (flags, outer) in [
        (&flags[..4], "<rust::Miller<T> as rust::Work>::work"),
        (&flags[..], "<rust::Miller<u8> as rust::Work>::work"),
    ] {
        let program = workshop.compile(&rustc, "rust.rs", SOURCE, "rust", flags);
        let symbols = program.symbolize(Options::default());
        let closure = format!("{outer}::{{{{closure}}}}");
        let closure_v0 = format!("{outer}::{{closure#0}}");
        let names: Vec<_> = symbols.symbols[0].lines.iter().map(|line| line.function.as_str()).collect();
        let closure = if names.contains(&closure_v0.as_str()) { closure_v0 } else { closure };
        check(&symbols, "rust.rs", &[("rust::mill::grind", 16), (&closure, 9), (outer, 10)]);
    }
}

#[test]
fn offsets_outside_the_loaded_file_have_no_address() {
    let workshop = Workshop::new();
    let program = workshop.c("program", &["-g", "-O2"]);
    let marker = program.offset("marker");
    let beyond = FileOffset(fs::metadata(&program.path).unwrap().len() + 5);
    let offsets = [beyond, marker, FileOffset(u64::MAX), marker];
    let mut symbolizer = Symbolizer::new(Options::default());
    let symbols =
        symbolizer.binary(&program.open(), &program.path, Path::new("/"), &offsets).unwrap().symbols;
    let addresses: Vec<_> = symbols.iter().map(|symbol| symbol.address).collect();
    let address = Some(program.address("marker"));
    assert_eq!(addresses, [None, address, None, address]);
    assert!(symbols[0].lines.is_empty() && symbols[2].lines.is_empty());
    assert_eq!(symbols[1].lines.len(), 3);
    assert_eq!(symbols[1], symbols[3]);
    assert!(
        symbolizer.binary(&program.open(), &program.path, Path::new("/"), &[]).unwrap().symbols.is_empty()
    );
}

#[test]
fn many_binaries_and_no_room_to_keep_them() {
    let workshop = Workshop::new();
    let program = workshop.c("program", &["-g", "-O2"]);
    let compressed = workshop.c("compressed", &["-g", "-O2", "-gz=zlib"]);
    let mut symbolizer = Symbolizer::new(Options { cache_bytes: 0, ..Options::default() });
    let open_files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open_files();
    for round in 0..150 {
        for original in [&program, &compressed] {
            let copy = workshop.path(&format!("copy-{round}"));
            fs::copy(&original.path, &copy).unwrap();
            let file = fs::File::open(&copy).unwrap();
            let offsets = [original.offset("marker")];
            let symbols = symbolizer.binary(&file, &copy, Path::new("/"), &offsets).unwrap();
            let functions: Vec<_> = symbols.symbols[0].lines.iter().map(|l| l.function.as_str()).collect();
            assert_eq!(functions, ["inner", "middle", "outer"], "round {round}");
        }
    }
    assert!(symbolizer.counters().evicted >= 150, "{:?}", symbolizer.counters());
    // Other tests of this process have some files open for a moment.
    assert!(open_files() < before + 300, "{} files open, {before} before", open_files());
}

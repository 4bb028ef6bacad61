//! Go binaries, built here where there is a Go compiler.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chokepoint_ebpf::unwind::table::{Cfa, Rule, Saved, SavedAt};

use crate::address::FileOffset;
use crate::symbolize::elf::Elf;
use crate::symbolize::{Options, Symbolizer};
use crate::unwind::{GoFunctions, build};

const PROGRAM: &str = "package main\n\nimport \"os\"\n\n//go:noinline\nfunc Deep(n int) int {\n\tif n == 0 {\n\t\treturn len(os.Args)\n\t}\n\treturn Deep(n-1) + 1\n}\n\nfunc main() {\n\tprintln(Deep(3))\n}\n";

/// Builds the program; `None` without a compiler.
fn go_build(directory: &Path, name: &str, arguments: &[&str]) -> Option<PathBuf> {
    fs::write(directory.join("main.go"), PROGRAM).unwrap();
    fs::write(directory.join("go.mod"), "module example.org/deep\n\ngo 1.18\n").unwrap();
    let binary = directory.join(name);
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&binary)
        .args(arguments)
        .current_dir(directory)
        .env("GOFLAGS", "")
        .env("GOTOOLCHAIN", "local")
        .stderr(Stdio::null())
        .status();
    built.is_ok_and(|status| status.success()).then_some(binary)
}

/// Functions and their addresses, by `nm`.
fn symbols(binary: &Path) -> Vec<(u64, String)> {
    let output = Command::new("nm").arg(binary).output().unwrap();
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let is_code = words.next()?.eq_ignore_ascii_case("t");
        is_code.then_some((address, words.next()?.to_owned()))
    };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(line).collect()
}

#[test]
fn every_kind_of_go_binary_has_rules_and_names() {
    let directory = tempfile::tempdir().unwrap();
    let pie = ["-buildmode=pie"];
    let Some(plain) = go_build(directory.path(), "plain", &[]) else { return };
    let Some(position_independent) = go_build(directory.path(), "pie", &pie) else { return };
    for (binary, options) in [(&plain, &[][..]), (&position_independent, &pie)] {
        let stripped = [options, &["-ldflags=-s -w"]].concat();
        let stripped = go_build(directory.path(), "stripped", &stripped).unwrap();
        for path in [binary, &stripped] {
            let file = File::open(path).unwrap();
            let elf = Elf::read(&file).unwrap();
            let table = build(&file).unwrap();
            assert!(table.check());
            let names = GoFunctions::open(&file).unwrap();
            let code = elf.code().next().unwrap();
            let mut checked = 0;
            // Stripping leaves the code where it was.
            for (address, symbol) in symbols(binary) {
                let offset = address - code.address + code.offset;
                let rule = table.rule_at(offset);
                let expected = match symbol.as_str() {
                    "runtime.goexit.abi0" | "runtime.mstart.abi0" | "runtime.rt0_go.abi0" => Rule::END,
                    "runtime.sigreturn__sigaction.abi0" => {
                        assert_eq!(table.rule_at(offset - 1), Rule::SIGNAL);
                        Rule::SIGNAL
                    }
                    "runtime.systemstack.abi0" | "main.Deep" => Rule::register(7, 8),
                    _ => continue,
                };
                assert_eq!(rule, expected, "{} {symbol}", path.display());
                let name = names.name(address).unwrap();
                assert_eq!(name, symbol.trim_end_matches(".abi0"), "{}", path.display());
                assert_eq!(names.name(address + 1).as_deref(), Some(&*name));
                checked += 1;
            }
            assert_eq!(checked, 6, "{}", path.display());
            assert_eq!(names.name(0), None);
            assert_eq!(names.name(u64::MAX), None);
        }
    }
}

#[test]
fn a_stripped_go_binary_is_symbolized_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let Some(plain) = go_build(directory.path(), "plain", &[]) else { return };
    let Some(stripped) = go_build(directory.path(), "stripped", &["-ldflags=-s -w"]) else { return };
    let file = File::open(&stripped).unwrap();
    let code = Elf::read(&file).unwrap().code().next().unwrap();
    let (address, _) = symbols(&plain).into_iter().find(|(_, name)| name == "main.Deep").unwrap();
    let offsets = [FileOffset(address - code.address + code.offset + 3), FileOffset(0)];
    let mut symbolizer = Symbolizer::new(Options::default());
    let found = symbolizer.binary(&file, &stripped, Path::new("/"), &offsets).unwrap();
    let functions =
        found.symbols.iter().map(|symbol| symbol.lines.first().map(|line| line.function.as_str()));
    assert_eq!(functions.collect::<Vec<_>>(), [Some("main.Deep"), None]);
}

/// The linker describes the same code in `.debug_frame`, from the same source but by another way.
#[test]
fn the_stack_pointer_is_where_debug_information_says() {
    let directory = tempfile::tempdir().unwrap();
    let Some(plain) = go_build(directory.path(), "plain", &["-ldflags=-compressdwarf=false"]) else { return };
    let without = directory.path().join("without");
    let removed =
        Command::new("objcopy").args(["--remove-section=.gopclntab"]).args([&plain, &without]).status();
    if !removed.is_ok_and(|status| status.success()) {
        return;
    }
    let by_go = build(&File::open(&plain).unwrap()).unwrap();
    let file = File::open(&without).unwrap();
    let by_debug_frame = build(&file).unwrap();
    let original = Elf::read(&File::open(&plain).unwrap()).unwrap().code().next().unwrap();
    let copy = Elf::read(&file).unwrap().code().next().unwrap();
    let mut compared = 0;
    for address in copy.address..copy.address + copy.size {
        let ours = by_go.rule_at(address - original.address + original.offset);
        let theirs = by_debug_frame.rule_at(address - copy.address + copy.offset);
        if Cfa::of(ours.cfa) == Cfa::Register && Cfa::of(theirs.cfa) == Cfa::Register {
            assert_eq!((ours.cfa, ours.cfa_offset), (theirs.cfa, theirs.cfa_offset), "{address:#x}");
            compared += 1;
        }
    }
    assert!(compared > copy.size / 2, "{compared} of {} bytes", copy.size);
}

/// The fuzzer's corpus has a small table of each layout, with the same five functions of 64 bytes.
#[test]
fn every_layout_of_the_tables_is_read() {
    use super::fixture::{CODE_ADDRESS, CODE_OFFSET, X86_64, elf};
    let framed = |offset, saved_at| Rule {
        frame_pointer: SavedAt::new(Saved::AtCfa, saved_at).unwrap(),
        ..Rule::register(7, offset)
    };
    for version in ["go116", "go118", "go120"] {
        let section =
            fs::read(format!("{}/../fuzz/corpus/gopclntab/{version}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let file = elf(X86_64, &[(".data.rel.ro.gopclntab", 0x50_0000, &section)]);
        let table = crate::unwind::build_from_bytes(&file).unwrap();
        let expected = [
            // runtime.goexit
            (0x00, Rule::END),
            (0x3f, Rule::END),
            // main.main: nothing pushed, then 8 bytes, then 32.
            (0x40, Rule::register(7, 8)),
            (0x41, framed(16, -16)),
            (0x45, framed(40, -16)),
            (0x4f, Rule::register(7, 8)),
            (0x54, Rule::NONE),
            // runtime.systemstack, with the same frames.
            (0x80, Rule::register(7, 8)),
            (0x81, Rule::FRAME_POINTER),
            (0x8f, Rule::register(7, 8)),
            // runtime.sigreturn__sigaction, from the byte before on.
            (0xbe, Rule::NONE),
            (0xbf, Rule::SIGNAL),
            (0xff, Rule::SIGNAL),
            // crosscall2, which keeps C's registers.
            (0x100, Rule::register(7, 8)),
            (0x101, Rule { other: -27, ..framed(240, -224) }),
        ];
        for (at, rule) in expected {
            assert_eq!(table.rule_at(CODE_OFFSET + at), rule, "{version} {at:#x}");
        }
        let mut stored = tempfile::tempfile().unwrap();
        stored.write_all(&file).unwrap();
        let names = GoFunctions::open(&stored).unwrap();
        assert_eq!(names.name(CODE_ADDRESS + 0x7f).as_deref(), Some("main.main"));
        assert_eq!(names.name(CODE_ADDRESS + 0x140), None);
    }
}

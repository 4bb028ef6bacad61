//! Tables of this machine's files, against two other readers of the same sections: gimli's interpreter and readelf.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use chokepoint_ebpf::unwind::table::{Cfa, OTHER_LOST, Rule, Saved};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, LittleEndian, RegisterRule, UnwindContext,
    UnwindExpression, UnwindSection, X86_64 as Reg,
};

use crate::symbolize::elf::{Code, Elf, read_range};
use crate::unwind::cfi::{self, CfaAt, Processor, State, ValueAt};
use crate::unwind::{Table, build, build_vdso, x86_64};

/// Those that are there. The test's own binary is always.
fn files() -> Vec<PathBuf> {
    let candidates = [
        "/proc/self/exe",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/bin/dash",
        "/usr/bin/perl",
        "/usr/bin/python3",
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    ];
    candidates.into_iter().map(PathBuf::from).filter(|path| path.exists()).collect()
}

struct Opened {
    elf: Elf,
    section: Vec<u8>,
    bases: BaseAddresses,
    table: Table,
}

/// A file with `.eh_frame`; `None` for a script or another processor.
fn open(path: &Path) -> Option<Opened> {
    let file = File::open(path).unwrap();
    let elf = Elf::read(&file).ok().filter(|elf| elf.machine == 62)?;
    let section = elf.section(".eh_frame")?;
    let address = |name| elf.section(name).map_or(0, |section| section.address);
    let bases = BaseAddresses::default()
        .set_eh_frame(section.address)
        .set_text(address(".text"))
        .set_got(address(".got"));
    let section = read_range(&file, section.offset, section.size, 1 << 30).unwrap();
    let table = build(&file).unwrap();
    assert!(table.check(), "{}", path.display());
    Some(Opened { elf, section, bases, table })
}

impl Opened {
    fn file_offset(&self, address: u64) -> Option<u64> {
        let code: Code = self.elf.code().find(|code| address.wrapping_sub(code.address) < code.size)?;
        Some(address - code.address + code.offset)
    }
}

#[test]
fn every_row_of_real_files_is_what_gimli_says() {
    for path in files() {
        let Some(opened) = open(&path) else { continue };
        let section = EhFrame::new(&opened.section, LittleEndian);
        let mut context = UnwindContext::new();
        let mut entries = section.entries(&opened.bases);
        // The first function by address has what several claim.
        let mut functions = BTreeMap::new();
        while let Some(entry) = entries.next().unwrap() {
            let CieOrFde::Fde(function) = entry else { continue };
            let function = function.parse(EhFrame::cie_from_offset).unwrap();
            if function.len() > 0 {
                functions.entry(function.initial_address()).or_insert(function);
            }
        }
        let mut covered = 0;
        let mut rows = 0;
        for function in functions.values() {
            let mut table = function.rows(&section, &opened.bases, &mut context).unwrap();
            while let Some(row) = table.next_row().unwrap() {
                let first = row.start_address().max(covered);
                if first >= row.end_address() {
                    continue;
                }
                let state = state(&section, row);
                let expected = x86_64::X86_64::rule(&state, function.is_signal_trampoline());
                for address in [first, row.end_address() - 1] {
                    let Some(offset) = opened.file_offset(address) else { continue };
                    let found = opened.table.rule_at(offset);
                    assert_eq!(found, expected, "{} {address:#x} {state:?}", path.display());
                }
                rows += 1;
            }
            covered = covered.max(function.end_address());
        }
        assert!(rows > 0, "{}", path.display());
    }
}

/// gimli's row in our terms.
fn state(section: &EhFrame<EndianSlice<'_, LittleEndian>>, row: &gimli::UnwindTableRow<usize>) -> State {
    let bytes = |expression: &UnwindExpression<usize>| expression.get(section).unwrap().0.slice().to_vec();
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => CfaAt::Register(*register, *offset),
        CfaRule::Expression(expression) => cfi::cfa_expression(&bytes(expression)),
    };
    let value = |register| match row.register(register) {
        None => ValueAt::Unsaid,
        Some(RegisterRule::Undefined) => ValueAt::Undefined,
        Some(RegisterRule::SameValue) => ValueAt::Same,
        Some(RegisterRule::Offset(offset)) => ValueAt::Cfa(offset),
        Some(RegisterRule::ValOffset(offset)) => ValueAt::ValueCfa(offset),
        Some(RegisterRule::Register(register)) => ValueAt::InRegister(register),
        Some(RegisterRule::Expression(expression)) => cfi::value_expression(&bytes(&expression)),
        Some(_) => ValueAt::Unknown,
    };
    State { cfa, registers: x86_64::X86_64::REGISTERS.map(value) }
}

/// Columns of `readelf --debug-dump=frames-interp`.
const READELF_REGISTERS: [(&str, gimli::Register); 3] =
    [("rbp", Reg::RBP), ("rbx", Reg::RBX), ("ra", Reg::RA)];

#[test]
fn every_row_of_libc_is_what_readelf_says() {
    let path = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
    let dump = Command::new("readelf").args(["--debug-dump=frames-interp", "-W"]).arg(path).output();
    let (Ok(dump), true) = (dump, path.exists()) else { return };
    let dump = String::from_utf8_lossy(&dump.stdout);
    let opened = open(path).unwrap();
    let mut columns = Vec::new();
    let mut is_function = false;
    let mut rows = 0;
    for line in dump.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if line.contains(" FDE ") || line.contains(" CIE ") {
            is_function = line.contains(" FDE ");
        } else if words.first() == Some(&"LOC") {
            columns = words.iter().map(|word| (*word).to_owned()).collect();
        } else if is_function
            && words.len() == columns.len()
            && words[0].len() == 16
            && let Ok(address) = u64::from_str_radix(words[0], 16)
        {
            let column = |name| columns.iter().position(|column| column == name).map(|at| words[at]);
            let found = opened.table.rule_at(opened.file_offset(address).unwrap());
            let says = READELF_REGISTERS.map(|(name, _)| column(name).unwrap_or("u"));
            assert!(agrees(found, words[1], says), "{line}: {found:?}");
            rows += 1;
        }
    }
    assert!(rows > 10_000, "{rows} rows");
}

/// Whether a rule is what readelf says of the CFA and of rbp, rbx and the return address.
fn agrees(rule: Rule, cfa: &str, [rbp, rbx, return_address]: [&str; 3]) -> bool {
    let kind = Cfa::of(rule.cfa);
    if return_address == "u" {
        return kind == Cfa::End;
    }
    if return_address != "c-8" {
        return matches!(kind, Cfa::Signal | Cfa::Unsupported | Cfa::ReturnInRegister);
    }
    let cfa_agrees = match cfa.split_once('+') {
        Some((register, offset)) => {
            const NAMES: [&str; 16] = [
                "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12",
                "r13", "r14", "r15",
            ];
            kind == Cfa::Register
                && NAMES[usize::from(rule.cfa_register())] == register
                && rule.cfa_offset.to_string() == offset
        }
        None => matches!(kind, Cfa::Deref | Cfa::Plt),
    };
    let rbp_agrees = match (rbp, rule.frame_pointer.saved()) {
        ("u" | "s", Saved::Same) | ("exp", Saved::AtFramePointer) => true,
        (at, Saved::AtCfa) => at == format!("c{:+}", rule.frame_pointer.offset()),
        _ => false,
    };
    let rbx_agrees = match rbx {
        "u" | "s" => rule.other == 0,
        "exp" => rule.other == OTHER_LOST,
        at => at == format!("c{:+}", i64::from(rule.other) * 8),
    };
    cfa_agrees && rbp_agrees && rbx_agrees
}

#[test]
fn the_starts_of_programs_and_threads_are_ends() {
    let ends = |path: &str| {
        let table = build(&File::open(path).ok()?).ok()?;
        Some(table.rules.contains(&Rule::END))
    };
    assert_eq!(ends("/proc/self/exe"), Some(true));
    if cfg!(target_env = "gnu") {
        assert_ne!(ends("/lib/x86_64-linux-gnu/libc.so.6"), Some(false));
    }
}

#[test]
fn the_vdso_has_a_table() {
    if !fs::read_to_string("/proc/self/maps").unwrap().contains("[vdso]") {
        return;
    }
    let table = build_vdso().unwrap();
    assert!(table.check() && !table.rows.is_empty());
}

//! Every form of call-frame information that a rule can say, and those that it cannot.

use chokepoint_ebpf::unwind::table::{Cfa, OTHER_LOST, Rule, Saved, SavedAt};

use super::fixture::{AARCH64, CODE_ADDRESS, CODE_OFFSET, EhFrame, USUAL, elf};
use crate::unwind::{BuildError, build_from_bytes};

const RBX: u8 = 3;
const RBP: u8 = 6;
const RSP: u8 = 7;

const DEF_CFA: u8 = 0x0c;
const DEF_CFA_REGISTER: u8 = 0x0d;
const DEF_CFA_OFFSET: u8 = 0x0e;
const DEF_CFA_EXPRESSION: u8 = 0x0f;
const EXPRESSION: u8 = 0x10;
const VAL_EXPRESSION: u8 = 0x16;
const VAL_OFFSET: u8 = 0x14;
const UNDEFINED: u8 = 0x07;
const SAME: u8 = 0x08;
const REGISTER: u8 = 0x09;
const REMEMBER: u8 = 0x0a;
const RESTORE: u8 = 0x0b;
const DEREF: u8 = 0x06;

const fn advance(bytes: u8) -> u8 {
    0x40 | bytes
}

/// `DW_CFA_offset`: at CFA - 8 * `words`.
const fn saved(register: u8) -> u8 {
    0x80 | register
}

const fn breg(register: u8) -> u8 {
    0x70 + register
}

/// The rules that these instructions leave behind their end, after the usual start.
#[track_caller]
fn check(instructions: &[u8], expected: Rule) {
    check_after("zR", USUAL, instructions, expected);
}

#[track_caller]
fn check_after(augmentation: &str, common: &[u8], instructions: &[u8], expected: Rule) {
    let mut section = EhFrame::default();
    let common = section.common(augmentation, common);
    section.function(common, CODE_ADDRESS + 0x100, 0x40, instructions);
    let table = build_from_bytes(&section.elf()).unwrap();
    assert!(table.check());
    assert_eq!(table.rule_at(CODE_OFFSET + 0x13f), expected);
}

fn cfa(kind: Cfa, register: u8, offset: i32) -> Rule {
    Rule { cfa: (kind as u8) << 4 | register, ..Rule::register(0, offset) }
}

fn with_frame_pointer(saved: Saved, offset: i64, rule: Rule) -> Rule {
    Rule { frame_pointer: SavedAt::new(saved, offset).unwrap(), ..rule }
}

#[test]
fn a_usual_function_row_by_row() {
    let mut section = EhFrame::usual();
    // push rbp; mov rbp, rsp; push rbx; ...; pop; leave; ret; more after the epilogue.
    let instructions = [
        advance(1),
        DEF_CFA_OFFSET,
        16,
        saved(RBP),
        2,
        advance(3),
        DEF_CFA_REGISTER,
        RBP,
        advance(1),
        saved(RBX),
        3,
        advance(20),
        REMEMBER,
        0xc0 | RBP,
        0xc0 | RBX,
        DEF_CFA,
        RSP,
        8,
        advance(1),
        RESTORE,
    ];
    section.function(0, CODE_ADDRESS + 0x100, 0x40, &instructions);
    let table = build_from_bytes(&section.elf()).unwrap();
    let pushed = with_frame_pointer(Saved::AtCfa, -16, Rule::register(RSP, 16));
    let framed = Rule { cfa: Rule::register(RBP, 0).cfa, ..pushed };
    let body = Rule { other: -3, ..framed };
    let expected = [
        (0xff, Rule::NONE),
        (0x100, Rule::register(RSP, 8)),
        (0x101, pushed),
        (0x103, pushed),
        (0x104, framed),
        (0x105, body),
        (0x118, body),
        (0x119, Rule::register(RSP, 8)),
        (0x11a, body),
        (0x13f, body),
        (0x140, Rule::NONE),
    ];
    for (at, rule) in expected {
        assert_eq!(table.rule_at(CODE_OFFSET + at), rule, "{at:#x}");
    }
}

#[test]
fn the_cfa_by_register_or_in_memory() {
    for register in 0..16 {
        check(&[DEF_CFA, register, 24], Rule::register(register, 24));
    }
    check(&[DEF_CFA, 17, 24], Rule::UNSUPPORTED);
    // Realigned stacks: the CFA was kept at rbp - 8.
    let realigned = [DEF_CFA_EXPRESSION, 3, breg(RBP), 0x78, DEREF, EXPRESSION, RBP, 2, breg(RBP), 0];
    check(&realigned, with_frame_pointer(Saved::AtFramePointer, 0, cfa(Cfa::Deref, RBP, -8)));
    check(&[DEF_CFA_EXPRESSION, 2, breg(RSP), 16], Rule::register(RSP, 16));
    check(&[DEF_CFA_EXPRESSION, 4, breg(RBP), 0x78, DEREF, DEREF], Rule::UNSUPPORTED);
    // An offset beyond 31 bits.
    check(&[DEF_CFA_OFFSET, 0x80, 0x80, 0x80, 0x80, 0x10], Rule::UNSUPPORTED);
}

#[test]
fn procedure_linkage_tables() {
    let plt = |pushed: u8| {
        let lit = |value: u8| 0x30 + value;
        [DEF_CFA_EXPRESSION, 11, 0x77, 8, 0x80, 0, lit(15), 0x1a, lit(pushed), 0x2a, lit(3), 0x24, 0x22]
    };
    check(&plt(11), cfa(Cfa::Plt, 0, 11));
    check(&plt(10), cfa(Cfa::Plt, 0, 10));
    let mut other = plt(11);
    other[10] = 0x34;
    check(&other, Rule::UNSUPPORTED);
}

#[test]
fn the_frame_pointer_where_it_can_be_said() {
    let usual = Rule::register(RSP, 8);
    check(&[saved(RBP), 4], with_frame_pointer(Saved::AtCfa, -32, usual));
    check(&[saved(RBP), 4, SAME, RBP], usual);
    check(&[UNDEFINED, RBP], Rule { frame_pointer: SavedAt::UNDEFINED, ..usual });
    // At rsp + 8, which is CFA - 24 where the CFA is rsp + 32.
    let by_stack_pointer = [DEF_CFA_OFFSET, 32, EXPRESSION, RBP, 2, breg(RSP), 8];
    check(&by_stack_pointer, with_frame_pointer(Saved::AtCfa, -24, Rule::register(RSP, 32)));
    for unsupported in [
        &[EXPRESSION, RBP, 2, breg(0), 8][..],
        &[EXPRESSION, RBP, 3, breg(RBP), 8, DEREF],
        &[VAL_EXPRESSION, RBP, 2, breg(RSP), 8],
        &[VAL_OFFSET, RBP, 1],
        &[REGISTER, RBP, 0],
        // 32 KiB and more away.
        &[saved(RBP), 0x81, 0x20],
    ] {
        check(unsupported, Rule::UNSUPPORTED);
    }
}

#[test]
fn rbx_in_words_or_lost() {
    let other = |other| Rule { other, ..Rule::register(RSP, 8) };
    check(&[saved(RBX), 2], other(-2));
    check(&[saved(RBX), 0x80, 1], other(-128));
    check(&[saved(RBX), 0x81, 1], other(OTHER_LOST));
    check(&[UNDEFINED, RBX], other(OTHER_LOST));
    check(&[REGISTER, RBX, 0], other(OTHER_LOST));
    check(&[EXPRESSION, RBX, 2, breg(RBP), 8], other(OTHER_LOST));
}

#[test]
fn the_return_address_is_below_the_cfa_or_the_thread_starts_here() {
    check(&[UNDEFINED, 16], Rule::END);
    check(&[saved(16), 2], Rule::UNSUPPORTED);
    check(&[SAME, 16], Rule::UNSUPPORTED);
    check(&[EXPRESSION, 16, 2, breg(RSP), 0], Rule::register(RSP, 8));
    check(&[EXPRESSION, 16, 2, breg(RSP), 8], Rule::UNSUPPORTED);
    check_after("zR", &[DEF_CFA, RSP, 8], &[], Rule::UNSUPPORTED);
    // A stack pointer that is not the CFA.
    check(&[saved(RSP), 3], Rule::UNSUPPORTED);
    check(&[VAL_OFFSET, RSP, 0], Rule::register(RSP, 8));
}

#[test]
fn signal_frames_as_c_libraries_describe_them() {
    let frame = [
        &[DEF_CFA_EXPRESSION, 4, breg(RSP), 0xa0, 0x01, DEREF][..],
        &[EXPRESSION, RBP, 3, breg(RSP), 0xf8, 0x00],
        &[EXPRESSION, 16, 3, breg(RSP), 0xa8, 0x01],
    ]
    .concat();
    check_after("zRS", &[], &frame, Rule::SIGNAL);
    check_after("zR", &[], &frame, Rule::UNSUPPORTED);
    check_after("zRS", USUAL, &[], Rule::register(RSP, 8));
}

#[test]
fn nonsense_costs_only_what_is_behind_it() {
    let mut section = EhFrame::usual();
    section.function(0, CODE_ADDRESS, 0x20, &[advance(4), DEF_CFA_OFFSET, 16, advance(4), 0x3f]);
    section.function(0, CODE_ADDRESS + 0x20, 0x20, &[advance(4), DEF_CFA_OFFSET, 16]);
    let table = build_from_bytes(&section.elf()).unwrap();
    let expected = [(0, 8), (4, 16), (0x20, 8), (0x24, 16)];
    for (at, offset) in expected {
        assert_eq!(table.rule_at(CODE_OFFSET + at), Rule::register(RSP, offset), "{at:#x}");
    }
    assert_eq!(table.rule_at(CODE_OFFSET + 8), Rule::UNSUPPORTED);
    assert_eq!(table.rule_at(CODE_OFFSET + 0x1f), Rule::UNSUPPORTED);
}

#[test]
fn the_processor_decides() {
    let mut section = EhFrame::default();
    let common = section.common("zR", &[DEF_CFA, 31, 0]);
    section.function(common, CODE_ADDRESS, 0x20, &[advance(4), DEF_CFA_OFFSET, 32, 0x9d, 4, 0x9e, 3]);
    let table = build_from_bytes(&elf(AARCH64, &[(".eh_frame", 0, &section.0)])).unwrap();
    assert_eq!(table.rule_at(CODE_OFFSET), Rule::register(31, 0));
    let framed = Rule { other: i8::MAX - 1, ..Rule::register(31, 32) };
    assert_eq!(table.rule_at(CODE_OFFSET + 4), with_frame_pointer(Saved::AtCfa, -32, framed));
    let other = build_from_bytes(&elf(243, &[(".eh_frame", 0, &section.0)]));
    assert!(matches!(other, Err(BuildError::NoCallFrames)), "{other:?}");
}

#[test]
fn debug_frame_where_that_is_all() {
    // Its common entries have -1 in place of 0, its functions refer to them by their place.
    let mut section = EhFrame::usual();
    let at = section.function(0, CODE_ADDRESS, 0x20, &[]);
    section.0[4..8].fill(0xff);
    section.0[at + 4..at + 8].fill(0);
    let table = build_from_bytes(&elf(62, &[(".debug_frame", 0, &section.0)])).unwrap();
    assert_eq!(table.rule_at(CODE_OFFSET), Rule::register(RSP, 8));
}

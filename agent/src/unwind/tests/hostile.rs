//! Damaged and lying files: fewer rows or an error, never anything else.

use super::fixture::{CODE_ADDRESS, CODE_BYTES, CODE_OFFSET, EhFrame, USUAL, X86_64, elf};
use crate::unwind::{BuildError, build_from_bytes};
use chokepoint_ebpf::unwind::table::Rule;

/// A section with something of everything.
fn varied() -> EhFrame {
    let mut section = EhFrame::usual();
    let signal = section.common("zRS", USUAL);
    for (function, common) in [(0, 0), (1, signal), (2, 0)] {
        let instructions = [
            &[0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6][..],
            &[0x0a, 0x02, 9, 0x0f, 3, 0x76, 0x78, 6, 0x0b],
            &[0x03, 1, 1, 0x10, 3, 2, 0x76, 8, 0xc6, 0x2e, 8],
        ];
        section.function(common, CODE_ADDRESS + function * 0x1000, 0x800, &instructions.concat());
    }
    section
}

#[test]
fn every_prefix_of_a_section_is_read_as_far_as_it_goes() {
    let section = varied().0;
    for len in 0..section.len() {
        match build_from_bytes(&elf(X86_64, &[(".eh_frame", 0, &section[..len])])) {
            Ok(table) => assert!(table.check()),
            Err(BuildError::Damaged(_) | BuildError::NoCallFrames) => {}
            Err(error) => panic!("{len}: {error}"),
        }
    }
}

#[test]
fn every_changed_byte_leaves_a_valid_table_or_an_error() {
    let file = varied().elf();
    for at in 0..file.len() {
        for change in [0x01, 0x80, 0xff, 0x40, 0x7f] {
            let mut changed = file.clone();
            changed[at] ^= change;
            if let Ok(table) = build_from_bytes(&changed) {
                assert!(table.check(), "{at} ^ {change:#x}");
            }
        }
    }
}

#[test]
fn every_prefix_of_a_file_is_an_error_or_a_valid_table() {
    let file = varied().elf();
    for len in 0..file.len() {
        if let Ok(table) = build_from_bytes(&file[..len]) {
            assert!(table.check(), "{len}");
        }
    }
}

#[test]
fn sections_that_lie_about_their_size_or_place() {
    let file = varied().elf();
    let headers = file.len() - 3 * 64;
    let changed = |field: usize, value: u64| {
        let mut changed = file.clone();
        let at = headers + 64 + field;
        changed[at..at + 8].copy_from_slice(&value.to_le_bytes());
        build_from_bytes(&changed)
    };
    const OFFSET: usize = 24;
    const SIZE: usize = 32;
    assert!(matches!(changed(SIZE, 1 << 30), Err(BuildError::TooLarge(_))));
    assert!(matches!(changed(SIZE, u64::MAX), Err(BuildError::TooLarge(_))));
    assert!(matches!(changed(SIZE, 1 << 26), Err(BuildError::Damaged(_))));
    assert!(matches!(changed(OFFSET, u64::MAX - 8), Err(BuildError::Damaged(_))));
    assert!(matches!(changed(SIZE, 0), Err(BuildError::NoCallFrames)));
}

#[test]
fn functions_outside_of_the_code_are_left_out() {
    let mut section = EhFrame::usual();
    let end = CODE_ADDRESS + CODE_BYTES;
    for (address, len) in [
        (0, 0x100),
        (CODE_ADDRESS - 1, 0x100),
        (end, 0x100),
        (u64::MAX - 4, 0x100),
        (CODE_ADDRESS + 0x100, 0),
        // Its end wraps around; what lies in the segment counts.
        (end - 0x10, u64::MAX),
    ] {
        section.function(0, address, len, &[]);
    }
    let table = build_from_bytes(&section.elf()).unwrap();
    assert!(table.check());
    assert_eq!(table.rule_at(CODE_OFFSET), Rule::NONE);
    assert_eq!(table.rule_at(CODE_OFFSET + 0x100), Rule::NONE);
    assert_eq!(table.rule_at(CODE_OFFSET + CODE_BYTES - 0x10), Rule::register(7, 8));
    assert_eq!(table.rule_at(CODE_OFFSET + CODE_BYTES), Rule::NONE);
}

#[test]
fn many_functions_of_the_whole_code_stay_one() {
    let mut section = EhFrame::usual();
    for _ in 0..100_000 {
        // Two rows, the second a megabyte behind.
        section.function(0, CODE_ADDRESS, CODE_BYTES, &[0x04, 0xff, 0xff, 0x0f, 0, 0x0e, 16]);
    }
    let table = build_from_bytes(&section.elf()).unwrap();
    // One for each page, and one for each change.
    assert!(table.rows.len() <= table.pages.len() + 4, "{}", table.rows.len());
}

#[test]
fn a_common_entry_of_unusual_length_is_not_followed_for_each_function() {
    let mut section = EhFrame::default();
    let nops = vec![0; 4000];
    let common = section.common("zR", &[USUAL, &nops].concat());
    section.function(common, CODE_ADDRESS, 0x10, &[]);
    assert!(matches!(build_from_bytes(&section.elf()), Err(BuildError::NoCallFrames)));
}

//! Functions laid out as pages.

use chokepoint_ebpf::unwind::table::{MAX_RULES, OTHER_LOST, PAGE_BYTES, Rule};

use crate::unwind::runs::Runs;
use crate::unwind::table::{rule_bits, rule_of_bits};
use crate::unwind::{MAX_CODE_OFFSET, Table};

const A: Rule = Rule::register(7, 8);
const B: Rule = Rule::register(7, 16);
const C: Rule = Rule::register(6, 16);

/// A function's start, end and rows.
type Function<'a> = (u64, u64, &'a [(u64, Rule)]);

fn table(functions: &[Function<'_>]) -> Table {
    let mut runs = Runs::default();
    for (start, end, rows) in functions {
        runs.begin(*start, *end).unwrap();
        for (offset, rule) in *rows {
            runs.row(*offset, *rule).unwrap();
        }
    }
    let table = runs.into_table().unwrap();
    assert!(table.check());
    table
}

/// Each row of a table, by its offset in the file.
fn rows(table: &Table) -> Vec<(u64, Rule)> {
    let mut rows = Vec::new();
    for (number, page) in table.pages.iter().enumerate() {
        for row in &table.rows[page.first as usize..][..usize::from(page.count)] {
            let offset = number as u64 * PAGE_BYTES + u64::from(row.offset);
            rows.push((offset, table.rules[usize::from(row.rule)]));
        }
    }
    rows
}

#[test]
fn functions_are_sorted_merged_and_padding_is_not_a_gap() {
    let built = table(&[
        (0x80, 0x90, &[(0x80, B)]),
        (0x10, 0x21, &[(0x10, A), (0x18, B)]),
        // 15 bytes behind the one before; it begins as that one ended.
        (0x30, 0x40, &[(0x30, B), (0x38, B), (0x39, A)]),
        (0x40, 0x50, &[(0x40, A)]),
        // 16 bytes.
        (0x60, 0x70, &[(0x60, A)]),
    ]);
    let none = Rule::NONE;
    let expected = [
        (0x00, none),
        (0x10, A),
        (0x18, B),
        (0x39, A),
        (0x50, none),
        (0x60, A),
        (0x70, none),
        (0x80, B),
        (0x90, none),
    ];
    assert_eq!(rows(&built), expected);
}

#[test]
fn every_page_begins_with_what_holds_there() {
    let page = PAGE_BYTES;
    let built = table(&[
        (page - 8, 3 * page + 8, &[(page - 8, A), (2 * page, B)]),
        (6 * page, 7 * page, &[(6 * page, C)]),
    ]);
    let expected = [
        (0, Rule::NONE),
        (page - 8, A),
        (page, A),
        (2 * page, B),
        (3 * page, B),
        (3 * page + 8, Rule::NONE),
        (6 * page, C),
    ];
    assert_eq!(rows(&built), expected);
    // Pages without code have no rows, the last page is the last with code.
    assert_eq!(built.pages.len(), 7);
    assert_eq!(built.rule_at(4 * page), Rule::NONE);
    assert_eq!(built.rule_at(7 * page), Rule::NONE);
    assert_eq!(built.rule_at(u64::MAX), Rule::NONE);
    assert_eq!(built.rule_at(7 * page - 1), C);
}

#[test]
fn of_functions_that_overlap_the_first_has_what_both_claim() {
    let built = table(&[
        (0x20, 0x60, &[(0x20, B), (0x30, C), (0x50, A)]),
        (0x10, 0x40, &[(0x10, A)]),
        (0x18, 0x20, &[(0x18, C)]),
        (0x60, 0x70, &[(0x60, B)]),
        (0x60, 0x80, &[(0x60, C)]),
    ]);
    let expected =
        [(0, Rule::NONE), (0x10, A), (0x40, C), (0x50, A), (0x60, B), (0x70, C), (0x80, Rule::NONE)];
    assert_eq!(rows(&built), expected);
}

#[test]
fn rows_at_the_same_place_and_far_apart() {
    let far = 1 << 20;
    let built = table(&[(0x10, far + 0x20, &[(0x10, A), (0x10, B), (far, A), (far, C), (far + 8, A)])]);
    assert_eq!(built.rule_at(0x10), B);
    assert_eq!(built.rule_at(far - 1), B);
    assert_eq!(built.rule_at(far), C);
    assert_eq!(built.rule_at(far + 8), A);
    assert_eq!(built.rule_at(far + 0x20), Rule::NONE);
}

#[test]
fn rules_beyond_the_limit_are_unsupported() {
    let mut runs = Runs::default();
    let count = MAX_RULES as u64 + 10;
    runs.begin(0, 2 * count).unwrap();
    for at in 0..count {
        runs.row(at, Rule::register(7, at as i32)).unwrap();
    }
    runs.row(count, Rule::NONE).unwrap();
    let built = runs.into_table().unwrap();
    assert!(built.check());
    assert_eq!(built.rules.len(), MAX_RULES);
    assert_eq!(built.rule_at(1000), Rule::register(7, 1000));
    assert_eq!(built.rule_at(count - 1), Rule::UNSUPPORTED);
    assert_eq!(built.rule_at(count), Rule::NONE);
}

#[test]
fn what_lies_too_far_back_is_too_large() {
    let mut runs = Runs::default();
    assert!(runs.begin(MAX_CODE_OFFSET - 1, MAX_CODE_OFFSET).is_ok());
    assert!(runs.begin(MAX_CODE_OFFSET, MAX_CODE_OFFSET + 1).is_err());
}

#[test]
fn a_rule_survives_as_a_number() {
    for rule in [Rule::NONE, Rule::SIGNAL, A, C, Rule { other: -128, ..Rule::register(15, i32::MIN) }] {
        assert_eq!(rule_of_bits(rule_bits(rule)), rule);
    }
    // Any number is a rule, and stays the same one.
    for bits in [u64::MAX, 0x1234_5678_9abc_def0, 0x0004_0000_0000] {
        let rule = rule_of_bits(bits);
        assert_eq!(rule_of_bits(rule_bits(rule)), rule);
    }
}

#[test]
fn rows_that_differ_in_rbx_alone_become_one_unless_a_frame_is_counted_from_it() {
    let rsp = |offset, other| Rule { other, ..Rule::register(7, offset) };
    let functions = [(0, rsp(8, 0)), (1, rsp(8, -2)), (2, rsp(16, -2)), (3, Rule::END)];
    let with = |rules: &[(u64, Rule)]| {
        let rows: Vec<_> = rules.iter().map(|(at, rule)| (0x10 + at, *rule)).collect();
        table(&[(0x10, 0x40, &rows)])
    };
    let compact = with(&functions).compact();
    assert!(compact.check());
    let expected = [
        (0, Rule::NONE),
        (0x10, rsp(8, OTHER_LOST)),
        (0x12, rsp(16, OTHER_LOST)),
        (0x13, Rule::END),
        (0x40, Rule::NONE),
    ];
    assert_eq!(rows(&compact), expected);

    let mut counted = functions.to_vec();
    counted.push((4, Rule::register(3, 8)));
    let table = with(&counted);
    assert_eq!(table.clone().compact(), table);
}

//! Rules for short functions without call-frame information, from their first instructions.
//!
//! A program may have some between functions that are described: the `main` that the Rust compiler makes where panics abort,
//! and the C runtime's own start-up code. Each is on every stack of its program, so they matter more than their number says.
//! Such a function saves registers and makes room on the stack first, and gives both back right before it returns; in between
//! the stack pointer stays where it is. That is what is assumed; anything else has no rules.

use chokepoint_ebpf::unwind::table::{Rule, Saved, SavedAt};
use chokepoint_ebpf::unwind::x86_64::RSP;

/// The longest stretch that is looked at. What is longer is more than one function, or assembly with ways of its own.
pub const MAX_BYTES: usize = 96;
/// Functions begin at multiples of this.
pub const ALIGNMENT: u64 = 16;

const RETURN: u8 = 0xc3;
const PUSH_FRAME_POINTER: u8 = 0x55;

/// The rules of the one function in `code`, which begins with it, each from an offset on.
#[must_use]
pub fn rules(code: &[u8]) -> Option<Vec<(u64, Rule)>> {
    let returns_at = code.iter().rposition(|byte| *byte == RETURN)?;
    let padding = code.len() - returns_at - 1;
    if code.len() > MAX_BYTES || padding >= ALIGNMENT as usize {
        return None;
    }
    let mut rule = Rule::register(RSP, 8);
    let mut rows = vec![(0, rule)];
    let mut at = 0;
    while at < returns_at {
        let (length, pushed) = match code[at..returns_at] {
            // endbr64
            [0xf3, 0x0f, 0x1e, 0xfa, ..] => (4, 0),
            [0x50..=0x57, ..] => (1, 8),
            [0x41, 0x50..=0x57, ..] => (2, 8),
            // sub $n, %rsp
            [0x48, 0x83, 0xec, bytes @ 8..=0x78, ..] if bytes % 8 == 0 => (4, i32::from(bytes)),
            _ => break,
        };
        rule.cfa_offset += pushed;
        if code[at] == PUSH_FRAME_POINTER {
            rule.frame_pointer = SavedAt::new(Saved::AtCfa, -i64::from(rule.cfa_offset))?;
        }
        at += length;
        rows.push((at as u64, rule));
    }
    // Without a frame of its own there is nothing to be learnt from where it begins.
    if rule.cfa_offset == 8 {
        return None;
    }
    rows.push((returns_at as u64, Rule::register(RSP, 8)));
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_function_that_the_rust_compiler_makes() {
        // push %rax; mov %rsi,%rcx; call *(%rip); pop %rcx; ret; and padding
        let code = [0x50, 0x48, 0x89, 0xf1, 0xff, 0x15, 0, 0, 0, 0, 0x59, 0xc3, 0xcc, 0xcc];
        let rsp = |offset| Rule::register(RSP, offset);
        assert_eq!(rules(&code), Some(vec![(0, rsp(8)), (1, rsp(16)), (11, rsp(8))]));
    }

    #[test]
    fn saved_registers_and_room() {
        // endbr64; push %rbp; push %r12; sub $0x18,%rsp; nop; ret
        let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x41, 0x54, 0x48, 0x83, 0xec, 0x18, 0x90, 0xc3];
        let saved = SavedAt::new(Saved::AtCfa, -16).unwrap();
        let with = |offset| Rule { frame_pointer: saved, ..Rule::register(RSP, offset) };
        let last = rules(&code).unwrap();
        assert_eq!(last[last.len() - 2..], [(11, with(48)), (12, Rule::register(RSP, 8))]);
    }

    #[test]
    fn what_is_not_of_this_kind_has_no_rules() {
        let long = [0x50; MAX_BYTES + 1];
        for code in [&[][..], &[0xc3], &[0x90, 0xc3], &[0x50, 0x90], &long] {
            assert_eq!(rules(code), None, "{code:x?}");
        }
    }
}

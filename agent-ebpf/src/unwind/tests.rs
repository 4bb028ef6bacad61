//! The walk over stacks that are made of numbers, on both processors.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::{
    aarch64::{self, Aarch64, LINK_ABOVE_FRAME_POINTER},
    frame::Frame,
    table::{Cfa, Rule, Saved, SavedAt},
    walk::{Host, Mapping, Processor, REGISTERS, WALK_MAPPINGS, WINDOW_WORDS, Walk, advance},
    x86_64::{RBP, RBX, RSP, X86_64},
};
use crate::sample::StackOutcome;

/// Code of one file at [`CODE`], code of no file at [`JIT`], and a stack.
struct World {
    memory: BTreeMap<u64, u64>,
    rules: BTreeMap<u64, Rule>,
    known: bool,
    /// Whether memory around the words that are set can be read, as zeros.
    roomy: bool,
}

const CODE: u64 = 0x40_0000;
const JIT: u64 = 0x7000_0000;
const SIZE: u64 = 0x1_0000;
const FILE: u32 = 7;
const STACK: u64 = 0x7ffc_0000_0000;

impl World {
    /// Words of the stack by their distance from [`STACK`], and rules by the offset they hold from.
    fn new(stack: &[(u64, u64)], rules: &[(u64, Rule)]) -> Self {
        let memory = stack.iter().map(|(offset, word)| (STACK + offset, *word)).collect();
        Self { memory, rules: rules.iter().copied().collect(), known: true, roomy: false }
    }

    /// The same, where the words of several frames are read at a time and where each has to be read by itself.
    fn walk_both_ways<P: Processor>(
        &mut self,
        pc: u64,
        registers: &[(u8, u64)],
    ) -> (Vec<Frame>, StackOutcome) {
        let by_word = self.walk::<P>(pc, registers);
        self.roomy = true;
        assert_eq!(self.walk::<P>(pc, registers), by_word);
        by_word
    }

    /// All frames from these registers, and how the walk ended.
    fn walk<P: Processor>(&self, pc: u64, registers: &[(u8, u64)]) -> (Vec<Frame>, StackOutcome) {
        let mut walk = Walk {
            registers: [0; REGISTERS],
            pc: 0,
            exact: 0,
            lost: 0,
            doubt: 0,
            space: 0,
            window: [0; WINDOW_WORDS],
            window_start: 0,
            window_bytes: 0,
            mappings: [Mapping::default(); WALK_MAPPINGS],
            next_mapping: 0,
        };
        walk.begin(pc, 0);
        walk.forget_mappings();
        registers.iter().for_each(|(number, value)| walk.set_register(*number, *value));
        let mut frames = Vec::new();
        loop {
            let step = advance::<P>(&mut walk, self);
            frames.extend(step.frame);
            if let Some(end) = step.end {
                return (frames, end);
            }
            assert!(frames.len() < 100, "it goes in circles");
        }
    }
}

impl Host for World {
    fn read_window(&self, walk: &mut Walk, address: u64) -> bool {
        let roomy = self.roomy.then_some(0);
        let words = (0..WINDOW_WORDS as u64).map(|word| self.read_word(address + 8 * word).or(roomy));
        let Some(words) = words.collect::<Option<Vec<_>>>() else { return false };
        walk.window.copy_from_slice(&words);
        true
    }

    fn read_word(&self, address: u64) -> Option<u64> {
        self.memory.get(&address).copied()
    }

    fn map(&self, walk: &mut Walk, slot: usize, address: u64) -> bool {
        let (start, file) = match address {
            CODE.. if address - CODE < SIZE => (CODE, FILE),
            JIT.. if address - JIT < SIZE => (JIT, Mapping::NO_FILE),
            _ => return false,
        };
        walk.mappings[slot] = Mapping {
            start,
            end: start + SIZE,
            file,
            pages: 1,
            known: u32::from(self.known),
            ..Mapping::default()
        };
        true
    }

    fn rule(&self, _: &Mapping, offset: u64) -> Rule {
        self.rules.range(..=offset).next_back().map_or(Rule::NONE, |(_, rule)| *rule)
    }
}

fn rsp(offset: i32) -> Rule {
    Rule::register(RSP, offset)
}

fn in_file(offsets: &[u64]) -> Vec<Frame> {
    offsets.iter().map(|offset| Frame::in_file(FILE, *offset)).collect()
}

#[test]
fn callers_are_found_by_rule_until_the_start() {
    // A leaf at 0x10, called from a function at 0x100 that saved rbp, called from the start at 0x200.
    let saves = Rule { frame_pointer: SavedAt::new(Saved::AtCfa, -16).unwrap(), ..rsp(32) };
    let rules = [(0, rsp(8)), (0x100, saves), (0x200, Rule::END)];
    let stack = [(0, CODE + 0x105), (24, 0x1234), (32, CODE + 0x205)];
    let mut world = World::new(&stack, &rules);
    let (frames, end) = world.walk_both_ways::<X86_64>(CODE + 0x10, &[(RSP, STACK)]);
    // Of callers it is the call that counts.
    assert_eq!((frames, end), (in_file(&[0x10, 0x104, 0x204]), StackOutcome::Complete));
}

#[test]
fn registers_come_back_from_where_they_were_saved() {
    // The caller's frame is counted from rbp, its caller's from rbx, both saved by the callee.
    let saves = Rule { frame_pointer: SavedAt::new(Saved::AtCfa, -16).unwrap(), other: -3, ..rsp(24) };
    let rules =
        [(0, saves), (0x100, Rule::register(RBP, 16)), (0x200, Rule::register(RBX, 8)), (0x300, Rule::END)];
    let stack =
        [(0, STACK + 88), (8, STACK + 40), (16, CODE + 0x105), (48, CODE + 0x205), (88, CODE + 0x305)];
    let mut world = World::new(&stack, &rules);
    let (frames, end) = world.walk_both_ways::<X86_64>(CODE, &[(RSP, STACK)]);
    assert_eq!((frames, end), (in_file(&[0, 0x104, 0x204, 0x304]), StackOutcome::Complete));
}

#[test]
fn a_lost_register_is_not_used() {
    let loses = Rule { frame_pointer: SavedAt::UNDEFINED, ..rsp(8) };
    let world =
        World::new(&[(0, CODE + 0x105)], &[(0, loses), (0x100, Rule::register(RBP, 16)), (0x200, Rule::END)]);
    let (frames, end) = world.walk::<X86_64>(CODE, &[(RSP, STACK), (RBP, STACK + 8)]);
    assert_eq!((frames.len(), end), (2, StackOutcome::UnsupportedRule));
}

#[test]
fn the_signal_frame_gives_back_all_registers() {
    let interrupted = [(120, STACK + 400), (160, STACK + 400), (168, CODE + 0x300)];
    let mut stack: Vec<(u64, u64)> = (40..176).step_by(8).map(|at| (at, 0)).collect();
    stack.extend(interrupted);
    stack.push((400, CODE + 0x405));
    let rules = [(0, Rule::SIGNAL), (0x300, rsp(8)), (0x400, Rule::END)];
    let mut world = World::new(&stack, &rules);
    world.roomy = true;
    let (frames, end) = world.walk::<X86_64>(CODE + 8, &[(RSP, STACK)]);
    // What was interrupted is meant as it is, not the byte before.
    assert_eq!((frames, end), (in_file(&[8, 0x300, 0x404]), StackOutcome::Complete));
}

#[test]
fn the_return_address_may_be_in_a_register_of_a_leaf() {
    const RDI: u8 = 5;
    let rule = Rule { cfa: (Cfa::ReturnInRegister as u8) << 4 | RDI, ..Rule::NONE };
    let rules = [(0, rule), (0x100, Rule::END)];
    let world = World::new(&[], &rules);
    let leaf = world.walk::<X86_64>(CODE, &[(RSP, STACK), (RDI, CODE + 0x105)]);
    assert_eq!(leaf, (in_file(&[0, 0x104]), StackOutcome::Complete));
    // A caller's rdi is long overwritten.
    let rules = [(0, rule), (0x100, rsp(8))];
    let (frames, end) =
        World::new(&[(0, CODE + 5)], &rules).walk::<X86_64>(CODE + 0x100, &[(RSP, STACK), (RDI, CODE)]);
    assert_eq!((frames.len(), end), (2, StackOutcome::UnsupportedRule));
}

#[test]
fn a_walk_that_does_not_rise_ends() {
    let world = World::new(&[(0, CODE + 5)], &[(0, rsp(0))]);
    assert_eq!(world.walk::<X86_64>(CODE, &[(RSP, STACK)]).1, StackOutcome::BadFrame);
    let unreadable = World::new(&[], &[(0, rsp(8))]);
    assert_eq!(unreadable.walk::<X86_64>(CODE, &[(RSP, STACK)]).1, StackOutcome::StackUnreadable);
    let nowhere = World::new(&[(0, 0x1234_5678)], &[(0, rsp(8))]);
    assert_eq!(nowhere.walk::<X86_64>(CODE, &[(RSP, STACK)]), (in_file(&[0]), StackOutcome::NoMapping));
}

#[test]
fn frame_pointers_in_a_file_without_rules_leave_a_doubt() {
    let stack = [(0, STACK + 16), (8, CODE + 0x105), (16, 0), (24, CODE + 0x205)];
    let registers = [(RSP, STACK), (RBP, STACK)];
    let mut world = World::new(&stack, &[(0x200, Rule::END)]);
    let (frames, end) = world.walk_both_ways::<X86_64>(CODE, &registers);
    assert_eq!((frames, end), (in_file(&[0, 0x104, 0x204]), StackOutcome::NoRule));
    world.known = false;
    assert_eq!(world.walk::<X86_64>(CODE, &registers).1, StackOutcome::TableMissing);
    // What a runtime compiled keeps them.
    let stack = [(0, 0), (8, CODE + 0x205)];
    let world = World::new(&stack, &[(0x200, Rule::END)]);
    let (frames, end) = world.walk::<X86_64>(JIT, &registers);
    assert_eq!(frames, [Frame::anonymous(JIT), Frame::in_file(FILE, 0x204)]);
    assert_eq!(end, StackOutcome::Complete);
}

/// Bits that pointer authentication puts above an address.
const SIGNATURE: u64 = 0x002a << 48;

#[test]
fn on_aarch64_a_leaf_returns_by_the_link_register_and_signatures_are_cleared() {
    let sp = |offset, other| Rule { other, ..Rule::register(aarch64::SP & 15, offset) };
    let saves =
        Rule { frame_pointer: SavedAt::new(Saved::AtCfa, -32).unwrap(), ..sp(32, LINK_ABOVE_FRAME_POINTER) };
    let rules = [(0, sp(0, 0)), (0x100, saves), (0x200, Rule::END)];
    let stack = [(0, STACK + 64), (8, (CODE + 0x208) | SIGNATURE)];
    let mut world = World::new(&stack, &rules);
    let registers = [(aarch64::SP, STACK), (aarch64::LR, (CODE + 0x108) | SIGNATURE)];
    let (frames, end) = world.walk_both_ways::<Aarch64>(CODE + 4, &registers);
    assert_eq!((frames, end), (in_file(&[4, 0x107, 0x207]), StackOutcome::Complete));
    // A caller cannot have its own return address there: the call overwrote it.
    let world = World::new(&stack, &[(0, sp(0, 0)), (0x100, sp(16, 0))]);
    assert_eq!(world.walk::<Aarch64>(CODE + 4, &registers).1, StackOutcome::BadFrame);
}

#[test]
fn on_aarch64_frame_pointers_end_at_zero() {
    let stack = [(0, 0), (8, (JIT + 0x108) | SIGNATURE)];
    let world = World::new(&stack, &[]);
    let registers = [(aarch64::SP, STACK), (aarch64::FP, STACK)];
    let (frames, end) = world.walk::<Aarch64>(JIT, &registers);
    assert_eq!(frames, [Frame::anonymous(JIT), Frame::anonymous(JIT + 0x107)]);
    assert_eq!(end, StackOutcome::Complete);
}

//! What a rule can say of call-frame information on x86-64.

use chokepoint_ebpf::unwind::table::{Cfa, OTHER_LOST, Rule, Saved, SavedAt};
use gimli::{Register, X86_64 as Reg};

use super::cfi::{CfaAt, FRAME_POINTER, OTHER, Processor, RETURN_ADDRESS, STACK_POINTER, State, ValueAt};

/// Where the return address is, from the CFA. The unwinder looks nowhere else.
const RETURN_ADDRESS_AT: i64 = -8;

/// How the C libraries describe their return from a signal handler: `rsp` and `rip` lie in the `sigcontext` that the kernel
/// left 40 bytes above the stack pointer.
const SIGNAL_CFA: CfaAt = CfaAt::Deref(Reg::RSP, 160);
const SIGNAL_RETURN_ADDRESS: ValueAt = ValueAt::Register(Reg::RSP, 168);

/// x86-64's rules.
pub struct X86_64;

impl Processor for X86_64 {
    const REGISTERS: [Register; 4] = [Reg::RBP, Reg::RBX, Reg::RA, Reg::RSP];

    #[inline]
    fn rule(state: &State, signal: bool) -> Rule {
        match state.registers[RETURN_ADDRESS] {
            ValueAt::Undefined => return Rule::END,
            SIGNAL_RETURN_ADDRESS if signal && state.cfa == SIGNAL_CFA => return Rule::SIGNAL,
            ValueAt::InRegister(register) => return return_in_register(state, register),
            _ => {}
        }
        if state.relative_to_cfa(RETURN_ADDRESS) != ValueAt::Cfa(RETURN_ADDRESS_AT) {
            return Rule::UNSUPPORTED;
        }
        // The caller's stack pointer is the CFA, unless something else is said.
        if !matches!(state.registers[STACK_POINTER], ValueAt::Unsaid | ValueAt::Same | ValueAt::ValueCfa(0)) {
            return Rule::UNSUPPORTED;
        }
        match (cfa(state.cfa), frame_pointer(state)) {
            (Some((cfa, cfa_offset)), Some(frame_pointer)) => {
                Rule { cfa_offset, frame_pointer, cfa, other: other(state) }
            }
            _ => Rule::UNSUPPORTED,
        }
    }
}

fn cfa(at: CfaAt) -> Option<(u8, i32)> {
    let (kind, register, offset) = match at {
        CfaAt::Register(register, offset) => (Cfa::Register, register.0, offset),
        CfaAt::Deref(register, offset) => (Cfa::Deref, register.0, offset),
        CfaAt::Plt(pushed) => (Cfa::Plt, 0, i64::from(pushed)),
        CfaAt::Unknown => return None,
    };
    let register = u8::try_from(register).ok().filter(|&register| register < 16)?;
    Some(((kind as u8) << 4 | register, i32::try_from(offset).ok()?))
}

/// Of code that keeps the return address out of the stack, and nothing else in it.
fn return_in_register(state: &State, register: Register) -> Rule {
    match (state.cfa, u8::try_from(register.0)) {
        (CfaAt::Register(Reg::RSP, offset), Ok(register @ 0..16)) if i32::try_from(offset).is_ok() => Rule {
            cfa_offset: offset as i32,
            cfa: (Cfa::ReturnInRegister as u8) << 4 | register,
            ..Rule::NONE
        },
        _ => Rule::UNSUPPORTED,
    }
}

/// The rules of such a section, each from an offset on. A stub jumps, or pushes a number first and then goes to the one that
/// the section begins with, which pushes another.
pub fn linkage_rules(name: &str) -> &'static [(u64, Rule)] {
    const RSP: u8 = Reg::RSP.0 as u8;
    /// The push is behind a jump of six bytes, and has five.
    const PUSHED: Rule = Rule { cfa_offset: 11, cfa: (Cfa::Plt as u8) << 4, ..Rule::NONE };
    const LAZY: &[(u64, Rule)] = &[(0, Rule::register(RSP, 16)), (6, Rule::register(RSP, 24)), (16, PUSHED)];
    const JUMPS: &[(u64, Rule)] = &[(0, Rule::register(RSP, 8))];
    if name == ".plt" { LAZY } else { JUMPS }
}

fn frame_pointer(state: &State) -> Option<SavedAt> {
    match state.relative_to_cfa(FRAME_POINTER) {
        ValueAt::Unsaid | ValueAt::Same => Some(SavedAt::SAME),
        ValueAt::Undefined => Some(SavedAt::UNDEFINED),
        ValueAt::Cfa(offset) => SavedAt::new(Saved::AtCfa, offset),
        ValueAt::Register(Reg::RBP, offset) => SavedAt::new(Saved::AtFramePointer, offset),
        ValueAt::Register(..) | ValueAt::InRegister(_) | ValueAt::ValueCfa(_) | ValueAt::Unknown => None,
    }
}

/// In words from the CFA. Few frames are counted from `rbx`, so a value out of reach spoils only those.
fn other(state: &State) -> i8 {
    match state.relative_to_cfa(OTHER) {
        ValueAt::Unsaid | ValueAt::Same => 0,
        ValueAt::Cfa(offset) if offset != 0 && offset % 8 == 0 => {
            i8::try_from(offset / 8).ok().filter(|&words| words != OTHER_LOST).unwrap_or(OTHER_LOST)
        }
        _ => OTHER_LOST,
    }
}

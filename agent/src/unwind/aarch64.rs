//! What a rule can say of call-frame information on aarch64.

use chokepoint_ebpf::unwind::aarch64::LINK_ABOVE_FRAME_POINTER;
use chokepoint_ebpf::unwind::table::{Cfa, OTHER_LOST, Rule, Saved, SavedAt};
use gimli::{AArch64 as Reg, Register};

use super::cfi::{CfaAt, FRAME_POINTER, Processor, RETURN_ADDRESS, State, ValueAt};

/// aarch64's rules. The other register of a rule is the link register, which is the return address.
pub struct Aarch64;

impl Processor for Aarch64 {
    const REGISTERS: [Register; 4] = [Reg::X29, Reg::X30, Reg::X30, Reg::SP];

    fn rule(state: &State, signal: bool) -> Rule {
        if signal {
            return Rule::SIGNAL;
        }
        if state.registers[RETURN_ADDRESS] == ValueAt::Undefined {
            return Rule::END;
        }
        let CfaAt::Register(register @ (Reg::X29 | Reg::SP), offset) = state.cfa else {
            return Rule::UNSUPPORTED;
        };
        match (i32::try_from(offset), frame_pointer(state)) {
            (Ok(cfa_offset), Some(frame_pointer)) => Rule {
                cfa_offset,
                frame_pointer,
                cfa: (Cfa::Register as u8) << 4 | register.0 as u8 & 15,
                other: link(state, frame_pointer),
            },
            _ => Rule::UNSUPPORTED,
        }
    }
}

fn frame_pointer(state: &State) -> Option<SavedAt> {
    match state.relative_to_cfa(FRAME_POINTER) {
        ValueAt::Unsaid | ValueAt::Same => Some(SavedAt::SAME),
        ValueAt::Undefined => Some(SavedAt::UNDEFINED),
        ValueAt::Cfa(offset) => SavedAt::new(Saved::AtCfa, offset),
        ValueAt::Register(Reg::X29, offset) => SavedAt::new(Saved::AtFramePointer, offset),
        ValueAt::Register(..) | ValueAt::InRegister(_) | ValueAt::ValueCfa(_) | ValueAt::Unknown => None,
    }
}

/// Where the link register is: next to the frame pointer in nearly all frames, which one number says for all their sizes.
fn link(state: &State, frame_pointer: SavedAt) -> i8 {
    let (base, offset) = match state.relative_to_cfa(RETURN_ADDRESS) {
        ValueAt::Unsaid | ValueAt::Same => return 0,
        ValueAt::Cfa(offset) => (Saved::AtCfa, offset),
        ValueAt::Register(Reg::X29, offset) => (Saved::AtFramePointer, offset),
        _ => return OTHER_LOST,
    };
    if base == frame_pointer.saved() && offset == frame_pointer.offset() + 8 {
        return LINK_ABOVE_FRAME_POINTER;
    }
    match i8::try_from(offset / 8) {
        Ok(words)
            if base == Saved::AtCfa && offset % 8 == 0 && words != 0 && words < LINK_ABOVE_FRAME_POINTER =>
        {
            words
        }
        _ => OTHER_LOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chokepoint_ebpf::unwind::aarch64::{FP, SP};

    #[test]
    fn rules_say_what_compilers_for_aarch64_do() {
        use ValueAt::{Cfa as At, Register as Based, Same, Undefined, Unknown, Unsaid};
        let saved = |offset| SavedAt::new(Saved::AtCfa, offset).unwrap();
        let rule = |cfa_register, cfa_offset, frame_pointer, other| Rule {
            frame_pointer,
            other,
            ..Rule::register(cfa_register, cfa_offset)
        };
        let sp = |offset| CfaAt::Register(Reg::SP, offset);
        let fp = |offset| CfaAt::Register(Reg::X29, offset);
        let cases = [
            // A leaf, or the first instruction of any function.
            (sp(0), Unsaid, Unsaid, rule(SP, 0, SavedAt::SAME, 0)),
            (sp(32), Same, Same, rule(SP, 32, SavedAt::SAME, 0)),
            // stp x29, x30, [sp, -48]!; mov x29, sp
            (sp(48), At(-48), At(-40), rule(SP, 48, saved(-48), LINK_ABOVE_FRAME_POINTER)),
            (fp(4096), At(-4096), At(-4088), rule(FP, 4096, saved(-4096), LINK_ABOVE_FRAME_POINTER)),
            // Without a frame pointer.
            (sp(16), Unsaid, At(-16), rule(SP, 16, SavedAt::SAME, -2)),
            (sp(4096), Unsaid, At(-4096), rule(SP, 4096, SavedAt::SAME, OTHER_LOST)),
            (sp(16), Unsaid, Unknown, rule(SP, 16, SavedAt::SAME, OTHER_LOST)),
            // By expression: from the frame pointer of this frame.
            (
                sp(64),
                Based(Reg::X29, 0),
                Based(Reg::X29, 8),
                rule(SP, 64, SavedAt::new(Saved::AtFramePointer, 0).unwrap(), LINK_ABOVE_FRAME_POINTER),
            ),
            (fp(16), At(-16), Undefined, Rule::END),
            (CfaAt::Register(Reg::X19, 0), Unsaid, Unsaid, Rule::UNSUPPORTED),
            (CfaAt::Deref(Reg::SP, 0), Unsaid, Unsaid, Rule::UNSUPPORTED),
        ];
        for (cfa, frame_pointer, link, expected) in cases {
            let state = State { cfa, registers: [frame_pointer, link, link, Unsaid] };
            assert_eq!(Aarch64::rule(&state, false), expected, "{state:?}");
        }
        let trampoline = State { cfa: fp(0), registers: [At(0), At(8), At(8), Unsaid] };
        assert_eq!(Aarch64::rule(&trampoline, true), Rule::SIGNAL);
    }
}

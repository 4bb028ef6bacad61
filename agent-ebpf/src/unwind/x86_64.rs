//! Unwinding on x86-64.
//!
//! General registers have their DWARF numbers. Of a caller's registers, the walk keeps the stack pointer, `rbp` and `rbx`
//! ([`Rule::other`]): no caller's frame is counted from another one, outside of prologues that only a leaf can be in. The
//! return address is always at CFA - 8.

use super::{
    table::{Cfa, OTHER_LOST, Rule, Saved},
    walk::{Host, Processor, Walk},
};
use crate::sample::StackOutcome;

/// DWARF's number of `rbx`.
pub const RBX: u8 = 3;
/// DWARF's number of the frame pointer.
pub const RBP: u8 = 6;
/// DWARF's number of the stack pointer.
pub const RSP: u8 = 7;

/// Where the registers are in the signal frame, in bytes from the stack pointer that the return from the handler finds:
/// `sigcontext` follows `uc_flags`, `uc_link` and `uc_stack` of `ucontext`.
const SIGNAL_REGISTERS: u64 = 40;
/// DWARF numbers of `sigcontext`'s first registers in their order; `rip` comes behind them.
const SIGNAL_ORDER: [u8; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 5, 4, RBP, RBX, 1, 0, 2, RSP];

/// Bytes of the two forms of `mov $15, %eax; syscall` (`rt_sigreturn`) that C libraries have, as little-endian words.
const SIGNAL_RETURN_64: u64 = 0x0f00_0000_0fc0_c748;
const SIGNAL_RETURN_32: u64 = 0x0005_0f00_0000_0fb8;

/// x86-64's rules.
#[derive(Clone, Copy, Debug)]
pub struct X86_64;

impl Processor for X86_64 {
    #[inline(always)]
    fn apply(walk: &mut Walk, host: &impl Host, rule: Rule) -> Result<(), StackOutcome> {
        let sp = walk.register(RSP);
        let offset = i64::from(rule.cfa_offset) as u64;
        let cfa = match Cfa::of(rule.cfa) {
            Cfa::Signal => return return_from_signal(walk, host, sp),
            Cfa::ReturnInRegister => return return_by_register(walk, rule, sp),
            Cfa::Plt => {
                let pushed = walk.pc & 15 >= offset;
                sp.wrapping_add(8 + 8 * u64::from(pushed))
            }
            kind => {
                let register = rule.cfa_register();
                let kept = register == RSP || register == RBP || register == RBX;
                if (!kept && walk.exact == 0) || walk.is_lost(register) {
                    return Err(StackOutcome::UnsupportedRule);
                }
                let at = walk.register(register).wrapping_add(offset);
                if matches!(kind, Cfa::Deref) { walk.stack_word(host, at)? } else { at }
            }
        };
        // A caller's frame lies above: anything else would let a walk go in circles.
        if cfa <= sp || cfa & 7 != 0 {
            return Err(StackOutcome::BadFrame);
        }
        walk.cover(host, sp, cfa);
        let return_address = walk.stack_word(host, cfa.wrapping_sub(8))?;
        let at = rule.frame_pointer;
        let base = match at.saved() {
            Saved::Same => None,
            Saved::Undefined => {
                walk.lose_register(RBP);
                None
            }
            Saved::AtCfa => Some(cfa),
            Saved::AtFramePointer => Some(walk.register(RBP)),
        };
        if let Some(base) = base {
            let address = base.wrapping_add(at.offset() as u64);
            let value = walk.stack_word(host, address)?;
            walk.set_register(RBP, value);
        }
        if rule.other == OTHER_LOST {
            walk.lose_register(RBX);
        } else if rule.other != 0 {
            let address = cfa.wrapping_add((i64::from(rule.other) * 8) as u64);
            let value = walk.stack_word(host, address)?;
            walk.set_register(RBX, value);
        }
        if return_address == 0 {
            return Err(StackOutcome::Complete);
        }
        walk.set_register(RSP, cfa);
        walk.pc = return_address;
        walk.exact = 0;
        Ok(())
    }

    #[inline(always)]
    fn follow_frame_pointer(walk: &mut Walk, host: &impl Host) -> Result<bool, StackOutcome> {
        let frame_pointer = walk.register(RBP);
        if frame_pointer == 0 && !walk.is_lost(RBP) {
            return Ok(false);
        }
        if frame_pointer & 7 != 0 || walk.is_lost(RBP) {
            return Err(StackOutcome::BadFrame);
        }
        let cfa = frame_pointer.wrapping_add(16);
        walk.cover(host, frame_pointer, cfa);
        let caller = walk.stack_word(host, frame_pointer)?;
        let return_address = walk.stack_word(host, frame_pointer.wrapping_add(8))?;
        if return_address == 0 {
            return Ok(false);
        }
        walk.set_register(RSP, cfa);
        walk.set_register(RBP, caller);
        walk.lose_register(RBX);
        walk.pc = return_address;
        walk.exact = 0;
        Ok(true)
    }

    #[inline(always)]
    fn is_signal_return(walk: &Walk, host: &impl Host) -> bool {
        match host.read_word(walk.pc) {
            Some(SIGNAL_RETURN_64) => true,
            Some(word) => word << 8 == SIGNAL_RETURN_32 << 8,
            None => false,
        }
    }
}

/// The return address is in a register, which only what executes still has.
#[inline(always)]
fn return_by_register(walk: &mut Walk, rule: Rule, sp: u64) -> Result<(), StackOutcome> {
    if walk.exact == 0 {
        return Err(StackOutcome::UnsupportedRule);
    }
    walk.pc = walk.register(rule.cfa_register());
    walk.exact = 0;
    walk.set_register(RSP, sp.wrapping_add(i64::from(rule.cfa_offset) as u64));
    Ok(())
}

/// Takes all registers from the frame that the kernel laid down for the handler.
#[inline(always)]
fn return_from_signal(walk: &mut Walk, host: &impl Host, sp: u64) -> Result<(), StackOutcome> {
    walk.window_start = sp.wrapping_add(SIGNAL_REGISTERS);
    walk.window_bytes = 0;
    if !host.read_window(walk, walk.window_start) {
        return Err(StackOutcome::StackUnreadable);
    }
    for (index, number) in SIGNAL_ORDER.into_iter().enumerate() {
        walk.set_register(number, walk.window[index]);
    }
    walk.pc = walk.window[SIGNAL_ORDER.len()];
    walk.exact = 1;
    Ok(())
}

//! Unwinding on aarch64 (64-bit Arm).
//!
//! General registers have their DWARF numbers (`x0` to `x30`), the stack pointer is 31. A rule's CFA register is one of
//! [`SP`] and [`FP`], packed as their low four bits. [`Rule::other`] says where the link register `x30` is: 0 where it still
//! holds the return address, which only a leaf or an interrupted function may claim; else in words from the CFA, or
//! [`LINK_ABOVE_FRAME_POINTER`].
//!
//! Return addresses may be signed (pointer authentication); the signature is in the bits above the address space and is
//! cleared.

use super::{
    table::{Cfa, OTHER_LOST, Rule, Saved, SavedAt},
    walk::{Host, Processor, Walk},
};
use crate::sample::StackOutcome;

/// The frame pointer, `x29`.
pub const FP: u8 = 29;
/// The link register, `x30`.
pub const LR: u8 = 30;
/// The stack pointer.
pub const SP: u8 = 31;

/// [`Rule::other`]: the link register is in the word above the saved frame pointer, as `stp x29, x30` leaves it, however far
/// from the CFA that is.
pub const LINK_ABOVE_FRAME_POINTER: i8 = i8::MAX - 1;

/// User addresses have 48 bits unless a program asks for more; a signature is above.
const ADDRESS_BITS: u64 = (1 << 48) - 1;

/// Where the registers are in the signal frame, in bytes from the stack pointer: behind `siginfo` (128), and in `ucontext`
/// behind `uc_flags`, `uc_link`, `uc_stack`, `uc_sigmask` with its padding to 1024 bits, and `fault_address`.
const SIGNAL_REGISTERS: u64 = 128 + 8 + 8 + 24 + 128 + 8 + 8;

/// `mov x8, #139; svc #0` (`rt_sigreturn`), as a little-endian word.
const SIGNAL_RETURN: u64 = 0xd400_0001_d280_1168;

/// aarch64's rules.
#[derive(Clone, Copy, Debug)]
pub struct Aarch64;

impl Processor for Aarch64 {
    #[inline(always)]
    fn apply(walk: &mut Walk, host: &impl Host, rule: Rule) -> Result<(), StackOutcome> {
        let sp = walk.register(SP);
        let kind = Cfa::of(rule.cfa);
        if matches!(kind, Cfa::Signal) {
            return return_from_signal(walk, host, sp);
        }
        if !matches!(kind, Cfa::Register) {
            return Err(StackOutcome::UnsupportedRule);
        }
        let register = match rule.cfa_register() {
            r if r == SP & 15 => SP,
            r if r == FP & 15 => FP,
            _ => return Err(StackOutcome::UnsupportedRule),
        };
        let cfa = walk.register(register).wrapping_add(i64::from(rule.cfa_offset) as u64);
        // A leaf may have no frame at all.
        if cfa < sp || (cfa == sp && walk.exact == 0) || cfa & 7 != 0 {
            return Err(StackOutcome::BadFrame);
        }
        walk.cover(host, sp, cfa);
        let saved = rule.frame_pointer;
        let return_address = match rule.other {
            0 if walk.exact != 0 => walk.register(LR),
            0 | OTHER_LOST => return Err(StackOutcome::BadFrame),
            LINK_ABOVE_FRAME_POINTER => {
                walk.stack_word(host, saved_address(walk, cfa, saved).wrapping_add(8))?
            }
            words => walk.stack_word(host, cfa.wrapping_add((i64::from(words) * 8) as u64))?,
        };
        if !matches!(saved.saved(), Saved::Same | Saved::Undefined) {
            let value = walk.stack_word(host, saved_address(walk, cfa, saved))?;
            walk.set_register(FP, value);
        }
        walk.set_register(SP, cfa);
        arrive(walk, return_address).then_some(()).ok_or(StackOutcome::Complete)
    }

    #[inline(always)]
    fn follow_frame_pointer(walk: &mut Walk, host: &impl Host) -> Result<bool, StackOutcome> {
        let frame_pointer = walk.register(FP);
        if frame_pointer == 0 {
            return Ok(false);
        }
        if frame_pointer & 7 != 0 {
            return Err(StackOutcome::BadFrame);
        }
        let cfa = frame_pointer.wrapping_add(16);
        walk.cover(host, frame_pointer, cfa);
        let caller = walk.stack_word(host, frame_pointer)?;
        let return_address = walk.stack_word(host, frame_pointer.wrapping_add(8))?;
        walk.set_register(FP, caller);
        walk.set_register(SP, cfa);
        Ok(arrive(walk, return_address))
    }

    #[inline(always)]
    fn is_signal_return(walk: &Walk, host: &impl Host) -> bool {
        host.read_word(walk.pc) == Some(SIGNAL_RETURN)
    }
}

/// Goes to a return address; `false` where it is zero and the thread starts here.
#[inline(always)]
fn arrive(walk: &mut Walk, return_address: u64) -> bool {
    let address = return_address & ADDRESS_BITS;
    walk.pc = address;
    walk.exact = 0;
    address != 0
}

#[inline(always)]
fn saved_address(walk: &Walk, cfa: u64, at: SavedAt) -> u64 {
    let base = if matches!(at.saved(), Saved::AtFramePointer) { walk.register(FP) } else { cfa };
    base.wrapping_add(at.offset() as u64)
}

#[inline(always)]
fn read(host: &impl Host, address: u64) -> Result<u64, StackOutcome> {
    host.read_word(address).ok_or(StackOutcome::StackUnreadable)
}

/// Takes frame pointer, link register, stack pointer and program counter from the frame that the kernel laid down for the
/// handler.
#[inline(always)]
fn return_from_signal(walk: &mut Walk, host: &impl Host, sp: u64) -> Result<(), StackOutcome> {
    let at = |index: u64| sp.wrapping_add(SIGNAL_REGISTERS + 8 * index);
    let frame_pointer = read(host, at(u64::from(FP)))?;
    let link = read(host, at(u64::from(LR)))?;
    let stack_pointer = read(host, at(u64::from(SP)))?;
    let pc = read(host, at(32))?;
    walk.set_register(FP, frame_pointer);
    walk.set_register(LR, link);
    walk.set_register(SP, stack_pointer);
    walk.pc = pc;
    walk.exact = 1;
    Ok(())
}

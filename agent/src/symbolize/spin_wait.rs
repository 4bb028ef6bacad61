//! Tells loops that wait for another thread on the CPU by their instructions: no name says so, and none could be relied on.
//!
//! Such a loop computes nothing. It reads memory, or exchanges it as one operation, compares and begins again: what is different when
//! it ends, somebody else has written. Or it tells the processor itself that it waits (`pause`).

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, MemorySize, Mnemonic, OpKind, Register,
};

/// The longest loop that is looked at. A spinlock's has up to 40 bytes, with a back-off some more.
const MAX_LOOP_BYTES: u64 = 96;
/// The longest instruction.
const MAX_INSTRUCTION_BYTES: u64 = 15;

/// How much code before an address and after it tells.
pub const BYTES_AROUND: u64 = MAX_LOOP_BYTES + MAX_INSTRUCTION_BYTES;

/// Whether the instruction at `address` belongs to a loop that waits for another thread. `code` begins at `start`. Only x86-64 is
/// read; `address` must be where an instruction begins, as of a sampled one.
#[must_use]
pub fn is_spin_wait(code: &[u8], start: u64, address: u64) -> bool {
    let mut end = address;
    // Inner loops end before the one around them does.
    while let Some((branch, target)) = next_backward_branch(code, start, end) {
        end = branch.next_ip();
        if end.saturating_sub(target) > MAX_LOOP_BYTES {
            return false;
        }
        if target <= address {
            let body: Vec<Instruction> =
                decode(code, start, target).take_while(|one| one.ip() < end).collect();
            let is_in_step = body.iter().any(|one| one.ip() == address);
            return is_in_step && waits(&body);
        }
    }
    false
}

fn decode(code: &[u8], start: u64, from: u64) -> impl Iterator<Item = Instruction> {
    let skipped = from.checked_sub(start).and_then(|skipped| usize::try_from(skipped).ok());
    let code = skipped.and_then(|skipped| code.get(skipped..)).unwrap_or_default();
    Decoder::with_ip(64, code, from, DecoderOptions::NONE).into_iter().take_while(|one| !one.is_invalid())
}

/// The next branch that goes back, from an instruction on; `None` where control leaves before.
fn next_backward_branch(code: &[u8], start: u64, from: u64) -> Option<(Instruction, u64)> {
    for one in decode(code, start, from) {
        match one.flow_control() {
            FlowControl::Next => {}
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                let target = one.near_branch_target();
                if target <= one.ip() {
                    return Some((one, target));
                }
                if one.flow_control() == FlowControl::UnconditionalBranch {
                    return None;
                }
            }
            _ => return None,
        }
    }
    None
}

/// Whether a loop of these instructions makes no headway by itself.
fn waits(body: &[Instruction]) -> bool {
    if body.iter().any(|one| one.mnemonic() == Mnemonic::Pause) {
        return true;
    }
    let read_into: Vec<Register> = body
        .iter()
        .filter(|one| one.mnemonic() == Mnemonic::Mov && one.op0_kind() == OpKind::Register)
        .map(|one| one.op0_register().full_register())
        .collect();
    // A loop that goes from one address to the next reads a list.
    let goes_on = |one: &Instruction| {
        [one.memory_base(), one.memory_index()]
            .iter()
            .any(|register| *register != Register::None && read_into.contains(&register.full_register()))
    };
    body.iter().any(|one| one.memory_size() != MemorySize::Unknown)
        && body.iter().all(|one| computes_nothing(one) && !goes_on(one))
}

fn computes_nothing(one: &Instruction) -> bool {
    let is_atomic = one.has_lock_prefix() || one.mnemonic() == Mnemonic::Xchg;
    match one.mnemonic() {
        // Reads, or sets what is exchanged.
        Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => {
            one.op0_kind() == OpKind::Register
        }
        Mnemonic::Xchg | Mnemonic::Cmpxchg | Mnemonic::Bts => is_atomic,
        Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Nop => true,
        // Zero, however it is written.
        Mnemonic::Xor => one.op1_kind() == OpKind::Register && one.op0_register() == one.op1_register(),
        _ => one.flow_control() != FlowControl::Next && one.code() != Code::INVALID,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at each of the instructions that begin at `at`.
    fn check(code: &[u8], at: &[u64], expected: bool) {
        const START: u64 = 0x40_1000;
        for position in at {
            assert_eq!(is_spin_wait(code, START, START + position), expected, "{code:x?} at {position}");
        }
    }

    #[test]
    fn loops_that_only_another_thread_ends() {
        // 1: mov eax, 1; xchg [rdi], eax; test eax, eax; je out; 2: mov eax, [rdi]; test eax, eax; jne 2; jmp 1; out: ret
        let exchange = [
            0xb8, 1, 0, 0, 0, 0x87, 0x07, 0x85, 0xc0, 0x74, 0x08, 0x8b, 0x07, 0x85, 0xc0, 0x75, 0xfa, 0xeb,
            0xed, 0xc3,
        ];
        check(&exchange, &[0, 5, 7, 9, 11, 13, 15, 17], true);
        check(&exchange, &[19], false);
        // 1: pause; dec ecx; jne 1
        check(&[0xf3, 0x90, 0xff, 0xc9, 0x75, 0xfa], &[0, 2, 4], true);
        // 1: xor eax, eax; lock cmpxchg [rdi], edx; jne 1
        check(&[0x31, 0xc0, 0xf0, 0x0f, 0xb1, 0x17, 0x75, 0xf8], &[0, 2, 6], true);
        // 1: cmp dword [rip + 0x2000], 0; je 1
        check(&[0x83, 0x3d, 0, 0x20, 0, 0, 0, 0x74, 0xf7], &[0, 7], true);
    }

    #[test]
    fn loops_that_get_on_by_themselves() {
        // 1: add rax, 1; cmp rax, rdi; jne 1
        check(&[0x48, 0x83, 0xc0, 1, 0x48, 0x39, 0xf8, 0x75, 0xf7], &[0, 4, 7], false);
        // 1: mov rax, [rax]; test rax, rax; jne 1: the end of a list
        check(&[0x48, 0x8b, 0x00, 0x48, 0x85, 0xc0, 0x75, 0xf8], &[0, 3, 6], false);
        // 1: mov rdx, [rdi]; mov [rsi], rdx; test rdx, rdx; jne 1: writes
        check(&[0x48, 0x8b, 0x17, 0x48, 0x89, 0x16, 0x48, 0x85, 0xd2, 0x75, 0xf5], &[0, 3, 6], false);
        // 1: call 1; jmp 1
        check(&[0xe8, 0xfb, 0xff, 0xff, 0xff, 0xeb, 0xf9], &[0], false);
        // 1: jmp 1, which reads nothing
        check(&[0xeb, 0xfe], &[0], false);
        // mov eax, [rdi]; test eax, eax; ret
        check(&[0x8b, 0x07, 0x85, 0xc0, 0xc3], &[0, 2, 4], false);
    }

    #[test]
    fn any_bytes_at_any_address_are_borne() {
        let code: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        for start in [0, 0x40_0000, u64::MAX - 300] {
            for address in start.saturating_sub(20)..start.saturating_add(540) {
                let _ = is_spin_wait(&code, start, address);
            }
        }
        assert!(!is_spin_wait(&[], 0, 0));
        // The middle of an instruction: mov eax, [rdi]; test eax, eax; jne back.
        check(&[0x8b, 0x07, 0x85, 0xc0, 0x75, 0xfa], &[1, 3], false);
    }
}

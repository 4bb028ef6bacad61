//! What differs between processors.

use aya_ebpf::{EbpfContext, programs::PerfEventContext};
use chokepoint_ebpf::unwind::walk::Walk;

use super::task::KernelPointer;

#[cfg(bpf_target_arch = "aarch64")]
pub use aarch64::{
    KERNEL_STACK_BYTES, Unwinding, UserRegisters, ended_syscall, interrupted_user_mode, is_32_bit, is_poll,
    is_select, makes_process, program_counter, syscall, take_up,
};
#[cfg(bpf_target_arch = "x86_64")]
pub use x86_64::{
    KERNEL_STACK_BYTES, Unwinding, UserRegisters, ended_syscall, interrupted_user_mode, is_32_bit, is_poll,
    is_select, makes_process, program_counter, syscall, take_up,
};

/// Copies the registers that a perf event interrupted, which its context begins with.
#[inline(always)]
pub fn copy_interrupted(ctx: &PerfEventContext, registers: &mut UserRegisters) {
    for (index, register) in registers.iter_mut().enumerate() {
        // SAFETY: within the context's registers; the verifier allows aligned reads of eight bytes.
        *register = unsafe { ctx.as_ptr().cast::<u64>().add(index).read_volatile() };
    }
}

#[inline(always)]
fn context_word(ctx: &PerfEventContext, index: usize) -> u64 {
    // SAFETY: as above; the callers name a register's index.
    unsafe { ctx.as_ptr().cast::<u64>().add(index).read_volatile() }
}

#[cfg(bpf_target_arch = "x86_64")]
mod x86_64 {
    use chokepoint_ebpf::sched::SYSCALL_ARGUMENTS;

    use super::{KernelPointer, PerfEventContext, Walk, context_word};

    pub use chokepoint_ebpf::unwind::x86_64::X86_64 as Unwinding;

    /// `struct pt_regs`.
    pub type UserRegisters = [u64; 21];
    /// Of kernels from 5.10 to 5.14; later ones tell where the registers are.
    pub const KERNEL_STACK_BYTES: u64 = 16 << 10;

    const RDX: usize = 12;
    const RSI: usize = 13;
    const RDI: usize = 14;
    /// The system call's number; -1 in interrupts.
    const ORIG_RAX: usize = 15;
    const RIP: usize = 16;
    const CS: usize = 17;
    /// DWARF's number of the register at each place of `pt_regs`; 16 for those that have none.
    const DWARF: [u8; 21] = [15, 14, 13, 12, 6, 3, 11, 10, 9, 8, 0, 2, 1, 4, 5, 16, 16, 16, 16, 7, 16];
    /// Code segment of 64-bit user code.
    const USER_CS_64: u64 = 0x33;

    /// Whether the perf event interrupted user mode.
    #[inline(always)]
    pub fn interrupted_user_mode(ctx: &PerfEventContext) -> bool {
        context_word(ctx, CS) & 3 != 0
    }

    /// Whether the registers are those of 32-bit code.
    #[inline(always)]
    pub fn is_32_bit(registers: &UserRegisters) -> bool {
        registers[CS] != USER_CS_64
    }

    /// Where user code goes on; 0 where it never began, as in threads of the kernel's own that borrow an address space.
    #[inline(always)]
    pub fn program_counter(registers: &UserRegisters) -> u64 {
        registers[RIP]
    }

    /// Number and first arguments of the system call that the registers entered the kernel with; `NO_SYSCALL` where an
    /// interrupt did.
    #[inline(always)]
    pub fn syscall(registers: &UserRegisters) -> (u64, [u64; SYSCALL_ARGUMENTS]) {
        (registers[ORIG_RAX], [registers[RDI], registers[RSI], registers[RDX]])
    }

    /// Number of the system call that ends with these registers, `struct pt_regs`; `None` of 32-bit code, whose numbers mean something else.
    #[inline(always)]
    pub fn ended_syscall(registers: KernelPointer) -> Option<u16> {
        let [number, _, code_segment] = registers.read::<[u64; 3]>((ORIG_RAX * size_of::<u64>()) as u64)?;
        (code_segment == USER_CS_64 && number <= u64::from(u16::MAX)).then_some(number as u16)
    }

    /// Whether a system call makes a thread or a process: clone, fork, vfork, clone3.
    #[inline(always)]
    pub fn makes_process(syscall: u16) -> bool {
        matches!(syscall, 56 | 57 | 58 | 435)
    }

    /// Whether a system call waits for an array of descriptors: poll, ppoll.
    #[inline(always)]
    pub fn is_poll(syscall: u64) -> bool {
        matches!(syscall, 7 | 271)
    }

    /// Whether a system call waits for sets of descriptors: select, pselect6.
    #[inline(always)]
    pub fn is_select(syscall: u64) -> bool {
        matches!(syscall, 23 | 270)
    }

    /// Gives a walk its first registers.
    #[inline(always)]
    pub fn take_up(walk: &mut Walk, registers: &UserRegisters) {
        for (index, register) in registers.iter().enumerate() {
            if DWARF[index] != 16 {
                walk.registers[usize::from(DWARF[index])] = *register;
            }
        }
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod aarch64 {
    use chokepoint_ebpf::sched::SYSCALL_ARGUMENTS;

    use super::{KernelPointer, PerfEventContext, Walk, context_word};

    pub use chokepoint_ebpf::unwind::aarch64::Aarch64 as Unwinding;

    /// `struct user_pt_regs`: `x0` to `x30`, `sp`, `pc`, `pstate`.
    pub type UserRegisters = [u64; 34];
    /// Of kernels from 5.10 to 5.14; later ones tell where the registers are.
    pub const KERNEL_STACK_BYTES: u64 = 16 << 10;

    const PC: usize = 32;
    const PSTATE: usize = 33;
    /// In `pstate`: 32-bit code.
    const PSTATE_32: u64 = 0x10;

    /// Whether the perf event interrupted user mode.
    #[inline(always)]
    pub fn interrupted_user_mode(ctx: &PerfEventContext) -> bool {
        context_word(ctx, PSTATE) & 0xf == 0
    }

    /// Whether the registers are those of 32-bit code.
    #[inline(always)]
    pub fn is_32_bit(registers: &UserRegisters) -> bool {
        registers[PSTATE] & PSTATE_32 != 0
    }

    /// Where user code goes on; 0 where it never began.
    #[inline(always)]
    pub fn program_counter(registers: &UserRegisters) -> u64 {
        registers[PC]
    }

    /// Number and first arguments of the system call; of one that is over, or of an interrupt, what the registers happen to
    /// hold: the kernel's own note of it is not among them.
    #[inline(always)]
    pub fn syscall(registers: &UserRegisters) -> (u64, [u64; SYSCALL_ARGUMENTS]) {
        (registers[8], [registers[0], registers[1], registers[2]])
    }

    /// Number of the system call that ends with these registers, `struct pt_regs`; `None` of 32-bit code, whose numbers mean something else.
    #[inline(always)]
    pub fn ended_syscall(registers: KernelPointer) -> Option<u16> {
        let [pstate, _, number] = registers.read::<[u64; 3]>((PSTATE * size_of::<u64>()) as u64)?;
        // An int, whose other half is something else.
        let number = number as u32;
        (pstate & PSTATE_32 == 0 && number <= u32::from(u16::MAX)).then_some(number as u16)
    }

    /// Whether a system call makes a thread or a process: clone, clone3.
    #[inline(always)]
    pub fn makes_process(syscall: u16) -> bool {
        matches!(syscall, 220 | 435)
    }

    /// Whether a system call waits for an array of descriptors: ppoll.
    #[inline(always)]
    pub fn is_poll(syscall: u64) -> bool {
        syscall == 73
    }

    /// Whether a system call waits for sets of descriptors: pselect6.
    #[inline(always)]
    pub fn is_select(syscall: u64) -> bool {
        syscall == 72
    }

    /// Gives a walk its first registers.
    #[inline(always)]
    pub fn take_up(walk: &mut Walk, registers: &UserRegisters) {
        walk.registers.copy_from_slice(&registers[..32]);
    }
}

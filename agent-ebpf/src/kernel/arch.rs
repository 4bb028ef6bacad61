//! What differs between processors.

use aya_ebpf::{EbpfContext, programs::PerfEventContext};

/// Whether the perf event interrupted user mode.
#[inline(always)]
pub fn interrupted_user_mode(ctx: &PerfEventContext) -> bool {
    // The context begins with the interrupted registers; the verifier allows aligned reads of eight bytes.
    #[cfg(bpf_target_arch = "x86_64")]
    {
        /// Index of `cs` among the registers of x86-64's `pt_regs`.
        const CS: usize = 17;
        // SAFETY: within the context's registers.
        let cs = unsafe { ctx.as_ptr().cast::<u64>().add(CS).read_volatile() };
        cs & 3 != 0
    }
    #[cfg(bpf_target_arch = "aarch64")]
    {
        /// Index of `pstate` in arm64's `user_pt_regs`.
        const PSTATE: usize = 33;
        // SAFETY: within the context's registers.
        let pstate = unsafe { ctx.as_ptr().cast::<u64>().add(PSTATE).read_volatile() };
        pstate & 0xf == 0
    }
}

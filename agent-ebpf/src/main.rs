//! Entry points of the kernel programs. They only name the hook; the work is in [`kernel`].

#![no_std]
#![no_main]

mod kernel;

use aya_ebpf::{
    macros::{btf_tracepoint, perf_event, raw_tracepoint},
    programs::{BtfTracePointContext, PerfEventContext, RawTracePointContext},
};

/// Runs on each tick of a CPU's sampling timer or cycle counter.
#[perf_event]
fn on_cpu(ctx: PerfEventContext) -> u32 {
    kernel::on_cpu::sample(&ctx);
    0
}

/// Runs when a thread or process has been forked, in the parent's context.
#[btf_tracepoint(function = "sched_process_fork")]
fn follow_fork(ctx: BtfTracePointContext) -> i32 {
    kernel::gate::follow_fork(&ctx);
    0
}

/// Run by the agent alone, never attached: announces the file that the agent maps at an address, its only argument.
#[raw_tracepoint]
fn introduce_file(ctx: RawTracePointContext) -> i32 {
    kernel::unwind::introduce(ctx.arg(0));
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

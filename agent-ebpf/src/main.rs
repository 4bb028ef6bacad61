//! Entry points of the kernel programs. They only name the hook; the work is in [`kernel`].

#![no_std]
#![no_main]
// Rust's assembler for BPF is not stable yet.
#![feature(asm_experimental_arch)]

mod kernel;

use kernel::threads::Iteration;

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, perf_event, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, PerfEventContext, RawTracePointContext},
};
use chokepoint_ebpf::memory::{Fault, Scope};

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

/// Runs when a CPU is taken from one thread and given to another, with the run queue locked.
#[btf_tracepoint(function = "sched_switch")]
fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    kernel::sched::switched(&ctx);
    0
}

/// Runs when a thread that slept is on a run queue.
#[btf_tracepoint(function = "sched_wakeup")]
fn sched_wakeup(ctx: BtfTracePointContext) -> i32 {
    kernel::sched::woken(&ctx);
    0
}

/// Runs when a new thread is on a run queue.
#[btf_tracepoint(function = "sched_wakeup_new")]
fn sched_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    kernel::sched::born(&ctx);
    0
}

/// Runs when a thread is about to be woken, in the context of what wakes it.
#[btf_tracepoint(function = "sched_waking")]
fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    kernel::waits::waking(&ctx);
    0
}

/// Runs in the interrupt that a switch asked for.
#[btf_tracepoint(function = "irq_work_entry")]
fn wait_over(ctx: BtfTracePointContext) -> i32 {
    kernel::waits::interrupted(&ctx);
    0
}

/// Runs for each thread of the host when a window begins.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn threads_begin(iteration: *const Iteration) -> i32 {
    // SAFETY: the kernel's context, whose fields the verifier knows.
    kernel::threads::begin(unsafe { &*iteration });
    0
}

/// Runs for each thread of the host just before a window ends.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn threads_running(iteration: *const Iteration) -> i32 {
    // SAFETY: as above.
    kernel::threads::running(unsafe { &*iteration });
    0
}

/// Runs for each thread of the host when a window ends, and before, to meet the files they run.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter.s/task")]
fn threads_report(iteration: *const Iteration) -> i32 {
    // SAFETY: as above.
    kernel::threads::report(unsafe { &*iteration }, kernel::threads::user_stack);
    0
}

/// The same on kernels whose programs of this kind may not sleep.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn threads_report_5_10(iteration: *const Iteration) -> i32 {
    // SAFETY: as above.
    kernel::threads::report(unsafe { &*iteration }, kernel::threads::no_user_stack);
    0
}

/// Runs when a system call ends.
#[btf_tracepoint(function = "sys_exit")]
fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    kernel::failed_calls::ends(&ctx);
    0
}

/// Runs when the state of a socket changes.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    kernel::tcp::changed(&ctx);
    0
}

/// Runs when segments of a connection are sent again, in whatever context.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    kernel::tcp::retransmits(&ctx);
    0
}

/// Runs when the answer to a SYN is sent again.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    kernel::tcp::retransmits_synack(&ctx);
    0
}

/// Runs when a reset is sent.
#[btf_tracepoint(function = "tcp_send_reset")]
fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    kernel::tcp::sends_reset(&ctx);
    0
}

/// Runs when a reset has come.
#[btf_tracepoint(function = "tcp_receive_reset")]
fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    kernel::tcp::receives_reset(&ctx);
    0
}

/// Runs when a thread has sent on a socket, in its context.
#[btf_tracepoint(function = "sock_send_length")]
fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    kernel::tcp::sends(&ctx, ctx.arg(0));
    0
}

/// The same on kernels without that tracepoint (before 6.3): runs when a thread begins to send on a TCP socket.
#[fentry(function = "tcp_sendmsg")]
fn tcp_sendmsg(ctx: FEntryContext) -> i32 {
    kernel::tcp::sends(&ctx, ctx.arg(0));
    0
}

/// Runs when a thread has had a minor page fault.
#[perf_event]
fn minor_fault(ctx: PerfEventContext) -> u32 {
    kernel::memory::faulted(&ctx, Fault::Minor);
    0
}

/// Runs when a thread has had a major page fault.
#[perf_event]
fn major_fault(ctx: PerfEventContext) -> u32 {
    kernel::memory::faulted(&ctx, Fault::Major);
    0
}

/// Runs when a thread is made to reclaim memory since the host has none left.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
fn mm_vmscan_direct_reclaim_begin(_ctx: BtfTracePointContext) -> i32 {
    kernel::memory::begins_reclaim();
    0
}

/// Runs when it has.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
fn mm_vmscan_direct_reclaim_end(ctx: BtfTracePointContext) -> i32 {
    kernel::memory::ends_reclaim(&ctx, Scope::Host);
    0
}

/// Runs when a thread is made to reclaim memory since its group is at its limit.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
fn mm_vmscan_memcg_reclaim_begin(_ctx: BtfTracePointContext) -> i32 {
    kernel::memory::begins_reclaim();
    0
}

/// Runs when it has.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
fn mm_vmscan_memcg_reclaim_end(ctx: BtfTracePointContext) -> i32 {
    kernel::memory::ends_reclaim(&ctx, Scope::Group);
    0
}

/// Runs when a thread is made to compact memory.
#[btf_tracepoint(function = "mm_compaction_try_to_compact_pages")]
fn mm_compaction_try_to_compact_pages(_ctx: BtfTracePointContext) -> i32 {
    kernel::memory::compacts();
    0
}

/// Runs when the kernel's own reclaim begins.
#[btf_tracepoint(function = "mm_vmscan_kswapd_wake")]
fn mm_vmscan_kswapd_wake(_ctx: BtfTracePointContext) -> i32 {
    kernel::memory::kswapd_wakes();
    0
}

/// Runs when a process has been chosen to be killed since memory ran out.
#[btf_tracepoint(function = "mark_victim")]
fn mark_victim(ctx: BtfTracePointContext) -> i32 {
    kernel::memory::kills(&ctx);
    0
}

/// Runs when a request is inserted into the queue of its block device.
#[btf_tracepoint(function = "block_rq_insert")]
fn block_rq_insert(ctx: BtfTracePointContext) -> i32 {
    kernel::block::inserted(&ctx);
    0
}

/// Runs when a request is given to its block device.
#[btf_tracepoint(function = "block_rq_issue")]
fn block_rq_issue(ctx: BtfTracePointContext) -> i32 {
    kernel::block::issued(&ctx);
    0
}

/// Runs when a block device gives a request back.
#[btf_tracepoint(function = "block_rq_requeue")]
fn block_rq_requeue(ctx: BtfTracePointContext) -> i32 {
    kernel::block::requeued(&ctx);
    0
}

/// Runs when a request becomes part of another.
#[btf_tracepoint(function = "block_rq_merge")]
fn block_rq_merge(ctx: BtfTracePointContext) -> i32 {
    kernel::block::merged(&ctx);
    0
}

/// Runs when a request or a part of it is done, also in interrupts.
#[btf_tracepoint(function = "block_rq_complete")]
fn block_rq_complete(ctx: BtfTracePointContext) -> i32 {
    kernel::block::completed(&ctx);
    0
}

/// Runs when a bio goes to its device's queue, past the limits of groups.
#[btf_tracepoint(function = "block_bio_queue")]
fn block_bio_queue(ctx: BtfTracePointContext) -> i32 {
    kernel::block::holds::released(&ctx);
    0
}

/// Run by the agent alone, never attached: shows it what the kernel has at an address, its only argument.
#[raw_tracepoint]
fn block_peek(ctx: RawTracePointContext) -> i32 {
    kernel::block::holds::peek(ctx.arg(0));
    0
}

/// Runs when a bio comes to the limit of its group. The agent names the function, which differs between kernels.
#[fentry(function = "__blk_throtl_bio")]
fn block_limit(ctx: FEntryContext) -> i32 {
    kernel::block::holds::meets_limit(&ctx);
    0
}

/// Runs when it has been decided whether the limit holds it back.
#[fexit(function = "__blk_throtl_bio")]
fn block_limit_over(ctx: FExitContext) -> i32 {
    kernel::block::holds::passes_limit(&ctx);
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

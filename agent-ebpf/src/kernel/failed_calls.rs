//! The source of failed calls: system calls that fail for want of something that is limited.
//!
//! The program runs whenever a system call ends, which is why the agent attaches it for short times only. A call that succeeds costs one
//! addition, and a look at one number that is 0 until the first failure.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
    programs::BtfTracePointContext,
};
use chokepoint_ebpf::{
    counters::Counter,
    failed_calls::{CallKey, CallTotals, NO_ERROR, is_of_limit},
};

use super::{
    arch, atomic,
    counters::count,
    gate,
    sample::Ids,
    task::{self, KernelPointer},
};

/// How calls ended. The agent sets the size before loading.
#[map]
static FAILED_CALLS: HashMap<CallKey, CallTotals> = HashMap::with_max_entries(1, 0);
/// Calls that ended while the program was attached.
#[map]
static CALLS_SEEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// 1 as soon as there is an entry in the map of calls.
#[map]
static ANY_FAILED: Array<u64> = Array::with_max_entries(1, 0);

/// The highest number of an error.
const MAX_ERROR: i64 = 4095;

/// A system call of the current thread ends.
#[inline(always)]
pub fn ends(ctx: &BtfTracePointContext) {
    if let Some(seen) = CALLS_SEEN.get_ptr_mut(0) {
        // SAFETY: this CPU's; another thread that takes the CPU in between may lose one of very many.
        unsafe { *seen += 1 };
    }
    let result = ctx.arg::<i64>(1);
    let failed = (-MAX_ERROR..0).contains(&result);
    if !failed && ANY_FAILED.get(0).copied().unwrap_or_default() == 0 {
        return;
    }
    let Some(syscall) = arch::ended_syscall(KernelPointer::new(ctx.arg(0))) else {
        return;
    };
    let error = if failed { (-result) as u16 } else { NO_ERROR };
    if failed && !is_of_limit(error, arch::makes_process(syscall)) {
        return;
    }
    let (current, ids) = (task::current(), Ids::current());
    let key = CallKey { tgid: ids.tgid, syscall, error };
    if let Some(totals) = FAILED_CALLS.get_ptr_mut(key) {
        // SAFETY: in a map's entry.
        unsafe { atomic::add(&raw mut (*totals).calls, 1) };
        return;
    }
    if !failed || !gate::admits(current, ids.tgid) {
        return;
    }
    let comm = task::comm(task::group_leader(current).unwrap_or(current));
    let first = CallTotals { calls: 1, comm };
    // Both or none, but for a table that fills in between: the failures are what matters.
    if FAILED_CALLS.insert(key, first, u64::from(BPF_NOEXIST)).is_err() {
        return count(Counter::FailedCallsFull);
    }
    let succeeded = CallKey { error: NO_ERROR, ..key };
    let none = CallTotals { calls: 0, comm };
    let _ = FAILED_CALLS.insert(succeeded, none, u64::from(BPF_NOEXIST));
    let _ = ANY_FAILED.set(0, 1, 0);
}

//! The memory source: page faults, direct reclaim, and processes that are killed for want of memory.
//!
//! Everything is counted for its process as it happens. Stacks are taken of all major faults, and of a part of the rest: of minor
//! faults each with the same probability, of reclaims by their length as for waits. Neither choice depends on anything else,
//! so that the agent can scale the samples to the counts.
//!
//! Where each fault is too much, the perf event itself leaves out all minor faults but every [`FAULT_PERIOD`]th, and nothing is counted.
//!
//! A fault is seen when it is over, in the context of its thread: that of user code has the registers it interrupted, and no
//! kernel stack. So is a reclaim, whose start is remembered by its thread.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::bpf_get_prandom_u32,
    macros::map,
    maps::{Array, HashMap},
    programs::{BtfTracePointContext, PerfEventContext},
};
use chokepoint_ebpf::{
    COMM_LEN,
    counters::Counter,
    memory::{Fault, FaultFacts, KillRecord, ProcessKey, ProcessTotals, ReclaimFacts, Scope, UNKNOWN_PAGES},
    record::Kind,
    sample::Source,
    sched::is_chosen,
};

use super::{
    arch, atomic, clock,
    config::{
        CGROUP_KN, CSS_CGROUP, CSS_SET_SUBSYS, FAULT_PERIOD, HAS_VICTIM_TASK, KERNFS_NODE_ID,
        MEMORY_CONTROLLER, MM_RSS_STAT, MM_TOTAL_PAGES, RSS_COUNT, RSS_COUNTER_BYTES, TASK_CGROUPS, TASK_PID,
        WANT_RECLAIMS,
    },
    counters::count,
    gate,
    ring::{self, RingFull, Urgency},
    sample::{self, Ids},
    stack::{self, Scratch},
    task::{self, KernelPointer},
};

/// What processes did. The agent sets the size before loading, of this and the next map.
#[map]
static MEMORY_PROCESSES: HashMap<ProcessKey, ProcessTotals> = HashMap::with_max_entries(1, 0);
/// Threads that reclaim, by the addresses of their `task_struct`, and since when.
#[map]
static MEMORY_RECLAIMING: HashMap<u64, u64> = HashMap::with_max_entries(1, 0);
/// Minor faults to a stack, and the period by which reclaims are chosen, nanoseconds.
#[map]
static MEMORY_PERIODS: Array<u64> = Array::with_max_entries(2, 0);
const FAULTS: u32 = 0;
const RECLAIMS: u32 = 1;

/// Places in the kernel's `rss_stat`.
const FILE_PAGES: u64 = 0;
const ANONYMOUS_PAGES: u64 = 1;
const SHARED_PAGES: u64 = 3;

/// [`MEMORY_CONTROLLER`] of kernels without it.
const NO_CONTROLLER: u32 = u32::MAX;

/// A thread has had a page fault.
#[inline(always)]
pub fn faulted(ctx: &PerfEventContext, fault: Fault) {
    let current = task::current();
    let ids = Ids::current();
    if !gate::admits(current, ids.tgid) {
        return;
    }
    let period = FAULT_PERIOD.load();
    if period == 0
        && let Some(totals) = totals(current, &key(current, ids.tgid))
    {
        let number = match fault {
            Fault::Minor => &raw mut totals.minor_faults,
            Fault::Major => &raw mut totals.major_faults,
        };
        // SAFETY: in a map's entry.
        unsafe { atomic::add(number, 1) };
    }
    let weight = match fault {
        Fault::Major => 1,
        Fault::Minor if period != 0 => period,
        Fault::Minor => match chosen_fault() {
            Some(period) => period,
            None => return,
        },
    };
    count(Counter::FaultAttempted);
    let Some(scratch) = stack::scratch(Source::Fault) else {
        return count(Counter::FaultScratchMissing);
    };
    // SAFETY: the scratch space is this CPU's, and a fault is over before the next one of its CPU is told.
    match unsafe { capture_fault(ctx, scratch, current, ids, fault, weight) } {
        Ok(()) => count(Counter::FaultCaptured),
        Err(RingFull) => count(Counter::FaultRingFull),
    }
}

/// For how many minor faults this one stands; `None` where its stack is not taken.
#[inline(always)]
fn chosen_fault() -> Option<u64> {
    let period = *MEMORY_PERIODS.get(FAULTS)?;
    // SAFETY: the helper has no preconditions.
    let is_chosen = period <= 1 || (u64::from(unsafe { bpf_get_prandom_u32() }) * period) >> 32 == 0;
    is_chosen.then_some(period.max(1))
}

#[inline(always)]
unsafe fn capture_fault(
    ctx: &PerfEventContext,
    scratch: *mut Scratch,
    current: KernelPointer,
    ids: Ids,
    fault: Fault,
    weight: u64,
) -> Result<(), RingFull> {
    let user_mode = arch::interrupted_user_mode(ctx);
    // SAFETY: as the caller's.
    unsafe {
        let leader = sample::identify(&mut (*scratch).header, current);
        let (user, kernel) = stack::capture_interrupted(ctx, scratch, Source::Fault, current, user_mode);
        sample::describe(&mut (*scratch).header, Source::Fault, current, leader, ids, weight, user, kernel);
        let facts = sample::facts::<FaultFacts>(scratch);
        (*facts).kind = Kind::Fault as u32;
        (*facts).fault = fault as u32;
        sample::emit(scratch, size_of::<FaultFacts>(), user.bytes + kernel.bytes)
    }
}

/// The current thread is made to reclaim memory.
#[inline(always)]
pub fn begins_reclaim() {
    let current = task::current();
    if !gate::admits(current, Ids::current().tgid) {
        return;
    }
    if MEMORY_RECLAIMING.insert(current.address(), clock::now_ns(), 0).is_err() {
        count(Counter::ReclaimTableFull);
    }
}

/// It has reclaimed some, or could not.
#[inline(always)]
pub fn ends_reclaim(ctx: &BtfTracePointContext, scope: Scope) {
    let current = task::current();
    let Some(begin_ns) = MEMORY_RECLAIMING.get_ptr(current.address()) else {
        return;
    };
    // SAFETY: the entry stays as long as the program runs.
    let begin_ns = unsafe { *begin_ns };
    let _ = MEMORY_RECLAIMING.remove(current.address());
    let ids = Ids::current();
    let facts = ReclaimFacts {
        kind: Kind::Reclaim as u32,
        scope: scope as u32,
        length_ns: clock::now_ns() - begin_ns,
        pages: ctx.arg(0),
        process: key(current, ids.tgid),
    };
    account_reclaim(current, &facts);
    match chosen_reclaim(begin_ns, facts.length_ns) {
        Some(weight) => tell_with_stack(ctx, current, ids, &facts, weight),
        None => {
            if ring::emit_in_place(Urgency::Timer, |told: &mut ReclaimFacts| *told = facts).is_err() {
                count(Counter::ReclaimRingFull);
            }
        }
    }
}

#[inline(always)]
fn account_reclaim(current: KernelPointer, facts: &ReclaimFacts) {
    if let Some(totals) = totals(current, &facts.process) {
        // SAFETY: in a map's entry.
        unsafe {
            atomic::add(&raw mut totals.reclaims, 1);
            atomic::add(&raw mut totals.reclaim_ns, facts.length_ns);
            atomic::add(&raw mut totals.reclaimed_pages, facts.pages);
        }
    }
}

/// For how much time a reclaim of this length stands; `None` where its stack is not taken.
#[inline(always)]
fn chosen_reclaim(begin_ns: u64, length_ns: u64) -> Option<u64> {
    if WANT_RECLAIMS.load() == 0 {
        return None;
    }
    let period_ns = *MEMORY_PERIODS.get(RECLAIMS)?;
    is_chosen(begin_ns, length_ns, period_ns).then_some(length_ns.max(period_ns))
}

#[inline(always)]
fn tell_with_stack(
    ctx: &BtfTracePointContext,
    current: KernelPointer,
    ids: Ids,
    facts: &ReclaimFacts,
    weight: u64,
) {
    count(Counter::ReclaimAttempted);
    let Some(scratch) = stack::scratch(Source::Reclaim) else {
        return count(Counter::ReclaimScratchMissing);
    };
    // SAFETY: the scratch space is this CPU's, and a reclaim is over before the next one of its CPU is told.
    let told = unsafe {
        let leader = sample::identify(&mut (*scratch).header, current);
        let (user, kernel) = stack::capture_current(ctx, scratch, Source::Reclaim, current);
        sample::describe(&mut (*scratch).header, Source::Reclaim, current, leader, ids, weight, user, kernel);
        let told = sample::facts::<ReclaimFacts>(scratch);
        *told = *facts;
        (*told).kind = Kind::ReclaimStack as u32;
        sample::emit(scratch, size_of::<ReclaimFacts>(), user.bytes + kernel.bytes)
    };
    match told {
        Ok(()) => count(Counter::ReclaimCaptured),
        Err(RingFull) => count(Counter::ReclaimStackRingFull),
    }
}

/// The current thread is made to compact memory.
#[inline(always)]
pub fn compacts() {
    let current = task::current();
    let tgid = Ids::current().tgid;
    if gate::admits(current, tgid)
        && let Some(totals) = totals(current, &key(current, tgid))
    {
        // SAFETY: in a map's entry.
        unsafe { atomic::add(&raw mut totals.compactions, 1) };
    }
}

/// The kernel's own reclaim has begun.
#[inline(always)]
pub fn kswapd_wakes() {
    count(Counter::KswapdRuns);
}

/// A process is to be killed since memory ran out.
#[inline(always)]
pub fn kills(ctx: &BtfTracePointContext) {
    let current = task::current();
    let ids = Ids::current();
    let (victim, tid) = if HAS_VICTIM_TASK.load() != 0 {
        let victim = KernelPointer::new(ctx.arg::<u64>(0));
        (Some(victim), victim.field(&TASK_PID).unwrap_or_default())
    } else {
        let tid = ctx.arg::<u32>(0);
        ((tid == ids.tid).then_some(current), tid)
    };
    let tgid = victim.and_then(task::tgid).unwrap_or_default();
    // Of one that is not known here, the agent finds out.
    if victim.is_some_and(|victim| !gate::admits(victim, tgid)) {
        return;
    }
    let told = ring::emit_in_place(Urgency::Now, |record: &mut KillRecord| {
        record.kind = Kind::Kill as u32;
        record.tgid = tgid;
        record.tid = tid;
        record.by_tgid = ids.tgid;
        record.time_ns = clock::now_ns();
        let mm = victim.and_then(task::address_space);
        record.total_pages = mm.and_then(|mm| mm.field(&MM_TOTAL_PAGES)).unwrap_or(UNKNOWN_PAGES);
        record.file_pages = resident(mm, FILE_PAGES);
        record.anonymous_pages = resident(mm, ANONYMOUS_PAGES);
        record.shared_pages = resident(mm, SHARED_PAGES);
        record.cgroup_id = victim.and_then(group).unwrap_or_default();
        match victim {
            Some(victim) => task::read_comm(task::group_leader(victim).unwrap_or(victim), &mut record.comm),
            None => record.comm = [0; COMM_LEN],
        }
        task::read_comm(task::group_leader(current).unwrap_or(current), &mut record.by_comm);
    });
    if told.is_err() {
        count(Counter::KillLost);
    }
}

/// Pages in memory of one kind.
#[inline(always)]
fn resident(mm: Option<KernelPointer>, kind: u64) -> u64 {
    let at = u64::from(MM_RSS_STAT.load())
        + kind * u64::from(RSS_COUNTER_BYTES.load())
        + u64::from(RSS_COUNT.load());
    match mm.and_then(|mm| mm.read::<i64>(at)) {
        // What CPUs have not yet added up may make it less than nothing.
        Some(pages) if pages > 0 => pages as u64,
        Some(_) => 0,
        None => UNKNOWN_PAGES,
    }
}

#[inline(always)]
fn key(task: KernelPointer, tgid: u32) -> ProcessKey {
    let leader = task::group_leader(task).unwrap_or(task);
    ProcessKey { start_ns: task::start_ns(leader), tgid, reserved: 0 }
}

/// The entry of a thread's process, made if there is none.
#[inline(always)]
fn totals<'a>(task: KernelPointer, key: &ProcessKey) -> Option<&'a mut ProcessTotals> {
    let find = || MEMORY_PROCESSES.get_ptr_mut(key);
    let entry = match find() {
        Some(entry) => Some(entry),
        None => {
            // By reference: a copy of it would be too much for the stack of older kernels.
            let new = &ProcessTotals {
                minor_faults: 0,
                major_faults: 0,
                reclaims: 0,
                reclaim_ns: 0,
                reclaimed_pages: 0,
                compactions: 0,
                cgroup_id: group(task).unwrap_or_default(),
                comm: task::comm(task::group_leader(task).unwrap_or(task)),
            };
            // Another of its threads may be faster.
            let _ = MEMORY_PROCESSES.insert(key, new, BPF_NOEXIST.into());
            find()
        }
    };
    if entry.is_none() {
        count(Counter::MemoryProcessesFull);
    }
    // SAFETY: the entry is not freed while the program runs; what others change in it, they change by `atomic::add`.
    entry.map(|entry| unsafe { &mut *entry })
}

/// Id of the group by which a thread's memory is limited, in whichever hierarchy.
#[inline(always)]
fn group(task: KernelPointer) -> Option<u64> {
    let controller = MEMORY_CONTROLLER.load();
    if controller == NO_CONTROLLER {
        return None;
    }
    let css_set = task.follow(&TASK_CGROUPS)?;
    let css = css_set.read::<u64>(u64::from(CSS_SET_SUBSYS.load()) + u64::from(controller) * 8)?;
    KernelPointer::from_field(css)?.follow(&CSS_CGROUP)?.follow(&CGROUP_KN)?.field(&KERNFS_NODE_ID)
}

//! Looks at all threads, when a window begins and when it ends, and what is told of a thread that ends meanwhile.
//!
//! The looks are the kernel's own iteration over its threads. What it finds at the end goes to the agent through the
//! iterator's file, not through the ring buffer: so none of it can be lost.

use aya_ebpf::{helpers::generated, macros::map, maps::PerCpuArray};
use chokepoint_ebpf::{
    counters::Counter,
    record::Kind,
    sched::{State, ThreadClock, ThreadRecord},
};

use super::{
    config::{
        CGROUP_KN, CSS_SET_DFL_CGRP, KERNFS_NODE_ID, TASK_CGROUPS, TASK_PID, TASK_STATE, TASK_STIME,
        TASK_TGID, TASK_UTIME,
    },
    counters::count,
    gate,
    ring::{self, Urgency},
    sched,
    task::{self, KernelPointer},
    trusted::Trusted,
};

/// Room for a record: one for threads that end, one for the look at all of them, which those interrupt.
#[map]
static THREAD_RECORDS: PerCpuArray<ThreadRecord> = PerCpuArray::with_max_entries(2, 0);
const OF_ENDED: u32 = 0;
const OF_LIVING: u32 = 1;

/// `TASK_DEAD` and `TASK_NEW`: not yet to be accounted for, or no more.
const DEAD_OR_NEW: u32 = 0x80 | 0x800;

/// What the kernel hands to a program that iterates over threads.
#[repr(C)]
pub struct Iteration {
    meta: *const Meta,
    task: *const u8,
}

#[repr(C)]
struct Meta {
    sequence: *mut aya_ebpf::bindings::seq_file,
}

impl Iteration {
    /// The thread; `None` after the last.
    #[inline(always)]
    fn task(&self) -> Option<Trusted> {
        // SAFETY: the context is the kernel's; the verifier knows its fields.
        let task = unsafe { (&raw const self.task).read_volatile() };
        (!task.is_null()).then_some(Trusted::new(task))
    }
}

/// Begins to account for a thread that lives when the window begins.
#[inline(always)]
pub fn begin(iteration: &Iteration) {
    let Some(task) = iteration.task() else {
        return;
    };
    let is_idle = task.field::<u32>(&TASK_PID) == 0;
    if is_idle || task.field::<u32>(&TASK_STATE) & DEAD_OR_NEW != 0 || sched::find(task).is_some() {
        return;
    }
    if gate::admits(task.untrusted(), task.field(&TASK_TGID)) {
        sched::begin(task, sched::apparent_state(task), sched::now());
    }
}

/// Writes a thread's times to the iterator's file.
#[inline(always)]
pub fn report(iteration: &Iteration) {
    let Some(task) = iteration.task() else {
        return;
    };
    let (Some(clock), Some(record)) = (sched::find(task), THREAD_RECORDS.get_ptr_mut(OF_LIVING)) else {
        return;
    };
    // SAFETY: this CPU's, and one iteration runs at a time.
    describe(unsafe { &mut *record }, task, clock, 0);
    // SAFETY: the context is the kernel's. A record that does not fit any more is written again with the next read.
    unsafe {
        let meta = (&raw const iteration.meta).read_volatile();
        let sequence = (&raw const (*meta).sequence).read_volatile();
        generated::bpf_seq_write(sequence, record.cast_const().cast(), size_of::<ThreadRecord>() as u32);
    }
}

/// Tells of a thread that leaves the CPU for the last time.
#[inline(always)]
pub fn ended(task: Trusted, clock: &ThreadClock) {
    let Some(record) = THREAD_RECORDS.get_ptr_mut(OF_ENDED) else {
        return count(Counter::SchedThreadLost);
    };
    // SAFETY: this CPU's, and the scheduler does not interrupt itself.
    describe(unsafe { &mut *record }, task, clock, 1);
    // SAFETY: a whole record.
    if unsafe { ring::emit(record.cast(), size_of::<ThreadRecord>() as u64, Urgency::Timer) }.is_err() {
        count(Counter::SchedThreadLost);
    }
}

#[inline(always)]
fn describe(record: &mut ThreadRecord, task: Trusted, clock: &ThreadClock, ended: u32) {
    let pointer = task.untrusted();
    let leader = task::group_leader(pointer).unwrap_or(pointer);
    record.kind = Kind::Thread as u32;
    record.ended = ended;
    record.tgid = task.field(&TASK_TGID);
    record.tid = task.field(&TASK_PID);
    record.process_start_ns = task::start_ns(leader);
    record.cgroup_id = cgroup_id(pointer).unwrap_or_default();
    task::read_comm(pointer, &mut record.thread_comm);
    task::read_comm(leader, &mut record.process_comm);
    let kept = &mut record.clock;
    kept.since_ns = clock.since_ns;
    kept.left_ns = clock.left_ns;
    kept.state = clock.state;
    kept.left_state = clock.left_state;
    for state in 0..State::SLOTS {
        kept.spent_ns[state] = clock.spent_ns[state];
    }
    kept.begin_ns = clock.begin_ns;
    kept.switches = clock.switches;
    kept.begin_user_ns = clock.begin_user_ns;
    kept.begin_system_ns = clock.begin_system_ns;
    record.user_ns = task.field(&TASK_UTIME);
    record.system_ns = task.field(&TASK_STIME);
}

#[inline(always)]
fn cgroup_id(task: KernelPointer) -> Option<u64> {
    task.follow(&TASK_CGROUPS)?.follow(&CSS_SET_DFL_CGRP)?.follow(&CGROUP_KN)?.field(&KERNFS_NODE_ID)
}

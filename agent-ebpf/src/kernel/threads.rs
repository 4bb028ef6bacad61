//! Looks at all threads, when a window begins and when it ends, and what is told of a thread that ends meanwhile.
//!
//! The looks are the kernel's own iteration over its threads. What it finds at the end goes to the agent through the
//! iterator's file, not through the ring buffer: so none of it can be lost.

use aya_ebpf::{
    bindings::task_struct,
    helpers::generated,
    macros::map,
    maps::{Array, PerCpuArray},
};
use chokepoint_ebpf::{
    counters::Counter,
    record::Kind,
    sample::{MAX_FRAMES, MAX_USER_FRAMES, SampleHeader, Source, StackOutcome},
    sched::{
        ENDED, ENDED_UNSEEN, EarlierLook, NO_DESCRIPTOR, NO_SYSCALL, RunningThread, State, ThreadClock,
        ThreadRecord, WaitFacts,
    },
    unwind::{
        table::Rule,
        walk::{Host, Mapping, WINDOW_BYTES, Walk},
    },
};

use super::{
    arch, clock,
    config::{
        TASK_ON_CPU, TASK_PID, TASK_RAN, TASK_STATE, TASK_STIME, TASK_TGID, TASK_UTIME, WANT_KERNEL,
        WANT_USER, WANT_WAITS,
    },
    counters::count,
    gate, quota,
    ring::{self, Urgency},
    run_queue,
    sample::{self, Ids},
    sched::{self, Beginner},
    stack::{self, Captured, Scratch},
    task::{self, KernelPointer},
    trusted::Trusted,
    unwind::KernelHost,
    waits,
};

/// Room for a record: one for threads that end, one for the look at all of them, which those interrupt.
#[map]
static THREAD_RECORDS: PerCpuArray<ThreadRecord> = PerCpuArray::with_max_entries(2, 0);
const OF_ENDED: u32 = 0;
const OF_LIVING: u32 = 1;

/// The look before, in windows that follow each other; the agent writes it. Threads that sleep for long cost no stack then.
#[map]
static EARLIER_LOOK: Array<EarlierLook> = Array::with_max_entries(1, 0);

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

    /// Writes to the iterator's file. Where that has no more room, the same thread comes again with the next read of it.
    #[inline(always)]
    fn write(&self, start: *const u8, bytes: u64) {
        // SAFETY: the context is the kernel's, and the verifier knows the bytes' bounds.
        unsafe {
            let meta = (&raw const self.meta).read_volatile();
            let sequence = (&raw const (*meta).sequence).read_volatile();
            generated::bpf_seq_write(sequence, start.cast(), bytes as u32);
        }
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
        sched::begin(task, sched::apparent_state(task), clock::now_ns(), Beginner::Look);
    }
}

/// Tells what the kernel has counted of the present turn of a thread that is on a CPU. Events go on meanwhile: one that leaves the
/// CPU since has a later turn in its clock.
#[inline(always)]
pub fn running(iteration: &Iteration) {
    let Some(task) = iteration.task() else {
        return;
    };
    if task.field::<u32>(&TASK_ON_CPU) == 0 {
        return;
    }
    let Some(clock) = sched::find(task) else {
        return;
    };
    let running = RunningThread {
        key: task.address(),
        // SAFETY: a whole word, which another CPU may write.
        since_ns: unsafe { (&raw const clock.since_ns).read_volatile() },
        now_ns: clock::now_ns(),
        ran_ns: task.field(&TASK_RAN),
    };
    iteration.write((&raw const running).cast(), size_of::<RunningThread>() as u64);
}

/// Writes a thread's times to the iterator's file, and its stack where it waits. `user` takes its user stack.
#[inline(always)]
pub fn report(iteration: &Iteration, user: impl FnOnce(*mut Scratch, Trusted, KernelPointer) -> Captured) {
    let Some(task) = iteration.task() else {
        return;
    };
    let (Some(clock), Some(record)) = (sched::find(task), THREAD_RECORDS.get_ptr_mut(OF_LIVING)) else {
        return;
    };
    let is_throttled = clock.state == State::Throttled as u32
        || (clock.state == State::Woken as u32 || clock.state == State::Preempted as u32)
            && quota::holds(task, clock);
    // SAFETY: this CPU's, and one iteration runs at a time.
    describe(unsafe { &mut *record }, task, clock, 0);
    if is_throttled {
        // SAFETY: as above.
        unsafe { (*record).clock.state = State::Throttled as u32 };
    }
    iteration.write(record.cast_const().cast(), size_of::<ThreadRecord>() as u64);
    if WANT_WAITS.load() != 0 && clock.state != State::OnCpu as u32 {
        report_wait(iteration, task, clock, is_throttled, user);
    }
}

/// Writes a wait that is not over, if it is chosen.
#[inline(always)]
fn report_wait(
    iteration: &Iteration,
    task: Trusted,
    clock: &ThreadClock,
    is_throttled: bool,
    user: impl FnOnce(*mut Scratch, Trusted, KernelPointer) -> Captured,
) {
    let now = clock::now_ns();
    let length_ns = now - clock.left_ns;
    // One that goes on after the accounting has ended is not the wait that is told of.
    if clock.state >= State::Blocked as u32 && task.field::<u32>(&TASK_STATE) == 0 {
        return;
    }
    let Some(period_ns) = waits::chosen(clock.left_ns, length_ns) else {
        return;
    };
    if EARLIER_LOOK.get(0).is_some_and(|look| look.has_told(clock.left_ns)) {
        return;
    }
    let Some(scratch) = stack::scratch(Source::OpenWait) else {
        count(Counter::WaitAttempted);
        return count(Counter::WaitScratchMissing);
    };
    let blocked = clock.state >= State::Blocked as u32;
    let pointer = task.untrusted();
    let ids = Ids { tgid: task.field(&TASK_TGID), tid: task.field(&TASK_PID) };
    // SAFETY: this CPU's, and one iteration runs at a time.
    unsafe {
        let leader = sample::identify(&mut (*scratch).header, pointer);
        let facts = &mut (*scratch).wait;
        facts.kind = Kind::Wait as u32;
        facts.state = clock.left_state;
        facts.left_ns = clock.left_ns;
        facts.blocked_ns = if blocked { length_ns } else { clock.since_ns - clock.left_ns };
        facts.throttled_ns = if is_throttled { now - clock.since_ns } else { 0 };
        facts.queued_ns = if blocked || is_throttled { 0 } else { now - clock.since_ns };
        facts.period_ns = period_ns;
        facts.open = 1;
        facts.syscall = NO_SYSCALL;
        // Another process's memory says it.
        facts.descriptor = NO_DESCRIPTOR;
        (*scratch).set_owner(ids.tgid);
        let user = match task::address_space(pointer) {
            None => Captured::nothing(StackOutcome::Absent),
            Some(mm) => user(scratch, task, mm),
        };
        let kernel = if WANT_KERNEL.load() == 0 {
            Captured::nothing(StackOutcome::NotWanted)
        } else {
            stack::capture_kernel_of(task.as_ptr(), scratch, user)
        };
        sample::describe(
            &mut (*scratch).header,
            Source::OpenWait,
            pointer,
            leader,
            ids,
            length_ns,
            user,
            kernel,
        );
        let frame_bytes = user.bytes + kernel.bytes;
        if frame_bytes > (MAX_FRAMES * size_of::<u64>()) as u64 {
            return;
        }
        let fixed = (size_of::<WaitFacts>() + size_of::<SampleHeader>()) as u64;
        iteration.write((&raw const (*scratch).wait).cast(), fixed + frame_bytes);
    }
}

/// The user stack of a thread that does not run, on kernels that cannot read its memory; its system call all the same.
#[inline(always)]
pub fn no_user_stack(scratch: *mut Scratch, task: Trusted, _mm: KernelPointer) -> Captured {
    if read_registers(scratch, task) {
        Captured::nothing(StackOutcome::NotRunning)
    } else {
        Captured::nothing(StackOutcome::NoRegisters)
    }
}

/// The user stack of a thread that does not run. For programs that may sleep.
#[inline(always)]
pub fn user_stack(scratch: *mut Scratch, task: Trusted, mm: KernelPointer) -> Captured {
    if !read_registers(scratch, task) {
        return Captured::nothing(StackOutcome::NoRegisters);
    }
    if WANT_USER.load() == 0 {
        return Captured::nothing(StackOutcome::NotWanted);
    }
    let mut walked = Walked { task: task.as_ptr() };
    let walk = || {
        // SAFETY: the callback has the form that the helper asks for.
        unsafe {
            generated::bpf_loop(
                MAX_USER_FRAMES as u32,
                walk_frame as *mut core::ffi::c_void,
                (&raw mut walked).cast(),
                0,
            );
        }
    };
    // SAFETY: the caller's scratch space, in which the process is named.
    unsafe { stack::capture_user_by(scratch, mm, false, walk) }
}

/// Copies where the thread's registers were when it entered the kernel, and which system call it made.
#[inline(always)]
fn read_registers(scratch: *mut Scratch, task: Trusted) -> bool {
    // SAFETY: the caller's scratch space.
    let (registers, facts) = unsafe { (&mut (*scratch).registers, &mut (*scratch).wait) };
    let is_read = task::registers_of(task).is_some_and(|kept| kept.read_into(registers));
    if is_read {
        (facts.syscall, facts.arguments) = arch::syscall(registers);
    }
    is_read
}

/// What the loop over frames is given.
#[repr(C)]
struct Walked {
    task: *mut task_struct,
}

/// One frame; 1 when it was the last.
extern "C" fn walk_frame(_index: u64, walked: *const Walked) -> i64 {
    let Some(scratch) = stack::scratch(Source::OpenWait) else {
        return 1;
    };
    // SAFETY: the helper passes on what it was given. The scratch space is this program's alone.
    unsafe {
        let host = TaskHost { own: KernelHost::new(scratch, Source::OpenWait as u64), task: (*walked).task };
        stack::step(scratch, &host) as i64
    }
}

/// A host that reads the memory of a thread that does not run.
struct TaskHost {
    own: KernelHost,
    task: *mut task_struct,
}

impl Host for TaskHost {
    #[inline(always)]
    fn read_window(&self, walk: &mut Walk, address: u64) -> bool {
        // SAFETY: the window has room for WINDOW_BYTES; the helper checks the address.
        let result = unsafe {
            generated::bpf_copy_from_user_task(
                (&raw mut walk.window).cast(),
                WINDOW_BYTES as u32,
                address as *const core::ffi::c_void,
                self.task,
                0,
            )
        };
        result == 0
    }

    #[inline(always)]
    fn read_word(&self, address: u64) -> Option<u64> {
        let mut word = 0u64;
        // SAFETY: as above.
        let result = unsafe {
            generated::bpf_copy_from_user_task(
                (&raw mut word).cast(),
                size_of::<u64>() as u32,
                address as *const core::ffi::c_void,
                self.task,
                0,
            )
        };
        (result == 0).then_some(word)
    }

    #[inline(always)]
    fn map(&self, walk: &mut Walk, slot: usize, address: u64) -> bool {
        self.own.map(walk, slot, address)
    }

    #[inline(always)]
    fn rule(&self, mapping: &Mapping, offset: u64) -> Rule {
        self.own.rule(mapping, offset)
    }
}

/// Tells of a thread that leaves the CPU for the last time.
#[inline(always)]
pub fn ended(task: Trusted, clock: &ThreadClock) {
    let Some(record) = THREAD_RECORDS.get_ptr_mut(OF_ENDED) else {
        return count(Counter::SchedThreadLost);
    };
    // SAFETY: this CPU's, and the scheduler does not interrupt itself.
    describe(unsafe { &mut *record }, task, clock, ENDED);
    emit_ended(record);
}

/// Tells of a thread that is gone without having been seen to end: nothing is known of it but its times.
#[inline(always)]
pub fn ended_unseen(key: u64, clock: &ThreadClock) {
    let Some(record) = THREAD_RECORDS.get_ptr_mut(OF_ENDED) else {
        return count(Counter::SchedThreadLost);
    };
    // SAFETY: this CPU's, and nothing interrupts a new thread's first event that would use it.
    let record = unsafe { &mut *record };
    record.kind = Kind::Thread as u32;
    record.ended = ENDED_UNSEEN;
    record.key = key;
    record.tgid = clock.tgid;
    record.tid = clock.tid;
    KernelPointer::new(core::ptr::from_ref(clock) as u64).read_into(&mut record.clock);
    emit_ended(record);
}

#[inline(always)]
fn emit_ended(record: *const ThreadRecord) {
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
    record.key = task.address();
    record.cgroup_id = task::cgroup_id(pointer);
    record.cpu_cgroup_id = run_queue::cpu_cgroup_id(task);
    task::read_comm(pointer, &mut record.thread_comm);
    task::read_comm(leader, &mut record.process_comm);
    KernelPointer::new(core::ptr::from_ref(clock) as u64).read_into(&mut record.clock);
    record.user_ns = task.field(&TASK_UTIME);
    record.system_ns = task.field(&TASK_STIME);
    record.ran_ns = task.field(&TASK_RAN);
    record.present_state = sched::apparent_state(task) as u32;
}

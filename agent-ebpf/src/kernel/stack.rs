//! Captures a thread's stacks into the CPU's scratch space. Every source uses it, so that a stack means the same
//! whichever source took it.

use core::hint::black_box;

use aya_ebpf::{
    EbpfContext,
    bindings::task_struct,
    cty::c_void,
    helpers::{bpf_get_stack, generated::bpf_get_task_stack},
    macros::map,
    maps::PerCpuArray,
    programs::PerfEventContext,
};
use chokepoint_ebpf::{
    sample::{MAX_FRAMES, MAX_KERNEL_FRAMES, MAX_USER_FRAMES, SLOTS, SampleHeader, Source, StackOutcome},
    sched::WaitFacts,
    unwind::{
        file::NewFile,
        walk::{Host, Mapping, Walk, advance},
    },
};

use super::{
    arch::{self, Unwinding, UserRegisters},
    config::{DEPTH_LIMIT, WANT_KERNEL, WANT_USER},
    path::PathWalk,
    task::{self, KernelPointer},
    unwind::{KernelHost, Validity},
    vma::Node,
};

/// A sample under construction: as it goes into the ring buffer, with room for the deepest stacks; and what its making
/// needs.
#[repr(C)]
pub struct Scratch {
    /// What goes before the sample where it is of a wait. Shorter facts of other records end where this does:
    /// [`super::sample::facts`].
    pub wait: WaitFacts,
    /// The fixed part.
    pub header: SampleHeader,
    frames: [u64; MAX_FRAMES],
    /// User frames written.
    depth: u64,
    /// A [`StackOutcome`]: how the walk of the user stack ended.
    outcome: u64,
    walk: Walk,
    /// As long as this holds, the walk's mappings are those of the last stack.
    validity: Validity,
    /// The user registers that the walk begins with.
    pub registers: UserRegisters,
    pub(super) found: Mapping,
    pub(super) node: Node,
    pub(super) path: PathWalk,
    pub(super) new_file: NewFile,
}

impl Scratch {
    /// Names the process whose files the walk announces, where that is not the current one.
    #[inline(always)]
    pub fn set_owner(&mut self, tgid: u32) {
        self.new_file.tgid = tgid;
    }
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SLOTS, 0);

const FRAME_BYTES: u64 = size_of::<u64>() as u64;
const MAX_USER_BYTES: u64 = MAX_USER_FRAMES as u64 * FRAME_BYTES;
const MAX_KERNEL_BYTES: u64 = MAX_KERNEL_FRAMES as u64 * FRAME_BYTES;
const _: () = assert!(MAX_USER_FRAMES.is_power_of_two(), "an index is bounded by a mask");

/// A captured stack: its bytes, and how the walk ended.
#[derive(Clone, Copy)]
pub struct Captured {
    /// Bytes of frames written; a multiple of eight.
    pub bytes: u64,
    /// How the walk ended: a [`StackOutcome`].
    pub outcome: u8,
}

impl Captured {
    /// No frames, for the given reason.
    #[inline(always)]
    pub const fn nothing(outcome: StackOutcome) -> Self {
        Self { bytes: 0, outcome: outcome as u8 }
    }

    /// Number of frames written.
    #[inline(always)]
    pub const fn frames(self) -> u16 {
        (self.bytes / FRAME_BYTES) as u16
    }
}

/// This CPU's scratch space for a source.
#[inline(always)]
pub fn scratch(source: Source) -> Option<*mut Scratch> {
    scratch_at(source as u32)
}

/// The same by its number.
#[inline(always)]
pub fn scratch_at(source: u32) -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(source)
}

/// Unwinds the user stack that `scratch.registers` begin, to the beginning of the frames.
///
/// # Safety
/// `scratch` must be this CPU's and `source`'s, `mm` the current address space, and the header must name the process.
#[inline(always)]
pub unsafe fn capture_user(
    scratch: *mut Scratch,
    source: Source,
    mm: KernelPointer,
    user_mode: bool,
) -> Captured {
    let walk = || {
        // What the loop changes is in memory, of which the verifier knows nothing: so it sees the same state behind the loop
        // whichever iteration leaves it.
        for _ in 0..MAX_USER_FRAMES {
            if unwind_frame(source as u64) != 0 {
                break;
            }
        }
    };
    // SAFETY: as the caller's.
    unsafe { capture_user_by(scratch, mm, user_mode, walk) }
}

/// The same with a loop of one's own over [`step`].
///
/// # Safety
/// As for [`capture_user`], but that `mm` may be another process's.
#[inline(always)]
pub unsafe fn capture_user_by(
    scratch: *mut Scratch,
    mm: KernelPointer,
    user_mode: bool,
    walk: impl FnOnce(),
) -> Captured {
    // SAFETY: the scratch space is this program's alone.
    let scratch = unsafe { &mut *scratch };
    let pc = arch::program_counter(&scratch.registers);
    if pc == 0 {
        return Captured::nothing(StackOutcome::Absent);
    }
    if arch::is_32_bit(&scratch.registers) {
        return Captured::nothing(StackOutcome::ThirtyTwoBit);
    }
    scratch.depth = 0;
    scratch.outcome = StackOutcome::DepthLimit as u64;
    let validity = Validity::now(mm, scratch.header.process_start_ns, scratch.header.exec_id);
    if validity != Some(scratch.validity) {
        scratch.walk.forget_mappings();
        scratch.validity = validity.unwrap_or(Validity::NEVER);
    }
    scratch.walk.begin(pc, mm.address());
    arch::take_up(&mut scratch.walk, &scratch.registers);
    walk();
    let depth = black_box(scratch.depth);
    if depth > MAX_USER_FRAMES as u64 {
        // The loop does not allow it; for the verifier, which cannot know.
        return Captured::nothing(StackOutcome::DepthLimit);
    }
    if !user_mode && depth == 1 && scratch.outcome == StackOutcome::NoMapping as u64 {
        // In the midst of execve: the registers are still the old program's, the address space is the new one's.
        return Captured::nothing(StackOutcome::Absent);
    }
    Captured { bytes: depth * FRAME_BYTES, outcome: scratch.outcome as u8 }
}

/// One frame of the user stack under construction in the scratch space of a source; not 0 when it was the last.
///
/// A function of its own with nothing but numbers for arguments is verified once, whatever calls it how often: that is what
/// every verifier since 5.10 accepts at any depth.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn unwind_frame(source: u64) -> u64 {
    let Some(scratch) = scratch_at(source as u32) else {
        return 1;
    };
    // SAFETY: the scratch space is this program's alone.
    unsafe { step(scratch, &KernelHost::new(scratch, source)) }
}

/// One frame by a host of one's own; not 0 when it was the last.
///
/// # Safety
/// The scratch space must be the calling program's alone, and the host must use other fields of it than the walk.
#[inline(always)]
pub unsafe fn step(scratch: *mut Scratch, host: &impl Host) -> u64 {
    // SAFETY: as the caller's.
    let (walk, frames, depth) =
        unsafe { (&mut (*scratch).walk, &mut (*scratch).frames, &mut (*scratch).depth) };
    let step = advance::<Unwinding>(walk, host);
    if let Some(frame) = step.frame {
        frames[*depth as usize & (MAX_USER_FRAMES - 1)] = frame.0;
        *depth += 1;
    }
    match step.end {
        None => 0,
        Some(outcome) => {
            // SAFETY: as above.
            unsafe { (*scratch).outcome = outcome as u64 };
            1
        }
    }
}

/// Writes the kernel stack of the current thread behind `user`'s frames.
///
/// # Safety
/// `ctx` must be the program's context; `scratch` as for [`capture_user`], which returned `user`.
#[inline(always)]
pub unsafe fn capture_kernel(ctx: *mut c_void, scratch: *mut Scratch, user: Captured) -> Captured {
    if user.bytes > MAX_USER_BYTES {
        return Captured::nothing(StackOutcome::Unreadable);
    }
    // SAFETY: behind at most MAX_USER_BYTES there is room for MAX_KERNEL_BYTES.
    let result = unsafe {
        let frames = (&raw mut (*scratch).frames).cast::<u8>().add(user.bytes as usize).cast::<c_void>();
        bpf_get_stack(ctx, frames, MAX_KERNEL_BYTES as u32, 0)
    };
    kernel_frames(result)
}

/// Both stacks of the current thread, as it is in the kernel.
///
/// # Safety
/// The scratch space must be this CPU's and `source`'s, and its header must name the process.
#[inline(always)]
pub unsafe fn capture_current(
    ctx: &impl EbpfContext,
    scratch: *mut Scratch,
    source: Source,
    task: KernelPointer,
) -> (Captured, Captured) {
    // SAFETY: the caller's scratch space.
    let registers = unsafe { &mut (*scratch).registers };
    let user = match task::address_space(task) {
        None => Captured::nothing(StackOutcome::Absent),
        Some(mm) if task::user_registers(task).is_some_and(|kept| kept.read_into(registers)) => {
            if WANT_USER.load() == 0 {
                Captured::nothing(StackOutcome::NotWanted)
            } else {
                // SAFETY: as above.
                unsafe { capture_user(scratch, source, mm, false) }
            }
        }
        Some(_) => Captured::nothing(StackOutcome::NoRegisters),
    };
    let kernel = if WANT_KERNEL.load() == 0 {
        Captured::nothing(StackOutcome::NotWanted)
    } else {
        // SAFETY: as above.
        unsafe { capture_kernel(ctx.as_ptr(), scratch, user) }
    };
    (user, kernel)
}

/// Both stacks of the current thread, as a perf event interrupted it.
///
/// # Safety
/// As for [`capture_current`].
#[inline(always)]
pub unsafe fn capture_interrupted(
    ctx: &PerfEventContext,
    scratch: *mut Scratch,
    source: Source,
    task: KernelPointer,
    user_mode: bool,
) -> (Captured, Captured) {
    // SAFETY: the caller's scratch space.
    let registers = unsafe { &mut (*scratch).registers };
    let user = match task::address_space(task) {
        _ if WANT_USER.load() == 0 => Captured::nothing(StackOutcome::NotWanted),
        None => Captured::nothing(StackOutcome::Absent),
        Some(mm) => {
            let is_known = if user_mode {
                arch::copy_interrupted(ctx, registers);
                true
            } else {
                task::user_registers(task).is_some_and(|kept| kept.read_into(registers))
            };
            if is_known {
                // SAFETY: as above.
                unsafe { capture_user(scratch, source, mm, user_mode) }
            } else {
                Captured::nothing(StackOutcome::NoRegisters)
            }
        }
    };
    let kernel = if WANT_KERNEL.load() == 0 {
        Captured::nothing(StackOutcome::NotWanted)
    } else if user_mode {
        Captured::nothing(StackOutcome::Absent)
    } else {
        // SAFETY: as above.
        unsafe { capture_kernel(ctx.as_ptr(), scratch, user) }
    };
    (user, kernel)
}

/// Writes the kernel stack of a thread that does not run behind `user`'s frames.
///
/// # Safety
/// `task` must be a pointer that the verifier knows; else as for [`capture_kernel`].
#[inline(always)]
pub unsafe fn capture_kernel_of(task: *mut task_struct, scratch: *mut Scratch, user: Captured) -> Captured {
    if user.bytes > MAX_USER_BYTES {
        return Captured::nothing(StackOutcome::Unreadable);
    }
    // SAFETY: as above.
    let result = unsafe {
        let frames = (&raw mut (*scratch).frames).cast::<u8>().add(user.bytes as usize).cast::<c_void>();
        bpf_get_task_stack(task, frames, MAX_KERNEL_BYTES as u32, 0)
    };
    kernel_frames(result)
}

/// What the kernel's own walk has written.
#[inline(always)]
fn kernel_frames(result: i64) -> Captured {
    if result <= 0 {
        return Captured::nothing(StackOutcome::Unreadable);
    }
    // Kept apart from the test above: LLVM would fold both into one comparison of `result - 1`, and the verifiers of 5.10 to
    // 6.12 do not carry the bound from that copy back to the register that is used.
    let bytes = black_box(result) as u64;
    if bytes > MAX_KERNEL_BYTES {
        return Captured::nothing(StackOutcome::Unreadable);
    }
    let full = bytes / FRAME_BYTES >= u64::from(DEPTH_LIMIT.load());
    let outcome = if full { StackOutcome::DepthLimit } else { StackOutcome::Walked };
    Captured { bytes, outcome: outcome as u8 }
}

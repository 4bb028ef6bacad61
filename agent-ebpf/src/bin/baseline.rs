//! What the agent's unwinder is compared with: the kernel's own walk along frame pointers, and no walk at all. Only
//! the benchmarks compile it.

#![no_std]
#![no_main]

use core::hint::black_box;

use aya_ebpf::{
    EbpfContext, Global,
    bindings::{BPF_F_FAST_STACK_CMP, BPF_F_REUSE_STACKID, BPF_F_USER_STACK, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_stack,
        generated::{bpf_get_stackid, bpf_ringbuf_output},
    },
    macros::{map, perf_event},
    maps::{HashMap, PerCpuArray, RingBuf, StackTrace},
    programs::PerfEventContext,
};
use chokepoint_ebpf::sample::SampleHeader;

/// Enough for the few stacks of a workload.
const MAX_STACKS: u32 = 1024;

/// Process ids to sample; the value is unused.
#[map]
static TARGETS: HashMap<u32, u8> = HashMap::with_max_entries(64, 0);
/// Samples taken, and of them those without a stack.
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);
#[map]
static STACKS: StackTrace = StackTrace::with_max_entries(MAX_STACKS, 0);

/// Frames of the deepest stack.
const MAX_FRAMES: usize = 127;
/// Bytes of what the agent sends before the frames.
const HEADER_BYTES: usize = size_of::<SampleHeader>();
/// Nothing empties it, so it has to hold all samples of a run.
const RING_BYTES: u32 = 64 << 20;

/// As the agent sends it.
#[repr(C)]
struct Sample {
    header: [u8; HEADER_BYTES],
    frames: [u64; MAX_FRAMES],
}

#[map]
static SCRATCH: PerCpuArray<Sample> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SAMPLES: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// 1 to walk the stack into a table of stacks, 2 to send it to user space.
#[unsafe(no_mangle)]
static WALK: Global<u8> = Global::new(0);

/// Runs on each tick of a CPU's sampling timer or cycle counter.
#[perf_event]
fn baseline(ctx: PerfEventContext) -> u32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if TARGETS.get_ptr(tgid).is_none() {
        return 0;
    }
    count(0);
    if WALK.load() == 2 {
        // SAFETY: the scratch space is this CPU's.
        if unsafe { send(&ctx) }.is_none() {
            count(1);
        }
    } else if WALK.load() == 1 {
        let flags = BPF_F_USER_STACK | BPF_F_FAST_STACK_CMP | BPF_F_REUSE_STACKID;
        // SAFETY: context and map are this program's.
        let id =
            unsafe { bpf_get_stackid(ctx.as_ptr(), (&raw const STACKS).cast_mut().cast(), u64::from(flags)) };
        if id < 0 {
            count(1);
        }
    }
    0
}

#[inline(always)]
unsafe fn send(ctx: &PerfEventContext) -> Option<()> {
    let sample = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the frames have room for so many bytes.
    let bytes = unsafe {
        let frames = (&raw mut (*sample).frames).cast();
        bpf_get_stack(ctx.as_ptr(), frames, (MAX_FRAMES * 8) as u32, u64::from(BPF_F_USER_STACK))
    };
    if bytes < 0 {
        return None;
    }
    let bytes = black_box(bytes) as u64;
    if bytes > (MAX_FRAMES * 8) as u64 {
        return None;
    }
    // SAFETY: header and frames lie within the sample.
    let sent = unsafe {
        let map = (&raw const SAMPLES).cast_mut().cast();
        bpf_ringbuf_output(map, sample.cast(), HEADER_BYTES as u64 + bytes, u64::from(BPF_RB_NO_WAKEUP))
    };
    (sent == 0).then_some(())
}

#[inline(always)]
fn count(index: u32) {
    if let Some(value) = COUNTS.get_ptr_mut(index) {
        // SAFETY: the entry is this CPU's, and the program does not interrupt itself.
        unsafe { *value += 1 };
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

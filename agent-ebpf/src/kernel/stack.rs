//! Captures a thread's stacks into the CPU's scratch space. Every source uses it, so that a stack means the same
//! whichever source took it.

use core::hint::black_box;

use aya_ebpf::{bindings::BPF_F_USER_STACK, cty::c_void, helpers::bpf_get_stack};
use chokepoint_ebpf::sample::{MAX_FRAMES, MAX_KERNEL_FRAMES, MAX_USER_FRAMES, SampleHeader, StackOutcome};

use super::config::DEPTH_LIMIT;

/// A sample under construction: as it goes into the ring buffer, with room for the deepest stacks.
#[repr(C)]
pub struct Scratch {
    /// The fixed part.
    pub header: SampleHeader,
    frames: [u64; MAX_FRAMES],
}

const FRAME_BYTES: u64 = size_of::<u64>() as u64;
const MAX_USER_BYTES: u64 = MAX_USER_FRAMES as u64 * FRAME_BYTES;
const MAX_KERNEL_BYTES: u64 = MAX_KERNEL_FRAMES as u64 * FRAME_BYTES;

/// A captured stack: its bytes, and how the walk ended.
#[derive(Clone, Copy)]
pub struct Captured {
    /// Bytes of frames written; a multiple of eight.
    pub bytes: u64,
    /// How the walk ended.
    pub outcome: StackOutcome,
}

impl Captured {
    /// No frames, for the given reason.
    #[inline(always)]
    pub const fn nothing(outcome: StackOutcome) -> Self {
        Self { bytes: 0, outcome }
    }

    #[inline(always)]
    fn from_helper(result: i64, max_bytes: u64) -> Self {
        if result <= 0 {
            return Self::nothing(StackOutcome::Unreadable);
        }
        // Kept apart from the test above: LLVM would fold both into one comparison of `result - 1`, and the verifiers of
        // 5.10 to 6.12 do not carry the bound from that copy back to the register that is used.
        let bytes = black_box(result) as u64;
        if bytes > max_bytes {
            return Self::nothing(StackOutcome::Unreadable);
        }
        let full = bytes / FRAME_BYTES >= u64::from(DEPTH_LIMIT.load());
        Self { bytes, outcome: if full { StackOutcome::DepthLimit } else { StackOutcome::Walked } }
    }

    /// Number of frames written.
    #[inline(always)]
    pub const fn frames(self) -> u16 {
        (self.bytes / FRAME_BYTES) as u16
    }
}

/// Writes the user stack of the current thread to the beginning of the frames.
///
/// # Safety
/// `ctx` must be the program's context and `scratch` this CPU's.
#[inline(always)]
pub unsafe fn capture_user(ctx: *mut c_void, scratch: *mut Scratch) -> Captured {
    // SAFETY: the frames have room for MAX_USER_BYTES.
    let result = unsafe {
        let frames = (&raw mut (*scratch).frames).cast::<c_void>();
        bpf_get_stack(ctx, frames, MAX_USER_BYTES as u32, u64::from(BPF_F_USER_STACK))
    };
    Captured::from_helper(result, MAX_USER_BYTES)
}

/// Writes the kernel stack of the current thread behind `user`'s frames.
///
/// # Safety
/// As for [`capture_user`], which returned `user`.
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
    Captured::from_helper(result, MAX_KERNEL_BYTES)
}

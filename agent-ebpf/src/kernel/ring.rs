//! The way out: one ring buffer for the records of every source.
//!
//! The agent empties it on a timer, because a wake-up for each record costs more than the record. It is woken early
//! when the buffer fills, or when a record cannot wait.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ringbuf_output,
    macros::map,
    maps::RingBuf,
};

use super::config::WAKE_AT_BYTES;

// The agent sets the size before loading.
#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// How soon the agent should see a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// With the next tick of its timer.
    Timer,
    /// Now.
    Now,
}

/// The buffer was full.
pub struct RingFull;

/// Copies `size` bytes at `record` into the ring buffer.
///
/// # Safety
/// `record` must point to `size` readable bytes whose bounds the verifier knows.
#[inline(always)]
pub unsafe fn emit(record: *const u8, size: u64, urgency: Urgency) -> Result<(), RingFull> {
    // SAFETY: the caller vouches for the bytes; the map is a ring buffer.
    let result = unsafe {
        bpf_ringbuf_output(
            (&raw const RECORDS).cast_mut().cast(),
            record.cast_mut().cast(),
            size,
            flags(urgency),
        )
    };
    if result == 0 { Ok(()) } else { Err(RingFull) }
}

/// Writes a record of one size in place. `write` fills in every field.
#[inline(always)]
pub fn emit_in_place<T: 'static>(urgency: Urgency, write: impl FnOnce(&mut T)) -> Result<(), RingFull> {
    let mut entry = RECORDS.reserve::<T>(0).ok_or(RingFull)?;
    // SAFETY: the room is the record's alone until it is submitted; records are made of integers, and all of them are written.
    write(unsafe { entry.assume_init_mut() });
    entry.submit(flags(urgency));
    Ok(())
}

/// Whether the agent is to be woken.
#[inline(always)]
fn flags(urgency: Urgency) -> u64 {
    let wake = urgency == Urgency::Now || RECORDS.query(u64::from(BPF_RB_AVAIL_DATA)) >= WAKE_AT_BYTES.load();
    u64::from(if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

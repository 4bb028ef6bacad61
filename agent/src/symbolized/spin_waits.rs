//! Marks where threads ran in loops that wait for others, by the instructions there.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;

use super::Found;
use crate::aggregate::{Aggregate, Part, RawFrame, RawFrameId};
use crate::symbolize::spin_wait::{BYTES_AROUND, is_spin_wait};

/// An address with less than this part of the CPU time is not looked at: a loop that matters has a fifth of it, in some ten
/// instructions. It bounds the reads to two hundred.
const LEAST_PART: f64 = 0.005;

/// Looks at the innermost frames of the user code that ran most.
pub(super) fn mark(aggregate: &Aggregate, stacks: &[&[RawFrameId]], found: &mut [Found]) {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let mut ran: HashMap<RawFrameId, u64> = HashMap::new();
    let mut total = 0;
    for (_, _, stack, sum) in aggregate.sums().filter(|(part, ..)| *part == Part::OnCpu) {
        total += sum.weight;
        if aggregate.kernel_frames(stack) == 0
            && let Some(leaf) = stacks[stack as usize].first()
        {
            *ran.entry(*leaf).or_default() += sum.weight;
        }
    }
    let least = (total as f64 * LEAST_PART) as u64;
    for (frame, _) in ran.into_iter().filter(|(_, weight)| *weight > least) {
        found[frame.index()].is_spin_wait = looks_like_one(aggregate, frame);
    }
}

fn looks_like_one(aggregate: &Aggregate, frame: RawFrameId) -> bool {
    let RawFrame::File(id, offset) = aggregate.frames()[frame.index()] else { return false };
    let binary = aggregate.binaries().find(id).map(|binary| aggregate.binaries().get(binary));
    let Some(file) = binary.and_then(|binary| binary.file.as_ref()) else { return false };
    let start = offset.saturating_sub(BYTES_AROUND);
    let mut code = [0; 2 * BYTES_AROUND as usize];
    // Branches are relative: offsets in the file do for addresses.
    let read = file.read_at(&mut code, start).unwrap_or(0);
    is_spin_wait(&code[..read], start, offset)
}

//! Bound by memory: by the making of pages, or by too few of them.

use super::{Case, Missing, Names, Stage};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "memory-faults",
        truth: &["mem.fault"],
        same_because: "",
        names: Names::functions(&["fill_buffer"]),
        relief: "the buffer is kept from request to request",
        least_gain: 5.0,
        because: "1,000 faults of half a microsecond or more are 500, and the rest of a request takes 100",
        play: |stage| {
            let buffer = stage.of("fresh", "kept");
            stage.subject("bound_memory_c", &["buffers", buffer]).map(drop)
        },
    },
    Case {
        name: "memory-reclaim-read",
        truth: &["mem.reclaim"],
        same_because: "",
        names: Names::functions(&["look_up_page"]),
        relief: "memory for the whole file, not for a third of it",
        least_gain: 5.0,
        because: TWO_THIRDS_MISS,
        play: |stage| play(stage, "file"),
    },
    Case {
        name: "memory-reclaim-mapped",
        truth: &["mem.reclaim"],
        same_because: "",
        names: Names::functions(&["look_up_mapped"]),
        relief: "memory for the whole file, not for a third of it",
        least_gain: 5.0,
        because: TWO_THIRDS_MISS,
        play: |stage| play(stage, "mapped"),
    },
    Case {
        name: "memory-swap",
        truth: &["mem.swap"],
        same_because: "",
        names: Names::functions(&["update_object"]),
        relief: "memory for all objects, not for half of them",
        least_gain: 5.0,
        because: "half of the objects come from a device, which takes tens of times as long as memory",
        play: |stage| {
            stage.swap(256 << 20)?;
            let group = stage.memory_group(stage.of(48 << 20, 192 << 20))?;
            stage.subject_in(&[&group], "bound_memory_c", &["heap", "96"]).map(drop)
        },
    },
];

const TWO_THIRDS_MISS: &str =
    "two thirds of the pages come from a device, which takes tens of times as long as memory";

fn play(stage: &mut Stage, how: &str) -> Result<(), Missing> {
    const FILE_BYTES: usize = 96 << 20;
    let file = stage.file(FILE_BYTES);
    let group = stage.memory_group(stage.of(FILE_BYTES / 3, 4 * FILE_BYTES) as u64)?;
    stage.subject_in(&[&group], "bound_memory_c", &[how, &file]).map(drop)
}

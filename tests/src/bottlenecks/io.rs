//! Bound by a device, or by a limit of what may be asked of it.

use super::{Case, Names};

const MEBIBYTE: u64 = 1 << 20;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "io-read",
        truth: &["io.read"],
        same_because: "",
        names: Names::functions(&["look_up_record"]),
        relief: "the pages are in memory",
        least_gain: 5.0,
        because: "a page from memory takes a microsecond, one from a device some tens at least",
        play: |stage| {
            let (device, _) = stage.loop_device(32 * MEBIBYTE)?;
            let how = stage.of("direct", "cached");
            stage.subject("bound_io_c", &["read", &device, how]).map(drop)
        },
    },
    Case {
        name: "io-write",
        truth: &["io.write"],
        same_because: "",
        names: Names::functions(&["store_record"]),
        relief: "the pages stay in memory",
        least_gain: 2.0,
        because: "a page into memory takes some microseconds, one to a device some tens at least",
        play: |stage| {
            let (device, _) = stage.loop_device(32 * MEBIBYTE)?;
            let how = stage.of("direct", "cached");
            stage.subject("bound_io_c", &["write", &device, how]).map(drop)
        },
    },
    Case {
        name: "io-sync-write",
        truth: &["io.sync-write"],
        same_because: "",
        names: Names::functions(&["commit_records"]),
        relief: "64 records for each flush",
        least_gain: 4.0,
        because: "a flush takes hundreds of microseconds, a record in memory a few: tens of times as much",
        play: |stage| {
            let (journal, records) = (stage.path("journal"), stage.of("1", "64"));
            stage.subject("bound_io_c", &["journal", &journal, records]).map(drop)
        },
    },
    Case {
        name: "io-throttle",
        truth: &["io.throttle"],
        same_because: "",
        names: Names::functions(&["look_up_record"]),
        relief: "ten times as many reads a second allowed",
        least_gain: 5.0,
        because: "the device does thousands a second, and the limit is raised from 100 to 1,000",
        play: |stage| {
            let (device, numbers) = stage.loop_device(32 * MEBIBYTE)?;
            let limit = stage.of(100, 1_000);
            let group = stage.read_group(&numbers, limit)?;
            stage.subject_in(&[&group], "bound_io_c", &["read", &device, "direct"]).map(drop)
        },
    },
    Case {
        name: "io-dirty-throttle",
        truth: &["io.dirty-throttle"],
        same_because: "",
        names: Names::functions(&["write_chunk"]),
        relief: "256 MiB may wait to be written to the device, not 2",
        least_gain: 5.0,
        because: "a file of 64 MiB that is written again and again stays in memory, which takes a fraction of a millisecond a MiB",
        play: |stage| {
            let dirty_bytes = stage.of(2, 256) * MEBIBYTE;
            let directory = stage.file_system(256 * MEBIBYTE, dirty_bytes)?;
            stage.subject("bound_io_c", &["dump", &format!("{directory}/dump")]).map(drop)
        },
    },
];

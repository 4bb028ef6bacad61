//! Where the obvious answer is a symptom: the end of a path is what bounds, and to relieve it is enough.

use super::stage::cpus;
use super::{Case, Names, Target};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "mutex-around-flush",
        truth: &["io.sync-write"],
        same_because: "",
        names: Names::functions(&["commit_record"]),
        relief: "64 records for each flush; the mutex stays",
        least_gain: 4.0,
        because: "a flush takes hundreds of microseconds, the rest of the section a few: tens of times as much",
        play: |stage| {
            let (journal, flush) = (stage.path("journal"), stage.of("each", "batch"));
            stage.subject("bound_lock_c", &["sync", flush, "4", &journal]).map(drop)
        },
    },
    Case {
        name: "mutex-under-quota",
        truth: &["cpu.quota"],
        same_because: "",
        names: Names::NONE,
        relief: "no quota; the mutex stays",
        least_gain: 2.5,
        because: "a quarter of a CPU against the one that the mutex lets be used: 4 times as much",
        play: |stage| {
            let quota = stage.of(Some(25), None);
            let group = stage.cpu_group("web", quota)?;
            stage.subject_in(&[&group], "bound_lock_c", &["mutex", "inside", "4"]).map(drop)
        },
    },
    Case {
        name: "pool-before-throttle",
        truth: &["io.throttle"],
        same_because: "",
        names: Names::functions(&["read_record"]),
        relief: "ten times as many reads a second allowed; the pool stays as it is",
        least_gain: 5.0,
        because: "the device does thousands a second, and the limit is raised from 100 to 1,000",
        play: |stage| {
            let (device, numbers) = stage.loop_device(32 << 20)?;
            let group = stage.read_group(&numbers, stage.of(100, 1_000))?;
            stage.subject_in(&[&group], "bound_pool_c", &["disk", &device, "16", "4"]).map(drop)
        },
    },
    Case {
        name: "downstream-single-thread",
        truth: &["cpu.single-thread"],
        same_because: "",
        names: Names { functions: &["execute_command"], culprits: &["store"], ..Names::NONE },
        relief: "an event loop for each CPU in the server",
        least_gain: 1.3,
        because: "clients need a part of the second CPU; half of what they leave is enough",
        play: |stage| {
            let port = stage.port();
            let loops = stage.of(1, cpus()).to_string();
            let group = stage.cpu_group("shop", None)?;
            stage.run_in(&[&group], "bound_net_c", &["store", &port, &loops, "500"])?;
            stage.run_in(&[&group], "bound_net_c", &["app", &port, "4", "20"])?;
            stage.measure_last();
            stage.ask_about(Target::Group(group));
            Ok(())
        },
    },
];

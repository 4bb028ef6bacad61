//! Bound by CPU time, or by who else wants it.

use super::stage::cpus;
use super::{Case, Names};

const SECOND_CPU: &str = "a second CPU doubles it, but for what other work takes";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "cpu-single-thread",
        truth: &["cpu.single-thread"],
        same_because: "",
        names: Names::functions(&["compress_block"]),
        relief: "the same work on a thread for each CPU",
        least_gain: 1.4,
        because: SECOND_CPU,
        play: |stage| {
            let threads = stage.of(1, cpus()).to_string();
            stage.subject("bound_cpu_c", &["single", &threads]).map(drop)
        },
    },
    Case {
        name: "cpu-pipeline-stage",
        truth: &["cpu.single-thread"],
        same_because: "",
        names: Names::functions(&["transform_row"]),
        relief: "two threads for the slow stage",
        least_gain: 1.3,
        because: "2.2 ms of CPU time a row: 2.0 with one thread, 1.1 with two CPUs; half of the gain of 1.8 is enough",
        play: |stage| {
            let transformers = stage.of("1", "2");
            stage.subject("bound_cpu_c", &["pipeline", transformers]).map(drop)
        },
    },
    Case {
        name: "cpu-event-loop",
        truth: &["cpu.single-thread"],
        same_because: "",
        names: Names::functions(&["execute_command"]),
        relief: "an event loop for each CPU",
        least_gain: 1.3,
        because: "clients need a part of the second CPU; half of what they leave is enough",
        play: |stage| {
            let port = stage.port();
            let loops = stage.of(1, cpus()).to_string();
            stage.subject("bound_net_c", &["store", &port, &loops, "300"])?;
            stage.run("bound_net_c", &["app", &port, "8", "0"]).map(drop)
        },
    },
    Case {
        name: "cpu-blocked-loop",
        truth: &["cpu.single-thread"],
        same_because: "",
        names: Names::NONE,
        relief: "reports on a thread of their own",
        least_gain: 10.0,
        because: "an answer waits for a report of tens of milliseconds, and takes a fraction of one itself",
        play: |stage| {
            let port = stage.port();
            let place = stage.of("loop", "thread");
            stage.subject("blocked_loop.js", &[&port, place])?;
            stage.run("bound_net_c", &["app", &port, "4", "5"]).map(drop)
        },
    },
    Case {
        name: "cpu-own-threads",
        truth: &["cpu.saturated"],
        same_because: "",
        names: Names::functions(&["compact_table"]),
        relief: "no more threads than CPUs",
        least_gain: 2.0,
        because: "three background threads to each of requests take three quarters of the time: 4 times as much without",
        play: |stage| {
            let background = stage.of(3 * cpus(), 0).to_string();
            stage.subject("bound_cpu_c", &["background", &background]).map(drop)
        },
    },
    Case {
        name: "cpu-few-cpus",
        truth: &["cpu.saturated"],
        same_because: "",
        names: Names::NONE,
        relief: "all CPUs, not half of them",
        least_gain: 1.4,
        because: SECOND_CPU,
        play: |stage| {
            let (threads, percent) = ((2 * cpus()).to_string(), stage.of("50", "100"));
            stage.subject("bound_cpu_c", &["spread", &threads, percent]).map(drop)
        },
    },
    Case {
        name: "cpu-neighbour",
        truth: &["cpu.noisy-neighbour"],
        same_because: "",
        names: Names::culprits(&["batch_job"]),
        relief: "the neighbour is gone",
        least_gain: 2.0,
        because: "the neighbour has three threads for each of the victim's: 4 times as much without it",
        play: |stage| {
            if stage.is_constrained() {
                stage.run("bound_cpu_c", &["neighbour", &(3 * cpus()).to_string()])?;
            }
            stage.subject("bound_cpu_c", &["single", &cpus().to_string()]).map(drop)
        },
    },
    Case {
        name: "cpu-quota",
        truth: &["cpu.quota"],
        same_because: "",
        names: Names::NONE,
        relief: "no quota",
        least_gain: 2.0,
        because: "40 % of a CPU against all of two: 5 times as much",
        play: |stage| {
            let quota = stage.of(Some(40), None);
            let group = stage.cpu_group("web", quota)?;
            stage.subject_in(&[&group], "bound_cpu_c", &["single", &cpus().to_string()]).map(drop)
        },
    },
    Case {
        name: "cpu-kernel",
        truth: &["cpu.kernel"],
        same_because: "",
        names: Names::functions(&["read_records"]),
        relief: "64 KiB a system call, not 64 bytes",
        least_gain: 8.0,
        because: "the kernel's share is above 9 tenths, and 1,000 times fewer calls leave next to nothing of it",
        play: |stage| {
            let bytes = stage.of("64", "65536");
            stage.subject("bound_cpu_c", &["kernel", bytes]).map(drop)
        },
    },
];

//! Bound by a lock whose holder computes.

use super::{Case, Names};

const SECOND_CPU: &str =
    "a second CPU doubles it once threads need not wait for each other, but for what other work takes";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "lock-mutex",
        truth: &["lock.mutex"],
        same_because: "",
        names: Names::functions(&["rebuild_index"]),
        relief: "the same work outside of the mutex",
        least_gain: 1.4,
        because: SECOND_CPU,
        play: |stage| {
            let place = stage.of("inside", "outside");
            stage.subject("bound_lock_c", &["mutex", place, "4"]).map(drop)
        },
    },
    Case {
        name: "lock-rwlock",
        truth: &["lock.mutex"],
        same_because: "",
        names: Names::functions(&["rebuild_index"]),
        relief: "the same work outside of the lock",
        least_gain: 1.4,
        because: SECOND_CPU,
        play: |stage| {
            let place = stage.of("inside", "outside");
            stage.subject("bound_lock_c", &["rwlock", place, "4"]).map(drop)
        },
    },
    Case {
        name: "lock-spin",
        truth: &["lock.spin"],
        same_because: "",
        names: Names::functions(&["acquire_slot"]),
        relief: "the same work outside of the spinlock",
        least_gain: 1.4,
        because: SECOND_CPU,
        play: |stage| {
            let place = stage.of("inside", "outside");
            stage.subject("bound_lock_c", &["spin", place]).map(drop)
        },
    },
    Case {
        name: "lock-inode",
        truth: &["lock.kernel"],
        same_because: "",
        names: Names::functions(&["write_file"]),
        relief: "a file for each thread",
        least_gain: 1.4,
        because: SECOND_CPU,
        play: |stage| {
            let files = stage.of("shared", "own");
            stage.subject("bound_lock_c", &["inode", files, "4"]).map(drop)
        },
    },
    Case {
        name: "lock-mappings",
        truth: &["lock.kernel"],
        same_because: "",
        names: Names::functions(&["protect"]),
        relief: "processes in place of threads, so that each has its own mappings",
        least_gain: 1.4,
        because: SECOND_CPU,
        play: |stage| {
            let mappings = stage.of("shared", "own");
            stage.subject("bound_lock_c", &["mappings", mappings, "4"]).map(drop)
        },
    },
    Case {
        name: "lock-file",
        truth: &["lock.file"],
        same_because: "",
        names: Names::functions(&["lock_file"]),
        relief: "a lock file for each process",
        least_gain: 1.4,
        because: SECOND_CPU,
        play: |stage| {
            let (files, directory) = (stage.of("shared", "own"), stage.directory());
            stage.family(&[], "bound_lock_c", &["file", files, "3", &directory])
        },
    },
    Case {
        name: "lock-interpreter",
        truth: &["lock.runtime"],
        same_because: "",
        names: Names::NONE,
        relief: "processes in place of threads, so that each has its own interpreter",
        least_gain: 1.4,
        because: SECOND_CPU,
        play: |stage| {
            let workers = stage.of("threads", "processes");
            stage.family(&[], "interpreter_lock.py", &[workers])
        },
    },
    Case {
        name: "lock-monitor",
        truth: &["lock.monitor"],
        same_because: "",
        names: Names::NONE,
        relief: "the same work outside of the monitor",
        least_gain: 1.4,
        because: SECOND_CPU,
        play: |stage| {
            let place = stage.of("inside", "outside");
            stage.subject("Monitor.java", &[place]).map(drop)
        },
    },
];

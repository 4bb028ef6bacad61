//! Bound by waiting for a time, another process or a child.

use super::{Case, Names};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "wait-polling",
        truth: &["wait.timer"],
        same_because: "",
        names: Names::functions(&["poll_completion"]),
        relief: "it is told, and does not look each 10 ms",
        least_gain: 20.0,
        because: "a job takes 50 us, and waits for the next look for 10 ms",
        play: |stage| {
            let how = stage.of("poll", "event");
            stage.subject("bound_wait_c", &[how]).map(drop)
        },
    },
    Case {
        name: "wait-pipe",
        truth: &["wait.ipc"],
        same_because: "",
        names: Names::functions(&["hand_over"]),
        relief: "room in the pipe for 16 blocks, not for a sixteenth of one",
        least_gain: 1.4,
        because: "both processes work at once, not in turn: twice as much on two CPUs, but for what other work takes",
        play: |stage| {
            let room = stage.of("4096", "1048576");
            stage.family(&[], "bound_wait_c", &["pipe", room])
        },
    },
    Case {
        name: "wait-children",
        truth: &["wait.child", "wait.timer"],
        same_because: "the parent's wait for its child is the child's nap: both ends of one path, and either relieves it",
        // The function is that of either end.
        names: Names::NONE,
        relief: "8 children at once",
        least_gain: 4.0,
        because: "children that nap do not hinder each other: 8 times as much",
        play: |stage| {
            let at_once = stage.of("1", "8");
            stage.family(&[], "bound_wait_c", &["children", at_once])
        },
    },
    Case {
        name: "process-churn",
        truth: &["proc.churn"],
        same_because: "",
        names: Names::functions(&["execute_filter"]),
        relief: "one process that is given all jobs",
        least_gain: 10.0,
        because: "to start a program and end it takes half a millisecond at least, to ask one some microseconds",
        play: |stage| {
            let programs = stage.of("each", "one");
            stage.family(&[], "bound_wait_c", &["execute", programs])
        },
    },
];

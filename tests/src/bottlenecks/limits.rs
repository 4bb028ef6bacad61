//! Bound by a limit that refuses: what is refused is tried again later, and meanwhile the program looks idle.

use super::{Case, Names};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "limit-files",
        truth: &["limit.fd"],
        same_because: "",
        names: Names::functions(&["open_parts"]),
        relief: "256 files, not 24",
        least_gain: 3.0,
        because: "16 handlers with 8 files each work at once, not 2",
        play: |stage| {
            let limit = stage.of("24", "256");
            stage.subject("bound_limit_c", &["files", limit]).map(drop)
        },
    },
    Case {
        name: "limit-processes",
        truth: &["limit.pids"],
        same_because: "",
        names: Names::NONE,
        relief: "64 processes, not 4",
        least_gain: 3.0,
        because: "16 children work at once, not 3",
        play: |stage| {
            let most = stage.of(4, 64);
            let group = stage.pids_group(most)?;
            stage.family(&[&group], "bound_limit_c", &["processes"])
        },
    },
];

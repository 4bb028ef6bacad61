//! What the live tests share: the agent under test, workloads whose truth is known, and tolerances that follow from
//! sampling theory.
//!
//! Each test begins with [`live`], so that no two of them sample, load or count at once. Whatever a test starts ends with
//! it, also when it fails: [`Workload`] and [`agent::Running`] kill what they started when dropped, and the kernel does
//! it when the test itself is killed.

pub mod accounts;
pub mod agent;
pub mod block;
pub mod bottlenecks;
pub mod bpf;
pub mod browser;
pub mod cgroup;
pub mod chains;
pub mod collector;
pub mod containers;
pub mod debian;
pub mod giant;
pub mod host_time;
pub mod net;
pub mod senders;
pub mod serving;
pub mod stacks;
pub mod tmux;
pub mod tracefs;
pub mod unwinding;
pub mod workload;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

pub use agent::{Agent, Running};
pub use workload::Workload;

static LIVE: Mutex<()> = Mutex::new(());

/// Keeps all other live tests of this machine waiting while it is there.
pub struct Live {
    _binary: MutexGuard<'static, ()>,
    /// Locked. Tests of another checkout may run at the same time.
    _machine: File,
}

/// Waits until no other live test runs on this machine.
pub fn live() -> Live {
    let binary = LIVE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let path = std::env::temp_dir().join("chokepoint-live-tests.lock");
    // It may be another user's; to lock it, reading is enough.
    let file = File::options().append(true).create(true).open(&path).or_else(|_| File::open(&path));
    let machine = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    machine.lock().expect("a file can be locked");
    Live { _binary: binary, _machine: machine }
}

/// Whether this is a virtual machine under emulation, where everything is tens of times slower and there are no compilers.
#[must_use]
pub fn in_vm() -> bool {
    std::env::var_os("CHOKEPOINT_VM").is_some()
}

/// Tells why a test does nothing here. Returns from the test when the reason holds.
#[macro_export]
macro_rules! skip_if {
    ($condition:expr, $($reason:tt)+) => {
        if $condition {
            eprintln!("skipped: {}", format_args!($($reason)+));
            return;
        }
    };
}

/// Where cargo builds: this program is `target/PROFILE/deps/NAME-HASH`, or `target/PROFILE/NAME`.
#[must_use]
pub fn target_dir() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    let profile = program
        .ancestors()
        .skip(1)
        .find(|path| !path.ends_with("deps"))
        .expect("it lies in a profile's directory");
    profile.parent().expect("and that in the target directory").to_owned()
}

/// How far a measured share may lie from the true one: five standard deviations of a share `p` seen in `n` samples, which a
/// correct profiler exceeds once in 1.7 million times, and the true share's own uncertainty.
#[must_use]
pub fn share_tolerance(p: f64, n: u64) -> f64 {
    /// What is truth of the rounds a workload does is so of its time only as far as calls and pages' first use take none.
    const TRUTH: f64 = 0.005;
    5.0 * (p * (1.0 - p) / n as f64).sqrt() + TRUTH
}

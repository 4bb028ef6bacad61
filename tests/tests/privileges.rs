//! The least privilege that suffices, as the documentation names it.

use std::process::Command;

use chokepoint_analysis::profile::{ModuleKind, Profile};
use chokepoint_tests::agent::Finished;
use chokepoint_tests::stacks::{functions, share_with};
use chokepoint_tests::{Agent, Workload, live, skip_if};

/// What the documentation says is enough.
fn enough() -> Vec<&'static str> {
    let mut enough = vec!["bpf", "perfmon", "sys_ptrace", "dac_read_search", "syslog", "checkpoint_restore"];
    if counts_locked_memory() {
        enough.push("sys_resource");
    }
    enough
}

/// Kernels before 5.11 count BPF maps as locked memory.
fn counts_locked_memory() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.trim().parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) < (Some(5), Some(11))
}

/// Sets a sysctl, and sets it back when dropped.
struct Sysctl {
    path: &'static str,
    before: String,
}

impl Sysctl {
    fn set(path: &'static str, value: &str) -> Self {
        let before = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, value).unwrap();
        Self { path, before }
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = std::fs::write(self.path, self.before.trim());
    }
}

/// The level above which Debian's kernels want more than CAP_PERFMON.
fn perf_events_for_perfmon() -> Sysctl {
    Sysctl::set("/proc/sys/kernel/perf_event_paranoid", "2")
}

/// Records a process of root's as an ordinary user with these capabilities.
fn record_with(capabilities: &[&str]) -> (Workload, Finished) {
    let workload = Workload::start("syscalls_c", &[]);
    let list: Vec<String> = capabilities.iter().map(|name| format!("+{name}")).collect();
    let (inheritable, ambient) =
        (format!("--inh-caps={}", list.join(",")), format!("--ambient-caps={}", list.join(",")));
    let mut prefix = vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    if !list.is_empty() {
        prefix.extend([inheritable.as_str(), ambient.as_str()]);
    }
    let pid = workload.pid().to_string();
    let agent =
        Agent::through(&prefix, ["record", "-d", "1", "-F", "499", "-o", "profile.json", "--pid", &pid]);
    Command::new("chmod").arg("777").arg(agent.directory()).status().unwrap();
    let finished = agent.run();
    (workload, finished)
}

fn profile_with(capabilities: &[&str]) -> Profile {
    let (_workload, finished) = record_with(capabilities);
    finished.succeeded().profile("profile.json")
}

fn without(capability: &str) -> Vec<&'static str> {
    enough().into_iter().filter(|name| *name != capability).collect()
}

fn has_kernel_names(profile: &Profile) -> bool {
    profile.locations.iter().any(|location| {
        profile.module(location.module).kind == ModuleKind::Kernel && !location.lines.is_empty()
    })
}

#[test]
fn the_documented_capabilities_are_enough() {
    let _live = live();
    let _perf_events = perf_events_for_perfmon();
    let profile = profile_with(&enough());
    assert!(share_with(&profile, "read_zeros") > 0.2, "user functions have names");
    assert!(has_kernel_names(&profile), "kernel functions have names");
    assert_eq!(profile.coverage.notes, Vec::<String>::new());
}

#[test]
fn without_bpf_or_perfmon_nothing_works() {
    let _live = live();
    let _perf_events = perf_events_for_perfmon();
    for capability in ["bpf", "perfmon"] {
        let (_workload, finished) = record_with(&without(capability));
        assert_eq!(finished.code, Some(3), "without {capability}: {}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}

#[test]
fn without_ptrace_foreign_frames_either_have_names_or_it_is_told() {
    let _live = live();
    let _perf_events = perf_events_for_perfmon();
    let profile = profile_with(&without("sys_ptrace"));
    let named = profile.samples.iter().any(|sample| functions(&profile, sample).contains(&"read_zeros"));
    // Since 6.15 CAP_PERFMON is enough to read another process's mappings, and the path of a file on the host is enough to
    // open it.
    let told = profile.coverage.notes.iter().any(|note| note.contains("could not be opened"));
    assert_ne!(named, told, "{:?}", profile.coverage);
}

#[test]
fn without_syslog_kernel_frames_have_no_names_where_the_kernel_restricts_them() {
    let _live = live();
    let _perf_events = perf_events_for_perfmon();
    let restricted = std::fs::read_to_string("/proc/sys/kernel/kptr_restrict").unwrap().trim() != "0";
    let profile = profile_with(&without("syslog"));
    assert!(profile.total_count() > 0);
    if restricted {
        assert!(!has_kernel_names(&profile));
        assert!(
            profile.coverage.notes.iter().any(|note| note.contains("CAP_SYSLOG")),
            "{:?}",
            profile.coverage.notes
        );
    }
}

#[test]
fn a_kernel_that_wants_more_than_perfmon_is_told_of() {
    let _live = live();
    let _paranoid = Sysctl::set("/proc/sys/kernel/perf_event_paranoid", "3");
    let (_workload, finished) = record_with(&enough());
    // Only the kernels of some distributions know this level.
    if finished.code != Some(0) {
        assert_eq!(finished.code, Some(3), "{}", finished.stderr);
        assert!(finished.stderr.contains("kernel.perf_event_paranoid is 3"), "{}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}

#[test]
fn a_kernel_that_counts_locked_memory_is_told_of() {
    let _live = live();
    skip_if!(!counts_locked_memory(), "this kernel charges maps to the cgroup");
    let _perf_events = perf_events_for_perfmon();
    let (_workload, finished) = record_with(&without("sys_resource"));
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
    assert!(finished.stderr.contains("ulimit -l unlimited"), "{}", finished.stderr);
}

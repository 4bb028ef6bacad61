//! The least privilege that suffices, as the documentation names it.

use std::process::Command;

use chokepoint_analysis::profile::{ModuleKind, Profile};
use chokepoint_tests::agent::Finished;
use chokepoint_tests::stacks::{functions, share_with};
use chokepoint_tests::{Agent, Workload, live};

/// What the documentation says is enough.
const ENOUGH: &[&str] = &["bpf", "perfmon", "sys_ptrace", "dac_read_search", "syslog", "checkpoint_restore"];

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
    ENOUGH.iter().copied().filter(|name| *name != capability).collect()
}

fn has_kernel_names(profile: &Profile) -> bool {
    profile.locations.iter().any(|location| {
        profile.module(location.module).kind == ModuleKind::Kernel && !location.lines.is_empty()
    })
}

#[test]
fn the_documented_capabilities_are_enough() {
    let _live = live();
    let profile = profile_with(ENOUGH);
    assert!(share_with(&profile, "read_zeros") > 0.2, "user functions have names");
    assert!(has_kernel_names(&profile), "kernel functions have names");
    assert_eq!(profile.coverage.unread_processes, 0);
    assert_eq!(profile.coverage.notes, Vec::<String>::new());
}

#[test]
fn without_bpf_or_perfmon_nothing_works() {
    let _live = live();
    for capability in ["bpf", "perfmon"] {
        let (_workload, finished) = record_with(&without(capability));
        assert_eq!(finished.code, Some(3), "without {capability}: {}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}

#[test]
fn without_ptrace_foreign_frames_either_have_names_or_it_is_told() {
    let _live = live();
    let profile = profile_with(&without("sys_ptrace"));
    let named = profile.samples.iter().any(|sample| functions(&profile, sample).contains(&"read_zeros"));
    // Since 6.15 CAP_PERFMON is enough to read another process's mappings, and the path of a file on the host is enough to
    // open it.
    assert_ne!(named, profile.coverage.unread_processes > 0, "{:?}", profile.coverage);
}

#[test]
fn without_syslog_kernel_frames_have_no_names_where_the_kernel_restricts_them() {
    let _live = live();
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

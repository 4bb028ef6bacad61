//! Checks that only read files and limits.

use std::fs;
use std::path::Path;

use super::Check;
use crate::containers::cri::USUAL_SOCKETS;
use crate::failure::Kind;
use crate::host::cgroups::{Hierarchy, hierarchies};
use crate::host::{self, capabilities};
use crate::load::layout::{KERNEL_BTF, KernelLayout, LayoutError};

/// All of them, in the order in which they are shown.
pub(super) fn all() -> Vec<Check> {
    let release = host::kernel_release();
    let mut checks = vec![
        kernel(&release, std::env::consts::ARCH),
        btf(fs::read(KERNEL_BTF)
            .map_err(|error| error.to_string())
            .map(|bytes| KernelLayout::from_btf(&bytes))),
    ];
    checks
        .extend(capabilities::NEEDS.iter().map(|need| capability(*need, capabilities::has(need.capability))));
    checks.extend([
        user_namespace(&read("/proc/self/uid_map")),
        pid_namespace(
            &fs::read_link("/proc/self/ns/pid")
                .map(|link| link.to_string_lossy().into_owned())
                .unwrap_or_default(),
        ),
        lockdown(&read("/sys/kernel/security/lockdown")),
        perf_event_paranoid(
            host::sysctl("kernel.perf_event_paranoid"),
            capabilities::has(caps::Capability::CAP_SYS_ADMIN),
        ),
        perf_event_max_stack(host::sysctl("kernel.perf_event_max_stack")),
        kptr_restrict(host::sysctl("kernel.kptr_restrict")),
        bpf_jit(host::sysctl("net.core.bpf_jit_enable")),
        memlock(host::memlock_limit_bytes(), host::parse_release(&release)),
        cgroups(&hierarchies().unwrap_or_default()),
        container_runtime(),
    ]);
    checks
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The first kernel with BPF ring buffers and CAP_BPF.
const OLDEST_KERNEL: (u32, u32) = (5, 8);

fn kernel(release: &str, architecture: &str) -> Check {
    let finding = format!("{release} {architecture}");
    match host::parse_release(release) {
        Some(version) if version < OLDEST_KERNEL => Check::failed(
            Kind::Unsupported,
            "kernel",
            finding,
            "needs Linux 5.8 or later: BPF ring buffers are not in this one",
        ),
        _ => Check::ok("kernel", finding),
    }
}

fn btf(layout: Result<Result<KernelLayout, LayoutError>, String>) -> Check {
    const NAME: &str = "kernel type information";
    match layout {
        Ok(Ok(layout)) => Check::ok(NAME, format!("{KERNEL_BTF}, all {} fields found", layout.offsets.len())),
        Ok(Err(error)) => Check::failed(
            Kind::Unsupported,
            NAME,
            error.to_string(),
            "this kernel is not known; please report its version",
        ),
        Err(error) => {
            let advice =
                "needs a kernel built with CONFIG_DEBUG_INFO_BTF=y, as distribution kernels since 2021 are";
            Check::failed(Kind::Unsupported, NAME, format!("{KERNEL_BTF}: {error}"), advice)
        }
    }
}

fn capability(need: capabilities::Need, present: bool) -> Check {
    let name = format!("capability {}", need.capability);
    match (present, need.required) {
        (true, _) => Check::ok(name, "present"),
        (false, true) => {
            let advice = format!("needed to {}: run as root or give it to the agent", need.purpose);
            Check::failed(Kind::Permission, name, "missing", advice)
        }
        (false, false) => Check::warning(name, "missing", need.purpose),
    }
}

fn user_namespace(uid_map: &str) -> Check {
    const NAME: &str = "user namespace";
    let fields: Vec<&str> = uid_map.split_whitespace().collect();
    if fields == ["0", "0", "4294967295"] {
        Check::ok(NAME, "the host's")
    } else {
        let advice =
            "capabilities do not count for BPF in a user namespace: run outside of the rootless container";
        Check::failed(Kind::Permission, NAME, "not the host's", advice)
    }
}

fn pid_namespace(link: &str) -> Check {
    /// Number of the first PID namespace, fixed in the kernel (`PROC_PID_INIT_INO`).
    const HOST: &str = "pid:[4026531836]";
    const NAME: &str = "PID namespace";
    if link == HOST {
        Check::ok(NAME, "the host's")
    } else {
        let advice = "process ids from the kernel would not fit /proc: run with the host's PID namespace (`hostPID: true`, `--pid=host`)";
        Check::failed(Kind::Unsupported, NAME, "not the host's", advice)
    }
}

fn lockdown(modes: &str) -> Check {
    const NAME: &str = "kernel lockdown";
    let mode = modes.split('[').nth(1).and_then(|rest| rest.split(']').next()).unwrap_or("none");
    if mode == "confidentiality" {
        let advice = "BPF may not read kernel memory then: boot with lockdown=integrity or without it";
        Check::failed(Kind::Unsupported, NAME, mode, advice)
    } else {
        Check::ok(NAME, mode)
    }
}

fn perf_event_paranoid(level: Option<i64>, is_admin: bool) -> Check {
    const NAME: &str = "kernel.perf_event_paranoid";
    match level {
        None => {
            Check::failed(Kind::Unsupported, NAME, "absent", "needs a kernel built with CONFIG_PERF_EVENTS=y")
        }
        Some(level) if level > host::STRICTEST_PARANOID_FOR_PERFMON && !is_admin => {
            let advice = "this kernel may then refuse perf events to CAP_PERFMON: set it to 2, or run with CAP_SYS_ADMIN";
            Check::warning(NAME, level.to_string(), advice)
        }
        Some(level) => Check::ok(NAME, level.to_string()),
    }
}

fn perf_event_max_stack(frames: Option<i64>) -> Check {
    const NAME: &str = "kernel.perf_event_max_stack";
    match frames {
        Some(frames) if frames < 127 => {
            Check::warning(NAME, frames.to_string(), "stacks end at this depth: set it back to 127")
        }
        Some(frames) => Check::ok(NAME, frames.to_string()),
        None => Check::warning(NAME, "absent", "stacks may end early"),
    }
}

fn kptr_restrict(level: Option<i64>) -> Check {
    const NAME: &str = "kernel.kptr_restrict";
    match level {
        Some(2) => Check::warning(NAME, "2", "kernel frames have no names: set it to 1 or 0"),
        level => Check::ok(NAME, level.map_or_else(|| "absent".to_owned(), |level| level.to_string())),
    }
}

fn bpf_jit(enabled: Option<i64>) -> Check {
    const NAME: &str = "net.core.bpf_jit_enable";
    match enabled {
        Some(0) => Check::warning(
            NAME,
            "0",
            "kernel programs are interpreted and cost several times more: set it to 1",
        ),
        Some(level) => Check::ok(NAME, level.to_string()),
        // Kernels that always compile do not offer the switch to processes in a network namespace of their own.
        None => Check::ok(NAME, "not visible"),
    }
}

fn memlock(limit_bytes: u64, release: Option<(u32, u32)>) -> Check {
    const NAME: &str = "locked memory";
    let finding = match limit_bytes {
        libc::RLIM_INFINITY => "unlimited".to_owned(),
        bytes => format!("{} KiB", bytes / 1024),
    };
    if host::is_memlock_too_small(release, limit_bytes) {
        let advice = "this kernel counts BPF maps against it, and the agent raises it where it may: run with `ulimit -l unlimited` or CAP_SYS_RESOURCE";
        Check::warning(NAME, finding, advice)
    } else {
        Check::ok(NAME, finding)
    }
}

fn cgroups(hierarchies: &[Hierarchy]) -> Check {
    let v1 = hierarchies.iter().any(Hierarchy::is_version_1);
    let v2 = hierarchies.iter().any(|hierarchy| !hierarchy.is_version_1());
    let finding = match (v1, v2) {
        (true, true) => "versions 1 and 2 side by side",
        (true, false) => "version 1",
        (false, true) => "version 2",
        (false, false) => {
            return Check::warning(
                "cgroups",
                "not mounted",
                "--cgroup cannot find groups: mount them at /sys/fs/cgroup",
            );
        }
    };
    Check::ok("cgroups", finding)
}

fn container_runtime() -> Check {
    let found: Vec<&str> =
        USUAL_SOCKETS.iter().copied().filter(|socket| Path::new(socket).exists()).collect();
    let finding = if found.is_empty() {
        "no CRI socket; containers are known by their ids, pods not at all".to_owned()
    } else {
        found.join(", ")
    };
    Check::ok("container runtime", finding)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn each_check_tells_good_from_bad() {
        let cases = [
            (kernel("6.1.0-28-amd64", "x86_64"), Status::Ok),
            (kernel("5.4.0", "x86_64"), Status::Failed),
            (btf(Err("no such file".into())), Status::Failed),
            (btf(Ok(KernelLayout::from_btf(&[]))), Status::Failed),
            (capability(capabilities::NEEDS[0], false), Status::Failed),
            (capability(capabilities::NEEDS[0], true), Status::Ok),
            (capability(capabilities::NEEDS[4], false), Status::Warning),
            (user_namespace("         0          0 4294967295"), Status::Ok),
            (user_namespace("0 1000 1"), Status::Failed),
            (pid_namespace("pid:[4026531836]"), Status::Ok),
            (pid_namespace("pid:[4026532500]"), Status::Failed),
            (lockdown("none [integrity] confidentiality"), Status::Ok),
            (lockdown("none integrity [confidentiality]"), Status::Failed),
            (lockdown(""), Status::Ok),
            (perf_event_paranoid(None, true), Status::Failed),
            (perf_event_paranoid(Some(2), false), Status::Ok),
            (perf_event_paranoid(Some(3), false), Status::Warning),
            (perf_event_paranoid(Some(3), true), Status::Ok),
            (perf_event_max_stack(Some(64)), Status::Warning),
            (kptr_restrict(Some(2)), Status::Warning),
            (bpf_jit(Some(0)), Status::Warning),
            (memlock(64 << 10, Some((5, 10))), Status::Warning),
            (memlock(64 << 10, Some((6, 1))), Status::Ok),
            (cgroups(&[Hierarchy::version_2_at(Path::new("/sys/fs/cgroup"))]), Status::Ok),
            (cgroups(&[]), Status::Warning),
        ];
        for (check, expected) in cases {
            assert_eq!(check.status, expected, "{check:?}");
            assert_eq!(check.advice.is_empty(), expected == Status::Ok, "{check:?}");
        }
    }
}

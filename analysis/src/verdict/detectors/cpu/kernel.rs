//! The kernel works more than the program.

use crate::kernel_frames;
use crate::verdict::account::Running;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, only_names, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::Root;

/// From here on the kernel is what the CPU time is for.
const KERNEL: f64 = 0.6;

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let sum = |of: &dyn Fn(&Running) -> bool| -> f64 {
        account.running.iter().filter(|running| of(running)).map(|running| running.ns as f64).sum()
    };
    let all = sum(&|_| true);
    // Faults, locks and flushes in the kernel have answers of their own.
    let is_call = |running: &Running| {
        running.in_kernel
            && !account.is_flushing(running.stack)
            && !account.functions(running.stack).any(is_elsewhere)
    };
    let calls = sum(&is_call);
    let on_cpu = case.flow.sum(|part| part.root == Root::OnCpu && !part.is_behind_lock());
    let besides = sum(&|running| !account.is_flushing(running.stack));
    let share = case.share(on_cpu * calls / besides.max(1.0));
    if calls < KERNEL * all || share < 0.3 {
        return None;
    }
    let stacks = || {
        account.running.iter().filter(|running| is_call(running)).map(|running| (running.stack, running.ns))
    };
    let system_calls =
        account.top_functions(stacks(), |stack| account.functions(stack).find_map(system_call).into_iter());
    let call = system_calls.first().map_or("system calls", |(name, _)| name);
    let mut finding = Finding::new(
        Code::CpuKernel,
        share,
        format!("{} of the CPU time is the kernel's, mostly for {call}", percent(calls / all)),
    )
    .proves("of the CPU time, in the kernel", calls / all * 100.0, "%", "CPU samples");
    for (name, share) in &system_calls {
        finding = finding.proves(format!("of the kernel's, in {name}"), share * 100.0, "%", "CPU samples");
    }
    if let Some(system) = account.signal("cpu.system") {
        finding = finding.proves("of the host's CPUs, in the kernel", system, "%", "signal cpu.system");
    }
    finding.functions = account.functions_of(stacks());
    finding.functions.extend(only_names(system_calls));
    let nodes = case.flow.nodes(|part| part.at, |part| part.root == Root::OnCpu);
    (finding.processes, finding.culprits) =
        (account.processes(nodes.iter().copied()), account.processes(nodes));
    Some(finding)
}

/// Kernel functions whose time is told by other detectors.
fn is_elsewhere(function: &str) -> bool {
    kernel_frames::is_fault(function) || function.contains("spin_lock_slowpath")
}

/// The name of a system call, of the function that the kernel enters for it.
fn system_call(function: &str) -> Option<&str> {
    ["__x64_sys_", "__arm64_sys_", "__se_sys_", "__do_sys_", "ksys_"]
        .iter()
        .find_map(|start| function.strip_prefix(start))
}

//! Decides whether a thread belongs to the target, before anything is paid for it.

use aya_ebpf::{macros::map, maps::HashMap, programs::BtfTracePointContext};
use chokepoint_ebpf::{
    COMM_LEN,
    counters::Counter,
    gate::{CGROUP_V2, MAX_CGROUP_DEPTH, MAX_TARGET_PROCESSES, Rule},
};

use super::{
    config::{
        CGROUP_KN, CGROUP_SELF, CSS_CGROUP, CSS_PARENT, CSS_SET_DFL_CGRP, CSS_SET_SUBSYS,
        GATE_CGROUP_CONTROLLER, GATE_CGROUP_ID, GATE_COMM, GATE_RULE, KERNFS_NODE_ID, TASK_CGROUPS,
    },
    counters::count,
    task::{self, KernelPointer},
};

/// Process ids of the target; the value is unused.
#[map]
static TARGET_PROCESSES: HashMap<u32, u8> = HashMap::with_max_entries(MAX_TARGET_PROCESSES, 0);

/// Whether the thread `task` of process `tgid` is to be profiled.
#[inline(always)]
pub fn admits(task: KernelPointer, tgid: u32) -> bool {
    let rule = GATE_RULE.load();
    if rule == Rule::Everything as u32 {
        true
    } else if rule == Rule::Processes as u32 {
        is_target(tgid)
    } else if rule == Rule::Cgroup as u32 {
        in_target_cgroup(task).unwrap_or(false)
    } else {
        named_like_target(task)
    }
}

/// Whether all of the host is the target.
#[inline(always)]
pub fn admits_everything() -> bool {
    GATE_RULE.load() == Rule::Everything as u32
}

/// Makes the children of target processes targets too.
#[inline(always)]
pub fn follow_fork(ctx: &BtfTracePointContext) {
    let parent = KernelPointer::new(ctx.arg::<*const u8>(0) as u64);
    let child = KernelPointer::new(ctx.arg::<*const u8>(1) as u64);
    let (Some(parent), Some(child)) = (task::tgid(parent), task::tgid(child)) else {
        return;
    };
    if parent != child && is_target(parent) && TARGET_PROCESSES.insert(child, 1, 0).is_err() {
        count(Counter::TargetTableFull);
    }
}

#[inline(always)]
fn is_target(tgid: u32) -> bool {
    TARGET_PROCESSES.get_ptr(tgid).is_some()
}

#[inline(always)]
fn named_like_target(task: KernelPointer) -> bool {
    let wanted = GATE_COMM.load();
    same_comm(&task::comm(task), &wanted)
        || task::group_leader(task).is_some_and(|leader| same_comm(&task::comm(leader), &wanted))
}

/// Compares up to the terminating zero: the kernel does not clear what an older, longer name left behind it.
#[inline(always)]
fn same_comm(name: &[u8; COMM_LEN], wanted: &[u8; COMM_LEN]) -> bool {
    for i in 0..COMM_LEN {
        if name[i] != wanted[i] {
            return false;
        }
        if name[i] == 0 {
            return true;
        }
    }
    true
}

/// Climbs from the thread's group to the root. `bpf_get_current_cgroup_id` would give the version 2 root on hosts that
/// keep their controllers on version 1.
#[inline(always)]
fn in_target_cgroup(task: KernelPointer) -> Option<bool> {
    let css_set = task.follow(&TASK_CGROUPS)?;
    let controller = GATE_CGROUP_CONTROLLER.load();
    let cgroup = if controller == CGROUP_V2 {
        css_set.follow(&CSS_SET_DFL_CGRP)?
    } else {
        let css = css_set.read::<u64>(u64::from(CSS_SET_SUBSYS.load()) + u64::from(controller) * 8)?;
        KernelPointer::new(css).follow(&CSS_CGROUP)?
    };
    is_in_target(cgroup)
}

/// Whether a group, of the target's own hierarchy, is the target or below it.
#[inline(always)]
pub fn is_in_target(mut cgroup: KernelPointer) -> Option<bool> {
    let wanted = GATE_CGROUP_ID.load();
    for _ in 0..MAX_CGROUP_DEPTH {
        let id: u64 = cgroup.follow(&CGROUP_KN)?.field(&KERNFS_NODE_ID)?;
        if id == wanted {
            return Some(true);
        }
        let parent = cgroup.embedded(&CGROUP_SELF).follow(&CSS_PARENT)?;
        cgroup = parent.follow(&CSS_CGROUP)?;
    }
    Some(false)
}

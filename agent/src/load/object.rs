//! The compiled kernel programs: what their globals and the capacities of their maps are set to before they are loaded.

use aya::{Ebpf, EbpfLoader};
use chokepoint_ebpf::COMM_LEN;
use chokepoint_ebpf::block::{
    MAX_DEVICE_SUMS, MAX_HELD, MAX_HOLDS, MAX_POSITIONS, MAX_RELEASED, MAX_REQUESTS, MAX_SUMS,
};
use chokepoint_ebpf::failed_calls::MAX_FAILED_CALLS;
use chokepoint_ebpf::gate::{CGROUP_V2, Rule};
use chokepoint_ebpf::memory::{MAX_PROCESSES, MAX_RECLAIMING};
use chokepoint_ebpf::run_queue::{MAX_QUEUE_PAIRS, QueueDetail};
use chokepoint_ebpf::sample::{MAX_KERNEL_FRAMES, Source};
use chokepoint_ebpf::tcp::MAX_SOCKETS;

use super::layout::KernelLayout;
use super::{Gate, LoadError, LoadOptions};

/// The compiled kernel programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/chokepoint-ebpf"));

/// Loads the maps of what the options need. No program is loaded yet.
pub(super) fn load(options: &LoadOptions, layout: &KernelLayout) -> Result<Ebpf, LoadError> {
    let (rule, cgroup_id, controller, comm) = match &options.gate {
        Gate::Everything => (Rule::Everything, 0, 0, ""),
        Gate::Processes { .. } => (Rule::Processes, 0, 0, ""),
        Gate::Cgroup { id, controller } => (Rule::Cgroup, *id, controller.unwrap_or(CGROUP_V2), ""),
        Gate::Comm(comm) => (Rule::Comm, 0, 0, comm.as_str()),
    };
    let rule = rule as u32;
    let comm = padded_comm(comm);
    let want_user = u8::from(options.stacks.user);
    let want_kernel = u8::from(options.stacks.kernel);
    let period_ns = options.period_ns();
    let depth_limit = options.perf_max_stack.min(MAX_KERNEL_FRAMES as u32);
    let wake_at_bytes = u64::from(options.ring_bytes) / 2;
    let maple_tree = u8::from(layout.has_maple_tree);
    let task_pt_regs = u8::from(layout.has_task_pt_regs);
    let retransmit_result = u8::from(layout.has_retransmit_result);
    let want_reclaims = u8::from(options.memory.is_some_and(|memory| memory.reclaim_stacks));
    let victim_task = u8::from(layout.has_victim_task);
    let memory_controller = layout.controller("memory").unwrap_or(u32::MAX);
    let want_waits = u8::from(options.sched.is_some_and(|sched| sched.waits));
    let run_queue_detail = options.sched.map_or(QueueDetail::Nothing, |sched| sched.run_queues) as u8;
    let fault_period = options.memory.and_then(|memory| memory.fault_period).unwrap_or(0);
    let want_openers = u8::from(options.tcp.is_some_and(|tcp| tcp.openers));
    let devices_only = u8::from(options.block.is_some_and(|block| block.devices_only));
    let cpu_controller = options.sched.and_then(|sched| sched.cpu_controller).unwrap_or(CGROUP_V2);
    let gate_by_group = u8::from(options.block.is_some_and(|block| block.gate_by_group));
    let block_globals = layout.block_globals();
    let log_level = if options.kernel_log { u8::MAX } else { 0 };

    let mut loader = EbpfLoader::new();
    loader
        // The programs carry no relocations.
        .btf(None)
        .map_max_entries("RECORDS", options.ring_bytes)
        .override_global("GATE_RULE", &rule, true)
        .override_global("GATE_CGROUP_ID", &cgroup_id, true)
        .override_global("GATE_CGROUP_CONTROLLER", &controller, true)
        .override_global("GATE_COMM", &comm, true)
        .override_global("WANT_USER", &want_user, true)
        .override_global("WANT_KERNEL", &want_kernel, true)
        .override_global("ON_CPU_PERIOD_NS", &period_ns, true)
        .override_global("DEPTH_LIMIT", &depth_limit, true)
        .override_global("WAKE_AT_BYTES", &wake_at_bytes, true)
        .override_global("CPUS", &options.possible_cpus, true)
        .override_global("HAS_MAPLE_TREE", &maple_tree, true)
        .override_global("HAS_TASK_PT_REGS", &task_pt_regs, true)
        .override_global("HAS_RETRANSMIT_RESULT", &retransmit_result, true)
        .override_global("WANT_RECLAIMS", &want_reclaims, true)
        .override_global("FAULT_PERIOD", &fault_period, true)
        .override_global("WANT_OPENERS", &want_openers, true)
        .override_global("BLOCK_DEVICES_ONLY", &devices_only, true)
        .override_global("HAS_VICTIM_TASK", &victim_task, true)
        .override_global("MEMORY_CONTROLLER", &memory_controller, true)
        .override_global("RSS_COUNTER_BYTES", &layout.rss_counter_bytes, true)
        .override_global("BLOCK_GATE_BY_GROUP", &gate_by_group, true)
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .override_global("TASK_IOWAIT_MASK", &layout.iowait_mask, true)
        .override_global("WANT_WAITS", &want_waits, true)
        .override_global("RUN_QUEUE_DETAIL", &run_queue_detail, true)
        .override_global("CPU_CONTROLLER", &cpu_controller, true);
    if let Some(sched) = &options.sched {
        loader
            .map_max_entries("SCHED_THREADS", sched.threads)
            .map_max_entries("CPU_TURNS", options.possible_cpus)
            .map_max_entries("WAIT_INTERRUPTS", options.possible_cpus);
        if sched.run_queues == QueueDetail::WhoRan {
            loader.map_max_entries("QUEUE_PAIRS", MAX_QUEUE_PAIRS);
        }
    }
    if options.tcp.is_some() {
        loader.map_max_entries("TCP_SOCKETS", MAX_SOCKETS);
    }
    if options.memory.is_some_and(|memory| memory.fault_period.is_none()) {
        loader
            .map_max_entries("MEMORY_PROCESSES", MAX_PROCESSES)
            .map_max_entries("MEMORY_RECLAIMING", MAX_RECLAIMING);
    }
    if options.block.is_some() {
        loader
            .map_max_entries("BLOCK_REQUESTS", MAX_REQUESTS)
            .map_max_entries("BLOCK_DEVICES", MAX_DEVICE_SUMS);
    }
    if options.block.is_some_and(|block| !block.devices_only) {
        loader
            .map_max_entries("BLOCK_SUMS", MAX_SUMS)
            .map_max_entries("BLOCK_POSITIONS", MAX_POSITIONS)
            .map_max_entries("BLOCK_HELD", MAX_HELD)
            .map_max_entries("BLOCK_HOLDS", MAX_HOLDS)
            .map_max_entries("BLOCK_RELEASED", MAX_RELEASED);
    }
    if options.failed_calls {
        loader.map_max_entries("FAILED_CALLS", MAX_FAILED_CALLS);
    }
    if options.tcp.is_none() && options.sched.is_none() && options.memory.is_none() {
        // Scratch space of the on-CPU source alone.
        loader.map_max_entries("SCRATCH", Source::OnCpu as u32 + 1);
    }
    for (global, value) in &block_globals {
        loader.override_global(global, value, true);
    }
    let quota_globals = layout.quota_globals();
    for (global, offset) in layout.offsets.iter().chain(quota_globals.iter().flatten()) {
        loader.override_global(global, offset, true);
    }
    Ok(loader.load(OBJECT)?)
}

/// A task name as the kernel keeps it: cut to what fits, zero-padded.
fn padded_comm(name: &str) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    let length = name.len().min(COMM_LEN - 1);
    comm[..length].copy_from_slice(&name.as_bytes()[..length]);
    comm
}

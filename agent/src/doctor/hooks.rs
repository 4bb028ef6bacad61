//! Loads and attaches each kernel program for a moment.

use std::fs;

use chokepoint_ebpf::run_queue::QueueDetail;

use super::Check;
use crate::failure::{Failure, Kind};
use crate::host;
use crate::load::block::{BlockOptions, SeesHolds};
use crate::load::layout::{KERNEL_BTF, KernelLayout};
use crate::load::memory::MemoryOptions;
use crate::load::sched::SchedOptions;
use crate::load::tcp::{Sends, Tcp, TcpOptions};
use crate::load::{Gate, LoadOptions, OnCpuEvent, Programs, Stacks};

/// One check for each hook.
pub(super) fn all() -> Vec<Check> {
    let layout = fs::read(KERNEL_BTF).ok().and_then(|bytes| KernelLayout::from_btf(&bytes).ok());
    let Some(layout) = layout else {
        let advice = "it cannot be loaded without the kernel's type information";
        return [
            "on-CPU sampling",
            "following forks",
            "scheduler",
            "TCP retransmits",
            "memory",
            "block devices",
        ]
        .map(|name| Check::failed(Kind::Unsupported, hook(name), "not tried", advice))
        .into();
    };
    vec![
        on_cpu(&layout),
        follow_forks(&layout),
        scheduler(&layout),
        tcp(&layout),
        memory(&layout),
        block(&layout),
        failed_calls(&layout),
    ]
}

fn hook(name: &str) -> String {
    format!("hook: {name}")
}

fn trial(gate: Gate) -> LoadOptions {
    LoadOptions {
        gate,
        stacks: Stacks { user: true, kernel: true },
        // A tick a second, so that the trial costs nothing.
        frequency_hz: Some(1),
        sched: None,
        tcp: None,
        memory: None,
        block: None,
        failed_calls: false,
        ring_bytes: 64 << 10,
        possible_cpus: 1,
        perf_max_stack: 127,
        kernel_log: false,
    }
}

fn on_cpu(layout: &KernelLayout) -> Check {
    let name = hook("on-CPU sampling");
    let attach = || -> Result<OnCpuEvent, Failure> {
        let mut programs = Programs::load(&trial(Gate::Everything), layout)?;
        let cpus = host::online_cpus().map_err(|error| Failure::unexpected(&error))?;
        Ok(programs.attach_on_cpu(&cpus, 1)?)
    };
    match attach() {
        Ok(OnCpuEvent::Cycles) => Check::ok(name, "by the processor's cycle counter"),
        Ok(OnCpuEvent::CpuClock) => {
            Check::ok(name, "by timer (cpu-clock); this machine offers no cycle counter")
        }
        Err(failure) => refused(name, &failure),
    }
}

fn follow_forks(layout: &KernelLayout) -> Check {
    let name = hook("following forks");
    let gate = Gate::Processes { tgids: Vec::new(), follow_forks: true };
    match Programs::load(&trial(gate), layout).map_err(Failure::from) {
        Ok(_) => Check::ok(name, "by tracepoint sched_process_fork"),
        Err(failure) => {
            Check::warning(name, failure.message, "`record -- command` and --children do not work")
        }
    }
}

fn scheduler(layout: &KernelLayout) -> Check {
    let name = hook("scheduler");
    let attach = || -> Result<(), Failure> {
        let options = LoadOptions {
            frequency_hz: None,
            sched: Some(SchedOptions {
                threads: 1_024,
                waits: true,
                wakers: true,
                run_queues: QueueDetail::WhoRan,
                cpu_controller: None,
            }),
            possible_cpus: host::possible_cpus().map_err(|error| Failure::unexpected(&error))?,
            ..trial(Gate::Everything)
        };
        let mut programs = Programs::load(&options, layout)?;
        Ok(programs.attach_sched()?)
    };
    match attach() {
        Ok(()) if layout.tells_throttled() => {
            Check::ok(name, "by tracepoints sched_switch, sched_wakeup, sched_waking")
        }
        Ok(()) => Check::ok(
            name,
            "by tracepoints sched_switch, sched_wakeup, sched_waking; throttled threads count as queued: this kernel does not tell them apart",
        ),
        Err(failure) => Check::warning(name, failure.message, "of `record -e`, only cpu works"),
    }
}

fn tcp(layout: &KernelLayout) -> Check {
    let name = hook("TCP retransmits");
    let attach = || -> Result<Sends, Failure> {
        let options = LoadOptions {
            frequency_hz: None,
            tcp: Some(TcpOptions { openers: true }),
            ..trial(Gate::Everything)
        };
        let mut programs = Programs::load(&options, layout)?;
        programs.attach_tcp()?;
        Ok(programs.tcp().map_or(Sends::Nowhere, Tcp::sends))
    };
    match attach() {
        Ok(Sends::Tracepoint) => {
            Check::ok(name, "by tracepoints tcp_*, inet_sock_set_state and sock_send_length")
        }
        Ok(Sends::Function) => {
            Check::ok(name, "by tracepoints tcp_* and inet_sock_set_state, and at tcp_sendmsg")
        }
        Ok(Sends::Nowhere) => Check::warning(
            name,
            "by tracepoints tcp_* and inet_sock_set_state; no program can see threads send",
            "connections that are accepted, or opened before a recording, have no stack",
        ),
        Err(failure) => Check::warning(name, failure.message, "`record -e retransmit` does not work"),
    }
}

fn memory(layout: &KernelLayout) -> Check {
    let name = hook("memory");
    let attach = || -> Result<(), Failure> {
        let memory =
            Some(MemoryOptions { faults: true, fault_period: None, reclaims: true, reclaim_stacks: true });
        let options = LoadOptions { frequency_hz: None, memory, ..trial(Gate::Everything) };
        let mut programs = Programs::load(&options, layout)?;
        let cpus = host::online_cpus().map_err(|error| Failure::unexpected(&error))?;
        Ok(programs.attach_memory(&cpus)?)
    };
    match attach() {
        Ok(()) => {
            Check::ok(name, "by the kernel's page-fault events and tracepoints mm_vmscan_* and mark_victim")
        }
        Err(failure) => {
            Check::warning(name, failure.message, "`record -e fault` and `-e reclaim` do not work")
        }
    }
}

fn block(layout: &KernelLayout) -> Check {
    let name = hook("block devices");
    let lacks = "the summary of `record -e io` has no table of devices";
    let attach = || -> Result<Result<SeesHolds, String>, Failure> {
        let block = Some(BlockOptions { gate_by_group: false, devices_only: false });
        let options = LoadOptions { frequency_hz: None, block, ..trial(Gate::Everything) };
        let mut programs = Programs::load(&options, layout)?;
        programs.attach_block()?;
        Ok(match programs.block() {
            Some(Ok(block)) => Ok(block.sees_holds()),
            Some(Err(reason)) => Err(reason.to_owned()),
            None => Err("not loaded".to_owned()),
        })
    };
    match attach() {
        Ok(Ok(SeesHolds::Each)) => {
            Check::ok(name, "by tracepoints block_rq_*, and where groups' limits are decided on")
        }
        Ok(Ok(SeesHolds::Looks | SeesHolds::Nothing)) => Check::ok(
            name,
            "by tracepoints block_rq_*; what groups' limits hold back by looks at their queues",
        ),
        Ok(Err(reason)) => Check::warning(name, reason, lacks),
        Err(failure) => Check::warning(name, failure.message, lacks),
    }
}

fn failed_calls(layout: &KernelLayout) -> Check {
    let name = hook("failed calls");
    let attach = || -> Result<Option<String>, Failure> {
        let options = LoadOptions { frequency_hz: None, failed_calls: true, ..trial(Gate::Everything) };
        let mut programs = Programs::load(&options, layout)?;
        match programs.failed_calls_mut() {
            Some(Err(refused)) => return Ok(Some(refused.to_owned())),
            Some(Ok(mut source)) => source.begin()?,
            None => {}
        }
        Ok(None)
    };
    let lacks = "limits of files and processes are found by their counts alone";
    match attach() {
        Ok(None) => Check::ok(name, "by tracepoint sys_exit, for short times"),
        Ok(Some(refused)) => Check::warning(name, refused, lacks),
        Err(failure) => Check::warning(name, failure.message, lacks),
    }
}

fn refused(name: String, failure: &Failure) -> Check {
    let advice = match failure.kind {
        Kind::Permission => "see the missing capabilities above",
        _ => "run again with --log debug and report what it says",
    };
    Check::failed(failure.kind, name, failure.message.clone(), advice)
}

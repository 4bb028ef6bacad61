//! The on-CPU source: its program as the agent uses it.

use aya::Ebpf;
use aya::programs::perf_event::{
    HardwareEvent, PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::programs::{PerfEvent, ProgramError};

use super::LoadError;
use super::programs::program;

const NAME: &str = "on_cpu";

/// What drives the on-CPU source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCpuEvent {
    /// The processor's cycle counter.
    Cycles,
    /// A timer on each CPU, on machines whose cycle counter is not to be had.
    CpuClock,
}

/// Loads the program; nothing runs yet.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    let on_cpu: &mut PerfEvent = program(ebpf, NAME)?;
    on_cpu.load().map_err(refused)
}

/// The events under way.
pub(super) type Links = Vec<PerfEventLinkId>;

/// Begins to sample on these CPUs, by the cycle counter or else by timers.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    cpus: &[u32],
    frequency_hz: u32,
) -> Result<(OnCpuEvent, Links), LoadError> {
    let on_cpu: &mut PerfEvent = program(ebpf, NAME)?;
    let attach = |on_cpu: &mut PerfEvent, config: PerfEventConfig| {
        let mut links = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            let scope = PerfEventScope::AllProcessesOneCpu { cpu: *cpu };
            let policy = SamplePolicy::Frequency(u64::from(frequency_hz));
            match on_cpu.attach(config, scope, policy, false) {
                Ok(link) => links.push(link),
                // A CPU that went offline since it was listed has nothing to sample.
                Err(error) if is_no_such_device(&error) && !links.is_empty() => {}
                Err(error) => {
                    for link in links {
                        let _ = on_cpu.detach(link);
                    }
                    return Err(error);
                }
            }
        }
        Ok(links)
    };
    if let Ok(links) = attach(on_cpu, PerfEventConfig::Hardware(HardwareEvent::CpuCycles)) {
        return Ok((OnCpuEvent::Cycles, links));
    }
    let links = attach(on_cpu, PerfEventConfig::Software(SoftwareEvent::CpuClock)).map_err(refused)?;
    Ok((OnCpuEvent::CpuClock, links))
}

/// Ends these events; the program stays, for others.
pub(super) fn detach(ebpf: &mut Ebpf, links: Links) -> Result<(), LoadError> {
    let on_cpu: &mut PerfEvent = program(ebpf, NAME)?;
    links.into_iter().try_for_each(|link| on_cpu.detach(link).map_err(refused))
}

/// Stops, and unloads the program.
pub(super) fn stop(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    let on_cpu: &mut PerfEvent = program(ebpf, NAME)?;
    on_cpu.unload().map_err(refused)
}

/// Whether a perf event could not be opened because its CPU is offline.
pub(super) fn is_no_such_device(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::ENODEV))
}

fn refused(source: ProgramError) -> LoadError {
    LoadError::Program { name: NAME, source }
}

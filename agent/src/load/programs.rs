//! The loaded object's programs by their names, and what is done to those at tracepoints.

use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Btf, Ebpf};

use super::LoadError;

/// A program of the object.
pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(LoadError::Missing(name))?
        .try_into()
        .map_err(|source| LoadError::Program { name, source })
}

/// Loads a program at this tracepoint.
pub(super) fn load(
    ebpf: &mut Ebpf,
    name: &'static str,
    tracepoint: &str,
    btf: &Btf,
) -> Result<(), LoadError> {
    let tracing: &mut BtfTracePoint = program(ebpf, name)?;
    tracing.load(tracepoint, btf).map_err(|source| LoadError::Program { name, source })
}

/// Attaches a program that was loaded at a tracepoint.
pub(super) fn attach(ebpf: &mut Ebpf, name: &'static str) -> Result<(), LoadError> {
    let tracing: &mut BtfTracePoint = program(ebpf, name)?;
    tracing.attach().map(drop).map_err(|source| LoadError::Program { name, source })
}

/// Detaches and unloads it.
pub(super) fn unload(ebpf: &mut Ebpf, name: &'static str) -> Result<(), LoadError> {
    let tracing: &mut BtfTracePoint = program(ebpf, name)?;
    tracing.unload().map_err(|source| LoadError::Program { name, source })
}

/// Whether the kernel took what it may refuse; `what` is missing where it did not.
pub(super) fn tried(what: &str, result: Result<(), LoadError>) -> bool {
    result.inspect_err(|error| tracing::debug!(%error, "without {what}")).is_ok()
}

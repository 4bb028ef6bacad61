//! Turns summed raw stacks into a profile: every distinct frame is symbolized once, file by file.

use std::collections::{BTreeMap, HashMap};

use chokepoint_analysis::coverage::Coverage;
use chokepoint_analysis::profile::{
    Builder, Function, Header, Line, Location, LocationId, Module, ModuleKind, Moment, Profile, Sample, Thread,
};

use crate::address::{AbsoluteAddress, FileOffset};
use crate::aggregate::{Aggregate, RawFrame};
use crate::drain::decode::comm;
use crate::process::binaries::BinaryId;
use crate::process::table::ProcessId;
use crate::symbolize::{SourceLine, Symbolized, Symbolizer};

/// What is known of a frame after symbolization.
struct Found {
    module: Module,
    address: u64,
    lines: Vec<SourceLine>,
}

/// Symbolizes every frame and builds the profile. `window_start_ns` is the monotonic time that the timeline begins at.
#[must_use]
pub fn profile(
    aggregate: &Aggregate,
    symbolizer: &mut Symbolizer,
    header: Header,
    window_start_ns: u64,
    mut coverage: Coverage,
) -> Profile {
    let found = symbolize(aggregate, symbolizer, &mut coverage.notes);
    let mut builder = Builder::new();
    let locations: Vec<LocationId> = found.into_iter().map(|found| intern(&mut builder, found)).collect();
    let threads: Vec<_> = aggregate
        .threads()
        .iter()
        .map(|raw| {
            builder.thread(Thread {
                pid: raw.tgid,
                tid: raw.tid,
                process_name: comm(&raw.process_comm),
                thread_name: comm(&raw.thread_comm),
            })
        })
        .collect();
    let stacks: Vec<_> = aggregate
        .stacks()
        .map(|frames| builder.stack(frames.iter().map(|frame| locations[frame.index()]).collect()))
        .collect();
    for (thread, stack, sum) in aggregate.sums() {
        builder.add(Sample {
            thread: threads[thread as usize],
            stack: stacks[stack as usize],
            count: sum.count,
            weight: sum.weight,
        });
    }
    for moment in aggregate.timeline() {
        builder.add_moment(Moment {
            offset_ns: moment.time_ns.saturating_sub(window_start_ns),
            thread: threads[moment.thread as usize],
            stack: stacks[moment.stack as usize],
            weight: moment.weight,
        });
    }
    builder.finish(header, coverage)
}

fn intern(builder: &mut Builder, found: Found) -> LocationId {
    let module = builder.module(found.module);
    let lines = found
        .lines
        .into_iter()
        .map(|line| Line {
            function: builder.function(Function { name: line.function, file: line.file }),
            line: line.line,
        })
        .collect();
    builder.location(Location { module, address: found.address, lines })
}

/// What each of the aggregate's frames is, in their order.
fn symbolize(aggregate: &Aggregate, symbolizer: &mut Symbolizer, notes: &mut Vec<String>) -> Vec<Found> {
    let mut kernel: Vec<(usize, AbsoluteAddress)> = Vec::new();
    let mut vdso: Vec<(usize, FileOffset)> = Vec::new();
    let mut binaries: BTreeMap<BinaryId, Vec<(usize, FileOffset)>> = BTreeMap::new();
    let mut jitted: BTreeMap<ProcessId, Vec<(usize, AbsoluteAddress)>> = BTreeMap::new();
    let mut found: Vec<Option<Found>> = Vec::new();
    for (index, frame) in aggregate.frames().iter().enumerate() {
        found.push(None);
        match *frame {
            RawFrame::Kernel(address) => kernel.push((index, AbsoluteAddress(address))),
            RawFrame::Vdso(offset) => vdso.push((index, FileOffset(offset))),
            RawFrame::Binary(binary, offset) => {
                binaries.entry(binary).or_default().push((index, FileOffset(offset)));
            }
            RawFrame::Jit(process, address) => {
                jitted.entry(process).or_default().push((index, AbsoluteAddress(address)));
            }
            RawFrame::Unmapped(address) => {
                let module = module(ModuleKind::Unknown, "[unknown]");
                found[index] = Some(Found { module, address, lines: Vec::new() });
            }
        }
    }

    let mut unsymbolized: HashMap<String, usize> = HashMap::new();
    let mut failed = |what: String| *unsymbolized.entry(what).or_default() += 1;

    if !kernel.is_empty() {
        let addresses: Vec<_> = kernel.iter().map(|(_, address)| *address).collect();
        let symbols = symbolizer.kernel(&addresses).unwrap_or_else(|error| {
            failed(format!("kernel frames have no names: {error}"));
            addresses.iter().map(|address| unnamed(address.0)).collect()
        });
        let module = module(ModuleKind::Kernel, "[kernel]");
        for ((index, address), symbol) in kernel.iter().zip(symbols) {
            found[*index] = Some(Found { module: module.clone(), address: address.0, lines: symbol.lines });
        }
    }
    if !vdso.is_empty() {
        let offsets: Vec<_> = vdso.iter().map(|(_, offset)| *offset).collect();
        let symbols = symbolizer.vdso(&offsets).unwrap_or_else(|error| {
            failed(format!("vDSO frames have no names: {error}"));
            offsets.iter().map(|offset| unnamed(offset.0)).collect()
        });
        let module = module(ModuleKind::Vdso, "[vdso]");
        for ((index, _), symbol) in vdso.iter().zip(symbols) {
            found[*index] = Some(Found { module: module.clone(), address: symbol.address, lines: symbol.lines });
        }
    }
    for (binary, frames) in &binaries {
        let binary = aggregate.processes().binaries().get(*binary);
        let offsets: Vec<_> = frames.iter().map(|(_, offset)| *offset).collect();
        let symbols = match &binary.file {
            Some(file) => symbolizer.binary(file, &binary.path, &binary.root, &offsets).map_err(|error| {
                tracing::debug!(path = %binary.path.display(), %error, "binary cannot be symbolized");
                failed("files could not be symbolized; run with --log debug to see which".to_owned());
            }),
            None => {
                failed("mapped files could not be opened; see `chokepoint doctor`".to_owned());
                Err(())
            }
        };
        let (build_id, symbols) = match symbols {
            Ok(symbols) => (symbols.build_id, symbols.symbols),
            Err(()) => (Vec::new(), offsets.iter().map(|offset| unnamed(offset.0)).collect()),
        };
        let path = binary.path.to_string_lossy().into_owned();
        let module = Module { kind: ModuleKind::Binary, path, build_id };
        for ((index, _), symbol) in frames.iter().zip(symbols) {
            found[*index] = Some(Found { module: module.clone(), address: symbol.address, lines: symbol.lines });
        }
    }
    for (process, frames) in &jitted {
        let addresses: Vec<_> = frames.iter().map(|(_, address)| *address).collect();
        let symbols = aggregate
            .processes()
            .get(*process)
            .perf_map()
            .and_then(|file| {
                symbolizer
                    .perf_map(file, &addresses)
                    .inspect_err(|error| failed(format!("a perf map could not be read: {error}")))
                    .ok()
            })
            .unwrap_or_else(|| addresses.iter().map(|address| unnamed(address.0)).collect());
        let module = module(ModuleKind::Jit, "[jit]");
        for ((index, address), symbol) in frames.iter().zip(symbols) {
            found[*index] = Some(Found { module: module.clone(), address: address.0, lines: symbol.lines });
        }
    }
    notes.extend(unsymbolized.into_iter().map(|(what, times)| match times {
        1 => what,
        times => format!("{times} {what}"),
    }));
    found.into_iter().flatten().collect()
}

fn module(kind: ModuleKind, path: &str) -> Module {
    Module { kind, path: path.to_owned(), build_id: Vec::new() }
}

fn unnamed(address: u64) -> Symbolized {
    Symbolized { address, lines: Vec::new() }
}

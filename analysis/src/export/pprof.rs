//! pprof's profile.proto, gzipped.
//!
//! Addresses in a binary are the ELF's own, not those of a process, so the ranges of binaries overlap. Readers find a
//! location's mapping by its id. All mappings claim to be symbolized, as a reader would otherwise look on its own machine
//! for binaries of these names; an address without a symbol gets a function named after its module and address. pprof
//! itself adds up functions of one name from several modules unless asked for more detail than functions.

use std::collections::HashMap;
use std::io::{self, Write};

use chokepoint_proto::pprof;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use crate::frames::{self, NO_STACK};
use crate::names;
use crate::profile::{LocationId, Module, ModuleKind, Profile, Thread, Unit};

use super::caption;

pub(super) fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&message(profile).encode_to_vec())?;
    gzip.finish()?;
    Ok(())
}

fn message(profile: &Profile) -> pprof::Profile {
    let mut strings = Strings::default();
    let header = &profile.header;
    let unit = match header.unit {
        Unit::Nanoseconds => "nanoseconds",
        Unit::Count => "count",
    };
    let count = value_type(&mut strings, "samples", "count");
    let weight = value_type(&mut strings, &header.kind, unit);

    let mut code = Code::new(profile, &mut strings);
    let labels: Vec<Vec<pprof::Label>> =
        profile.threads.iter().map(|thread| labels(thread, &mut strings)).collect();
    let sample = profile
        .samples
        .iter()
        .map(|sample| {
            let stack = profile.stack(sample.stack);
            let location_id = if stack.is_empty() {
                vec![code.no_stack(&mut strings)]
            } else {
                stack.iter().copied().map(location_id).collect()
            };
            pprof::Sample {
                location_id,
                value: vec![signed(sample.count), signed(sample.weight)],
                label: labels[sample.thread.index()].clone(),
            }
        })
        .collect();

    let mut comments = vec![caption::title(header), caption::facts(profile).join(" · ")];
    comments.extend(profile.coverage.notes.iter().map(|note| names::printable(note)));

    pprof::Profile {
        sample_type: vec![count, weight],
        sample,
        mapping: code.mappings,
        location: code.locations,
        function: code.functions,
        time_nanos: signed(header.start_unix_ns),
        duration_nanos: signed(header.duration_ns),
        period_type: Some(weight),
        period: signed(header.period),
        comment: comments.iter().map(|comment| strings.index(comment)).collect(),
        default_sample_type: weight.r#type,
        string_table: strings.into_table(),
        ..pprof::Profile::default()
    }
}

fn value_type(strings: &mut Strings, name: &str, unit: &str) -> pprof::ValueType {
    pprof::ValueType { r#type: strings.index(name), unit: strings.index(unit) }
}

fn labels(thread: &Thread, strings: &mut Strings) -> Vec<pprof::Label> {
    let mut label = |key: &str, text: &str, num: u32| pprof::Label {
        key: strings.index(key),
        str: strings.index(text),
        num: num.into(),
        num_unit: 0,
    };
    let mut labels = vec![
        label("comm", &names::element(&thread.process_name), 0),
        label("thread", &names::element(&thread.thread_name), 0),
    ];
    // The threads of one name, summed up, have no numbers.
    if (thread.pid, thread.tid) != (0, 0) {
        // As numbers: pprof takes `-tagfocus=tid=42` for a number, and finds no text by it.
        labels.extend([label("pid", "", thread.pid), label("tid", "", thread.tid)]);
    }
    labels
}

/// Mappings, locations and functions; ids are positions, from 1.
struct Code {
    mappings: Vec<pprof::Mapping>,
    locations: Vec<pprof::Location>,
    functions: Vec<pprof::Function>,
    no_stack: Option<u64>,
}

impl Code {
    fn new(profile: &Profile, strings: &mut Strings) -> Self {
        let mut code = Self {
            mappings: profile
                .modules
                .iter()
                .enumerate()
                .map(|(index, module)| mapping(id(index), module, strings))
                .collect(),
            locations: Vec::new(),
            functions: Vec::new(),
            no_stack: None,
        };
        for function in &profile.functions {
            code.add_function(&names::element(&function.name), &names::printable(&function.file), strings);
        }
        for location in &profile.locations {
            let module = profile.module(location.module);
            let mut line: Vec<pprof::Line> = location
                .lines
                .iter()
                .map(|line| pprof::Line {
                    function_id: id(line.function.index()),
                    line: line.line.into(),
                    column: 0,
                })
                .collect();
            if line.is_empty() {
                let name = frames::address_name(module, location.address);
                line.push(line_of(code.add_function(&name, "", strings)));
            }
            code.locations.push(pprof::Location {
                id: id(code.locations.len()),
                mapping_id: id(location.module.index()),
                address: location.address,
                line,
                is_folded: false,
            });
        }
        code
    }

    /// The location that stands for a missing stack.
    fn no_stack(&mut self, strings: &mut Strings) -> u64 {
        if let Some(location) = self.no_stack {
            return location;
        }
        let function = self.add_function(NO_STACK, "", strings);
        let location = id(self.locations.len());
        self.locations.push(pprof::Location {
            id: location,
            line: vec![line_of(function)],
            ..pprof::Location::default()
        });
        self.no_stack = Some(location);
        location
    }

    fn add_function(&mut self, name: &str, file: &str, strings: &mut Strings) -> u64 {
        let id = id(self.functions.len());
        self.functions.push(pprof::Function {
            id,
            name: strings.index(name),
            filename: strings.index(file),
            ..pprof::Function::default()
        });
        id
    }
}

fn line_of(function_id: u64) -> pprof::Line {
    pprof::Line { function_id, ..pprof::Line::default() }
}

fn mapping(id: u64, module: &Module, strings: &mut Strings) -> pprof::Mapping {
    /// Where the addresses of user space end; no ELF's own addresses exceed it.
    const USER_LIMIT: u64 = 1 << 47;
    let memory_limit = match module.kind {
        ModuleKind::Binary | ModuleKind::Vdso => USER_LIMIT,
        ModuleKind::Kernel | ModuleKind::Jit | ModuleKind::Unknown | ModuleKind::Activity => u64::MAX,
    };
    let build_id: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    pprof::Mapping {
        id,
        memory_start: 0,
        memory_limit,
        file_offset: 0,
        filename: strings.index(&names::printable(&module.path)),
        build_id: strings.index(&build_id),
        has_functions: true,
        has_filenames: true,
        has_line_numbers: true,
        has_inline_frames: true,
    }
}

/// The string table: the empty string first, each string once.
#[derive(Default)]
struct Strings {
    positions: HashMap<String, i64>,
    table: Vec<String>,
}

impl Strings {
    fn index(&mut self, string: &str) -> i64 {
        if string.is_empty() {
            return 0;
        }
        if let Some(position) = self.positions.get(string) {
            return *position;
        }
        self.table.push(string.to_owned());
        let position = i64::try_from(self.table.len()).unwrap_or(i64::MAX);
        self.positions.insert(string.to_owned(), position);
        position
    }

    fn into_table(self) -> Vec<String> {
        let mut table = vec![String::new()];
        table.extend(self.table);
        table
    }
}

fn location_id(location: LocationId) -> u64 {
    id(location.index())
}

/// Ids start at 1, positions at 0.
fn id(position: usize) -> u64 {
    position as u64 + 1
}

/// The format has signed numbers only.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

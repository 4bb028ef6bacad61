//! From a window to profiles of OTLP: one for each resource and type.

use std::collections::BTreeMap;

use chokepoint_analysis::activity::{Class, Group};
use chokepoint_proto::stream::{Module, ModuleKind, Profile as Kind, Unit, Window};
use hashbrown::HashMap;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::profiles::v1development::{Profile, Sample};
use ring::digest::{SHA256, digest};

use super::known::Known;
use super::message::{Attribute, Index, Message};
use super::types::Types;
use crate::labels::Labels;
use crate::protocols::otlp::names::{
    BUILD_ID, CLASS, COUNT, CPU, FRAME_TYPE, KERNEL, LOST_SAMPLES, NANOSECONDS, NATIVE, OFF_CPU,
};
use crate::protocols::sent::attribute_of;
use crate::query::profile_type::WALL;

/// From how many bytes on a message goes: half of what a receiver of gRPC takes where nobody says how much.
const FULL_BYTES: usize = 2 << 20;
/// Bytes of a sample and of a profile at most, without their lists.
const SAMPLE_BYTES: usize = 48;
const PROFILE_BYTES: usize = 96;

/// Whose windows are.
#[derive(Clone, Debug, Default)]
pub(super) struct Whose {
    /// The agent's identity.
    pub(super) agent: Vec<u8>,
    pub(super) host: String,
    /// What the host's operator calls it.
    pub(super) labels: Labels,
}

/// What a profile is of: its type and unit.
type Type<'a> = (&'a str, &'static str);

/// A row: in which of the window's lists, and where.
type Row = (usize, usize);

/// Adds a window, whose numbers mean what is in `known`. Messages that became full are returned, the last goes on.
pub(super) fn add(
    message: &mut Message,
    whose: &Whose,
    sequence: u64,
    window: &Window,
    known: &Known,
    types: &Types,
) -> Vec<(ExportProfilesServiceRequest, u64)> {
    let mut full = Vec::new();
    let mut reader = Reader { known, window, places: HashMap::new(), stacks: HashMap::new() };
    let lost = window.losses.as_ref().map_or(0, |losses| losses.lost.iter().map(|loss| loss.samples).sum());
    for (number, ((process, labels), of_types)) in reader.rows(types).into_iter().enumerate() {
        let resource = resource(whose, known, process, labels);
        for ((name, unit), rows) in of_types {
            let mut rows = rows.into_iter().peekable();
            let mut part = 0_u64;
            while rows.peek().is_some() {
                let mut profile = Profile {
                    sample_type: Some(message.value_type(name, unit)),
                    time_unix_nano: window.start_unix_ns,
                    duration_nano: window.duration_ns,
                    profile_id: profile_id(whose, sequence, number as u64, name, part),
                    ..Profile::default()
                };
                if lost > 0 {
                    let lost = Attribute::Number(i64::try_from(lost).unwrap_or(i64::MAX));
                    profile.attribute_indices = vec![message.attribute(LOST_SAMPLES, lost)];
                }
                message.bytes += PROFILE_BYTES;
                while message.bytes < FULL_BYTES
                    && let Some(row) = rows.next()
                {
                    profile.samples.push(reader.sample(message, row));
                }
                // One that has room for nothing goes with what it has.
                if !profile.samples.is_empty() {
                    message.add(&resource, profile);
                    part += 1;
                }
                if message.bytes >= FULL_BYTES {
                    let taken = message.take();
                    // Names alone say nothing.
                    full.extend((taken.1 > 0).then_some(taken));
                    reader.forget();
                }
            }
        }
    }
    full
}

/// The same each time, so that who gets it twice can know it.
fn profile_id(whose: &Whose, sequence: u64, resource: u64, name: &str, part: u64) -> Vec<u8> {
    let numbers = [sequence, resource, part].map(u64::to_le_bytes).concat();
    digest(&SHA256, &[&whose.agent, numbers.as_slice(), name.as_bytes()].concat()).as_ref()[..16].to_vec()
}

/// What is known of those whose profiles are: names of attributes with their values.
fn resource(whose: &Whose, known: &Known, process: u32, labels: &[u32]) -> Vec<(String, String)> {
    let string = |number: u32| known.string(number).to_owned();
    let mut all = whose.labels.clone();
    for pair in labels.chunks_exact(2) {
        all.insert(string(pair[0]), string(pair[1]));
    }
    let mut resource = vec![("host.name".to_owned(), whose.host.clone())];
    let process = string(process);
    if !process.is_empty() {
        resource.push(("process.executable.name".to_owned(), process));
    }
    let is_in_pod = all.contains_key("pod");
    resource.extend(all.into_iter().map(|(name, value)| (attribute_of(&name, is_in_pod), value)));
    resource
}

/// A window's rows, and what of them is in the message already.
struct Reader<'a> {
    known: &'a Known,
    window: &'a Window,
    places: HashMap<u32, Index>,
    stacks: HashMap<u32, Index>,
}

impl<'a> Reader<'a> {
    /// The rows that are sent, by process, labels and type.
    #[expect(clippy::type_complexity, reason = "it is taken apart where it is used")]
    fn rows(&self, types: &Types) -> BTreeMap<(u32, &'a [u32]), BTreeMap<Type<'a>, Vec<Row>>> {
        let mut found: BTreeMap<_, BTreeMap<_, Vec<Row>>> = BTreeMap::new();
        for (at, kind) in self.window.profiles.iter().enumerate() {
            if !types.has_kind(&kind.kind) {
                continue;
            }
            for row in (0..kind.subject.len()).filter(|row| kind.weight[*row] > 0) {
                let name = if kind.kind == WALL {
                    let class = self.class(kind, row);
                    if !types.has_class(class) {
                        continue;
                    }
                    if class.group() == Group::Cpu { CPU } else { OFF_CPU }
                } else {
                    &kind.kind
                };
                let unit = if kind.unit == Unit::Nanoseconds as i32 { NANOSECONDS } else { COUNT };
                let (process, _, labels) = self.known.subject(kind.subject[row]);
                let of = found.entry((process, labels)).or_default();
                of.entry((name, unit)).or_default().push((at, row));
            }
        }
        found
    }

    /// The class of a row of thread time.
    fn class(&self, kind: &Kind, row: usize) -> Class {
        let name = kind.class.get(row).map_or("", |class| self.string(*class));
        Class::from_name(name).unwrap_or(Class::Other)
    }

    fn string(&self, number: u32) -> &'a str {
        self.known.string(number)
    }

    /// The message is another one now.
    fn forget(&mut self) {
        self.places.clear();
        self.stacks.clear();
    }

    fn sample(&mut self, message: &mut Message, (at, row): Row) -> Sample {
        let kind = &self.window.profiles[at];
        let thread = self.string(self.known.subject(kind.subject[row]).1);
        let mut attribute_indices = Vec::new();
        if !thread.is_empty() {
            attribute_indices.push(message.attribute("thread.name", Attribute::Text(thread.to_owned())));
        }
        if kind.kind == WALL {
            let class = self.class(kind, row).name().to_owned();
            attribute_indices.push(message.attribute(CLASS, Attribute::Text(class)));
        }
        message.bytes += SAMPLE_BYTES;
        Sample {
            stack_index: self.stack(message, kind.stack[row]),
            values: vec![i64::try_from(kind.weight[row]).unwrap_or(i64::MAX)],
            attribute_indices,
            ..Sample::default()
        }
    }

    fn stack(&mut self, message: &mut Message, leaf: u32) -> Index {
        if let Some(index) = self.stacks.get(&leaf) {
            return *index;
        }
        let mut places = Vec::new();
        let mut node = leaf;
        // Callers come before what they call, so this ends.
        while let Some(at) = node.checked_sub(1) {
            let (caller, place) = self.known.node(at);
            places.push(self.place(message, place));
            node = caller;
        }
        let index = message.stack(places);
        self.stacks.insert(leaf, index);
        index
    }

    fn place(&mut self, message: &mut Message, number: u32) -> Index {
        if let Some(index) = self.places.get(&number) {
            return *index;
        }
        let (module, address, lines) = self.known.location(number);
        let mapping = self.mapping(message, module);
        let lines = lines.iter().map(|line| {
            let function = self.known.function(line.function);
            let function = message.function(self.string(function.name), self.string(function.file));
            (function, i64::from(line.line))
        });
        let lines = lines.collect();
        let is = match module.kind() {
            ModuleKind::Kernel => message.attribute(FRAME_TYPE, Attribute::Text(KERNEL.to_owned())),
            ModuleKind::Binary | ModuleKind::Vdso => {
                message.attribute(FRAME_TYPE, Attribute::Text(NATIVE.to_owned()))
            }
            // Which runtime compiled it is not known, and of the others there is nothing to say.
            ModuleKind::Jit | ModuleKind::Activity | ModuleKind::Unknown => 0,
        };
        let index = message.place((mapping, address, lines, is));
        self.places.insert(number, index);
        index
    }

    fn mapping(&self, message: &mut Message, module: &Module) -> Index {
        let path = self.string(module.path);
        if path.is_empty() && module.build_id.is_empty() {
            return 0;
        }
        let build_id = match module.build_id.as_slice() {
            [] => 0,
            bytes => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                message.attribute(BUILD_ID, Attribute::Text(digits))
            }
        };
        message.mapping(path, build_id)
    }
}

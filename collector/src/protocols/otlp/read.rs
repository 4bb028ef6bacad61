//! What an export holds, as windows: those of one host, of one time, are one.

use std::collections::BTreeMap;

use chokepoint_analysis::activity::{Class, Group};
use chokepoint_proto::stream::{ModuleKind, Window};
use hashbrown::HashMap;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development::{Profile, ProfilesDictionary, Sample, ValueType};

use super::PROTOCOL;
use super::names::{BUILD_ID, CLASS, CPU, FRAME_TYPE, KERNEL, NANOSECONDS, OFF_CPU, OFF_CPU_TOO};
use crate::protocols::sent::{Described, Kind, Sent, hex};

/// Waits whose reason is not told.
const WAITING: &str = "wait.other";
const RUNNING: &str = "cpu.user";
const RUNNING_KERNEL: &str = "cpu.kernel";

/// What an export holds.
pub(super) struct Windows {
    pub(super) windows: Vec<(Of, Window)>,
    /// How many profiles came.
    pub(super) profiles: u64,
    /// How many of them are not what they should be, and in no window.
    pub(super) refused: u64,
    /// Why the first of these is not.
    pub(super) why: Option<String>,
}

/// Whose a window is, and of how many profiles.
pub(super) struct Of {
    pub(super) host: String,
    pub(super) profiles: u64,
}

/// Reads an export. What says no time is of now.
pub(super) fn windows(request: &ExportProfilesServiceRequest, now_unix_ns: u64) -> Windows {
    let empty = ProfilesDictionary::default();
    let names = Names(request.dictionary.as_ref().unwrap_or(&empty));
    let mut found = Windows { windows: Vec::new(), profiles: 0, refused: 0, why: None };
    let mut sent: BTreeMap<(String, u64, u64), (Sent, u64)> = BTreeMap::new();
    for resource in &request.resource_profiles {
        let attributes = resource.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let known = match names.resource(attributes) {
            Ok(known) => known,
            Err(why) => {
                let lost: usize = resource.scope_profiles.iter().map(|scope| scope.profiles.len()).sum();
                found.profiles += lost as u64;
                found.refused += lost as u64;
                found.why.get_or_insert(why);
                continue;
            }
        };
        let host = described(&known).host;
        for profile in resource.scope_profiles.iter().flat_map(|scope| &scope.profiles) {
            found.profiles += 1;
            let start = if profile.time_unix_nano == 0 { now_unix_ns } else { profile.time_unix_nano };
            let key = (host.clone(), start, profile.duration_nano);
            match names.rows(profile, &known) {
                Ok(rows) => {
                    let (sent, profiles) = sent.entry(key).or_default();
                    names.add(sent, &rows);
                    *profiles += 1;
                }
                Err(why) => {
                    found.refused += 1;
                    found.why.get_or_insert(why);
                }
            }
        }
    }
    for ((host, start, duration), (sent, profiles)) in sent {
        // A profiler that saw nothing says so with a profile of no samples.
        if !sent.is_empty() {
            found.windows.push((Of { host, profiles }, sent.window(start, duration)));
        }
    }
    found
}

/// Only what is known to be of few values: an attribute may be a request's number.
fn described(known: &BTreeMap<String, String>) -> Described {
    Described::new(known, PROTOCOL, |_| false)
}

/// Samples of a profile, checked.
struct Row {
    kind: Kind,
    of: Described,
    stack: usize,
    count: u64,
    weight: u64,
}

/// The dictionary of an export.
struct Names<'a>(&'a ProfilesDictionary);

fn at<'t, T>(list: &'t [T], index: i32, what: &str) -> Result<&'t T, String> {
    let found = usize::try_from(index).ok().and_then(|index| list.get(index));
    found.ok_or_else(|| format!("it refers to {what} {index}, which its dictionary does not have"))
}

impl<'a> Names<'a> {
    fn string(&self, index: i32) -> Result<&'a str, String> {
        // A dictionary that is left out is empty, and 0 is nothing all the same.
        if index == 0 { Ok("") } else { at(&self.0.string_table, index, "string").map(String::as_str) }
    }

    fn value_type(&self, value: Option<&ValueType>) -> Result<(&'a str, &'a str), String> {
        let value = value.copied().unwrap_or_default();
        Ok((self.string(value.type_strindex)?, self.string(value.unit_strindex)?))
    }

    /// A resource's attributes that have a text or a number, as text.
    fn resource(&self, attributes: &[KeyValue]) -> Result<BTreeMap<String, String>, String> {
        let mut known = BTreeMap::new();
        for attribute in attributes {
            let name = match attribute.key_strindex {
                0 => attribute.key.clone(),
                index => self.string(index)?.to_owned(),
            };
            if let Some(text) = self.text(attribute.value.as_ref())? {
                known.insert(name, text);
            }
        }
        Ok(known)
    }

    fn text(&self, value: Option<&AnyValue>) -> Result<Option<String>, String> {
        Ok(match value.and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => Some(text.clone()),
            Some(Value::StringValueStrindex(index)) => Some(self.string(*index)?.to_owned()),
            Some(Value::IntValue(number)) => Some(number.to_string()),
            Some(Value::BoolValue(is)) => Some(is.to_string()),
            _ => None,
        })
    }

    fn attributes(&self, indices: &[i32]) -> Result<BTreeMap<String, String>, String> {
        let mut known = BTreeMap::new();
        for index in indices {
            let attribute = at(&self.0.attribute_table, *index, "attribute")?;
            if let Some(text) = self.text(attribute.value.as_ref())? {
                known.insert(self.string(attribute.key_strindex)?.to_owned(), text);
            }
        }
        Ok(known)
    }

    /// All samples of a profile. Nothing is refused after this.
    fn rows(&self, profile: &Profile, resource: &BTreeMap<String, String>) -> Result<Vec<Row>, String> {
        let (name, unit) = self.value_type(profile.sample_type.as_ref())?;
        let period = self.value_type(profile.period_type.as_ref())?;
        let period_ns = u64::try_from(profile.period).ok().filter(|period| *period > 0);
        let period_ns = period_ns.filter(|_| period == (CPU, NANOSECONDS));
        let mut rows = Vec::with_capacity(profile.samples.len());
        // Samples of a thread have the same attributes, and there are few threads.
        let mut described_before: HashMap<&[i32], (Described, Option<Class>)> = HashMap::new();
        for sample in &profile.samples {
            let (of, class) = match described_before.get(sample.attribute_indices.as_slice()) {
                Some(known) => known.clone(),
                None => {
                    let mut known = resource.clone();
                    known.extend(self.attributes(&profile.attribute_indices)?);
                    known.extend(self.attributes(&sample.attribute_indices)?);
                    let class = known.get(CLASS).and_then(|name| Class::from_name(name));
                    let known = (described(&known), class);
                    described_before.insert(&sample.attribute_indices, known.clone());
                    known
                }
            };
            let stack = self.check_stack(sample.stack_index)?;
            let (times, value) = values(sample)?;
            // Who knows the class is one of us; else what is known is whose code ran.
            let class_of =
                |is_cpu| class.filter(|class| (class.group() == Group::Cpu) == is_cpu).map(Class::name);
            let running =
                || class_of(true).unwrap_or(if self.is_kernel(stack) { RUNNING_KERNEL } else { RUNNING });
            let (kind, count, weight) = match (name, unit, period_ns) {
                ("samples", "count", Some(period)) => {
                    (Kind::Time(running()), value, value.saturating_mul(period))
                }
                (CPU, NANOSECONDS, Some(period)) => (Kind::Time(running()), value / period, value),
                (CPU, NANOSECONDS, None) => (Kind::Time(running()), times, value),
                (name, NANOSECONDS, _) if name == OFF_CPU || OFF_CPU_TOO.contains(&name) => {
                    (Kind::Time(class_of(false).unwrap_or(WAITING)), times, value)
                }
                _ => (Kind::other(name, unit == NANOSECONDS), times, value),
            };
            if count > 0 || weight > 0 {
                rows.push(Row { kind, of, stack, count, weight });
            }
        }
        Ok(rows)
    }

    /// Whether all that a stack refers to is there.
    fn check_stack(&self, index: i32) -> Result<usize, String> {
        if index != 0 {
            for index in &at(&self.0.stack_table, index, "stack")?.location_indices {
                let location = at(&self.0.location_table, *index, "location")?;
                self.attributes(&location.attribute_indices)?;
                if location.mapping_index != 0 {
                    let mapping = at(&self.0.mapping_table, location.mapping_index, "mapping")?;
                    self.string(mapping.filename_strindex)?;
                    self.attributes(&mapping.attribute_indices)?;
                }
                for line in &location.lines {
                    let function = at(&self.0.function_table, line.function_index, "function")?;
                    self.string(function.name_strindex)?;
                    self.string(function.filename_strindex)?;
                }
            }
        }
        usize::try_from(index).map_err(|_| "it refers to a stack below 0".to_owned())
    }

    fn frame_type(&self, location: usize) -> String {
        let indices = &self.0.location_table[location].attribute_indices;
        self.attributes(indices).ok().and_then(|mut known| known.remove(FRAME_TYPE)).unwrap_or_default()
    }

    fn locations(&self, stack: usize) -> Vec<usize> {
        let indices =
            self.0.stack_table.get(stack).filter(|_| stack > 0).map(|stack| &stack.location_indices);
        indices.into_iter().flatten().filter_map(|index| usize::try_from(*index).ok()).collect()
    }

    /// Whether its innermost frame is the kernel's.
    fn is_kernel(&self, stack: usize) -> bool {
        self.locations(stack).first().is_some_and(|leaf| self.frame_type(*leaf) == KERNEL)
    }

    /// Adds rows whose stacks were checked.
    fn add(&self, sent: &mut Sent, rows: &[Row]) {
        let mut stacks = HashMap::new();
        for row in rows {
            let stack = *stacks.entry(row.stack).or_insert_with(|| {
                let locations: Vec<u32> =
                    self.locations(row.stack).into_iter().map(|at| self.location(sent, at)).collect();
                sent.stack(&locations)
            });
            let subject = sent.subject(&row.of);
            sent.add(row.kind.clone(), subject, stack, row.count, row.weight);
        }
    }

    fn location(&self, sent: &mut Sent, at: usize) -> u32 {
        let location = &self.0.location_table[at];
        let frame_type = self.frame_type(at);
        let mapping = usize::try_from(location.mapping_index).ok().filter(|index| *index > 0);
        let mapping = mapping.and_then(|index| self.0.mapping_table.get(index));
        let (path, build_id, address) = match mapping {
            None => ("", Vec::new(), location.address),
            Some(mapping) => {
                let known = self.attributes(&mapping.attribute_indices).unwrap_or_default();
                let build_id = known.get(BUILD_ID).and_then(|id| hex(id)).unwrap_or_default();
                // The offset in the file; it is the address in most of them.
                let offset = location.address.checked_sub(mapping.memory_start);
                let address = offset.map_or(location.address, |at| at.wrapping_add(mapping.file_offset));
                (self.string(mapping.filename_strindex).unwrap_or_default(), build_id, address)
            }
        };
        let kind = match (frame_type.as_str(), path) {
            (KERNEL, _) => ModuleKind::Kernel,
            ("" | "native" | "go" | "rust", "") => ModuleKind::Unknown,
            ("" | "native" | "go" | "rust", _) => ModuleKind::Binary,
            // A runtime's own frames: Java, Python, JavaScript.
            _ => ModuleKind::Jit,
        };
        let module = sent.module(kind, path, build_id);
        let mut lines = Vec::with_capacity(location.lines.len());
        for line in &location.lines {
            let function = usize::try_from(line.function_index).ok();
            let Some(function) = function.and_then(|index| self.0.function_table.get(index)) else {
                continue;
            };
            let name = self.string(function.name_strindex).unwrap_or_default();
            if !name.is_empty() {
                let file = self.string(function.filename_strindex).unwrap_or_default();
                lines.push((sent.function(name, file), u32::try_from(line.line).unwrap_or_default()));
            }
        }
        // Code that was not symbolized has its address; that which was needs none, and is then the same everywhere.
        let address = if lines.is_empty() { address } else { 0 };
        sent.location(module, address, lines)
    }
}

/// How often a sample was taken, and the sum of its values: without values, each time is one.
fn values(sample: &Sample) -> Result<(u64, u64), String> {
    let times = sample.timestamps_unix_nano.len() as u64;
    if sample.values.is_empty() {
        return Ok((times, times));
    }
    let mut sum: u64 = 0;
    for value in &sample.values {
        let value = u64::try_from(*value).map_err(|_| "a sample has a value below 0".to_owned())?;
        sum = sum.saturating_add(value);
    }
    Ok((if times > 0 { times } else { u64::from(sum > 0) }, sum))
}

//! Profiles as pprof has them.

use std::collections::{BTreeMap, HashMap};

use chokepoint_proto::pprof::{self, Profile};
use chokepoint_proto::stream::ModuleKind;
use prost::Message;

use super::{Described, Kind, Sent};
use crate::protocols::connect::gunzip;

/// How gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Threads that run: what a profiler of a process sees.
const RUNNING: &str = "cpu.user";

/// What a protocol says of a profile's values beside the profile itself.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Kinds {
    /// Put before the names of values that several profiles have: `mutex`.
    pub(in super::super) prefix: Option<String>,
    /// Names to use instead of those of values.
    pub(in super::super) names: BTreeMap<String, String>,
}

/// A profile, gzipped or not, of at most so many bytes.
///
/// # Errors
/// It is none, or too long.
pub(in super::super) fn decode(bytes: &[u8], max_bytes: usize) -> Result<Profile, String> {
    let plain = if bytes.starts_with(&GZIP) {
        gunzip(bytes, max_bytes).map_err(|fault| fault.message)?
    } else {
        bytes.to_vec()
    };
    Profile::decode(plain.as_slice()).map_err(|error| format!("this is no profile of pprof: {error}"))
}

/// Adds a profile to a window. Nothing of it is added where it is not what it should be.
///
/// # Errors
/// What is wrong with it.
pub(in super::super) fn add(
    sent: &mut Sent,
    profile: &Profile,
    of: &Described,
    kinds: &Kinds,
) -> Result<(), String> {
    let reader = Reader { profile };
    let values = reader.values(kinds)?;
    let subject = sent.subject(of);
    let functions = index(&profile.function, |function| function.id)?;
    let mappings = index(&profile.mapping, |mapping| mapping.id)?;
    let mut locations = HashMap::new();
    for location in &profile.location {
        let number = reader.location(sent, location, &functions, &mappings)?;
        locations.insert(location.id, number);
    }
    let mut rows = Vec::with_capacity(profile.sample.len());
    for sample in &profile.sample {
        if sample.value.len() != profile.sample_type.len() {
            return Err("a sample has another number of values than there are types".to_owned());
        }
        let stack: Option<Vec<u32>> =
            sample.location_id.iter().map(|id| locations.get(id).copied()).collect();
        let stack = stack.ok_or("a sample is at a location that is not there")?;
        let number = |at: usize| {
            u64::try_from(sample.value[at]).map_err(|_| "a sample has a value below 0".to_owned())
        };
        for value in &values {
            let weight = number(value.at)?;
            let count = value.count_at.map_or(Ok(u64::from(weight > 0)), number)?;
            if weight > 0 || count > 0 {
                rows.push((value.kind.clone(), stack.clone(), count, weight.saturating_mul(value.times)));
            }
        }
    }
    for (kind, stack, count, weight) in rows {
        let stack = sent.stack(&stack);
        sent.add(kind, subject, stack, count, weight);
    }
    Ok(())
}

/// One of the values that each sample has.
struct Value {
    kind: Kind,
    at: usize,
    /// Where the number of samples is.
    count_at: Option<usize>,
    /// What one of it stands for.
    times: u64,
}

struct Reader<'a> {
    profile: &'a Profile,
}

impl Reader<'_> {
    fn string(&self, index: i64) -> Result<&str, String> {
        let string = usize::try_from(index).ok().and_then(|index| self.profile.string_table.get(index));
        string.map(String::as_str).ok_or_else(|| "it refers to a string that is not there".to_owned())
    }

    fn values(&self, kinds: &Kinds) -> Result<Vec<Value>, String> {
        let profile = self.profile;
        let mut types = Vec::new();
        for value in &profile.sample_type {
            types.push((self.string(value.r#type)?, self.string(value.unit)?));
        }
        if types.is_empty() {
            return Err("it says of no value what it is".to_owned());
        }
        let cpu = types.iter().position(|one| *one == ("cpu", "nanoseconds"));
        let samples = types.iter().position(|one| *one == ("samples", "count"));
        if let Some(at) = cpu {
            // The only other value is how many samples it is made of.
            return Ok(vec![Value { kind: Kind::Time(RUNNING), at, count_at: samples, times: 1 }]);
        }
        let period = profile.period_type.as_ref();
        let period =
            period.map(|period| Ok::<_, String>((self.string(period.r#type)?, self.string(period.unit)?)));
        if let (Some(at), Some(("cpu", "nanoseconds")), Ok(times)) =
            (samples, period.transpose()?, u64::try_from(profile.period))
        {
            return Ok(vec![Value {
                kind: Kind::Time(RUNNING),
                at,
                count_at: Some(at),
                times: times.max(1),
            }]);
        }
        let value = |(at, (name, unit)): (usize, (&str, &str))| {
            let named = match (kinds.names.get(name), &kinds.prefix) {
                (Some(named), _) => named.clone(),
                (None, Some(prefix)) => format!("{prefix}_{name}"),
                (None, None) => name.to_owned(),
            };
            Value { kind: Kind::other(&named, unit == "nanoseconds"), at, count_at: None, times: 1 }
        };
        Ok(types.into_iter().enumerate().map(value).collect())
    }

    fn location(
        &self,
        sent: &mut Sent,
        location: &pprof::Location,
        functions: &HashMap<u64, usize>,
        mappings: &HashMap<u64, usize>,
    ) -> Result<u32, String> {
        let mapping = match location.mapping_id {
            0 => None,
            id => Some(mappings.get(&id).ok_or("a location is in a mapping that is not there")?),
        };
        let mapping = mapping.map(|at| &self.profile.mapping[*at]);
        let (module, address) = match mapping {
            None => (sent.module(ModuleKind::Unknown, "", Vec::new()), location.address),
            Some(mapping) => {
                let path = self.string(mapping.filename)?;
                let kind = match path {
                    "" => ModuleKind::Unknown,
                    path if path.starts_with("[kernel") => ModuleKind::Kernel,
                    "[vdso]" => ModuleKind::Vdso,
                    _ => ModuleKind::Binary,
                };
                let build_id = super::labels::hex(self.string(mapping.build_id)?).unwrap_or_default();
                // The offset in the file; it is the address in most of them.
                let offset = location.address.checked_sub(mapping.memory_start);
                let address =
                    offset.map_or(location.address, |offset| offset.wrapping_add(mapping.file_offset));
                (sent.module(kind, path, build_id), address)
            }
        };
        let mut lines = Vec::with_capacity(location.line.len());
        for line in &location.line {
            let function =
                functions.get(&line.function_id).ok_or("a line is of a function that is not there")?;
            let function = &self.profile.function[*function];
            let (name, file) = (self.string(function.name)?, self.string(function.filename)?);
            let line = u32::try_from(line.line).unwrap_or_default();
            lines.push((sent.function(name, file), line));
        }
        // Code that was not symbolized has its address; that which was needs none, and is then the same everywhere.
        let address = if lines.is_empty() { address } else { 0 };
        Ok(sent.location(module, address, lines))
    }
}

/// Where each id is.
fn index<T>(things: &[T], id: impl Fn(&T) -> u64) -> Result<HashMap<u64, usize>, String> {
    let index: HashMap<u64, usize> = things.iter().enumerate().map(|(at, thing)| (id(thing), at)).collect();
    if index.len() == things.len() { Ok(index) } else { Err("it has two things of one id".to_owned()) }
}

#[cfg(test)]
mod tests {
    use chokepoint_proto::dictionary::Checker;
    use chokepoint_proto::pprof::{Function, Line, Location, Mapping, Sample, ValueType};
    use chokepoint_proto::stream::Window;

    use super::*;
    use crate::ingest;

    /// Memory that was allocated in `work`, called by `main`.
    fn profile() -> Profile {
        let location = |id, function_id| Location {
            id,
            mapping_id: 1,
            address: 0x40_1000,
            line: vec![Line { function_id, line: 7, column: 0 }],
            is_folded: false,
        };
        let function = |id, name| Function { id, name, ..Function::default() };
        Profile {
            sample_type: vec![ValueType { r#type: 1, unit: 2 }, ValueType { r#type: 3, unit: 4 }],
            sample: vec![Sample { location_id: vec![2, 1], value: vec![3, 4096], ..Sample::default() }],
            mapping: vec![Mapping { id: 1, memory_start: 0x40_0000, filename: 5, ..Mapping::default() }],
            location: vec![location(1, 1), location(2, 2)],
            function: vec![function(1, 6), function(2, 7)],
            string_table: [
                "",
                "alloc_objects",
                "count",
                "alloc_space",
                "bytes",
                "/usr/bin/shop",
                "main",
                "work",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..Profile::default()
        }
    }

    fn window(bytes: &[u8]) -> Result<Window, String> {
        let mut sent = Sent::default();
        add(&mut sent, &decode(bytes, 1 << 20)?, &Described::default(), &Kinds::default())?;
        let window = sent.window(1_767_225_600_000_000_000, 0);
        let mut checked = ingest::decode(&window.encode_to_vec()).expect("a window");
        Checker::new().take(&mut checked).expect("all that it refers to");
        Ok(window)
    }

    #[test]
    fn each_value_is_a_kind_of_its_name() {
        let window = window(&profile().encode_to_vec()).expect("a profile");
        let kinds: Vec<(&str, u64)> =
            window.profiles.iter().map(|kind| (kind.kind.as_str(), kind.weight[0])).collect();
        assert_eq!(kinds, [("alloc_objects", 3), ("alloc_space", 4096)]);
        assert_eq!(window.dictionary.expect("a dictionary").stack_parent.len(), 2);
    }

    #[test]
    fn whatever_comes_is_refused_or_is_a_window_that_an_agent_could_have_sent() {
        let whole = profile().encode_to_vec();
        let mut random = fastrand::Rng::with_seed(5);
        let (mut read, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            match window(&bytes) {
                Ok(_) => read += 1,
                Err(why) => {
                    assert!(!why.is_empty());
                    refused += 1;
                }
            }
        }
        assert!(read > 1_000 && refused > 1_000, "{read} read, {refused} refused");
    }
}

//! A message of OTLP, made of windows: each string, function, mapping, place, stack and attribute once.

use std::hash::Hash;
use std::mem;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesDictionary, ResourceProfiles,
    ScopeProfiles, Stack, ValueType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::protocols::sent::Numbers;

/// Who says it.
const SCOPE: &str = "chokepoint";

/// A dictionary's index, as fields have it.
pub(super) type Index = i32;

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Attribute {
    /// There is none: of the entry that stands for nothing.
    Nothing,
    Text(String),
    Number(i64),
}

/// A place: its mapping, its address, its functions with their lines, the attribute that says what it is.
pub(super) type Place = (Index, u64, Vec<(Index, i64)>, Index);

/// A message in the making. Its bytes are counted as it grows, rather too many than too few.
pub(super) struct Message {
    strings: Numbers<String>,
    functions: Numbers<(Index, Index)>,
    mappings: Numbers<(Index, Index)>,
    places: Numbers<Place>,
    stacks: Numbers<Vec<Index>>,
    attributes: Numbers<(Index, Attribute)>,
    resources: Vec<ResourceProfiles>,
    /// How many profiles it has.
    pub(super) profiles: u64,
    /// How long it is at most, encoded.
    pub(super) bytes: usize,
}

impl Default for Message {
    fn default() -> Self {
        let mut message = Self {
            strings: Numbers::default(),
            functions: Numbers::default(),
            mappings: Numbers::default(),
            places: Numbers::default(),
            stacks: Numbers::default(),
            attributes: Numbers::default(),
            resources: Vec::new(),
            profiles: 0,
            bytes: 64,
        };
        // The first entry of each list stands for nothing.
        message.string("");
        message.function("", "");
        message.mapping("", 0);
        message.place((0, 0, Vec::new(), 0));
        message.stack(Vec::new());
        message.attribute("", Attribute::Nothing);
        message
    }
}

/// Adds a thing, and its bytes where it is new.
fn number<T: Clone + Eq + Hash>(of: &mut Numbers<T>, thing: T, bytes: &mut usize, most: usize) -> Index {
    let before = of.len();
    let number = of.number(thing);
    if of.len() > before {
        *bytes += most;
    }
    // A message of some megabytes has fewer entries than there are positive numbers.
    number as Index
}

impl Message {
    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.profiles == 0
    }

    pub(super) fn string(&mut self, text: &str) -> Index {
        match self.strings.known(text) {
            Some(number) => number as Index,
            None => number(&mut self.strings, text.to_owned(), &mut self.bytes, text.len() + 6),
        }
    }

    pub(super) fn function(&mut self, name: &str, file: &str) -> Index {
        let names = (self.string(name), self.string(file));
        number(&mut self.functions, names, &mut self.bytes, 16)
    }

    /// A file that code is of; `build_id` is an attribute, or 0.
    pub(super) fn mapping(&mut self, path: &str, build_id: Index) -> Index {
        let named = (self.string(path), build_id);
        number(&mut self.mappings, named, &mut self.bytes, 20)
    }

    pub(super) fn place(&mut self, place: Place) -> Index {
        let most = 40 + 24 * place.2.len();
        number(&mut self.places, place, &mut self.bytes, most)
    }

    /// A stack, leaf first.
    pub(super) fn stack(&mut self, leaf_first: Vec<Index>) -> Index {
        let most = 10 + 5 * leaf_first.len();
        number(&mut self.stacks, leaf_first, &mut self.bytes, most)
    }

    pub(super) fn attribute(&mut self, name: &str, value: Attribute) -> Index {
        let most = 40 + if let Attribute::Text(text) = &value { text.len() } else { 0 };
        let name = self.string(name);
        number(&mut self.attributes, (name, value), &mut self.bytes, most)
    }

    pub(super) fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType { type_strindex: self.string(name), unit_strindex: self.string(unit) }
    }

    /// Adds a profile of a resource. Profiles of one follow each other.
    pub(super) fn add(&mut self, resource: &[(String, String)], profile: Profile) {
        self.profiles += 1;
        let text = |text: &String| Some(AnyValue { value: Some(Value::StringValue(text.clone())) });
        let attribute = |(name, value): &(String, String)| KeyValue {
            key: name.clone(),
            value: text(value),
            ..KeyValue::default()
        };
        let attributes: Vec<KeyValue> = resource.iter().map(attribute).collect();
        let is_of = |last: &ResourceProfiles| {
            last.resource.as_ref().is_some_and(|resource| resource.attributes == attributes)
        };
        if !self.resources.last().is_some_and(is_of) {
            let texts = resource.iter().map(|(name, value)| name.len() + value.len() + 24);
            self.bytes += texts.sum::<usize>() + 96;
            let scope = InstrumentationScope {
                name: SCOPE.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            };
            let profiles = ScopeProfiles { scope: Some(scope), ..ScopeProfiles::default() };
            self.resources.push(ResourceProfiles {
                resource: Some(Resource { attributes, ..Resource::default() }),
                scope_profiles: vec![profiles],
                ..ResourceProfiles::default()
            });
        }
        if let Some(last) = self.resources.last_mut().and_then(|last| last.scope_profiles.last_mut()) {
            last.profiles.push(profile);
        }
    }

    /// All of it; what comes next is in a new one.
    pub(super) fn take(&mut self) -> (ExportProfilesServiceRequest, u64) {
        let Self { strings, functions, mappings, places, stacks, attributes, resources, profiles, .. } =
            mem::take(self);
        let function = |(name_strindex, filename_strindex)| Function {
            name_strindex,
            filename_strindex,
            ..Function::default()
        };
        let some = |index: Index| if index == 0 { Vec::new() } else { vec![index] };
        let mapping = |(filename_strindex, build_id)| Mapping {
            filename_strindex,
            attribute_indices: some(build_id),
            ..Mapping::default()
        };
        let line = |(function_index, line)| Line { function_index, line, column: 0 };
        let place = |(mapping_index, address, lines, is): Place| Location {
            mapping_index,
            address,
            lines: lines.into_iter().map(line).collect(),
            attribute_indices: some(is),
        };
        let value = |value| match value {
            Attribute::Nothing => None,
            Attribute::Text(text) => Some(AnyValue { value: Some(Value::StringValue(text)) }),
            Attribute::Number(number) => Some(AnyValue { value: Some(Value::IntValue(number)) }),
        };
        let attribute =
            |(key_strindex, of)| KeyValueAndUnit { key_strindex, value: value(of), unit_strindex: 0 };
        let dictionary = ProfilesDictionary {
            mapping_table: mappings.entries().map(mapping).collect(),
            location_table: places.entries().map(place).collect(),
            function_table: functions.entries().map(function).collect(),
            // Samples are of threads, and of no spans.
            link_table: vec![Link::default()],
            string_table: strings.entries().collect(),
            attribute_table: attributes.entries().map(attribute).collect(),
            stack_table: stacks.entries().map(|location_indices| Stack { location_indices }).collect(),
        };
        let request =
            ExportProfilesServiceRequest { resource_profiles: resources, dictionary: Some(dictionary) };
        (request, profiles)
    }
}

//! Exports with all that they may hold, whole and damaged: what windows are made of them is always what agents may send.

use chokepoint_proto::dictionary::Checker;
use chokepoint_proto::stream::Window;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Location, Mapping, Profile, ProfilesDictionary, ResourceProfiles,
    Sample, ScopeProfiles, Stack, ValueType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::read::windows;
use crate::ingest::decode;

const NOW_NS: u64 = 1_767_225_600_000_000_000;
const STRINGS: [&str; 12] = [
    "",
    "samples",
    "count",
    "cpu",
    "nanoseconds",
    "main",
    "work",
    "/usr/bin/shop",
    "host.name",
    "a1",
    "profile.frame.type",
    "kernel",
];

fn string(text: &str) -> i32 {
    STRINGS.iter().position(|known| *known == text).expect("a string") as i32
}

fn value_type(kind: &str, unit: &str) -> Option<ValueType> {
    Some(ValueType { type_strindex: string(kind), unit_strindex: string(unit) })
}

/// A host, by number, that ran for two samples of 10 ms in `work`, and for one of 5 ms in the kernel.
fn export() -> ExportProfilesServiceRequest {
    let function = |name| Function { name_strindex: string(name), ..Function::default() };
    let location = |function_index, attribute_indices| Location {
        mapping_index: 1,
        address: 0x40_1000,
        lines: vec![Line { function_index, line: 7, column: 0 }],
        attribute_indices,
    };
    let text = |index| Some(AnyValue { value: Some(Value::StringValueStrindex(index)) });
    let dictionary = ProfilesDictionary {
        mapping_table: vec![
            Mapping::default(),
            Mapping {
                memory_start: 0x40_0000,
                filename_strindex: string("/usr/bin/shop"),
                ..Mapping::default()
            },
        ],
        function_table: vec![Function::default(), function("main"), function("work")],
        location_table: vec![
            Location::default(),
            location(1, vec![]),
            location(2, vec![]),
            location(2, vec![1]),
        ],
        string_table: STRINGS.map(str::to_owned).to_vec(),
        attribute_table: vec![
            KeyValueAndUnit::default(),
            KeyValueAndUnit {
                key_strindex: string("profile.frame.type"),
                value: text(string("kernel")),
                unit_strindex: 0,
            },
        ],
        stack_table: [vec![], vec![2, 1], vec![3, 1]]
            .map(|location_indices| Stack { location_indices })
            .to_vec(),
        ..ProfilesDictionary::default()
    };
    let sample = |stack_index, values| Sample { stack_index, values, ..Sample::default() };
    let profile = Profile {
        sample_type: value_type("samples", "count"),
        samples: vec![sample(1, vec![1, 1]), sample(2, vec![1])],
        time_unix_nano: NOW_NS,
        duration_nano: 5_000_000_000,
        period_type: value_type("cpu", "nanoseconds"),
        period: 10_000_000,
        ..Profile::default()
    };
    let attribute =
        KeyValue { key: String::new(), value: text(string("a1")), key_strindex: string("host.name") };
    ExportProfilesServiceRequest {
        resource_profiles: vec![ResourceProfiles {
            resource: Some(Resource { attributes: vec![attribute], ..Resource::default() }),
            scope_profiles: vec![ScopeProfiles { profiles: vec![profile], ..ScopeProfiles::default() }],
            ..ResourceProfiles::default()
        }],
        dictionary: Some(dictionary),
    }
}

/// As ingest checks it.
fn accepted(window: &Window) -> Window {
    let mut window = decode(&window.encode_to_vec()).expect("a window");
    Checker::new().take(&mut window).expect("all that it refers to");
    window
}

#[test]
fn attributes_and_names_may_be_numbers_and_frames_say_whether_they_are_the_kernels() {
    let found = windows(&export(), NOW_NS);
    assert_eq!((found.windows.len(), found.profiles, found.refused), (1, 1, 0));
    let (of, window) = &found.windows[0];
    assert_eq!((of.host.as_str(), of.profiles, window.start_unix_ns), ("a1", 1, NOW_NS));
    let wall = &accepted(window).profiles[0];
    let strings = &window.dictionary.as_ref().expect("a dictionary").strings;
    let rows: Vec<(&str, u64, u64)> = (0..wall.count.len())
        .map(|row| (strings[wall.class[row] as usize].as_str(), wall.count[row], wall.weight[row]))
        .collect();
    assert_eq!(
        (wall.kind.as_str(), rows),
        ("wall", vec![("cpu.kernel", 1, 10_000_000), ("cpu.user", 2, 20_000_000)])
    );
}

#[test]
fn whatever_comes_is_refused_or_is_a_window_that_an_agent_could_have_sent() {
    let whole = export().encode_to_vec();
    let mut random = fastrand::Rng::with_seed(11);
    let (mut refused, mut read) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        let Ok(request) = ExportProfilesServiceRequest::decode(bytes.as_slice()) else { continue };
        let found = windows(&request, NOW_NS);
        refused += found.refused;
        assert!(found.refused <= found.profiles && found.why.is_some() == (found.refused > 0));
        for (of, window) in &found.windows {
            // Times alone are the sender's, and checked when it is taken in.
            let window = Window { start_unix_ns: NOW_NS, duration_ns: 1, ..window.clone() };
            accepted(&window);
            assert!(!of.host.is_empty() && of.host.len() <= 253);
            read += 1;
        }
    }
    assert!(refused > 100 && read > 1_000, "{refused} refused, {read} read");
}

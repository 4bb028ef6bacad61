use chokepoint_analysis::export::{Format, Options};
use serde_json::Value;

use crate::{PER_THREAD, check, recording, value};

/// Panics where the file is not what speedscope's schema asks for.
fn check_schema(file: &Value) {
    assert_eq!(file["$schema"], "https://www.speedscope.app/file-format-schema.json");
    let frames = file["shared"]["frames"].as_array().expect("frames");
    for frame in frames {
        assert!(frame["name"].is_string());
        assert!(frame.get("file").is_none_or(Value::is_string));
    }
    let profiles = file["profiles"].as_array().expect("profiles");
    for profile in profiles {
        assert_eq!((&profile["type"], &profile["unit"]), (&"sampled".into(), &"nanoseconds".into()));
        assert!(profile["name"].is_string());
        let samples = profile["samples"].as_array().expect("samples");
        let weights = profile["weights"].as_array().expect("weights");
        assert_eq!(samples.len(), weights.len());
        for frame in samples.iter().flat_map(|sample| sample.as_array().expect("a stack")) {
            assert!(usize::try_from(frame.as_u64().expect("an index")).expect("small") < frames.len());
        }
        let total: u64 = weights.iter().map(|weight| weight.as_u64().expect("a weight")).sum();
        assert_eq!((profile["startValue"].as_u64(), profile["endValue"].as_u64()), (Some(0), Some(total)));
    }
    let active = file["activeProfileIndex"].as_u64().expect("an index");
    assert!(usize::try_from(active).expect("small") < profiles.len());
}

fn names(file: &Value) -> Vec<&str> {
    file["profiles"].as_array().expect("profiles").iter().filter_map(|p| p["name"].as_str()).collect()
}

#[test]
fn files_fit_the_schema_and_hold_all_of_the_cpu_time() {
    for profile in [recording::everything(), recording::interleaved(), recording::empty()] {
        for options in [Options::default(), PER_THREAD] {
            let file = value(&profile, Format::Speedscope, &options);
            check_schema(&file);
            let profiles = file["profiles"].as_array().expect("profiles");
            let total: u64 = profiles.iter().filter_map(|profile| profile["endValue"].as_u64()).sum();
            assert_eq!(total, profile.total_weight());
        }
    }
}

#[test]
fn there_is_a_profile_for_each_process_or_thread_and_the_heaviest_is_shown_first() {
    let mut profile = recording::everything();
    let file = value(&profile, Format::Speedscope, &Options::default());
    assert_eq!(names(&file), ["web (10)", "java (20)", "evil:comm 9_9 (30)"]);
    assert_eq!(file["activeProfileIndex"], 0);
    let file = value(&profile, Format::Speedscope, &PER_THREAD);
    assert_eq!(names(&file)[..2], ["web (10) / web (10)", "web (10) / worker_1 (11)"]);
    assert_eq!(file["activeProfileIndex"], 0);

    let java = profile.threads.iter().position(|thread| thread.process_name == "java").expect("java");
    for sample in &mut profile.samples {
        sample.weight *= if sample.thread.index() == java { 100 } else { 1 };
    }
    assert_eq!(value(&profile, Format::Speedscope, &Options::default())["activeProfileIndex"], 1);
}

#[test]
fn files_are_as_expected() {
    let file = value(&recording::interleaved(), Format::Speedscope, &PER_THREAD);
    check("interleaved.speedscope.json", &format!("{file:#}\n"));
}

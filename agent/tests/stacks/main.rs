//! Recorded stacks: what was once unwound right, or wrong, by the tables that its files give and the walk that the kernel
//! programs run. `cargo xtask stack` records them; ARCHITECTURE.md tells how a bug becomes one.

mod case;
mod replay;

use std::fs;
use std::path::Path;

use case::Case;
use replay::Replay;

#[test]
fn every_recorded_stack_is_unwound_as_it_should_be() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stacks/cases");
    let mut faults = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let case: Case = serde_json::from_slice(&fs::read(&path).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        faults.extend(fault(&case).map(|fault| format!("{name}: {}\n{fault}", case.about)));
        count += 1;
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count >= 20, "{count} cases");
}

/// Where the walk leaves the truth.
fn fault(case: &Case) -> Option<String> {
    let (frames, end) = Replay::new(case).unwrap().run();
    let expected: Vec<&str> =
        case.frames.iter().map(|frame| frame.split(' ').next().unwrap_or_default()).collect();
    if frames == expected && end == case.end {
        return None;
    }
    let right = frames.iter().zip(&expected).take_while(|(frame, expected)| frame == *expected).count();
    let next = |frames: &[&str]| frames.get(right).map_or("nothing", |frame| frame).to_owned();
    let found: Vec<&str> = frames.iter().map(String::as_str).collect();
    Some(format!(
        "  {right} of {} frames are right, then {} in place of {}; ends {end}, not {}",
        expected.len(),
        next(&found),
        case.frames.get(right).map_or("nothing", |frame| frame),
        case.end
    ))
}

//! Makes a recording of what an agent has in its spool, without what is of the host that it was made on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chokepoint::stream::spool::{Limits, Spool};
use chokepoint_proto::stream::Window;
use prost::Message;

use crate::part::of_processes;

/// Level of zstd: it is made once.
const LEVEL: i32 = 19;
/// Window of zstd, a power of two: all of it, for windows have most in common.
const LOG_BYTES: u32 = 25;

/// Writes the windows of an agent's state directory into a file; of these processes alone, where some are named.
pub fn record(state: &Path, to: &Path, of: &[&str]) {
    let (mut spool, _) = Spool::open(state, Limits::default()).expect("a spool");
    let (places, mut bytes) = (places(), Vec::new());
    let (mut last, mut processes) = (0, BTreeMap::<String, usize>::new());
    while let Some(next) = spool.next_after(last) {
        last = next;
        let Some(batch) = spool.read(next) else { continue };
        let window = zstd::stream::decode_all(batch.window.as_slice()).expect("it is whole");
        let mut window = Window::decode(window.as_slice()).expect("a window");
        if !of.is_empty() {
            window = of_processes(&window, of);
        }
        clean(&mut window, &places);
        let dictionary = window.dictionary.as_ref().expect("it is whole");
        for subject in &dictionary.subjects {
            *processes.entry(dictionary.strings[subject.process as usize].clone()).or_default() += 1;
        }
        let rows: Vec<_> =
            window.profiles.iter().map(|profile| (profile.kind.as_str(), profile.weight.len())).collect();
        println!(
            "{next}: rows {rows:?}, {} signals, {} strings, {} functions, {} locations, {} nodes, {} subjects, {} bytes",
            window.signals.len(),
            dictionary.strings.len(),
            dictionary.functions.len(),
            dictionary.locations.len(),
            dictionary.stack_parent.len(),
            dictionary.subjects.len(),
            window.encoded_len()
        );
        window.encode_length_delimited(&mut bytes).expect("a vector grows");
    }
    println!("{processes:?}");
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).expect("a compressor");
    compressor
        .window_log(LOG_BYTES)
        .and_then(|()| compressor.long_distance_matching(true))
        .expect("a window");
    let bytes = compressor.compress(&bytes).expect("it compresses");
    println!("{} bytes", bytes.len());
    fs::write(to, bytes).expect("it is written");
}

/// Directories that say where something was built: whose home it is, and where this is.
fn places() -> Vec<String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(""));
    let places = [home, here.to_string_lossy().into_owned()].into_iter();
    places.filter(|place| place.len() > 1).map(|place| format!("{place}/")).collect()
}

fn clean(window: &mut Window, places: &[String]) {
    for string in window.dictionary.iter_mut().flat_map(|dictionary| &mut dictionary.strings) {
        for place in places {
            while let Some(at) = string.find(place.as_str()) {
                // The next two parts of the path say whose it is.
                let rest = &string[at + place.len()..];
                let end = rest.match_indices('/').nth(1).map_or(rest.len(), |(end, _)| end);
                *string = format!("{}/src{}", &string[..at], &rest[end..]);
            }
        }
    }
    // What the text says of the host is in the numbers, too.
    if let Some(verdict) = &mut window.verdict {
        verdict.summary = format!("{} limits it", verdict.code);
        verdict.diagnosis = "{}".to_owned();
    }
    if let Some(losses) = &mut window.losses {
        losses.notes.clear();
    }
}

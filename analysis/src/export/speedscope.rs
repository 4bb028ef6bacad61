//! speedscope's own JSON: one sampled profile for each process, or for each thread.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::frames::{FrameIndex, Frames};
use crate::names;
use crate::profile::{Profile, Sample, Thread, Unit};

use super::{Options, caption};

pub(super) fn write(profile: &Profile, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let frames = Frames::new(profile);
    let mut groups: BTreeMap<(u32, Option<u32>, String), Vec<&Sample>> = BTreeMap::new();
    for sample in &profile.samples {
        groups.entry(group(profile.thread(sample.thread), options)).or_default().push(sample);
    }
    if groups.is_empty() {
        // speedscope refuses a file that has no profile.
        groups.insert((0, None, caption::title(&profile.header)), Vec::new());
    }
    let unit = match profile.header.unit {
        Unit::Nanoseconds => "nanoseconds",
        Unit::Count => "none",
    };
    let profiles: Vec<SampledProfile> = groups
        .into_iter()
        .map(|((_, _, name), samples)| sampled_profile(profile, &frames, name, unit, &samples))
        .collect();
    // Of several that are equally heavy, the first.
    let heaviest =
        (0..profiles.len()).rev().max_by_key(|index| profiles[*index].end_value).unwrap_or_default();
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        exporter: "chokepoint",
        name: format!("{} ({})", caption::title(&profile.header), caption::facts(profile).join(", ")),
        active_profile_index: heaviest,
        shared: Shared {
            frames: frames
                .entries()
                .iter()
                .map(|frame| SharedFrame {
                    name: frame.label(),
                    file: if !frame.file.is_empty() {
                        Some(frame.file.clone())
                    } else {
                        frame.module.map(|module| names::printable(&profile.module(module).path))
                    },
                })
                .collect(),
        },
        profiles,
    };
    Ok(serde_json::to_writer(out, &file)?)
}

/// The key that samples of one speedscope profile share, ordered as they are listed; its last part is the name.
fn group(thread: &Thread, options: &Options) -> (u32, Option<u32>, String) {
    let process = format!("{} ({})", names::element(&thread.process_name), thread.pid);
    if options.per_thread {
        let name = format!("{process} / {} ({})", names::element(&thread.thread_name), thread.tid);
        (thread.pid, Some(thread.tid), name)
    } else {
        (thread.pid, None, process)
    }
}

fn sampled_profile(
    profile: &Profile,
    frames: &Frames,
    name: String,
    unit: &'static str,
    samples: &[&Sample],
) -> SampledProfile {
    // By stack, so that the view in the order of time shows equal callers side by side.
    let mut weights: BTreeMap<Vec<FrameIndex>, u64> = BTreeMap::new();
    for sample in samples {
        *weights.entry(frames.root_first(profile.stack(sample.stack)).collect()).or_default() +=
            sample.weight;
    }
    let (samples, weights): (Vec<_>, Vec<_>) = weights.into_iter().unzip();
    SampledProfile {
        kind: "sampled",
        name,
        unit,
        start_value: 0,
        end_value: weights.iter().sum(),
        samples,
        weights,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(rename = "$schema")]
    schema: &'static str,
    exporter: &'static str,
    name: String,
    active_profile_index: usize,
    shared: Shared,
    profiles: Vec<SampledProfile>,
}

#[derive(Serialize)]
struct Shared {
    frames: Vec<SharedFrame>,
}

#[derive(Serialize)]
struct SharedFrame {
    name: String,
    /// The source file, or the binary where that is unknown. Colours go by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SampledProfile {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    /// Stacks, root first.
    samples: Vec<Vec<FrameIndex>>,
    /// Of each of `samples`, in `unit`.
    weights: Vec<u64>,
}

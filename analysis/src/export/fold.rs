//! Folds a profile: samples with the same names on the way from their process to their leaf become one.

use std::collections::BTreeMap;

use crate::frames::{FrameIndex, Frames};
use crate::names;
use crate::profile::{Profile, Sample, Thread};

use super::Options;

/// The names along the stacks of one profile.
pub(super) struct Labels {
    pub(super) frames: Frames,
    /// Of each frame.
    of_frame: Vec<String>,
    /// What precedes the frames, of each thread: the process and, where asked for, the thread.
    of_thread: Vec<Vec<String>>,
}

/// What the samples of one folded stack add up to.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) count: u64,
    pub(super) weight: u64,
}

impl Labels {
    pub(super) fn new(profile: &Profile, options: &Options) -> Self {
        let frames = Frames::new(profile);
        let of_frame = frames.entries().iter().map(|frame| frame.label()).collect();
        let of_thread = profile.threads.iter().map(|thread| above_frames(thread, options)).collect();
        Self { frames, of_frame, of_thread }
    }

    pub(super) fn of_frame(&self, frame: FrameIndex) -> &str {
        &self.of_frame[frame]
    }

    /// The folded stacks of all samples, ordered by their elements. None of them is without a frame.
    pub(super) fn fold(&self, profile: &Profile) -> BTreeMap<Vec<&str>, Sums> {
        self.fold_samples(profile, &profile.samples)
    }

    /// The same of some of the profile's samples.
    pub(super) fn fold_samples<'s>(
        &self,
        profile: &Profile,
        samples: impl IntoIterator<Item = &'s Sample>,
    ) -> BTreeMap<Vec<&str>, Sums> {
        let mut stacks: BTreeMap<Vec<&str>, Sums> = BTreeMap::new();
        for sample in samples {
            let mut stack: Vec<&str> =
                self.of_thread[sample.thread.index()].iter().map(String::as_str).collect();
            stack.extend(
                self.frames.root_first(profile.stack(sample.stack)).map(|frame| self.of_frame(frame)),
            );
            let sums = stacks.entry(stack).or_default();
            sums.count += sample.count;
            sums.weight += sample.weight;
        }
        stacks
    }
}

fn above_frames(thread: &Thread, options: &Options) -> Vec<String> {
    let mut labels = vec![names::element(&thread.process_name)];
    if options.per_thread {
        labels.push(format!("{} ({})", names::element(&thread.thread_name), thread.tid));
    }
    labels
}

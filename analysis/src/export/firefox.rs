//! The Firefox Profiler's processed format: the samples of each thread at their times.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use fxprof_processed_profile::{
    CategoryColor, CategoryPairHandle, CpuDelta, Frame, FrameFlags, FrameInfo, ProcessHandle,
    Profile as Firefox, ReferenceTimestamp, SamplingInterval, StackHandle, ThreadHandle, Timestamp,
    WeightType,
};

use crate::frames::{Frames, Origin};
use crate::names;
use crate::profile::{Basis, Moment, Profile, StackId, Thread, ThreadId, Unit};

use super::{ExportError, Format, caption};

pub(super) fn write(profile: &Profile, out: &mut dyn Write) -> Result<(), ExportError> {
    if profile.timeline.is_empty() && !profile.samples.is_empty() {
        return Err(ExportError::NoTimeline(Format::Firefox));
    }
    serde_json::to_writer(out, &Recording::new(profile).fill()).map_err(|error| ExportError::Io(error.into()))
}

struct Recording<'p> {
    profile: &'p Profile,
    frames: Frames,
    firefox: Firefox,
    infos: Vec<FrameInfo>,
    processes: HashMap<u32, ProcessHandle>,
    threads: HashMap<ThreadId, ThreadHandle>,
    stacks: HashMap<(ThreadId, StackId), Option<StackHandle>>,
    /// Of each thread, the weight that is not in any sample yet.
    rests_ns: HashMap<ThreadId, u64>,
}

impl<'p> Recording<'p> {
    fn new(profile: &'p Profile) -> Self {
        let header = &profile.header;
        let start =
            ReferenceTimestamp::from_duration_since_unix_epoch(Duration::from_nanos(header.start_unix_ns));
        // Viewers divide by the interval.
        let interval = SamplingInterval::from_nanos(header.period.max(1));
        let product = format!("{} ({})", caption::title(header), caption::facts(profile).join(", "));
        let mut firefox = Firefox::new(&product, start, interval);
        firefox.set_os_name("Linux");
        // Nothing is left for a viewer to look up.
        firefox.set_symbolicated(true);

        let frames = Frames::new(profile);
        let category = [
            ("User", CategoryColor::Yellow),
            ("Kernel", CategoryColor::Orange),
            ("JIT", CategoryColor::Green),
            ("Interpreter", CategoryColor::Purple),
            ("Activity", CategoryColor::Blue),
        ]
        .map(|(name, colour)| CategoryPairHandle::from(firefox.add_category(name, colour)));
        let infos = frames
            .entries()
            .iter()
            .map(|frame| FrameInfo {
                frame: Frame::Label(firefox.intern_string(&frame.name)),
                category_pair: match frame.origin {
                    Origin::User => category[0],
                    Origin::Kernel => category[1],
                    Origin::Jit => category[2],
                    Origin::Interpreter => category[3],
                    Origin::Activity => category[4],
                },
                flags: FrameFlags::empty(),
            })
            .collect();
        Self {
            profile,
            frames,
            firefox,
            infos,
            processes: HashMap::new(),
            threads: HashMap::new(),
            stacks: HashMap::new(),
            rests_ns: HashMap::new(),
        }
    }

    fn fill(mut self) -> Firefox {
        let mut weights: HashMap<ThreadId, u64> = HashMap::new();
        for moment in &self.profile.timeline {
            let thread = self.thread(moment.thread);
            let stack = self.stack(thread, moment);
            let cpu = match self.profile.header.unit {
                Unit::Nanoseconds => CpuDelta::from_nanos(moment.weight),
                Unit::Count => CpuDelta::ZERO,
            };
            let time = Timestamp::from_nanos_since_reference(moment.offset_ns);
            match self.profile.header.basis {
                Basis::Samples => self.firefox.add_sample(thread, time, stack, cpu, 1),
                Basis::Weight => {
                    let weight = self.whole_ms(moment);
                    self.firefox.add_sample(thread, time, stack, CpuDelta::ZERO, weight);
                }
            }
            *weights.entry(moment.thread).or_default() += moment.weight;
        }
        if self.threads.is_empty() {
            // Viewers refuse a recording that has no thread.
            let start = Timestamp::from_nanos_since_reference(0);
            let target = names::element(&self.profile.header.target);
            let process = self.firefox.add_process(&target, 0, start);
            self.firefox.add_thread(process, 0, start, true);
        }
        let heaviest = weights.iter().max_by_key(|(thread, weight)| (**weight, std::cmp::Reverse(**thread)));
        if let Some((thread, _)) = heaviest {
            self.firefox.add_initial_selected_thread(self.threads[thread]);
        }
        self.firefox
    }

    /// The format has whole milliseconds; what is left over goes to the thread's next sample.
    fn whole_ms(&mut self, moment: &Moment) -> i32 {
        let rest_ns = self.rests_ns.entry(moment.thread).or_default();
        *rest_ns += moment.weight;
        let weight = *rest_ns / 1_000_000;
        *rest_ns %= 1_000_000;
        i32::try_from(weight).unwrap_or(i32::MAX)
    }

    fn thread(&mut self, id: ThreadId) -> ThreadHandle {
        if let Some(handle) = self.threads.get(&id) {
            return *handle;
        }
        let Thread { pid, tid, process_name, thread_name } = self.profile.thread(id);
        let start = Timestamp::from_nanos_since_reference(0);
        let process = *self
            .processes
            .entry(*pid)
            .or_insert_with(|| self.firefox.add_process(&names::element(process_name), *pid, start));
        let handle = self.firefox.add_thread(process, *tid, start, pid == tid);
        self.firefox.set_thread_name(handle, &names::element(thread_name));
        if self.profile.header.basis == Basis::Weight {
            self.firefox.set_thread_samples_weight_type(handle, WeightType::TracingMs);
        }
        self.threads.insert(id, handle);
        handle
    }

    fn stack(&mut self, thread: ThreadHandle, moment: &Moment) -> Option<StackHandle> {
        let key = (moment.thread, moment.stack);
        if let Some(stack) = self.stacks.get(&key) {
            return *stack;
        }
        let frames = self.frames.root_first(self.profile.stack(moment.stack));
        let frames = frames.map(|frame| self.infos[frame].clone());
        let stack = self.firefox.intern_stack_frames(thread, frames);
        self.stacks.insert(key, stack);
        stack
    }
}

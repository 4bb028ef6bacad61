//! The thread that makes a baseline of windows: it names and diagnoses each, and adds it up.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use chokepoint_analysis::baseline::{Baseline, Header, Observed, Recorder};
use chokepoint_analysis::signals::reading::Reading;
use chokepoint_analysis::signals::{Levels, evaluate};
use chokepoint_analysis::verdict::diagnose;

use super::CaptureOptions;
use super::work::{Count, Counts};
use crate::failure::Failure;
use crate::host;
use crate::record::event::Event;
use crate::symbolize::{self, Symbolizer};
use crate::symbolized::{self, Wanted};
use crate::window::Window;

/// Windows that wait to be read, 15 MB each at most. Of more, the newest is given up.
const QUEUE: usize = 4;
/// How long the readings of a window and its work are waited for: a reading takes some milliseconds, a command has its own limit.
const PATIENCE: Duration = Duration::from_secs(20);

/// A window with what was read when it ended.
pub(super) struct Taken {
    pub(super) window: Window,
    pub(super) readings: Receiver<Vec<Reading>>,
    /// `None` where no work is counted.
    pub(super) work: Option<Receiver<Count>>,
}

/// The thread.
pub(super) struct Reader {
    windows: SyncSender<Asked>,
    thread: JoinHandle<Option<Baseline>>,
    taken: u64,
    given_up: u64,
}

enum Asked {
    /// The count of work at the beginning.
    Work(Receiver<Count>),
    Window(Box<Taken>),
    /// What is missing, in words.
    Note(String),
}

impl Reader {
    /// Starts the thread. `work` is how work is counted.
    ///
    /// # Errors
    /// Where the kernel refuses a thread.
    pub(super) fn start(options: &CaptureOptions, cpus: usize, work: Option<&str>) -> Result<Self, Failure> {
        let (windows, asked) = sync_channel(QUEUE);
        let state = State::new(options, cpus, work);
        let thread = std::thread::Builder::new()
            .name("read windows".to_owned())
            .spawn(move || state.serve(&asked))
            .map_err(|error| Failure::unexpected(&error))?;
        Ok(Self { windows, thread, taken: 0, given_up: 0 })
    }

    /// Counts work from here on.
    pub(super) fn begin_work(&self, count: Receiver<Count>) {
        // Where the thread died, the end says so.
        let _ = self.windows.try_send(Asked::Work(count));
    }

    /// Takes a window in, unless too many wait already.
    pub(super) fn take(&mut self, taken: Taken) {
        match self.windows.try_send(Asked::Window(Box::new(taken))) {
            Ok(()) => self.taken += 1,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.given_up += 1,
        }
    }

    /// Windows taken in so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The baseline; `None` of no windows, or where the thread died.
    pub(super) fn finish(self) -> Option<Baseline> {
        if self.given_up > 0 {
            let note = format!("{} windows: reading those before took too long", self.given_up);
            // The thread empties its queue, so there is room soon.
            let _ = self.windows.send(Asked::Note(note));
        }
        drop(self.windows);
        self.thread.join().ok().flatten()
    }
}

/// What the thread keeps from window to window.
struct State {
    recorder: Recorder,
    counts: Counts,
    cpus: usize,
    frequency_hz: u32,
    target: String,
}

impl State {
    fn new(options: &CaptureOptions, cpus: usize, work: Option<&str>) -> Self {
        let recorder = Recorder::new(Header {
            host: host::name(),
            target: options.target.clone(),
            cpus: cpus as u32,
            start_unix_ns: 0,
            every_ns: options.every.as_nanos() as u64,
            work: work.unwrap_or_default().to_owned(),
        });
        let (counts, target) = (Counts::default(), options.target.clone());
        Self { recorder, counts, cpus, frequency_hz: options.frequency_hz, target }
    }

    fn serve(mut self, asked: &Receiver<Asked>) -> Option<Baseline> {
        // Stacks are kept by the names of functions.
        let mut symbolizer = Symbolizer::new(symbolize::Options {
            inlined: false,
            source_lines: false,
            ..symbolize::Options::default()
        });
        if let Err(error) = symbolizer.load_kernel() {
            // Waits are of no class then, which the windows say.
            tracing::debug!(%error, "kernel symbols");
        }
        while let Ok(asked) = asked.recv() {
            match asked {
                Asked::Work(count) => _ = self.count(&count),
                Asked::Window(taken) => self.read(*taken, &mut symbolizer),
                Asked::Note(note) => self.recorder.note(&[note]),
            }
        }
        (self.recorder.windows() > 0).then(|| self.recorder.finish())
    }

    fn read(&mut self, taken: Taken, symbolizer: &mut Symbolizer) {
        let Taken { window, readings, work } = taken;
        let wanted = Wanted {
            event: Event::All,
            header: window.header(Event::All, self.frequency_hz, self.cpus, &self.target),
            coverage: window.coverage(Event::All),
        };
        let profiles = symbolized::profiles(&window, symbolizer, vec![wanted]).profiles;
        let work_per_s = work.and_then(|count| self.count(&count));
        let signals = readings.recv_timeout(PATIENCE).ok();
        for (_, mut profile) in profiles {
            profile.signals = signals.as_ref().map(|readings| evaluate(readings, &Levels::new()));
            let diagnosis = diagnose(&profile);
            self.recorder.add(Observed { profile: &profile, diagnosis: &diagnosis, work_per_s });
        }
    }

    /// Work in a second since the last count.
    fn count(&mut self, count: &Receiver<Count>) -> Option<f64> {
        let count = count.recv_timeout(PATIENCE).unwrap_or_else(|_| Err("it did not answer".to_owned()));
        match count {
            Ok(counted) => self.counts.rate(counted),
            Err(cause) => {
                self.recorder.note(&[format!("work of some windows: {cause}")]);
                None
            }
        }
    }
}

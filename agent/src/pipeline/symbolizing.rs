//! The thread that gives sums their names.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::Recording;
use crate::failure::{Failure, Kind};
use crate::host::cost::{log_phase, thread_cpu};
use crate::record::Options;
use crate::symbolize::{self, Symbolizer};
use crate::symbolized::{self, Profiles};

/// The thread that symbolizes. It reads the kernel's symbols while samples still come in.
pub struct Symbolizing {
    recordings: SyncSender<Recording>,
    thread: JoinHandle<Option<Profiles>>,
}

impl Symbolizing {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the kernel refuses a thread.
    pub fn begin(options: &Options) -> Result<Self, Failure> {
        let (inlined, source_lines) = (options.inlined, options.source_lines);
        let wants_kernel = options.stacks.kernel;
        let (recordings, received) = sync_channel::<Recording>(1);
        let thread = std::thread::Builder::new()
            .name("symbolize".to_owned())
            .spawn(move || {
                // A recording asks for each binary once.
                let options = symbolize::Options {
                    inlined,
                    source_lines,
                    cache_binaries: 0,
                    ..symbolize::Options::default()
                };
                let mut symbolizer = Symbolizer::new(options);
                if wants_kernel && let Err(error) = symbolizer.load_kernel() {
                    // The recording says so too, if it has kernel frames.
                    tracing::debug!(%error, "kernel symbols");
                }
                log_phase("kernel symbols", thread_cpu());
                let recording = received.recv().ok()?;
                let Recording { window, wanted, .. } = recording;
                Some(symbolized::profiles(&window, &mut symbolizer, wanted))
            })
            .map_err(|error| Failure::unexpected(&error))?;
        Ok(Self { recordings, thread })
    }

    /// Symbolizes the recording.
    ///
    /// # Errors
    /// Where the thread died.
    pub fn profiles(self, recording: Recording) -> Result<Profiles, Failure> {
        let died = || {
            Failure::new(Kind::Unexpected, "the symbolizing thread died; please report this with --log debug")
        };
        self.recordings.send(recording).map_err(|_| died())?;
        self.thread.join().ok().flatten().ok_or_else(died)
    }
}

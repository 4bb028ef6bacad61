//! Reads the host's resources beside something else that takes its time.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use chokepoint_analysis::signals::{Levels, Signals, evaluate, reading::Reading};

use super::{Depth, read};

/// Readings under way, on a thread of their own. Dropping it ends them.
pub struct Watch {
    stop: Sender<()>,
    reader: JoinHandle<Vec<Reading>>,
}

/// Further readings are not taken; the last one, which ends the window, is. An hour of them at one a second.
const MAX_READINGS: usize = 3600;

impl Watch {
    /// Begins with a reading, and takes one each `step`.
    ///
    /// # Errors
    /// Where the kernel refuses a thread.
    pub fn begin(step: Duration) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let reader = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut readings = vec![read(Depth::Everything)];
            while stopped.recv_timeout(step) == Err(RecvTimeoutError::Timeout) {
                if readings.len() < MAX_READINGS {
                    readings.push(read(Depth::Step));
                }
            }
            readings.push(read(Depth::Everything));
            readings
        })?;
        Ok(Self { stop, reader })
    }

    /// The signals of the time since it began; `None` where the thread died.
    #[must_use]
    pub fn finish(self) -> Option<Signals> {
        drop(self.stop);
        let readings = self.reader.join().ok()?;
        Some(evaluate(&readings, &Levels::new()))
    }
}

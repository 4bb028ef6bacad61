//! Reads the host's resources beside something else that takes its time.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use chokepoint_analysis::signals::{Levels, Signals, evaluate, reading::Reading};

use super::{Depth, read};

/// Readings under way, on a thread of their own. Dropping it ends them.
pub struct Watch {
    /// Where the readings of the window that ends now are to go.
    cuts: Sender<Sender<Vec<Reading>>>,
    reader: JoinHandle<Vec<Reading>>,
}

/// Further readings of a window are not taken; the last one, which ends it, is. An hour of them at one a second.
const MAX_READINGS: usize = 3600;

impl Watch {
    /// Begins with a reading, and takes one each `step`. Windows begin and end with everything.
    ///
    /// # Errors
    /// Where the kernel refuses a thread.
    pub fn begin(step: Duration) -> std::io::Result<Self> {
        Self::begin_sparing(step, 1)
    }

    /// The same where the limits of processes are looked at with one in so many windows only. The others have no signal of them.
    ///
    /// # Errors
    /// Where the kernel refuses a thread.
    pub fn begin_sparing(step: Duration, windows: u32) -> std::io::Result<Self> {
        let (cuts, asked) = channel::<Sender<Vec<Reading>>>();
        let reader = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut readings = vec![read(Depth::Everything)];
            let mut ended_windows = 0;
            loop {
                match asked.recv_timeout(step) {
                    Err(RecvTimeoutError::Timeout) if readings.len() < MAX_READINGS => {
                        readings.push(read(Depth::Step));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(window) => {
                        let is_turn = ended_windows % windows.max(1) == 0;
                        ended_windows = ended_windows.wrapping_add(1);
                        let last = read(if is_turn { Depth::Everything } else { Depth::Groups });
                        let mut ended = std::mem::replace(&mut readings, vec![last.clone()]);
                        ended.push(last);
                        // Nobody may want it any more.
                        let _ = window.send(ended);
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            readings.push(read(Depth::Everything));
            readings
        })?;
        Ok(Self { cuts, reader })
    }

    /// Ends a window, whose readings come, and begins the next with the reading that ends it.
    #[must_use]
    pub fn cut(&self) -> Receiver<Vec<Reading>> {
        let (window, readings) = channel();
        // Where the thread died, nothing comes.
        let _ = self.cuts.send(window);
        readings
    }

    /// The signals of the time since it began; `None` where the thread died.
    #[must_use]
    pub fn finish(self) -> Option<Signals> {
        drop(self.cuts);
        let readings = self.reader.join().ok()?;
        Some(evaluate(&readings, &Levels::new()))
    }
}

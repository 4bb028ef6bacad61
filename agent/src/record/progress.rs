//! The progress bar, on a terminal only.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// Shows how far a recording is, until it is dropped.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for a recording of this length, or a counter where it is open. Draws nothing unless standard error is a terminal.
    #[must_use]
    pub fn new(duration: Option<Duration>) -> Self {
        let template = match duration {
            Some(_) => "recording {bar:40.cyan} {elapsed} {msg}",
            None => "recording {elapsed} {msg} (Ctrl-C to stop)",
        };
        let length = duration.map(|duration| duration.as_millis() as u64);
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(4)
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(length, target).with_style(style);
        Self { bar: bar.with_finish(ProgressFinish::AndClear) }
    }

    /// Draws the present state: how much there is, in words.
    pub fn update(&self, elapsed: Duration, so_far: &str) {
        self.bar.set_message(so_far.to_owned());
        self.bar.set_position(elapsed.as_millis() as u64);
    }
}

//! Captures a baseline: windows follow each other, are named and diagnosed on a thread of their own, and added up there.

mod reader;
pub mod work;

use std::time::{Duration, Instant};

use chokepoint_analysis::baseline::Baseline;

use crate::failure::{Failure, Kind};
use crate::host;
use crate::pipeline::{End, Sampling, Stop};
use crate::record::progress::Progress;
use crate::signals::{step, watch::Watch};
use reader::{Reader, Taken};
use work::WorkCounter;

/// A last window is not worth its looks below this.
const SHORTEST_WINDOW: Duration = Duration::from_millis(200);

/// What is captured, and how.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// What is profiled, in words.
    pub target: String,
    /// How long a window is.
    pub every: Duration,
    /// How long; `None` until the target ends or the user stops it.
    pub duration: Option<Duration>,
    /// Ticks a second on each CPU.
    pub frequency_hz: u32,
}

/// A capture that has ended.
pub struct Ended {
    /// What it came to.
    pub baseline: Baseline,
    /// Why it ended.
    pub end: End,
    /// What went wrong after some windows were there.
    pub failure: Option<Failure>,
}

/// Captures windows until the time is over or `stop` says so.
///
/// # Errors
/// A [`Failure`] where nothing was captured.
pub async fn capture(
    mut sampling: Sampling,
    options: &CaptureOptions,
    work: Option<WorkCounter>,
    stop: &mut impl Stop,
) -> Result<Ended, Failure> {
    let cpus = host::online_cpus().map_err(|error| Failure::unexpected(&error))?.len();
    let watch = Watch::begin(step(options.every)).map_err(|error| Failure::unexpected(&error))?;
    let mut reader = Reader::start(options, cpus, work.as_ref().map(WorkCounter::name))?;
    if let Some(work) = &work {
        reader.begin_work(work.read());
    }
    let progress = Progress::new(options.duration);
    let start = Instant::now();
    let mut window_start = start;
    let end_of_time = options.duration.map(|duration| start + duration);
    let mut failure = None;
    let mut end = None;
    while end.is_none() {
        let due = window_start + options.every;
        let until = end_of_time.map_or(due, |end| end.min(due));
        tokio::select! {
            stepped = sampling.step() => match stepped {
                Ok(()) => {}
                Err(error) => (failure, end) = (Some(error), Some(End::Interrupted)),
            },
            () = tokio::time::sleep_until(until.into()) => {
                if end_of_time == Some(until) {
                    end = Some(End::Elapsed);
                }
            }
            reason = stop.wait() => end = Some(reason),
        }
        let now = Instant::now();
        let is_due = now >= until || (end.is_some() && now - window_start >= SHORTEST_WINDOW);
        if is_due && failure.is_none() {
            // From window to window without a drift; after a delay the next is as long as any.
            window_start = if now < due + options.every / 2 { due.min(now) } else { now };
            match sampling.close_window() {
                Ok(window) => {
                    reader.take(Taken {
                        window,
                        readings: watch.cut(),
                        work: work.as_ref().map(WorkCounter::read),
                    });
                }
                Err(error) => (failure, end) = (Some(error), Some(End::Interrupted)),
            }
        }
        progress.update(start.elapsed(), &format!("{} windows", reader.taken()));
    }
    drop(progress);
    // The kernel programs end here, and not when the last window has its names.
    drop(sampling);
    drop(watch);
    match (reader.finish(), failure) {
        (Some(baseline), failure) => Ok(Ended { baseline, end: end.unwrap_or(End::Elapsed), failure }),
        (None, Some(failure)) => Err(failure),
        (None, None) => Err(Failure::new(
            Kind::Target,
            "there is nothing to write: the target ended, or the capture was stopped, before a window was over",
        )),
    }
}

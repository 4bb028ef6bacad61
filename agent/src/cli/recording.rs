//! One recording from its begin to its profiles: what `record`, `diagnose` and others have in common.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use super::stopping::{Signals, Stopping, restore_signals};
use crate::failure::Failure;
use crate::host::cost::{Cost, log_phase};
use crate::pipeline::{End, Facts, Session, Symbolizing};
use crate::record::progress::Progress;
use crate::record::workload::{self, HeldCommand, RunningCommand};
use crate::record::{DEFAULT_DURATION, Options};
use crate::signals::{self, watch::Watch};
use crate::symbolized::Profiles;

/// A finished recording.
pub struct Taken {
    /// Its profiles.
    pub profiles: Profiles,
    /// How it was made.
    pub facts: Facts,
    /// When the last sample was taken in.
    pub ended: Instant,
    command: Option<(RunningCommand, String)>,
}

/// Records what the options say, of `command` where there is one, and symbolizes it. A terminal shows how it goes.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub async fn take(command: &[OsString], options: &Options) -> Result<Taken, Failure> {
    let progress = Progress::new(options.duration);
    let tell = move |elapsed, samples: u64| progress.update(elapsed, &format!("{samples} samples"));
    take_telling(command, options, tell).await
}

/// The same; `tell` learns how it goes: the time and the samples so far. It is dropped before anything is symbolized.
///
/// # Errors
/// As [`take`].
pub async fn take_telling(
    command: &[OsString],
    options: &Options,
    tell: impl FnMut(Duration, u64),
) -> Result<Taken, Failure> {
    let mut stops = Signals::listen()?;
    let held = if command.is_empty() { None } else { Some(HeldCommand::fork(command)?) };
    let (session, target) = match &held {
        Some(held) => (Session::load_for_command(options.clone(), held.pid())?, describe_command(command)),
        None => (Session::load(options.clone())?, options.target.describe()),
    };
    let mut watched = session.target_processes().to_vec();
    let watch = if options.events.iter().any(|event| event.reads_signals()) {
        let step = signals::step(options.duration.unwrap_or(DEFAULT_DURATION));
        Some(Watch::begin(step).map_err(|error| Failure::unexpected(&error))?)
    } else {
        None
    };
    let sampling = session.start()?;
    log_phase("loaded", Cost::of_this_process().cpu);
    let running = held.map(HeldCommand::release).transpose()?;
    if let Some(running) = &running {
        watched = vec![running.pid()];
    }
    let mut stop = Stopping::new(&mut stops, &watched)?;
    let symbolizing = Symbolizing::begin(options)?;

    let recording = sampling.finish(target, &mut stop, tell).await?;
    // From here on a signal ends the process at once.
    drop(stops);
    restore_signals();

    let ended = Instant::now();
    let signals = watch.and_then(Watch::finish);
    let facts = recording.facts();
    let mut profiles = symbolizing.profiles(recording)?;
    for (event, profile) in &mut profiles.profiles {
        if event.reads_signals() {
            profile.signals.clone_from(&signals);
        }
    }
    log_phase("symbolized", Cost::of_this_process().cpu);
    let command = running.map(|running| (running, command[0].to_string_lossy().into_owned()));
    Ok(Taken { profiles, facts, ended, command })
}

impl Taken {
    /// Waits for the command, where there is one, and says how it ended. One that was interrupted together with the recording is
    /// ended.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub fn end_command(self) -> Result<(), Failure> {
        match self.command {
            Some((running, name)) => end_command(running, &name, self.facts.end),
            None => Ok(()),
        }
    }
}

/// Waits for a command of which something came to this end, and says how it ended itself. One that was interrupted is ended.
///
/// # Errors
/// Where it cannot be waited for.
pub(super) fn end_command(mut running: RunningCommand, name: &str, end: End) -> Result<(), Failure> {
    match end {
        End::Interrupted => running.terminate(),
        // It is the user's own command: to end it is not for the profiler to decide.
        End::Elapsed => eprintln!("waiting for {name} to end; Ctrl-C ends it"),
        End::TargetEnded => {}
    }
    let status = running.wait().map_err(|error| Failure::unexpected(&error))?;
    eprintln!("{name} {}", workload::describe(status));
    Ok(())
}

/// A command as a target, in words.
pub(super) fn describe_command(command: &[OsString]) -> String {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    format!("command {}", words.join(" "))
}

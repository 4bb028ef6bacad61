//! The loop: windows come from the session, keys from the terminal, and what is read of windows from the reader.

use std::io::{self, Write};
use std::time::Duration;

use ratatui::crossterm::event::{Event, KeyEventKind};

use super::app::{App, Command};
use super::plain::{self, Table};
use super::reader::{Answer, Reader};
use super::screen::draw;
use super::terminal::{Screen, events};
use crate::containers::known::Containers;
use crate::failure::{Failure, Kind};
use crate::host;
use crate::pipeline::{End, Sampling, Stop};

/// How windows follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a window is.
    pub window: Duration,
    /// How many there are; `None` for no end.
    pub windows: Option<u64>,
}

impl Pace {
    /// Whether so many windows are all.
    fn is_over(&self, windows: u64) -> bool {
        self.windows.is_some_and(|most| windows >= most)
    }
}

/// Ends of windows, which do not drift; after a delay the next is a whole window later.
struct Ends {
    next: tokio::time::Instant,
    window: Duration,
}

impl Ends {
    fn new(window: Duration) -> Self {
        Self { next: tokio::time::Instant::now() + window, window }
    }

    fn pass(&mut self) {
        self.next = (self.next + self.window).max(tokio::time::Instant::now() + self.window / 2);
    }
}

fn reader(containers: Containers) -> Result<Reader, Failure> {
    Reader::start(host::online_cpus().map_err(|error| Failure::unexpected(&error))?.len(), containers)
}

fn died() -> Failure {
    Failure::new(Kind::Unexpected, "the thread that reads windows died; please report this with --log debug")
}

/// Shows windows on the terminal until the user, `stop` or `pace` ends it. What `stop` said, if it was that.
///
/// # Errors
/// A [`Failure`] where the kernel or the terminal refuses. The terminal was given back then.
pub async fn on_screen(
    mut sampling: Sampling,
    containers: Containers,
    mut app: App,
    pace: Pace,
    stop: &mut impl Stop,
) -> Result<Option<End>, Failure> {
    let unusable = |error: io::Error| {
        Failure::new(Kind::Output, format!("the terminal cannot be used: {error}; --batch needs none"))
    };
    let mut reader = reader(containers)?;
    let mut screen = Screen::take().map_err(unusable)?;
    let mut keys = events().map_err(unusable)?;
    let mut ends = Ends::new(pace.window);
    let mut shown = 0;
    let mut is_stale = true;
    loop {
        if is_stale {
            screen.terminal.draw(|frame| draw(frame, &mut app)).map_err(unusable)?;
        }
        is_stale = true;
        let command = tokio::select! {
            step = sampling.step() => {
                step?;
                is_stale = false;
                None
            }
            () = tokio::time::sleep_until(ends.next) => {
                ends.pass();
                match reader.room() {
                    Some(room) if app.paused => {
                        drop(sampling.close_window()?);
                        room.skip();
                    }
                    Some(room) => room.read(sampling.close_window()?),
                    None => app.passed_ends += 1,
                }
                is_stale = false;
                None
            }
            answer = reader.answers.recv() => match answer.ok_or_else(died)? {
                Answer::Snapshot(snapshot) => {
                    shown += 1;
                    if pace.is_over(shown) {
                        return Ok(None);
                    }
                    app.show(*snapshot)
                }
                Answer::Stacks(stacks) => {
                    app.show_stacks(*stacks);
                    None
                }
            },
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => app.press(key),
                Some(_) => None,
                // The terminal is gone.
                None => return Ok(None),
            },
            end = stop.wait() => return Ok(Some(end)),
        };
        match command {
            None => {}
            Some(Command::Quit) => return Ok(None),
            Some(Command::Stacks(scope)) => _ = reader.stacks(scope),
        }
    }
}

/// Writes windows as text to standard output until `stop` or `pace` ends it. What `stop` said, if it was that.
///
/// # Errors
/// A [`Failure`] where the kernel refuses, or the output cannot be written. Where nobody reads it any more, that is no failure.
pub async fn in_batches(
    mut sampling: Sampling,
    containers: Containers,
    table: &Table,
    most_rows: usize,
    pace: Pace,
    stop: &mut impl Stop,
) -> Result<Option<End>, Failure> {
    let mut reader = reader(containers)?;
    let mut ends = Ends::new(pace.window);
    let (mut asked, mut written) = (0, 0);
    loop {
        tokio::select! {
            step = sampling.step() => step?,
            () = tokio::time::sleep_until(ends.next), if !pace.is_over(asked) => {
                ends.pass();
                // Without room the window goes on: the text says how long it was.
                if let Some(room) = reader.room() {
                    room.read(sampling.close_window()?);
                    asked += 1;
                }
            }
            answer = reader.answers.recv() => {
                let Answer::Snapshot(snapshot) = answer.ok_or_else(died)? else { continue };
                let gap = if written > 0 { "\n" } else { "" };
                let text = format!("{gap}{}", plain::window(&snapshot, table, most_rows));
                let mut stdout = io::stdout().lock();
                match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                    Ok(()) => written += 1,
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
                    Err(error) => return Err(Failure::new(Kind::Output, format!("cannot write to standard output: {error}"))),
                }
                if pace.is_over(written) {
                    return Ok(None);
                }
            }
            end = stop.wait() => return Ok(Some(end)),
        }
    }
}

//! The real terminal: taken over, and given back however the program ends.

use std::io::{self, Stdout, stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::sync::mpsc;

use crate::cli::log;

/// Keys that wait to be read. Of more, which nobody types, the newest are given up.
const KEYS: usize = 256;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while the screen is on it. Dropping it gives it back; a panic does so, too, before its message.
pub struct Screen {
    /// Where to draw.
    pub terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal over. What is logged meanwhile comes after it was given back.
    ///
    /// # Errors
    /// Where the terminal refuses.
    pub fn take() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        IS_TAKEN.store(true, Ordering::SeqCst);
        log::hold();
        let take = || {
            enable_raw_mode()?;
            execute!(stdout(), EnterAlternateScreen)?;
            Terminal::new(CrosstermBackend::new(stdout()))
        };
        take().map(|terminal| Self { terminal }).inspect_err(|_| give_back())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Once; where the terminal is gone there is nothing to give back.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        log::release();
    }
}

/// What the terminal tells: keys, and changes of its size. It ends when the terminal does.
///
/// # Errors
/// Where the kernel refuses a thread.
pub fn events() -> io::Result<mpsc::Receiver<Event>> {
    let (sender, events) = mpsc::channel(KEYS);
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while let Ok(event) = event::read() {
            match sender.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
    })?;
    Ok(events)
}

//! Where the log goes: to standard error, but for the time that a screen has the terminal.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// Bytes of the log that are held back at most; of more, the oldest are dropped.
const MAX_HELD: usize = 64 << 10;

/// What is held back; `None` where it goes out at once.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

#[derive(Default)]
struct Held {
    bytes: VecDeque<u8>,
    dropped: u64,
}

/// Writes a part of the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            None => io::stderr().write(bytes),
            Some(held) => {
                held.bytes.extend(bytes);
                let surplus = held.bytes.len().saturating_sub(MAX_HELD);
                held.bytes.drain(..surplus);
                held.dropped += surplus as u64;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Holds the log back from now on, if it goes to a terminal.
pub fn hold() {
    if io::stderr().is_terminal() {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }
}

/// Writes what was held back.
pub fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Held { bytes, dropped }) = held {
        let mut stderr = io::stderr();
        if dropped > 0 {
            let _ = writeln!(stderr, "chokepoint: {dropped} bytes of the log before this were dropped");
        }
        let (first, second) = bytes.as_slices();
        let _ = stderr.write_all(first).and_then(|()| stderr.write_all(second));
    }
}

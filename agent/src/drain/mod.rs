//! Empties the ring buffer: bytes from the kernel become typed records.

pub mod decode;
pub mod kernel_log;

use std::io;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use tokio::time::{Interval, MissedTickBehavior, interval};

use decode::{DecodeError, Record};

/// How long a record may wait in the ring buffer. The kernel programs wake the agent earlier when the buffer is half full
/// or a new file shows up.
pub const DRAIN_INTERVAL: Duration = Duration::from_millis(100);
/// The same in windows without end: waking costs more than what has come meanwhile. What a thread waits for is looked up when its record is
/// read, so that it cannot be much longer.
pub const SPARING_DRAIN_INTERVAL: Duration = Duration::from_millis(250);

/// The reading end of the ring buffer.
pub struct Drain {
    ring: AsyncFd<RingBuf<MapData>>,
    timer: Interval,
    malformed: u64,
}

impl Drain {
    /// Takes over the ring buffer, to look into it each `wait`. Needs a tokio runtime with IO and time.
    ///
    /// # Errors
    /// Where the buffer cannot be polled.
    pub fn new(ring: RingBuf<MapData>, wait: Duration) -> io::Result<Self> {
        let mut timer = interval(wait);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // SAFETY: the buffer owns its descriptor and keeps it open as long as it lives.
        let ring = unsafe { AsyncFd::register(ring) }?;
        Ok(Self { ring, timer, malformed: 0 })
    }

    /// Waits until it is time to look into the buffer.
    ///
    /// # Errors
    /// Where the buffer cannot be polled.
    pub async fn ready(&mut self) -> io::Result<()> {
        tokio::select! {
            guard = self.ring.readable() => guard?.clear_ready(),
            _ = self.timer.tick() => {}
        }
        Ok(())
    }

    /// Hands every waiting record to `sink`.
    pub fn take_all(&mut self, mut sink: impl FnMut(Record<'_>)) {
        while let Some(record) = self.ring.get_mut().next() {
            match decode::decode(&record) {
                Ok(record) => sink(record),
                Err(error) => {
                    self.malformed += 1;
                    report_malformed(&error);
                }
            }
        }
    }

    /// Records that could not be decoded. Not zero only when agent and kernel programs do not belong together.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

#[cold]
fn report_malformed(error: &DecodeError) {
    tracing::debug!(%error, "malformed record");
}

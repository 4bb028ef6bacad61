//! Looks at system calls that fail for want of something limited, at a cost that stays below a bound.
//!
//! While the program is attached, every system call of the host is slower. So it is attached for short times, as many of them as the
//! number of calls allows: on a host with few calls always, on a busy one for a few per cent of the time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chokepoint_analysis::failed_calls::{FailedCall, FailedCalls};
use chokepoint_ebpf::failed_calls::{CallKey, CallTotals, NO_ERROR};
use syscalls::Sysno;

use crate::drain::DRAIN_INTERVAL;
use crate::drain::decode::comm;
use crate::load::{LoadError, Programs};

/// How long a look takes before it is decided whether it goes on. Each time that it does, it goes on for as long again.
const LOOK: Duration = Duration::from_millis(10);
/// A look that goes on is decided on after this at the latest, in case there are more calls now.
const LONGEST_LOOK: Duration = Duration::from_millis(640);
/// What a call costs more while it is looked at, nanoseconds: the kernel's slow way out of a call, and the program. Measured on a
/// virtual machine at 2.5 GHz, a loop of `getppid` took 100 to 280 ns longer.
const CALL_COST_NS: f64 = 250.0;
/// Part of one CPU that looks may cost.
const BUDGET: f64 = 0.005;
/// The longest time between two looks. A host that ends more than 120 million calls a second pays more than the budget.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When looks are due. Without IO or a clock of its own.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    /// When the look under way began, or the pause.
    since: Instant,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is decided after this time whether it goes on.
    Looks(Duration),
    /// For this time.
    Pauses(Duration),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Begin,
    /// The look may be over: it is to be decided by the calls that it has seen.
    Decide,
}

impl Rhythm {
    fn new(now: Instant) -> Self {
        Self { since: now, state: State::Pauses(Duration::ZERO) }
    }

    fn due(&self, now: Instant) -> Option<Due> {
        let elapsed = now.duration_since(self.since);
        match self.state {
            State::Pauses(pause) if elapsed >= pause => Some(Due::Begin),
            State::Looks(length) if elapsed >= length => Some(Due::Decide),
            _ => None,
        }
    }

    fn begins(&mut self, now: Instant) {
        *self = Self { since: now, state: State::Looks(LOOK) };
    }

    /// A look of this length that has seen so many calls goes on, or there is a pause. Returns whether it goes on.
    fn decides(&mut self, now: Instant, looked: Duration, calls: u64) -> bool {
        let pause = Self::pause_after(looked, calls);
        let state = match self.state {
            State::Looks(length) if pause.is_zero() => State::Looks((length * 2).min(LONGEST_LOOK)),
            _ => State::Pauses(pause),
        };
        *self = Self { since: now, state };
        matches!(state, State::Looks(_))
    }

    /// There are no looks any more.
    fn ends(&mut self, now: Instant) {
        *self = Self { since: now, state: State::Pauses(Duration::MAX) };
    }

    fn looks(&self) -> bool {
        matches!(self.state, State::Looks(_))
    }

    /// How long to pause after a look of this length that has seen so many calls; zero where it may go on.
    fn pause_after(looked: Duration, calls: u64) -> Duration {
        let cost_s = calls as f64 * CALL_COST_NS / 1e9;
        let period = Duration::from_secs_f64(cost_s / BUDGET);
        period.saturating_sub(looked).min(LONGEST_PAUSE)
    }
}

/// Looks at calls over a window after the other.
pub struct CallWatch {
    rhythm: Rhythm,
    /// Calls seen before the look under way.
    seen: u64,
    looked: Duration,
    /// Why there are no looks any more.
    refused: Option<String>,
}

/// What a window has seen of calls.
#[derive(Clone, Debug, Default)]
pub struct CallsSeen {
    /// Those that failed; `None` where no call was looked at.
    pub calls: Option<FailedCalls>,
    /// Why this kernel lets none be looked at; `None` where it does, or nobody asked.
    pub refused: Option<String>,
}

impl CallWatch {
    /// Begins with a look.
    #[must_use]
    pub fn begin() -> Self {
        Self { rhythm: Rhythm::new(Instant::now()), seen: 0, looked: Duration::ZERO, refused: None }
    }

    /// How long until a look that is short is over; `None` where the agent wakes early enough by itself.
    #[must_use]
    pub fn pressing(&self) -> Option<Duration> {
        match self.rhythm.state {
            State::Looks(length) if length < DRAIN_INTERVAL => Some(length),
            _ => None,
        }
    }

    /// Begins or ends a look, if it is time to. A kernel that lets none begin is not asked again.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses to tell what was seen, or to end the look.
    pub fn look(&mut self, programs: &mut Programs) -> Result<(), LoadError> {
        let now = Instant::now();
        let (Some(due), Some(Ok(mut source))) = (self.rhythm.due(now), programs.failed_calls_mut()) else {
            return Ok(());
        };
        match due {
            Due::Begin => match source.begin() {
                Ok(()) => self.rhythm.begins(Instant::now()),
                Err(error) => {
                    self.rhythm.ends(now);
                    self.refused = Some(error.to_string());
                }
            },
            Due::Decide => {
                let looked = now.duration_since(self.rhythm.since);
                let seen = source.seen()?;
                if !self.rhythm.decides(now, looked, seen - self.seen) {
                    source.end()?;
                }
                (self.seen, self.looked) = (seen, self.looked + looked);
            }
        }
        Ok(())
    }

    /// Ends the look under way, before the programs stop.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn end(&mut self, programs: &mut Programs) -> Result<(), LoadError> {
        if let Some(Ok(mut source)) = programs.failed_calls_mut()
            && self.rhythm.looks()
        {
            source.end()?;
            let now = Instant::now();
            self.looked += now.duration_since(self.rhythm.since);
            self.rhythm.ends(now);
        }
        Ok(())
    }

    /// What the window has seen, and begins the next.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn close_window(&mut self, programs: &mut Programs) -> Result<CallsSeen, LoadError> {
        let mut source = match programs.failed_calls_mut() {
            Some(Ok(source)) => source,
            Some(Err(refused)) => {
                return Ok(CallsSeen { calls: None, refused: Some(refused.to_owned()) });
            }
            None => return Ok(CallsSeen::default()),
        };
        if self.rhythm.looks() {
            let now = Instant::now();
            self.looked += now.duration_since(self.rhythm.since);
            (self.rhythm.since, self.seen) = (now, source.seen()?);
        }
        let looked_ns = std::mem::take(&mut self.looked).as_nanos() as u64;
        let calls = told(&source.take()?);
        let was_seen = self.refused.is_none() || looked_ns > 0;
        let calls = was_seen.then_some(FailedCalls { looked_ns, calls });
        Ok(CallsSeen { calls, refused: self.refused.clone() })
    }
}

/// In words, the most failures first.
fn told(taken: &[(CallKey, CallTotals)]) -> Vec<FailedCall> {
    let mut attempts: HashMap<(u32, u16), u64> = HashMap::new();
    for (key, totals) in taken {
        *attempts.entry((key.tgid, key.syscall)).or_default() += totals.calls;
    }
    let mut calls: Vec<FailedCall> = taken
        .iter()
        .filter(|(key, _)| key.error != NO_ERROR)
        .map(|(key, totals)| FailedCall {
            pid: key.tgid,
            process_name: comm(&totals.comm),
            call: call_name(key.syscall),
            error: error_name(key.error),
            failed: totals.calls,
            attempts: attempts[&(key.tgid, key.syscall)],
        })
        .collect();
    calls.sort_by(|a, b| b.failed.cmp(&a.failed).then_with(|| a.cmp(b)));
    calls
}

fn call_name(number: u16) -> String {
    Sysno::new(usize::from(number)).map_or_else(|| number.to_string(), |call| call.name().to_owned())
}

fn error_name(number: u16) -> String {
    syscalls::Errno::new(i32::from(number)).name().map_or_else(|| number.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chokepoint_ebpf::COMM_LEN;

    #[test]
    fn looks_are_as_long_as_they_may_cost() {
        let second = Duration::from_secs(1);
        // 20,000 calls a second cost 5 ms of a second: all of the budget.
        assert_eq!(Rhythm::pause_after(second, 20_000), Duration::ZERO);
        assert_eq!(Rhythm::pause_after(second, 40_000), second);
        assert_eq!(Rhythm::pause_after(Duration::from_millis(100), 100_000), Duration::from_millis(4_900));
        // A hundred million calls a second.
        let pause = Rhythm::pause_after(LOOK, 1_000_000);
        assert!(pause < LONGEST_PAUSE, "{pause:?}");
        assert_eq!(Rhythm::pause_after(LOOK, 100_000_000), LONGEST_PAUSE);
    }

    #[test]
    fn looks_follow_pauses() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(start);
        assert_eq!(rhythm.due(start), Some(Due::Begin));
        rhythm.begins(start);
        assert_eq!(rhythm.due(start + LOOK / 2), None);
        assert_eq!(rhythm.due(start + LOOK), Some(Due::Decide));
        // Few calls: it goes on for longer and longer.
        let mut now = start + LOOK;
        for length in [2, 4, 8, 16, 32, 64, 64].map(|times| LOOK * times) {
            assert!(rhythm.decides(now, LOOK, 10));
            assert_eq!(rhythm.due(now + length - LOOK), None);
            now += length;
            assert_eq!(rhythm.due(now), Some(Due::Decide));
        }
        // Many: it pauses for as long as they have cost 200 times over.
        assert!(!rhythm.decides(now, LOOK, 4_000));
        assert_eq!(rhythm.due(now + LOOK * 18), None);
        assert_eq!(rhythm.due(now + LOOK * 19), Some(Due::Begin));
    }

    #[test]
    fn failures_are_told_with_all_attempts_of_their_kind() {
        let mut name = [0; COMM_LEN];
        name[..3].copy_from_slice(b"web");
        let entry = |tgid, syscall: i64, error: i32, calls| {
            let key = CallKey { tgid, syscall: syscall as u16, error: error as u16 };
            (key, CallTotals { calls, comm: name })
        };
        let taken = [
            entry(7, libc::SYS_accept4, 0, 30),
            entry(7, libc::SYS_accept4, libc::EMFILE, 60),
            entry(7, libc::SYS_accept4, libc::ENFILE, 10),
            entry(8, libc::SYS_clone3, 0, 0),
            entry(8, libc::SYS_clone3, libc::EAGAIN, 100),
            entry(9, 65_000, 4_000, 1),
        ];
        let lines: Vec<String> = told(&taken)
            .iter()
            .map(|call| {
                format!("{} {} {} {} {}", call.pid, call.call, call.error, call.failed, call.attempts)
            })
            .collect();
        let expected = [
            "8 clone3 EAGAIN 100 100",
            "7 accept4 EMFILE 60 100",
            "7 accept4 ENFILE 10 100",
            "9 65000 4000 1 1",
        ];
        assert_eq!(lines, expected);
    }
}

//! Which commands are taken: those that make sense and that the limits allow.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use chokepoint_analysis::units;
use chokepoint_proto::stream::ProfileNow;
use chokepoint_proto::stream::profile_now::Target;
use thiserror::Error;

use super::Limits;
use crate::record::DEFAULT_FREQUENCY_HZ;

/// Time in which recordings are counted.
const MINUTE: Duration = Duration::from_secs(60);
/// Bytes of a target's name: the longest path.
const MAX_NAME: usize = 4096;

/// A recording that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The target as the command line has it; `None`: the host.
    pub target: Option<OsString>,
    /// Samples a second on each CPU.
    pub frequency_hz: u32,
    /// How long.
    pub duration: Duration,
}

/// A command that is not taken, and why, as its operator reads it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// None is.
    #[error("this agent takes no commands: its configuration says commands = false")]
    TakesNone,
    /// It says nothing that is known here.
    #[error("this agent does not know the command: it is older than the collector")]
    Unknown,
    /// It names no target, or one that cannot be.
    #[error("{0}")]
    Target(&'static str),
    /// Too many samples.
    #[error(
        "this agent takes at most {limit} samples a second (command-frequency), and {asked} were asked for"
    )]
    Frequency {
        /// As it was asked for.
        asked: u32,
        /// What is allowed.
        limit: u32,
    },
    /// No time at all.
    #[error("a recording takes some time: say how long")]
    NoTime,
    /// Too long.
    #[error(
        "this agent records for at most {} (command-duration), and {} were asked for",
        units::duration(.limit.as_nanos() as u64),
        units::duration(.asked.as_nanos() as u64)
    )]
    Duration {
        /// As it was asked for.
        asked: Duration,
        /// What is allowed.
        limit: Duration,
    },
    /// Others are being made.
    #[error(
        "this agent makes at most {0} recordings on demand at once (commands-at-once): wait for the other to end, or cancel it"
    )]
    Busy(usize),
    /// Too many of late.
    #[error(
        "this agent begins at most {0} recordings on demand a minute (commands-per-minute): wait a little"
    )]
    TooOften(usize),
    /// A command of this number is under way.
    #[error("there is a command of this number already")]
    Known,
}

/// What has come through.
#[derive(Debug, Default)]
pub struct Door {
    under_way: usize,
    /// When the recordings of the last minute began.
    begun: VecDeque<Instant>,
}

impl Door {
    /// Lets a recording in, which is to [leave](Self::leave) again.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn admit(&mut self, profile: &ProfileNow, limits: &Limits, now: Instant) -> Result<Wanted, Refused> {
        if !limits.takes_any {
            return Err(Refused::TakesNone);
        }
        let wanted = wanted(profile, limits)?;
        if self.under_way >= limits.at_once {
            return Err(Refused::Busy(limits.at_once));
        }
        while self.begun.front().is_some_and(|begun| now.saturating_duration_since(*begun) >= MINUTE) {
            self.begun.pop_front();
        }
        if self.begun.len() >= limits.per_minute {
            return Err(Refused::TooOften(limits.per_minute));
        }
        self.begun.push_back(now);
        self.under_way += 1;
        Ok(wanted)
    }

    /// A recording is over.
    pub fn leave(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }
}

fn wanted(profile: &ProfileNow, limits: &Limits) -> Result<Wanted, Refused> {
    let frequency_hz = match profile.frequency_hz {
        0 => DEFAULT_FREQUENCY_HZ.min(limits.frequency_hz),
        asked if asked > limits.frequency_hz => {
            return Err(Refused::Frequency { asked, limit: limits.frequency_hz });
        }
        asked => asked,
    };
    let duration = Duration::from_nanos(profile.duration_ns);
    if duration.is_zero() {
        return Err(Refused::NoTime);
    }
    if duration > limits.duration {
        return Err(Refused::Duration { asked: duration, limit: limits.duration });
    }
    let target = match profile.target.as_ref().ok_or(Refused::Unknown)? {
        Target::Host(true) => None,
        Target::Host(false) => {
            return Err(Refused::Target("a command that is not for the host names a target"));
        }
        Target::Pid(0) => return Err(Refused::Target("0 is no process id")),
        Target::Pid(pid) => Some(format!("--pid={pid}")),
        Target::Cgroup(path) => Some(named("--cgroup", path)?),
        Target::Container(name) => Some(named("--container", name)?),
        Target::Pod(name) => Some(named("--pod", name)?),
    };
    Ok(Wanted { target: target.map(OsString::from), frequency_hz, duration })
}

/// In one word with its option, so that a name that begins with a dash is none.
fn named(option: &str, name: &str) -> Result<String, Refused> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        return Err(Refused::Target("a target's name has 1 to 4096 bytes, none of them zero"));
    }
    Ok(format!("{option}={name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn of(target: Target) -> ProfileNow {
        ProfileNow { frequency_hz: 99, duration_ns: SECOND_NS, target: Some(target) }
    }

    #[test]
    fn targets_are_single_words_of_a_command_line() {
        let wanted = |target| Door::default().admit(&of(target), &Limits::default(), Instant::now());
        let words = |target| wanted(target).expect("it makes sense").target;
        assert_eq!(words(Target::Host(true)), None);
        assert_eq!(words(Target::Pid(7)), Some("--pid=7".into()));
        assert_eq!(words(Target::Pod("shop/web-0".into())), Some("--pod=shop/web-0".into()));
        assert_eq!(words(Target::Container("--help".into())), Some("--container=--help".into()));
        assert_eq!(words(Target::Cgroup("/a b".into())), Some("--cgroup=/a b".into()));
        for bad in [
            Target::Host(false),
            Target::Pid(0),
            Target::Pod(String::new()),
            Target::Cgroup("a\0b".into()),
            Target::Container("x".repeat(MAX_NAME + 1)),
        ] {
            assert!(matches!(wanted(bad.clone()), Err(Refused::Target(_))), "{bad:?}");
        }
        let nothing = ProfileNow { target: None, ..of(Target::Pid(1)) };
        assert_eq!(
            Door::default().admit(&nothing, &Limits::default(), Instant::now()),
            Err(Refused::Unknown)
        );
    }

    #[test]
    fn each_limit_is_named_where_it_is_met() {
        let (host, now) = (of(Target::Host(true)), Instant::now());
        let limits = Limits { at_once: 2, per_minute: 3, ..Limits::default() };
        let mut door = Door::default();
        let mut refused = |profile: &ProfileNow, limits: &Limits, after_s| {
            let refused = door.admit(profile, limits, now + Duration::from_secs(after_s));
            refused.err().map(|refused| refused.to_string()).unwrap_or_default()
        };
        let none = Limits { takes_any: false, ..limits.clone() };
        assert!(refused(&host, &none, 0).contains("commands = false"));
        let fast = ProfileNow { frequency_hz: 1000, ..host.clone() };
        assert!(refused(&fast, &limits, 0).contains("at most 999 samples a second (command-frequency)"));
        let long = ProfileNow { duration_ns: 301 * SECOND_NS, ..host.clone() };
        assert!(refused(&long, &limits, 0).contains("(command-duration)"));
        assert_eq!(
            refused(&ProfileNow { duration_ns: 0, ..host.clone() }, &limits, 0),
            Refused::NoTime.to_string()
        );
        // What is refused takes no place.
        assert_eq!(refused(&host, &limits, 0), "");
        assert_eq!(refused(&host, &limits, 1), "");
        assert!(refused(&host, &limits, 2).contains("at most 2 recordings on demand at once"));
        door.leave();
        door.leave();
        assert!(door.admit(&host, &limits, now + Duration::from_secs(3)).is_ok());
        door.leave();
        assert_eq!(door.admit(&host, &limits, now + Duration::from_secs(59)), Err(Refused::TooOften(3)));
        assert!(
            door.admit(&host, &limits, now + Duration::from_secs(60)).is_ok(),
            "the first is a minute ago"
        );
    }

    #[test]
    fn the_usual_frequency_is_within_the_limit() {
        let usual = ProfileNow { frequency_hz: 0, ..of(Target::Host(true)) };
        for (limit, expected) in [(999, DEFAULT_FREQUENCY_HZ), (49, 49)] {
            let limits = Limits { frequency_hz: limit, ..Limits::default() };
            let wanted = Door::default().admit(&usual, &limits, Instant::now()).expect("it is allowed");
            assert_eq!(wanted.frequency_hz, expected);
        }
    }
}

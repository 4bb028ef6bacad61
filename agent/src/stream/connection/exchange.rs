//! What is said on a stream, without a network: what may be sent now, and what an answer means.

use std::collections::BTreeSet;

use chokepoint_proto::stream::from_collector::Message;
use chokepoint_proto::stream::{Command, FromCollector, SymbolsWanted, Welcome};
use thiserror::Error;

/// The version of the protocol that is spoken here.
pub const PROTOCOL: u32 = 1;
/// Batches sent and not answered at most, whatever the collector allows: with more, a collector that is slow would only have more to read
/// again after a broken stream.
pub const MAX_UNANSWERED: usize = 32;

/// The collector did not keep to the protocol, so that the stream cannot go on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Broken {
    /// It spoke before its Welcome, or said it twice.
    #[error("the collector does not say Welcome first and once")]
    Welcome,
    /// It speaks a version that is not known here.
    #[error("the collector speaks version {0} of the protocol, this agent versions up to {PROTOCOL}")]
    Version(u32),
    /// It answered what was not sent, or was answered before.
    #[error("the collector answers batch {0}, which does not wait for an answer")]
    Answer(u64),
}

/// What the collector's message asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Batches may be sent from now on.
    Welcome {
        /// Whether the collector takes symbols.
        takes_symbols: bool,
    },
    /// The batch is stored: it is not needed here any more.
    Stored(u64),
    /// The batch will never be stored, and the stream ends.
    Refused {
        /// Its number.
        sequence: u64,
        /// Why, in the collector's words.
        reason: String,
    },
    /// Something to do now.
    Command(Command),
    /// Something that nobody waits for any more: the command's id.
    Cancel(u64),
    /// Symbols that the collector lacks.
    Wanted(SymbolsWanted),
    /// Nothing that is known here.
    Nothing,
}

/// One stream, from its begin to its end.
#[derive(Debug, Default)]
pub struct Exchange {
    welcome: Option<Welcome>,
    unanswered: BTreeSet<u64>,
    last_sent: u64,
}

impl Exchange {
    /// A stream on which Hello was said.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the collector has said Welcome.
    #[must_use]
    pub fn is_welcome(&self) -> bool {
        self.welcome.is_some()
    }

    /// After which batch the next one is to be sent; `None` where none may be sent now.
    #[must_use]
    pub fn sends_after(&self) -> Option<u64> {
        let welcome = self.welcome.as_ref()?;
        let most = match welcome.max_unanswered as usize {
            0 => MAX_UNANSWERED,
            most => most.min(MAX_UNANSWERED),
        };
        (self.unanswered.len() < most).then_some(self.last_sent)
    }

    /// Whether a window of so many bytes is more than the collector takes.
    #[must_use]
    pub fn is_too_large(&self, window_bytes: u64) -> bool {
        let limit = self.welcome.as_ref().map_or(0, |welcome| welcome.max_window_bytes);
        limit > 0 && window_bytes > limit
    }

    /// A batch was sent.
    pub fn sent(&mut self, sequence: u64) {
        self.unanswered.insert(sequence);
        self.last_sent = sequence;
    }

    /// A batch is passed over: it will not be sent on this stream.
    pub fn skipped(&mut self, sequence: u64) {
        self.last_sent = sequence;
    }

    /// Batches that were sent and are not answered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Takes note of what the collector says.
    ///
    /// # Errors
    /// Where that cannot be: the stream is of no use then.
    pub fn take(&mut self, message: FromCollector) -> Result<Said, Broken> {
        match (message.message, self.is_welcome()) {
            (Some(Message::Welcome(welcome)), false) => {
                if welcome.protocol == 0 || welcome.protocol > PROTOCOL {
                    return Err(Broken::Version(welcome.protocol));
                }
                let takes_symbols = welcome.takes_symbols;
                self.welcome = Some(welcome);
                Ok(Said::Welcome { takes_symbols })
            }
            (Some(Message::Welcome(_)), true) | (_, false) => Err(Broken::Welcome),
            (Some(Message::Answer(answer)), true) => {
                let sequence = answer.sequence;
                if !self.unanswered.remove(&sequence) {
                    return Err(Broken::Answer(sequence));
                }
                Ok(if answer.refused.is_empty() {
                    Said::Stored(sequence)
                } else {
                    Said::Refused { sequence, reason: answer.refused }
                })
            }
            (Some(Message::Command(command)), true) => Ok(Said::Command(command)),
            (Some(Message::Cancel(cancel)), true) => Ok(Said::Cancel(cancel.id)),
            (Some(Message::SymbolsWanted(wanted)), true) => Ok(Said::Wanted(wanted)),
            // Of a later version: what must not be passed over comes with a new protocol.
            (None, true) => Ok(Said::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use chokepoint_proto::stream::Answer;

    use super::*;

    fn welcome(max_unanswered: u32) -> FromCollector {
        let welcome = Welcome { protocol: 1, max_window_bytes: 100, max_unanswered, ..Welcome::default() };
        FromCollector { message: Some(Message::Welcome(welcome)) }
    }

    fn answer(sequence: u64, refused: &str) -> FromCollector {
        FromCollector { message: Some(Message::Answer(Answer { sequence, refused: refused.into() })) }
    }

    #[test]
    fn nothing_is_sent_before_welcome_and_no_more_than_allowed_after() {
        let mut exchange = Exchange::new();
        assert_eq!(exchange.sends_after(), None);
        assert_eq!(exchange.take(welcome(2)), Ok(Said::Welcome { takes_symbols: false }));
        assert_eq!(exchange.sends_after(), Some(0));
        exchange.sent(4);
        assert_eq!(exchange.sends_after(), Some(4));
        exchange.sent(7);
        assert_eq!((exchange.sends_after(), exchange.unanswered()), (None, 2));
        // In any order.
        assert_eq!(exchange.take(answer(7, "")), Ok(Said::Stored(7)));
        assert_eq!(exchange.sends_after(), Some(7));
        exchange.skipped(9);
        assert_eq!(exchange.sends_after(), Some(9));
        let refused = Said::Refused { sequence: 4, reason: "too old".into() };
        assert_eq!(exchange.take(answer(4, "too old")), Ok(refused));
        assert!(exchange.is_too_large(101) && !exchange.is_too_large(100));
    }

    #[test]
    fn a_collector_that_allows_everything_is_not_sent_everything() {
        let mut exchange = Exchange::new();
        exchange.take(welcome(0)).expect("it is the first");
        let mut sent = 0;
        while exchange.sends_after().is_some() {
            sent += 1;
            exchange.sent(sent);
        }
        assert_eq!(sent as usize, MAX_UNANSWERED);
    }

    #[test]
    fn what_no_collector_says_ends_the_stream() {
        let mut exchange = Exchange::new();
        assert_eq!(exchange.take(answer(1, "")), Err(Broken::Welcome));
        let of_version = |protocol| FromCollector {
            message: Some(Message::Welcome(Welcome { protocol, ..Welcome::default() })),
        };
        for protocol in [0, 2] {
            assert_eq!(exchange.take(of_version(protocol)), Err(Broken::Version(protocol)));
        }
        exchange.take(welcome(0)).expect("it is the first");
        assert_eq!(exchange.take(welcome(0)), Err(Broken::Welcome));
        exchange.sent(1);
        assert_eq!(exchange.take(answer(2, "")), Err(Broken::Answer(2)));
        exchange.take(answer(1, "")).expect("it was sent");
        assert_eq!(exchange.take(answer(1, "")), Err(Broken::Answer(1)));
        assert_eq!(exchange.take(FromCollector { message: None }), Ok(Said::Nothing));
    }
}

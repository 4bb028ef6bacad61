//! What a stream says of symbols: offers, and the parts of what was asked for, at a pace that leaves room for windows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chokepoint_proto::stream::from_agent::Message;
use chokepoint_proto::stream::{SymbolsOffer, SymbolsPart, SymbolsWanted};
use tokio::time::{Instant, sleep_until};

use super::maker::Ready;
use super::{Asked, Made, Shared, Wish};

/// Builds in one message.
const MAX_OFFERED: usize = 64;
/// Bytes of a part.
const PART_BYTES: usize = 64 << 10;
/// Between two parts: 256 KiB a second at most.
const PACE: Duration = Duration::from_millis(250);
/// Wishes that failed and wait to be told. Who asks for more without listening does not hear of all.
const MAX_FAILED: usize = 32;

/// Symbols for one stream after the other.
pub struct Uploads {
    shared: Arc<Shared>,
    ready: Ready,
    /// The stream's number; what was made for another is thrown away.
    stream: u64,
    /// Whether this stream's collector takes symbols.
    is_open: bool,
    /// Up to where builds were offered on this stream.
    offered: usize,
    sending: Option<Sending>,
    failed: VecDeque<SymbolsPart>,
}

struct Sending {
    lease: u64,
    symbols: Vec<u8>,
    sent: usize,
    due: Instant,
}

impl Uploads {
    /// Of what is made for streams.
    #[must_use]
    pub fn new(shared: Arc<Shared>, ready: Ready) -> Self {
        let failed = VecDeque::new();
        Self { shared, ready, stream: 0, is_open: false, offered: 0, sending: None, failed }
    }

    /// Another stream begins: nothing was said on it yet.
    pub fn begin_stream(&mut self) {
        self.stream += 1;
        (self.is_open, self.offered, self.sending) = (false, 0, None);
        self.failed.clear();
    }

    /// The collector has said whether it takes symbols.
    pub fn welcome(&mut self, takes_symbols: bool) {
        self.is_open = takes_symbols;
        if !takes_symbols {
            tracing::warn!(
                "the collector takes no symbols: functions of binaries have no names there; with `symbols = \"host\"` this host names them"
            );
        }
    }

    /// The collector wants a build's symbols.
    pub fn take(&mut self, wanted: SymbolsWanted) {
        let SymbolsWanted { lease, build_id } = wanted;
        let wish = Wish { stream: self.stream, lease, build_id };
        if self.shared.asked.try_send(Asked::Make(wish)).is_err() {
            self.fail(lease, "too many are asked for at once".to_owned());
        }
    }

    fn fail(&mut self, lease: u64, why: String) {
        self.shared.counts.failed.fetch_add(1, Ordering::Relaxed);
        if self.failed.len() < MAX_FAILED {
            self.failed.push_back(SymbolsPart { lease, failed: why, ..SymbolsPart::default() });
        }
    }

    /// What is to be said next, as soon as there is something. May be dropped and called again.
    pub async fn next(&mut self) -> Message {
        loop {
            if !self.is_open {
                std::future::pending::<()>().await;
            }
            if let Some(failed) = self.failed.pop_front() {
                return Message::SymbolsPart(failed);
            }
            let (builds, offered) = self.shared.offers().after(self.offered, MAX_OFFERED);
            self.offered = offered;
            if !builds.is_empty() {
                return Message::SymbolsOffer(SymbolsOffer { builds });
            }
            if let Some(sending) = &mut self.sending {
                sleep_until(sending.due).await;
                let (part, is_last) = sending.part();
                if is_last {
                    let counts = &self.shared.counts;
                    counts.sent.fetch_add(1, Ordering::Relaxed);
                    counts.sent_bytes.fetch_add(sending.symbols.len() as u64, Ordering::Relaxed);
                    self.sending = None;
                }
                return Message::SymbolsPart(part);
            }
            tokio::select! {
                made = self.ready.0.recv() => match made {
                    Some(made) => self.begin(made),
                    // The thread is gone, which nothing but a panic explains: what was made was said.
                    None => std::future::pending().await,
                },
                () = self.shared.offered.notified() => {}
            }
        }
    }

    fn begin(&mut self, made: Made) {
        let Made { wish: Wish { stream, lease, .. }, symbols } = made;
        if stream != self.stream {
            return;
        }
        match symbols {
            Ok(symbols) => self.sending = Some(Sending { lease, symbols, sent: 0, due: Instant::now() }),
            Err(why) => self.fail(lease, why),
        }
    }
}

impl Sending {
    fn part(&mut self) -> (SymbolsPart, bool) {
        let end = self.symbols.len().min(self.sent + PART_BYTES);
        let bytes = self.symbols[self.sent..end].to_vec();
        (self.sent, self.due) = (end, self.due + PACE);
        let is_last = end == self.symbols.len();
        let checksum = if is_last { crc32fast::hash(&self.symbols) } else { 0 };
        let lease = self.lease;
        (SymbolsPart { lease, bytes, is_last, checksum, failed: String::new() }, is_last)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use chokepoint_proto::stream::SymbolsOffered;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_told_offers_first_and_symbols_in_parts_and_another_stream_nothing_of_them() {
        let (asked, wishes) = sync_channel(4);
        let (ready, made) = mpsc::channel(1);
        let shared = Arc::new(Shared::new(asked));
        let mut uploads = Uploads::new(Arc::clone(&shared), Ready(made));
        uploads.begin_stream();
        shared.offers().add(SymbolsOffered { build_id: vec![7], quality: 2 }, 9);
        assert!(tokio::time::timeout(PACE, uploads.next()).await.is_err(), "before its Welcome");
        uploads.welcome(true);
        assert!(matches!(uploads.next().await, Message::SymbolsOffer(offer) if offer.builds.len() == 1));

        uploads.take(SymbolsWanted { lease: 5, build_id: vec![7] });
        let Ok(Asked::Make(wish)) = wishes.recv() else { panic!("a wish") };
        let symbols = vec![1; PART_BYTES + 3];
        ready.send(Made { wish: wish.clone(), symbols: Ok(symbols.clone()) }).await.expect("it is read");
        let mut came = Vec::new();
        for is_last in [false, true] {
            let Message::SymbolsPart(part) = uploads.next().await else { panic!("a part") };
            assert_eq!((part.lease, part.is_last, &*part.failed), (5, is_last, ""));
            came.extend(part.bytes);
            assert!(!is_last || part.checksum == crc32fast::hash(&came));
        }
        assert_eq!(came, symbols);
        assert_eq!(shared.counts.sent.load(Ordering::Relaxed), 1);

        // What was made for a stream that has ended goes nowhere; builds are offered again.
        uploads.begin_stream();
        uploads.welcome(true);
        ready.send(Made { wish, symbols: Err("gone".to_owned()) }).await.expect("it is read");
        assert!(matches!(uploads.next().await, Message::SymbolsOffer(_)));
        assert!(tokio::time::timeout(PACE, uploads.next()).await.is_err());
    }
}

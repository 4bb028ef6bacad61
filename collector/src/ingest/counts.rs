//! What happened at the door.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Count {
            $($(#[$doc])* $name,)*
        }

        impl Count {
            /// All, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name, as metrics have them.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        const COUNTS: usize = Count::ALL.len();
    };
}

counts! {
    /// Streams that began.
    Streams => "streams",
    /// Streams that ended because the same agent began another.
    StreamsSuperseded => "streams_superseded",
    /// Streams that were refused because there were too many.
    StreamsTooMany => "streams_too_many",
    /// Streams that were refused because it was not known who asked: no token, or none that is known.
    StreamsUnauthenticated => "streams_unauthenticated",
    /// Streams that were refused because who asked may not stream, or not as what it says it is.
    StreamsForbidden => "streams_forbidden",
    /// Streams that were refused because the agent is another one's.
    StreamsNotOwned => "streams_not_owned",
    /// Streams whose first message was no hello, or one that says what is not accepted.
    HellosRefused => "hellos_refused",
    /// Streams and calls that ended with a message that was none, or out of its order.
    MessagesRefused => "messages_refused",
    /// Batches that were stored.
    BatchesStored => "batches_stored",
    /// Batches that came again.
    BatchesKnown => "batches_known",
    /// Batches that were refused: larger than accepted.
    BatchesTooLarge => "batches_too_large",
    /// Batches that were refused: not what was compressed.
    BatchesDamaged => "batches_damaged",
    /// Batches that were refused: not what the protocol says.
    BatchesInvalid => "batches_invalid",
    /// Batches that the store could not take. They come again.
    StoreFailures => "store_failures",
    /// Windows that begin long before or after they arrive could. They are stored: the host's clock is wrong.
    WindowsSkewed => "windows_skewed",
    /// Bytes of windows, compressed, of batches that were answered.
    WindowBytes => "window_bytes",
    /// Batches that had to wait since their agent sends more than one may.
    BatchesThrottled => "batches_throttled",
    /// Batches that had to wait since those of others took all the memory there is for them.
    BatchesWaited => "batches_waited_for_memory",
    /// Profiles that other programs sent.
    ProfilesReceived => "profiles_received",
    /// Those of them that were refused.
    ProfilesRefused => "profiles_refused",
    /// Those of them that had come before.
    ProfilesKnown => "profiles_known",
    /// Requests that were refused because it was not known who asked.
    RequestsUnauthenticated => "requests_unauthenticated",
    /// Requests that were refused because who asked has another role.
    RequestsForbidden => "requests_forbidden",
    /// Requests that were refused since they make no sense: for what is not there, or with what is not understood.
    RequestsRefused => "requests_refused",
    /// Connections for queries that ended with what was no request of HTTP.
    RequestsMalformed => "requests_malformed",
    /// Connections whose handshake of TLS failed: a certificate that is missing or not accepted, or no TLS after all.
    HandshakesFailed => "handshakes_failed",
    /// Connections that spoke no TLS where it is spoken.
    PlaintextRefused => "plaintext_refused",
    /// Connections that spoke TLS where it is not spoken.
    TlsRefused => "tls_refused",
    /// Connections that ended since it took too long until it was known who is there.
    StrangersSlow => "strangers_slow",
    /// Connections that ended before it was known who is there: nothing was said, or what is not understood there.
    StrangersGone => "strangers_gone",
    /// Connections that ended since too many of one address were strangers.
    StrangersTooMany => "strangers_too_many",
    /// Alerts that the webhook has taken.
    AlertsSent => "alerts_sent",
    /// Tries to send one that failed, after which it was tried again.
    AlertsRetried => "alerts_retried",
    /// Alerts that were given up: refused, or not taken for too long, or too many at a time.
    AlertsLost => "alerts_lost",
    /// Constraints that crossed their level and were not told, since they were told lately.
    AlertsSilenced => "alerts_silenced",
    /// Profiles that were begun by themselves, since something crossed its level.
    TriggersBegun => "triggers_begun",
    /// Crossings without a profile, for the silence's or the budget's sake.
    TriggersHeldBack => "triggers_held_back",
    /// Crossings without a profile since the agent could not be told, or too many profiles were under way.
    TriggersFailed => "triggers_failed",
    /// Leases that were given to agents, for the symbols of a build each.
    SymbolLeases => "symbol_leases",
    /// Those of which nothing came in time.
    SymbolLeasesExpired => "symbol_leases_expired",
    /// Builds whose symbols were sent by an agent and kept.
    SymbolsKept => "symbols_kept",
    /// Those that were not kept: failed, damaged, of another build, or no better.
    SymbolsRefused => "symbols_refused",
    /// Builds whose symbols were made of a debuginfod server's file.
    SymbolsFetched => "symbols_fetched",
    /// Questions to such servers that brought no file of use, but for builds that they do not have.
    SymbolFetchFailures => "symbol_fetch_failures",
    /// Builds whose symbols were dropped: nobody needed them for long, or there were too many.
    SymbolsDropped => "symbols_dropped",
    /// Profiles that were sent on by OTLP, and taken.
    OtlpSent => "otlp_profiles_sent",
    /// Those that the other end took and refused one by one.
    OtlpRejected => "otlp_profiles_rejected",
    /// Those that were not sent: their message was refused, or not taken for too long, or there was no room for it.
    OtlpLost => "otlp_profiles_lost",
    /// Windows of which nothing was sent, since there was no room for what their streams have named.
    OtlpUnknown => "otlp_windows_lost",
    /// Messages of OTLP that were sent again.
    OtlpRetries => "otlp_retries",
    /// Certificates and tokens that were read anew.
    Reloads => "reloads",
    /// Certificates and tokens that could not be read anew: those before go on.
    ReloadFailures => "reload_failures",
}

/// How often each happened.
#[derive(Debug)]
pub struct Counts([AtomicU64; COUNTS]);

impl Default for Counts {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; COUNTS])
    }
}

impl Counts {
    /// Counts one.
    pub fn add(&self, count: Count) {
        self.add_many(count, 1);
    }

    /// Counts several.
    pub fn add_many(&self, count: Count, times: u64) {
        self.0[count as usize].fetch_add(times, Ordering::Relaxed);
    }

    /// All of them as Prometheus reads them.
    #[must_use]
    pub fn metrics(&self) -> String {
        let metric = |count: &Count| {
            let name = format!("chokepoint_collector_{}_total", count.name());
            format!("# TYPE {name} counter\n{name} {}\n", self.get(*count))
        };
        Count::ALL.iter().map(metric).collect()
    }

    /// How often it happened.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.0[count as usize].load(Ordering::Relaxed)
    }
}

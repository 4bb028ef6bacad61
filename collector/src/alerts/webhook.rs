//! Sends alerts to a webhook: a POST of JSON each, one after the other. What is not taken is tried again, for a while; what is given up is
//! counted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::case::{known_services, of_hosts, of_services};
use super::config::{About, Config};
use super::profiles::{Profiler, critical};
use super::watch::{Alert, Watch};
use crate::backoff::Backoff;
use crate::clock::now_unix_ns;
use crate::control::Control;
use crate::ingest::{Count, Counts};
use crate::pipeline::{Companion, Shared};
use crate::query::QueryError;
use crate::query::fleet::Fleet;
use crate::query::fleet::recent::Latest;
use crate::query::limits::Limits;
use crate::query::overview::{Host, overview};
use crate::query::question::{MS_NS, Question, Range};
use crate::query_command::client::Address;
use crate::store::{Store, StoreError};

/// How often hosts are looked at: about once a window.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Of what time their last verdict is.
const RECENT_NS: u64 = 300_000_000_000;
/// Alerts that wait to be sent; more are lost.
const QUEUE: usize = 1_024;
/// The pause after the first try; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// For how long an alert is tried.
const MAX_TIME: Duration = Duration::from_secs(600);

/// Looks at hosts, tells of what crosses its level and has profiles made of it, until the collector stops.
#[must_use]
pub fn tell(config: Config, control: Arc<Control>) -> Companion {
    Box::new(move |shared| Box::pin(run(config, control, shared)))
}

async fn run(config: Config, control: Arc<Control>, shared: Shared) -> io::Result<()> {
    let Config { address, level, about, silence_ms, link, profile } = config;
    let Shared { store, counts, services, mut stopping, .. } = shared;
    let mut profiler = profile.map(|profile| Profiler::new(profile, control));
    let (queue, alerts) = mpsc::channel(QUEUE);
    let mut telling = address.map(|address| {
        let sender = tokio::spawn(send(address, alerts, Arc::clone(&counts), stopping.clone()));
        let watch = || Watch::new(silence_ms, link.clone());
        (Watches { of_hosts: watch(), of_services: watch(), seen: None }, sender)
    });
    loop {
        tokio::select! {
            _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
            () = sleep(LOOK_EVERY) => {}
        }
        let asked = Arc::clone(&store);
        let now_unix_ns = now_unix_ns();
        let signals = profiler.as_ref().map_or_else(Vec::new, Profiler::signals);
        let find = move || Ok((hosts(&*asked, now_unix_ns)?, critical(&*asked, &signals, now_unix_ns)?));
        let found: Result<_, QueryError> = tokio::task::spawn_blocking(find).await?;
        let (hosts, signals) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "it is not known what limits hosts, so nobody is told");
                continue;
            }
        };
        // First, so that alerts can say where its profile is.
        if let Some(profiler) = &mut profiler {
            profiler.look(&hosts, signals, now_unix_ns / MS_NS, &counts);
        }
        let Some((watches, _)) = &mut telling else { continue };
        let profile_of = |host: &str| profiler.as_ref()?.of(host);
        let now_unix_ms = now_unix_ns / MS_NS;
        let (mut alerts, mut silenced) = (Vec::new(), 0);
        if about.contains(&About::Hosts) {
            let cases = of_hosts(&hosts, level, now_unix_ms);
            (alerts, silenced) = watches.of_hosts.look(cases, None, now_unix_ms, profile_of);
        }
        if about.contains(&About::Services)
            && let Some(fleet) = watches.unseen(services.latest(&store))
        {
            let (cases, known) = (of_services(&fleet, level), known_services(&fleet));
            let of_services = watches.of_services.look(cases, known.as_ref(), now_unix_ms, profile_of);
            alerts.extend(of_services.0);
            silenced += of_services.1;
        }
        counts.add_many(Count::AlertsSilenced, silenced);
        for alert in alerts {
            if queue.try_send(alert).is_err() {
                counts.add(Count::AlertsLost);
                tracing::warn!("an alert is lost: too many wait for the webhook");
            }
        }
    }
    drop(queue);
    match telling {
        Some((_, sender)) => Ok(sender.await?),
        None => Ok(()),
    }
}

/// What was told of hosts and of services.
struct Watches {
    of_hosts: Watch,
    of_services: Watch,
    /// What was looked at last.
    seen: Option<Arc<Fleet>>,
}

impl Watches {
    /// What is known of services, where it was not looked at before.
    fn unseen(&mut self, latest: Latest) -> Option<Arc<Fleet>> {
        let drawn = latest.drawn?;
        let is_seen = self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &drawn));
        (!is_seen).then(|| Arc::clone(self.seen.insert(drawn)))
    }
}

fn hosts(store: &dyn Store, now_unix_ns: u64) -> Result<Vec<Host>, QueryError> {
    let range = Range { from_unix_ns: now_unix_ns.saturating_sub(RECENT_NS), until_unix_ns: now_unix_ns + 1 };
    // Each host counts, however many there are.
    let limits = Limits { max_series: usize::MAX, ..Limits::default() };
    let question = Question::new("{}", range, Vec::new(), &limits)?;
    let hosts = overview(store, &question, &limits)?.hosts;
    let missing = question.asker.missing();
    if !missing.is_empty() {
        // Of hosts that are not seen it would look as if nothing limited them any more.
        let source = missing.join("; ").into();
        return Err(StoreError::Failed { what: "cannot look at all hosts".to_owned(), source }.into());
    }
    Ok(hosts)
}

/// Sends one alert after the other. When the collector stops, what still waits is lost.
async fn send(
    address: Address,
    mut alerts: mpsc::Receiver<Alert>,
    counts: Arc<Counts>,
    mut stopping: watch::Receiver<bool>,
) {
    while let Some(alert) = alerts.recv().await {
        let is_sent = tokio::select! {
            is_sent = deliver(&address, &alert, &counts) => is_sent,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => false,
        };
        counts.add(if is_sent { Count::AlertsSent } else { Count::AlertsLost });
    }
}

/// Whether the webhook has taken it in time.
async fn deliver(address: &Address, alert: &Alert, counts: &Counts) -> bool {
    let json = match serde_json::to_vec(alert) {
        Ok(json) => json,
        Err(error) => {
            tracing::error!(%error, "an alert cannot be written");
            return false;
        }
    };
    let begin = Instant::now();
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let why = match address.deliver(json.clone()).await {
            Ok(status) if status.is_success() => return true,
            // It will say the same of it again; but for too many, and for a time that is over.
            Ok(status) if status.is_client_error() && !matches!(status.as_u16(), 408 | 429) => {
                tracing::error!(%status, code = alert.case.code, "the webhook refuses an alert");
                return false;
            }
            Ok(status) => status.to_string(),
            Err(error) => error.reason(),
        };
        let pause = backoff.next(fastrand::f64());
        if begin.elapsed() + pause > MAX_TIME {
            tracing::error!(why, code = alert.case.code, "an alert is lost: the webhook does not take it");
            return false;
        }
        tracing::warn!(why, code = alert.case.code, "the webhook does not take an alert: it is tried again");
        counts.add(Count::AlertsRetried);
        sleep(pause).await;
    }
}

//! Has agents make profiles of hosts where something crosses its level.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chokepoint_proto::stream::profile_now::Target;

use super::case::is_beyond;
use super::config::Profiling;
use super::trigger::{Cause, Triggers};
use crate::control::Control;
use crate::control::ask::Wanted;
use crate::ingest::{Count, Counts};
use crate::query::overview::Host;
use crate::store::{Asker, Selection, SignalQuery, Store, StoreError};

/// Who asks, as those who look at profiles see it.
const ASKER: &str = "trigger";
/// How far back the last value of a signal may be: some windows.
const RECENT_NS: u64 = 60_000_000_000;
/// Values of one signal that are read.
const MAX_VALUES: usize = 200_000;
/// The level of a signal from which on it is a cause.
const CRITICAL: u8 = 2;

/// Begins profiles.
pub(super) struct Profiler {
    config: Profiling,
    control: Arc<Control>,
    triggers: Triggers,
    /// The last profile of each host that has one: its name. As many as are remembered by the triggers.
    begun: BTreeMap<String, String>,
}

impl Profiler {
    pub(super) fn new(config: Profiling, control: Arc<Control>) -> Self {
        let triggers = Triggers::new(config.silence_ms, config.budget);
        Self { config, control, triggers, begun: BTreeMap::new() }
    }

    /// The signals that are causes.
    pub(super) fn signals(&self) -> Vec<String> {
        self.config.signals.clone()
    }

    /// Begins what is due. Needs a tokio runtime.
    pub(super) fn look(
        &mut self,
        hosts: &[Host],
        signals: BTreeSet<Cause>,
        now_unix_ms: u64,
        counts: &Counts,
    ) {
        let mut beyond = signals;
        for host in hosts {
            let Some(verdict) = &host.verdict else { continue };
            if is_beyond(verdict, self.config.level, now_unix_ms) {
                let name = host.labels.get("host").cloned().unwrap_or_default();
                beyond.insert(Cause { host: name, what: verdict.code.clone() });
            }
        }
        let is_there = |host: &String| beyond.iter().any(|cause| cause.host == *host);
        self.begun.retain(|host, _| is_there(host));
        let (due, held_back) = self.triggers.look(beyond, now_unix_ms);
        counts.add_many(Count::TriggersHeldBack, held_back);
        for cause in due {
            match self.begin(&cause) {
                Ok(id) => {
                    counts.add(Count::TriggersBegun);
                    tracing::info!(id, host = cause.host, why = cause.what, "a profile is made by itself");
                    self.begun.insert(cause.host, id);
                }
                Err(why) => {
                    counts.add(Count::TriggersFailed);
                    tracing::warn!(why, host = cause.host, cause = cause.what, "no profile is made");
                }
            }
        }
    }

    fn begin(&self, cause: &Cause) -> Result<String, String> {
        let connected = self.control.connected();
        let agent = connected.iter().find(|agent| agent.host == cause.host);
        let agent = agent.ok_or("its agent has no stream to this collector now")?;
        let wanted = Wanted {
            host: Some(cause.host.clone()),
            target: Target::Host(true),
            frequency_hz: self.config.frequency_hz,
            duration: self.config.duration,
            abandon_after: None,
        };
        let shown = self.control.begin(&wanted, &agent.agent, ASKER).map_err(|error| error.to_string())?;
        Ok(shown.id)
    }

    /// The name of the profile that was begun of a host for what is still there.
    pub(super) fn of(&self, host: &str) -> Option<&str> {
        self.begun.get(host).map(String::as_str)
    }
}

/// The signals that are critical now.
pub(super) fn critical(
    store: &dyn Store,
    signals: &[String],
    now_unix_ns: u64,
) -> Result<BTreeSet<Cause>, StoreError> {
    let mut causes = BTreeSet::new();
    for name in signals {
        let found = store.signals(&SignalQuery {
            selection: Selection {
                matchers: Vec::new(),
                from_unix_ns: now_unix_ns.saturating_sub(RECENT_NS),
                until_unix_ns: now_unix_ns + 1,
                asker: Asker::default(),
            },
            name: name.clone(),
            max_values: MAX_VALUES,
        })?;
        for series in found {
            let is_critical = series.values.last().is_some_and(|last| last.level >= CRITICAL);
            let Some(host) = series.labels.get("host").filter(|_| is_critical) else { continue };
            let instance = series.labels.get("instance").map_or("", String::as_str);
            let what = format!("{name} {instance}").trim_end().to_owned();
            causes.insert(Cause { host: host.clone(), what });
        }
    }
    Ok(causes)
}

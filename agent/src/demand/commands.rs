//! The commands of one stream: they end with it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chokepoint_proto::stream::command::What as Asked;
use chokepoint_proto::stream::command_update::What;
use chokepoint_proto::stream::{Command, CommandUpdate};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::OnDemand;
use super::door::Refused;
use super::recorder::Recorder;

/// Refusals that wait to be told. Who asks for more without listening does not hear of all.
const MAX_REFUSALS: usize = 32;

/// The commands of one stream. Dropped, it ends what is under way.
pub struct Commands {
    on_demand: Arc<OnDemand>,
    under_way: HashMap<u64, JoinHandle<()>>,
    refusals: VecDeque<CommandUpdate>,
    /// One part waits here, and one with each recording: nothing is read from them before the stream takes it.
    updates: (mpsc::Sender<CommandUpdate>, mpsc::Receiver<CommandUpdate>),
}

impl Commands {
    /// Of a stream that begins.
    #[must_use]
    pub fn new(on_demand: Arc<OnDemand>) -> Self {
        Self { on_demand, under_way: HashMap::new(), refusals: VecDeque::new(), updates: mpsc::channel(1) }
    }

    /// Begins what the command asks for, or refuses it. Needs a tokio runtime.
    pub fn take(&mut self, command: Command) {
        self.under_way.retain(|_, recording| !recording.is_finished());
        let id = command.id;
        if let Err(refused) = self.begin(command) {
            self.on_demand.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%refused, "a command is refused");
            self.tell_end(id, refused.to_string());
        }
    }

    fn begin(&mut self, command: Command) -> Result<(), Refused> {
        let Command { id, what: Some(Asked::Profile(profile)) } = command else {
            return Err(Refused::Unknown);
        };
        if self.under_way.contains_key(&id) {
            return Err(Refused::Known);
        }
        let (wanted, place) = self.on_demand.admit(&profile)?;
        tracing::info!(target = ?wanted.target, wanted.frequency_hz, ?wanted.duration, "a recording on demand");
        self.on_demand.taken.fetch_add(1, Ordering::Relaxed);
        let on_demand = Arc::clone(&self.on_demand);
        let recorder = Recorder { id, wanted, on_demand, updates: self.updates.0.clone(), place };
        self.under_way.insert(id, tokio::spawn(recorder.run()));
        Ok(())
    }

    /// Ends a command that nobody waits for any more.
    pub fn cancel(&mut self, id: u64) {
        let Some(recording) = self.under_way.remove(&id) else { return };
        if !recording.is_finished() {
            recording.abort();
            self.on_demand.failed.fetch_add(1, Ordering::Relaxed);
            tracing::info!("a recording on demand is cancelled");
            self.tell_end(id, "it was cancelled".to_owned());
        }
    }

    /// What is to be said next, as soon as there is something. May be dropped and called again.
    pub async fn next(&mut self) -> CommandUpdate {
        if let Some(refusal) = self.refusals.pop_front() {
            return refusal;
        }
        match self.updates.1.recv().await {
            Some(update) => update,
            // Not while this has a sender.
            None => std::future::pending().await,
        }
    }

    fn tell_end(&mut self, id: u64, why: String) {
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.push_back(CommandUpdate { id, what: Some(What::Failed(why)) });
        }
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        for (_, recording) in self.under_way.drain() {
            recording.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use chokepoint_proto::stream::ProfileNow;
    use chokepoint_proto::stream::profile_now::Target;

    use super::super::Limits;
    use super::*;

    fn failed(update: CommandUpdate) -> (u64, String) {
        match update.what {
            Some(What::Failed(why)) => (update.id, why),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_refused_is_told_and_counted_within_bounds() {
        let none = Limits { takes_any: false, ..Limits::default() };
        let on_demand = Arc::new(OnDemand::new(none, None));
        let mut commands = Commands::new(Arc::clone(&on_demand));
        commands.take(Command { id: 4, what: None });
        assert_eq!(failed(commands.next().await), (4, Refused::Unknown.to_string()));
        let profile = ProfileNow { target: Some(Target::Host(true)), ..ProfileNow::default() };
        for id in 0..100 {
            commands.take(Command { id, what: Some(Asked::Profile(profile.clone())) });
        }
        assert_eq!(commands.refusals.len(), MAX_REFUSALS);
        assert_eq!(failed(commands.next().await), (0, Refused::TakesNone.to_string()));
        assert_eq!(
            (on_demand.refused.load(Ordering::Relaxed), on_demand.taken.load(Ordering::Relaxed)),
            (101, 0)
        );
        // Nothing is under way: no answer.
        commands.cancel(7);
        assert!(commands.under_way.is_empty());
    }
}

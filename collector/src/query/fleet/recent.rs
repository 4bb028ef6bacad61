//! What limits services now, for those who ask for it again and again: drawn once a minute and beside them, so that nobody waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::{Fleet, Past, fleet};
use crate::clock::now_unix_ns;
use crate::query::QueryError;
use crate::query::limits::Limits;
use crate::query::question::{Question, Range};
use crate::store::{Asker, Store, StoreError};

/// How old it is at most when it is drawn anew.
const EVERY_NS: u64 = 60_000_000_000;
/// Of what time it is: as long as where somebody asks and says nothing else.
const LENGTH_NS: u64 = 600_000_000_000;
/// It ends where most agents have sent all, and with a whole minute, for history is kept in these.
const LATE_NS: u64 = 30_000_000_000;
const MINUTE_NS: u64 = 60_000_000_000;
/// Services that are told: those with the most time.
const MAX_SERVICES: usize = 50;
/// How long drawing may take.
const MAX_TIME: Duration = Duration::from_secs(60);

/// What was drawn last. Nothing is drawn where nobody asks.
#[derive(Default)]
pub struct Recent {
    past: Past,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    latest: Latest,
    is_drawing: bool,
    tried_unix_ns: u64,
}

/// What limits services, as it is known.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    /// The last that was drawn.
    pub drawn: Option<Arc<Fleet>>,
    /// Why the last try to draw it came to nothing; `None` where it did not.
    pub failed: Option<String>,
}

/// Ends with the drawing, however that ends.
struct Drawing(Arc<Recent>);

impl Drop for Drawing {
    fn drop(&mut self) {
        self.0.state().is_drawing = false;
    }
}

impl Recent {
    /// What was drawn last. Where that is too old it is drawn anew meanwhile. Needs a tokio runtime.
    pub fn latest(self: &Arc<Self>, store: &Arc<dyn Store>) -> Latest {
        let now_unix_ns = now_unix_ns();
        let mut state = self.state();
        if !state.is_drawing && now_unix_ns.saturating_sub(state.tried_unix_ns) >= EVERY_NS {
            (state.is_drawing, state.tried_unix_ns) = (true, now_unix_ns);
            let (drawing, store) = (Drawing(Arc::clone(self)), Arc::clone(store));
            tokio::spawn(async move { drawing.draw(store, now_unix_ns).await });
        }
        state.latest.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drawing {
    async fn draw(self, store: Arc<dyn Store>, now_unix_ns: u64) {
        let asker = Asker::default();
        // When it takes too long, the store stops soon.
        let _waiting = asker.wait();
        let (recent, of) = (Arc::clone(&self.0), asker.clone());
        let drawing = tokio::task::spawn_blocking(move || draw(&*store, &recent.past, of, now_unix_ns));
        let drawn = match timeout(MAX_TIME, drawing).await {
            Ok(Ok(Ok(fleet))) => Ok(fleet),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(panicked)) => Err(panicked.to_string()),
            Err(_) => Err(format!("it took longer than {} s", MAX_TIME.as_secs())),
        };
        let mut state = self.0.state();
        match drawn {
            Ok(fleet) => state.latest = Latest { drawn: Some(Arc::new(fleet)), failed: None },
            Err(why) => {
                tracing::error!(why, "it is not known what limits services");
                state.latest.failed = Some(why);
            }
        }
    }
}

fn draw(store: &dyn Store, past: &Past, asker: Asker, now_unix_ns: u64) -> Result<Fleet, QueryError> {
    let until_unix_ns = now_unix_ns.saturating_sub(LATE_NS) / MINUTE_NS * MINUTE_NS;
    let range = Range { from_unix_ns: until_unix_ns.saturating_sub(LENGTH_NS), until_unix_ns };
    let limits = Limits::default();
    let mut question = Question::new("{}", range, Vec::new(), &limits)?;
    question.asker = asker;
    let drawn = fleet(store, &question, MAX_SERVICES, past, &limits)?;
    let missing = question.asker.missing();
    if !missing.is_empty() {
        // Of hosts that are not seen it would look as if nothing limited them any more.
        let source = missing.join("; ").into();
        return Err(StoreError::Failed { what: "cannot look at all hosts".to_owned(), source }.into());
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_in_memory::InMemory;

    #[tokio::test]
    async fn it_is_drawn_beside_those_who_ask_and_not_for_each_of_them() {
        let store: Arc<dyn Store> = Arc::new(InMemory::default());
        let recent = Arc::new(Recent::default());
        assert!(recent.latest(&store).drawn.is_none());
        let drawn = loop {
            if let Some(drawn) = recent.latest(&store).drawn {
                break drawn;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(drawn.until_unix_ms - drawn.from_unix_ms, 600_000);
        assert!(Arc::ptr_eq(&drawn, &recent.latest(&store).drawn.expect("the same")));
        // And anew when it is old.
        recent.state().tried_unix_ns = 0;
        while Arc::ptr_eq(&drawn, &recent.latest(&store).drawn.expect("one of both")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

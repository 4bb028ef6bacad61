//! The HTTP door to queries: JSON under `/api/v1`, for the page, the command line and other tools. `access` lets only
//! those on who may ask.

mod access;
mod answer;
mod caller;
mod endpoints;
mod hosts;
mod impatient;
mod parameters;
mod partial;
mod profiles;
mod server;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawPathParams, RawQuery};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub(crate) use self::answer::{Answer, Refused, response, told, too_long};
use self::endpoints::{ENDPOINTS, Endpoint, JSON, openapi};
use self::parameters::Asked;
use crate::alerts::series::series;
use crate::clock::now_unix_ns;
use crate::control::Control;
use crate::protocols;
use crate::query::fleet::Past;
use crate::query::fleet::recent::Recent;
use crate::query::limits::Limits;
use crate::store::{Asker, Store};

pub use self::access::only_for_callers;
pub use self::answer::{ErrorAnswer, ErrorShown};
pub use self::caller::Peer;
pub(crate) use self::caller::not_from_elsewhere;
pub use self::hosts::only_for_hosts;
pub use self::partial::PARTIAL;
pub use self::server::serve;

/// Where the endpoints of this version are.
pub const BASE: &str = "/api/v1";

/// Where the fleet's series are.
const FLEET: &str = "/metrics/fleet";

/// What else there is, as the description of the API has it.
const OTHER_PATHS: &[(&str, &str)] = &[
    ("/api/v1/openapi.json", "This description"),
    ("/api/v1/access", "Who asks: whether tokens are asked for, whose came, and what roles that gives"),
    ("/healthz", "Whether the collector answers"),
    (
        "/metrics/fleet",
        "What limits each host and each service, how saturated their resources are and what the threads of each service do, as Prometheus reads it",
    ),
    ("/metrics", "The collector's own metrics, as Prometheus reads them"),
];

/// What room for answers is counted in: a semaphore counts to 2^32 at most.
const UNSENT_UNIT_BYTES: usize = 1 << 10;

/// Writes the collector's own metrics as Prometheus reads them.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What every query needs.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) store: Arc<dyn Store>,
    control: Arc<Control>,
    pub(crate) limits: Arc<Limits>,
    turns: Arc<Semaphore>,
    /// Room for answers that are not sent yet, in [`UNSENT_UNIT_BYTES`].
    unsent: Arc<Semaphore>,
    /// What is known of earlier weeks, for all who ask.
    past: Arc<Past>,
    /// What limits services.
    services: Arc<Recent>,
}

/// The router of all endpoints.
pub fn router(
    store: Arc<dyn Store>,
    control: Arc<Control>,
    services: Arc<Recent>,
    limits: Limits,
    metrics: Metrics,
) -> Router {
    let turns = Arc::new(Semaphore::new(limits.max_queries));
    let unsent = Arc::new(Semaphore::new(limits.max_unsent_bytes / UNSENT_UNIT_BYTES));
    let door =
        Door { store, control, limits: Arc::new(limits), turns, unsent, past: Arc::default(), services };
    let mut router = Router::new()
        .route(&format!("{BASE}/openapi.json"), only_get(get(|| async { response(description()) })))
        .route(access::PATH, only_get(get(access::answer)))
        .route("/healthz", only_get(get(|| async { response(Ok(text("ok\n".to_owned()))) })))
        .route("/metrics", only_get(get(move || own_metrics(Arc::clone(&metrics)))));
    let of_fleet = door.clone();
    let fleet = move || {
        let door = of_fleet.clone();
        async move {
            let asker = Asker::default();
            marked(door.fleet(&asker).await, &asker)
        }
    };
    router = router.route(FLEET, only_get(get(fleet)));
    for endpoint in ENDPOINTS {
        let door = door.clone();
        let asked = move |path: RawPathParams, RawQuery(query): RawQuery| {
            let name = path.iter().next().map_or_else(String::new, |(_, value)| value.to_owned());
            async move {
                let asker = Asker::default();
                marked(door.answer(endpoint, query.unwrap_or_default(), name, &asker).await, &asker)
            }
        };
        router = router.route(&format!("{BASE}{}", endpoint.path), only_get(get(asked)));
    }
    router = protocols::pyroscope::add_queries_to(router, &door);
    profiles::add_to(router, &door).fallback(|| async { response(Err(Refused::NoSuchPath)) })
}

/// The collector's own metrics. The store may have to ask for its part.
async fn own_metrics(metrics: Metrics) -> Response {
    let page = tokio::task::spawn_blocking(move || metrics()).await;
    response(page.map(text).map_err(|panicked| Refused::Failed(panicked.to_string())))
}

/// What goes out, with a word of what is missing of it.
fn marked(answer: Result<Answer, Refused>, asker: &Asker) -> Response {
    let mut response = response(answer);
    partial::mark(&mut response, &asker.missing());
    response
}

fn only_get(route: MethodRouter) -> MethodRouter {
    async fn refuse() -> Response {
        response(Err(Refused::OnlyGet))
    }
    route.fallback(refuse)
}

fn description() -> Result<Answer, Refused> {
    let bytes = serde_json::to_vec_pretty(&openapi()).map_err(|error| Refused::Failed(error.to_string()))?;
    Ok(Answer { content_type: JSON, file_name: None, bytes, room: None })
}

fn text(text: String) -> Answer {
    Answer {
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        file_name: None,
        bytes: text.into_bytes(),
        room: None,
    }
}

impl Door {
    /// The fleet as Prometheus reads it.
    async fn fleet(&self, asker: &Asker) -> Result<Answer, Refused> {
        let (store, limits) = (Arc::clone(&self.store), Arc::clone(&self.limits));
        let (asker, services) = (asker.clone(), self.services.latest(&self.store));
        // Until the time is over, or the client has gone.
        let _waiting = asker.wait();
        let read = move || {
            let mut page =
                series(store.as_ref(), &services, now_unix_ns(), &limits, &asker).map_err(Refused::Query)?;
            let missing = asker.missing().len();
            if missing > 0 {
                let name = "chokepoint_fleet_missing_shards";
                page.push_str(&format!("# TYPE {name} gauge\n{name} {missing}\n"));
            }
            Ok(text(page))
        };
        self.with_room(self.in_turn(read).await?)
    }

    /// Has a query answered. The work stops soon when nobody waits for it any more.
    async fn answer(
        &self,
        endpoint: Endpoint,
        query: String,
        name: String,
        asker: &Asker,
    ) -> Result<Answer, Refused> {
        let (store, limits) = (Arc::clone(&self.store), Arc::clone(&self.limits));
        let (asker, past) = (asker.clone(), Arc::clone(&self.past));
        // Until the time is over, or the client has gone.
        let _waiting = asker.wait();
        let answer = self.in_turn(move || {
            let asked = Asked::read(&query, endpoint.parameters, name, now_unix_ns(), &limits, asker.clone());
            let answer = |asked: Asked<'_>| (endpoint.answer)(store.as_ref(), &asked.remembering(past));
            let mut answer = asked.and_then(answer).map_err(Refused::Query)?;
            partial::mark_body(&mut answer, &asker.missing());
            Ok(answer)
        });
        self.with_room(answer.await?)
    }

    /// Waits for a turn, and has the work done by a thread that may block. The turn ends with the work, not with the asker's patience.
    pub(crate) async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let Ok(turn) = timeout(self.limits.max_turn_wait, Arc::clone(&self.turns).acquire_owned()).await
        else {
            return Err(Refused::Busy);
        };
        let turn = turn.map_err(|closed| Refused::Failed(closed.to_string()))?;
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        match timeout(self.limits.max_query_time, work).await {
            Err(_) => Err(Refused::TooSlow),
            Ok(Err(panicked)) => Err(Refused::Failed(panicked.to_string())),
            Ok(Ok(result)) => result,
        }
    }

    /// The answer with its room, which it takes until it is sent.
    pub(crate) fn with_room(&self, answer: Answer) -> Result<Answer, Refused> {
        let units = u32::try_from(answer.bytes.len().div_ceil(UNSENT_UNIT_BYTES)).unwrap_or(u32::MAX);
        match Arc::clone(&self.unsent).try_acquire_many_owned(units) {
            Ok(room) => Ok(Answer { room: Some(room), ..answer }),
            Err(_) => Err(Refused::Busy),
        }
    }
}

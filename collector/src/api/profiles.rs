//! Profiles on demand over HTTP: what can be done, in a table as that of [`super::endpoints`].

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawPathParams, RawQuery, Request};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter};
use chokepoint_analysis::export::Format;
use chokepoint_analysis::moments::Stretch;
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::answer::{Answer, Refused, json as answer_json, response};
use super::caller::{not_from_elsewhere, operator};
use super::endpoints::{BINARY, JSON, SVG, TEXT, USUAL_NODES};
use super::parameters::{Asked, FROM_MS, HOST, LIMIT, NODES, Parameter, TYPE, UNTIL_MS, WAIT};
use super::{BASE, Door};
use crate::clock::now_unix_ns;
use crate::control::ask::Ask;
use crate::control::result::type_of;
use crate::control::{Shown, whereabouts};
use crate::query::question::MS_NS;
use crate::query::{QueryError, recording, time};
use crate::store::Asker;

/// Bytes of what is asked for.
const MAX_BODY_BYTES: usize = 64 << 10;
/// How long it may take to come.
const MAX_BODY_TIME: Duration = Duration::from_secs(10);
/// How long an answer waits for a profile's end at most: connections that say nothing are ended by what is between.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The part of a recording that files have where nobody says.
const USUAL_TYPE: &str = "cpu";

/// Threads of a time line where nobody says how many: as many as a screen has lines for.
const USUAL_THREADS: usize = 50;

/// What is done.
#[derive(Clone, Copy, Debug)]
enum Does {
    Begin,
    List,
    Look,
    Cancel,
    File(Format),
    Flame,
    Timeline,
    Bursts,
    /// The recording as it came.
    Whole,
    Processes,
}

/// Something that can be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Action {
    pub(super) method: &'static str,
    /// Below the version's path; the part in braces is a profile's id.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) content_type: &'static str,
    pub(super) parameters: &'static [Parameter],
    does: Does,
}

const fn file(
    path: &'static str,
    summary: &'static str,
    content_type: &'static str,
    format: Format,
) -> Action {
    Action { method: "get", path, summary, content_type, parameters: &[TYPE], does: Does::File(format) }
}

const fn shows(
    path: &'static str,
    summary: &'static str,
    parameters: &'static [Parameter],
    does: Does,
) -> Action {
    Action { method: "get", path, summary, content_type: JSON, parameters, does }
}

/// All of them.
pub(super) const ACTIONS: [Action; 13] = [
    Action {
        method: "post",
        path: "/profile",
        summary: "Have an agent make a profile of a target now",
        content_type: JSON,
        parameters: &[],
        does: Does::Begin,
    },
    Action {
        method: "get",
        path: "/profile",
        summary: "Profiles on demand that are under way or kept, the latest first",
        content_type: JSON,
        parameters: &[],
        does: Does::List,
    },
    Action {
        method: "get",
        path: "/profile/{id}",
        summary: "How far a profile is, and its verdict when it is there",
        content_type: JSON,
        parameters: &[WAIT],
        does: Does::Look,
    },
    Action {
        method: "delete",
        path: "/profile/{id}",
        summary: "End a profile that is under way, at its agent too; forget one that is over",
        content_type: JSON,
        parameters: &[],
        does: Does::Cancel,
    },
    file("/profile/{id}/flame.svg", "Its flame graph as a picture", SVG, Format::Svg),
    file("/profile/{id}/profile.pb.gz", "It for pprof: go tool pprof URL", BINARY, Format::Pprof),
    file("/profile/{id}/folded", "Its folded stacks, a line each", TEXT, Format::Folded),
    file("/profile/{id}/speedscope", "It for speedscope", JSON, Format::Speedscope),
    shows(
        "/profile/{id}/flamegraph",
        "Its flame graph as columns, of all of it or of a stretch",
        &[TYPE, FROM_MS, UNTIL_MS, NODES],
        Does::Flame,
    ),
    shows("/profile/{id}/timeline", "What its threads did, and when", &[TYPE, LIMIT], Does::Timeline),
    shows("/profile/{id}/bursts", "How its time is spread within seconds", &[TYPE], Does::Bursts),
    Action {
        method: "get",
        path: "/profile/{id}/profile.json",
        summary: "The recording as the agent made it, for chokepoint diagnose, report and other tools",
        content_type: JSON,
        parameters: &[],
        does: Does::Whole,
    },
    shows(
        "/processes",
        "The processes of a host that ran most in its agent's last window: what may be profiled now",
        &[HOST],
        Does::Processes,
    ),
];

/// Adds them to a router.
pub(super) fn add_to(mut router: Router, door: &Door) -> Router {
    let mut paths: Vec<&str> = ACTIONS.iter().map(|action| action.path).collect();
    paths.dedup();
    for path in paths {
        let mut route = MethodRouter::new();
        for action in ACTIONS.into_iter().filter(|action| action.path == path) {
            let (door, filter) = (door.clone(), action.filter());
            route =
                route.on(filter, move |id: RawPathParams, RawQuery(query): RawQuery, request: Request| {
                    let id = id.iter().next().map_or_else(String::new, |(_, value)| value.to_owned());
                    async move { door.act(action, query.unwrap_or_default(), id, request).await }
                });
        }
        let refuse = || async { response(Err(Refused::OtherMethod)) };
        router = router.route(&format!("{BASE}{path}"), route.fallback(refuse));
    }
    router
}

/// The stretch that is asked for, if any.
fn stretch(asked: &Asked<'_>) -> Result<Option<Stretch>, QueryError> {
    match (asked.number(FROM_MS)?, asked.number(UNTIL_MS)?) {
        (None, None) => Ok(None),
        (Some(from), Some(until)) if from < until => {
            let ns = |ms: u64| ms.saturating_mul(MS_NS);
            Ok(Some(Stretch { from_ns: ns(from), until_ns: ns(until) }))
        }
        _ => Err(QueryError::bad("a stretch has from_ms and until_ms, the first below the second")),
    }
}

impl Action {
    fn filter(&self) -> MethodFilter {
        match self.method {
            "post" => MethodFilter::POST,
            "delete" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        }
    }

    /// What its body is, for the description of the API.
    pub(super) fn body(&self) -> Option<Value> {
        let text = |about: &str| json!({"type": "string", "description": about});
        let number = |about: &str| json!({"type": "integer", "description": about});
        matches!(self.does, Does::Begin).then(|| {
            json!({"required": true, "content": {JSON: {"schema": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "host": text("the host, or the beginning of its agent's identity; found by the target where absent"),
                    "pod": text("a pod: namespace/name"),
                    "container": text("a container, by its name in its pod or the beginning of its id"),
                    "cgroup": text("path of a control group"),
                    "pid": number("a process id on the host"),
                    "frequency": number("samples a second on each CPU; 99 where absent"),
                    "duration": text("how long: 30s; 10s where absent"),
                    "abandon_after": text("after how long without a look at it the profile is cancelled: 20s; never where absent"),
                }
            }, "example": {"pod": "shop/web-0", "frequency": 999, "duration": "30s"}}}})
        })
    }

    /// The status of what it answers.
    pub(super) fn status(&self) -> StatusCode {
        if matches!(self.does, Does::Begin) { StatusCode::ACCEPTED } else { StatusCode::OK }
    }
}

impl Door {
    async fn act(&self, action: Action, query: String, id: String, request: Request) -> Response {
        let mut answer = response(self.try_act(action, &query, id, request).await);
        if answer.status() == StatusCode::OK {
            *answer.status_mut() = action.status();
        }
        answer
    }

    async fn try_act(
        &self,
        action: Action,
        query: &str,
        id: String,
        request: Request,
    ) -> Result<Answer, Refused> {
        let (head, body) = request.into_parts();
        let changes = head.method != Method::GET && head.method != Method::HEAD;
        if changes {
            not_from_elsewhere(&head.headers, head.method == Method::POST)?;
        }
        let operator = if changes { operator(&head.extensions)? } else { String::new() };
        let asked = Asked::read(query, action.parameters, id, now_unix_ns(), &self.limits, Asker::default())
            .map_err(Refused::Query)?;
        let id = &asked.name;
        let shown = |shown: &Shown| answer_json(shown, &self.limits).map_err(Refused::Query);
        match action.does {
            Does::Begin => {
                let body = timeout(MAX_BODY_TIME, Limited::new(body, MAX_BODY_BYTES).collect()).await;
                let body = body.map_err(|_| Refused::NoBody)?.map_err(|_| Refused::NoBody)?.to_bytes();
                shown(&self.begin(body, operator).await?)
            }
            Does::List => answer_json(&self.control.list(), &self.limits).map_err(Refused::Query),
            Does::Look => {
                let wait = asked.text(WAIT).map(time::duration_ns).transpose();
                let wait = wait.map_err(|error| Refused::Query(error.into()))?.unwrap_or_default();
                let wait = Duration::from_nanos(wait).min(MAX_WAIT);
                shown(&self.control.look(id, wait).await.map_err(Refused::Demand)?)
            }
            Does::Cancel => shown(&self.control.cancel(id).map_err(Refused::Demand)?),
            Does::File(format) => {
                let profile_type = asked.text(TYPE).unwrap_or(USUAL_TYPE).to_owned();
                let finished = self.control.finished(id).map_err(Refused::Demand)?;
                let name = format!("{}.{format}", if format == Format::Svg { "flame" } else { "profile" });
                let export = move || finished.export(&profile_type, format).map_err(Refused::Demand);
                self.file(action, name, export).await
            }
            Does::Flame | Does::Timeline | Does::Bursts => self.show(action, &asked).await,
            Does::Processes => {
                let host = asked.text(HOST).unwrap_or_default();
                let agent = whereabouts::of_host(host, &self.control.connected()).map_err(Refused::Demand)?;
                let processes = self.control.processes(&agent).map_err(Refused::Demand)?;
                answer_json(&processes, &self.limits).map_err(Refused::Query)
            }
            Does::Whole => {
                let finished = self.control.finished(id).map_err(Refused::Demand)?;
                let whole = move || finished.json().map_err(Refused::Demand);
                self.file(action, "profile.json".to_owned(), whole).await
            }
        }
    }

    /// What is in a recording, as the page draws it.
    async fn show(&self, action: Action, asked: &Asked<'_>) -> Result<Answer, Refused> {
        let finished = self.control.finished(&asked.name).map_err(Refused::Demand)?;
        let kind = type_of(asked.text(TYPE).unwrap_or(USUAL_TYPE)).map_err(Refused::Demand)?;
        let nodes = asked.count(NODES, USUAL_NODES, self.limits.max_nodes).map_err(Refused::Query)?;
        let threads = asked.count(LIMIT, USUAL_THREADS, self.limits.max_series).map_err(Refused::Query)?;
        let stretch = stretch(asked).map_err(Refused::Query)?;
        let limits = Arc::clone(&self.limits);
        let show = move || {
            let profile = finished.profile().map_err(Refused::Demand)?;
            match action.does {
                Does::Timeline => {
                    recording::timeline(profile, &kind, threads).and_then(|of| answer_json(&of, &limits))
                }
                Does::Bursts => recording::bursts(profile, &kind).and_then(|of| answer_json(&of, &limits)),
                _ => {
                    recording::flame(profile, &kind, stretch, nodes).and_then(|of| answer_json(&of, &limits))
                }
            }
            .map_err(Refused::Query)
        };
        let answer = self.in_turn(show).await?;
        self.with_room(answer)
    }

    async fn begin(&self, body: Bytes, operator: String) -> Result<Shown, Refused> {
        let wanted =
            Ask::read(&body).and_then(|ask| ask.wanted(self.control.limits())).map_err(Refused::Demand)?;
        let (store, connected) = (self.store.clone(), self.control.connected());
        let asker = Asker::default();
        let _waiting = asker.wait();
        let find = move || {
            let agent = whereabouts::find(&*store, &wanted, &connected, now_unix_ns(), &asker);
            Ok((agent.map_err(Refused::Demand)?, wanted))
        };
        let (agent, wanted) = self.in_turn(find).await?;
        self.control.begin(&wanted, &agent.agent, &operator).map_err(Refused::Demand)
    }

    async fn file(
        &self,
        action: Action,
        name: String,
        make: impl FnOnce() -> Result<Vec<u8>, Refused> + Send + 'static,
    ) -> Result<Answer, Refused> {
        let limits = self.limits.clone();
        let make = move || {
            let bytes = make()?;
            if bytes.len() > limits.max_answer_bytes {
                return Err(Refused::Query(super::answer::too_long(&limits)));
            }
            Ok(bytes)
        };
        let bytes = self.in_turn(make).await?;
        self.with_room(Answer { content_type: action.content_type, file_name: Some(name), bytes, room: None })
    }
}

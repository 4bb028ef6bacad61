//! What can be asked: each endpoint with its parameters and its answer. The router and the description of the API are made of this table,
//! so that none of them tells something else.

use chokepoint_analysis::export::Format;
use chokepoint_analysis::report;
use serde::Serialize;

use super::answer::{Answer, json};
use super::parameters::{
    Asked, BEFORE_FROM, BEFORE_QUERY, BEFORE_UNTIL, BY, CLASS, DIAGNOSIS, FROM, LIMIT, MATCHERS, NODES, OF,
    Parameter, QUERY, SIGNAL, STEP, UNTIL,
};
use super::profiles::ACTIONS;
use crate::query::{
    QueryError, catalogue, compare, constraints, decomposition, diff, export, flame, fleet, latencies,
    overview, retransmits, series, signals, table,
};
use crate::store::Store;

/// Nodes of a flame graph where nobody says how many: as many as a screen can show.
pub(super) const USUAL_NODES: usize = 20_000;
/// Functions of a table where nobody says how many.
const USUAL_FUNCTIONS: usize = 100;
/// Series or scopes where nobody says how many.
const USUAL_SERIES: usize = 50;

/// How an endpoint answers.
type Answers = fn(&dyn Store, &Asked<'_>) -> Result<Answer, QueryError>;

/// Something that can be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint {
    /// Below the version's path; a part in braces is open.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) content_type: &'static str,
    pub(super) parameters: &'static [Parameter],
    pub(super) answer: Answers,
}

pub(super) const JSON: &str = "application/json";
pub(super) const SVG: &str = "image/svg+xml";
pub(super) const BINARY: &str = "application/octet-stream";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// What a comparison is asked with.
const COMPARED: &[Parameter] = &[QUERY, FROM, UNTIL, BEFORE_QUERY, BEFORE_FROM, BEFORE_UNTIL, STEP, LIMIT];

/// All of them.
pub(super) const ENDPOINTS: [Endpoint; 22] = [
    Endpoint {
        path: "/flamegraph",
        summary: "A merged flame graph, as columns of nodes and a dictionary of frames",
        content_type: JSON,
        parameters: &[QUERY, FROM, UNTIL, BY, CLASS, NODES],
        answer: |store, asked| {
            let nodes = asked.count(NODES, USUAL_NODES, asked.limits.max_nodes)?;
            json(
                &flame::flame(store, &asked.question()?, asked.class_frames()?, nodes, asked.limits)?,
                asked.limits,
            )
        },
    },
    Endpoint {
        path: "/top",
        summary: "The functions that most of the weight goes to",
        content_type: JSON,
        parameters: &[QUERY, FROM, UNTIL, LIMIT],
        answer: |store, asked| {
            let functions = asked.count(LIMIT, USUAL_FUNCTIONS, asked.limits.max_functions)?;
            json(&table::table(store, &asked.question()?, functions, asked.limits)?, asked.limits)
        },
    },
    Endpoint {
        path: "/series",
        summary: "Weights over time, one series for each group",
        content_type: JSON,
        parameters: &[QUERY, FROM, UNTIL, BY, STEP, LIMIT],
        answer: |store, asked| {
            let series = asked.count(LIMIT, USUAL_SERIES, asked.limits.max_series)?;
            json(
                &series::series(store, &asked.question()?, asked.step_ns()?, series, asked.limits)?,
                asked.limits,
            )
        },
    },
    Endpoint {
        path: "/decomposition",
        summary: "What thread time goes into: the weight of each class, by group and, with a step, over time",
        content_type: JSON,
        parameters: &[QUERY, FROM, UNTIL, BY, STEP, LIMIT],
        answer: |store, asked| {
            let scopes = asked.count(LIMIT, USUAL_SERIES, asked.limits.max_series)?;
            let question = asked.question()?;
            json(
                &decomposition::decomposition(store, &question, asked.step_ns()?, scopes, asked.limits)?,
                asked.limits,
            )
        },
    },
    Endpoint {
        path: "/diff",
        summary: "Two selections in one flame graph, and the functions whose share changed",
        content_type: JSON,
        parameters: &[QUERY, FROM, UNTIL, BEFORE_QUERY, BEFORE_FROM, BEFORE_UNTIL, BY, CLASS, NODES, LIMIT],
        answer: |store, asked| {
            let size = diff::Size {
                max_nodes: asked.count(NODES, USUAL_NODES, asked.limits.max_nodes)?,
                max_functions: asked.count(LIMIT, USUAL_FUNCTIONS, asked.limits.max_functions)?,
            };
            let (before, after) = (asked.question_before()?, asked.question()?);
            json(
                &diff::diff(store, &before, &after, asked.class_frames()?, size, asked.limits)?,
                asked.limits,
            )
        },
    },
    Endpoint {
        path: "/compare",
        summary: "Two selections compared step by step: what changed, and whether it is more than chance",
        content_type: JSON,
        parameters: COMPARED,
        answer: |store, asked| json(&compared(store, asked)?, asked.limits),
    },
    Endpoint {
        path: "/compare.html",
        summary: "The same as a report: a page",
        content_type: HTML,
        parameters: COMPARED,
        answer: |store, asked| report(store, asked, report::Format::Html, HTML),
    },
    Endpoint {
        path: "/compare.md",
        summary: "The same as a report: Markdown",
        content_type: MARKDOWN,
        parameters: COMPARED,
        answer: |store, asked| report(store, asked, report::Format::Markdown, MARKDOWN),
    },
    Endpoint {
        path: "/signals",
        summary: "Saturation signals over time",
        content_type: JSON,
        parameters: &[SIGNAL, FROM, UNTIL, STEP],
        answer: |store, asked| {
            json(&signals::signals(store, &asked.question()?, asked.step_ns()?, asked.limits)?, asked.limits)
        },
    },
    Endpoint {
        path: "/latencies",
        summary: "How long threads queued, or requests of block devices took: histograms by instance, over time",
        content_type: JSON,
        parameters: &[MATCHERS, OF, FROM, UNTIL, STEP, LIMIT],
        answer: |store, asked| {
            let of = latencies::latency(asked.text(OF).unwrap_or_default())?;
            let instances = asked.count(LIMIT, USUAL_SERIES, asked.limits.max_series)?;
            let question = asked.question()?;
            json(
                &latencies::latencies(store, &question, of, asked.step_ns()?, instances, asked.limits)?,
                asked.limits,
            )
        },
    },
    Endpoint {
        path: "/retransmits",
        summary: "What TCP connections sent again, by peer",
        content_type: JSON,
        parameters: &[MATCHERS, FROM, UNTIL, LIMIT],
        answer: |store, asked| {
            let peers = asked.count(LIMIT, USUAL_FUNCTIONS, asked.limits.max_series)?;
            json(&retransmits::retransmits(store, &asked.question()?, peers, asked.limits)?, asked.limits)
        },
    },
    Endpoint {
        path: "/constraints",
        summary: "What limits each scope: on how many hosts, how bad, since when",
        content_type: JSON,
        parameters: &[MATCHERS, FROM, UNTIL, BY, DIAGNOSIS],
        answer: |store, asked| {
            let with_diagnosis = asked.is_set(DIAGNOSIS)?;
            json(
                &constraints::constraints(store, &asked.question()?, with_diagnosis, asked.limits)?,
                asked.limits,
            )
        },
    },
    Endpoint {
        path: "/fleet",
        summary: "What limits each service: on which of its hosts, since when, behind which other service; hosts that differ from their peers",
        content_type: JSON,
        parameters: &[MATCHERS, FROM, UNTIL, BY, LIMIT],
        answer: |store, asked| {
            let services = asked.count(LIMIT, USUAL_SERIES, asked.limits.max_series)?;
            let question = asked.question()?;
            json(&fleet::fleet(store, &question, services, &asked.past, asked.limits)?, asked.limits)
        },
    },
    Endpoint {
        path: "/regressions",
        summary: "What was rolled out, by the labels version and image, and the functions that take more time since",
        content_type: JSON,
        parameters: &[MATCHERS, FROM, UNTIL, BY],
        answer: |store, asked| {
            json(&fleet::regressions::regressions(store, &asked.question()?, asked.limits)?, asked.limits)
        },
    },
    Endpoint {
        path: "/overview",
        summary: "Each host: what limits it and since when, what limited it before, and whether it is heard of",
        content_type: JSON,
        parameters: &[MATCHERS, FROM, UNTIL],
        answer: |store, asked| {
            json(&overview::overview(store, &asked.question()?, asked.limits)?, asked.limits)
        },
    },
    Endpoint {
        path: "/labels",
        summary: "The labels that rows of this time have",
        content_type: JSON,
        parameters: &[MATCHERS, FROM, UNTIL],
        answer: |store, asked| {
            json(&catalogue::label_names(store, &asked.question()?, asked.limits)?, asked.limits)
        },
    },
    Endpoint {
        path: "/label/{name}/values",
        summary: "The values of a label",
        content_type: JSON,
        parameters: &[MATCHERS, FROM, UNTIL],
        answer: |store, asked| {
            json(
                &catalogue::label_values(store, &asked.question()?, &asked.name, asked.limits)?,
                asked.limits,
            )
        },
    },
    Endpoint {
        path: "/agents",
        summary: "Every agent that is known",
        content_type: JSON,
        parameters: &[],
        answer: |store, asked| json(&catalogue::agents(store, &asked.asker)?, asked.limits),
    },
    Endpoint {
        path: "/pprof",
        summary: "A gzipped profile for pprof: go tool pprof URL",
        content_type: BINARY,
        parameters: &[QUERY, FROM, UNTIL, BY],
        answer: |store, asked| file(store, asked, Format::Pprof, BINARY),
    },
    Endpoint {
        path: "/svg",
        summary: "A flame graph as a picture",
        content_type: SVG,
        parameters: &[QUERY, FROM, UNTIL, BY],
        answer: |store, asked| file(store, asked, Format::Svg, SVG),
    },
    Endpoint {
        path: "/folded",
        summary: "Folded stacks, a line each",
        content_type: TEXT,
        parameters: &[QUERY, FROM, UNTIL, BY],
        answer: |store, asked| file(store, asked, Format::Folded, TEXT),
    },
    Endpoint {
        path: "/speedscope",
        summary: "A profile for speedscope",
        content_type: JSON,
        parameters: &[QUERY, FROM, UNTIL, BY],
        answer: |store, asked| file(store, asked, Format::Speedscope, JSON),
    },
];

fn file(
    store: &dyn Store,
    asked: &Asked<'_>,
    format: Format,
    content_type: &'static str,
) -> Result<Answer, QueryError> {
    let bytes = export::export(store, &asked.question()?, format, asked.limits)?;
    if bytes.len() > asked.limits.max_answer_bytes {
        return Err(super::answer::too_long(asked.limits));
    }
    Ok(Answer { content_type, file_name: Some(format!("profile.{format}")), bytes, room: None })
}

fn compared(store: &dyn Store, asked: &Asked<'_>) -> Result<compare::Comparison, QueryError> {
    let functions = asked.count(LIMIT, USUAL_FUNCTIONS, asked.limits.max_functions)?;
    let (before, after) = (asked.question_before()?, asked.question()?);
    compare::compare(store, &before, &after, asked.step_ns()?, functions, asked.limits)
}

fn report(
    store: &dyn Store,
    asked: &Asked<'_>,
    format: report::Format,
    content_type: &'static str,
) -> Result<Answer, QueryError> {
    let bytes = compare::report(&compared(store, asked)?, format)?;
    Ok(Answer { content_type, file_name: Some(format!("comparison.{format}")), bytes, room: None })
}

/// The description of the API, by OpenAPI 3.1.
pub(super) fn openapi() -> serde_json::Value {
    #[derive(Serialize)]
    struct Shown {
        name: &'static str,
        #[serde(rename = "in")]
        place: &'static str,
        required: bool,
        description: &'static str,
        schema: serde_json::Value,
        example: &'static str,
    }
    let text = serde_json::json!({"type": "string"});
    let error = |description: &str| {
        serde_json::json!({
            "description": description,
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
        })
    };
    let parameters = |path: &str, known: &[Parameter]| -> Vec<Shown> {
        let shown = |(name, place, required, description, example)| {
            let schema = text.clone();
            Shown { name, place, required, description, schema, example }
        };
        let open = [("name", "a label's name", "host"), ("id", "a profile's id", "1-0c0ffee0")];
        let open = open.into_iter().filter(|(name, ..)| path.contains(&format!("{{{name}}}")));
        let open = open.map(|(name, description, example)| (name, "path", true, description, example));
        let of_query = known.iter().map(|known| {
            let Parameter { name, is_required, description, example } = *known;
            (name, "query", is_required, description, example)
        });
        of_query.chain(open).map(shown).collect()
    };
    let mut paths = serde_json::Map::new();
    for endpoint in ENDPOINTS {
        let operation = serde_json::json!({"get": {
            "summary": endpoint.summary,
            "parameters": parameters(endpoint.path, endpoint.parameters),
            "responses": {
                "200": {"description": "the answer", "content": {endpoint.content_type: {}}},
                "400": error("the query makes no sense; the message says what to do"),
                "404": error("there is no such thing"),
                "422": error("the answer would be too large; the message says what to ask for less of"),
                "503": error("too many queries at a time: ask again after the seconds of Retry-After"),
                "504": error("the query took too long"),
            }
        }});
        paths.insert(format!("{}{}", super::BASE, endpoint.path), operation);
    }
    for action in ACTIONS {
        let mut operation = serde_json::json!({
            "summary": action.summary,
            "parameters": parameters(action.path, action.parameters),
            "responses": {
                action.status().as_str(): {"description": "the answer", "content": {action.content_type: {}}},
                "400": error("it makes no sense, or is more than is allowed; the message says what to do"),
                "403": error("who asks may not have that done"),
                "404": error("there is no such profile, target or host"),
                "409": error("several hosts may be meant, or the profile is not there"),
                "429": error("too many profiles on demand are under way"),
                "503": error("the agent cannot be told now, or too much is asked at a time"),
            }
        });
        if let Some(body) = action.body() {
            operation["requestBody"] = body;
        }
        // Several methods share a path.
        let path = paths.entry(format!("{}{}", super::BASE, action.path));
        path.or_insert_with(|| serde_json::json!({}))[action.method] = operation;
    }
    for (path, summary) in super::OTHER_PATHS {
        paths.insert(
            (*path).to_owned(),
            serde_json::json!({"get": {"summary": summary, "responses": {"200": {"description": "the answer"}}}}),
        );
    }
    serde_json::json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Chokepoint's collector",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Profiles, signals and constraints of a fleet. docs/queries.md describes the language and the answers.",
        },
        "paths": paths,
        "components": {"schemas": {"Error": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {"code": text, "message": text}
            }}
        }}}
    })
}

//! The calls of Grafana's data source, each as one of our queries.

use chokepoint_proto::pyroscope::querier::v1::{
    ProfileFormat, ProfileTypesRequest, ProfileTypesResponse, SelectMergeStacktracesRequest,
    SelectMergeStacktracesResponse, SelectSeriesRequest, SelectSeriesResponse,
};
use chokepoint_proto::pyroscope::types::v1::{
    LabelNamesRequest, LabelNamesResponse, LabelPair, LabelValuesRequest, LabelValuesResponse, Point, Series,
    StackTraceSelector, TimeSeriesAggregationType,
};

use super::super::connect::Fault;
use super::{flame, types};
use crate::labels::Labels;
use crate::query::limits::Limits;
use crate::query::question::{Question, Range};
use crate::query::{catalogue, flame as flame_query, series};
use crate::store::{Asker, Store};

/// Matchers that are of the profile type, not of a label: it is asked for beside them.
const OF_TYPE: [&str; 2] = ["__profile_type__", "__type__"];
/// What the data source calls services, and what they are called here.
const SERVICE: (&str, &str) = ("service_name", "service");
/// Nodes of a flame graph where nobody says how many.
const USUAL_NODES: usize = 8_192;
/// Series where nobody says how many.
const USUAL_SERIES: usize = 50;

/// What every call is answered from.
pub(super) struct Asking<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) limits: &'a Limits,
    pub(super) now_unix_ns: u64,
    pub(super) asker: Asker,
}

impl Asking<'_> {
    /// The time between these, milliseconds since the epoch; where nobody says any, the last hour.
    fn range(&self, start: i64, end: i64) -> Result<Range, Fault> {
        let text = |ms: i64, usual: &str| match u64::try_from(ms) {
            Ok(0) => Ok(usual.to_owned()),
            Ok(ms) => Ok(format!("{}.{:03}", ms / 1000, ms % 1000)),
            Err(_) => Err(Fault::invalid("times are milliseconds since 1970, and none is before it")),
        };
        let (start, end) = (text(start, "now-1h")?, text(end, "now")?);
        Ok(Range::between(&start, &end, self.now_unix_ns, self.limits)?)
    }

    /// A question of a type, or of whatever has labels where that is empty.
    fn question(
        &self,
        profile_type: &str,
        selector: &str,
        range: Range,
        by: Vec<String>,
    ) -> Result<Question, Fault> {
        let braces = if selector.trim().is_empty() { "{}" } else { selector };
        let by = by.into_iter().map(ours).collect();
        let mut question = Question::new(&format!("{profile_type}{braces}"), range, by, self.limits)?;
        question.selector.matchers.retain(|matcher| !OF_TYPE.contains(&matcher.name.as_str()));
        for matcher in &mut question.selector.matchers {
            matcher.name = ours(std::mem::take(&mut matcher.name));
        }
        question.asker = self.asker.clone();
        Ok(question)
    }

    /// A question of whatever fulfils all selectors.
    fn of_any(&self, selectors: &[String], start: i64, end: i64) -> Result<Question, Fault> {
        let range = self.range(start, end)?;
        let mut all = self.question("", "", range, Vec::new())?;
        for selector in selectors {
            let one = self.question("", selector, range, Vec::new())?;
            all.selector.matchers.extend(one.selector.matchers);
            all.selector.classes.extend(one.selector.classes);
        }
        Ok(all)
    }
}

/// The name of a label here.
fn ours(name: String) -> String {
    if name == SERVICE.0 { SERVICE.1.to_owned() } else { name }
}

/// What can be asked for. The store does not know which of it there is in a time: all of it is told.
pub(super) fn profile_types(
    asking: &Asking<'_>,
    _: ProfileTypesRequest,
) -> Result<ProfileTypesResponse, Fault> {
    Ok(ProfileTypesResponse { profile_types: types::all(&asking.store.kinds()?) })
}

/// Names of labels; that of services by both of its names.
pub(super) fn label_names(
    asking: &Asking<'_>,
    request: LabelNamesRequest,
) -> Result<LabelNamesResponse, Fault> {
    let question = asking.of_any(&request.matchers, request.start, request.end)?;
    let labels = catalogue::label_names(asking.store, &question, asking.limits)?.labels;
    let mut names: Vec<String> = labels.into_iter().map(|label| label.name).collect();
    if names.iter().any(|name| name == SERVICE.1) {
        names.push(SERVICE.0.to_owned());
    }
    names.sort_unstable();
    names.dedup();
    Ok(LabelNamesResponse { names })
}

/// Values of a label; none of one that nothing has.
pub(super) fn label_values(
    asking: &Asking<'_>,
    request: LabelValuesRequest,
) -> Result<LabelValuesResponse, Fault> {
    let question = asking.of_any(&request.matchers, request.start, request.end)?;
    let values = catalogue::label_values(asking.store, &question, &ours(request.name), asking.limits);
    match values {
        Ok(values) => Ok(LabelValuesResponse { names: values.values }),
        Err(crate::query::QueryError::NotFound(_)) => Ok(LabelValuesResponse::default()),
        Err(error) => Err(error.into()),
    }
}

/// Sums over time.
pub(super) fn select_series(
    asking: &Asking<'_>,
    request: SelectSeriesRequest,
) -> Result<SelectSeriesResponse, Fault> {
    if request.aggregation() == TimeSeriesAggregationType::Average {
        let message = "the mean of single profiles is not known: sums of them are stored; ask for the sum";
        return Err(Fault::unimplemented(message));
    }
    no_call_sites(request.stack_trace_selector.as_ref())?;
    let step_ns = step_ns(request.step)?;
    let most = at_most(request.limit, USUAL_SERIES, asking.limits.max_series, "limit")?;
    let name = types::name_of(&request.profile_type_id)?;
    let range = asking.range(request.start, request.end)?;
    let question = asking.question(name, &request.label_selector, range, request.group_by.clone())?;
    let found = series::series(asking.store, &question, step_ns, most, asking.limits)?;
    let begin_ms = found.subject.from_unix_ms;
    let point = |(step, value): (usize, Option<u64>)| {
        let timestamp = begin_ms + step as u64 * found.step_ms;
        value.map(|value| Point {
            value: value as f64,
            timestamp: i64::try_from(timestamp).unwrap_or(i64::MAX),
        })
    };
    let series = found.series.iter().map(|series| Series {
        labels: labels(&request.group_by, &series.labels),
        points: series.values.iter().copied().enumerate().filter_map(point).collect(),
    });
    Ok(SelectSeriesResponse { series: series.collect() })
}

/// The group's labels by the names that they were asked for by.
fn labels(asked: &[String], found: &Labels) -> Vec<LabelPair> {
    let pair = |name: &String| {
        let value = found.get(&ours(name.clone()))?;
        Some(LabelPair { name: name.clone(), value: value.clone() })
    };
    asked.iter().filter_map(pair).collect()
}

/// A merged flame graph.
pub(super) fn select_merge_stacktraces(
    asking: &Asking<'_>,
    request: SelectMergeStacktracesRequest,
) -> Result<SelectMergeStacktracesResponse, Fault> {
    if !matches!(request.format(), ProfileFormat::Unspecified | ProfileFormat::Flamegraph) {
        let message = "only flame graphs are written here: /api/v1/pprof has the same for pprof";
        return Err(Fault::unimplemented(message));
    }
    no_call_sites(request.stack_trace_selector.as_ref())?;
    if !request.profile_id_selector.is_empty() {
        let message = "sums of profiles are stored, and none by its id: ask for less time";
        return Err(Fault::unimplemented(message));
    }
    if !request.trace_id_selector.is_empty() || !request.span_selector.is_empty() {
        return Err(no_spans());
    }
    let nodes = at_most(request.max_nodes, USUAL_NODES, asking.limits.max_nodes, "maxNodes")?;
    let name = types::name_of(&request.profile_type_id)?;
    let range = asking.range(request.start, request.end)?;
    let question = asking.question(name, &request.label_selector, range, Vec::new())?;
    let found = flame_query::flame(asking.store, &question, None, nodes, asking.limits)?;
    Ok(SelectMergeStacktracesResponse { flamegraph: Some(flame::of(&found)) })
}

/// Always refused: an empty flame graph would say that a span took no time.
pub(super) fn select_merge_span_profile() -> Result<Vec<u8>, Fault> {
    Err(no_spans())
}

fn no_spans() -> Fault {
    Fault::unimplemented(
        "no spans are stored: samples are of threads, whichever request they worked for; ask without a span",
    )
}

fn no_call_sites(selector: Option<&StackTraceSelector>) -> Result<(), Fault> {
    if selector.is_none_or(|selector| selector.call_site.is_empty()) {
        return Ok(());
    }
    Err(Fault::unimplemented("stacks are not selected by call site: ask without a stack trace selector"))
}

fn step_ns(step_s: f64) -> Result<Option<u64>, Fault> {
    if step_s == 0.0 {
        return Ok(None);
    }
    if !step_s.is_finite() || step_s < 0.0 {
        return Err(Fault::invalid("a step is a number of seconds above 0"));
    }
    Ok(Some((step_s * 1e9) as u64))
}

fn at_most(asked: Option<i64>, usual: usize, most: usize, what: &str) -> Result<usize, Fault> {
    match asked {
        None | Some(0) => Ok(usual.min(most)),
        // Pyroscope has it that more than there may be is as many as there may be.
        Some(asked) => usize::try_from(asked)
            .map(|asked| asked.min(most))
            .map_err(|_| Fault::invalid(format!("{what}={asked} is no number of things"))),
    }
}

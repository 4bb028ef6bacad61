//! The parameters of a URL: each known by its endpoint, each once.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use crate::query::QueryError;
use crate::query::flame::ClassFrames;
use crate::query::fleet::Past;
use crate::query::limits::Limits;
use crate::query::question::{Question, Range};
use crate::query::time;
use crate::store::Asker;

/// Bytes of all parameters at most: two selectors, escaped.
pub(super) const MAX_BYTES: usize = 64 << 10;

/// A parameter, as the description of the API has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
    pub(super) description: &'static str,
    pub(super) example: &'static str,
}

const fn optional(name: &'static str, description: &'static str, example: &'static str) -> Parameter {
    Parameter { name, is_required: false, description, example }
}

pub(super) const QUERY: Parameter = Parameter {
    name: "query",
    is_required: true,
    description: "what of: a type of profile with matchers of labels",
    example: r#"cpu{service="web"}"#,
};
pub(super) const MATCHERS: Parameter =
    optional("query", "whose: matchers of labels; all where absent", r#"{zone="z1"}"#);
pub(super) const SIGNAL: Parameter = optional(
    "query",
    "a signal's name with matchers of labels; all where absent",
    r#"cpu.utilization{host="a"}"#,
);
pub(super) const OF: Parameter = Parameter {
    name: "of",
    is_required: true,
    description: "what latencies are of: run-queue or disk",
    example: "disk",
};
pub(super) const FROM: Parameter = optional(
    "from",
    "from when, inclusive: now-1h, RFC 3339, or Unix seconds; now-1h where absent",
    "now-1h",
);
pub(super) const UNTIL: Parameter = optional("until", "up to when, exclusive; now where absent", "now");
pub(super) const BY: Parameter =
    optional("by", "labels to keep apart by, separated by commas", "host,service");
pub(super) const STEP: Parameter = optional("step", "length of a step of time", "1m");
pub(super) const LIMIT: Parameter = optional("limit", "how many of them at most", "100");
pub(super) const NODES: Parameter =
    optional("nodes", "nodes at most; the lightest are merged, and the answer says how many", "20000");
pub(super) const CLASS: Parameter = optional(
    "class",
    "where the class of time stands in stacks: none, leaf or root; leaf where absent and the type is not of CPU time alone",
    "leaf",
);
pub(super) const DIAGNOSIS: Parameter =
    optional("diagnosis", "true: with the whole diagnosis of the worst host", "true");
pub(super) const TYPE: Parameter = optional(
    "type",
    "the part of a recording: wall, cpu, offcpu, blocked, queue, io, memory, lock, net, wait, idle; cpu where absent",
    "cpu",
);
pub(super) const HOST: Parameter = Parameter {
    name: "host",
    is_required: true,
    description: "a host's name, or the beginning of its agent's identity",
    example: "a",
};
pub(super) const WAIT: Parameter = optional(
    "wait",
    "how long to wait for the end before answering: up to 30s; not at all where absent",
    "10s",
);
pub(super) const FROM_MS: Parameter = optional(
    "from_ms",
    "of a stretch alone, with until_ms: milliseconds since the recording's start",
    "1200",
);
pub(super) const UNTIL_MS: Parameter =
    optional("until_ms", "up to when, exclusive: milliseconds since the recording's start", "1400");
pub(super) const BEFORE_QUERY: Parameter = optional(
    "before_query",
    "what to compare with; the same query where absent",
    r#"cpu{service="web",version="1"}"#,
);
pub(super) const BEFORE_FROM: Parameter =
    optional("before_from", "from when to compare with; as `from` where absent", "now-25h");
pub(super) const BEFORE_UNTIL: Parameter =
    optional("before_until", "up to when to compare with; as `until` where absent", "now-24h");

/// What was asked, with the time it was asked at.
#[derive(Debug)]
pub(super) struct Asked<'l> {
    parameters: BTreeMap<String, String>,
    /// The part of the path that an endpoint leaves open.
    pub(super) name: String,
    now_unix_ns: u64,
    pub(super) limits: &'l Limits,
    pub(super) asker: Asker,
    /// What is known of earlier weeks.
    pub(super) past: Arc<Past>,
}

impl<'l> Asked<'l> {
    /// Reads the part of a URL behind the question mark.
    pub(super) fn read(
        text: &str,
        known: &[Parameter],
        name: String,
        now_unix_ns: u64,
        limits: &'l Limits,
        asker: Asker,
    ) -> Result<Self, QueryError> {
        if text.len() > MAX_BYTES {
            return Err(QueryError::TooLarge(format!("the parameters are longer than {MAX_BYTES} bytes")));
        }
        let mut parameters = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            if !known.iter().any(|parameter| parameter.name == key) {
                let names: Vec<&str> = known.iter().map(|parameter| parameter.name).collect();
                let there_are = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
                return Err(QueryError::bad(format!(
                    "unknown parameter {key:?}; the parameters here: {there_are}"
                )));
            }
            if parameters.insert(key.clone().into_owned(), value.into_owned()).is_some() {
                return Err(QueryError::bad(format!("{key} is there twice: let it be there once")));
            }
        }
        if let Some(missing) =
            known.iter().find(|known| known.is_required && !parameters.contains_key(known.name))
        {
            let Parameter { name, description, example, .. } = missing;
            return Err(QueryError::bad(format!(
                "{name} is missing: {description}, such as {name}={example}"
            )));
        }
        Ok(Self { parameters, name, now_unix_ns, limits, asker, past: Arc::default() })
    }

    /// The same by somebody who remembers earlier weeks.
    pub(super) fn remembering(self, past: Arc<Past>) -> Self {
        Self { past, ..self }
    }

    /// What a parameter says.
    pub(super) fn text(&self, parameter: Parameter) -> Option<&str> {
        self.get(parameter)
    }

    fn get(&self, parameter: Parameter) -> Option<&str> {
        self.parameters.get(parameter.name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The query, of the time that was asked for.
    pub(super) fn question(&self) -> Result<Question, QueryError> {
        let range = self.range(self.get(FROM).unwrap_or("now-1h"), self.get(UNTIL).unwrap_or("now"))?;
        self.ask(self.get(QUERY).unwrap_or("{}"), range)
    }

    /// What to compare with: where it says nothing, it is as the query.
    pub(super) fn question_before(&self) -> Result<Question, QueryError> {
        let from = self.get(BEFORE_FROM).or(self.get(FROM)).unwrap_or("now-1h");
        let until = self.get(BEFORE_UNTIL).or(self.get(UNTIL)).unwrap_or("now");
        let text = self.get(BEFORE_QUERY).or(self.get(QUERY)).unwrap_or("{}");
        self.ask(text, self.range(from, until)?)
    }

    fn ask(&self, text: &str, range: Range) -> Result<Question, QueryError> {
        let question = Question::new(text, range, self.by(), self.limits)?;
        Ok(Question { asker: self.asker.clone(), ..question })
    }

    pub(super) fn step_ns(&self) -> Result<Option<u64>, QueryError> {
        Ok(self.get(STEP).map(time::duration_ns).transpose()?)
    }

    /// A number of things, at most what is allowed.
    pub(super) fn count(&self, parameter: Parameter, usual: usize, most: usize) -> Result<usize, QueryError> {
        let Some(text) = self.get(parameter) else { return Ok(usual.min(most)) };
        let count = usize::from_str(text).ok().filter(|count| *count > 0);
        let count = count
            .ok_or_else(|| QueryError::bad(format!("{}={text:?} is no number above 0", parameter.name)))?;
        if count > most {
            return Err(QueryError::TooLarge(format!(
                "{}={count} is more than {most}: ask for fewer",
                parameter.name
            )));
        }
        Ok(count)
    }

    /// A number, where there is one.
    pub(super) fn number(&self, parameter: Parameter) -> Result<Option<u64>, QueryError> {
        let bad = |text: &str| QueryError::bad(format!("{}={text:?} is no whole number", parameter.name));
        self.get(parameter).map(|text| u64::from_str(text).map_err(|_| bad(text))).transpose()
    }

    pub(super) fn class_frames(&self) -> Result<Option<ClassFrames>, QueryError> {
        self.get(CLASS)
            .map(|text| match text {
                "none" => Ok(ClassFrames::None),
                "leaf" => Ok(ClassFrames::Leaf),
                "root" => Ok(ClassFrames::Root),
                _ => Err(QueryError::bad(format!("class={text:?}: write none, leaf or root"))),
            })
            .transpose()
    }

    pub(super) fn is_set(&self, parameter: Parameter) -> Result<bool, QueryError> {
        match self.get(parameter) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(QueryError::bad(format!("{}={text:?}: write true or false", parameter.name))),
        }
    }

    fn range(&self, from: &str, until: &str) -> Result<Range, QueryError> {
        Range::between(from, until, self.now_unix_ns, self.limits)
    }

    fn by(&self) -> Vec<String> {
        let labels = self.get(BY).into_iter().flat_map(|by| by.split(','));
        labels.map(|label| label.trim().to_owned()).collect()
    }
}

//! A fleet at a glance: each host with what limits it, since when, what limited it before, and whether it is still heard of. One answer, for
//! the first view of the page.

use std::collections::BTreeMap;

use chokepoint_analysis::verdict::code::Code;
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::constraints::shows_in;
use super::limits::Limits;
use super::question::{MS_NS, Question};
use crate::labels::Labels;
use crate::store::{AgentStatus, Selection, SignalQuery, Store, StoreError, VerdictSpan};

/// The label that tells hosts apart.
const HOST: &str = "host";
/// The signal by which it is told how much of a host's CPUs is free.
const CPU: &str = "cpu.utilization";
/// How far back from the end of the time the newest value of that is looked for: some windows.
const RECENT_NS: u64 = 120_000_000_000;
/// Where all of the time is too much, the newest such part of it is asked for, and of that again.
const LESS: u64 = 4;
/// Spans of a host that are told, the newest: as many as a strip of them has room for.
const MAX_SPANS: usize = 240;

/// Hosts at a glance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// From here, inclusive: milliseconds since the Unix epoch, as all times.
    pub from_unix_ms: u64,
    /// Up to here, exclusive.
    pub until_unix_ms: u64,
    /// From here on it is told what limited hosts: later than `from_unix_ms` where that was too much for one answer.
    pub told_from_unix_ms: u64,
    /// The hosts: the worst first, then by name.
    pub hosts: Vec<Host>,
    /// How many hosts there are beside these.
    pub left_out: u64,
}

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its labels.
    pub labels: Labels,
    /// Release of its kernel; empty where it is not known, as is its agent's version.
    pub kernel: String,
    /// Its agent's version.
    pub program: String,
    /// When its agent's last window ended, whatever time is asked for; 0 where it has sent none.
    pub last_window_unix_ms: u64,
    /// Batches that its agent has dropped.
    pub dropped_batches: u64,
    /// How much of its CPUs was in use at the end of the time, per cent; absent where nothing is stored of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<f64>,
    /// The last diagnosis in this time; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What limited it in this time, in the order of time, the newest of it.
    pub history: Vec<Span>,
    /// How many spans there are before these.
    pub earlier: u64,
}

/// What limits a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its code.
    pub code: String,
    /// Whether it names a constraint: else nothing limits the host, or it is not known what does.
    pub is_constraint: bool,
    /// 0 nothing is wrong, 1 low, 2 warning, 3 critical.
    pub severity: u8,
    /// How sure it is, 0 to 1.
    pub confidence: f64,
    /// The part of the demand that it takes, 0 to 1.
    pub share: f64,
    /// In one sentence.
    pub summary: String,
    /// Since when it is so without a break; that may be before the time asked for.
    pub since_unix_ms: u64,
    /// When the last window of it ended.
    pub until_unix_ms: u64,
    /// By how much at most throughput would grow without it; absent where that does not follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain_upper_bound: Option<f64>,
    /// Names of processes that suffer, the worst first.
    pub processes: Vec<String>,
    /// Names of processes that cause it, the worst first.
    pub culprits: Vec<String>,
    /// What to do first; empty where there is nothing to do.
    pub next_step: String,
    /// Classes of thread time that show it.
    pub shows_in: Vec<String>,
}

/// A stretch of time in which the same limited a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// What.
    pub code: String,
    /// How bad it was in its last window.
    pub severity: u8,
    /// When it began.
    pub from_unix_ms: u64,
    /// When it ended.
    pub until_unix_ms: u64,
}

impl Span {
    fn of(span: &VerdictSpan) -> Self {
        Self {
            code: span.code.clone(),
            severity: span.severity,
            from_unix_ms: span.from_unix_ns / MS_NS,
            until_unix_ms: span.until_unix_ns / MS_NS,
        }
    }
}

/// The hosts that a question asks for: those of which something was diagnosed in its time, and those whose agents are known.
///
/// # Errors
/// The question is of a type of profile, or the store cannot.
pub fn overview(store: &dyn Store, question: &Question, limits: &Limits) -> Result<Overview, QueryError> {
    let selection = question.selection_of_any()?;
    let mut hosts: BTreeMap<String, Host> = BTreeMap::new();
    for agent in store.agents_for(&selection.asker)? {
        if !selection.matchers.iter().all(|matcher| matcher.admits(&agent.labels)) {
            continue;
        }
        let host = hosts.entry(name(&agent.labels)).or_default();
        // A host that was set up anew has several agents, of which the last lives. Other programs that send profiles of the host
        // diagnose nothing and name no kernel: they tell of it only where no agent does.
        let rank = |kernel: &str, last_window_unix_ms| (!kernel.is_empty(), last_window_unix_ms);
        let known = rank(&host.kernel, host.last_window_unix_ms);
        if host.labels.is_empty() || rank(&agent.kernel, agent.last_window_unix_ns / MS_NS) >= known {
            take_agent(host, agent);
        }
    }
    let (spans, told_from_unix_ns) = spans(store, &selection)?;
    let mut last: BTreeMap<String, &VerdictSpan> = BTreeMap::new();
    for span in &spans {
        let host = hosts.entry(name(&span.labels)).or_default();
        if host.labels.is_empty() {
            host.labels.clone_from(&span.labels);
        }
        host.history.push(Span::of(span));
        let newest = last.entry(name(&span.labels)).or_insert(span);
        if span.until_unix_ns >= newest.until_unix_ns {
            *newest = span;
        }
    }
    for (name, span) in last {
        hosts.entry(name).or_default().verdict = Some(verdict(span));
    }
    let recent = Selection {
        from_unix_ns: selection.from_unix_ns.max(selection.until_unix_ns.saturating_sub(RECENT_NS)),
        ..selection
    };
    let query = SignalQuery { selection: recent, name: CPU.to_owned(), max_values: limits.max_signal_values };
    for series in store.signals(&query)? {
        if let (Some(host), Some(last)) = (hosts.get_mut(&name(&series.labels)), series.values.last()) {
            host.cpu_pct = Some(last.value);
        }
    }
    let mut hosts: Vec<Host> = hosts.into_values().collect();
    for host in &mut hosts {
        let earlier = host.history.len().saturating_sub(MAX_SPANS);
        host.history.drain(..earlier);
        host.earlier = earlier as u64;
    }
    // Stable, so that equals stay in the order of their names.
    let badness = |host: &Host| host.verdict.as_ref().map_or((0, 0.0), |found| (found.severity, found.share));
    hosts.sort_by(|one, other| {
        let (one, other) = (badness(one), badness(other));
        other.0.cmp(&one.0).then(other.1.total_cmp(&one.1))
    });
    let left_out = hosts.len().saturating_sub(limits.max_series) as u64;
    hosts.truncate(limits.max_series);
    Ok(Overview {
        from_unix_ms: question.range.from_unix_ns / MS_NS,
        until_unix_ms: question.range.until_unix_ns / MS_NS,
        told_from_unix_ms: told_from_unix_ns / MS_NS,
        hosts,
        left_out,
    })
}

/// What limited hosts in the time, or in the newest part of it that is not too much for one answer, and since when that is.
fn spans(store: &dyn Store, selection: &Selection) -> Result<(Vec<VerdictSpan>, u64), QueryError> {
    let mut from_unix_ns = selection.from_unix_ns;
    loop {
        let length_ns = selection.until_unix_ns.saturating_sub(from_unix_ns);
        match store.verdicts(&Selection { from_unix_ns, ..selection.clone() }) {
            Err(StoreError::TooLarge { .. }) if length_ns > RECENT_NS => {
                from_unix_ns = selection.until_unix_ns - (length_ns / LESS).max(RECENT_NS);
            }
            found => return Ok((found?, from_unix_ns)),
        }
    }
}

fn name(labels: &Labels) -> String {
    labels.get(HOST).cloned().unwrap_or_default()
}

fn take_agent(host: &mut Host, agent: AgentStatus) {
    host.labels = agent.labels;
    host.kernel = agent.kernel;
    host.program = agent.program;
    host.last_window_unix_ms = agent.last_window_unix_ns / MS_NS;
    host.dropped_batches = agent.dropped_batches;
}

fn verdict(span: &VerdictSpan) -> Verdict {
    // An agent may have sent anything: what is not there is left out.
    let diagnosis: serde_json::Value = serde_json::from_str(&span.diagnosis).unwrap_or_default();
    let found = &diagnosis["verdict"];
    let names = |field: &str| -> Vec<String> {
        let names = found[field].as_array().into_iter().flatten();
        names.filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    };
    Verdict {
        code: span.code.clone(),
        is_constraint: Code::from_name(&span.code).is_none_or(Code::is_constraint),
        severity: span.severity,
        confidence: span.confidence,
        share: span.share,
        summary: span.summary.clone(),
        since_unix_ms: span.from_unix_ns / MS_NS,
        until_unix_ms: span.until_unix_ns / MS_NS,
        gain_upper_bound: found["gain_upper_bound"].as_f64(),
        processes: names("processes"),
        culprits: names("culprits"),
        next_step: found["next_steps"][0]["action"].as_str().unwrap_or_default().to_owned(),
        shows_in: shows_in(&span.code),
    }
}

#[cfg(test)]
mod tests {
    use super::super::question::Range;
    use super::*;
    use crate::store::{Appender, Frames, Holdings, SignalSeries, StackId, SumQuery, Sums};
    use crate::store_in_memory::InMemory;
    use crate::store_in_memory::fleet::{self, START_NS};
    use chokepoint_analysis::profile::Unit;
    use chokepoint_proto::stream::{Batch, Dictionary, Hello, Window};

    /// A store that has too much to tell of more than so long a time.
    struct Full(InMemory, u64);

    impl Store for Full {
        fn verdicts(&self, selection: &Selection) -> Result<Vec<VerdictSpan>, StoreError> {
            if selection.until_unix_ns - selection.from_unix_ns > self.1 {
                return Err(StoreError::TooLarge { what: "bytes of verdicts", limit: 1 });
            }
            self.0.verdicts(selection)
        }
        fn agents(&self) -> Result<Vec<AgentStatus>, StoreError> {
            self.0.agents()
        }
        fn signals(&self, query: &SignalQuery) -> Result<Vec<SignalSeries>, StoreError> {
            self.0.signals(query)
        }
        fn appender(&self, hello: &Hello, identity: Option<&str>) -> Result<Box<dyn Appender>, StoreError> {
            self.0.appender(hello, identity)
        }
        fn sums(&self, query: &SumQuery) -> Result<Sums, StoreError> {
            self.0.sums(query)
        }
        fn frames(&self, stacks: &[StackId]) -> Result<Frames, StoreError> {
            self.0.frames(stacks)
        }
        fn labels(&self, of: &Selection, most: usize) -> Result<Vec<(String, Vec<String>)>, StoreError> {
            self.0.labels(of, most)
        }
        fn kinds(&self) -> Result<Vec<(String, Unit)>, StoreError> {
            self.0.kinds()
        }
        fn holdings(&self) -> Result<Holdings, StoreError> {
            self.0.holdings()
        }
        fn maintain(&self, now_unix_ns: u64) -> Result<bool, StoreError> {
            self.0.maintain(now_unix_ns)
        }
    }

    /// Windows of a host at this time, from an agent on this kernel or from a program that names none.
    fn sent(store: &InMemory, agent: u8, program: &str, kernel: &str, start_unix_ns: u64) {
        let hello = Hello {
            agent: vec![agent; 16],
            host: "a".to_owned(),
            program: program.to_owned(),
            kernel: kernel.to_owned(),
            ..Hello::default()
        };
        let window = Window { start_unix_ns, duration_ns: 10_000_000_000, ..Window::default() };
        let mut appender = store.appender(&hello, None).expect("an appender");
        let batch = Batch { sequence: 1, ..Batch::default() };
        appender.append(&batch, &window, &Dictionary::default(), true).expect("it is stored");
    }

    #[test]
    fn an_agent_tells_of_its_host_whatever_else_sends_profiles_of_it() {
        let limits = Limits::default();
        let range = Range { from_unix_ns: START_NS, until_unix_ns: START_NS + 60_000_000_000 };
        let question = Question::new("{}", range, Vec::new(), &limits).expect("a question");
        let program = |store: &InMemory| {
            let told = overview(store, &question, &limits).expect("an answer");
            told.hosts.iter().map(|host| host.program.clone()).collect::<Vec<_>>()
        };
        // In either order of their identities, whoever was heard of last.
        for (agent, other) in [(1, 2), (2, 1)] {
            let store = InMemory::default();
            sent(&store, other, "otlp", "", START_NS + 20_000_000_000);
            assert_eq!(program(&store), ["otlp"]);
            sent(&store, agent, "0.1.0", "6.1.0", START_NS);
            assert_eq!(program(&store), ["0.1.0"]);
        }
        // Of two agents, the later one.
        let store = InMemory::default();
        sent(&store, 1, "0.2.0", "6.1.0", START_NS + 20_000_000_000);
        sent(&store, 2, "0.1.0", "6.1.0", START_NS);
        assert_eq!(program(&store), ["0.2.0"]);
    }

    #[test]
    fn what_is_too_much_is_told_of_its_newest_part_and_from_when_on() {
        let limits = Limits::default();
        let hour_ns = 3_600_000_000_000;
        let range = Range {
            from_unix_ns: START_NS + 20_000_000_000 - hour_ns,
            until_unix_ns: START_NS + 20_000_000_000,
        };
        let question = Question::new("{}", range, Vec::new(), &limits).expect("a question");
        let all = overview(&fleet::store(), &question, &limits).expect("an answer");
        assert_eq!(all.told_from_unix_ms, all.from_unix_ms);
        let part = overview(&Full(fleet::store(), hour_ns / 10), &question, &limits).expect("an answer");
        assert_eq!(part.told_from_unix_ms, (range.until_unix_ns - hour_ns / 16) / MS_NS);
        // What limits them now is in it.
        assert_eq!(part.hosts, all.hosts);
        assert!(matches!(
            overview(&Full(fleet::store(), 0), &question, &limits),
            Err(QueryError::TooLarge(_))
        ));
    }

    #[test]
    fn what_a_diagnosis_says_is_told_and_what_it_lacks_is_left_out() {
        let diagnosis = r#"{"verdict":{"gain_upper_bound":2.5,"processes":["web",7],"culprits":["db"],
            "next_steps":[{"action":"shorten it"},{"action":"shard it"}]}}"#;
        let span = |code: &str, diagnosis: &str| VerdictSpan {
            code: code.to_owned(),
            diagnosis: diagnosis.to_owned(),
            ..VerdictSpan::default()
        };
        let told = verdict(&span("lock.mutex", diagnosis));
        assert_eq!((told.gain_upper_bound, told.is_constraint), (Some(2.5), true));
        assert_eq!((told.processes, told.culprits), (vec!["web".to_owned()], vec!["db".to_owned()]));
        assert_eq!((told.next_step.as_str(), told.shows_in), ("shorten it", vec!["futex".to_owned()]));
        for damaged in ["", "[]", "{\"verdict\":3}", "no JSON"] {
            let told = verdict(&span("none.healthy", damaged));
            assert_eq!(
                (told.gain_upper_bound, told.is_constraint, told.next_step.as_str()),
                (None, false, "")
            );
        }
    }
}

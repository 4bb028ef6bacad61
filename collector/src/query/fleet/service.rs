//! One scope: what limits it on each of its hosts, by what is stored of its threads and by what the hosts' agents say.

use std::collections::{BTreeMap, BTreeSet};

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::fleet::scope::{HostVerdict, Source, is_of_service};
use chokepoint_analysis::fleet::{Beside, Target, Whose};
use chokepoint_analysis::profile::{Line, Location, LocationId};
use chokepoint_analysis::verdict::code::Code;
use chokepoint_analysis::verdict::finding::{Finding, Severity};
use chokepoint_analysis::verdict::{Diagnosis, diagnose};

use super::super::QueryError;
use super::read::{HOST, Known, Reader, Scope, name_of};
use crate::store::{Frames, StackId, StoreError, Sum, SumQuery, VerdictSpan};

/// Hosts whose time is put together for what is said of a constraint: the worst.
const MERGED_HOSTS: usize = 50;

/// The stored rows of a scope.
pub(super) struct Rows {
    /// By host.
    by_host: BTreeMap<String, Vec<Sum>>,
    frames: Frames,
    leaves: BTreeMap<StackId, usize>,
    /// What is missing of them, each a sentence.
    pub missing: Vec<String>,
}

impl Rows {
    /// Reads them; without stacks where there are too many.
    pub(super) fn read(reader: &Reader<'_>, by: &[String], scope: &Scope) -> Result<Self, QueryError> {
        let mut query = SumQuery {
            selection: reader.of_scope(by, scope)?,
            kind: "wall".to_owned(),
            classes: Vec::new(),
            group_by: [HOST, "process", "thread"].map(str::to_owned).to_vec(),
            step_ns: None,
            by_class: true,
            by_stack: true,
            max_sums: reader.limits.max_sums,
        };
        let mut missing = Vec::new();
        let sums = match reader.store.sums(&query) {
            Err(StoreError::TooLarge { .. }) => {
                missing.push("stacks are left out, there are too many: ask for less time".to_owned());
                query.by_stack = false;
                reader.store.sums(&query)?
            }
            sums => sums?,
        };
        let wanted: BTreeSet<StackId> = sums.sums.iter().filter_map(|sum| sum.stack).collect();
        let wanted: Vec<StackId> = wanted.into_iter().collect();
        let frames = reader.store.frames(&wanted)?;
        let leaves = wanted.into_iter().zip(frames.leaves.iter().copied()).collect();
        let mut by_host: BTreeMap<String, Vec<Sum>> = BTreeMap::new();
        for sum in sums.sums {
            let host = sum.group.first().cloned().unwrap_or_default();
            by_host.entry(host).or_default().push(sum);
        }
        Ok(Self { by_host, frames, leaves, missing })
    }

    /// The hosts that the scope is on.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.by_host.keys()
    }

    /// Names of the scope's processes on a host.
    fn processes(&self, host: &str) -> BTreeSet<&str> {
        let rows = self.by_host.get(host).into_iter().flatten();
        rows.filter_map(|row| row.group.get(1)).map(String::as_str).collect()
    }

    /// Adds what a host did.
    fn add(&self, host: &str, target: &mut Target) {
        let mut known: BTreeMap<usize, LocationId> = BTreeMap::new();
        for row in self.by_host.get(host).into_iter().flatten() {
            let [_, process, thread] = row.group.as_slice() else { continue };
            let leaf = row.stack.and_then(|stack| self.leaves.get(&stack)).copied();
            let locations = leaf.map_or_else(Vec::new, |leaf| self.frames.leaf_first(leaf).collect());
            let frames = locations
                .into_iter()
                .map(|at| *known.entry(at).or_insert_with(|| self.location(at, target)))
                .collect();
            let class = Class::from_name(&row.class).unwrap_or(Class::Other);
            target.add(Whose { process, thread }, class, frames, row.count, row.weight);
        }
    }

    fn location(&self, at: usize, target: &mut Target) -> LocationId {
        let location = &self.frames.locations[at];
        let module = target.builder.module(self.frames.modules[location.module].clone());
        let line = |(function, line): &(usize, u32)| Line {
            function: target.builder.function(self.frames.functions[*function].clone()),
            line: *line,
        };
        let lines = location.lines.iter().map(line).collect();
        target.builder.location(Location { module, address: location.address, lines, is_spin_wait: false })
    }
}

/// Draws a scope's verdicts.
pub(super) struct Judge<'a> {
    pub reader: Reader<'a>,
    pub by: &'a [String],
    pub known: &'a Known,
}

impl Judge<'_> {
    fn window_ns(&self, host: &str) -> u64 {
        let range = self.reader.question.range;
        self.known.covered_ns(host, range.until_unix_ns - range.from_unix_ns)
    }

    fn target(&self, scope: &Scope, window_ns: u64) -> Target {
        let name = format!("{} {}", self.by.join(","), name_of(self.by, scope));
        Target::new(name, self.reader.question.range.from_unix_ns, window_ns)
    }

    /// What limits a scope on each of its hosts.
    pub(super) fn hosts(&self, scope: &Scope, rows: &Rows) -> Vec<HostVerdict> {
        rows.hosts().map(|host| self.host(scope, rows, host)).collect()
    }

    fn host(&self, scope: &Scope, rows: &Rows, host: &str) -> HostVerdict {
        let mut target = self.target(scope, self.window_ns(host));
        self.add(scope, rows, host, &mut target);
        let signals = self.known.signals_of(host, self.window_ns(host));
        let diagnosis = diagnose(&target.finish(signals));
        let own = HostVerdict::of(host, &diagnosis.verdict);
        let agents = self.known.verdicts.get(host).and_then(|span| of_agent(host, span));
        let processes = rows.processes(host);
        let is_shared = |name: &str| {
            let key = (host.to_owned(), name.to_owned());
            self.known.scopes_of.get(&key).is_some_and(|scopes| *scopes > 1)
        };
        match agents {
            Some(agents) if is_of_service(&agents, &own, |name| processes.contains(name), is_shared) => {
                agents
            }
            _ => own,
        }
    }

    fn add(&self, scope: &Scope, rows: &Rows, host: &str, target: &mut Target) {
        rows.add(host, target);
        let waited = self.known.waited.get(scope).and_then(|hosts| hosts.get(host));
        for one in waited.into_iter().flatten() {
            target.waited(one.clone());
        }
        let others = self.known.on_cpu.get(host).into_iter().flatten();
        let others = others.filter(|(other, _)| other != scope);
        let named =
            |(other, cpu_ns): &(Scope, u64)| Beside { name: name_of(self.by, other), cpu_ns: *cpu_ns };
        target.beside(others.map(named));
    }

    /// The finding of this code in the time of all these hosts together; `None` where they differ too much to have it together.
    pub(super) fn together(
        &self,
        scope: &Scope,
        rows: &Rows,
        hosts: &[&HostVerdict],
        code: Code,
    ) -> Option<Finding> {
        let merged = || hosts.iter().filter(|host| host.source == Source::Collector).take(MERGED_HOSTS);
        let window_ns = merged().map(|host| self.window_ns(&host.host)).max()?;
        let mut target = self.target(scope, window_ns);
        for host in merged() {
            self.add(scope, rows, &host.host, &mut target);
        }
        // What is said of one host's resources says nothing of them together.
        let Diagnosis { ranked, .. } = diagnose(&target.finish(None));
        ranked.into_iter().find(|finding| finding.code == code)
    }
}

/// What an agent said last; `None` of what is not understood.
fn of_agent(host: &str, span: &VerdictSpan) -> Option<HostVerdict> {
    /// What is read of a diagnosis's JSON.
    #[derive(serde::Deserialize)]
    struct Told {
        verdict: Verdict,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Verdict {
        processes: Vec<String>,
        culprits: Vec<String>,
        functions: Vec<String>,
        path: Vec<String>,
        next_steps: Vec<Step>,
    }
    #[derive(serde::Deserialize)]
    struct Step {
        action: String,
    }
    let told: Told = serde_json::from_str(&span.diagnosis).ok()?;
    let Verdict { processes, culprits, functions, path, next_steps } = told.verdict;
    Some(HostVerdict {
        host: host.to_owned(),
        code: Code::from_name(&span.code)?,
        severity: match span.severity {
            0 => Severity::None,
            1 => Severity::Low,
            2 => Severity::Warning,
            _ => Severity::Critical,
        },
        confidence: span.confidence,
        share: span.share,
        summary: span.summary.clone(),
        processes,
        culprits,
        functions,
        path,
        evidence: Vec::new(),
        next_step: next_steps.into_iter().next().map_or_else(String::new, |step| step.action),
        source: Source::Agent,
    })
}

//! One scope: what limits it on each of its hosts, by what is stored of its threads and by what the hosts' agents say.
//!
//! Every host is judged by the time of its threads by class first, which is little to read. Where that is not idle, hosts of the same code are
//! alike until the opposite is seen: the worst of them are judged again with their stacks, and what these all have, the others
//! have, too. Where they have not, all are looked into.

use std::collections::{BTreeMap, BTreeSet};

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::fleet::scope::{HostVerdict, Source, is_of_service};
use chokepoint_analysis::fleet::{Beside, Target, Whose};
use chokepoint_analysis::profile::{Line, Location, LocationId};
use chokepoint_analysis::verdict::code::Code;
use chokepoint_analysis::verdict::finding::{Finding, Severity};
use chokepoint_analysis::verdict::{Diagnosis, diagnose};

use super::super::QueryError;
use super::read::{HOST, Known, Reader, Scope, ThreadTime, name_of};
use crate::labels::{Matcher, Operator};
use crate::store::{Frames, StackId, StoreError, Sum, SumQuery, VerdictSpan};

/// Hosts whose time is put together for what is said of a constraint: the worst.
const MERGED_HOSTS: usize = 50;

/// Hosts of one code whose stacks are looked into first: one in two of them differing, all of eight agree once in 256 times.
const LOOKED_INTO: usize = 8;

/// The stored rows of a scope on some of its hosts, with their stacks.
#[derive(Default)]
pub(super) struct Rows {
    /// By host.
    by_host: BTreeMap<String, Vec<Sum>>,
    frames: Frames,
    leaves: BTreeMap<StackId, usize>,
}

impl Rows {
    /// Reads them; `None` where there are too many.
    fn read(
        reader: &Reader<'_>,
        by: &[String],
        scope: &Scope,
        hosts: &[&str],
    ) -> Result<Option<Self>, QueryError> {
        let mut selection = reader.of_scope(by, scope)?;
        let any = hosts.iter().map(|host| regex::escape(host)).collect::<Vec<_>>().join("|");
        let is_any = Matcher::new(HOST, Operator::Matches, &any);
        selection.matchers.push(is_any.map_err(|error| QueryError::bad(error.to_string()))?);
        let query = SumQuery {
            selection,
            kind: "wall".to_owned(),
            classes: Vec::new(),
            group_by: [HOST, "process", "thread"].map(str::to_owned).to_vec(),
            step_ns: None,
            by_class: true,
            by_stack: true,
            max_sums: reader.limits.max_sums,
        };
        let sums = match reader.store.sums(&query) {
            Err(StoreError::TooLarge { .. }) => return Ok(None),
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
        Ok(Some(Self { by_host, frames, leaves }))
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

/// What limits a scope on its hosts.
pub(super) struct Hosts {
    /// By the hosts' names.
    pub verdicts: Vec<HostVerdict>,
    /// Of the hosts that were looked into first.
    pub rows: Rows,
    /// What is missing, each a sentence.
    pub missing: Vec<String>,
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
    pub(super) fn hosts(&self, scope: &Scope) -> Result<Hosts, QueryError> {
        let names: Vec<&str> = self.threads(scope).map(|(host, _)| host.as_str()).collect();
        let mut found = Hosts {
            verdicts: names.iter().map(|host| self.glance(scope, host)).collect(),
            rows: Rows::default(),
            missing: Vec::new(),
        };
        let mut alike: BTreeMap<Code, Vec<usize>> = BTreeMap::new();
        for (at, verdict) in found.verdicts.iter().enumerate() {
            if verdict.code != Code::NoneIdle {
                alike.entry(verdict.code).or_default().push(at);
            }
        }
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for mut group in alike.into_values() {
            let share = |at: &usize| found.verdicts[*at].share;
            // Stable, so that equals stay in the order of their names.
            group.sort_by(|one, other| share(other).total_cmp(&share(one)));
            rest.push(group.split_off(group.len().min(LOOKED_INTO)));
            first.push(group);
        }
        let glanced: Vec<Code> = first.iter().map(|group| found.verdicts[group[0]].code).collect();
        self.look_into(scope, &first.concat(), &mut found)?;
        let mut unlike = Vec::new();
        for ((first, rest), glanced) in first.iter().zip(rest).zip(glanced) {
            let seen: BTreeSet<Code> = first.iter().map(|at| found.verdicts[*at].code).collect();
            if seen.len() > 1 {
                unlike.extend(rest);
            } else if !seen.contains(&glanced) {
                // What their stacks have told is told of the others, too; how much it is, is each one's own.
                let least = found.verdicts[first[first.len() - 1]].clone();
                for at in rest {
                    let HostVerdict { host, share, .. } = found.verdicts[at].clone();
                    found.verdicts[at] = HostVerdict { host, share, ..least.clone() };
                }
            }
        }
        self.look_into(scope, &unlike, &mut found)?;
        Ok(found)
    }

    /// Judges hosts again with their stacks, as far as they can be read.
    fn look_into(&self, scope: &Scope, hosts: &[usize], found: &mut Hosts) -> Result<(), QueryError> {
        if hosts.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = hosts.iter().map(|at| found.verdicts[*at].host.as_str()).collect();
        let Some(rows) = Rows::read(&self.reader, self.by, scope, &names)? else {
            // Of the first and of the rest that is the same sentence.
            found.missing = vec!["stacks are left out, there are too many: ask for less time".to_owned()];
            return Ok(());
        };
        let verdicts: Vec<HostVerdict> =
            names.iter().map(|host| self.judge(scope, host, |target| rows.add(host, target))).collect();
        for (at, verdict) in hosts.iter().zip(verdicts) {
            found.verdicts[*at] = verdict;
        }
        // The first are the worst, for which what they have together is told.
        if found.rows.by_host.is_empty() {
            found.rows = rows;
        }
        Ok(())
    }

    fn threads(&self, scope: &Scope) -> impl Iterator<Item = (&String, &Vec<ThreadTime>)> {
        self.known.threads.get(scope).into_iter().flatten()
    }

    fn threads_of(&self, scope: &Scope, host: &str) -> impl Iterator<Item = &ThreadTime> {
        self.known.threads.get(scope).and_then(|hosts| hosts.get(host)).into_iter().flatten()
    }

    /// By the time of its threads alone.
    fn glance(&self, scope: &Scope, host: &str) -> HostVerdict {
        self.judge(scope, host, |target| {
            for ThreadTime { process, thread, class, count, ns } in self.threads_of(scope, host) {
                target.add(Whose { process, thread }, *class, Vec::new(), *count, *ns);
            }
        })
    }

    fn judge(&self, scope: &Scope, host: &str, add: impl FnOnce(&mut Target)) -> HostVerdict {
        let window_ns = self.window_ns(host);
        let mut target = self.target(scope, window_ns);
        add(&mut target);
        self.add_others(scope, host, &mut target);
        let diagnosis = diagnose(&target.finish(self.known.signals_of(host, window_ns)));
        let own = HostVerdict::of(host, &diagnosis.verdict);
        let agents = self.known.verdicts.get(host).and_then(|span| of_agent(host, span));
        let is_own = |name: &str| self.threads_of(scope, host).any(|thread| thread.process == name);
        let is_shared = |name: &str| {
            let key = (host.to_owned(), name.to_owned());
            self.known.scopes_of.get(&key).is_some_and(|scopes| *scopes > 1)
        };
        match agents {
            Some(agents) if is_of_service(&agents, &own, is_own, is_shared) => agents,
            _ => own,
        }
    }

    /// Adds whom the scope waited for on a host, and who else had the CPUs.
    fn add_others(&self, scope: &Scope, host: &str, target: &mut Target) {
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
        let is_merged =
            |host: &&&HostVerdict| host.source == Source::Collector && rows.by_host.contains_key(&host.host);
        let merged = || hosts.iter().filter(is_merged).take(MERGED_HOSTS);
        let window_ns = merged().map(|host| self.window_ns(&host.host)).max()?;
        let mut target = self.target(scope, window_ns);
        for host in merged() {
            rows.add(&host.host, &mut target);
            self.add_others(scope, &host.host, &mut target);
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

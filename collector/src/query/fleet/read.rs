//! What is asked of the store for a fleet's verdicts. Every question is bounded; what is too much is told, and less of it is asked for.

use std::collections::{BTreeMap, BTreeSet};

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::fleet::Waited;
use chokepoint_analysis::signals::{self, Distribution, Level, Signal, Signals};
use chokepoint_proto::latency::Latency;

use super::super::QueryError;
use super::super::limits::Limits;
use super::super::question::Question;
use crate::labels::{Labels, Matcher, Operator};
use crate::store::{Selection, SignalQuery, SignalSeries, Store, StoreError, SumQuery, Sums, VerdictSpan};

/// The label that tells hosts apart.
pub(super) const HOST: &str = "host";
/// The kind of waits for services, and of what services there are.
const SERVICES: &str = "waits.peers";
/// The part of a time whose signals are too many that is asked for instead: the newest.
const LESS: u64 = 4;
/// The signal that every window has.
const TICK: &str = "cpu.utilization";
/// So many times the shortest step of a time is the longest: windows of ten seconds are summed up to minutes.
const LONGEST_STEP: u64 = 6;
/// Signals that verdicts read and that say nothing of a host's single processes: what is of one of them would be told of every service there.
const SIGNALS: [&str; 11] = [
    "cpu.utilization",
    "cpu.busiest",
    "cpu.steal",
    "cpu.system",
    "cpu.pressure",
    "memory.refaults",
    "memory.swap_in",
    "memory.direct_reclaim",
    "block.read_bytes",
    "block.pressure",
    "tcp.retransmit_share",
];

/// What a scope's processes have in common: values of the labels that scopes are kept apart by, in that order.
pub(super) type Scope = Vec<String>;

/// The time of threads of one scope on one host, by class.
pub(super) type Times = BTreeMap<Class, u64>;

/// Time of threads of one name in one class.
#[derive(Clone, Debug)]
pub(super) struct ThreadTime {
    /// Name of the process.
    pub process: String,
    /// Name of the threads; empty where there were too many to tell them apart.
    pub thread: String,
    pub class: Class,
    pub count: u64,
    pub ns: u64,
}

/// Everything but stacks.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By scope and host.
    pub times: BTreeMap<Scope, BTreeMap<String, Times>>,
    /// The same by threads.
    pub threads: BTreeMap<Scope, BTreeMap<String, Vec<ThreadTime>>>,
    /// The scopes with time on CPUs of each host, nanoseconds.
    pub on_cpu: BTreeMap<String, Vec<(Scope, u64)>>,
    /// What scopes' processes waited for, by scope and host.
    pub waited: BTreeMap<Scope, BTreeMap<String, Vec<Waited>>>,
    /// Where scopes are asked: scope, host, address.
    pub served: Vec<(Scope, String, String)>,
    /// Addresses of hosts.
    pub addresses: BTreeSet<(String, String)>,
    /// How many scopes have processes of a name on a host.
    pub scopes_of: BTreeMap<(String, String), usize>,
    /// Of how much of the time something is stored of a host, nanoseconds.
    covered_ns: BTreeMap<String, u64>,
    /// Signals of hosts.
    pub signals: BTreeMap<String, Vec<Signal>>,
    /// The 95th percentile of the latency of each host's slowest device, milliseconds.
    pub disks: BTreeMap<String, f64>,
    /// What each host's agent said last.
    pub verdicts: BTreeMap<String, VerdictSpan>,
    /// What is missing, each a sentence.
    pub missing: Vec<String>,
}

/// Reads for one question.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub store: &'a dyn Store,
    pub question: &'a Question,
    pub limits: &'a Limits,
}

impl Reader<'_> {
    /// Everything but stacks.
    pub(super) fn known(&self, by: &[String]) -> Result<Known, QueryError> {
        let mut known = Known::default();
        self.times(by, &mut known)?;
        self.services(by, &mut known)?;
        let of_hosts = self.of_hosts()?;
        self.signals(&of_hosts, &mut known)?;
        self.disks(&of_hosts, &mut known)?;
        for span in self.store.verdicts(&of_hosts)? {
            let Some(host) = span.labels.get(HOST).cloned() else { continue };
            let last = known.verdicts.entry(host).or_insert_with(|| span.clone());
            if span.until_unix_ns > last.until_unix_ns {
                *last = span;
            }
        }
        Ok(known)
    }

    /// What is asked about, less what is not of hosts: of those their signals and verdicts are told.
    fn of_hosts(&self) -> Result<Selection, QueryError> {
        let mut selection = self.question.selection_of_any()?;
        let agents = self.store.agents_for(&selection.asker)?;
        let names: BTreeSet<&String> = agents.iter().flat_map(|agent| agent.labels.keys()).collect();
        selection.matchers.retain(|matcher| names.contains(&matcher.name));
        Ok(selection)
    }

    fn sums(&self, selection: Selection, kind: &str, group_by: Vec<String>) -> Result<Sums, StoreError> {
        self.store.sums(&SumQuery {
            selection,
            kind: kind.to_owned(),
            classes: Vec::new(),
            group_by,
            step_ns: None,
            by_class: true,
            by_stack: false,
            max_sums: self.limits.max_sums,
        })
    }

    fn times(&self, by: &[String], known: &mut Known) -> Result<(), QueryError> {
        let selection = self.question.selection_of_any()?;
        let labels = [by, &[HOST, "process", "thread"].map(str::to_owned)].concat();
        let mut sums = match self.sums(selection.clone(), "wall", labels.clone()) {
            Err(StoreError::TooLarge { .. }) => {
                known.missing.push("threads are not told apart: there are too many".to_owned());
                let mut sums = self.sums(selection, "wall", labels[..labels.len() - 1].to_vec())?;
                sums.sums.iter_mut().for_each(|sum| sum.group.push(String::new()));
                sums
            }
            sums => sums?,
        };
        let mut scopes_of: BTreeMap<(String, String), BTreeSet<&Scope>> = BTreeMap::new();
        for sum in &mut sums.sums {
            let threads = sum.group.split_off(by.len());
            let [host, process, thread] = <[String; 3]>::try_from(threads).unwrap_or_default();
            let class = Class::from_name(&sum.class).unwrap_or(Class::Other);
            let times = known.times.entry(sum.group.clone()).or_default().entry(host.clone()).or_default();
            *times.entry(class).or_default() += sum.weight;
            let threads = known.threads.entry(sum.group.clone()).or_default().entry(host).or_default();
            threads.push(ThreadTime { process, thread, class, count: sum.count, ns: sum.weight });
        }
        for (scope, hosts) in &known.threads {
            for (host, threads) in hosts {
                for process in threads.iter().map(|thread| &thread.process).collect::<BTreeSet<_>>() {
                    scopes_of.entry((host.clone(), process.clone())).or_default().insert(scope);
                }
            }
        }
        known.scopes_of = scopes_of.into_iter().map(|(key, scopes)| (key, scopes.len())).collect();
        for (scope, hosts) in &known.times {
            for (host, times) in hosts {
                let of = |class| times.get(&class).copied().unwrap_or_default();
                let cpu_ns = of(Class::CpuUser) + of(Class::CpuKernel);
                if cpu_ns > 0 {
                    known.on_cpu.entry(host.clone()).or_default().push((scope.clone(), cpu_ns));
                }
            }
        }
        Ok(())
    }

    fn services(&self, by: &[String], known: &mut Known) -> Result<(), QueryError> {
        let labels = [HOST, "process", "local", "remote"].map(str::to_owned);
        let labels = [by, &labels].concat();
        let sums = match self.sums(self.question.selection_of_any()?, SERVICES, labels) {
            Err(StoreError::TooLarge { .. }) => {
                let why = "there are too many addresses that services wait for: none is followed";
                known.missing.push(why.to_owned());
                return Ok(());
            }
            sums => sums?.sums,
        };
        for mut sum in sums {
            let ends = sum.group.split_off(by.len());
            let [host, process, local, service] = <[String; 4]>::try_from(ends).unwrap_or_default();
            if local.is_empty() {
                continue;
            }
            if service.is_empty() {
                known.served.push((sum.group, host, local));
                continue;
            }
            known.addresses.insert((host.clone(), local.clone()));
            let class = Class::from_name(&sum.class).unwrap_or(Class::Other);
            let waited = Waited { process, class, local, service, ns: sum.weight };
            known.waited.entry(sum.group).or_default().entry(host).or_default().push(waited);
        }
        Ok(())
    }

    fn signals(&self, of_hosts: &Selection, known: &mut Known) -> Result<(), QueryError> {
        let mut selection = of_hosts.clone();
        for name in SIGNALS {
            let Some(definition) = signals::definition(name) else { continue };
            let found = loop {
                let max_values = self.limits.max_signal_values;
                let query = SignalQuery { selection: selection.clone(), name: name.to_owned(), max_values };
                match self.store.signals(&query) {
                    Err(StoreError::TooLarge { .. })
                        if selection.until_unix_ns - selection.from_unix_ns > LESS =>
                    {
                        let length_ns = (selection.until_unix_ns - selection.from_unix_ns) / LESS;
                        selection.from_unix_ns = selection.until_unix_ns - length_ns;
                    }
                    found => break found?,
                }
            };
            if name == TICK {
                known.covered_ns = covered(&found);
            }
            for series in found {
                let Some(host) = series.labels.get(HOST).cloned() else { continue };
                let values: Vec<f64> = series.values.iter().map(|value| value.value).collect();
                if values.is_empty() {
                    continue;
                }
                let value = values.iter().sum::<f64>() / values.len() as f64;
                let thresholds = definition.thresholds;
                known.signals.entry(host).or_default().push(Signal {
                    name: name.to_owned(),
                    instance: series.labels.get("instance").cloned().unwrap_or_default(),
                    resource: definition.resource,
                    kind: definition.kind,
                    unit: definition.unit,
                    value,
                    steps: Distribution::of(values),
                    level: thresholds.map_or(Level::None, |thresholds| thresholds.level(value)),
                    thresholds,
                });
            }
        }
        if selection.from_unix_ns > of_hosts.from_unix_ns {
            let text = "signals of hosts are of the end of the time alone: there are too many";
            known.missing.push(text.to_owned());
        }
        Ok(())
    }

    fn disks(&self, of_hosts: &Selection, known: &mut Known) -> Result<(), QueryError> {
        let labels = [HOST, "device"].map(str::to_owned).to_vec();
        let sums = match self.sums(of_hosts.clone(), Latency::Disk.kind(), labels) {
            Err(StoreError::TooLarge { .. }) => {
                known.missing.push("latencies of disks are not compared: there are too many".to_owned());
                return Ok(());
            }
            sums => sums?.sums,
        };
        let mut counts: BTreeMap<Vec<String>, BTreeMap<u64, u64>> = BTreeMap::new();
        for sum in sums {
            let bound = sum.class.parse().unwrap_or(u64::MAX);
            *counts.entry(sum.group).or_default().entry(bound).or_default() += sum.count;
        }
        for (group, counts) in counts {
            let total: u64 = counts.values().sum();
            let rank = total - total / 20;
            let mut seen = 0;
            let bound = counts.iter().find_map(|(bound, count)| {
                seen += count;
                (seen >= rank).then_some(*bound)
            });
            if let (Some(bound), Some(host)) = (bound, group.into_iter().next()) {
                let most = known.disks.entry(host).or_default();
                *most = most.max(bound as f64 / 1e6);
            }
        }
        Ok(())
    }

    /// Conditions for the rows of one scope.
    pub(super) fn of_scope(&self, by: &[String], scope: &Scope) -> Result<Selection, QueryError> {
        let mut selection = self.question.selection_of_any()?;
        for (name, value) in by.iter().zip(scope) {
            let matcher = Matcher::new(name, Operator::Is, value);
            selection.matchers.push(matcher.map_err(|error| QueryError::bad(error.to_string()))?);
        }
        Ok(selection)
    }
}

/// Of how much time there are values, by host: windows follow each other, but for those that are missing.
fn covered(found: &[SignalSeries]) -> BTreeMap<String, u64> {
    let gaps = |series: &SignalSeries| -> Vec<u64> {
        series.values.windows(2).map(|pair| pair[1].start_unix_ns - pair[0].start_unix_ns).collect()
    };
    let least = found.iter().flat_map(gaps).filter(|gap| *gap > 0).min();
    let Some(least) = least else { return BTreeMap::new() };
    let of = |series: &SignalSeries| {
        // What follows much later begins anew.
        let followed =
            gaps(series).into_iter().map(|gap| if gap <= LONGEST_STEP * least { gap } else { least });
        followed.sum::<u64>() + least
    };
    found.iter().filter_map(|series| Some((series.labels.get(HOST)?.clone(), of(series)))).collect()
}

impl Known {
    /// Of how much of the time something is stored of a host, nanoseconds; all of it where that is not known.
    pub(super) fn covered_ns(&self, host: &str, all_ns: u64) -> u64 {
        self.covered_ns.get(host).map_or(all_ns, |covered| (*covered).min(all_ns))
    }

    /// How much of their CPUs a scope's hosts have free, per cent: the median of them; `None` where none has told.
    pub(super) fn cpu_free_pct(&self, scope: &Scope) -> Option<f64> {
        let busy = |host: &String| {
            let told = self.signals.get(host)?.iter().find(|signal| signal.name == TICK)?;
            Some(told.value)
        };
        let hosts = self.times.get(scope)?.keys();
        let mut free: Vec<f64> = hosts.filter_map(busy).map(|busy| (100.0 - busy).max(0.0)).collect();
        free.sort_by(f64::total_cmp);
        // Of an even number the lower one: nobody is promised more than there is.
        free.get(free.len().saturating_sub(1) / 2).copied()
    }

    /// The signals of a host.
    pub(super) fn signals_of(&self, host: &str, window_ns: u64) -> Option<Signals> {
        let signals = self.signals.get(host)?.clone();
        Some(Signals { schema: 1, window_s: window_ns as f64 / 1e9, steps: 1, signals, missing: Vec::new() })
    }
}

/// Names with their values, without those that are absent.
pub(super) fn labels_of(by: &[String], scope: &Scope) -> Labels {
    let labels = by.iter().cloned().zip(scope.iter().cloned());
    labels.filter(|(_, value)| !value.is_empty()).collect()
}

/// A scope in one word or few.
pub(super) fn name_of(by: &[String], scope: &Scope) -> String {
    match scope.as_slice() {
        [only] => only.clone(),
        _ => labels_of(by, scope)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_is_the_median_of_a_scopes_hosts() {
        let mut known = Known::default();
        let scope = vec!["web".to_owned()];
        let definition = signals::definition(TICK).expect("it is one of ours");
        for (host, busy) in [("a", Some(90.0)), ("b", Some(20.0)), ("c", Some(30.0)), ("d", None)] {
            known.times.entry(scope.clone()).or_default().insert(host.to_owned(), Times::new());
            let signal = busy.map(|value| Signal {
                name: TICK.to_owned(),
                instance: String::new(),
                resource: definition.resource,
                kind: definition.kind,
                unit: definition.unit,
                value,
                steps: Distribution::of(vec![value]),
                level: Level::None,
                thresholds: None,
            });
            known.signals.entry(host.to_owned()).or_default().extend(signal);
        }
        assert_eq!(known.cpu_free_pct(&scope), Some(70.0));
        known.signals.remove("b");
        assert_eq!(known.cpu_free_pct(&scope), Some(10.0));
        assert_eq!(known.cpu_free_pct(&vec!["db".to_owned()]), None);
    }
}

//! What is said of a fleet.

use chokepoint_analysis::fleet::scope::{Evidence, Source};
use chokepoint_analysis::fleet::usual::Usual;
use serde::{Deserialize, Serialize};

use crate::labels::Labels;

/// What limits services, or what else hosts' processes have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// From here, inclusive: milliseconds since the Unix epoch, as all times.
    pub from_unix_ms: u64,
    /// Up to here, exclusive.
    pub until_unix_ms: u64,
    /// The services, the worst first, then those with the largest demand.
    pub services: Vec<Service>,
    /// How many services there are beside these, which have less time of threads.
    pub left_out: u64,
    /// Hosts that stand out among those of the same service.
    pub outliers: Vec<Outlier>,
    /// Who queues for CPUs behind whom.
    pub neighbours: Vec<Neighbour>,
    /// What is missing of the answer, each a sentence.
    pub missing: Vec<String>,
}

/// A service on its hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// What its processes have in common.
    pub labels: Labels,
    /// Hosts that it runs on.
    pub hosts: u64,
    /// Hosts on which nothing limits it.
    pub healthy: u64,
    /// Hosts on which it has next to nothing to do.
    pub idle: u64,
    /// Hosts of which not enough is known to say.
    pub unknown: u64,
    /// Headroom: how much of their CPUs its hosts have free, per cent, the median of them; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_free_pct: Option<f64>,
    /// What limits it, what most suffers from first; none where nothing does, or only single hosts do.
    pub constraints: Vec<Constraint>,
    /// What limits it on single hosts alone, which differ from the others in it.
    pub exceptions: Vec<Constraint>,
    /// What is missing of what is said of it, each a sentence.
    pub missing: Vec<String>,
}

/// A constraint of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Constraint {
    /// Its code.
    pub code: String,
    /// How many hosts have it.
    pub hosts: u64,
    /// Their part of those on which the service has something to do, 0 to 1.
    pub share_of_hosts: f64,
    /// Their names, the worst first; of very many the first.
    pub named_hosts: Vec<String>,
    /// How bad it is where it is worst: 1 low, 2 warning, 3 critical.
    pub severity: u8,
    /// How sure it is there, 0 to 1.
    pub confidence: f64,
    /// The part of the service's demand on these hosts that it takes, 0 to 1.
    pub share: f64,
    /// In one sentence, of all these hosts, or of the worst where they differ.
    pub summary: String,
    /// Since when, by the time of threads that shows it; 0 where that is not known.
    pub since_unix_ms: u64,
    /// Whether it was so already where what is looked at begins.
    pub since_is_earlier: bool,
    /// What is different since then.
    pub changes: Vec<Change>,
    /// Names of processes that suffer, the worst first.
    pub processes: Vec<String>,
    /// Names of those that cause it: processes, or services that have the CPUs.
    pub culprits: Vec<String>,
    /// Functions in which it happens.
    pub functions: Vec<String>,
    /// From the wait that is seen to what is behind it.
    pub path: Vec<String>,
    /// Numbers that speak for it.
    pub evidence: Vec<Evidence>,
    /// What the part of the time that shows it usually is, and is now.
    pub usual: Option<Deviation>,
    /// The services that are waited for, one behind the other, and what limits them.
    pub waits_for: Vec<Callee>,
    /// What to do first; empty where that is not known.
    pub next_step: String,
    /// Who says so.
    pub source: Source,
}

/// What is different since a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// A label: `version`, `image`.
    pub label: String,
    /// Its values before; empty where it had none.
    pub before: Vec<String>,
    /// Its values since.
    pub since: Vec<String>,
}

/// A number, and what it usually is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// Now: the part of the service's thread time without idling that shows the constraint, 0 to 1.
    pub now: f64,
    /// What it usually is, by different pasts.
    pub baselines: Vec<Usual>,
}

/// A service that another waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callee {
    /// The service.
    pub labels: Labels,
    /// Where it is asked.
    pub address: String,
    /// Its hosts that are asked.
    pub hosts: Vec<String>,
    /// What limits it; absent where nothing is known to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// A host that stands out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outlier {
    /// Which.
    pub host: String,
    /// The service whose hosts it was compared with.
    pub among: Labels,
    /// How many they are, itself included.
    pub hosts: u64,
    /// What limits the service there and on few others; empty where nothing does.
    pub code: String,
    /// In which numbers it differs.
    pub differences: Vec<Difference>,
}

/// A number that is another one than on other hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// A signal, or a percentile of latencies.
    pub name: String,
    /// What it counts.
    pub unit: String,
    /// Of this host.
    pub value: f64,
    /// The median of all.
    pub median: f64,
}

/// Who queues for CPUs behind whom, on a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The host.
    pub host: String,
    /// Who queues.
    pub victim: Labels,
    /// Who has the CPUs, the most first.
    pub culprits: Vec<String>,
    /// The part of its demand for which the victim queues, 0 to 1.
    pub share: f64,
}

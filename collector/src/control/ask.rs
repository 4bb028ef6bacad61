//! What is asked for: JSON, and what it means.

use std::time::Duration;

use chokepoint_proto::stream::profile_now::Target;
use serde::{Deserialize, Serialize};

use super::{Limits, Refusal};
use crate::query::time::{duration_ns, written};

/// Bytes of a target's or a host's name.
const MAX_NAME: usize = 4096;
/// Length of a recording where nobody says: long enough for a verdict.
const USUAL_DURATION: Duration = Duration::from_secs(10);
/// Samples a second on each CPU where nobody says: as `chokepoint record` has it.
const USUAL_HZ: u32 = 99;
/// Whoever looks more seldom is not waiting.
const LEAST_ABANDON: Duration = Duration::from_secs(1);

/// What is asked for, as JSON has it. What is absent is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// The host's name, or the beginning of its agent's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// A pod: `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// A container, by its name in its pod or by its id's beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Path of a control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// A process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Samples a second on each CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency: Option<u32>,
    /// How long: `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// After how long without a look at it the profile is cancelled: `20s`. Never where nobody says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abandon_after: Option<String>,
}

/// What is wanted, within the limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The host's name, or the beginning of its agent's identity.
    pub host: Option<String>,
    /// What to profile there.
    pub target: Target,
    /// Samples a second on each CPU.
    pub frequency_hz: u32,
    /// How long.
    pub duration: Duration,
    /// After how long without a look it is cancelled.
    pub abandon_after: Option<Duration>,
}

impl Ask {
    /// Reads JSON.
    ///
    /// # Errors
    /// It is none, or says what is not known.
    pub fn read(json: &[u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(json)
            .map_err(|error| Refusal::Bad(format!("this is not what can be asked for: {error}")))
    }

    /// What it means.
    ///
    /// # Errors
    /// It makes no sense, or is more than is allowed.
    pub fn wanted(self, limits: &Limits) -> Result<Wanted, Refusal> {
        let bad = |message: String| Err(Refusal::Bad(message));
        let names = [&self.host, &self.pod, &self.container, &self.cgroup];
        if names.into_iter().flatten().any(|name| name.is_empty() || name.len() > MAX_NAME) {
            return bad(format!("a name has 1 to {MAX_NAME} bytes"));
        }
        let targets = [
            self.pod.map(Target::Pod),
            self.container.map(Target::Container),
            self.cgroup.map(Target::Cgroup),
            self.pid.map(Target::Pid),
        ];
        let mut targets = targets.into_iter().flatten();
        let target = targets.next().unwrap_or(Target::Host(true));
        if targets.next().is_some() {
            return bad("name one of pod, container, cgroup and pid, or none for all of a host".to_owned());
        }
        match &target {
            Target::Pod(pod) if !is_pod(pod) => {
                return bad(format!("{pod:?} is no pod: write NAMESPACE/NAME"));
            }
            Target::Pid(0) => return bad("0 is no process id".to_owned()),
            _ => {}
        }
        let frequency_hz = self.frequency.unwrap_or(USUAL_HZ);
        if !(1..=limits.frequency_hz).contains(&frequency_hz) {
            return bad(format!(
                "frequency={frequency_hz}: give 1 to {} samples a second",
                limits.frequency_hz
            ));
        }
        let duration = length(self.duration.as_deref())?.unwrap_or(USUAL_DURATION);
        if duration > limits.duration {
            let most = written(limits.duration.as_nanos() as u64);
            return bad(format!("the duration is longer than {most}: ask for less"));
        }
        let abandon_after = length(self.abandon_after.as_deref())?.map(|after| after.max(LEAST_ABANDON));
        Ok(Wanted { host: self.host, target, frequency_hz, duration, abandon_after })
    }
}

fn length(text: Option<&str>) -> Result<Option<Duration>, Refusal> {
    let length = text.map(duration_ns).transpose().map_err(|error| Refusal::Bad(error.to_string()))?;
    Ok(length.map(Duration::from_nanos))
}

fn is_pod(text: &str) -> bool {
    matches!(text.split_once('/'), Some((namespace, name))
        if !namespace.is_empty() && !name.is_empty() && !name.contains('/'))
}

/// A target in words, as agents have it: `pod shop/web-0`.
#[must_use]
pub fn described(target: &Target) -> String {
    match target {
        Target::Host(_) => "host".to_owned(),
        Target::Pid(pid) => format!("pid {pid}"),
        Target::Cgroup(path) => format!("cgroup {path}"),
        Target::Container(name) => format!("container {name}"),
        Target::Pod(name) => format!("pod {name}"),
    }
}

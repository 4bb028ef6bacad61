//! What is missing of a window and what its agent cost, as every home keeps it.

use chokepoint_proto::stream::Window;

/// What these signals are of.
pub(super) const RESOURCE: &str = "agent";

/// Sentences of a window that are kept of each kind; agents have some.
const MAX_SENTENCES: usize = 16;
/// Characters of each.
const MAX_SENTENCE_CHARS: usize = 256;

/// A signal about the agent itself.
pub(super) struct AgentSignal<'a> {
    pub(super) name: &'static str,
    /// Which one, where there are several; else empty.
    pub(super) instance: &'a str,
    /// utilization, saturation or errors.
    pub(super) kind: &'static str,
    /// %, 1, /s or B.
    pub(super) unit: &'static str,
    pub(super) value: f64,
}

/// What a window says of its own losses and of what the agent cost.
pub(super) fn agent_signals(window: &Window) -> Vec<AgentSignal<'_>> {
    let mut told = Vec::new();
    let mut tell =
        |name, instance, kind, unit, value| told.push(AgentSignal { name, instance, kind, unit, value });
    if let Some(losses) = &window.losses {
        tell("agent.samples", "", "utilization", "1", losses.captured as f64);
        for loss in &losses.lost {
            tell("agent.lost_samples", loss.cause.as_str(), "errors", "1", loss.samples as f64);
        }
    }
    if let Some(cost) = &window.cost {
        let share = |time_ns: u64| 100.0 * time_ns as f64 / window.duration_ns.max(1) as f64;
        tell("agent.cpu", "", "utilization", "%", share(cost.cpu_ns));
        tell("agent.program_cpu", "", "utilization", "%", share(cost.program_ns));
        // Of most agents in most windows there are none.
        if cost.demand_cpu_ns > 0 || cost.demand_program_ns > 0 {
            tell("agent.demand_cpu", "", "utilization", "%", share(cost.demand_cpu_ns));
            tell("agent.demand_program_cpu", "", "utilization", "%", share(cost.demand_program_ns));
        }
        tell("agent.resident", "", "utilization", "B", cost.resident_bytes as f64);
        tell("agent.frequency", "", "utilization", "/s", f64::from(cost.frequency_hz));
        tell("agent.given_up", "", "saturation", "1", cost.given_up.len() as f64);
    }
    told
}

/// The sentences that are kept of those that an agent says: so many, and so much of each.
pub(super) fn shortened(said: &[String]) -> Vec<String> {
    let mut kept: Vec<String> =
        said.iter().take(MAX_SENTENCES).map(|text| text.chars().take(MAX_SENTENCE_CHARS).collect()).collect();
    if said.len() > MAX_SENTENCES {
        kept.push(format!("and {} more", said.len() - MAX_SENTENCES));
    }
    kept
}

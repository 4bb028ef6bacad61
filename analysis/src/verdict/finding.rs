//! What a detector says.

use serde::{Deserialize, Serialize, Serializer};

use super::code::Code;

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is wrong.
    #[default]
    None,
    /// To be known, not to be acted on.
    Low,
    /// To be looked at.
    Warning,
    /// It limits the target now.
    Critical,
}

impl Severity {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "nothing wrong",
            Self::Low => "low",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// How much of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Amount {
    /// Little.
    Low,
    /// Neither.
    Medium,
    /// Much.
    High,
}

impl Amount {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// A number that speaks for or against a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    /// What it is, in words.
    pub what: String,
    /// The number.
    #[serde(serialize_with = "rounded")]
    pub value: f64,
    /// What it counts: `%`, `ms`, `1`.
    pub unit: &'static str,
    /// Where it is from: `threads`, `wakers`, `run queue`, `block requests`, `signal group.throttled_periods`.
    pub source: String,
}

impl Fact {
    /// The number with its unit, in the three digits that matter.
    #[must_use]
    pub fn number(&self) -> String {
        let digits = match self.value.abs() {
            value if value >= 100.0 || value.fract() == 0.0 => 0,
            value if value >= 10.0 => 1,
            _ => 2,
        };
        match self.unit {
            "1" => format!("{:.digits$}", self.value),
            "/s" => format!("{:.digits$}/s", self.value),
            unit => format!("{:.digits$} {unit}", self.value),
        }
    }
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What.
    pub action: String,
    /// How much it may gain.
    pub impact: Amount,
    /// What it takes.
    pub effort: Amount,
    /// What may go wrong.
    pub risk: Amount,
}

impl Step {
    pub(super) fn new(action: impl Into<String>, impact: Amount, effort: Amount, risk: Amount) -> Self {
        Self { action: action.into(), impact, effort, risk }
    }
}

/// One constraint, or the statement that there is none, with what proves it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// How sure it is, 0 to 1.
    #[serde(serialize_with = "rounded")]
    pub confidence: f64,
    /// What its confidence is made of; the parts add up to it.
    pub confidence_from: Vec<Fact>,
    /// More sure it cannot be, whatever agrees.
    #[serde(skip)]
    pub(super) at_most: f64,
    /// How bad it is.
    pub severity: Severity,
    /// The part of the target's demand that it takes, 0 to 1.
    #[serde(serialize_with = "rounded")]
    pub share: f64,
    /// By how much at most throughput would grow without it: 2 is twice as much. `None` where it is without bound, or does not follow
    /// from the share.
    pub gain_upper_bound: Option<f64>,
    /// In one sentence, with its numbers.
    pub summary: String,
    /// Names of the processes that suffer, the worst first.
    pub processes: Vec<String>,
    /// Names of the processes that cause it, the worst first.
    pub culprits: Vec<String>,
    /// Functions in which it happens, the most first.
    pub functions: Vec<String>,
    /// From the wait that is seen to what is behind it.
    pub path: Vec<String>,
    /// Numbers that speak for it.
    pub evidence: Vec<Fact>,
    /// Numbers that speak against it.
    pub counter_evidence: Vec<Fact>,
    /// What should be seen if it is true, and can be tested.
    pub hypothesis: String,
    /// The cheapest test of that.
    pub experiment: String,
    /// What to do, the best first.
    pub next_steps: Vec<Step>,
    /// Where to see it.
    pub shown_by: String,
}

impl Finding {
    pub(super) fn new(code: Code, share: f64, summary: String) -> Self {
        let share = share.clamp(0.0, 1.0);
        Self {
            code,
            confidence: 0.0,
            confidence_from: Vec::new(),
            at_most: 1.0,
            severity: Severity::None,
            share,
            // Of all time, nothing would be left.
            gain_upper_bound: (share < 0.99).then(|| round(1.0 / (1.0 - share))),
            summary,
            processes: Vec::new(),
            culprits: Vec::new(),
            functions: Vec::new(),
            path: Vec::new(),
            evidence: Vec::new(),
            counter_evidence: Vec::new(),
            hypothesis: String::new(),
            experiment: String::new(),
            next_steps: Vec::new(),
            shown_by: String::new(),
        }
    }

    /// How bad it is, how sure, and what could be gained at most, in words.
    #[must_use]
    pub fn judgement(&self) -> String {
        let mut text = format!("{}, confidence {:.0} %", self.severity.name(), self.confidence * 100.0);
        if let Some(gain) = self.gain_upper_bound.filter(|_| self.code.is_constraint()) {
            text.push_str(&format!(", at most {gain:.1} times the throughput without it"));
        }
        text
    }

    pub(super) fn proves(
        mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        source: &str,
    ) -> Self {
        self.evidence.push(Fact { what: what.into(), value, unit, source: source.to_owned() });
        self
    }

    /// Adds a number that speaks for it where `holds`, and against it where it does not.
    pub(super) fn weighs(
        mut self,
        holds: bool,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        source: &str,
    ) -> Self {
        let fact = Fact { what: what.into(), value, unit, source: source.to_owned() };
        if holds {
            self.evidence.push(fact)
        } else {
            self.counter_evidence.push(fact)
        }
        self
    }

    pub(super) fn tested(mut self, hypothesis: impl Into<String>, experiment: impl Into<String>) -> Self {
        (self.hypothesis, self.experiment) = (hypothesis.into(), experiment.into());
        self
    }

    pub(super) fn steps(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.next_steps = steps.into_iter().collect();
        self
    }
}

impl Severity {
    /// By the part of one thread's time or more that is lost: of less than a fifth, removing all of it gains less than a quarter;
    /// from half on it is what limits.
    #[must_use]
    pub(super) fn of(lost: f64) -> Self {
        match lost {
            lost if lost >= 0.5 => Self::Critical,
            lost if lost >= 0.2 => Self::Warning,
            _ => Self::Low,
        }
    }
}

/// To three digits behind the point: more are noise.
pub(super) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn rounded<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(round(*value))
}

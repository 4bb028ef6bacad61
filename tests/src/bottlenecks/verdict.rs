//! What `chokepoint diagnose --json` says, as far as it is judged.

use serde::Deserialize;

/// How bad a finding is said to be.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Not at all.
    None,
    /// Worth knowing.
    Low,
    /// Worth doing something.
    Warning,
    /// Worth doing something now.
    Critical,
}

/// One constraint, or the word that there is none.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Verdict {
    /// Its code.
    pub code: String,
    /// How sure the agent is: 0 to 1.
    pub confidence: f64,
    /// How bad it is.
    pub severity: Severity,
    /// Its share of the time that the target needed: 0 to 1.
    pub share: f64,
    /// Commands whose work is bound.
    pub processes: Vec<String>,
    /// Commands that are the reason.
    pub culprits: Vec<String>,
    /// Functions.
    pub functions: Vec<String>,
    /// From the wait to its reason.
    pub path: Vec<String>,
}

/// A whole answer.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Diagnosis {
    /// The format's version.
    pub schema: u32,
    /// The first answer.
    pub verdict: Verdict,
    /// All answers, the first among them.
    pub ranked: Vec<Verdict>,
}

/// The version of the format that is read here.
const SCHEMA: u32 = 1;

impl Diagnosis {
    /// Reads one.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub fn read(text: &str) -> Result<Self, String> {
        let read: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if read.schema != SCHEMA {
            return Err(format!("schema {} in place of {SCHEMA}", read.schema));
        }
        Ok(read)
    }

    /// Everything that is said, the first answer first.
    pub fn findings(&self) -> impl Iterator<Item = &Verdict> {
        // The first answer may or may not be among the others.
        let others = self.ranked.iter().filter(|other| other.code != self.verdict.code);
        std::iter::once(&self.verdict).chain(others)
    }

    /// Everything that is said to be worse than low, with its code.
    pub fn alarms(&self) -> impl Iterator<Item = (&str, Severity)> {
        let alarms = self.findings().filter(|finding| finding.severity > Severity::Low);
        alarms.map(|finding| (finding.code.as_str(), finding.severity))
    }
}

//! What a recording's process tells the agent on its standard error: lines of JSON, between whatever else it logs.

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// It goes on.
    Progress {
        /// Since the first sample.
        elapsed_ns: u64,
        /// Samples so far.
        samples: u64,
    },
    /// It is over: what it took.
    Ended {
        /// CPU time of its kernel programs; 0 where that was not measured.
        program_ns: u64,
        /// Unwind tables in the kernel.
        tables: u64,
        /// Bytes of them.
        table_bytes: u64,
    },
}

impl Told {
    /// As a line, without its end.
    #[must_use]
    pub fn line(self) -> String {
        // It holds numbers only.
        serde_json::to_string(&self).unwrap_or_default()
    }

    /// What a line says, if it is one of these.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_from_what_else_is_logged() {
        for told in [
            Told::Progress { elapsed_ns: 5, samples: 2 },
            Told::Ended { program_ns: 1, tables: 2, table_bytes: 3 },
        ] {
            assert_eq!(Told::read(&told.line()), Some(told));
        }
        for other in ["", "chokepoint: no process 7", "{", "{\"progress\":{}}", "{\"other\":1}"] {
            assert_eq!(Told::read(other), None, "{other}");
        }
    }
}

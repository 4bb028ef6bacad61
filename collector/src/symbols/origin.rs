//! Where symbols come from: what stands before them in their file, so that an operator can tell whom they are believed.

use chokepoint_proto::stream::Hello;
use chokepoint_symbols::Quality;
use serde::{Deserialize, Serialize};

/// Who told a build's symbols.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Whose token or certificate, or the agent's identity where nobody is asked for one; the server's address of debuginfod.
    pub by: String,
    /// The host whose agent sent them; empty of debuginfod.
    #[serde(default)]
    pub host: String,
    /// Whether the operator has named the source, so that it is believed before agents.
    #[serde(default)]
    pub is_operators: bool,
    /// Who told before, what is still told as they did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// How much they tell: 1 to 3.
    #[serde(default)]
    pub quality: u32,
    /// When they came.
    #[serde(default)]
    pub stored_unix_ns: u64,
}

/// Names of those who told before that are kept.
const MAX_BEFORE: usize = 8;

impl Origin {
    /// Of an agent.
    #[must_use]
    pub fn of_agent(hello: &Hello, identity: Option<&str>) -> Self {
        let by = identity.map_or_else(|| format!("agent {}", hex(&hello.agent)), str::to_owned);
        Self { host: hello.host.clone(), ..Self::of(by, false) }
    }

    /// Of a server of debug information.
    #[must_use]
    pub fn of_server(address: &str) -> Self {
        Self::of(format!("debuginfod {address}"), true)
    }

    fn of(by: String, is_operators: bool) -> Self {
        Self { by, host: String::new(), is_operators, before: Vec::new(), quality: 0, stored_unix_ns: 0 }
    }

    /// Whether what this one tells takes the place of what another told, names and all.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        self.is_operators || (!other.is_operators && self.by == other.by && other.before.is_empty())
    }

    /// This one, after another whose names stay.
    #[must_use]
    pub fn after(mut self, other: &Self) -> Self {
        let all = other.before.iter().chain([&other.by]).take(MAX_BEFORE);
        self.before = all.filter(|before| **before != self.by).cloned().collect();
        // What an operator's source told is not for agents to tell otherwise.
        self.is_operators = other.is_operators;
        self
    }

    /// How much is told.
    #[must_use]
    pub fn quality(&self) -> Option<Quality> {
        Quality::of_number(self.quality)
    }
}

/// In hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_sources_come_first_and_agents_replace_only_what_is_their_own() {
        let agent = |name: &str| Origin::of_agent(&Hello::default(), Some(name));
        let server = Origin::of_server("http://x");
        assert!(server.replaces(&agent("a")) && server.replaces(&server));
        assert!(agent("a").replaces(&agent("a")));
        assert!(!agent("a").replaces(&agent("b")) && !agent("a").replaces(&server));
        let both = agent("b").after(&agent("a"));
        assert_eq!((&*both.by, &*both.before), ("b", &["a".to_owned()][..]));
        assert!(!agent("b").replaces(&both), "names of another are in it");
        assert!(agent("b").after(&server).is_operators);
    }
}

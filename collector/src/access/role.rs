//! Roles.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May stream what it sees, and nothing else.
    Agent,
    /// May ask queries.
    Reader,
    /// May ask queries, and have agents do something: profiles on demand.
    Operator,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Reader, Self::Operator];

    /// Whether who has this role may do what asks for another.
    #[must_use]
    pub fn includes(self, needed: Self) -> bool {
        self == needed || (self == Self::Operator && needed == Self::Reader)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Reader => "reader",
            Self::Operator => "operator",
        })
    }
}

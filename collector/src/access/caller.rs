//! Who asks, and why not.

use std::sync::Arc;

use thiserror::Error;

use super::Role;
use super::tokens::Entry;

/// Who sends a request.
#[derive(Clone, Debug)]
pub struct Caller(Who);

#[derive(Clone, Debug)]
enum Who {
    /// Nobody is asked.
    Anybody,
    /// Tokens are asked for, and none came.
    Nobody,
    /// Who has this token.
    Known(Arc<Entry>),
}

/// Somebody may not do what was asked for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Denied {
    /// No token came.
    #[error("a token is asked for")]
    NoToken,
    /// Something else came.
    #[error("what came as Authorization is no bearer token")]
    NoBearer,
    /// It is not in the file.
    #[error("the token is not known here: it is mistyped, or was revoked")]
    UnknownToken,
    /// It is one of another role.
    #[error("the token {name} has the role {has}, and this takes the role {needed}")]
    OtherRole {
        /// Whose token it is.
        name: String,
        /// What it may do.
        has: Role,
        /// What it would have to.
        needed: Role,
    },
    /// An agent's certificate names nobody.
    #[error("the certificate has no DNS name: make it with a subjectAltName")]
    NamelessCertificate,
    /// An agent says that it is what its token or certificate is not for.
    #[error("{name} may not stream as {what}")]
    OtherAgent {
        /// Whose token or certificate it is.
        name: String,
        /// What the agent says of itself.
        what: String,
    },
}

impl Denied {
    /// Whether it is not known who asks; else it is, and who asks may not.
    #[must_use]
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::NoToken | Self::NoBearer | Self::UnknownToken)
    }
}

impl Caller {
    /// Somebody, where nobody is asked who they are: has every role.
    #[must_use]
    pub fn anybody() -> Self {
        Self(Who::Anybody)
    }

    /// Somebody who brings no token, where tokens are asked for: has no role.
    #[must_use]
    pub fn nobody() -> Self {
        Self(Who::Nobody)
    }

    pub(super) fn known(entry: Arc<Entry>) -> Self {
        Self(Who::Known(entry))
    }

    pub(super) fn is_known(&self) -> bool {
        matches!(self.0, Who::Known(_))
    }

    pub(super) fn into_entry(self) -> Option<Arc<Entry>> {
        match self.0 {
            Who::Known(entry) => Some(entry),
            Who::Anybody | Who::Nobody => None,
        }
    }

    /// The name of the caller's token.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Who::Known(entry) => Some(&entry.name),
            Who::Anybody | Who::Nobody => None,
        }
    }

    /// Whether the caller may do what asks for a role.
    #[must_use]
    pub fn may(&self, needed: Role) -> bool {
        self.require(needed).is_ok()
    }

    /// Lets only those on who have a role.
    ///
    /// # Errors
    /// Why the caller has not.
    pub fn require(&self, needed: Role) -> Result<(), Denied> {
        match &self.0 {
            Who::Anybody => Ok(()),
            Who::Nobody => Err(Denied::NoToken),
            Who::Known(entry) if entry.role.includes(needed) => Ok(()),
            Who::Known(entry) => Err(Denied::OtherRole { name: entry.name.clone(), has: entry.role, needed }),
        }
    }
}

//! How `query` and `profile` fail: one line that says what to do, and an exit code that a script can tell apart.

use thiserror::Error;

use super::client::ClientError;

/// The kinds of failure. The numbers are exit codes, and mean what they mean in `chokepoint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something that should not happen.
    Unexpected = 1,
    /// The command line or the query makes no sense, or asks for too much.
    Usage = 2,
    /// There is no collector, or it cannot answer now.
    Target = 5,
    /// The output cannot be written.
    Output = 6,
    /// The collector does not let this caller do that.
    Denied = 7,
    /// The user has cancelled it: as shells tell that of a command that Ctrl-C has ended.
    Cancelled = 130,
}

/// A failed command.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: Kind,
    /// One line, lowercase, that says what to do.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.kind as u8
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::Url(_) | ClientError::Refused { .. } | ClientError::Credentials(_) => Kind::Usage,
            ClientError::Unreachable { .. }
            | ClientError::Untrusted { .. }
            | ClientError::Failed(_)
            | ClientError::NoCollector { .. } => Kind::Target,
            ClientError::Denied(_) => Kind::Denied,
        };
        Self::new(kind, chokepoint_analysis::names::printable(&error.to_string()))
    }
}

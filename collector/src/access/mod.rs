//! Who may do what: the roles, the tokens and certificates that prove them, and the one place that decides.
//!
//! [`Access`] turns what a request brings into a [`Caller`], or for agents into what they have [`Proven`]; the doors (`ingest`, `api`) ask it
//! and never look at a token themselves. Where no tokens are configured, everybody who reaches a listener has every role: the loopback
//! interface is the limit then, and `pipeline` refuses to listen elsewhere unless told that the network is trusted.
//!
//! **Identity is a name**: that of a token, or the first DNS name of an agent's certificate. It stays when the token or the certificate is
//! renewed, and when a fleet goes from the one to the other.

mod agent;
mod caller;
mod files;
mod protection;
mod role;
mod secret;
mod tokens;

use std::path::Path;

pub use agent::{Certificate, Proven};
pub use caller::{Caller, Denied};
pub use files::FromFiles;
pub use protection::{Guard, Protection, ProtectionError};
pub use role::Role;
pub use secret::{Digest, Token};
pub use tokens::{Tokens, TokensError};

pub(crate) use secret::bytes_of;

/// Says who a caller is.
#[derive(Debug)]
pub struct Access {
    /// `None`: nobody is asked for one.
    tokens: Option<FromFiles<Tokens>>,
    /// Whether an agent's host has to have the name that the agent proves.
    binds_hosts: bool,
}

impl Access {
    /// Everybody has every role.
    #[must_use]
    pub fn open() -> Self {
        Self { tokens: None, binds_hosts: false }
    }

    /// By the tokens of a file, which is read again when it changes.
    ///
    /// # Errors
    /// Where it cannot be read, or makes no sense.
    pub fn new(tokens: Option<&Path>, binds_hosts: bool) -> Result<Self, TokensError> {
        let tokens = tokens.map(|path| {
            let path = path.to_owned();
            FromFiles::new("tokens", vec![path.clone()], move || Tokens::read(&path))
        });
        Ok(Self { tokens: tokens.transpose()?, binds_hosts })
    }

    /// Whether tokens are asked for.
    #[must_use]
    pub fn asks_for_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// The file of tokens, to be read again.
    pub(crate) fn tokens(&self) -> Option<&FromFiles<Tokens>> {
        self.tokens.as_ref()
    }

    /// Who sends a request with this `Authorization`.
    ///
    /// # Errors
    /// Where it has a token that is not known.
    pub fn caller(&self, authorization: Option<&[u8]>) -> Result<Caller, Denied> {
        let Some(tokens) = &self.tokens else { return Ok(Caller::anybody()) };
        let Some(authorization) = authorization else { return Ok(Caller::nobody()) };
        let token = secret::bearer(authorization).ok_or(Denied::NoBearer)?;
        tokens.get().find(token).map(Caller::known).ok_or(Denied::UnknownToken)
    }

    /// What an agent has proven with this `Authorization` and the certificate of its connection, which was checked. A certificate is enough,
    /// whether tokens are asked for or not: it is asked for by those who want it so.
    ///
    /// # Errors
    /// Where it proves nothing, or something else than that it is an agent.
    pub fn agent(
        &self,
        authorization: Option<&[u8]>,
        certificate: Option<&Certificate>,
    ) -> Result<Proven, Denied> {
        let caller = self.caller(authorization)?;
        if certificate.is_none() || caller.is_known() {
            caller.require(Role::Agent)?;
        }
        Proven::new(caller.into_entry(), certificate, self.binds_hosts)
    }

    /// Whether what an agent has proven still counts: its token may have been revoked since.
    ///
    /// # Errors
    /// It was.
    pub fn still(&self, proven: &Proven) -> Result<(), Denied> {
        let (Some(tokens), Some(token)) = (&self.tokens, proven.token()) else { return Ok(()) };
        if tokens.get().has(token) { Ok(()) } else { Err(Denied::UnknownToken) }
    }
}

#[cfg(test)]
mod tests;

//! What agents prove, and what they may say that they are.

use std::sync::Arc;

use chokepoint_proto::stream::Hello;

use super::Denied;
use super::tokens::Entry;

/// An agent's certificate, which was checked: the DNS names in it.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<[String]>);

impl Certificate {
    /// One with these names.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        Self(names.into())
    }
}

/// What an agent has proven of itself.
#[derive(Clone, Debug)]
pub struct Proven {
    /// `None`: nobody asked.
    identity: Option<String>,
    /// Where the host's name has to be one that is proven.
    hosts: Option<Vec<String>>,
    token: Option<Arc<Entry>>,
}

impl Proven {
    pub(super) fn new(
        token: Option<Arc<Entry>>,
        certificate: Option<&Certificate>,
        binds_hosts: bool,
    ) -> Result<Self, Denied> {
        // Of both the certificate's name counts: its key never leaves the host.
        let names = match (certificate, &token) {
            (Some(certificate), _) if certificate.0.is_empty() => return Err(Denied::NamelessCertificate),
            (Some(certificate), _) => certificate.0.to_vec(),
            (None, Some(token)) => vec![token.name.clone()],
            (None, None) => return Ok(Self { identity: None, hosts: None, token }),
        };
        let identity = names.first().cloned();
        Ok(Self { identity, hosts: binds_hosts.then_some(names), token })
    }

    /// The name that agents' identities belong to; `None` where nobody asked for any.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// The token that it was proven with.
    pub(super) fn token(&self) -> Option<&Entry> {
        self.token.as_deref()
    }

    /// Lets an agent say only what it may of itself.
    ///
    /// # Errors
    /// What it may not.
    pub fn check(&self, hello: &Hello) -> Result<(), Denied> {
        let denied =
            |what: String| Denied::OtherAgent { name: self.identity.clone().unwrap_or_default(), what };
        if let Some(names) = &self.hosts
            && !names.iter().any(|name| is_of(&hello.host, name))
        {
            return Err(denied(format!("host {}", hello.host)));
        }
        self.token.as_ref().map_or(Ok(()), |token| token.binding.check(hello)).map_err(denied)
    }
}

/// Whether a host has this name, or its first part: many hosts know themselves by that.
fn is_of(host: &str, name: &str) -> bool {
    let first = name.split('.').next().unwrap_or(name);
    host.eq_ignore_ascii_case(name) || host.eq_ignore_ascii_case(first)
}

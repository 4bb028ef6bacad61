//! The file of tokens: whose there are, what each may do, and of each its hash.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chokepoint_proto::stream::Hello;
use chokepoint_tls::{FileError, read_text};
use serde::Deserialize;
use subtle::ConditionallySelectable;
use thiserror::Error;

use super::Role;
use super::secret::{Digest, bytes_of};

/// Bytes of a name.
const MAX_NAME: usize = 253;

/// A file of tokens that cannot be used.
#[derive(Debug, Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("tokens: {0}")]
    File(#[from] FileError),
    /// It makes no sense.
    #[error("tokens: {}{place}: {reason}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: String,
        /// What is wrong.
        reason: String,
    },
}

/// The tokens that are known.
#[derive(Debug, Default)]
pub struct Tokens(Vec<Arc<Entry>>);

/// A token.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) name: String,
    pub(super) role: Role,
    digest: Digest,
    pub(super) binding: Binding,
}

/// What an agent with a token may say that it is.
#[derive(Debug, Default)]
pub(super) struct Binding {
    /// Names of hosts, or how they begin, with a `*` at the end. Empty: any.
    hosts: Vec<String>,
    /// Agents' identities. Empty: any.
    agents: Vec<[u8; 16]>,
    /// Labels that its host must have.
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "token")]
    tokens: Vec<Written>,
}

/// A token as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    role: Role,
    sha256: String,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    agents: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// Where it cannot be read, or makes no sense.
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        Self::parse(&read_text(path)?, path)
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, TokensError> {
        let unfit =
            |place: String, reason: String| TokensError::Unfit { path: path.to_owned(), place, reason };
        let file: File = toml::from_str(text).map_err(|error| {
            let line = |at: usize| format!(", line {}", text[..at.min(text.len())].lines().count().max(1));
            let place = error.span().map(|span| line(span.start)).unwrap_or_default();
            unfit(place, error.message().trim().to_owned())
        })?;
        let mut tokens: Vec<Arc<Entry>> = Vec::with_capacity(file.tokens.len());
        let mut digests = HashSet::new();
        for written in file.tokens {
            let place = format!(", token {:?}", written.name);
            let entry = written.entry().map_err(|reason| unfit(place.clone(), reason))?;
            if !digests.insert(entry.digest) {
                return Err(unfit(place, "its sha256 is that of another one, too".to_owned()));
            }
            // Two tokens of one name are one caller: the old one and the new, while one takes the other's place.
            if tokens.iter().any(|other| other.name == entry.name && other.role != entry.role) {
                return Err(unfit(place, "there are two of this name with different roles".to_owned()));
            }
            tokens.push(Arc::new(entry));
        }
        Ok(Self(tokens))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none: nobody is let in then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a token that was found before is still there.
    pub(super) fn has(&self, token: &Entry) -> bool {
        self.0.iter().any(|entry| entry.digest == token.digest && entry.role == token.role)
    }

    /// Whose token it is. All are compared, and none faster than another.
    pub(super) fn find(&self, token: &str) -> Option<Arc<Entry>> {
        let digest = Digest::of(token);
        let mut found = 0;
        for (number, entry) in (1..).zip(&self.0) {
            found = u32::conditional_select(&found, &number, entry.digest.is_same(&digest));
        }
        self.0.get(found.checked_sub(1)? as usize).cloned()
    }
}

impl Written {
    fn entry(self) -> Result<Entry, String> {
        let Self { name, role, sha256, hosts, agents, labels } = self;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(|letter| letter.is_control()) {
            return Err(format!("a name has 1 to {MAX_NAME} bytes and no control characters"));
        }
        let digest = Digest::parse(&sha256).ok_or("sha256 has to have 64 hexadecimal digits")?;
        if role != Role::Agent && !(hosts.is_empty() && agents.is_empty() && labels.is_empty()) {
            return Err("hosts, agents and labels are of tokens with the role agent".to_owned());
        }
        let agents = agents.iter().map(|agent| {
            bytes_of(agent)
                .ok_or_else(|| format!("an agent has 32 hexadecimal digits, and {agent:?} has not"))
        });
        let binding = Binding { hosts, agents: agents.collect::<Result<_, _>>()?, labels };
        Ok(Entry { name, role, digest, binding })
    }
}

impl Binding {
    /// Whether an agent may say this of itself; else what of it not.
    pub(super) fn check(&self, hello: &Hello) -> Result<(), String> {
        let is_host = |pattern: &String| match pattern.strip_suffix('*') {
            Some(begin) => hello.host.starts_with(begin),
            None => hello.host == *pattern,
        };
        if !self.hosts.is_empty() && !self.hosts.iter().any(is_host) {
            return Err(format!("host {}", hello.host));
        }
        if !self.agents.is_empty() && !self.agents.iter().any(|agent| agent[..] == hello.agent) {
            return Err("an agent of another identity".to_owned());
        }
        for (name, value) in &self.labels {
            let said = hello.labels.iter().find(|label| label.name == *name).map_or("", |label| &label.value);
            if said != value {
                return Err(format!("a host with {name}={said:?}"));
            }
        }
        Ok(())
    }
}

//! Which service is at an address, and what limits those that are waited for, across hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::verdict::code::Code;

/// Services that are followed from one to the next: as many as waits of threads are.
const DEPTH: usize = 4;

/// Where something is served.
pub type Address = SocketAddr;

/// A service at an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Served {
    /// The service.
    pub scope: String,
    /// Its host.
    pub host: String,
}

/// Who waits for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Who waits.
    pub from: String,
    /// For whom.
    pub to: Served,
    /// At which address.
    pub address: Address,
    /// How long, nanoseconds.
    pub ns: u64,
}

/// A service that is waited for, and what limits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The service.
    pub scope: String,
    /// The address that is waited for most.
    pub address: Address,
    /// The hosts that are waited for, by name.
    pub hosts: Vec<String>,
    /// What limits it; `None` where nothing is known to.
    pub code: Option<Code>,
}

/// Who is at which address. See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Callees {
    at: BTreeMap<SocketAddr, BTreeSet<Served>>,
    /// Those that listen at every address of their host, by port.
    anywhere: BTreeMap<(String, u16), BTreeSet<Served>>,
    hosts: BTreeMap<IpAddr, BTreeSet<String>>,
}

impl Callees {
    /// Takes in that something is served at an address of its host.
    pub fn serves(&mut self, served: Served, at: Address) {
        if at.ip().is_unspecified() {
            self.anywhere.entry((served.host.clone(), at.port())).or_default().insert(served);
            return;
        }
        self.has(&served.host, at.ip());
        if at.ip().is_loopback() {
            // Every host has this address.
            self.anywhere.entry((served.host.clone(), at.port())).or_default().insert(served);
        } else {
            self.at.entry(at).or_default().insert(served);
        }
    }

    /// Takes in that a host has an address.
    pub fn has(&mut self, host: &str, address: IpAddr) {
        if !address.is_loopback() && !address.is_unspecified() {
            self.hosts.entry(address).or_default().insert(host.to_owned());
        }
    }

    /// Who is at an address, for one who asks from a host. `None` where nobody is known to be, and where it may be several: an address that
    /// hosts have in common, as behind a translation of addresses.
    #[must_use]
    pub fn find(&self, from_host: &str, address: Address) -> Option<&Served> {
        let (ip, port) = (address.ip(), address.port());
        if ip.is_loopback() {
            return only(self.anywhere.get(&(from_host.to_owned(), port))?);
        }
        if let Some(served) = self.at.get(&address) {
            return only(served);
        }
        let host = only(self.hosts.get(&ip)?)?;
        only(self.anywhere.get(&(host.clone(), port))?)
    }
}

fn only<T>(set: &BTreeSet<T>) -> Option<&T> {
    set.iter().next().filter(|_| set.len() == 1)
}

/// From a service that waits to what is behind it: the service it waits for longest, and so on while that waits for another.
#[must_use]
pub fn follow(from: &str, waits: &[Wait], limited_by: impl Fn(&str) -> Option<Code>) -> Vec<Step> {
    let (mut steps, mut seen) = (Vec::new(), BTreeSet::from([from]));
    let mut at = from;
    while steps.len() < DEPTH {
        let mut to: BTreeMap<&str, u64> = BTreeMap::new();
        for wait in waits.iter().filter(|wait| wait.from == at && !seen.contains(wait.to.scope.as_str())) {
            *to.entry(&wait.to.scope).or_default() += wait.ns;
        }
        let Some((scope, _)) = to.into_iter().max_by_key(|(scope, ns)| (*ns, std::cmp::Reverse(*scope)))
        else {
            break;
        };
        let of = || waits.iter().filter(|wait| wait.from == at && wait.to.scope == scope);
        let Some(most) = of().max_by_key(|wait| wait.ns) else { break };
        let hosts: BTreeSet<String> = of().map(|wait| wait.to.host.clone()).collect();
        let code = limited_by(scope);
        steps.push(Step {
            scope: scope.to_owned(),
            address: most.address,
            hosts: hosts.into_iter().collect(),
            code,
        });
        if code != Some(Code::NetDownstream) {
            break;
        }
        seen.insert(scope);
        at = scope;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(scope: &str, host: &str) -> Served {
        Served { scope: scope.to_owned(), host: host.to_owned() }
    }

    fn address(text: &str) -> Address {
        text.parse().expect("an address")
    }

    #[test]
    fn services_are_found_by_their_address_or_by_that_of_their_host() {
        let mut callees = Callees::default();
        callees.serves(served("db", "h1"), address("10.0.0.1:5432"));
        callees.serves(served("cache", "h2"), address("0.0.0.0:6379"));
        callees.serves(served("side", "h2"), address("127.0.0.1:9000"));
        callees.has("h2", address("10.0.0.2:1").ip());
        let find = |from: &str, at: &str| callees.find(from, address(at)).map(|found| found.scope.as_str());
        assert_eq!(find("h9", "10.0.0.1:5432"), Some("db"));
        assert_eq!(find("h9", "10.0.0.2:6379"), Some("cache"));
        assert_eq!(find("h2", "127.0.0.1:9000"), Some("side"));
        // Another host's own address, an unknown port, an unknown host.
        assert_eq!(find("h9", "127.0.0.1:9000"), None);
        assert_eq!(find("h9", "10.0.0.2:80"), None);
        assert_eq!(find("h9", "10.0.0.3:5432"), None);
    }

    #[test]
    fn an_address_of_several_hosts_is_nobodys() {
        let mut callees = Callees::default();
        for host in ["h1", "h2"] {
            callees.serves(served("db", host), address("172.17.0.2:5432"));
        }
        assert_eq!(callees.find("h3", address("172.17.0.2:5432")), None);
    }

    #[test]
    fn waits_are_followed_to_what_does_not_wait_itself_and_never_in_circles() {
        let wait = |from: &str, to: &str, ns| Wait {
            from: from.to_owned(),
            to: served(to, "h1"),
            address: address("10.0.0.1:80"),
            ns,
        };
        let waits =
            [wait("web", "api", 9), wait("web", "cache", 1), wait("api", "db", 8), wait("api", "web", 9)];
        let code = |scope: &str| match scope {
            "api" => Some(Code::NetDownstream),
            "db" => Some(Code::IoRead),
            _ => None,
        };
        let told: Vec<_> =
            follow("web", &waits, code).into_iter().map(|step| (step.scope, step.code)).collect();
        let expected = [("api".to_owned(), Some(Code::NetDownstream)), ("db".to_owned(), Some(Code::IoRead))];
        assert_eq!(told, expected);
        assert!(follow("cache", &waits, code).is_empty());
    }
}

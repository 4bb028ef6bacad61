//! Whose agents are. Nobody is asked for permission, for there is nobody to ask: claims are written, and all who read them agree which of
//! them holds.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Shared;
use super::rows::OwnerRow;
use super::server::{Failure, agent_literal};
use crate::clock::now_unix_ns;
use crate::store::embedded::Disowned;
use crate::store::{Asker, StoreError};

/// The owner by these claims: the first after the last that is empty.
fn owner_of(mut claims: Vec<OwnerRow>) -> Option<String> {
    claims.sort_by_key(|claim| (claim.claimed_unix_ns, claim.claim));
    let after = claims.iter().rposition(|claim| claim.owner.is_empty()).map_or(0, |last| last + 1);
    claims.into_iter().nth(after).map(|claim| claim.owner)
}

/// Claims an agent for who has proven this identity, where it belongs to nobody.
///
/// A claim is written to every shard that answers, and is read from all; so it is known as long as one of those that has it answers. Where
/// none is known and a shard does not answer, nobody can say that there is none.
///
/// # Errors
/// [`StoreError::NotOwned`] where it is another one's; where that is not known.
pub(super) fn claim(shared: &Shared, agent: &[u8; 16], identity: &str) -> Result<(), StoreError> {
    let what = "cannot tell whose the agent is";
    let read = || -> Result<(Option<String>, Option<Failure>), StoreError> {
        let mut silent = None;
        let mut claims = Vec::new();
        for shard in &shared.shards {
            let sql = format!(
                "SELECT agent, claimed_unix_ns, claim, owner FROM owners WHERE agent = {}",
                agent_literal(agent)
            );
            match shard.ask(|server| server.rows::<OwnerRow>(&sql)) {
                Ok(rows) => claims.extend(rows),
                Err(failure @ Failure::Silent(_)) => silent = Some(failure),
                Err(failure) => return Err(failure.into_error(what)),
            }
        }
        Ok((owner_of(claims), silent))
    };
    let check = |owner: &str| if owner == identity { Ok(()) } else { Err(StoreError::NotOwned) };
    match read()? {
        (Some(owner), _) => return check(&owner),
        (None, Some(silent)) => return Err(silent.into_error(what)),
        (None, None) => {}
    }
    let claim = OwnerRow {
        agent: *agent,
        claimed_unix_ns: now_unix_ns(),
        claim: fastrand::u64(..),
        owner: identity.to_owned(),
    };
    for shard in &shared.shards {
        let written = shard.ask(|server| server.insert("owners", std::slice::from_ref(&claim)));
        written.map_err(|failure| failure.into_error(what))?;
    }
    // Another collector may have been asked at the same time.
    match read()? {
        (Some(owner), _) => check(&owner),
        (None, _) => Err(Failure::refused("the claim is not there".to_owned()).into_error(what)),
    }
}

/// The owners of all agents that have one, as the servers that answer know them.
///
/// # Errors
/// Where none does.
pub(super) fn all(shared: &Shared, asker: &Asker) -> Result<Vec<([u8; 16], String)>, StoreError> {
    let sql = "SELECT agent, claimed_unix_ns, claim, owner FROM owners";
    let answers = shared
        .ask_all(asker, "cannot tell whose agents are", |server| server.rows_for::<OwnerRow>(asker, sql))?;
    let mut claims = BTreeMap::<[u8; 16], Vec<OwnerRow>>::new();
    for row in answers.into_iter().flatten() {
        claims.entry(row.agent).or_default().push(row);
    }
    let owned = claims.into_iter().filter_map(|(agent, claims)| Some((agent, owner_of(claims)?)));
    Ok(owned.collect())
}

/// Has agents belong to nobody. Returns how many.
///
/// # Errors
/// Where a server does not answer: all of them are to know it.
pub(super) fn disown(shared: &Shared, whose: &Disowned) -> Result<usize, StoreError> {
    let is_meant = |agent: &[u8; 16], owner: &str| match whose {
        Disowned::Agent(one) => one == agent,
        Disowned::Owner(name) => name == owner,
    };
    let asker = Asker::default();
    let known = all(shared, &asker)?;
    if let Some(why) = asker.missing().pop() {
        return Err(Failure::Silent(why).into_error("cannot disown agents"));
    }
    let meant: Vec<OwnerRow> = known
        .into_iter()
        .filter(|(agent, owner)| is_meant(agent, owner))
        .map(|(agent, _)| OwnerRow {
            agent,
            claimed_unix_ns: now_unix_ns(),
            claim: fastrand::u64(..),
            owner: String::new(),
        })
        .collect();
    for shard in &shared.shards {
        shard
            .ask(|server| server.insert("owners", &meant))
            .map_err(|failure| failure.into_error("cannot disown agents"))?;
    }
    Ok(meant.len())
}

/// An agent as the API shows it.
pub(super) fn digits(agent: &[u8; 16]) -> String {
    agent.iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_claim_holds_until_it_is_taken_back() {
        let claim = |claimed_unix_ns, claim, owner: &str| OwnerRow {
            agent: [1; 16],
            claimed_unix_ns,
            claim,
            owner: owner.to_owned(),
        };
        assert_eq!(owner_of(Vec::new()), None);
        let both = vec![claim(5, 9, "b"), claim(5, 2, "a"), claim(7, 1, "c")];
        assert_eq!(owner_of(both.clone()).as_deref(), Some("a"));
        let with = |more: OwnerRow| both.iter().cloned().chain([more]).collect::<Vec<_>>();
        assert_eq!(owner_of(with(claim(6, 1, ""))).as_deref(), Some("c"));
        assert_eq!(owner_of(with(claim(8, 1, ""))), None);
    }
}

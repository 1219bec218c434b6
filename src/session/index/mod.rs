//! Finds sessions without their cookies: by provider and user, and by the provider's own session.
//!
//! Not on a request's way. A login enters its session here after its record is written; logouts at the provider and
//! the admin listener look it up. A set's key is a keyed hash (issuer and `sub`, or issuer and `sid`); its members are
//! the sessions' names in the store, each with a summary that is sealed under the server key alone (contract 5.5).
//!
//! A set and a record cannot be written in one step, for in a cluster they live on different nodes. So the order decides:
//!
//! | a login                               | a logout at the provider                 |
//! | ------------------------------------- | ---------------------------------------- |
//! | 1. writes the record                  | 1. leaves its mark                       |
//! | 2. enters the session into the sets   | 2. looks the sets up                     |
//! | 3. looks for marks; one ends it again | 3. deletes the records                   |
//!
//! Whatever the interleaving, either the logout finds the session in the set and its record is deleted, or the login finds
//! the mark (standards LO-17); and likewise where an administrator ends all sessions of a user. The record comes first because whoever looks a set up strikes what has no record: else the
//! list of one login would strike another that is under way.
//!
//! INVARIANT: a session whose cookie has gone out is in its sets: they outlive it. What is in a set and lives no more is struck when the
//! set is looked at, or grows, so a set holds about twice as many as there ever lived at one time.
//! INVARIANT: keys may rotate: a set is looked for under every server key, and written under the first.

mod few;
mod logout_mark;
mod reference;
#[cfg(test)]
mod tests;

pub use reference::{NoReference, Reference};

use super::record::Payload;
use super::seal::{KeyRing, OpenError, Purpose};
use super::{SessionError, SessionId, Sessions};
use crate::clock::UnixTime;
use crate::store::{Kind, StoreKey};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Whose sessions are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    /// A user's.
    Sub {
        /// The provider's issuer identifier.
        issuer: &'a str,
        /// The user there.
        sub: &'a str,
    },
    /// A session's at the provider (Back-Channel Logout §2.1).
    Sid {
        /// The provider's issuer identifier.
        issuer: &'a str,
        /// The session there.
        sid: &'a str,
    },
}

/// Which sessions of an index are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those that are there now.
    There,
    /// Those, and those whose record is missing but may be written again: a failover can lose what its writer remembers, and
    /// an end has to reach that too.
    ToEnd,
}

/// A session as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    #[serde(with = "hash")]
    hash: [u8; 32],
    /// The provider's name in the config, when it began.
    pub provider: String,
    /// How the provider knows cloakroom.
    pub client_id: String,
    /// Who.
    pub sub: String,
    /// The provider's own session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// When the user signed in.
    pub begun: UnixTime,
}

impl Listed {
    /// What logs and the admin listener call it.
    #[must_use]
    pub const fn reference(&self) -> Reference {
        Reference::of(self.hash)
    }
}

/// A set that grew to so many members is swept of those that live no more, and again at each doubling.
const SWEEP_FROM: usize = 16;
/// How long a session's entry stays although its record is gone: a failover may have lost the record alone, and whoever
/// wrote it writes it again.
const UNSETTLED: Duration = Duration::from_mins(10);

impl Whose<'_> {
    const fn issuer(&self) -> &str {
        match self {
            Self::Sub { issuer, .. } | Self::Sid { issuer, .. } => issuer,
        }
    }

    const fn kind(&self) -> Kind {
        match self {
            Self::Sub { .. } => Kind::UserIndex,
            Self::Sid { .. } => Kind::SidIndex,
        }
    }

    /// What is hashed; unambiguous, because the issuer has its length in front.
    fn message(&self) -> Vec<u8> {
        let (word, issuer, whose) = match self {
            Self::Sub { issuer, sub } => ("sub", issuer, sub),
            Self::Sid { issuer, sid } => ("sid", issuer, sid),
        };
        let length = (issuer.len() as u64).to_be_bytes();
        [word.as_bytes(), &length, issuer.as_bytes(), whose.as_bytes()].concat()
    }
}

impl Sessions {
    /// What logs and the admin listener call the session that this cookie opens.
    #[must_use]
    pub fn reference(&self, id: &SessionId) -> Reference {
        Reference::of(id.store_key())
    }

    /// The sets' names, under each server key, the first key's first.
    fn names(&self, whose: &Whose<'_>, kind: Kind) -> Vec<StoreKey> {
        let hashes = self.keys.sign_with_all("session-index", &whose.message());
        hashes.into_iter().map(|hash| StoreKey { kind, hash }).collect()
    }

    /// Enters a session into its sets: after its record is written.
    pub(in crate::session) async fn enlist(
        &self,
        hash: [u8; 32],
        record: &Payload,
        issuer: &str,
        client_id: &str,
    ) -> Result<(), SessionError> {
        let listed = Listed {
            hash,
            provider: record.provider.clone(),
            client_id: client_id.to_owned(),
            sub: record.sub.clone(),
            sid: record.sid.clone(),
            begun: record.begun,
        };
        let plain = serde_json::to_vec(&listed).map_err(|_| SessionError::Unreadable("it has no summary"))?;
        let sealed = self.keys.seal(Purpose::Listing, &[], &[issuer], &plain);
        let (member, ttl) = (self.keys.scoped(hash), self.lifetime.index_ttl());
        for whose in of_record(record, issuer) {
            let Some(set) = self.names(&whose, whose.kind()).first().copied() else {
                continue;
            };
            let count = self
                .store
                .enlist(set, &member, sealed.clone().into(), ttl)
                .await?;
            if count >= SWEEP_FROM && count.is_power_of_two() {
                self.sweep(set, issuer).await?;
            }
        }
        // To be found by its reference: under the name that its record has.
        let summary = self.key(Kind::Summary, hash);
        self.store.enlist(summary, &member, sealed.into(), ttl).await?;
        Ok(())
    }

    /// Strikes the members of a set that live no more.
    async fn sweep(&self, set: StoreKey, issuer: &str) -> Result<(), SessionError> {
        let mut gone = Vec::new();
        for (member, sealed) in self.store.listed(set).await? {
            let shown = unseal(&self.keys, &[issuer], member, &sealed).ok().flatten();
            let is_settled = shown.is_none_or(|(_, listed)| self.is_settled(&listed));
            if is_settled && !self.is_there(member).await? {
                gone.push(member);
            }
        }
        Ok(self.store.strike(set, &gone).await?)
    }

    /// Whether the record of this entry, if it is gone, is gone for good.
    fn is_settled(&self, listed: &Listed) -> bool {
        self.clock.now() > listed.begun.plus(UNSETTLED)
    }

    pub(in crate::session) async fn is_there(&self, member: [u8; 32]) -> Result<bool, SessionError> {
        let key = StoreKey {
            kind: Kind::Session,
            hash: member,
        };
        Ok(self.store.read(key).await?.is_some())
    }

    /// The sessions of a user, or of a session at the provider, the oldest first.
    ///
    /// A session that has reached its idle end but not the end of its record's time may still be among them.
    ///
    /// # Errors
    /// [`SessionError`]: it is not known which there are.
    pub async fn find(&self, whose: Whose<'_>, wanted: Wanted) -> Result<Vec<Listed>, SessionError> {
        let mut found: Vec<Listed> = Vec::new();
        for set in self.names(&whose, whose.kind()) {
            let mut gone = Vec::new();
            for (member, listed) in self.entries(set, whose.issuer()).await? {
                let is_wanted = match listed {
                    Entry::There(ref listed) => Some(listed),
                    Entry::Unsettled(ref listed) => (wanted == Wanted::ToEnd).then_some(listed),
                    Entry::Gone => {
                        gone.push(member);
                        None
                    }
                };
                if let Some(listed) = is_wanted
                    && found.iter().all(|other| other.hash != listed.hash)
                {
                    found.push(listed.clone());
                }
            }
            self.store.strike(set, &gone).await?;
        }
        found.sort_by_key(|listed| (listed.begun, listed.hash));
        Ok(found)
    }

    /// What is in a set, each member's record asked for at once: one node of a cluster that hangs holds up no other.
    async fn entries(&self, set: StoreKey, issuer: &str) -> Result<Vec<([u8; 32], Entry)>, SessionError> {
        let mut readable = Vec::new();
        for (member, sealed) in self.store.listed(set).await? {
            let Some((_, listed)) = unseal(&self.keys, &[issuer], member, &sealed)? else {
                tracing::error!(?set, "an entry of the session index was tampered with");
                continue;
            };
            readable.push((member, listed));
        }
        let asked = readable.into_iter().map(async |(member, listed)| {
            // Where that cannot be told (one node of a cluster is away), it counts as there: whoever ends it is told that
            // its end is not confirmed, and those on other nodes end all the same.
            let entry = if self.is_there(member).await.unwrap_or(true) {
                Entry::There(listed)
            } else if self.is_settled(&listed) {
                Entry::Gone
            } else {
                Entry::Unsettled(listed)
            };
            (member, entry)
        });
        Ok(join_all(asked).await)
    }
}

/// What became of a session in an index.
enum Entry {
    There(Listed),
    /// Its record is missing, and may be written again.
    Unsettled(Listed),
    Gone,
}

/// What lists show of a member, out of its seal, and the one of these issuers that it belongs to. `None`: it was tampered
/// with, or is of another issuer.
///
/// # Errors
/// [`SessionError::Unreadable`]: the operator's fault, and nobody can say whose session it is.
pub(in crate::session) fn unseal<'i>(
    keys: &KeyRing,
    issuers: &[&'i str],
    member: [u8; 32],
    sealed: &[u8],
) -> Result<Option<(&'i str, Listed)>, SessionError> {
    let contexts: Vec<[&str; 1]> = issuers.iter().map(|issuer| [*issuer]).collect();
    let contexts = contexts.iter().map(|context| &context[..]);
    let (n, plain) = match keys.open_any(Purpose::Listing, &[], contexts, sealed) {
        Ok(Some(opened)) => opened,
        Ok(None) | Err(OpenError::Broken) => return Ok(None),
        Err(OpenError::UnknownKey | OpenError::UnknownFormat) => {
            return Err(SessionError::Unreadable(
                "an index is sealed with another key or by another release",
            ));
        }
    };
    // A summary names its member, so none can be moved to another's place.
    let listed: Option<Listed> = serde_json::from_slice(&plain).ok();
    let listed = listed.filter(|listed| keys.scoped(listed.hash) == member);
    Ok(listed.map(|listed| (issuers[n], listed)))
}

fn of_record<'a>(record: &'a Payload, issuer: &'a str) -> impl Iterator<Item = Whose<'a>> {
    let sub = Whose::Sub {
        issuer,
        sub: &record.sub,
    };
    let sid = record.sid.as_deref().map(|sid| Whose::Sid { issuer, sid });
    std::iter::once(sub).chain(sid)
}

/// A hash as text.
mod hash {
    use super::Reference;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer>(hash: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        Reference::of(*hash).to_string().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let reference: Reference = text.parse().map_err(de::Error::custom)?;
        Ok(reference.hash())
    }
}

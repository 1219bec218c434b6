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
//! the mark (standards LO-17). The record comes first because whoever looks a set up strikes what has no record: else the
//! list of one login would strike another that is under way.
//!
//! INVARIANT: a session whose cookie has gone out is in its sets: they outlive it. What is in a set and lives no more is struck when the
//! set is looked at, or grows, so a set holds about twice as many as there ever lived at one time.
//! INVARIANT: keys may rotate: a set is looked for under every server key, and written under the first.

use super::record::Payload;
use super::seal::{KeyRing, OpenError, Purpose};
use super::{SessionError, SessionId, Sessions};
use crate::clock::UnixTime;
use crate::store::{Kind, StoreKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// What logs and the admin listener call a session: its store key hash, in hexadecimal. The cookie cannot be computed
/// from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference([u8; 32]);

impl Reference {
    /// The hash that [`Sessions::end_known`] takes.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.0
    }

    /// Of the session with that store key hash (see [`SessionId::store_key`]).
    #[must_use]
    pub const fn of(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// It is no reference: 64 hexadecimal digits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session's reference is 64 hexadecimal digits")]
pub struct NoReference;

impl FromStr for Reference {
    type Err = NoReference;

    fn from_str(text: &str) -> Result<Self, NoReference> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NoReference);
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NoReference)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NoReference)?;
        }
        Ok(Self(hash))
    }
}

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
        Reference(self.hash)
    }
}

/// A set that grew to so many members is swept of those that live no more, and again at each doubling.
const SWEEP_FROM: usize = 16;
/// How long a mark keeps logins out that began before it: as long as a login may take, and a while.
const MARK: Duration = Duration::from_mins(15);

impl Whose<'_> {
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
        Reference(id.store_key())
    }

    /// The sets' names, under each server key, the first key's first.
    fn names(&self, whose: &Whose<'_>, kind: Kind) -> Vec<StoreKey> {
        let hashes = self.keys.sign_with_all("session-index", &whose.message());
        hashes.into_iter().map(|hash| StoreKey { kind, hash }).collect()
    }

    /// Enters a session into its sets: after its record is written.
    pub(super) async fn enlist(
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
                self.sweep(set, &member).await?;
            }
        }
        // To be found by its reference: under the name that its record has.
        let summary = self.key(Kind::Summary, hash);
        self.store.enlist(summary, &member, sealed.into(), ttl).await?;
        Ok(())
    }

    /// Strikes the members of a set that live no more, but for the one that is about to.
    async fn sweep(&self, set: StoreKey, newest: &[u8; 32]) -> Result<(), SessionError> {
        let mut gone = Vec::new();
        for (member, _) in self.store.listed(set).await? {
            if member != *newest && !self.is_there(member).await? {
                gone.push(member);
            }
        }
        Ok(self.store.strike(set, &gone).await?)
    }

    pub(super) async fn is_there(&self, member: [u8; 32]) -> Result<bool, SessionError> {
        let key = StoreKey {
            kind: Kind::Session,
            hash: member,
        };
        Ok(self.store.read(key).await?.is_some())
    }

    /// The sessions of a user, or of a session at the provider: those that are there now, the oldest first.
    ///
    /// A session that has reached its idle end but not the end of its record's time may still be among them.
    ///
    /// # Errors
    /// [`SessionError`]: it is not known which there are.
    pub async fn find(&self, whose: Whose<'_>) -> Result<Vec<Listed>, SessionError> {
        let (Whose::Sub { issuer, .. } | Whose::Sid { issuer, .. }) = whose;
        let mut found: Vec<Listed> = Vec::new();
        for set in self.names(&whose, whose.kind()) {
            let mut gone = Vec::new();
            for (member, sealed) in self.store.listed(set).await? {
                let Some((_, listed)) = unseal(&self.keys, &[issuer], member, &sealed)? else {
                    tracing::error!(?set, "an entry of the session index was tampered with");
                    continue;
                };
                // Where that cannot be told (one node of a cluster is away), it counts as there: whoever ends it is told that its
                // end is not confirmed, and those on other nodes end all the same.
                if !self.is_there(member).await.unwrap_or(true) {
                    gone.push(member);
                } else if found.iter().all(|other| other.hash != listed.hash) {
                    found.push(listed);
                }
            }
            self.store.strike(set, &gone).await?;
        }
        found.sort_by_key(|listed| (listed.begun, listed.hash));
        Ok(found)
    }

    /// Keeps out logins under way that began before the provider logged this user, or this session of its own, out: to be
    /// called before the sessions that are there are looked up. `at`: the logout token's `iat`.
    ///
    /// # Errors
    /// [`SessionError`]: a login under way may still finish.
    ///
    /// # Cancel safety
    /// Repeating is safe.
    pub async fn log_out_at_provider(
        &self,
        issuer: &str,
        sub: Option<&str>,
        sid: Option<&str>,
        at: UnixTime,
    ) -> Result<(), SessionError> {
        // Where both are named, only that session of the user's has ended.
        let whose = match (sub, sid) {
            (_, Some(sid)) => Whose::Sid { issuer, sid },
            (Some(sub), None) => Whose::Sub { issuer, sub },
            (None, None) => return Ok(()),
        };
        let mark = Mark {
            at,
            sub: sub.map(str::to_owned),
        };
        let plain = serde_json::to_vec(&mark).map_err(|_| SessionError::Unreadable("it has no mark"))?;
        let sealed = self.keys.seal(Purpose::LogoutMark, &[], &[issuer], &plain);
        let Some(key) = self.names(&whose, Kind::LogoutMark).first().copied() else {
            return Ok(());
        };
        // A token that was held up on its way does not take back what a later one said.
        if let (Whose::Sub { .. }, Some(there)) = (&whose, self.store.read(key).await?)
            && self
                .open_mark(issuer, &there.sealed)
                .is_some_and(|there| there.at >= at)
        {
            return Ok(());
        }
        Ok(self.store.create(key, sealed.into(), MARK).await?)
    }

    fn open_mark(&self, issuer: &str, sealed: &[u8]) -> Option<Mark> {
        let plain = self.keys.open(Purpose::LogoutMark, &[], &[issuer], sealed).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    /// Whether the provider has logged this session out before it began: asked after its record was written.
    pub(super) async fn is_logged_out(&self, record: &Payload, issuer: &str) -> Result<bool, SessionError> {
        // When the provider says that the user was there: its own clock, as in the logout token.
        let signed_in = record.claims.get("iat").and_then(serde_json::Value::as_u64);
        let signed_in = signed_in.map_or(record.begun, UnixTime::from_secs);
        for whose in of_record(record, issuer) {
            for key in self.names(&whose, Kind::LogoutMark) {
                let Some(found) = self.store.read(key).await? else {
                    continue;
                };
                // One that cannot be read was left by somebody: better one login too many refused.
                let Some(mark) = self.open_mark(issuer, &found.sealed) else {
                    return Ok(true);
                };
                let holds = match whose {
                    // A session at the provider that has ended does not come back.
                    Whose::Sid { .. } => mark.sub.is_none_or(|sub| sub == record.sub),
                    // Within one second nobody knows which came first: the user signs in again.
                    Whose::Sub { .. } => signed_in.as_secs() <= mark.at.as_secs(),
                };
                if holds {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Dates a session after all others of its user, however far this replica's clock lags: or `max_per_user` would take
    /// the login that has just happened for the oldest.
    pub(super) async fn date_last(&self, record: &mut Payload, issuer: &str) -> Result<(), SessionError> {
        let sub = &record.sub;
        let found = self.find(Whose::Sub { issuer, sub }).await?;
        if let Some(newest) = found.last() {
            record.begun = record.begun.max(newest.begun.plus(Duration::from_millis(1)));
        }
        Ok(())
    }

    /// Ends a user's oldest sessions until there are no more than `session.max_per_user`. Best effort, after a login: the
    /// next one sees to what is left.
    pub(super) async fn keep_few(self: &Arc<Self>, issuer: &str, sub: &str) {
        let Some(max) = self.max_per_user else {
            return;
        };
        let found = match self.find(Whose::Sub { issuer, sub }).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "it is not known how many sessions a user has: none was ended");
                return;
            }
        };
        let too_many = found.len().saturating_sub(max);
        for listed in found.into_iter().take(too_many) {
            let (session, provider) = (listed.reference(), &listed.provider);
            let reason = "max_per_user";
            match self.end_known(listed.hash).await {
                Ok(true) => {
                    tracing::info!(target: "cloakroom::audit", event = "session_ended", reason, %session, provider);
                }
                // Another login was quicker.
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(
                        target: "cloakroom::audit", event = "session_ended", reason, %session, provider, %error, "incomplete"
                    );
                }
            }
        }
    }
}

/// What lists show of a member, out of its seal, and the one of these issuers that it belongs to. `None`: it was tampered
/// with, or is of another issuer.
///
/// # Errors
/// [`SessionError::Unreadable`]: the operator's fault, and nobody can say whose session it is.
pub(super) fn unseal<'i>(
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

/// What a logout at the provider leaves.
#[derive(Serialize, Deserialize)]
struct Mark {
    /// The logout token's `iat`.
    at: UnixTime,
    /// Where a session at the provider was named together with its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
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
        Reference(*hash).to_string().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let reference: Reference = text.parse().map_err(de::Error::custom)?;
        Ok(reference.hash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SessionSettings;
    use crate::secret::Secret;
    use crate::session::testing::{BEGIN, World, key_ring, new_session, replica, replica_with};
    use crate::session::{BeginError, NewSession};
    use crate::store::testing::Fails;
    use serde_json::json;

    const ISSUER: &str = "https://id.example.com";

    fn sub(sub: &str) -> Whose<'_> {
        Whose::Sub { issuer: ISSUER, sub }
    }

    fn sid(sid: &str) -> Whose<'_> {
        Whose::Sid { issuer: ISSUER, sid }
    }

    fn of(world: &World, sub: &str, sid: &str) -> NewSession {
        let mut new = new_session(&world.clock);
        sub.clone_into(&mut new.sub);
        new.sid = Some(sid.to_owned());
        new.claims
            .insert("iat".into(), json!(world.clock.now().as_secs()));
        new
    }

    async fn begin(world: &World, sub: &str, sid: &str) -> SessionId {
        world.sessions.begin(of(world, sub, sid)).await.unwrap().0
    }

    async fn found(world: &World, whose: Whose<'_>) -> Vec<Reference> {
        let found = world.sessions.find(whose).await.unwrap();
        found.iter().map(Listed::reference).collect()
    }

    fn references(world: &World, ids: &[&SessionId]) -> Vec<Reference> {
        ids.iter().map(|id| world.sessions.reference(id)).collect()
    }

    #[test]
    fn a_reference_survives_its_text() {
        let reference = Reference::of([0xa7; 32]);
        assert_eq!(reference.to_string(), "a7".repeat(32));
        assert_eq!(reference.to_string().parse(), Ok(reference));
        assert_eq!("A7".repeat(32).parse(), Ok(reference));
        for bad in [
            String::new(),
            "a7".repeat(31),
            "a7".repeat(33),
            "g7".repeat(32),
            "é".repeat(32),
            "+7".repeat(32),
        ] {
            assert_eq!(bad.parse::<Reference>(), Err(NoReference), "{bad}");
        }
    }

    #[tokio::test]
    async fn lo_16_each_session_is_found_by_its_user_and_by_the_providers_session() {
        let world = World::new();
        let one = begin(&world, "alice", "s1").await;
        world.clock.advance(Duration::from_secs(1));
        let two = begin(&world, "alice", "s2").await;
        begin(&world, "bob", "s3").await;
        assert_eq!(
            found(&world, sub("alice")).await,
            references(&world, &[&one, &two])
        );
        assert_eq!(found(&world, sid("s2")).await, references(&world, &[&two]));
        assert_eq!(found(&world.another(), sub("alice")).await.len(), 2);
        let elsewhere = Whose::Sub {
            issuer: "https://elsewhere.example.com",
            sub: "alice",
        };
        assert_eq!(found(&world, elsewhere).await, []);
        // A user's name is not taken for a session's.
        assert_eq!(found(&world, sid("alice")).await, []);
        // Ending one leaves the others to be found.
        world.sessions.end_known(one.store_key()).await.unwrap();
        assert_eq!(found(&world, sub("alice")).await, references(&world, &[&two]));
    }

    #[tokio::test]
    async fn what_lists_show_is_sealed_and_belongs_to_its_member() {
        let world = World::new();
        let (one, other) = (
            begin(&world, "alice", "s1").await,
            begin(&world, "mallory", "s2").await,
        );
        let sets =
            [sub("alice"), sub("mallory")].map(|whose| world.sessions.names(&whose, Kind::UserIndex)[0]);
        let (member, sealed) = world.store.listed(sets[0]).await.unwrap().remove(0);
        let readable = String::from_utf8_lossy(&sealed).into_owned();
        for word in ["alice", "main", "app", "s1"] {
            assert!(!readable.contains(word), "{word}");
        }
        assert!(member != one.store_key());
        // A summary that was moved to another session's place names neither.
        let hour = Duration::from_hours(1);
        let its_place = world.sessions.keys.scoped(other.store_key());
        world
            .store
            .enlist(sets[1], &its_place, sealed, hour)
            .await
            .unwrap();
        assert_eq!(found(&world, sub("mallory")).await, []);
    }

    #[tokio::test]
    async fn se_05_sets_are_found_after_the_keys_have_rotated() {
        let world = World::new();
        let before = begin(&world, "alice", "s1").await;
        let key = |n: u8| {
            Secret::new(base64::Engine::encode(
                &base64::prelude::BASE64_URL_SAFE_NO_PAD,
                [n; 32],
            ))
        };
        let ring = KeyRing::new("https://app.example.com", &[key(9), key(1)]).unwrap();
        let mut after = world.another();
        after.sessions = replica(
            &world.store,
            ring,
            std::slice::from_ref(&world.provider),
            &world.clock,
            &world.tasks,
        );
        let late = Duration::from_secs(1);
        world.clock.advance(late);
        let new = begin(&after, "alice", "s1").await;
        assert_eq!(
            found(&after, sub("alice")).await,
            references(&world, &[&before, &new])
        );
        assert_eq!(found(&after, sid("s1")).await.len(), 2);
        // A replica without the new key does not take what it cannot read for nothing.
        let blind = replica(
            &world.store,
            key_ring("https://app.example.com", 9),
            std::slice::from_ref(&world.provider),
            &world.clock,
            &world.tasks,
        );
        assert_eq!(blind.find(sub("alice")).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn sets_are_swept_of_what_lives_no_more() {
        let world = World::new();
        let keeps = begin(&world, "alice", "s1").await;
        for _ in 0..200 {
            let id = begin(&world, "alice", "s1").await;
            world.sessions.end_known(id.store_key()).await.unwrap();
        }
        let set = world.sessions.names(&sub("alice"), Kind::UserIndex)[0];
        assert!(world.store.listed(set).await.unwrap().len() <= 2 * SWEEP_FROM);
        assert_eq!(found(&world, sub("alice")).await, references(&world, &[&keeps]));
    }

    #[tokio::test]
    async fn lo_17_a_login_under_way_loses_against_a_logout_at_the_provider() {
        for (named, is_kept_out) in [
            ((Some("alice"), Some("s1")), true),
            ((None, Some("s1")), true),
            ((Some("alice"), None), true),
            ((Some("bob"), None), false),
            ((Some("bob"), Some("s1")), false),
            ((Some("alice"), Some("s2")), false),
        ] {
            let world = World::new();
            let new = of(&world, "alice", "s1");
            let replica = world.another();
            let marked = replica
                .sessions
                .log_out_at_provider(ISSUER, named.0, named.1, world.clock.now());
            marked.await.unwrap();
            let begun = world.sessions.begin(new).await;
            assert_eq!(
                matches!(begun, Err(BeginError::LoggedOut)),
                is_kept_out,
                "{named:?}"
            );
            assert_eq!(
                found(&world, sub("alice")).await.is_empty(),
                is_kept_out,
                "{named:?}"
            );
        }
    }

    #[tokio::test]
    async fn lo_17_an_older_logout_token_that_comes_late_takes_nothing_back() {
        let world = World::new();
        let new = of(&world, "alice", "s1");
        for at in [world.clock.now(), BEGIN.minus(Duration::from_mins(5))] {
            let logout = world
                .sessions
                .log_out_at_provider(ISSUER, Some("alice"), None, at);
            logout.await.unwrap();
        }
        assert!(matches!(
            world.sessions.begin(new).await,
            Err(BeginError::LoggedOut)
        ));
    }

    #[tokio::test]
    async fn lo_07_a_session_is_found_until_its_delete_is_confirmed() {
        let world = World::new();
        let id = begin(&world, "alice", "s1").await;
        world.store.outage.begin(&["delete"], Fails::Before);
        assert!(world.sessions.end_known(id.store_key()).await.is_err());
        // A logout token that is sent once more must not be taken for done.
        assert_eq!(found(&world, sub("alice")).await.len(), 1);
        assert_eq!(found(&world.another(), sub("alice")).await.len(), 1);
    }

    #[tokio::test]
    async fn lo_17_a_login_after_the_logout_succeeds() {
        let world = World::new();
        let logout = world
            .sessions
            .log_out_at_provider(ISSUER, Some("alice"), None, world.clock.now());
        logout.await.unwrap();
        world.clock.advance(Duration::from_secs(1));
        begin(&world, "alice", "s2").await;
    }

    #[tokio::test]
    async fn fa_01_a_login_whose_marks_cannot_be_read_leaves_no_session() {
        let world = World::new();
        let set = world.sessions.names(&sub("alice"), Kind::UserIndex)[0];
        world.store.outage.begin(&["read"], Fails::Before);
        assert!(matches!(
            world.sessions.begin(of(&world, "alice", "s1")).await,
            Err(BeginError::Session(_))
        ));
        // Whether it is there cannot be told, so whoever ends all of them ends it as well.
        assert_eq!(found(&world, sub("alice")).await.len(), 1);
        world.store.outage.end();
        assert_eq!(world.store.listed(set).await.unwrap().len(), 1);
        assert_eq!(found(&world, sub("alice")).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn lo_17_a_login_under_way_is_not_struck_from_its_sets_by_whoever_looks() {
        for slow in ["create", "enlist"] {
            let world = World::new();
            world.store.outage.begin(&[slow], Fails::Late);
            let looks = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                found(&world.another(), sub("alice")).await
            };
            let (id, under_way) = tokio::join!(begin(&world, "alice", "s1"), looks);
            assert_eq!(under_way, [], "{slow}");
            world.store.outage.end();
            let its = references(&world, &[&id]);
            assert_eq!(found(&world, sub("alice")).await, its, "{slow}");
            assert_eq!(found(&world, sid("s1")).await, its, "{slow}");
        }
    }

    #[tokio::test]
    async fn fa_01_a_session_that_cannot_be_entered_into_its_sets_ends() {
        let world = World::new();
        world.store.outage.begin(&["enlist"], Fails::After);
        assert!(world.sessions.begin(of(&world, "alice", "s1")).await.is_err());
        world.store.outage.end();
        let set = world.sessions.names(&sub("alice"), Kind::UserIndex)[0];
        let left = world.store.listed(set).await.unwrap();
        assert_eq!(left.len(), 1, "it was entered all the same");
        assert!(!world.sessions.is_there(left[0].0).await.unwrap());
    }

    #[tokio::test]
    async fn se_09_a_users_oldest_sessions_end_where_there_are_too_many() {
        let mut world = World::new();
        let settings = SessionSettings {
            max_per_user: Some(2),
            ..SessionSettings::default()
        };
        world.sessions = replica_with(
            &world.store,
            key_ring("https://app.example.com", 1),
            &[world.provider.clone()],
            &world.clock,
            &world.tasks,
            &settings,
        );
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(begin(&world, "alice", "s1").await);
            world.clock.advance(Duration::from_secs(1));
        }
        begin(&world, "bob", "s2").await;
        assert_eq!(
            found(&world, sub("alice")).await,
            references(&world, &[&ids[2], &ids[3]])
        );
        assert!(world.look_up(&ids[1]).await.is_none());
        assert!(world.look_up(&ids[2]).await.is_some() && BEGIN < world.clock.now());
        // A replica whose clock lags signs somebody in: that is the newest all the same.
        world.clock = crate::clock::Clock::manual(BEGIN);
        world.sessions = replica_with(
            &world.store,
            key_ring("https://app.example.com", 1),
            std::slice::from_ref(&world.provider),
            &world.clock,
            &world.tasks,
            &settings,
        );
        let late = begin(&world, "alice", "s1").await;
        assert!(world.look_up(&late).await.is_some());
        assert_eq!(
            found(&world, sub("alice")).await,
            references(&world, &[&ids[3], &late])
        );
    }
}

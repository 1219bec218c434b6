//! What a logout at the provider leaves, so that a login under way loses (standards LO-17). How the two race: see [`super`].
//!
//! An administrator who ends all sessions of a user leaves one too. The two are told apart, because they are measured
//! against different things: the provider's by when it says that the user was there (its own clock), the administrator's by
//! when the login was begun here.
//!
//! INVARIANT: a mark outlives every login that began before it, and no later logout token is taken back by an older one.

use super::{Whose, of_record};
use crate::clock::UnixTime;
use crate::session::record::Payload;
use crate::session::seal::Purpose;
use crate::session::{RefreshAt, SessionError, Sessions};
use crate::store::{Kind, StoreKey};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a mark keeps logins out that began before it: as long as a login may take, and a while.
const MARK: Duration = Duration::from_mins(15);

/// What a logout leaves.
#[derive(Serialize, Deserialize)]
struct Mark {
    /// The logout token's `iat`, or when the administrator asked.
    at: UnixTime,
    /// Where a session at the provider was named together with its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
}

impl Sessions {
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
        let Some(key) = self.names(&whose, Kind::LogoutMark).first().copied() else {
            return Ok(());
        };
        // A token that was held up on its way does not take back what a later one said.
        if matches!(whose, Whose::Sub { .. }) && self.is_marked_since(key, issuer, at).await? {
            return Ok(());
        }
        self.leave(key, issuer, &mark).await
    }

    /// Keeps out logins of a user that were begun until now, at the provider of this name in the config or at all: to be
    /// called before the sessions that are there are looked up, by who is about to end them all.
    ///
    /// # Errors
    /// [`SessionError`]: a login under way may still finish.
    ///
    /// # Cancel safety
    /// Repeating is safe.
    pub async fn keep_out_logins_under_way(
        &self,
        sub: &str,
        provider: Option<&str>,
    ) -> Result<(), SessionError> {
        let at = self.clock.now();
        let wanted = |name: &str| provider.is_none_or(|provider| provider == name);
        for provider in self.providers.iter().filter(|one| wanted(one.name())) {
            let key = self.administrators_marks(&**provider, sub).into_iter().next();
            if let Some(key) = key
                && !self.is_marked_since(key, provider.issuer(), at).await?
            {
                let mark = Mark { at, sub: None };
                self.leave(key, provider.issuer(), &mark).await?;
            }
        }
        Ok(())
    }

    /// Where an administrator's mark is for a user of this provider, under each server key, the first key's first.
    fn administrators_marks(&self, provider: &dyn RefreshAt, sub: &str) -> Vec<StoreKey> {
        let mut message = Vec::new();
        for part in [provider.issuer(), provider.client_id(), sub] {
            message.extend((part.len() as u64).to_be_bytes());
            message.extend(part.as_bytes());
        }
        let hashes = self.keys.sign_with_all("administrators-mark", &message);
        let key = |hash| StoreKey {
            kind: Kind::LogoutMark,
            hash,
        };
        hashes.into_iter().map(key).collect()
    }

    /// Whether there is a mark of that time, or of a later one.
    async fn is_marked_since(&self, key: StoreKey, issuer: &str, at: UnixTime) -> Result<bool, SessionError> {
        let there = self.store.read(key).await?;
        let there = there.and_then(|there| self.open_mark(issuer, &there.sealed));
        Ok(there.is_some_and(|there| there.at >= at))
    }

    async fn leave(&self, key: StoreKey, issuer: &str, mark: &Mark) -> Result<(), SessionError> {
        let plain = serde_json::to_vec(mark).map_err(|_| SessionError::Unreadable("it has no mark"))?;
        let sealed = self.keys.seal(Purpose::LogoutMark, &[], &[issuer], &plain);
        Ok(self.store.create(key, sealed.into(), MARK).await?)
    }

    fn open_mark(&self, issuer: &str, sealed: &[u8]) -> Option<Mark> {
        let plain = self.keys.open(Purpose::LogoutMark, &[], &[issuer], sealed).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    /// Whether a session's user was logged out before its login came to its end: asked after its record was written.
    /// `attempted`: when its login was begun.
    pub(in crate::session) async fn is_logged_out(
        &self,
        record: &Payload,
        provider: &dyn RefreshAt,
        attempted: UnixTime,
    ) -> Result<bool, SessionError> {
        Ok(self.is_logged_out_at_provider(record, provider.issuer()).await?
            || self
                .is_kept_out_by_administrator(record, provider, attempted)
                .await?)
    }

    async fn is_kept_out_by_administrator(
        &self,
        record: &Payload,
        provider: &dyn RefreshAt,
        attempted: UnixTime,
    ) -> Result<bool, SessionError> {
        for key in self.administrators_marks(provider, &record.sub) {
            if self
                .is_kept_out(key, provider.issuer(), |mark| attempted <= mark.at)
                .await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether there is a mark that holds.
    async fn is_kept_out(
        &self,
        key: StoreKey,
        issuer: &str,
        holds: impl FnOnce(&Mark) -> bool,
    ) -> Result<bool, SessionError> {
        let Some(found) = self.store.read(key).await? else {
            return Ok(false);
        };
        // One that cannot be read was left by somebody: better one login too many refused.
        Ok(self
            .open_mark(issuer, &found.sealed)
            .is_none_or(|mark| holds(&mark)))
    }

    async fn is_logged_out_at_provider(&self, record: &Payload, issuer: &str) -> Result<bool, SessionError> {
        // When the provider says that the user was there: its own clock, as in the logout token.
        let signed_in = record.claims.get("iat").and_then(serde_json::Value::as_u64);
        let signed_in = signed_in.map_or(record.begun, UnixTime::from_secs);
        for whose in of_record(record, issuer) {
            for key in self.names(&whose, Kind::LogoutMark) {
                let holds = |mark: &Mark| match whose {
                    // A session at the provider that has ended does not come back.
                    Whose::Sid { .. } => mark.sub.as_ref().is_none_or(|sub| *sub == record.sub),
                    // Within one second nobody knows which came first: the user signs in again.
                    Whose::Sub { .. } => signed_in.as_secs() <= mark.at.as_secs(),
                };
                if self.is_kept_out(key, issuer, holds).await? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

//! What a logout at the provider leaves, so that a login under way loses (standards LO-17). How the two race: see [`super`].
//!
//! INVARIANT: a mark outlives every login that began before it, and no later logout token is taken back by an older one.

use super::{Whose, of_record};
use crate::clock::UnixTime;
use crate::session::record::Payload;
use crate::session::seal::Purpose;
use crate::session::{SessionError, Sessions};
use crate::store::Kind;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a mark keeps logins out that began before it: as long as a login may take, and a while.
const MARK: Duration = Duration::from_mins(15);

/// What a logout at the provider leaves.
#[derive(Serialize, Deserialize)]
struct Mark {
    /// The logout token's `iat`.
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
    pub(in crate::session) async fn is_logged_out(
        &self,
        record: &Payload,
        issuer: &str,
    ) -> Result<bool, SessionError> {
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
}

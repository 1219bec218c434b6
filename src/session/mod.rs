//! What a session is, how long it lives, one refresh at a time.
//!
//! On a request's way this comes after `guard` has found the cookie and before `proxy` sends the token.

pub mod id;
pub mod login_attempt;
pub mod record;
pub mod refresh;
pub mod seal;

pub use id::SessionId;
pub use record::{NewSession, Session, Tokens};

use crate::clock::Clock;
use crate::secret::AccessToken;
use crate::store::StoreError;
use std::sync::Arc;

/// Why a session could not be read or kept. Never the same as "there is none".
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record is sealed with a key that is not in `session.keys`, or written by a newer release: the operator's
    /// fault, so the session is kept.
    #[error("a session record cannot be read here: {0}")]
    Unreadable(&'static str),
}

/// Why there is no living access token for a session that was there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FreshError {
    /// The session is over (`invalid_grant`, another user's ID token, or no way to renew): 401, clear the cookie.
    #[error("the session has ended: {0}")]
    Ended(&'static str),
    /// The provider does not help now and the token is expired: 503.
    #[error("the provider is away")]
    ProviderAway,
    /// The store does not answer: 503.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// All sessions of this deployment.
#[derive(Debug)]
pub struct Sessions {
    _clock: Clock,
}

impl Sessions {
    /// Begins a session, always under a new id.
    ///
    /// # Errors
    /// [`SessionError`]; then there is no session.
    pub async fn begin(&self, _new: NewSession) -> Result<(SessionId, Session), SessionError> {
        unimplemented!()
    }

    /// Finds a session: one round trip, no write. `None`: the store is healthy and there is none (gone, idle or
    /// absolute end reached, not ours, tampered with).
    ///
    /// # Errors
    /// [`SessionError`]: answer 503.
    pub async fn look_up(&self, _id: &SessionId) -> Result<Option<Session>, SessionError> {
        unimplemented!()
    }

    /// Notes that the session was used. Writes at most once per tenth of the idle timeout, in the background.
    pub fn touch(self: &Arc<Self>, _id: &SessionId, _session: &Session) {
        unimplemented!()
    }

    /// Extends the session's idle end now, and returns it as it is then. `None`: it is gone.
    ///
    /// # Errors
    /// [`SessionError`]
    pub async fn extend(&self, _id: &SessionId) -> Result<Option<Session>, SessionError> {
        unimplemented!()
    }

    /// The access token to send up: at once while it lives (one refresh behind it where it is ageing), after the one
    /// refresh where it has expired (contract 4.7).
    ///
    /// # Errors
    /// [`FreshError`]
    pub async fn fresh(
        self: &Arc<Self>,
        _id: &SessionId,
        _session: &Session,
    ) -> Result<AccessToken, FreshError> {
        unimplemented!()
    }

    /// Ends the session under this key (see [`SessionId::store_key`]); true if it was there.
    ///
    /// # Errors
    /// [`SessionError`]: the session is refused by this replica from now on, and the delete is repeated in the
    /// background until it is confirmed.
    pub async fn end(self: &Arc<Self>, _hash: [u8; 32]) -> Result<bool, SessionError> {
        unimplemented!()
    }

    /// The value in a session's `logout_url`: names the session to this deployment, proves itself by a MAC under the
    /// server key, and tells nothing of the cookie.
    #[must_use]
    pub fn logout_value(&self, _id: &SessionId, _session: &Session) -> String {
        unimplemented!()
    }

    /// The store key hash and provider name in a logout value; `None` where it is not ours.
    #[must_use]
    pub fn open_logout_value(&self, _value: &str) -> Option<([u8; 32], String)> {
        unimplemented!()
    }
}

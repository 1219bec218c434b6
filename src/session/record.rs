//! A session's record: what is sealed into the store.

use crate::clock::UnixTime;
use crate::secret::{AccessToken, IdToken, RefreshToken};
use serde_json::{Map, Value};

/// The tokens of a session.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Sent up.
    pub access_token: AccessToken,
    /// When the access token was asked for (the moment the token request left).
    pub obtained: UnixTime,
    /// When the access token expires, counted from `obtained`.
    pub expires: UnixTime,
    /// For the next one.
    pub refresh_token: Option<RefreshToken>,
    /// For `id_token_hint`.
    pub id_token: Option<IdToken>,
    /// The scopes granted.
    pub scopes: Vec<String>,
}

/// What a login brings.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The provider's name in the config.
    pub provider: String,
    /// Who.
    pub sub: String,
    /// The provider's own session (Back-Channel Logout §2.1).
    pub sid: Option<String>,
    /// ID token claims, joined by userinfo's.
    pub claims: Map<String, Value>,
    /// The tokens.
    pub tokens: Tokens,
}

/// A session, opened.
#[derive(Clone, Debug)]
pub struct Session {
    /// The provider's name in the config.
    pub provider: String,
    /// Who.
    pub sub: String,
    /// The provider's own session.
    pub sid: Option<String>,
    /// ID token claims, joined by userinfo's; renewed at each refresh.
    pub claims: Map<String, Value>,
    /// The tokens.
    pub tokens: Tokens,
    /// When the user signed in.
    pub begun: UnixTime,
    /// When it was last used, to a tenth of the idle timeout.
    pub used: UnixTime,
    /// When it ends if it stays idle.
    pub idle_end: UnixTime,
    /// When it ends whatever happens.
    pub absolute_end: UnixTime,
    /// The stored record's version.
    pub version: u64,
}

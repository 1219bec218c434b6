//! What the token endpoint answers (RFC 6749 §5), sorted into what it means for a session.

use crate::secret::{AccessToken, IdToken, RefreshToken};
use std::time::Duration;

/// A successful answer.
#[derive(Clone, Debug)]
pub struct TokenResponse {
    /// `access_token`.
    pub access_token: AccessToken,
    /// `refresh_token`; where a refresh brings none, the old one stays (RFC 6749 §6).
    pub refresh_token: Option<RefreshToken>,
    /// `id_token`.
    pub id_token: Option<IdToken>,
    /// `expires_in`, or the configured default; at most 24 h.
    pub expires_in: Duration,
    /// The granted `scope`, where the answer names it.
    pub scope: Option<String>,
}

/// Why there are no tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `invalid_grant`: the code or refresh token is no good. The only one that ends a session.
    #[error("the provider says invalid_grant")]
    InvalidGrant,
    /// `invalid_client`, `unauthorized_client` and the like: the operator's mistake, not the user's.
    #[error("the provider refused the client: {0}")]
    Refused(String),
    /// Nothing was sent: the provider could not be reached. The code or refresh token is still unused.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// Sent, but no answer that can be understood came back: timeout, 5xx, 429, not JSON.
    #[error("the provider gave no usable answer: {reason}")]
    NoAnswer {
        /// What came instead.
        reason: String,
        /// `Retry-After`, where it was sent.
        retry_after: Option<Duration>,
    },
}

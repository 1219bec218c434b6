//! Logout tokens, which a provider sends of its own accord (Back-Channel Logout 1.0 §2.6).
//!
//! On a request's way `bff` comes here with what was posted to `/bff/backchannel-logout`; `protocol::logout_token` judges
//! the claims, and the keys are those that ID tokens are verified with.
//!
//! INVARIANT: a token whose claims do not hold makes nobody fetch keys.

use super::{Provider, ProviderError};
use crate::protocol::jws::{Compact, JwsError};
use crate::protocol::logout_token::{self, LogoutToken, LogoutTokenError};

/// Why a logout token is not acted on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogoutTokenFault {
    /// Its claims do not hold.
    #[error(transparent)]
    Claims(#[from] LogoutTokenError),
    /// It is no signed token, or the provider did not sign it.
    #[error(transparent)]
    Signature(#[from] JwsError),
    /// Whether the provider signed it cannot be said now: its keys cannot be had.
    #[error("the provider's keys cannot be had: {0}")]
    NoKeys(ProviderError),
}

impl Provider {
    /// Checks a logout token that names this provider as its issuer.
    ///
    /// # Errors
    /// [`LogoutTokenFault`]; only with `NoKeys` does it make sense to send it again.
    pub async fn verify_logout(&self, token: &Compact<'_>) -> Result<LogoutToken, LogoutTokenFault> {
        let said = logout_token::check(token, self.addressee())?;
        // §2.6 (2), (3): "Validate the Logout Token signature in the same way that an ID Token signature is validated",
        // and its alg likewise; "An alg with the value none MUST NOT be used for Logout Tokens" is so for all of them.
        self.judge_signature(token, |found| found.id_token_algorithms.as_ref())
            .await
            .map_err(LogoutTokenFault::NoKeys)??;
        Ok(said)
    }
}

//! The `OpenID` Provider: discovery, keys, tokens. Knows nothing of sessions.

use crate::config::ProviderSettings;
use crate::protocol::authorization::{AttemptSecrets, Wishes};
use crate::protocol::id_token::{IdTokenClaims, LoginExpectations};
use crate::protocol::token_response::{TokenError, TokenResponse};
use crate::secret::{AccessToken, AuthorizationCode, CodeVerifier, IdToken, RefreshToken, Secret};
use serde_json::{Map, Value};

/// Why the provider could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Not reached, or nothing usable came back: try again later.
    #[error("the provider is away: {0}")]
    Away(String),
    /// It answered, and the answer does not hold (wrong issuer, bad signature, missing claim).
    #[error("the provider's answer does not hold: {0}")]
    Bad(String),
    /// A refresh's ID token holds, but names another `iss`, `sub` or `aud` than the session's (Core §12.2): the session
    /// must end. Never for a signature or a time that does not hold: then it is not known who sent those names.
    #[error("the provider's answer is about somebody else: {0}")]
    Mismatch(String),
}

/// One configured provider.
#[derive(Debug)]
pub struct Provider {
    settings: ProviderSettings,
}

impl Provider {
    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    /// Where to send the browser to sign in. Discovers first, if nothing is known yet.
    /// # Errors
    /// [`ProviderError`]
    pub async fn authorization_url(
        &self,
        _redirect_uri: &str,
        _secrets: &AttemptSecrets,
        _wishes: &Wishes,
    ) -> Result<String, ProviderError> {
        unimplemented!()
    }

    /// Checks the `iss` parameter of an authorization response (RFC 9207 §2.4). `None`: it was not there.
    /// # Errors
    /// [`ProviderError`]
    pub async fn check_response_issuer(&self, _iss: Option<&str>) -> Result<(), ProviderError> {
        unimplemented!()
    }

    /// Exchanges a code for tokens: once.
    /// # Errors
    /// [`TokenError`]; only `Unreachable` means that the code was not sent.
    pub async fn exchange(
        &self,
        _code: &AuthorizationCode,
        _verifier: &CodeVerifier,
        _redirect_uri: &str,
    ) -> Result<TokenResponse, TokenError> {
        unimplemented!()
    }

    /// Exchanges a refresh token for new tokens: once.
    /// # Errors
    /// [`TokenError`]
    pub async fn refresh(&self, _token: &RefreshToken) -> Result<TokenResponse, TokenError> {
        unimplemented!()
    }

    /// Checks a login's ID token.
    /// # Errors
    /// [`ProviderError`]
    pub async fn verify_login(
        &self,
        _token: &IdToken,
        _expect: &LoginExpectations<'_>,
    ) -> Result<IdTokenClaims, ProviderError> {
        unimplemented!()
    }

    /// Checks a refresh's ID token against the session's (Core §12.2). `Mismatch`: it holds, and names another iss,
    /// sub or aud. `Bad`: any other step failed.
    /// # Errors
    /// [`ProviderError`]
    pub async fn verify_refreshed(
        &self,
        _token: &IdToken,
        _sub: &str,
    ) -> Result<IdTokenClaims, ProviderError> {
        unimplemented!()
    }

    /// Asks the userinfo endpoint; `sub` must be the ID token's (Core §5.3.2).
    /// # Errors
    /// [`ProviderError`]
    pub async fn userinfo(
        &self,
        _token: &AccessToken,
        _sub: &str,
    ) -> Result<Map<String, Value>, ProviderError> {
        unimplemented!()
    }

    /// Revokes tokens where the provider can (RFC 7009); best effort, two seconds at most in all.
    pub async fn revoke(&self, _refresh: Option<&RefreshToken>, _access: Option<&AccessToken>) {
        unimplemented!()
    }

    /// Where to send the browser to sign out, if the provider has such a place (RP-Initiated Logout §2). Never waits
    /// for the network: `None` where nothing is known.
    pub fn end_session_url(
        &self,
        _hint: Option<&IdToken>,
        _post_logout_redirect_uri: &str,
    ) -> Option<Secret> {
        unimplemented!()
    }
}

//! What a refresh asks of a provider, as a trait: tests script it, and nothing else of a provider is known here.

use crate::config::Userinfo;
use crate::protocol::id_token::IdTokenClaims;
use crate::protocol::token_response::{TokenError, TokenResponse};
use crate::provider::{Provider, ProviderError};
use crate::secret::{AccessToken, IdToken, RefreshToken};
use serde_json::{Map, Value};
use std::fmt::Debug;
use std::pin::Pin;

/// A future that a refresh waits for.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where sessions are refreshed.
pub trait RefreshAt: Debug + Send + Sync {
    /// The provider's name in the config.
    fn name(&self) -> &str;
    /// Its issuer identifier.
    fn issuer(&self) -> &str;
    /// How it knows cloakroom.
    fn client_id(&self) -> &str;
    /// Whether the userinfo endpoint is asked.
    fn asks_userinfo(&self) -> bool;
    /// Exchanges a refresh token for new tokens: once.
    fn refresh<'a>(&'a self, token: &'a RefreshToken) -> Asking<'a, Result<TokenResponse, TokenError>>;
    /// Checks a refresh's ID token against the session's `sub` (Core §12.2).
    fn verify_refreshed<'a>(
        &'a self,
        token: &'a IdToken,
        sub: &'a str,
    ) -> Asking<'a, Result<IdTokenClaims, ProviderError>>;
    /// Asks the userinfo endpoint.
    fn userinfo<'a>(
        &'a self,
        token: &'a AccessToken,
        sub: &'a str,
    ) -> Asking<'a, Result<Map<String, Value>, ProviderError>>;
    /// Revokes tokens, best effort.
    fn revoke<'a>(
        &'a self,
        refresh: Option<&'a RefreshToken>,
        access: Option<&'a AccessToken>,
    ) -> Asking<'a, ()>;
}

impl RefreshAt for Provider {
    fn name(&self) -> &str {
        &self.settings().name
    }

    fn issuer(&self) -> &str {
        &self.settings().issuer
    }

    fn client_id(&self) -> &str {
        &self.settings().client_id
    }

    fn asks_userinfo(&self) -> bool {
        self.settings().userinfo == Userinfo::OnLogin
    }

    fn refresh<'a>(&'a self, token: &'a RefreshToken) -> Asking<'a, Result<TokenResponse, TokenError>> {
        Box::pin(Self::refresh(self, token))
    }

    fn verify_refreshed<'a>(
        &'a self,
        token: &'a IdToken,
        sub: &'a str,
    ) -> Asking<'a, Result<IdTokenClaims, ProviderError>> {
        Box::pin(Self::verify_refreshed(self, token, sub))
    }

    fn userinfo<'a>(
        &'a self,
        token: &'a AccessToken,
        sub: &'a str,
    ) -> Asking<'a, Result<Map<String, Value>, ProviderError>> {
        Box::pin(Self::userinfo(self, token, sub))
    }

    fn revoke<'a>(
        &'a self,
        refresh: Option<&'a RefreshToken>,
        access: Option<&'a AccessToken>,
    ) -> Asking<'a, ()> {
        Box::pin(Self::revoke(self, refresh, access))
    }
}

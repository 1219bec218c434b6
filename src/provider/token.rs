//! The token and revocation endpoints (RFC 6749 §3.2, RFC 7009).
//!
//! INVARIANT: one method of client authentication a request. While client secrets are rotated the next is tried only
//! after `invalid_client`, which consumes neither code nor refresh token.

use super::http::{Answer, CallError};
use super::{Provider, required};
use crate::config::ClientAuth;
use crate::protocol::metadata::Metadata;
use crate::protocol::query;
use crate::protocol::token_response::{self, RawAnswer, TokenError, TokenResponse};
use crate::secret::{AccessToken, AuthorizationCode, CodeVerifier, RefreshToken, Secret};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use std::sync::atomic::Ordering;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long revoking may take in all.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(2);

impl Provider {
    /// Exchanges a code for tokens: once.
    ///
    /// # Errors
    /// [`TokenError`]; only `Unreachable` means that the code was not sent.
    ///
    /// # Cancel safety
    /// Not: dropped, the code may be used up and the tokens lost.
    pub async fn exchange(
        &self,
        code: &AuthorizationCode,
        verifier: &CodeVerifier,
        redirect_uri: &str,
    ) -> Result<TokenResponse, TokenError> {
        self.ask(&[
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier.expose()),
        ])
        .await
    }

    /// Exchanges a refresh token for new tokens: once.
    ///
    /// # Errors
    /// [`TokenError`]
    ///
    /// # Cancel safety
    /// Not: dropped, the refresh token may be rotated and the new one lost.
    pub async fn refresh(&self, token: &RefreshToken) -> Result<TokenResponse, TokenError> {
        self.ask(&[("grant_type", "refresh_token"), ("refresh_token", token.expose())])
            .await
    }

    async fn ask(&self, parameters: &[(&str, &str)]) -> Result<TokenResponse, TokenError> {
        let metadata = self
            .metadata()
            .await
            .map_err(|error| TokenError::Unreachable(error.to_string()))?;
        let url = required(metadata.token.as_deref(), "token")
            .map_err(|error| TokenError::Unreachable(error.to_string()))?;
        let answer = self.authenticated(&metadata, url, parameters).await?;
        self.raw(&answer).tokens(self.settings.default_token_lifetime)
    }

    fn raw<'a>(&self, answer: &'a Answer) -> RawAnswer<'a> {
        RawAnswer {
            status: answer.head.status.as_u16(),
            content_type: answer.header(header::CONTENT_TYPE),
            retry_after: answer
                .header(header::RETRY_AFTER)
                .and_then(|value| token_response::retry_after(value, self.clock.now())),
            body: &answer.body,
        }
    }

    /// Posts with client authentication, with the secret that was taken last, then with the others.
    async fn authenticated(
        &self,
        metadata: &Metadata,
        url: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Answer, TokenError> {
        let (count, first) = (
            self.settings.client_secret.len(),
            self.secret.load(Ordering::Relaxed),
        );
        let mut tried = 0;
        loop {
            let number = (first + tried) % count.max(1);
            let secret = self.settings.client_secret.get(number).ok_or_else(no_secret)?;
            let secret = secret.current().map_err(TokenError::Unreachable)?;
            let request = self.request(metadata, url, parameters, &secret)?;
            let answer = self.http.call(request).await.map_err(|error| match error {
                CallError::NotSent(why) => TokenError::Unreachable(why),
                CallError::NoAnswer(reason) => TokenError::NoAnswer {
                    reason,
                    retry_after: None,
                },
            })?;
            tried += 1;
            let refused =
                matches!(self.raw(&answer).refusal(), TokenError::Refused(code) if code == "invalid_client");
            if !(refused && answer.head.status.is_client_error()) || tried >= count {
                if answer.head.status.is_success() {
                    self.secret.store(number, Ordering::Relaxed);
                }
                return Ok(answer);
            }
        }
    }

    fn request(
        &self,
        metadata: &Metadata,
        url: &str,
        parameters: &[(&str, &str)],
        secret: &Secret,
    ) -> Result<Request<Full<Bytes>>, TokenError> {
        let mut form = Zeroizing::new(String::new());
        let mut append = |name: &str, value: &str| {
            if !form.is_empty() {
                form.push('&');
            }
            form.push_str(name);
            form.push('=');
            form.push_str(&query::encode(value));
        };
        for (name, value) in parameters {
            append(name, value);
        }
        let mut request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        if self.posts_secret(metadata) {
            append("client_id", &self.settings.client_id);
            append("client_secret", secret.expose());
        } else {
            // RFC 6749 §2.3.1: "The client identifier is encoded using the "application/x-www-form-urlencoded" encoding
            // algorithm … and the encoded value is used as the username", the secret likewise.
            let pair = Zeroizing::new(format!(
                "{}:{}",
                query::encode(&self.settings.client_id),
                query::encode(secret.expose())
            ));
            let mut basic = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair.as_bytes())))
                .map_err(|_| no_secret())?;
            basic.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, basic);
        }
        let body = Bytes::copy_from_slice(form.as_bytes());
        request
            .body(Full::new(body))
            .map_err(|_| TokenError::Unreachable("an endpoint of it is no URL".into()))
    }

    /// Core §9: `client_secret_basic` is the default where the metadata names no methods.
    fn posts_secret(&self, metadata: &Metadata) -> bool {
        match self.settings.client_auth {
            ClientAuth::ClientSecretPost => true,
            ClientAuth::ClientSecretBasic => false,
            ClientAuth::Auto => metadata.auth_methods.as_ref().is_some_and(|methods| {
                let names = |wanted: &str| methods.iter().any(|method| method == wanted);
                names("client_secret_post") && !names("client_secret_basic")
            }),
        }
    }

    /// Revokes tokens where the provider can (RFC 7009); best effort, two seconds at most in all.
    pub async fn revoke(&self, refresh: Option<&RefreshToken>, access: Option<&AccessToken>) {
        let Some(metadata) = self.knowledge.known(&self.settings) else {
            return;
        };
        let Some(url) = metadata.revocation.as_deref() else {
            return;
        };
        let all = async {
            for (token, hint) in [
                (refresh.map(RefreshToken::expose), "refresh_token"),
                (access.map(AccessToken::expose), "access_token"),
            ] {
                let Some(token) = token else { continue };
                let parameters = [("token", token), ("token_type_hint", hint)];
                match self.authenticated(&metadata, url, &parameters).await {
                    Ok(answer) if answer.head.status.is_success() => {}
                    Ok(answer) => {
                        let status = answer.head.status.as_u16();
                        tracing::warn!(provider = %self.settings.name, hint, status, "a token was not revoked");
                    }
                    Err(error) => {
                        tracing::warn!(provider = %self.settings.name, hint, %error, "a token was not revoked");
                    }
                }
            }
        };
        if tokio::time::timeout(REVOKE_TIMEOUT, all).await.is_err() {
            tracing::warn!(provider = %self.settings.name, "revoking took too long and was left");
        }
    }
}

fn no_secret() -> TokenError {
    TokenError::Unreachable("the client secret cannot be used".into())
}

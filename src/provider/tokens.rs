//! Tokens come and go: code exchange, refresh, revocation (RFC 6749 §4.1.3, §6; RFC 7009).
//!
//! On a request's way: `bff` exchanges a code once per login, `session` refreshes once per ageing token, `bff` revokes
//! at logout.
//!
//! INVARIANT: a code or refresh token is sent once; only `invalid_client`, which consumes neither, is answered with
//! another try, under the next client secret.

use super::Provider;
use super::advice;
use super::http::{Answer, CALL_LIMIT, CallError};
use super::requests::{self, Asked};
use crate::protocol::metadata::Metadata;
use crate::protocol::token_response::{TokenError, TokenResponse};
use crate::secret::{AccessToken, AuthorizationCode, CodeVerifier, RefreshToken};
use crate::seldom::Seldom;
use oauth2::StandardRevocableToken;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// How long revoking may take in all.
const REVOKE_LIMIT: Duration = Duration::from_secs(2);

/// Access tokens that live shorter cost a refresh every few requests.
const SHORT: Duration = Duration::from_secs(30);

/// What is told of a provider's tokens now and then, and not at each of them.
pub(super) struct Told {
    no_tokens: Seldom,
    no_refresh_token: Seldom,
    short_lived: Seldom,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            no_tokens: Seldom::every(Duration::from_secs(10)),
            no_refresh_token: Seldom::every(Duration::from_hours(24)),
            short_lived: Seldom::every(Duration::from_hours(24)),
        }
    }
}

impl Provider {
    /// Exchanges a code for tokens: once.
    /// # Errors
    /// [`TokenError`]; only `Unreachable` means that the code was not sent.
    ///
    /// # Cancel safety
    /// When dropped, the code may have been used and its tokens are lost: run it where it is not dropped.
    pub async fn exchange(
        &self,
        code: &AuthorizationCode,
        verifier: &CodeVerifier,
        redirect_uri: &str,
    ) -> Result<TokenResponse, TokenError> {
        let asked = Asked::Exchange {
            code,
            verifier,
            redirect_uri,
        };
        let tokens = self.tokens(&asked).await?;
        self.tell_of_lifetimes(&tokens);
        Ok(tokens)
    }

    /// How long sessions will live is the provider's to say, and is found out at the first login.
    fn tell_of_lifetimes(&self, tokens: &TokenResponse) {
        let (provider, seconds) = (&self.settings.name, tokens.expires_in.as_secs());
        if tokens.refresh_token.is_none() && self.told.no_refresh_token.due().is_some() {
            if self.settings.scopes.iter().any(|scope| scope == "offline_access") {
                tracing::warn!(
                    %provider, seconds,
                    "the provider gave no refresh token although offline_access was asked for: sessions end with their \
                     access token; allow refresh tokens for this client at the provider"
                );
            } else {
                tracing::warn!(
                    %provider, seconds,
                    "the provider gave no refresh token, and scopes does not ask for offline_access: sessions end with \
                     their access token; ask for it where the provider knows it"
                );
            }
        }
        if tokens.expires_in < SHORT && self.told.short_lived.due().is_some() {
            tracing::warn!(
                %provider, seconds,
                "the provider's access tokens live for some seconds only, so there is a refresh every few requests; let \
                 them live for some minutes"
            );
        }
    }

    /// Exchanges a refresh token for new tokens: once.
    /// # Errors
    /// [`TokenError`]
    ///
    /// # Cancel safety
    /// When dropped, the provider may have rotated the token and the new one is lost: run it where it is not dropped.
    pub async fn refresh(&self, token: &RefreshToken) -> Result<TokenResponse, TokenError> {
        self.tokens(&Asked::Refresh(token)).await
    }

    /// Revokes tokens where the provider can (RFC 7009); best effort, two seconds at most in all.
    pub async fn revoke(&self, refresh: Option<&RefreshToken>, access: Option<&AccessToken>) {
        // The refresh token first: many providers end the whole grant with it.
        let tokens = [
            refresh.map(|token| {
                StandardRevocableToken::RefreshToken(oauth2::RefreshToken::new(token.expose().to_owned()))
            }),
            access.map(|token| {
                StandardRevocableToken::AccessToken(oauth2::AccessToken::new(token.expose().to_owned()))
            }),
        ];
        let revoking = async {
            let Ok(metadata) = self.source.metadata().await else {
                return;
            };
            let Some(endpoint) = &metadata.revocation_endpoint else {
                return;
            };
            for token in tokens.into_iter().flatten() {
                if let Err(error) = self
                    .authenticated(&Asked::Revoke(token), endpoint, &metadata)
                    .await
                {
                    tracing::warn!(provider = %self.settings.name, %error, "a token could not be revoked");
                }
            }
        };
        if tokio::time::timeout(REVOKE_LIMIT, revoking).await.is_err() {
            tracing::warn!(provider = %self.settings.name, "revoking tokens took too long and was left");
        }
    }

    async fn tokens(&self, asked: &Asked<'_>) -> Result<TokenResponse, TokenError> {
        let metadata = self
            .source
            .metadata()
            .await
            .map_err(|error| TokenError::Unreachable(error.to_string()))?;
        let outcome = match self
            .authenticated(asked, &metadata.token_endpoint, &metadata)
            .await
        {
            Ok(answer) => answer
                .raw(self.clock.now())
                .tokens(self.settings.default_token_lifetime),
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(_) => {}
            Err(TokenError::InvalidGrant) => {
                tracing::info!(provider = %self.settings.name, asked = asked.name(), "the provider says invalid_grant");
            }
            Err(error) => {
                if let Some(unsaid) = self.told.no_tokens.due() {
                    let remedy = match error {
                        TokenError::Refused(code) => advice::on_refusal(code, &self.settings.name),
                        _ => String::new(),
                    };
                    tracing::warn!(
                        provider = %self.settings.name, asked = asked.name(), %error, remedy, unsaid,
                        "there are no new tokens"
                    );
                }
            }
        }
        outcome
    }

    /// Asks with client authentication: with the secret that was accepted last, and only where the provider does not
    /// know it, with the others in turn. Gives answers of status 200 only.
    async fn authenticated(
        &self,
        asked: &Asked<'_>,
        endpoint: &str,
        metadata: &Metadata,
    ) -> Result<Answer, TokenError> {
        let deadline = Instant::now() + CALL_LIMIT;
        let secrets = &self.settings.client_secret;
        let first = self.accepted_secret.load(Ordering::Relaxed);
        let others = (0..secrets.len()).filter(|index| *index != first);
        let mut refused = TokenError::Unreachable("no client secret can be read".to_owned());
        let mut asked_before = false;
        for index in std::iter::once(first).chain(others) {
            let Some(source) = secrets.get(index) else {
                continue;
            };
            let secret = match source.current() {
                Ok(secret) => secret,
                Err(fault) => {
                    tracing::error!(provider = %self.settings.name, %fault, "a client secret cannot be read");
                    continue;
                }
            };
            let method = requests::method(self.settings.client_auth, metadata);
            let request = asked
                .request(endpoint, &self.settings.client_id, &secret, method)
                .map_err(|fault| TokenError::Unreachable(fault.to_owned()))?;
            let limit = deadline.saturating_duration_since(Instant::now());
            let answer = self
                .source
                .ask(asked.name(), request, limit)
                .await
                .map_err(|error| {
                    if asked_before {
                        sent_before(error)
                    } else {
                        no_answer(error)
                    }
                })?;
            asked_before = true;
            if answer.status == 200 {
                self.accepted_secret.store(index, Ordering::Relaxed);
                return Ok(answer);
            }
            refused = answer.raw(self.clock.now()).refusal();
            match &refused {
                // RFC 6749 §5.2: "Client authentication failed"; that comes before the grant is looked at.
                TokenError::Refused(code) if code == "invalid_client" => {}
                TokenError::InvalidGrant => {
                    self.accepted_secret.store(index, Ordering::Relaxed);
                    break;
                }
                _ => break,
            }
        }
        Err(refused)
    }
}

/// The grant went out with an earlier secret, so whatever happens now it was sent.
fn sent_before(error: CallError) -> TokenError {
    let (CallError::Unreachable(reason) | CallError::Lost(reason)) = error;
    TokenError::NoAnswer {
        unreadable: false,
        reason,
        retry_after: None,
    }
}

fn no_answer(error: CallError) -> TokenError {
    match error {
        CallError::Unreachable(reason) => TokenError::Unreachable(reason),
        CallError::Lost(reason) => TokenError::NoAnswer {
            unreadable: false,
            reason,
            retry_after: None,
        },
    }
}

//! The OpenID Provider: discovery, keys, tokens. Knows nothing of sessions.
//!
//! On a login's way `bff` asks here, on a request's way `session::refresh`. INVARIANT: a code or refresh token is sent
//! once a call, to the token endpoint alone. INVARIANT: redirects are not followed, and what is answered is bounded.

mod discovery;
mod http;
mod online;
mod token;

pub use online::OnlineStep;

use self::http::ProviderHttp;
use crate::clock::Clock;
use crate::config::{ProviderSettings, ProxyEnvironment};
use crate::protocol::authorization::{self, AttemptSecrets, Wishes};
use crate::protocol::id_token::{self, ClaimError, IdTokenClaims, LoginExpectations};
use crate::protocol::jws::Compact;
use crate::protocol::metadata::Metadata;
use crate::protocol::{json, query};
use crate::secret::{AccessToken, IdToken, Secret};
use ::http::{Request, header};
use bytes::Bytes;
use discovery::Knowledge;
use http_body_util::Full;
use serde_json::{Map, Value};
use std::sync::atomic::AtomicUsize;

/// Why the provider could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Not reached, or nothing usable came back: try again later.
    #[error("the provider is away: {0}")]
    Away(String),
    /// It answered, and the answer does not hold (wrong issuer, bad signature, missing claim).
    #[error("the provider's answer does not hold: {0}")]
    Bad(String),
    /// An ID token that holds, but names another `iss`, `sub` or `aud` (Core §12.2): a session must end. Never for a
    /// signature or a time that does not hold: then it is not known who sent those names.
    #[error("the provider's answer is about somebody else: {0}")]
    Mismatch(String),
}

impl From<ClaimError> for ProviderError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Mismatch => Self::Mismatch(error.to_string()),
            ClaimError::Bad(_) => Self::Bad(error.to_string()),
        }
    }
}

/// One configured provider.
#[derive(Debug)]
pub struct Provider {
    settings: ProviderSettings,
    http: ProviderHttp,
    clock: Clock,
    knowledge: Knowledge,
    /// Which of the client secrets was last taken.
    secret: AtomicUsize,
}

impl Provider {
    /// A provider that nothing is asked of yet.
    ///
    /// # Errors
    /// A sentence for the operator: the authorities in `ca` cannot be read.
    pub fn new(settings: ProviderSettings, proxies: &ProxyEnvironment, clock: Clock) -> Result<Self, String> {
        let http = ProviderHttp::new(settings.ca.as_deref(), proxies)
            .map_err(|error| format!("providers.{}: {error}", settings.name))?;
        Ok(Self {
            settings,
            http,
            clock,
            knowledge: Knowledge::new(),
            secret: AtomicUsize::new(0),
        })
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    async fn metadata(&self) -> Result<Metadata, ProviderError> {
        self.knowledge.metadata(&self.http, &self.settings).await
    }

    /// Where to send the browser to sign in. Discovers first, if nothing is known yet.
    ///
    /// # Errors
    /// [`ProviderError`]
    pub async fn authorization_url(
        &self,
        redirect_uri: &str,
        secrets: &AttemptSecrets,
        wishes: &Wishes,
    ) -> Result<String, ProviderError> {
        let metadata = self.metadata().await?;
        let endpoint = required(metadata.authorization.as_deref(), "authorization")?;
        let request = authorization::Request {
            endpoint,
            client_id: &self.settings.client_id,
            redirect_uri,
            scopes: &self.settings.scopes,
            secrets,
            wishes,
        };
        request.url().map_err(|why| ProviderError::Bad(why.into()))
    }

    /// Checks the `iss` parameter of an authorization response (RFC 9207 §2.4). `None`: it was not there.
    ///
    /// # Errors
    /// [`ProviderError`]
    pub async fn check_response_issuer(&self, iss: Option<&str>) -> Result<(), ProviderError> {
        let promised = self.metadata().await?.promises_iss;
        authorization::check_issuer(iss, &self.settings.issuer, promised)
            .map_err(|why| ProviderError::Bad(why.into()))
    }

    /// Checks a login's ID token.
    ///
    /// # Errors
    /// [`ProviderError`]
    pub async fn verify_login(
        &self,
        token: &IdToken,
        expect: &LoginExpectations<'_>,
    ) -> Result<IdTokenClaims, ProviderError> {
        let token = Compact::parse(token.expose()).map_err(|error| ProviderError::Bad(error.to_string()))?;
        // The claims first: junk costs no fetch of keys.
        let claims = id_token::check(
            &token,
            &self.settings.issuer,
            &self.settings.client_id,
            self.clock.now(),
        )?;
        id_token::check_login(&token, &claims, expect, self.clock.now())?;
        self.verify_signature(&token).await?;
        Ok(claims)
    }

    /// Checks a refresh's ID token against the session's subject (Core §12.2).
    ///
    /// # Errors
    /// [`ProviderError::Mismatch`] where it is somebody else's; that alone ends a session.
    pub async fn verify_refreshed(&self, token: &IdToken, sub: &str) -> Result<IdTokenClaims, ProviderError> {
        let token = Compact::parse(token.expose()).map_err(|error| ProviderError::Bad(error.to_string()))?;
        // The signature first: before it holds, it is not known who names another subject, and that ends a session.
        self.verify_signature(&token).await?;
        let claims = id_token::check(
            &token,
            &self.settings.issuer,
            &self.settings.client_id,
            self.clock.now(),
        )?;
        // Core §12.2: "its sub Claim Value MUST be the same as in the ID Token issued when the original authentication
        // occurred"
        if claims.sub != sub {
            return Err(ClaimError::Mismatch.into());
        }
        Ok(claims)
    }

    async fn verify_signature(&self, token: &Compact<'_>) -> Result<(), ProviderError> {
        let metadata = self.metadata().await?;
        if metadata
            .algorithms
            .as_ref()
            .is_some_and(|names| !names.contains(&token.algorithm_name))
        {
            return Err(ProviderError::Bad(
                "the ID token's algorithm is not one that the provider names".into(),
            ));
        }
        let url = required(metadata.jwks.as_deref(), "jwks")?;
        self.knowledge
            .verify(&self.http, &self.settings, url, token)
            .await
    }

    /// Asks the userinfo endpoint; `sub` must be the ID token's (Core §5.3.2).
    ///
    /// # Errors
    /// [`ProviderError`]
    pub async fn userinfo(
        &self,
        token: &AccessToken,
        sub: &str,
    ) -> Result<Map<String, Value>, ProviderError> {
        let metadata = self.metadata().await?;
        let url = required(metadata.userinfo.as_deref(), "userinfo")?;
        let mut bearer = header::HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| ProviderError::Bad("the access token is no header value".into()))?;
        bearer.set_sensitive(true);
        let request = Request::get(url)
            .header(header::AUTHORIZATION, bearer)
            .header(header::ACCEPT, "application/json")
            .body(Full::<Bytes>::default())
            .map_err(|_| ProviderError::Bad("the userinfo endpoint is no URL".into()))?;
        let answer = self
            .http
            .call(request)
            .await
            .map_err(|error| ProviderError::Away(error.to_string()))?;
        match answer.head.status.as_u16() {
            200 => {}
            status @ (408 | 429 | 500..) => {
                return Err(ProviderError::Away(format!("userinfo answered {status}")));
            }
            status => return Err(ProviderError::Bad(format!("userinfo answered {status}"))),
        }
        let claims = json::object(&answer.body)
            .map_err(|_| ProviderError::Bad("userinfo is no JSON object".into()))?;
        // Core §5.3.2: "The sub Claim in the UserInfo Response MUST be verified to exactly match the sub Claim in the ID
        // Token; if they do not match, the UserInfo Response values MUST NOT be used."
        if claims.get("sub").and_then(Value::as_str) != Some(sub) {
            return Err(ProviderError::Bad("userinfo is about another subject".into()));
        }
        Ok(claims)
    }

    /// Where to send the browser to sign out, if the provider has such a place (RP-Initiated Logout §2). Never waits
    /// for the network: `None` where nothing is known.
    #[must_use]
    pub fn end_session_url(&self, hint: Option<&IdToken>, post_logout_redirect_uri: &str) -> Option<Secret> {
        let endpoint = self.knowledge.known(&self.settings)?.end_session?;
        let mut url = endpoint.clone();
        let mut separator = if endpoint.contains('?') { '&' } else { '?' };
        for (name, value) in [
            ("id_token_hint", hint.map(IdToken::expose)),
            ("client_id", Some(self.settings.client_id.as_str())),
            ("post_logout_redirect_uri", Some(post_logout_redirect_uri)),
        ] {
            if let Some(value) = value {
                url.push(separator);
                url.push_str(name);
                url.push('=');
                url.push_str(&query::encode(value));
                separator = '&';
            }
        }
        Some(Secret::new(url))
    }
}

/// An endpoint that must be known.
fn required<'a>(endpoint: Option<&'a str>, name: &str) -> Result<&'a str, ProviderError> {
    endpoint.ok_or_else(|| {
        ProviderError::Bad(format!(
            "the provider names no {name} endpoint; set `endpoints.{name}` if it has one"
        ))
    })
}

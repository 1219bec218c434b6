//! The `OpenID` Provider: discovery, keys, tokens. Knows nothing of sessions.
//!
//! On a request's way this stands beside `store`: `bff` comes here to begin and finish a login, `session` to refresh,
//! `bff` again to log out. What is fetched and kept is in `source`, what is sent to the token endpoint in `tokens`,
//! and every judgement of what came back in `protocol`.
//!
//! INVARIANT: nothing that a provider sends is used before `protocol` has checked it.
//! INVARIANT: no token, code, secret, nonce or answer gets into a log or an error here.

pub mod advice;
mod connect;
mod http;
mod known;
mod logout_token;
mod online;
mod requests;
mod source;
mod tokens;
mod userinfo;

#[cfg(test)]
mod tests;

pub use logout_token::LogoutTokenFault;
pub use online::OnlineStep;

use crate::clock::Clock;
use crate::config::{ProviderSettings, ProxyEnvironment};
use crate::protocol::authorization::{self, AttemptSecrets, Wishes};
use crate::protocol::id_token::{self, Addressee, IdTokenClaims, IdTokenError, LoginExpectations};
use crate::protocol::jws::{Compact, JwsError};
use crate::protocol::metadata::Metadata;
use crate::secret::{IdToken, Secret};
use http::HttpClient;
use oauth2::url::Url;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use source::Source;
use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// The longest sign-out URL, in bytes: beyond it many servers refuse the request line, and the user is stuck on an
/// error page. Without the hint the provider merely asks who is leaving.
const LONGEST_SIGN_OUT_URL: usize = 7 * 1024;

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

impl From<IdTokenError> for ProviderError {
    fn from(fault: IdTokenError) -> Self {
        match fault {
            IdTokenError::Issuer | IdTokenError::Audience | IdTokenError::Subject => {
                Self::Mismatch(fault.to_string())
            }
            _ => Self::Bad(fault.to_string()),
        }
    }
}

impl From<JwsError> for ProviderError {
    fn from(fault: JwsError) -> Self {
        Self::Bad(fault.to_string())
    }
}

/// One configured provider.
pub struct Provider {
    settings: ProviderSettings,
    clock: Clock,
    source: Source,
    /// Which of the client secrets was accepted last.
    accepted_secret: AtomicUsize,
    told: tokens::Told,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("name", &self.settings.name)
            .finish_non_exhaustive()
    }
}

impl Provider {
    /// A provider that nothing has been asked of yet; `proxies` as the environment names them.
    ///
    /// # Errors
    /// A sentence for the operator: the authorities in `ca` cannot be read.
    pub fn new(settings: ProviderSettings, proxies: &ProxyEnvironment, clock: Clock) -> Result<Self, String> {
        let in_ca = |fault: String| format!("providers.{}.ca: {fault}", settings.name);
        let own = settings
            .ca
            .as_deref()
            .map_or_else(|| Ok(Vec::new()), authorities)
            .map_err(in_ca)?;
        let http = HttpClient::new(own, proxies).map_err(in_ca)?;
        Ok(Self {
            source: Source::new(&settings, http, clock.clone()),
            settings,
            clock,
            accepted_secret: AtomicUsize::new(0),
            told: tokens::Told::default(),
        })
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    /// Asks for metadata and keys until both are known, so that a first logout after a start, which waits for nobody,
    /// knows where to go. Ends by itself; may be dropped at any time.
    pub async fn warm_up(&self) {
        while self.source.keys().await.is_err() {
            // The pause between fetches is the cache's business; this only keeps from spinning.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Whether the provider's metadata is known, for those who show how things are.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.source.metadata_at_hand().is_some()
    }

    /// Where to send the browser to sign in. Discovers first, if nothing is known yet.
    /// # Errors
    /// [`ProviderError`]
    pub async fn authorization_url(
        &self,
        redirect_uri: &str,
        secrets: &AttemptSecrets,
        wishes: &Wishes,
    ) -> Result<String, ProviderError> {
        let metadata = self.source.metadata().await?;
        self.authorization_request(&metadata, redirect_uri, secrets, wishes)
    }

    fn authorization_request(
        &self,
        metadata: &Metadata,
        redirect_uri: &str,
        secrets: &AttemptSecrets,
        wishes: &Wishes,
    ) -> Result<String, ProviderError> {
        let request = authorization::Request {
            endpoint: &metadata.authorization_endpoint,
            client_id: &self.settings.client_id,
            redirect_uri,
            scopes: &self.settings.scopes,
            secrets,
            wishes,
        };
        request
            .url()
            .map_err(|fault| ProviderError::Bad(fault.to_owned()))
    }

    /// Checks the `iss` parameter of an authorization response (RFC 9207 §2.4). `None`: it was not there.
    /// # Errors
    /// [`ProviderError`]
    pub async fn check_response_issuer(&self, iss: Option<&str>) -> Result<(), ProviderError> {
        let is_promised = match iss {
            Some(_) => false,
            None => self.source.metadata().await?.names_issuer_in_response,
        };
        authorization::check_issuer(iss, &self.settings.issuer, is_promised)
            .map_err(|fault| ProviderError::Bad(fault.to_owned()))
    }

    /// Checks a login's ID token.
    /// # Errors
    /// [`ProviderError`]
    pub async fn verify_login(
        &self,
        token: &IdToken,
        expect: &LoginExpectations<'_>,
    ) -> Result<IdTokenClaims, ProviderError> {
        let token = self.addressed(token.expose())?;
        self.verify_signature(&token, |found| found.id_token_algorithms.as_ref())
            .await?;
        Ok(id_token::check_login(&token, self.addressee(), expect)?)
    }

    /// Checks a refresh's ID token against the session's subject (Core §12.2).
    /// # Errors
    /// [`ProviderError::Mismatch`] where it is somebody else's; that alone ends a session.
    pub async fn verify_refreshed(&self, token: &IdToken, sub: &str) -> Result<IdTokenClaims, ProviderError> {
        let token = Compact::parse(token.expose())?;
        // The signature first: before it holds, it is not known who names another user, and that ends a session.
        self.verify_signature(&token, |found| found.id_token_algorithms.as_ref())
            .await?;
        Ok(id_token::check_refreshed(&token, self.addressee(), sub)?)
    }

    /// Takes a token apart and refuses it if it is not from this issuer for us: junk must not make us fetch keys.
    fn addressed<'t>(&self, token: &'t str) -> Result<Compact<'t>, ProviderError> {
        let token = Compact::parse(token)?;
        id_token::check_addressee(&token.claims, &self.settings.issuer, &self.settings.client_id)?;
        Ok(token)
    }

    /// Finds the key that signed a token. `algorithms` picks what the metadata says of them.
    async fn verify_signature(
        &self,
        token: &Compact<'_>,
        algorithms: impl FnOnce(&Metadata) -> Option<&Vec<String>>,
    ) -> Result<(), ProviderError> {
        Ok(self.judge_signature(token, algorithms).await??)
    }

    /// As [`Self::verify_signature`]: the outer failure says that the keys cannot be had, the inner one judges the token.
    async fn judge_signature(
        &self,
        token: &Compact<'_>,
        algorithms: impl FnOnce(&Metadata) -> Option<&Vec<String>>,
    ) -> Result<Result<(), JwsError>, ProviderError> {
        let metadata = self.source.metadata().await?;
        // RFC 8725 §3.1: "Libraries MUST enable the caller to specify a supported set of algorithms and MUST NOT use
        // any other algorithms": ours, less what the provider does not name.
        if algorithms(&metadata).is_some_and(|named| !named.contains(&token.algorithm_name)) {
            return Ok(Err(JwsError::Algorithm));
        }
        let keys = self.source.keys().await?;
        if keys.verify(token).is_ok() {
            return Ok(Ok(()));
        }
        // Core §10.1.1: "the verifier … knows to go back to the jwks_uri location to re-retrieve the keys when it sees
        // an unfamiliar kid value"; a key may also have changed under the same name.
        match self.source.newer_keys(&keys).await? {
            Some(newer) => Ok(newer.verify(token)),
            None => Ok(Err(JwsError::Signature)),
        }
    }

    fn addressee(&self) -> Addressee<'_> {
        let (earliest, latest) = self.clock.bounds();
        Addressee {
            issuer: &self.settings.issuer,
            client_id: &self.settings.client_id,
            earliest,
            latest,
        }
    }

    /// Where to send the browser to sign out, if the provider has such a place (RP-Initiated Logout §2). Never waits
    /// for the network: `None` where nothing is known.
    #[must_use]
    pub fn end_session_url(&self, hint: Option<&IdToken>, post_logout_redirect_uri: &str) -> Option<Secret> {
        let metadata = self.source.metadata_at_hand()?;
        let endpoint = Url::parse(metadata.end_session_endpoint.as_deref()?).ok()?;
        let url = |hint: Option<&IdToken>| {
            let mut url = endpoint.clone();
            let mut query = url.query_pairs_mut();
            if let Some(hint) = hint {
                query.append_pair("id_token_hint", hint.expose());
            }
            query
                .append_pair("client_id", &self.settings.client_id)
                .append_pair("post_logout_redirect_uri", post_logout_redirect_uri);
            drop(query);
            Secret::new(url)
        };
        let whole = url(hint);
        if whole.expose().len() > LONGEST_SIGN_OUT_URL {
            return Some(url(None));
        }
        Some(whole)
    }
}

/// Reads the certificates of a PEM file.
fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let unreadable = |error| format!("{shown} holds no readable PEM certificates: {error}");
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(format!("{shown} holds no PEM certificate"));
    }
    Ok(certificates)
}

//! What a provider publishes, and the one way to ask it anything.
//!
//! Stands between the provider's operations (`mod.rs`) and the network (`http.rs`). Discovery is lazy: nothing is
//! fetched at start, so a provider that is away keeps nobody from starting.
//!
//! INVARIANT: every call to the provider goes through [`Source::ask`]: timed, logged without contents, and compared
//! with our clock.

use super::ProviderError;
use super::http::{Answer, CALL_LIMIT, CallError, HttpClient};
use super::known::{Known, Lifetimes};
use crate::clock::Clock;
use crate::config::{Endpoints, ProviderSettings};
use crate::protocol::jwks::Jwks;
use crate::protocol::metadata::{self, Metadata};
use crate::seldom::Seldom;
use http::header::{ACCEPT, HeaderValue};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Metadata and keys are renewed after an hour. Keys that cannot be renewed are believed for a day; metadata, which
/// decides nothing about trust by itself, as long as there is nothing newer.
const METADATA: Lifetimes = Lifetimes {
    fresh: Duration::from_hours(1),
    usable: Duration::MAX,
    fetch_limit: CALL_LIMIT,
};
const KEYS: Lifetimes = Lifetimes {
    fresh: Duration::from_hours(1),
    usable: Duration::from_hours(24),
    fetch_limit: CALL_LIMIT,
};
/// How far the clocks may be apart before it is said, and how often it is said.
const CLOCK_LEEWAY: Duration = Duration::from_mins(1);
const CLOCK_WARNING_EVERY: Duration = Duration::from_hours(1);

/// One provider, as far as it can be asked.
pub struct Source {
    name: String,
    issuer: String,
    discovery_url: String,
    endpoints: Endpoints,
    plain_http: bool,
    http: HttpClient,
    clock: Clock,
    metadata: Known<Metadata>,
    keys: Known<Jwks>,
    clock_warning: Seldom,
    /// How far the provider's clock was ahead of ours at its last answer, seconds; [`UNTOLD`] before one said.
    clock_offset: AtomicI64,
}

const UNTOLD: i64 = i64::MIN;

impl Source {
    /// Nothing is asked yet.
    pub fn new(settings: &ProviderSettings, http: HttpClient, clock: Clock) -> Self {
        let endpoints = settings.endpoints.clone();
        let discovery_url = settings
            .discovery_url
            .clone()
            .unwrap_or_else(|| metadata::discovery_url(&settings.issuer));
        Self {
            name: settings.name.clone(),
            issuer: settings.issuer.clone(),
            plain_http: metadata::is_on_loopback(&settings.issuer)
                || metadata::is_on_loopback(&discovery_url),
            discovery_url,
            http,
            clock,
            metadata: Known::new(METADATA, without_discovery(&endpoints)),
            keys: Known::new(KEYS, None),
            endpoints,
            clock_warning: Seldom::every(CLOCK_WARNING_EVERY),
            clock_offset: AtomicI64::new(UNTOLD),
        }
    }

    /// The provider's metadata, with the config's endpoints in place of its own.
    ///
    /// # Errors
    /// [`ProviderError`], where nothing is known and nothing can be had.
    pub async fn metadata(&self) -> Result<Arc<Metadata>, ProviderError> {
        self.metadata.current(|limit| self.fetch_metadata(limit)).await
    }

    /// The metadata, if it is known already.
    pub fn metadata_at_hand(&self) -> Option<Arc<Metadata>> {
        self.metadata.at_hand()
    }

    /// The provider's keys.
    ///
    /// # Errors
    /// [`ProviderError`], where there are none or they are older than a day, and none can be had.
    pub async fn keys(&self) -> Result<Arc<Jwks>, ProviderError> {
        let metadata = self.metadata().await?;
        self.keys
            .current(|limit| self.fetch_keys(&metadata.jwks_uri, limit))
            .await
    }

    /// Keys newer than `seen`, in which the right one was not. `None`: asked often enough lately.
    ///
    /// # Errors
    /// [`ProviderError`]
    pub async fn newer_keys(&self, seen: &Arc<Jwks>) -> Result<Option<Arc<Jwks>>, ProviderError> {
        let metadata = self.metadata().await?;
        self.keys
            .newer_than(seen, |limit| self.fetch_keys(&metadata.jwks_uri, limit))
            .await
    }

    /// Where the discovery document is.
    pub fn discovery_url(&self) -> &str {
        &self.discovery_url
    }

    /// Fetches the discovery document, whatever is known.
    ///
    /// # Errors
    /// [`ProviderError`]
    pub async fn fetch_metadata(&self, limit: Duration) -> Result<Metadata, ProviderError> {
        let answer = self.get("discovery", &self.discovery_url, limit).await?;
        let found = Metadata::parse(&answer.body, &self.issuer, self.plain_http).map_err(|fault| {
            tracing::warn!(provider = %self.name, %fault, "the discovery document cannot be used");
            ProviderError::Bad(fault)
        })?;
        Ok(with_overrides(found, &self.endpoints))
    }

    /// Fetches the key set, whatever is known.
    ///
    /// # Errors
    /// [`ProviderError`]
    pub async fn fetch_keys(&self, url: &str, limit: Duration) -> Result<Jwks, ProviderError> {
        let answer = self.get("keys", url, limit).await?;
        Jwks::parse(&answer.body).map_err(|fault| {
            tracing::warn!(provider = %self.name, %fault, "the key set cannot be used");
            ProviderError::Bad(fault.to_owned())
        })
    }

    async fn get(&self, what: &'static str, url: &str, limit: Duration) -> Result<Answer, ProviderError> {
        let mut request = http::Request::new(Vec::new());
        *request.uri_mut() = url
            .parse()
            .map_err(|_| ProviderError::Bad(format!("the URL of its {what} is none")))?;
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static("application/json"));
        let answer = self
            .ask(what, request, limit)
            .await
            .map_err(|error| ProviderError::Away(error.to_string()))?;
        match answer.status {
            200 => Ok(answer),
            status => {
                tracing::warn!(provider = %self.name, asked = what, status, "the provider answered with a failure");
                let reason = format!("its {what} came with status {status}");
                Err(if is_passing(status) {
                    ProviderError::Away(reason)
                } else {
                    ProviderError::Bad(reason)
                })
            }
        }
    }

    /// Asks the provider something.
    ///
    /// # Errors
    /// [`CallError`]
    ///
    /// # Cancel safety
    /// When dropped, the request may have been sent all the same.
    pub async fn ask(
        &self,
        what: &'static str,
        request: http::Request<Vec<u8>>,
        limit: Duration,
    ) -> Result<Answer, CallError> {
        let began = Instant::now();
        let outcome = self.http.send(request, limit).await;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &outcome {
            Ok(answer) => {
                tracing::debug!(provider = %self.name, asked = what, status = answer.status, took_ms, "asked the provider");
                self.compare_clocks(answer);
            }
            Err(error) => {
                tracing::warn!(provider = %self.name, asked = what, %error, took_ms, "the provider gave no answer");
            }
        }
        outcome
    }

    /// A wrong clock shows in strange places (tokens from the future, logins that are too old); say it where it is
    /// first seen. `Date` is the moment the answer was made (RFC 9110 §6.6.1).
    fn compare_clocks(&self, answer: &Answer) {
        let Some(theirs) = answer.date() else { return };
        if let Some(away) = self.clock.hear(theirs, CLOCK_LEEWAY) {
            tracing::warn!(
                provider = %self.name,
                seconds = away.as_secs(),
                "the provider's clock agrees with the system's, which was set: cloakroom takes that time at once"
            );
        }
        let ours = self.clock.now();
        let (ahead, behind) = (theirs.since(ours), ours.since(theirs));
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        self.clock_offset
            .store(seconds(ahead) - seconds(behind), Ordering::Relaxed);
        let apart = ahead.max(behind);
        if apart <= CLOCK_LEEWAY {
            return;
        }
        if self.clock_warning.due().is_some() {
            tracing::warn!(
                provider = %self.name,
                seconds = apart.as_secs(),
                ours_is_ahead = ours > theirs,
                "the provider's clock and ours are far apart: logins will fail until they agree; set both by NTP"
            );
        }
    }

    /// How far the provider's clock was ahead of ours at its last answer, seconds, where it said; and whether that is
    /// more than may be.
    pub fn clock_offset(&self) -> Option<(i64, bool)> {
        let offset = self.clock_offset.load(Ordering::Relaxed);
        let is_far = offset.unsigned_abs() > CLOCK_LEEWAY.as_secs();
        (offset != UNTOLD).then_some((offset, is_far))
    }
}

/// Whether a status speaks of the moment: ask again later.
pub fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

fn with_overrides(found: Metadata, endpoints: &Endpoints) -> Metadata {
    let instead = |own: &Option<String>, found| own.clone().unwrap_or(found);
    Metadata {
        authorization_endpoint: instead(&endpoints.authorization, found.authorization_endpoint),
        token_endpoint: instead(&endpoints.token, found.token_endpoint),
        jwks_uri: instead(&endpoints.jwks, found.jwks_uri),
        userinfo_endpoint: endpoints.userinfo.clone().or(found.userinfo_endpoint),
        revocation_endpoint: endpoints.revocation.clone().or(found.revocation_endpoint),
        end_session_endpoint: endpoints.end_session.clone().or(found.end_session_endpoint),
        ..found
    }
}

/// What the config alone knows, if that is enough to do without discovery.
fn without_discovery(endpoints: &Endpoints) -> Option<Metadata> {
    let least = Metadata {
        authorization_endpoint: endpoints.authorization.clone()?,
        token_endpoint: endpoints.token.clone()?,
        jwks_uri: endpoints.jwks.clone()?,
        ..Metadata::default()
    };
    Some(with_overrides(least, endpoints))
}

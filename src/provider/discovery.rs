//! What is known of the provider: metadata and signing keys, fetched when they are needed and kept while it is away.
//!
//! INVARIANT: one fetch at a time; after a failure the next waits at least [`RETRY_AFTER`]; a bad document never
//! replaces a good one. INVARIANT: whatever `kid`s strangers send, at most [`FORCED`] forced fetches in [`WINDOW`].

use super::ProviderError;
use super::http::{Answer, ProviderHttp};
use crate::config::ProviderSettings;
use crate::protocol::jwks::Jwks;
use crate::protocol::jws::Compact;
use crate::protocol::metadata::{Metadata, discovery_url};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long after a failure the provider is left alone; contract 4.8 wants it asked again within 10 s.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How old metadata and keys may get before they are fetched anew; they are used meanwhile.
const FRESH: Duration = Duration::from_secs(3600);
/// How old keys may get where they cannot be fetched anew: a withdrawn key must stop verifying some day.
const OLDEST_KEYS: Duration = Duration::from_secs(24 * 3600);
/// Forced fetches of the keys within a window.
const FORCED: usize = 3;
const WINDOW: Duration = Duration::from_secs(30);

/// What is known, with what it takes to learn more.
#[derive(Debug)]
pub(super) struct Knowledge {
    metadata: ArcSwapOption<(Metadata, Instant)>,
    keys: ArcSwapOption<(Keys, Instant)>,
    /// Held while fetching: one at a time, and the moment and reason of the last failure.
    metadata_turn: Mutex<Option<(Instant, ProviderError)>>,
    keys_turn: Mutex<KeysTurn>,
}

struct Keys(Jwks);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

#[derive(Debug, Default)]
struct KeysTurn {
    failed: Option<(Instant, ProviderError)>,
    forced: VecDeque<Instant>,
}

impl Knowledge {
    pub(super) fn new() -> Self {
        Self {
            metadata: ArcSwapOption::empty(),
            keys: ArcSwapOption::empty(),
            metadata_turn: Mutex::default(),
            keys_turn: Mutex::default(),
        }
    }

    /// The metadata as it is known now, however old, with the settings' own endpoints laid over it.
    pub(super) fn known(&self, settings: &ProviderSettings) -> Option<Metadata> {
        let own = &settings.endpoints;
        let mut metadata = match self.metadata.load().as_deref() {
            Some((metadata, _)) => metadata.clone(),
            None if own.authorization.is_some() && own.token.is_some() && own.jwks.is_some() => {
                Metadata::default()
            }
            None => return None,
        };
        for (known, own) in [
            (&mut metadata.authorization, &own.authorization),
            (&mut metadata.token, &own.token),
            (&mut metadata.jwks, &own.jwks),
            (&mut metadata.userinfo, &own.userinfo),
            (&mut metadata.revocation, &own.revocation),
            (&mut metadata.end_session, &own.end_session),
        ] {
            if own.is_some() {
                known.clone_from(own);
            }
        }
        Some(metadata)
    }

    /// The metadata; discovers where it is missing or old.
    pub(super) async fn metadata(
        &self,
        http: &ProviderHttp,
        settings: &ProviderSettings,
    ) -> Result<Metadata, ProviderError> {
        let is_fresh = |known: &Option<Arc<(Metadata, Instant)>>| {
            known.as_ref().is_some_and(|known| known.1.elapsed() < FRESH)
        };
        if !is_fresh(&self.metadata.load_full()) {
            let mut failed = self.metadata_turn.lock().await;
            let rests = failed.as_ref().is_some_and(|(at, _)| at.elapsed() < RETRY_AFTER);
            if !is_fresh(&self.metadata.load_full()) && !rests {
                match discover(http, settings).await {
                    Ok(metadata) => {
                        self.metadata.store(Some(Arc::new((metadata, Instant::now()))));
                        *failed = None;
                    }
                    Err(error) => {
                        tracing::warn!(provider = %settings.name, %error, "discovery failed");
                        *failed = Some((Instant::now(), error));
                    }
                }
            }
            if let (None, Some((_, error))) = (self.known(settings), failed.as_ref()) {
                return Err(error.clone());
            }
        }
        self.known(settings)
            .ok_or_else(|| ProviderError::Away("nothing is known of it yet".into()))
    }

    /// Checks a token's signature; fetches the keys where they are missing or old, and once more where none fits.
    pub(super) async fn verify(
        &self,
        http: &ProviderHttp,
        settings: &ProviderSettings,
        jwks_url: &str,
        token: &Compact<'_>,
    ) -> Result<(), ProviderError> {
        let seen = self.keys.load_full().filter(|keys| keys.1.elapsed() < FRESH);
        if let Some(keys) = &seen
            && keys.0.0.verify(token).is_ok()
        {
            return Ok(());
        }
        let mut turn = self.keys_turn.lock().await;
        let newest = self.keys.load_full();
        let fetched_meanwhile = newest.as_ref().map(|keys| keys.1) != seen.as_ref().map(|keys| keys.1)
            && newest.as_ref().is_some_and(|keys| keys.1.elapsed() < FRESH);
        if !fetched_meanwhile && turn.may_fetch(seen.is_some()) {
            match fetch_keys(http, jwks_url).await {
                Ok(keys) => {
                    self.keys.store(Some(Arc::new((Keys(keys), Instant::now()))));
                    turn.failed = None;
                }
                Err(error) => {
                    tracing::warn!(provider = %settings.name, %error, "the signing keys could not be fetched");
                    turn.failed = Some((Instant::now(), error));
                }
            }
        }
        let failed = turn.failed.as_ref().map(|(_, error)| error.clone());
        drop(turn);
        match self
            .keys
            .load_full()
            .filter(|keys| keys.1.elapsed() < OLDEST_KEYS)
        {
            Some(keys) => keys
                .0
                .0
                .verify(token)
                .map_err(|error| failed.unwrap_or(ProviderError::Bad(error.to_string()))),
            None => {
                Err(failed.unwrap_or_else(|| ProviderError::Away("its signing keys are not known".into())))
            }
        }
    }
}

impl KeysTurn {
    /// Whether the keys may be fetched now. `forced`: there are fresh ones, but none fits a token.
    fn may_fetch(&mut self, forced: bool) -> bool {
        if self
            .failed
            .as_ref()
            .is_some_and(|(at, _)| at.elapsed() < RETRY_AFTER)
        {
            return false;
        }
        if forced {
            self.forced.retain(|at| at.elapsed() < WINDOW);
            if self.forced.len() >= FORCED {
                return false;
            }
            self.forced.push_back(Instant::now());
        }
        true
    }
}

/// Fetches the discovery document.
pub(super) async fn discover(
    http: &ProviderHttp,
    settings: &ProviderSettings,
) -> Result<Metadata, ProviderError> {
    let url = settings
        .discovery_url
        .clone()
        .unwrap_or_else(|| discovery_url(&settings.issuer));
    let answer = get(http, &url).await?;
    Metadata::parse(&answer.body, &settings.issuer).map_err(ProviderError::Bad)
}

/// Fetches the signing keys.
pub(super) async fn fetch_keys(http: &ProviderHttp, url: &str) -> Result<Jwks, ProviderError> {
    let answer = get(http, url).await?;
    let keys = Jwks::parse(&answer.body).map_err(|why| ProviderError::Bad(why.into()))?;
    if keys.is_empty() {
        return Err(ProviderError::Bad(
            "its key set holds no key that can verify a signature".into(),
        ));
    }
    Ok(keys)
}

async fn get(http: &ProviderHttp, url: &str) -> Result<Answer, ProviderError> {
    let request = Request::get(url)
        .header(header::ACCEPT, "application/json")
        .body(Full::<Bytes>::default())
        .map_err(|_| ProviderError::Bad("an endpoint of it is no URL".into()))?;
    let answer = http
        .call(request)
        .await
        .map_err(|error| ProviderError::Away(error.to_string()))?;
    match answer.head.status.as_u16() {
        200 => Ok(answer),
        status @ (408 | 429 | 500..) => Err(ProviderError::Away(format!("it answered {status}"))),
        status @ 300..=399 => Err(ProviderError::Bad(format!(
            "it answered {status}; redirects are not followed"
        ))),
        status => Err(ProviderError::Bad(format!("it answered {status}"))),
    }
}

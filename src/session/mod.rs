//! What a session is, how long it lives, one refresh at a time.
//!
//! On a request's way this comes after `guard` has found the cookie and before `proxy` sends the token: the session comes
//! from memory (`cache`), or with one read of the store and one opening; and now and then there is a write behind it.
//!
//! INVARIANT: a record is written by compare-and-swap on its version only, and only where it is: nothing here revives
//! a session that ended, and an older write never wins (design §4, 2).
//! INVARIANT: "there is none" (`None`) and "it cannot be said" ([`SessionError`]) are different types.

mod administration;
mod cache;
mod claim_set;
mod end_reason;
mod ending;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod id;
mod index;
mod lifetime;
pub mod login_attempt;
mod logout_value;
pub mod record;
pub mod refresh;
pub mod seal;
mod stored;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use claim_set::ClaimSet;
pub use end_reason::EndReason;
pub use id::SessionId;
pub use index::{Listed, NoReference, Reference, Wanted, Whose};
pub use record::{NewSession, Session, Tokens};
pub use refresh::{Freshness, RefreshAt};

use crate::clock::{Clock, UnixTime};
use crate::config::SessionSettings;
use crate::metrics::Metrics;
use crate::seldom::Seldom;
use crate::store::{Kind, Replaced, Store, StoreError, StoreKey, Watch};
use cache::Cache;
use lifetime::Lifetime;
use record::Payload;
use refresh::{Flights, Leases, Throttle};
use seal::KeyRing;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use stored::Opened;
use tokio_util::task::TaskTracker;

/// How often a write is tried anew because others wrote in between.
const SWAPS: usize = 8;
/// How long noting a use may take in all, whatever each round trip may: an answer is due within 3 s (contract 4.6).
const NOTING: Duration = Duration::from_millis(1500);

/// Why a session could not be read or kept. Never the same as "there is none".
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record is sealed with a key that is not in `session.keys`, of a provider that is not configured, or written
    /// by a newer release: the operator's fault, so the session is kept.
    #[error("a session record cannot be read here: {0}")]
    Unreadable(&'static str),
    /// It belongs to a provider or client id that is not configured here (any more, or yet, while a new config is rolled
    /// out): no session for this replica, and still one for those that know the provider, so no cookie is cleared.
    #[error("a session belongs to a provider or client id that is not configured here")]
    Elsewhere,
}

/// Why a session did not begin.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BeginError {
    /// It could not be kept.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Its login had not finished when the provider logged its user out, or an administrator did (standards LO-17).
    #[error("this user was logged out meanwhile, by the provider or an administrator")]
    LoggedOut,
}

impl From<StoreError> for BeginError {
    fn from(error: StoreError) -> Self {
        Self::Session(error.into())
    }
}

/// Why there is no living access token for a session that was there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FreshError {
    /// The session is over (`invalid_grant`, another user's ID token, or no way to renew): 401, clear the cookie.
    #[error("the session has ended: {0}")]
    Ended(EndReason),
    /// The provider does not help now and the token is expired: 503.
    #[error("the provider is away")]
    ProviderAway,
    /// The store does not answer: 503.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<StoreError> for FreshError {
    fn from(error: StoreError) -> Self {
        Self::Session(error.into())
    }
}

/// All sessions of this deployment.
#[derive(Debug)]
pub struct Sessions {
    store: Arc<Store>,
    keys: Arc<KeyRing>,
    providers: Vec<Arc<dyn RefreshAt>>,
    /// One for each provider, in the same order.
    throttles: Vec<Arc<Throttle>>,
    lifetime: Lifetime,
    refresh_before: Duration,
    max_per_user: Option<usize>,
    clock: Clock,
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
    cache: Option<Cache>,
    refused: ending::Refused,
    touching: Mutex<HashSet<[u8; 32]>>,
    flights: Flights,
    leases: Leases,
    unopened: Seldom,
}

impl Sessions {
    /// All sessions in `store`, sealed with `keys`, of these `providers`. What must outlast a request (refreshes, notes
    /// of use, repeated deletes) runs on `tasks`: wait for them before the process ends.
    #[must_use]
    pub fn new<P: RefreshAt + 'static>(
        store: Arc<Store>,
        keys: Arc<KeyRing>,
        settings: &SessionSettings,
        providers: &[Arc<P>],
        clock: Clock,
        tasks: TaskTracker,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            store,
            keys,
            providers: providers
                .iter()
                .map(|provider| Arc::clone(provider) as _)
                .collect(),
            throttles: providers.iter().map(|_| Arc::default()).collect(),
            lifetime: Lifetime::new(settings),
            refresh_before: settings.refresh_before,
            max_per_user: settings.max_per_user,
            clock,
            tasks,
            metrics,
            cache: Cache::new(&settings.cache),
            refused: ending::Refused::default(),
            touching: Mutex::default(),
            flights: Flights::default(),
            leases: Leases::default(),
            unopened: Seldom::every(Duration::from_secs(10)),
        }
    }

    /// Begins a session, always under a new id. A user's oldest sessions end where that makes too many.
    ///
    /// # Errors
    /// [`BeginError`]; then there is no session that anybody knows the id of.
    ///
    /// # Cancel safety
    /// Dropped, it may leave a record whose id nobody knows, until its time ends.
    pub async fn begin(self: &Arc<Self>, new: NewSession) -> Result<(SessionId, Session), BeginError> {
        let provider = self
            .provider(&new.provider)
            .ok_or(SessionError::Unreadable("no such provider"))?;
        let attempted = new.attempted;
        let mut payload = Payload::new(new, self.clock.now());
        if self.max_per_user.is_some() {
            self.date_last(&mut payload, provider.issuer()).await?;
        }
        let opened = Opened {
            payload,
            version: 1,
            provider,
        };
        let (id, record) = (SessionId::random(), &opened.payload);
        let (hash, issuer) = (id.store_key(), opened.provider.issuer());
        let sealed = self.seal(&id, &opened)?;
        // The order decides races with a logout at the provider: see `index`.
        let ttl = self.lifetime.ttl(record, self.clock.now());
        self.store
            .create(self.key(Kind::Session, hash), sealed.into(), ttl)
            .await?;
        let client_id = opened.provider.client_id();
        let refused = match self.enlist(hash, record, issuer, client_id).await {
            Ok(()) => match self.is_logged_out(record, &*opened.provider, attempted).await {
                Ok(false) => None,
                Ok(true) => Some(BeginError::LoggedOut),
                Err(error) => Some(error.into()),
            },
            Err(error) => Some(error.into()),
        };
        if let Some(refused) = refused {
            let _repeated_in_the_background = self.end_known(hash).await;
            return Err(refused);
        }
        self.keep_few(issuer, &record.sub).await;
        Ok((id, self.session(opened)))
    }

    /// Finds a session: from memory while that counts (contract 4.10), else with one round trip; no write. `None`: the
    /// store is healthy and there is none (gone, idle or absolute end reached, not ours, tampered with), or it ended here
    /// and only its delete is not confirmed yet.
    ///
    /// # Errors
    /// [`SessionError`]: answer 503.
    pub async fn look_up(&self, id: &SessionId) -> Result<Option<Arc<Session>>, SessionError> {
        if let Some(session) = self.cached(id) {
            self.metrics.session_found_in_memory();
            return Ok(Some(session));
        }
        // Boxed: most requests need no room for it.
        Box::pin(self.look_up_in_store(id)).await
    }

    /// As [`Self::look_up`], never from memory: where the very newest tokens are wanted, as at a logout that revokes them.
    ///
    /// # Errors
    /// [`SessionError`]: answer 503.
    pub async fn look_up_in_store(&self, id: &SessionId) -> Result<Option<Arc<Session>>, SessionError> {
        let hash = id.store_key();
        let (opened, ticket, size) = self.read_with_ticket(id, hash).await?;
        self.metrics.session_found_in_store();
        let Some(opened) = opened else {
            return Ok(None);
        };
        let session = Arc::new(self.session(opened));
        if let Some(cache) = &self.cache {
            cache.keep(&self.store, (id, hash), &session, ticket, size);
        }
        Ok(Some(session))
    }

    /// What logs call the session of this cookie, where it is in this process's memory: nobody is asked, so a stranger's
    /// cookie is not taken for a session's.
    #[must_use]
    pub fn reference_in_memory(&self, id: &SessionId) -> Option<Reference> {
        self.cached(id).map(|_| self.reference(id))
    }

    fn cached(&self, id: &SessionId) -> Option<Arc<Session>> {
        // Asked before and after: an end that fails meanwhile is seen, and so is one that is confirmed meanwhile. Whether it
        // is over for its age is for the record to say.
        let counts = |hash: &[u8; 32]| !self.refused.holds(hash);
        let session = self.cache.as_ref()?.find(&self.store, id, counts)?;
        (self.clock.now() < session.idle_end).then_some(session)
    }

    /// News of a session: whoever keeps something open for it looks it up when this wakes.
    #[must_use]
    pub fn watch(&self, id: &SessionId) -> Watch {
        self.store.watch(self.key(Kind::Session, id.store_key()).hash)
    }

    /// Notes that the session was used. Writes at most once per tenth of the idle timeout, in the background.
    pub fn touch(self: &Arc<Self>, id: &SessionId, session: &Session) {
        self.touch_since(id, session.used);
    }

    /// As [`Self::touch`], for who knows of a session only when it was last used.
    pub fn touch_since(self: &Arc<Self>, id: &SessionId, used: UnixTime) {
        if !self.lifetime.is_worth_noting(used, self.clock.now()) {
            return;
        }
        let Some(turn) = Turn::take(self, id.store_key()) else {
            return;
        };
        let id = id.clone();
        self.tasks.spawn(async move {
            if let Err(error) = turn.sessions.note_use(&id, false).await {
                tracing::debug!(%error, "a session's use could not be noted");
            }
        });
    }

    /// Extends the session's idle end now, and returns it as it is then. `None`: it is gone.
    ///
    /// # Errors
    /// [`SessionError`]
    ///
    /// # Cancel safety
    /// Dropped, it may or may not have extended.
    pub async fn extend(&self, id: &SessionId) -> Result<Option<Session>, SessionError> {
        self.note_use(id, true).await
    }

    async fn note_use(&self, id: &SessionId, always: bool) -> Result<Option<Session>, SessionError> {
        let noting = tokio::time::timeout(NOTING, self.note_use_at_last(id, always));
        let late = |_| Err(StoreError("a session's use could not be noted in time".into()).into());
        noting.await.unwrap_or_else(late)
    }

    async fn note_use_at_last(&self, id: &SessionId, always: bool) -> Result<Option<Session>, SessionError> {
        for _ in 0..SWAPS {
            let Some(mut opened) = self.read(id).await? else {
                return Ok(None);
            };
            let now = self.clock.now();
            if !always && !self.lifetime.is_worth_noting(opened.payload.used, now) {
                return Ok(Some(self.session(opened)));
            }
            opened.payload.used = opened.payload.used.max(now);
            match self.replace(id, &opened).await? {
                Replaced::Done(version) => return Ok(Some(self.session(Opened { version, ..opened }))),
                Replaced::Gone => return Ok(None),
                Replaced::Changed => {}
            }
        }
        Err(StoreError("the session's record changes without end".into()).into())
    }

    fn provider(&self, name: &str) -> Option<Arc<dyn RefreshAt>> {
        self.providers
            .iter()
            .find(|provider| provider.name() == name)
            .cloned()
    }

    /// The key in the store for what `hash` names.
    fn key(&self, kind: Kind, hash: [u8; 32]) -> StoreKey {
        StoreKey {
            kind,
            hash: self.keys.scoped(hash),
        }
    }

    fn session(&self, opened: Opened) -> Session {
        opened.payload.session(&self.lifetime, opened.version)
    }
}

/// The turn to note a session's use: one at a time in this process, however many requests come at once.
struct Turn {
    sessions: Arc<Sessions>,
    hash: [u8; 32],
}

impl Turn {
    fn take(sessions: &Arc<Sessions>, hash: [u8; 32]) -> Option<Self> {
        let mut touching = sessions.touching.lock().unwrap_or_else(PoisonError::into_inner);
        touching.insert(hash).then(|| Self {
            sessions: Arc::clone(sessions),
            hash,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut touching = self
            .sessions
            .touching
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        touching.remove(&self.hash);
    }
}

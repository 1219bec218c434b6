//! Where sessions are kept: opaque, sealed bytes under hashed keys.
//!
//! On a request's way `session` asks here, once per request. The store cannot leak a token, because it cannot read
//! one. It knows versions (for compare-and-swap), times to live and leases.
//!
//! INVARIANT: every key has a TTL.
//! INVARIANT: "not there" (`None`, [`Replaced::Gone`]) and "did not answer" ([`StoreError`]) are different types.
//! INVARIANT: every operation ends within [`PATIENCE`], whatever the server does (contract 4.6).
//! INVARIANT: what is kept outside is used only while [`Store::holds`] (contract 4.10).

mod changes;
mod memory;
mod online;
mod redis;

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) mod testing;

pub use changes::{Ticket, Watch};
pub use online::OnlineStep;

use crate::clock::Clock;
use crate::config::RedisSettings;
use crate::metrics::Metrics;
use crate::seldom::Seldom;
use bytes::Bytes;
use changes::Changes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The longest that one operation takes, a new connection included: two of them, one after the other, leave a request in
/// time to say so (contract 4.6: within 3 s).
pub const PATIENCE: Duration = Duration::from_millis(1400);

/// Versions are counted up to this before [`Store::replace_above`] begins anew above it.
const ABOVE: u64 = 1 << 32;

/// An operation that takes longer delays every request, and is worth a line in the log.
const SLOW: Duration = Duration::from_millis(250);
/// How often such lines come.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// What a key is for; part of the key's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A session's record.
    Session,
    /// The lease on a session's refresh.
    RefreshLock,
    /// A login attempt has been claimed by a callback.
    AttemptClaim,
    /// What a finished login attempt brought.
    AttemptResult,
    /// Where a logout that a script asked for leads on.
    LogoutContinuation,
    /// The sessions of one user of one provider: a set.
    UserIndex,
    /// The sessions of one session at a provider: a set.
    SidIndex,
    /// What lists show of one session: a set of one.
    Summary,
    /// A user or a provider's session was logged out at the provider, until no login begun before it can finish.
    LogoutMark,
    /// A logout token has been taken.
    LogoutToken,
    /// A session was ended a moment ago: the mark that keeps a write from being done again after a failover.
    Ended,
    /// Written, read and deleted by `cloakroom check --online`.
    Probe,
}

impl Kind {
    /// All of them.
    const ALL: [Self; 12] = [
        Self::Session,
        Self::RefreshLock,
        Self::AttemptClaim,
        Self::AttemptResult,
        Self::LogoutContinuation,
        Self::UserIndex,
        Self::SidIndex,
        Self::Summary,
        Self::LogoutMark,
        Self::LogoutToken,
        Self::Ended,
        Self::Probe,
    ];

    /// The word in the key's text.
    const fn word(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::RefreshLock => "refresh",
            Self::AttemptClaim => "claim",
            Self::AttemptResult => "result",
            Self::LogoutContinuation => "logout",
            Self::UserIndex => "user",
            Self::SidIndex => "sid",
            Self::Summary => "summary",
            Self::LogoutMark => "logged-out",
            Self::LogoutToken => "logout-token",
            Self::Ended => "ended",
            Self::Probe => "probe",
        }
    }
}

/// A key in the store: a kind, and a hash that tells nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey {
    /// What it is for.
    pub kind: Kind,
    /// SHA-256 of what only the browser knows.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}/{:02x}{:02x}…", self.kind, self.hash[0], self.hash[1])
    }
}

/// A stored value and its version: 1 when created, and more with each replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The version.
    pub version: u64,
    /// The sealed bytes.
    pub sealed: Bytes,
}

/// How a compare-and-swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Written; this is the new version.
    Done(u64),
    /// Somebody else wrote since: read again.
    Changed,
    /// Not there any more; nothing was written.
    Gone,
}

/// The store did not do what was asked, and it is not known whether the key exists.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the session store does not answer: {0}")]
pub struct StoreError(pub String);

/// A session store, and who counts its operations.
#[derive(Debug)]
pub struct Store {
    backend: Backend,
    changes: Arc<Changes>,
    metrics: Arc<Metrics>,
    slow: Seldom,
    full: Seldom,
    #[cfg(test)]
    pub(crate) outage: testing::Outage,
}

#[derive(Debug)]
enum Backend {
    Memory(memory::MemoryStore),
    Redis(redis::RedisStore),
}

/// What a set holds: members, and a sealed summary of each.
pub type Members = Vec<([u8; 32], Bytes)>;

/// Asks the backend, and tells the metrics how it went.
macro_rules! ask {
    ($store:ident, $method:ident($($argument:expr),*)) => {{
        let began = Instant::now();
        let asked = async {
            match &$store.backend {
                Backend::Memory(memory) => Ok(memory.$method($($argument),*)),
                Backend::Redis(redis) => redis.$method($($argument),*).await,
            }
        };
        #[cfg(test)]
        let asked = $store.outage.around(stringify!($method), asked);
        let answer = asked.await;
        $store.note(stringify!($method), began.elapsed(), answer.is_ok());
        answer
    }};
}

impl Store {
    /// A store in this process, for one machine: at most `max_sessions` sessions, of which the longest idle goes first.
    #[must_use]
    pub fn memory(max_sessions: usize, clock: Clock) -> Self {
        let changes = Changes::new();
        let memory = memory::MemoryStore::new(max_sessions, clock, Arc::clone(&changes));
        Self::new(Backend::Memory(memory), changes)
    }

    fn new(backend: Backend, changes: Arc<Changes>) -> Self {
        Self {
            backend,
            changes,
            metrics: Arc::default(),
            slow: Seldom::every(TOLD_EVERY),
            full: Seldom::every(TOLD_EVERY),
            #[cfg(test)]
            outage: testing::Outage::default(),
        }
    }

    /// A store in Redis. Nothing is connected yet: the server may be away.
    ///
    /// # Errors
    /// A sentence for the operator: what in the settings cannot be used. Never a password.
    pub fn redis(settings: &RedisSettings) -> Result<Self, String> {
        let changes = Changes::new();
        let redis = redis::RedisStore::new(settings, Arc::clone(&changes))?;
        Ok(Self::new(Backend::Redis(redis), changes))
    }

    /// Counts an operation, and says so where it was slow. One that failed has its own line, from who asked.
    fn note(&self, operation: &'static str, took: Duration, ok: bool) {
        self.metrics.store_operation(operation, took.as_secs_f64(), ok);
        if ok
            && took > SLOW
            && let Some(unsaid) = self.slow.due()
        {
            let millis = took.as_millis();
            tracing::warn!(
                operation,
                millis,
                unsaid,
                "the session store is slow, and requests wait for it: see to its load and to the way there"
            );
        }
    }

    /// The same store, counted by `metrics`.
    #[must_use]
    pub fn counted_by(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// How many sessions a full memory store has dropped since it began; always 0 in Redis.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        match &self.backend {
            Backend::Memory(memory) => memory.evicted(),
            Backend::Redis(_) => 0,
        }
    }

    /// Reads a value: one round trip.
    ///
    /// # Errors
    /// [`StoreError`]: answer 503.
    pub async fn read(&self, key: StoreKey) -> Result<Option<Record>, StoreError> {
        Ok(self.read_with_ticket(key).await?.0)
    }

    /// As [`Self::read`], with what tells whether the answer is still so.
    ///
    /// # Errors
    /// [`StoreError`]: answer 503.
    pub async fn read_with_ticket(&self, key: StoreKey) -> Result<(Option<Record>, Ticket), StoreError> {
        let epoch = self.changes.now(&key);
        let (record, source) = ask!(self, read(key))?;
        Ok((record, Ticket::new(key, epoch, source)))
    }

    /// Whether what was read with this ticket is still so, as far as can be known without asking (contract 4.10).
    #[must_use]
    pub fn holds(&self, ticket: &Ticket) -> bool {
        self.holds_at(ticket, Instant::now())
    }

    /// The same for who has looked at the clock.
    #[must_use]
    pub fn holds_at(&self, ticket: &Ticket, now: Instant) -> bool {
        ticket.holds(&self.changes, now)
    }

    /// News of the session whose keys have this hash: of its record, and of the lease on its refresh.
    #[must_use]
    pub fn watch(&self, hash: [u8; 32]) -> Watch {
        self.changes.watch(hash)
    }

    /// Wakes whoever watches this session in this process: something is known of it here that the store does not know yet.
    pub fn wake(&self, key: StoreKey) {
        self.changes.note(&key);
    }

    /// Writes a new value with version 1, over whatever was there.
    ///
    /// # Errors
    /// [`StoreError`]: it is not known whether it was written.
    ///
    /// # Cancel safety
    /// Dropped, it may or may not have written.
    pub async fn create(&self, key: StoreKey, sealed: Bytes, ttl: Duration) -> Result<(), StoreError> {
        if ask!(self, create(key, sealed, ttl))? {
            self.metrics.sessions_evicted();
            if let Some(unsaid) = self.full.due() {
                tracing::warn!(
                    unsaid,
                    "the memory store is full, so the session that was idle longest was ended: raise \
                     session.store.memory.max_sessions, or use Redis"
                );
            }
        }
        Ok(())
    }

    /// Writes only if the version is still `expected`.
    ///
    /// # Errors
    /// [`StoreError`]: it is not known whether it was written.
    ///
    /// # Cancel safety
    /// Dropped, it may or may not have written.
    pub async fn replace(
        &self,
        key: StoreKey,
        expected: u64,
        sealed: Bytes,
        ttl: Duration,
    ) -> Result<Replaced, StoreError> {
        ask!(self, replace(key, expected, expected + 1, sealed, ttl))
    }

    /// As [`Self::replace`], with a version that no number of plain replacements reaches. Where a failover loses this write
    /// and another replica writes over what it had replaced, this one is written again over that, and not given up for it.
    ///
    /// # Errors
    /// As [`Self::replace`].
    ///
    /// # Cancel safety
    /// As [`Self::replace`].
    pub async fn replace_above(
        &self,
        key: StoreKey,
        expected: u64,
        sealed: Bytes,
        ttl: Duration,
    ) -> Result<Replaced, StoreError> {
        let version = (expected / ABOVE + 1) * ABOVE;
        ask!(self, replace(key, expected, version, sealed, ttl))
    }

    /// Deletes; true if it was there.
    ///
    /// # Errors
    /// [`StoreError`]: repeat until it is confirmed.
    ///
    /// # Cancel safety
    /// Dropped, it may or may not have deleted; repeating is safe.
    pub async fn delete(&self, key: StoreKey) -> Result<bool, StoreError> {
        ask!(self, delete(key))
    }

    /// Deletes a session that is known to exist, or to have existed; true if it was there. Where a failover could have lost
    /// its record, it is remembered as ended, so that nobody writes it again.
    ///
    /// # Errors
    /// [`StoreError`]: repeat until it is confirmed.
    ///
    /// # Cancel safety
    /// Dropped, it may or may not have deleted; repeating is safe.
    pub async fn end(&self, key: StoreKey) -> Result<bool, StoreError> {
        ask!(self, end(key))
    }

    /// Writes `owner` only if the key is not there: a claim, or a lease. True if it is now ours.
    ///
    /// # Errors
    /// [`StoreError`]: it may be ours all the same, until its `ttl` ends.
    ///
    /// # Cancel safety
    /// Dropped, it may be ours until its `ttl` ends.
    pub async fn claim(&self, key: StoreKey, owner: &[u8; 16], ttl: Duration) -> Result<bool, StoreError> {
        ask!(self, claim(key, owner, ttl))
    }

    /// Prolongs a lease that `owner` holds. False if it is no longer ours.
    ///
    /// # Errors
    /// [`StoreError`]: it is not known whether it was prolonged.
    ///
    /// # Cancel safety
    /// Repeating is safe.
    pub async fn renew(&self, key: StoreKey, owner: &[u8; 16], ttl: Duration) -> Result<bool, StoreError> {
        ask!(self, renew(key, owner, ttl))
    }

    /// Gives a claim or lease back, if `owner` holds it.
    ///
    /// # Errors
    /// [`StoreError`]: it ends by itself.
    ///
    /// # Cancel safety
    /// Repeating is safe.
    pub async fn release(&self, key: StoreKey, owner: &[u8; 16]) -> Result<(), StoreError> {
        ask!(self, release(key, owner))
    }

    /// Puts a member into a set, with a sealed summary, and returns how many the set has now. The set lives for `ttl` at
    /// least, and no shorter than it would have.
    ///
    /// # Errors
    /// [`StoreError`]: it may be in the set all the same.
    ///
    /// # Cancel safety
    /// Repeating is safe.
    pub async fn enlist(
        &self,
        key: StoreKey,
        member: &[u8; 32],
        sealed: Bytes,
        ttl: Duration,
    ) -> Result<usize, StoreError> {
        ask!(self, enlist(key, member, sealed, ttl))
    }

    /// The members of a set; none where there is no set.
    ///
    /// # Errors
    /// [`StoreError`]: it is not known who is in it.
    pub async fn listed(&self, key: StoreKey) -> Result<Members, StoreError> {
        ask!(self, listed(key))
    }

    /// Takes members out of a set.
    ///
    /// # Errors
    /// [`StoreError`]: they may still be in it.
    ///
    /// # Cancel safety
    /// Repeating is safe.
    pub async fn strike(&self, key: StoreKey, members: &[[u8; 32]]) -> Result<(), StoreError> {
        if members.is_empty() {
            return Ok(());
        }
        ask!(self, strike(key, members))
    }

    /// Asks whether the store is there.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn ping(&self) -> Result<(), StoreError> {
        ask!(self, ping())
    }
}

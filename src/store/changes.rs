//! What has changed in the store, as far as this process has been told: by its own writes, and by the server.
//!
//! Two parties want to know. Who keeps what was read (the cache of opened sessions) asks [`Store::holds`] whether it is
//! still so; who waits for news of one session (a refresh that runs elsewhere, an open WebSocket) has a [`Watch`].
//!
//! A change is a step of a counter. A [`Ticket`] remembers the counter as it stood *before* its read began, so a change
//! that comes while the answer is under way voids the ticket as well: nothing has to be removed anywhere, and no order of
//! read, delete, invalidation and insertion keeps anything alive. Keys share counters, so now and then a ticket is void
//! for somebody else's sake; that costs one read.
//!
//! INVARIANT: a ticket holds only while the connection that it was read over, on which the server's news of changes come
//! too, has answered a question that was asked within the last second (contract 4.10). Without such a connection it never
//! holds.
//! INVARIANT: bounded: the counters are a fixed number, and there is one watched key for each that somebody watches.
//!
//! [`Store::holds`]: super::Store::holds

use super::{Kind, StoreKey};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How many counters there are: each change voids one in so many of the tickets.
const COUNTERS: usize = 4096;
/// How long an answered question shows that a connection lives (contract 4.10).
const PROOF: Duration = Duration::from_secs(1);

/// A moment in the life of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch {
    all: u64,
    one: u64,
}

/// What has changed, and who wants to know.
#[derive(Debug)]
pub(super) struct Changes {
    all: AtomicU64,
    counters: Box<[AtomicU64]>,
    /// By the hash of a session's keys: its record and the lease on its refresh are one matter.
    watched: Mutex<HashMap<[u8; 32], watch::Sender<()>>>,
}

impl Changes {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            all: AtomicU64::new(0),
            counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            watched: Mutex::default(),
        })
    }

    fn counter(&self, key: &StoreKey) -> &AtomicU64 {
        let slot = usize::from(u16::from_be_bytes([key.hash[0], key.hash[1]]));
        &self.counters[slot % COUNTERS]
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<[u8; 32], watch::Sender<()>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The moment it is for a key: taken before a read of it begins.
    pub(super) fn now(&self, key: &StoreKey) -> Epoch {
        Epoch {
            all: self.all.load(Ordering::SeqCst),
            one: self.counter(key).load(Ordering::SeqCst),
        }
    }

    /// This key was written or deleted, by whomever.
    pub(super) fn note(&self, key: &StoreKey) {
        if key.kind == Kind::Session {
            self.counter(key).fetch_add(1, Ordering::SeqCst);
        }
        if matches!(key.kind, Kind::Session | Kind::RefreshLock)
            && let Some(watched) = self.watched().get(&key.hash)
        {
            watched.send_replace(());
        }
    }

    /// Anything may have changed: a connection was lost or replaced, the server was emptied, its place was taken.
    pub(super) fn note_all(&self) {
        self.all.fetch_add(1, Ordering::SeqCst);
        for watched in self.watched().values() {
            watched.send_replace(());
        }
    }

    pub(super) fn watch(self: &Arc<Self>, hash: [u8; 32]) -> Watch {
        let mut watched = self.watched();
        let news = watched.entry(hash).or_insert_with(|| watch::Sender::new(()));
        Watch {
            hash,
            news: Some(news.subscribe()),
            changes: Arc::clone(self),
        }
    }
}

/// Whether one connection is alive; dead once, it stays dead.
#[derive(Debug)]
pub(super) struct Pulse {
    born: Instant,
    /// When the question left that was answered last: microseconds after `born`.
    proved: AtomicU64,
    stopped: AtomicBool,
}

impl Pulse {
    /// Of a connection that has just answered a question that was asked at `asked`.
    pub(super) fn new(asked: Instant) -> Arc<Self> {
        Arc::new(Self {
            born: asked,
            proved: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        })
    }

    /// A question that was asked at `asked` has been answered: whatever the server had to tell before that has come.
    pub(super) fn beat(&self, asked: Instant) {
        let after = asked.saturating_duration_since(self.born).as_micros();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        self.proved.fetch_max(after, Ordering::SeqCst);
    }

    /// The connection is not used any more.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Whether a question asked within the last second was answered.
    pub(super) fn lives(&self, now: Instant) -> bool {
        let proved = self.born + Duration::from_micros(self.proved.load(Ordering::SeqCst));
        !self.stopped.load(Ordering::SeqCst) && now.saturating_duration_since(proved) < PROOF
    }
}

/// Where a read's news come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// From this process alone: the store is in it.
    Here,
    /// From the server, over the connection of this pulse.
    Server(Arc<Pulse>),
    /// From nowhere: the server does not tell.
    Nowhere,
}

/// What tells whether something read is still so.
#[derive(Clone, Debug)]
pub struct Ticket {
    key: StoreKey,
    epoch: Epoch,
    source: Source,
}

impl Ticket {
    pub(super) fn new(key: StoreKey, epoch: Epoch, source: Source) -> Self {
        Self { key, epoch, source }
    }

    /// Whether it is still so.
    pub(super) fn holds(&self, changes: &Changes, now: Instant) -> bool {
        let heard = match &self.source {
            Source::Here => true,
            Source::Server(pulse) => pulse.lives(now),
            Source::Nowhere => false,
        };
        heard && changes.now(&self.key) == self.epoch
    }

    /// Whether it may ever hold: keeping what came with it is worth while.
    #[must_use]
    pub fn is_worth_keeping(&self) -> bool {
        !matches!(self.source, Source::Nowhere)
    }
}

/// News of one session: of its record, and of the lease on its refresh.
#[derive(Debug)]
pub struct Watch {
    hash: [u8; 32],
    /// `None` only while it is dropped.
    news: Option<watch::Receiver<()>>,
    changes: Arc<Changes>,
}

impl Watch {
    /// Waits until something was written or deleted since the last call (or since the watch began), or may have been.
    /// While the link to the server is down nothing comes; when it is back, this wakes.
    ///
    /// # Cancel safety
    /// Dropped, no news is lost.
    pub async fn changed(&mut self) {
        if let Some(news) = &mut self.news
            && news.changed().await.is_ok()
        {
            return;
        }
        // The sender lives as long as anybody watches.
        std::future::pending::<()>().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.changes.watched();
        drop(self.news.take());
        if watched
            .get(&self.hash)
            .is_some_and(|news| news.receiver_count() == 0)
        {
            watched.remove(&self.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Kind, n: u8) -> StoreKey {
        StoreKey { kind, hash: [n; 32] }
    }

    fn ticket(changes: &Changes, n: u8, source: Source) -> Ticket {
        let key = key(Kind::Session, n);
        Ticket::new(key, changes.now(&key), source)
    }

    #[test]
    fn a_change_voids_the_tickets_of_its_key_and_of_few_others() {
        let changes = Changes::new();
        let tickets: Vec<_> = (0..100).map(|n| ticket(&changes, n, Source::Here)).collect();
        changes.note(&key(Kind::Session, 7));
        changes.note(&key(Kind::RefreshLock, 8));
        let holding = tickets
            .iter()
            .filter(|ticket| ticket.holds(&changes, Instant::now()))
            .count();
        assert_eq!(holding, 99);
        assert!(!tickets[7].holds(&changes, Instant::now()));
        changes.note_all();
        assert!(
            !tickets
                .iter()
                .any(|ticket| ticket.holds(&changes, Instant::now()))
        );
        assert!(!ticket(&changes, 1, Source::Nowhere).holds(&changes, Instant::now()));
    }

    #[test]
    fn read_then_delete_then_invalidate_then_insert_keeps_nothing() {
        let changes = Changes::new();
        // The read begins, and its answer is under way.
        let read = ticket(&changes, 1, Source::Here);
        // It is deleted elsewhere, and that is told.
        changes.note(&key(Kind::Session, 1));
        // Only now is the answer put away.
        assert!(!read.holds(&changes, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lives_for_a_second_after_a_question_that_was_answered() {
        let changes = Changes::new();
        let pulse = Pulse::new(Instant::now());
        let kept = ticket(&changes, 1, Source::Server(Arc::clone(&pulse)));
        tokio::time::advance(Duration::from_millis(900)).await;
        assert!(kept.holds(&changes, Instant::now()));
        let asked = Instant::now();
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(!kept.holds(&changes, Instant::now()), "it was asked longer ago");
        pulse.beat(asked);
        assert!(kept.holds(&changes, Instant::now()), "and lives after all");
        tokio::time::advance(Duration::from_millis(799)).await;
        assert!(kept.holds(&changes, Instant::now()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(
            !kept.holds(&changes, Instant::now()),
            "the second counts from the question"
        );
        pulse.beat(Instant::now());
        pulse.stop();
        pulse.beat(Instant::now());
        assert!(!kept.holds(&changes, Instant::now()), "dead once, dead for ever");
    }

    #[tokio::test]
    async fn a_watch_wakes_for_its_own_session_and_leaves_nothing_behind() {
        let changes = Changes::new();
        let (mut one, mut same, mut other) = (
            changes.watch([1; 32]),
            changes.watch([1; 32]),
            changes.watch([2; 32]),
        );
        assert_eq!(changes.watched().len(), 2);
        for kind in [Kind::Session, Kind::RefreshLock] {
            changes.note(&key(kind, 1));
            one.changed().await;
            same.changed().await;
        }
        changes.note(&key(Kind::AttemptClaim, 2));
        let quiet = tokio::time::timeout(Duration::from_millis(20), other.changed());
        assert!(quiet.await.is_err());
        changes.note_all();
        other.changed().await;
        drop(one);
        assert_eq!(changes.watched().len(), 2);
        drop((same, other));
        assert_eq!(changes.watched().len(), 0);
    }
}

//! Ends sessions, also while the store does not answer.
//!
//! A logout deletes first. Where the store does not confirm it, this replica refuses the session from then on and
//! repeats the delete until it is confirmed, or until the session could not live any longer by itself (contract 3.8).
//!
//! INVARIANT: bounded, and strangers crowd nobody out. Anybody can ask for the end of a session that may not exist, so
//! during an outage strangers could fill this: sessions known to exist have [`MAX_KNOWN`] places of their own, all others
//! share [`MAX_UNKNOWN`], where a new one takes the place of any other. What no longer fits is only refused its logout
//! (503), and logged.

use super::{Listed, SessionError, SessionId, Sessions};
use crate::clock::UnixTime;
use crate::store::{Kind, StoreError};
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most sessions known to exist that are refused at one time: some ten megabytes.
const MAX_KNOWN: usize = 100_000;
/// The most others.
const MAX_UNKNOWN: usize = 10_000;
/// How many deletes are repeated at once.
const AT_ONCE: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Sessions whose delete is not confirmed yet.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Until when each is refused that is known to exist.
    known: HashMap<[u8; 32], UnixTime>,
    /// Until when each is refused that anybody may have made up.
    unknown: HashMap<[u8; 32], UnixTime>,
    /// Whether a task repeats the deletes.
    at_work: bool,
}

impl Refused {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holds(&self, hash: &[u8; 32]) -> bool {
        let state = self.state();
        state.known.contains_key(hash) || state.unknown.contains_key(hash)
    }

    fn knows(&self, hash: &[u8; 32]) -> bool {
        self.state().known.contains_key(hash)
    }

    /// True if a task must be started.
    fn add(&self, hash: [u8; 32], until: UnixTime, is_known: bool) -> bool {
        let mut state = self.state();
        let State { known, unknown, .. } = &mut *state;
        if known.contains_key(&hash) || is_known {
            if known.len() >= MAX_KNOWN && !known.contains_key(&hash) {
                tracing::error!("too many logouts wait for the session store: one is not remembered");
                return false;
            }
            unknown.remove(&hash);
            known.insert(hash, until);
        } else {
            if unknown.len() >= MAX_UNKNOWN && !unknown.contains_key(&hash) {
                // The map's order is as good as random, and nobody outside can tell it.
                if let Some(any) = unknown.keys().next().copied() {
                    unknown.remove(&any);
                }
            }
            unknown.insert(hash, until);
        }
        !std::mem::replace(&mut state.at_work, true)
    }

    /// What is still to be deleted. Where nothing is, the task that asks is done.
    fn left(&self, now: UnixTime) -> Vec<[u8; 32]> {
        let mut state = self.state();
        state.known.retain(|_, until| *until > now);
        state.unknown.retain(|_, until| *until > now);
        state.at_work = !(state.known.is_empty() && state.unknown.is_empty());
        // Those that exist come first.
        state.known.keys().chain(state.unknown.keys()).copied().collect()
    }

    fn count(&self) -> usize {
        let state = self.state();
        state.known.len() + state.unknown.len()
    }

    fn remove(&self, hash: &[u8; 32]) {
        let mut state = self.state();
        state.known.remove(hash);
        state.unknown.remove(hash);
    }
}

impl Sessions {
    /// Ends the session under this key (see [`SessionId::store_key`]); true if it was there.
    ///
    /// # Errors
    /// [`SessionError`]: the session is refused by this replica from now on, and the delete is repeated in the
    /// background until it is confirmed.
    ///
    /// # Cancel safety
    /// Once polled, it is carried through even if it is dropped.
    ///
    /// [`SessionId::store_key`]: super::SessionId::store_key
    pub async fn end(self: &Arc<Self>, hash: [u8; 32]) -> Result<bool, SessionError> {
        self.end_as(hash, false).await
    }

    /// As [`Self::end`], for a session that is known to exist (or to have existed), because it was opened or its logout
    /// value held: strangers cannot crowd its end out.
    ///
    /// # Errors
    /// As [`Self::end`].
    ///
    /// # Cancel safety
    /// As [`Self::end`].
    pub async fn end_known(self: &Arc<Self>, hash: [u8; 32]) -> Result<bool, SessionError> {
        self.end_as(hash, true).await
    }

    /// Ends all of these at one time, whatever becomes of each: in their order, as [`Self::end_known`] says of each.
    ///
    /// # Cancel safety
    /// As [`Self::end`].
    pub async fn end_all(self: &Arc<Self>, listed: &[Listed]) -> Vec<Result<bool, SessionError>> {
        let ends = listed.iter().map(|one| self.end_known(one.reference().hash()));
        join_all(ends).await
    }

    async fn end_as(self: &Arc<Self>, hash: [u8; 32], is_known: bool) -> Result<bool, SessionError> {
        let sessions = Arc::clone(self);
        let ending = self.tasks.spawn(async move {
            let deleted = sessions.delete(hash, is_known).await;
            if deleted.is_err() {
                sessions.refuse_as(hash, is_known);
            }
            deleted
        });
        match ending.await {
            Ok(deleted) => Ok(deleted?),
            Err(_) => Err(StoreError("the delete was broken off".into()).into()),
        }
    }

    /// Ends the session as far as this replica can while the store does not answer: it is refused here from now on,
    /// and the delete is repeated in the background until it is confirmed.
    pub fn refuse(self: &Arc<Self>, hash: [u8; 32]) {
        self.refuse_as(hash, false);
    }

    /// As [`Self::refuse`], for a session that is known to exist.
    pub fn refuse_known(self: &Arc<Self>, hash: [u8; 32]) {
        self.refuse_as(hash, true);
    }

    /// Whether the session has ended here, and only its delete is not confirmed yet.
    #[must_use]
    pub fn is_refused(&self, id: &SessionId) -> bool {
        self.refused.holds(&id.store_key())
    }

    /// How many sessions have ended here while the store did not confirm it. With this process that is forgotten.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.refused.count()
    }

    fn refuse_as(self: &Arc<Self>, hash: [u8; 32], is_known: bool) {
        let until = self.clock.now().plus(self.lifetime.absolute());
        if self.refused.add(hash, until, is_known) {
            let sessions = Arc::clone(self);
            self.tasks.spawn(async move { sessions.repeat_deletes().await });
        }
        // Its streams in this process end with it, whatever the store does.
        self.store.wake(self.key(Kind::Session, hash));
    }

    async fn delete(&self, hash: [u8; 32], is_known: bool) -> Result<bool, StoreError> {
        let key = self.key(Kind::Session, hash);
        if is_known {
            self.store.end(key).await
        } else {
            self.store.delete(key).await
        }
    }

    async fn repeat_deletes(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let left = self.refused.left(self.clock.now());
            if left.is_empty() {
                return;
            }
            // Whatever becomes of one (its node of a cluster may be away), the others have their turn.
            for some in left.chunks(AT_ONCE) {
                let deletes = some.iter().map(async |hash| {
                    let is_known = self.refused.knows(hash);
                    let confirmed = self.delete(*hash, is_known).await.is_ok();
                    if confirmed {
                        self.refused.remove(hash);
                    }
                    confirmed
                });
                if join_all(deletes).await.contains(&true) {
                    pause = FIRST_PAUSE;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::session::testing::World;
    use crate::store::Store;
    use crate::store::testing::{Fails, Gate};
    use std::pin::Pin;
    use tokio::time::Instant;

    fn id(n: usize) -> [u8; 32] {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        id
    }

    #[tokio::test]
    async fn class_h_what_strangers_say_is_over_is_not_remembered_for_a_failover() {
        let (world, counted) = (World::new(), Arc::new(Metrics::default()));
        let store = Store::memory(10, world.clock.clone()).counted_by(Arc::clone(&counted));
        let world = World::over(store.into(), world.clock.clone(), world.provider.clone());
        let asked = |operation: &str| {
            let count = format!("operation=\"{operation}\"}} ");
            counted
                .encode()
                .lines()
                .any(|line| line.contains("_count") && line.contains(&count))
        };
        world.sessions.end(id(1)).await.unwrap();
        assert!(asked("delete") && !asked("end"));
        world.sessions.end_known(id(1)).await.unwrap();
        assert!(asked("end"));
    }

    /// Of all deletes at one moment the first fails.
    #[derive(Debug, Default)]
    struct FirstFails(Mutex<Option<Instant>>);

    impl Gate for FirstFails {
        fn pass(&self, operation: &'static str) -> Pin<Box<dyn Future<Output = Option<Fails>> + Send + '_>> {
            let now = Instant::now();
            let is_first =
                operation == "delete" && self.0.lock().unwrap().replace(now).is_none_or(|last| last != now);
            Box::pin(std::future::ready(is_first.then_some(Fails::Before)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lo_07_one_session_whose_end_is_never_confirmed_holds_up_no_other() {
        let world = World::new();
        let mut sessions = Vec::new();
        for _ in 0..100 {
            sessions.push(world.begin().await.0);
        }
        for id in &sessions {
            world.sessions.refuse_known(id.store_key());
        }
        world.store.outage.guard(Arc::new(FirstFails::default()));
        tokio::time::sleep(2 * FIRST_PAUSE).await;
        let left = world.sessions.refused.left(world.clock.now());
        assert_eq!(left.len(), 1, "in the first round");
    }

    #[test]
    fn strangers_crowd_out_no_session_that_exists() {
        let (refused, until) = (Refused::default(), UnixTime::from_secs(10));
        assert!(refused.add(id(0), until, true));
        assert!(!refused.add(id(1), until, false));
        for n in 2..3 * MAX_UNKNOWN {
            refused.add(id(n), until, false);
        }
        assert!(refused.holds(&id(0)) && refused.holds(&id(3 * MAX_UNKNOWN - 1)));
        assert_eq!(
            refused.left(UnixTime::from_secs(9)).len(),
            MAX_UNKNOWN + 1,
            "bounded"
        );
        // What is known stays known, and what becomes known is counted once.
        refused.add(id(0), until, false);
        refused.add(id(3 * MAX_UNKNOWN - 1), until, true);
        let left = refused.left(UnixTime::from_secs(9));
        assert_eq!(left.len(), MAX_UNKNOWN + 1);
        assert!(left[..2].contains(&id(0)) && left[..2].contains(&id(3 * MAX_UNKNOWN - 1)));
        assert!(refused.left(until).is_empty());
        assert!(refused.add(id(0), until, true), "a new task is wanted");
    }
}

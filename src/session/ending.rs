//! Ends sessions, also while the store does not answer.
//!
//! A logout deletes first. Where the store does not confirm it, this replica refuses the session from then on and
//! repeats the delete until it is confirmed, or until the session could not live any longer by itself (contract 3.8).
//!
//! INVARIANT: bounded by [`MAX_REFUSED`]. Anybody can ask for the end of a session that may not exist, so during an
//! outage strangers could fill this; what no longer fits is only refused its logout (503), and logged.

use super::{SessionError, Sessions};
use crate::clock::UnixTime;
use crate::store::{Kind, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The most sessions that are refused at one time: some ten megabytes.
const MAX_REFUSED: usize = 100_000;
/// How long a replaced session lives on.
const GRACE: Duration = Duration::from_secs(2);
/// How soon a stop of the process is noticed meanwhile.
const GRACE_STEP: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Sessions whose delete is not confirmed yet.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Until when each is refused.
    until: HashMap<[u8; 32], UnixTime>,
    /// Whether a task repeats the deletes.
    at_work: bool,
}

impl Refused {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holds(&self, hash: &[u8; 32]) -> bool {
        self.state().until.contains_key(hash)
    }

    /// True if a task must be started.
    fn add(&self, hash: [u8; 32], until: UnixTime) -> bool {
        let mut state = self.state();
        if state.until.len() >= MAX_REFUSED && !state.until.contains_key(&hash) {
            tracing::error!("too many logouts wait for the session store: one is not remembered");
            return false;
        }
        state.until.insert(hash, until);
        !std::mem::replace(&mut state.at_work, true)
    }

    /// What is still to be deleted. Where nothing is, the task that asks is done.
    fn left(&self, now: UnixTime) -> Vec<[u8; 32]> {
        let mut state = self.state();
        state.until.retain(|_, until| *until > now);
        state.at_work = !state.until.is_empty();
        state.until.keys().copied().collect()
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
        let sessions = Arc::clone(self);
        let ending = self.tasks.spawn(async move {
            let deleted = sessions.store.delete(sessions.key(Kind::Session, hash)).await;
            if deleted.is_err() {
                sessions.refuse(hash);
            }
            deleted
        });
        match ending.await {
            Ok(deleted) => Ok(deleted?),
            Err(_) => Err(StoreError("the delete was broken off".into()).into()),
        }
    }

    /// Ends the session after [`GRACE`], or as soon as this process stops: for a session that a login has just replaced,
    /// whose browser may still have requests with the old cookie under way. An earlier end would have them answered
    /// with a cookie that is cleared, which could be the new one.
    pub fn end_soon(self: &Arc<Self>, hash: [u8; 32]) {
        let sessions = Arc::clone(self);
        self.tasks.spawn(async move {
            let began = Instant::now();
            while began.elapsed() < GRACE && !sessions.tasks.is_closed() {
                tokio::time::sleep(GRACE_STEP).await;
            }
            if let Err(error) = sessions.end(hash).await {
                tracing::warn!(%error, "a replaced session could not be ended yet; it is refused here");
            }
        });
    }

    /// Ends the session as far as this replica can while the store does not answer: it is refused here from now on,
    /// and the delete is repeated in the background until it is confirmed.
    pub fn refuse(self: &Arc<Self>, hash: [u8; 32]) {
        let until = self.clock.now().plus(self.lifetime.absolute());
        if self.refused.add(hash, until) {
            let sessions = Arc::clone(self);
            self.tasks.spawn(async move { sessions.repeat_deletes().await });
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
            for hash in left {
                if self.store.delete(self.key(Kind::Session, hash)).await.is_err() {
                    break;
                }
                self.refused.state().until.remove(&hash);
                pause = FIRST_PAUSE;
            }
        }
    }
}

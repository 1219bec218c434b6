//! Something that a provider publishes and that is kept: its metadata, its keys.
//!
//! Stands between `source`, which knows how to fetch, and everyone who needs what was fetched.
//!
//! | what is kept | a use |
//! | --- | --- |
//! | fresh | takes it |
//! | stale | one use fetches anew, shortly; the others take it, and so does that one if the fetch fails |
//! | too old, or nothing | waits for one fetch, and fails with it |
//!
//! INVARIANT: at most one fetch at a time, and none before the pause after a failure is over.
//! INVARIANT: a failed fetch never replaces what is kept.
//! INVARIANT: at most three fetches in 30 s are forced by keys that are not there.

use super::ProviderError;
use arc_swap::ArcSwapOption;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a use waits for a fetch when there is something stale to go on with.
const RENEWAL_LIMIT: Duration = Duration::from_secs(2);
/// Fetches forced by unknown keys: so many in so long.
const FORCED_FETCHES: usize = 3;
const FORCED_WINDOW: Duration = Duration::from_secs(30);

/// How long something is kept.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Until then it is fresh.
    pub fresh: Duration,
    /// Until then it may be used although nothing newer can be had.
    pub usable: Duration,
    /// How long a fetch may take when there is nothing to go on with.
    pub fetch_limit: Duration,
}

/// One thing that is kept.
pub struct Known<T> {
    kept: ArcSwapOption<Kept<T>>,
    turn: Mutex<Turn>,
    /// What does without any fetch, if there is such a thing.
    fallback: Option<Arc<T>>,
    lifetimes: Lifetimes,
}

struct Kept<T> {
    value: Arc<T>,
    fetched: Instant,
}

/// Whoever holds it may fetch.
#[derive(Default)]
struct Turn {
    failures: u32,
    failure: Option<(ProviderError, Instant)>,
    forced: VecDeque<Instant>,
}

impl<T> Known<T> {
    /// Nothing is known yet.
    pub fn new(lifetimes: Lifetimes, fallback: Option<T>) -> Self {
        Self {
            kept: ArcSwapOption::empty(),
            turn: Mutex::default(),
            fallback: fallback.map(Arc::new),
            lifetimes,
        }
    }

    /// What is known at this moment, however old; fetches nothing.
    pub fn at_hand(&self) -> Option<Arc<T>> {
        let kept = self.kept.load_full().map(|kept| Arc::clone(&kept.value));
        kept.or_else(|| self.fallback.clone())
    }

    /// What is known, fetched with `fetch` (which is told how long it may take) where that is due.
    ///
    /// # Errors
    /// What the fetch failed with, now or shortly before.
    ///
    /// # Cancel safety
    /// When dropped, the next use fetches instead.
    pub async fn current<F, R>(&self, fetch: F) -> Result<Arc<T>, ProviderError>
    where
        F: FnOnce(Duration) -> R,
        R: Future<Output = Result<T, ProviderError>>,
    {
        if let Some(fresh) = self.younger_than(self.lifetimes.fresh) {
            return Ok(fresh);
        }
        let stale = self
            .younger_than(self.lifetimes.usable)
            .or_else(|| self.fallback.clone());
        let mut turn = match &stale {
            Some(stale) => match self.turn.try_lock() {
                Ok(turn) => turn,
                Err(_) => return Ok(Arc::clone(stale)),
            },
            None => self.turn.lock().await,
        };
        // Another may have fetched while this one waited.
        if let Some(fresh) = self.younger_than(self.lifetimes.fresh) {
            return Ok(fresh);
        }
        let outcome = if let Some(failure) = turn.pause(stale.is_some()) {
            Err(failure)
        } else {
            let limit = if stale.is_some() {
                RENEWAL_LIMIT
            } else {
                self.lifetimes.fetch_limit
            };
            self.keep(&mut turn, fetch(limit).await)
        };
        stale.map_or(outcome.clone(), |stale| Ok(outcome.unwrap_or(stale)))
    }

    /// Something newer than `seen`, in which a key was not found: what another has fetched since, or one fetch.
    /// `None`: there were enough such fetches lately.
    ///
    /// # Errors
    /// What the fetch failed with.
    pub async fn newer_than<F, R>(&self, seen: &Arc<T>, fetch: F) -> Result<Option<Arc<T>>, ProviderError>
    where
        F: FnOnce(Duration) -> R,
        R: Future<Output = Result<T, ProviderError>>,
    {
        let began = Instant::now();
        let mut turn = self.turn.lock().await;
        if let Some(kept) = self
            .kept
            .load_full()
            .filter(|kept| !Arc::ptr_eq(&kept.value, seen))
        {
            return Ok(Some(Arc::clone(&kept.value)));
        }
        // A fetch that failed while this one waited for its turn would fail again.
        if let Some((failure, when)) = &turn.failure
            && *when >= began
        {
            return Err(failure.clone());
        }
        while turn
            .forced
            .front()
            .is_some_and(|first| first.elapsed() >= FORCED_WINDOW)
        {
            turn.forced.pop_front();
        }
        if turn.forced.len() >= FORCED_FETCHES {
            return turn
                .failure
                .as_ref()
                .map_or(Ok(None), |(failure, _)| Err(failure.clone()));
        }
        turn.forced.push_back(Instant::now());
        let outcome = fetch(self.lifetimes.fetch_limit).await;
        self.keep(&mut turn, outcome).map(Some)
    }

    fn keep(&self, turn: &mut Turn, outcome: Result<T, ProviderError>) -> Result<Arc<T>, ProviderError> {
        match outcome {
            Ok(value) => {
                let value = Arc::new(value);
                self.kept.store(Some(Arc::new(Kept {
                    value: Arc::clone(&value),
                    fetched: Instant::now(),
                })));
                turn.failures = 0;
                turn.failure = None;
                Ok(value)
            }
            Err(failure) => {
                turn.failures = turn.failures.saturating_add(1);
                turn.failure = Some((failure.clone(), Instant::now()));
                Err(failure)
            }
        }
    }

    fn younger_than(&self, age: Duration) -> Option<Arc<T>> {
        let kept = self.kept.load_full()?;
        (kept.fetched.elapsed() < age).then(|| Arc::clone(&kept.value))
    }
}

impl Turn {
    /// The failure whose pause is not over yet. It doubles from a quarter of a second; the cap keeps the promise that
    /// the provider is asked again within ten seconds (contract 4.8), sooner where somebody waits for it.
    fn pause(&self, has_stale: bool) -> Option<ProviderError> {
        let (failure, when) = self.failure.as_ref()?;
        let cap = Duration::from_secs(if has_stale { 9 } else { 5 });
        let pause = Duration::from_millis(250).saturating_mul(1 << self.failures.saturating_sub(1).min(10));
        (when.elapsed() < pause.min(cap)).then(|| failure.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::tests::all_of;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const HOUR: Duration = Duration::from_hours(1);

    fn known(fresh: Duration, usable: Duration, fallback: Option<usize>) -> Known<usize> {
        let lifetimes = Lifetimes {
            fresh,
            usable,
            fetch_limit: Duration::from_secs(10),
        };
        Known::new(lifetimes, fallback)
    }

    fn away() -> ProviderError {
        ProviderError::Away("x".into())
    }

    #[tokio::test]
    async fn many_uses_at_once_make_one_fetch() {
        let known = known(HOUR, HOUR, None);
        let fetches = AtomicUsize::new(0);
        let uses = (0..50).map(|_| {
            known.current(|_| async {
                tokio::task::yield_now().await;
                Ok(fetches.fetch_add(1, Ordering::SeqCst))
            })
        });
        for value in all_of(uses).await {
            assert_eq!(*value.unwrap(), 0);
        }
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failure_is_remembered_for_a_short_while_by_all() {
        let known = known(HOUR, HOUR, None);
        let fetches = AtomicUsize::new(0);
        let uses = (0..50).map(|_| {
            known.current(|_| async {
                fetches.fetch_add(1, Ordering::SeqCst);
                Err(away())
            })
        });
        assert!(all_of(uses).await.into_iter().all(|value| value == Err(away())));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn md_04_a_failed_renewal_leaves_what_was_kept() {
        let known = known(Duration::ZERO, HOUR, None);
        assert_eq!(*known.current(|_| async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(*known.current(|_| async { Err(away()) }).await.unwrap(), 1);
        assert_eq!(*known.at_hand().unwrap(), 1);
    }

    #[tokio::test]
    async fn md_09_what_is_too_old_is_not_used() {
        let known = known(Duration::ZERO, Duration::ZERO, None);
        assert_eq!(*known.current(|_| async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(known.current(|_| async { Err(away()) }).await, Err(away()));
    }

    #[tokio::test]
    async fn a_fallback_does_where_nothing_can_be_fetched() {
        let known = known(HOUR, HOUR, Some(7));
        assert_eq!(*known.current(|_| async { Err(away()) }).await.unwrap(), 7);
        assert_eq!(*known.at_hand().unwrap(), 7);
    }

    #[tokio::test]
    async fn md_06_forced_fetches_are_few_and_shared() {
        let known = known(HOUR, HOUR, None);
        let fetches = AtomicUsize::new(0);
        let fetch = |_| async {
            tokio::task::yield_now().await;
            Ok(fetches.fetch_add(1, Ordering::SeqCst))
        };
        let seen = known.current(fetch).await.unwrap();
        let forced = all_of((0..50).map(|_| known.newer_than(&seen, fetch))).await;
        assert!(forced.iter().all(|value| matches!(value, Ok(Some(_)))));
        assert_eq!(
            fetches.load(Ordering::SeqCst),
            2,
            "all of one moment share one fetch"
        );
        for _ in 0..100 {
            let seen = known.at_hand().unwrap();
            let _ = known.newer_than(&seen, fetch).await.unwrap();
        }
        assert_eq!(
            fetches.load(Ordering::SeqCst),
            4,
            "and then there are two more in the window"
        );
    }

    #[test]
    fn the_pause_grows_and_ends_in_time() {
        let mut turn = Turn::default();
        assert!(turn.pause(false).is_none());
        turn.failure = Some((away(), Instant::now()));
        for failures in 1..100 {
            turn.failures = failures;
            assert!(turn.pause(false).is_some());
        }
        turn.failure = Some((away(), Instant::now() - Duration::from_secs(5)));
        assert!(turn.pause(false).is_none());
    }
}

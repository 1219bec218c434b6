//! How much is asked of one provider at one time, and when it wants to be left alone.
//!
//! Ten thousand sessions that expire together are ten thousand refreshes, and a provider that has just come back would
//! fall over again. So each replica keeps a number of calls to a provider under way, and where an answer brings
//! `Retry-After` (RFC 9110 §10.2.3), no session of that provider asks until then.
//!
//! INVARIANT: nobody waits for a place longer than a request waits for a refresh. INVARIANT: a provider is asked again
//! within 10 s, whatever it wishes (contract 4.8).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// The most refreshes under way at one provider, in one replica.
const PLACES: usize = 32;
/// The longest time that a provider is left alone for.
const LONGEST_REST: Duration = Duration::from_secs(9);

/// The calls to one provider.
#[derive(Debug)]
pub(in crate::session) struct Throttle {
    places: Semaphore,
    rests_until: Mutex<Option<Instant>>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            places: Semaphore::new(PLACES),
            rests_until: Mutex::default(),
        }
    }
}

impl Throttle {
    /// A place for one call; `waits` is called where none is free at once. `Err`: there is none in time, or the provider
    /// wants to be left alone that long.
    pub(super) async fn enter(
        &self,
        patience: Duration,
        waits: impl FnOnce(),
    ) -> Result<SemaphorePermit<'_>, Option<Duration>> {
        self.rest().map_or(Ok(()), |left| Err(Some(left)))?;
        // Tried, not asked for: between the answer "there is one" and the taking it may be another's.
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        waits();
        match timeout(patience, self.places.acquire()).await {
            Ok(Ok(place)) => self.rest().map_or(Ok(place), |left| Err(Some(left))),
            Ok(Err(_)) | Err(_) => Err(None),
        }
    }

    /// The provider wants to be left alone this long.
    pub(super) fn leave_alone(&self, wish: Duration) {
        let until = Instant::now() + wish.min(LONGEST_REST);
        let mut rests = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        *rests = rests.max(Some(until));
    }

    fn rest(&self) -> Option<Duration> {
        let rests = self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = (*rests)?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rf_14_calls_are_bounded_and_nobody_waits_without_end() {
        let throttle = Throttle::default();
        let mut places = Vec::new();
        for _ in 0..PLACES {
            places.push(
                throttle
                    .enter(Duration::from_secs(10), || panic!("it waits"))
                    .await
                    .unwrap(),
            );
        }
        let begun = Instant::now();
        let mut said = None;
        let full = throttle.enter(Duration::from_secs(10), || said = Some(begun.elapsed()));
        assert_eq!(full.await.err(), Some(None));
        assert_eq!(said, Some(Duration::ZERO), "who waits says so, and at once");
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
        places.pop();
        assert!(throttle.enter(Duration::ZERO, || ()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn rf_14_a_provider_is_left_alone_as_long_as_it_wishes_and_no_longer_than_nine_seconds() {
        let throttle = Throttle::default();
        throttle.leave_alone(Duration::from_hours(1));
        throttle.leave_alone(Duration::from_secs(1));
        assert_eq!(
            throttle.enter(Duration::ZERO, || ()).await.err(),
            Some(Some(LONGEST_REST))
        );
        tokio::time::advance(LONGEST_REST).await;
        assert!(throttle.enter(Duration::ZERO, || ()).await.is_ok());
    }
}

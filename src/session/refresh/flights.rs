//! The refreshes under way in this process, and the short memory of those that failed.
//!
//! INVARIANT: at most one flight per session. Who comes while it is under way waits for it; who comes shortly after
//! it failed is told so without another call to the provider.
//! INVARIANT: bounded: a flight ends, a memory is shorter than [`LONGEST_REST`], and both are one per living session.

use crate::session::{FreshError, Session};
use crate::store::StoreError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The first rest after a failure; it doubles with each further one.
const FIRST_REST: Duration = Duration::from_millis(500);
/// The longest rest that we choose ourselves.
const LONGEST_OWN_REST: Duration = Duration::from_secs(5);
/// The longest rest that a provider's `Retry-After` may choose: it is asked again within 10 s (contract 4.8).
const LONGEST_REST: Duration = Duration::from_secs(9);
/// Memories that have passed are swept when there are this many, and then at each doubling.
const SWEEP_FROM: usize = 1024;

/// How far a flight is.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// On its way, and waits for the store.
    AtStore,
    /// On its way, and waits for the provider, whom we ask or another replica does.
    AtProvider,
    /// On its way still, but the store does not take what it brought: nobody waits for that.
    StoreAway(StoreError),
    /// There.
    Landed(Result<Arc<Session>, FreshError>),
}

/// The flights of this process.
#[derive(Clone, Debug, Default)]
pub(in crate::session) struct Flights(Arc<Mutex<Slots>>);

#[derive(Debug, Default)]
struct Slots {
    slots: HashMap<[u8; 32], Slot>,
    sweep_at: usize,
}

#[derive(Debug)]
enum Slot {
    Flying(watch::Receiver<Progress>),
    /// `failures` in a row; no other call before `until`.
    Resting {
        until: Instant,
        failures: u32,
    },
}

/// What a request finds.
pub(super) enum Boarding {
    /// A flight to wait for.
    Passenger(watch::Receiver<Progress>),
    /// There was none: fly.
    Pilot(Flight, watch::Receiver<Progress>),
    /// The last one failed a moment ago.
    Resting,
}

/// A flight under way: lands once. Dropped without (a panic), it makes room, and who waits sees it gone.
pub(super) struct Flight {
    flights: Flights,
    hash: [u8; 32],
    progress: watch::Sender<Progress>,
    failures: u32,
    landed: bool,
}

impl Flights {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn board(&self, hash: [u8; 32]) -> Boarding {
        let now = Instant::now();
        let mut slots = self.slots();
        let failures = match slots.slots.get(&hash) {
            Some(Slot::Flying(progress)) => return Boarding::Passenger(progress.clone()),
            Some(Slot::Resting { until, .. }) if *until > now => return Boarding::Resting,
            Some(Slot::Resting { until, failures }) if *until + LONGEST_REST > now => *failures,
            // What failed longer ago says nothing of today.
            Some(Slot::Resting { .. }) | None => 0,
        };
        let (progress, watching) = watch::channel(Progress::AtStore);
        slots.slots.insert(hash, Slot::Flying(watching.clone()));
        let flight = Flight {
            flights: self.clone(),
            hash,
            progress,
            failures,
            landed: false,
        };
        Boarding::Pilot(flight, watching)
    }

    #[cfg(test)]
    pub(in crate::session) fn count(&self) -> usize {
        self.slots().slots.len()
    }
}

impl Flight {
    /// From here on it waits for the store.
    pub(super) fn waits_for_store(&self) {
        // What is no change tells nobody: the time that they give the store runs on.
        self.progress.send_if_modified(|progress| {
            let before = std::mem::replace(progress, Progress::AtStore);
            !matches!(before, Progress::AtStore)
        });
    }

    /// From here on it waits for the provider.
    pub(super) fn waits_for_provider(&self) {
        self.progress.send_replace(Progress::AtProvider);
    }

    /// The store does not take what the flight brought, which goes on.
    pub(super) fn store_away(&self, error: StoreError) {
        self.progress.send_replace(Progress::StoreAway(error));
    }

    /// There, with whatever came of it: the next request that needs a refresh may begin one.
    pub(super) fn land(&mut self, outcome: Result<Arc<Session>, FreshError>) {
        self.landed = true;
        self.progress.send_replace(Progress::Landed(outcome));
        self.flights.slots().slots.remove(&self.hash);
    }

    /// The provider did not help. It is not asked again for a while: as long as it wishes, or else a little longer
    /// with each failure, and never in step with other sessions.
    pub(super) fn land_without_provider(&mut self, retry_after: Option<Duration>) {
        self.landed = true;
        let rest = match retry_after {
            Some(wish) => wish.clamp(FIRST_REST, LONGEST_REST) + FIRST_REST.mul_f64(jitter()),
            None => (FIRST_REST * (1 << self.failures.min(8)))
                .min(LONGEST_OWN_REST)
                .mul_f64(jitter()),
        };
        let now = Instant::now();
        let resting = Slot::Resting {
            until: now + rest,
            failures: self.failures.saturating_add(1),
        };
        let mut slots = self.flights.slots();
        slots.slots.insert(self.hash, resting);
        if slots.slots.len() >= slots.sweep_at.max(SWEEP_FROM) {
            // The count of failures is remembered somewhat longer than the rest itself.
            slots.slots.retain(|_, slot| match slot {
                Slot::Flying(_) => true,
                Slot::Resting { until, .. } => *until + LONGEST_REST > now,
            });
            slots.sweep_at = slots.slots.len() * 2;
        }
        drop(slots);
        self.progress
            .send_replace(Progress::Landed(Err(FreshError::ProviderAway)));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.landed {
            self.flights.slots().slots.remove(&self.hash);
        }
    }
}

/// From a half to one.
fn jitter() -> f64 {
    let mut byte = [0];
    crate::session::seal::fill(&mut byte);
    0.5 + f64::from(byte[0]) / 512.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pilot(flights: &Flights) -> Flight {
        match flights.board([1; 32]) {
            Boarding::Pilot(flight, _) => flight,
            Boarding::Passenger(_) | Boarding::Resting => panic!("no flight"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rf_14_failures_in_a_row_make_the_rest_longer_and_old_ones_do_not() {
        let flights = Flights::default();
        for failures in 0..4 {
            let mut flight = pilot(&flights);
            assert_eq!(flight.failures, failures);
            flight.land_without_provider(None);
            assert!(matches!(flights.board([1; 32]), Boarding::Resting));
            tokio::time::advance(LONGEST_OWN_REST).await;
        }
        tokio::time::advance(LONGEST_REST).await;
        assert_eq!(pilot(&flights).failures, 0);
    }
}

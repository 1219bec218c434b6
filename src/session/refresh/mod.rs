//! Keeps a session's access token fresh, with one refresh at a time.
//!
//! On a request's way this comes after `guard` and before `proxy`. The token's age decides:
//!
//! | token     | the request               | behind it                       |
//! | --------- | ------------------------- | ------------------------------- |
//! | `Fresh`   | goes at once              | nothing                         |
//! | `Ageing`  | goes at once, same token  | one refresh starts, if none ran |
//! | `Expired` | waits for the one refresh | –                               |
//!
//! `Ageing` begins `session.refresh_before` (default 60 s) before expiry, or at half the token's lifetime if that is
//! later; both are counted from the moment that the token request left: RFC 6749 §5.1 counts from the response, so
//! this errs early.
//!
//! In this process a refresh is a flight (`flights`): a task of its own, which no request that goes away can cancel,
//! and which all requests of the session wait for. Over replicas it holds a lease (`lease`). What happens under the
//! lease is in `turn`, what the record says of a token that may have been used in `showing`, how much is asked of a
//! provider at one time in `throttle`.
//!
//! INVARIANT: over all replicas, at most one request with a given refresh token is under way.
//! INVARIANT: no request sees a new access token before the store holds the answer that it came with.
//! INVARIANT: only `invalid_grant` (RFC 6749 §5.2) and another user's ID token (Core §12.2) end a session.

mod at;
mod claims;
mod flights;
mod lease;
mod save;
mod showing;
mod throttle;
mod turn;

#[cfg(test)]
mod tests;

pub use at::{Asking, RefreshAt};
pub(super) use flights::Flights;
pub(super) use lease::Leases;
pub(super) use throttle::Throttle;

use super::{EndReason, FreshError, Session, SessionId, Sessions, Tokens};
use crate::clock::UnixTime;
use crate::store::StoreError;
use flights::{Boarding, Progress};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// The longest that a request waits for a refresh (contract 4.7).
const WAIT: Duration = Duration::from_secs(10);

/// The longest that it waits for the store alone meanwhile; looking the session up may have taken as long (contract 4.6).
const STORE_WAIT: Duration = Duration::from_millis(1500);

/// How many refreshes a request waits for, where the first brings a token that is dead on arrival.
const ROUNDS: usize = 3;

/// How far two replicas' clocks may be apart.
const SKEW: Duration = Duration::from_mins(1);

/// How old an access token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It lives, and long enough.
    Fresh,
    /// It lives, and should be renewed.
    Ageing,
    /// It has expired.
    Expired,
}

impl Freshness {
    /// How old the access token is at `now`, if `before` its expiry it should be renewed.
    #[must_use]
    pub fn of(tokens: &Tokens, now: UnixTime, before: Duration) -> Self {
        let left = tokens.expires.since(now);
        let lifetime = tokens.expires.since(tokens.obtained);
        if left.is_zero() {
            Self::Expired
        } else if left < before.min(lifetime / 2) || now < tokens.obtained.minus(SKEW) {
            // In the second case a clock was set back by more than replicas differ: nobody knows how old the token is.
            Self::Ageing
        } else {
            Self::Fresh
        }
    }
}

impl Sessions {
    /// Sees to a living access token: at once while it lives (one refresh behind it where it is ageing), after the one
    /// refresh where it has expired (contract 4.7).
    ///
    /// `None`: the session's own token lives, use that. `Some`: the session as the refresh left it, whose token is to be
    /// used, and whose claims and scopes are to be judged anew (contract 2.7).
    ///
    /// # Errors
    /// [`FreshError`]
    ///
    /// # Cancel safety
    /// Dropped, it leaves the refresh running: nothing that the provider sends is lost.
    pub async fn fresh(
        self: &Arc<Self>,
        id: &SessionId,
        session: &Session,
    ) -> Result<Option<Arc<Session>>, FreshError> {
        let freshness = Freshness::of(&session.tokens, self.clock.now(), self.refresh_before);
        let renewable = session.tokens.refresh_token.is_some();
        match freshness {
            Freshness::Expired if !renewable => {
                // It is judged over from this moment on (see `lifetime`); deleting it is tidiness.
                let (sessions, hash) = (Arc::clone(self), id.store_key());
                self.tasks
                    .spawn(async move { sessions.end_known(hash).await.ok() });
                Err(FreshError::Ended(EndReason::NoRefreshToken))
            }
            Freshness::Expired => Box::pin(self.renewed(id, session)).await.map(Some),
            Freshness::Ageing if renewable => {
                let _flight = self.refresh(id, session.tokens.obtained);
                Ok(None)
            }
            Freshness::Ageing | Freshness::Fresh => Ok(None),
        }
    }

    /// The session with a token that lives, after the one refresh; after another, where the answer was longer on its way
    /// than its token lives.
    async fn renewed(
        self: &Arc<Self>,
        id: &SessionId,
        session: &Session,
    ) -> Result<Arc<Session>, FreshError> {
        let deadline = Instant::now() + WAIT;
        let mut obtained = session.tokens.obtained;
        for _ in 0..ROUNDS {
            let Some(progress) = self.refresh(id, obtained) else {
                return Err(FreshError::ProviderAway);
            };
            let landed = timeout_at(deadline, landing(progress)).await;
            let landed = landed.unwrap_or(Err(FreshError::ProviderAway))?;
            if landed.tokens.expires > self.clock.now() {
                return Ok(landed);
            }
            obtained = landed.tokens.obtained;
        }
        Err(FreshError::ProviderAway)
    }

    /// The calls to that provider.
    fn throttle(&self, provider: &str) -> Arc<Throttle> {
        let of = |other: &Arc<dyn RefreshAt>| other.name() == provider;
        let place = self.providers.iter().position(of).unwrap_or(0);
        Arc::clone(&self.throttles[place])
    }

    /// The session's one refresh, begun now if there was none; `obtained`: when the token was asked for that is too old.
    /// `None`: the last one failed a moment ago.
    fn refresh(self: &Arc<Self>, id: &SessionId, obtained: UnixTime) -> Option<watch::Receiver<Progress>> {
        match self.flights.board(id.store_key()) {
            Boarding::Passenger(progress) => Some(progress),
            Boarding::Resting => None,
            Boarding::Pilot(flight, progress) => {
                let turn = turn::Turn::new(self, id, obtained, flight);
                self.tasks.spawn(turn.run());
                Some(progress)
            }
        }
    }
}

/// Waits until the flight has landed, or the store does not answer it.
async fn landing(mut progress: watch::Receiver<Progress>) -> Result<Arc<Session>, FreshError> {
    loop {
        let now = progress.borrow_and_update().clone();
        let changed = match now {
            Progress::Landed(outcome) => return outcome,
            Progress::StoreAway(error) => return Err(error.into()),
            Progress::AtProvider => progress.changed().await,
            Progress::AtStore => {
                let late = |_| StoreError("a refresh waits for it".into());
                timeout(STORE_WAIT, progress.changed()).await.map_err(late)?
            }
        };
        // Closed without landing: its task broke down, and the next request begins another.
        if changed.is_err() {
            return Err(FreshError::ProviderAway);
        }
    }
}

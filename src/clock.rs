//! The time of day, from one place, so that tests can set it.
//!
//! Stands on the ground floor. Everything that outlives a process (sessions, tokens, login attempts) is dated
//! with [`Clock::now`]; what only measures a span inside the process uses `tokio::time::Instant`.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A moment: milliseconds since 1970-01-01 UTC. 64 bits, so it does not end in 2038.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(u64);

impl UnixTime {
    /// From milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From seconds since 1970; saturates.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This much later; saturates.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// This much earlier; saturates at 1970.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long from `earlier` until this moment; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Where the time of day comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's clock.
    #[default]
    System,
    /// A clock that a test moves: milliseconds since 1970.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The moment it is.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        match self {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is the one place that reads the system's clock"
            )]
            Self::System => UnixTime(
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            ),
            Self::Manual(millis) => UnixTime(millis.load(Ordering::SeqCst)),
        }
    }

    /// A clock that stands at `start` until it is moved with [`Clock::advance`].
    #[must_use]
    pub fn manual(start: UnixTime) -> Self {
        Self::Manual(Arc::new(AtomicU64::new(start.0)))
    }

    /// Moves a manual clock forward; the system's clock is left alone.
    pub fn advance(&self, span: Duration) {
        if let Self::Manual(millis) = self {
            millis.fetch_add(
                u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
                Ordering::SeqCst,
            );
        }
    }
}

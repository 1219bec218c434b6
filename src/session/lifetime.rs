//! How long a session lives, and when its use is worth a write.
//!
//! On a request's way this decides whether an opened record is still a session. Only sealed moments and the config
//! decide: whoever can write to the store cannot prolong a session, and a shortened timeout holds at once.
//!
//! INVARIANT: a session without a refresh token ends with its access token (contract 4.8).

use super::record::Payload;
use crate::clock::UnixTime;
use crate::config::SessionSettings;
use std::time::Duration;

/// How much longer than the session the store keeps its record: replicas' clocks differ a little, and none of them
/// may miss a session that lives.
const GRACE: Duration = Duration::from_mins(1);

/// The configured lifetimes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    idle: Duration,
    absolute: Duration,
}

impl Lifetime {
    pub(super) fn new(settings: &SessionSettings) -> Self {
        Self {
            idle: settings.idle_timeout,
            absolute: settings.absolute_timeout,
        }
    }

    /// The idle end and the absolute end.
    pub(super) fn ends(&self, record: &Payload) -> (UnixTime, UnixTime) {
        let mut absolute = record.begun.plus(self.absolute);
        if record.tokens.refresh_token.is_none() {
            absolute = absolute.min(record.tokens.expires);
        }
        (record.used.plus(self.idle).min(absolute), absolute)
    }

    /// Whether the session is over.
    pub(super) fn is_over(&self, record: &Payload, now: UnixTime) -> bool {
        self.ends(record).0 <= now
    }

    /// How long the store keeps the record.
    pub(super) fn ttl(&self, record: &Payload, now: UnixTime) -> Duration {
        self.ends(record).0.since(now) + GRACE
    }

    /// How long the store keeps what names a session that begins now: longer than its record.
    pub(super) fn index_ttl(&self) -> Duration {
        self.absolute + 2 * GRACE
    }

    /// Whether a use now is worth a write: at most one in a tenth of the idle timeout.
    pub(super) fn is_worth_noting(&self, used: UnixTime, now: UnixTime) -> bool {
        now.since(used) >= self.idle / 10
    }

    /// How long a session can live at most.
    pub(super) fn absolute(&self) -> Duration {
        self.absolute
    }
}

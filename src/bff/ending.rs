//! The ends of sessions that somebody asked for, each with its line in the log, and counted.
//!
//! Behind the logout endpoints. Whoever asks for several ends is told how many came of it.
//!
//! INVARIANT: an end that the store does not confirm is refused here from then on, and its delete repeated.

use super::Bff;
use crate::session::{Listed, Reference, SessionError};
use std::fmt::Display;
use tracing::field::{DisplayValue, display};

/// Who asked, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    /// How: one of the causes in `deploy/audit.md`.
    pub(super) cause: &'static str,
    /// The session that asked, where another was to end.
    pub(super) by: Option<Reference>,
    /// Our request id.
    pub(super) request_id: Option<&'a str>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// How many sessions have ended now.
    pub(super) ended: usize,
    /// How many ends the store has not confirmed.
    pub(super) unconfirmed: usize,
    /// Why not, the last time.
    error: Option<SessionError>,
}

impl Ends {
    /// # Errors
    /// The last failure. This replica refuses such a session from now on, and repeats the delete until it is confirmed.
    pub(super) fn confirmed(self) -> Result<(), SessionError> {
        self.error.map_or(Ok(()), Err)
    }

    /// Notes what came of one end.
    pub(super) fn note(
        &mut self,
        session: Reference,
        provider: Option<&str>,
        end: Result<bool, SessionError>,
        asker: Asker<'_>,
    ) {
        let was_there = match end {
            Ok(was_there) => was_there,
            Err(error) => {
                self.note_unconfirmed(session, provider, &error, asker);
                self.error = Some(error);
                return;
            }
        };
        self.ended += usize::from(was_there);
        let (cause, by, request_id) = asker.fields();
        tracing::info!(
            target: "cloakroom::audit", event = "logout", cause, provider, %session, was_there, by, request_id
        );
    }

    /// Notes an end that the store has not confirmed.
    pub(super) fn note_unconfirmed(
        &mut self,
        session: Reference,
        provider: Option<&str>,
        error: &dyn Display,
        asker: Asker<'_>,
    ) {
        self.unconfirmed += 1;
        let (cause, by, request_id) = asker.fields();
        tracing::warn!(
            target: "cloakroom::audit", event = "logout", cause, provider, %session, %error, by, request_id, "incomplete"
        );
    }
}

impl<'a> Asker<'a> {
    fn fields(&self) -> (&'static str, Option<DisplayValue<&Reference>>, Option<&'a str>) {
        (self.cause, self.by.as_ref().map(display), self.request_id)
    }
}

impl Bff {
    /// Ends all of these sessions, whatever becomes of each.
    ///
    /// # Cancel safety
    /// Once polled, all are carried through even if it is dropped; what is lost is their lines in the log.
    pub(super) async fn end_listed(&self, listed: &[Listed], asker: Asker<'_>) -> Ends {
        let mut ends = Ends::default();
        for (one, end) in listed.iter().zip(self.sessions.end_all(listed).await) {
            ends.note(one.reference(), Some(&one.provider), end, asker);
        }
        self.metrics.logouts(asker.cause, ends.ended);
        ends
    }
}

//! What the record says of a refresh token that is about to be shown to the provider (standards FA-03): how often, when
//! last, and by whom.
//!
//! A lease can break under a call: its holder was paused, the store failed over, nobody could write. Then this note tells
//! who comes next that a call is under way. To show the token once more meanwhile would cost the session where the
//! provider detects reuse (RFC 9700 §4.14.2).
//!
//! INVARIANT: a token that another replica has shown is not shown again before that replica's call must have ended.

use super::turn::{CALL, LONGEST_LOOK, Turn};
use crate::secret::RefreshToken;
use crate::session::{EndReason, FreshError, Opened, SWAPS};
use crate::store::{Replaced, StoreError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long an answer is waited for at least that another replica may have and could not save while nobody could write:
/// it tries every quarter of a second.
const OVERDUE: Duration = Duration::from_millis(2500);

impl Turn {
    /// How long another replica's answer may still be on its way.
    fn overdue(&self, opened: &Opened) -> Duration {
        let (record, sessions) = (&opened.payload, &self.sessions);
        match record.showing {
            _ if record.shown == 0 => Duration::ZERO,
            None => OVERDUE,
            // Ended, or our own, and whatever flew here has landed.
            Some(last) if last.by.is_none_or(|by| by == sessions.leases.replica) => Duration::ZERO,
            // Their clock may be another than ours: never longer than a call that begins now.
            Some(last) => {
                let left = last.at.plus(CALL).since(sessions.clock.now());
                left.clamp(OVERDUE, CALL)
            }
        }
    }

    /// Waits where another replica has shown the token and said nothing of it: if it lives, its answer comes now.
    pub(super) async fn await_overdue(&mut self, mut opened: Opened) -> Option<Opened> {
        let mut news = self.sessions.watch(&self.id);
        let mut until = Instant::now() + self.overdue(&opened);
        while Instant::now() < until {
            let before = (opened.payload.shown, opened.payload.showing);
            self.flight.waits_for_provider();
            let _told_or_not = timeout(LONGEST_LOOK, news.changed()).await;
            self.flight.waits_for_store();
            opened = self.read_or_land().await?;
            if before != (opened.payload.shown, opened.payload.showing) {
                until = Instant::now() + self.overdue(&opened);
            }
        }
        Some(opened)
    }

    /// Notes in the record that its refresh token is about to be shown. A replica that dies now, or an answer that is
    /// lost, leaves that note, so whoever shows the token once more knows that it may have been used. The write is also
    /// the last look before the call: a session that has ended, or whose store takes no writes, is not refreshed at all.
    pub(super) async fn mark(&mut self, mut opened: Opened) -> Option<(Opened, RefreshToken)> {
        for _ in 0..SWAPS {
            let Some(used) = opened.payload.tokens.refresh_token.clone() else {
                self.flight
                    .land(Err(FreshError::Ended(EndReason::NoRefreshToken)));
                return None;
            };
            let replica = self.sessions.leases.replica;
            opened.payload.show(self.sessions.clock.now(), replica);
            match self.sessions.replace(&self.id, &opened).await {
                Ok(Replaced::Done(version)) => return Some((Opened { version, ..opened }, used)),
                // A use was noted; or the lease was lost, and who has it now was first: then theirs is the call.
                Ok(Replaced::Changed) => {
                    opened = self.read_or_land().await?;
                    opened = self.await_overdue(opened).await?;
                }
                Ok(Replaced::Gone) => {
                    self.flight.land(Err(FreshError::Ended(EndReason::Gone)));
                    return None;
                }
                Err(error) => {
                    self.flight.land(Err(error.into()));
                    // It may have been written all the same.
                    self.unmark(opened, true).await;
                    return None;
                }
            }
        }
        let endless = StoreError("the session's record changes without end".into());
        self.flight.land(Err(endless.into()));
        None
    }

    /// The call has ended without an answer, or is not made; `is_unused`: nor did the provider use the token. Best effort: where this note
    /// is missing, other replicas wait for longer than they need, and the log says "may have been".
    pub(super) async fn unmark(&self, mut opened: Opened, is_unused: bool) {
        let ours = opened.payload.showing;
        for _ in 0..SWAPS {
            opened.payload.end_showing(is_unused);
            match self.sessions.replace(&self.id, &opened).await {
                Ok(Replaced::Changed) => {}
                Ok(Replaced::Done(_) | Replaced::Gone) | Err(_) => return,
            }
            match self.sessions.read(&self.id).await {
                Ok(Some(there)) if there.payload.showing == ours => opened = there,
                _ => return,
            }
        }
    }
}

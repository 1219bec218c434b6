//! A browser that takes nothing of what it asked for: how long it is waited for.

use crate::patience::Patience;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// How long a browser may take next to nothing of what it asked for. Long, because the kernel tells of room only when a third of
/// its buffer is free, which may be more than a megabyte, and because a page that plays a film in parts stops reading it meanwhile.
pub const SEND_STALL: Duration = Duration::from_hours(1);

/// The wait for it.
#[derive(Debug, Default)]
pub struct Stall {
    /// Since when it takes nothing of what there is for it; `None`: there is nothing, or it takes it.
    since: Option<Instant>,
    patience: Patience,
}

impl Stall {
    /// It took something, or there is nothing for it.
    pub const fn end(&mut self) {
        self.since = None;
    }

    /// It takes nothing; ready when that has lasted too long.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = *self.since.get_or_insert_with(Instant::now) + SEND_STALL;
        // It only ever moves on: a later stall began later.
        self.patience.poll_until(cx, until)
    }
}

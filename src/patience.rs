//! A timer for waits that seldom last: made when it is first needed, and set again when it has run out, not for every wait.
//!
//! Stands on the ground floor. To set a timer costs more than to look at one that was set for an earlier wait.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long somebody may take next to nothing of what there is for them. Long, because the kernel tells of room only when a third
/// of its buffer is free, which may be more than a megabyte, and because a page that plays a film in parts stops reading it meanwhile.
pub const SEND_STALL: Duration = Duration::from_hours(1);

/// How long somebody is waited for.
#[derive(Debug, Default)]
pub struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// Ready at that moment. From one call to the next it only ever moves on.
    pub fn poll_until(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

/// The wait for somebody who takes nothing, for [`SEND_STALL`].
#[derive(Debug, Default)]
pub struct Stall {
    /// Since when; `None`: there is nothing for them, or they take it.
    since: Option<Instant>,
    patience: Patience,
}

impl Stall {
    /// They took something, or there is nothing for them.
    pub const fn end(&mut self) {
        self.since = None;
    }

    /// They take nothing; ready when that has lasted too long.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = *self.since.get_or_insert_with(Instant::now) + SEND_STALL;
        // It only ever moves on: a later stall began later.
        self.patience.poll_until(cx, until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_it_should_also_where_it_was_set_for_an_earlier_wait() {
        let (mut patience, began) = (Patience::default(), Instant::now());
        for seconds in [1, 5, 60] {
            let until = began + Duration::from_secs(seconds);
            // One wait that was over before its time, and one that lasts.
            poll_fn(|cx| {
                assert!(patience.poll_until(cx, until).is_pending());
                Poll::Ready(())
            })
            .await;
            poll_fn(|cx| patience.poll_until(cx, until + Duration::from_secs(1))).await;
            assert_eq!(began.elapsed(), Duration::from_secs(seconds + 1));
        }
    }
}

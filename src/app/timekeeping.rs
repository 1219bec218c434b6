//! Keeps the process's time near the system's clock, and says when that was set.
//!
//! Beside every request's way: what is dated reads `clock` alone, so nothing waits for this task, and where it is late the
//! time goes on unmoved.

use crate::clock::{Keeper, Notice};
use crate::metrics::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the system's clock is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Looks at the system's clock every second until `stop`.
///
/// # Cancel safety
/// May be dropped at any time: the time is then kept without being moved.
pub(super) async fn keep(metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut keeper = Keeper::of_this_process();
    loop {
        let look = keeper.look();
        metrics.clock_offset(look.ahead_secs);
        match look.notice {
            Some(Notice::Set) => say_set(look.ahead_secs),
            Some(Notice::Agrees) => {
                tracing::info!("the system's clock and the time that cloakroom keeps agree again");
            }
            None => {}
        }
        let pause = tokio::time::sleep(EVERY);
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

fn say_set(ahead_secs: f64) {
    let side = if ahead_secs > 0.0 { "ahead of" } else { "behind" };
    tracing::error!(
        "the system's clock was set, and is now {:.0} s {side} the time that cloakroom keeps, which follows it by 1 % only, so that \
         nobody is signed out and no dead token is sent: if the system's clock is right now, restart this replica; if not, mend it \
         (NTP)",
        ahead_secs.abs()
    );
}

//! Taking turns: what a task has read at once counts, so that one whose other side pours lets the others run.
//!
//! Stands on the ground floor. tokio ends a task's turn after so many operations, and takes a read for one of them, however
//! much it brings. Most of what is read goes somewhere, and waits for that; but a parser that swallows what it is given (a
//! chunk's size that is all zeros, one empty line after the other) would go through tens of megabytes before its turn is over.

use std::task::{Context, Poll};
use tokio::task::coop::poll_proceed;

/// How much may be read for the price of one operation, bytes. A turn has 128 of them.
const PIECE: usize = 2 * 1024;

/// So many bytes were read at once: the task's turn is the shorter.
pub fn spend(cx: &mut Context<'_>, bytes: usize) {
    for _ in 0..bytes / PIECE {
        match poll_proceed(cx) {
            Poll::Ready(operation) => operation.made_progress(),
            // The next read waits for the next turn.
            Poll::Pending => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::task::coop::has_budget_remaining;
    use tokio_util::task::TaskTracker;

    #[tokio::test]
    async fn a_turn_is_over_after_a_quarter_of_a_megabyte() {
        let tasks = TaskTracker::new();
        for (bytes, goes_on) in [
            (0, true),
            (PIECE - 1, true),
            (127 * PIECE, true),
            (128 * PIECE, false),
        ] {
            // Each poll of a task is a turn.
            let task = tasks.spawn(poll_fn(move |cx| {
                spend(cx, bytes);
                Poll::Ready(has_budget_remaining())
            }));
            assert_eq!(task.await.unwrap(), goes_on, "{bytes}");
        }
    }
}

//! Taking turns: what a task has read at once counts, so that one whose other side pours lets the others run; and who works
//! for many others comes after them.
//!
//! Stands on the ground floor. tokio ends a task's turn after so many operations, and takes a read for one of them, however
//! much it brings. Most of what is read goes somewhere, and waits for that; but a parser that swallows what it is given (a
//! chunk's size that is all zeros, one empty line after the other) would go through tens of megabytes before its turn is over.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};
use tokio::task::coop::poll_proceed;
use tokio::task::yield_now;

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

/// Polls a future behind all tasks that are ready when it is woken, so that it finds what they have for it at one time. tokio
/// would run whoever was woken last next: what writes the commands of many would write each of them alone.
pub async fn behind_the_others<F: Future>(future: F) -> F::Output {
    let (mut future, mut others) = (pin!(future), pin!(yield_now()));
    poll_fn(|cx| {
        ready!(others.as_mut().poll(cx));
        others.set(yield_now());
        future.as_mut().poll(cx)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;
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

    #[tokio::test]
    async fn what_comes_behind_the_others_finds_what_all_of_them_have_for_it() {
        let (tasks, (to_all, mut from_all)) = (TaskTracker::new(), mpsc::channel(10));
        let drain = async {
            let mut found = Vec::new();
            let mut batch = Vec::new();
            while from_all.recv_many(&mut batch, 10).await > 0 {
                found.push(std::mem::take(&mut batch));
            }
            found
        };
        let together = async {
            for n in 0..10 {
                let one = to_all.clone();
                tasks.spawn(async move { one.send(n).await });
            }
            drop(to_all);
            tasks.close();
            tasks.wait().await;
        };
        let ((), found) = tokio::join!(together, behind_the_others(drain));
        assert_eq!(found, [(0..10).collect::<Vec<_>>()]);
    }
}

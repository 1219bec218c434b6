//! The request's body on its way up: counted where the route has a limit, and broken off where the browser is too slow.
//!
//! INVARIANT: what breaks off here is the browser's fault and is said to be; the upstream sees an aborted request, never
//! one that seems whole.
//!
//! Only time in which the upstream waits for the browser counts: a browser that a slow upstream holds back is not slow.
//! Once the upstream's head is there, the two may talk as slowly as they like, as far as this goes: over HTTP/1.1 the
//! listener ends a connection on which a body of a known length stands still for a minute while somebody waits for it.

use super::response;
use crate::answer::Failure;
use crate::patience::Patience;
use crate::protocol::BodyError;
use crate::upstream::{self, RequestBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// How long a browser may be waited for in all, before what it has sent counts.
const GRACE: Duration = Duration::from_secs(20);

/// The least that it has to send then, bytes in each second of waiting.
const SLOWEST: u64 = 240;

/// What a browser did wrong in a body, as soon as it has done it; nothing where there is no body.
#[derive(Clone, Debug)]
pub struct Watch(Option<Arc<Watched>>);

#[derive(Debug, Default)]
struct Watched {
    fault: OnceLock<Failure>,
    is_answered: AtomicBool,
}

impl Watch {
    /// Why the body was broken off; the upstream request is aborted.
    pub fn fault(&self) -> Option<Failure> {
        self.0.as_ref()?.fault.get().cloned()
    }

    /// The upstream's head is there: nobody waits for the rest of the body but the upstream itself.
    pub fn answered(&self) {
        if let Some(watched) = &self.0 {
            watched.is_answered.store(true, Ordering::Relaxed);
        }
    }
}

impl Watched {
    fn break_off(&self, fault: Failure, why: &'static str) -> BodyError {
        let _first = self.fault.set(fault);
        why.into()
    }
}

/// Lets at most `limit` bytes pass, at no less than a least pace; beyond that the body breaks off.
pub fn watched<B>(body: B, limit: Option<u64>) -> (RequestBody, Watch)
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Send + Unpin + 'static,
{
    if body.is_end_stream() {
        return (upstream::nothing(), Watch(None));
    }
    let watch = Arc::<Watched>::default();
    let passing = Passing {
        body,
        left: limit.unwrap_or(u64::MAX),
        passed: 0,
        waited: Duration::ZERO,
        waiting_since: None,
        patience: Patience::default(),
        watch: watch.clone(),
    };
    (passing.boxed_unsync(), Watch(Some(watch)))
}

struct Passing<B> {
    body: B,
    left: u64,
    passed: u64,
    /// How long the browser was waited for, without the wait under way.
    waited: Duration,
    waiting_since: Option<Instant>,
    patience: Patience,
    watch: Arc<Watched>,
}

impl<B> Passing<B> {
    /// Ready when the browser has been waited for too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.watch.is_answered.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let earned = GRACE + Duration::from_secs(self.passed / SLOWEST);
        // It only ever moves on: each wait adds to `since` what it adds to `waited`.
        let until = since + earned.saturating_sub(self.waited);
        self.patience.poll_until(cx, until)
    }
}

impl<B> Body for Passing<B>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            return this.poll_patience(cx).map(|()| {
                let slow = this
                    .watch
                    .break_off(Failure::TooSlow, "the body comes too slowly");
                Some(Err(slow))
            });
        };
        if let Some(since) = this.waiting_since.take() {
            this.waited += since.elapsed();
        }
        let frame = match frame {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                let why = "The request's body is malformed, or it broke off.";
                let _first = this.watch.fault.set(Failure::BadRequest(why));
                return Poll::Ready(Some(Err(error.into())));
            }
        };
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            let Some(left) = this.left.checked_sub(length) else {
                let large = "the body is larger than the route allows";
                return Poll::Ready(Some(Err(this.watch.break_off(Failure::TooLarge, large))));
            };
            (this.left, this.passed) = (left, this.passed.saturating_add(length));
        }
        Poll::Ready(Some(Ok(response::pass(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    struct Channel(mpsc::Receiver<Result<Bytes, &'static str>>);

    impl Body for Channel {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            let polled = self.0.poll_recv(cx);
            polled.map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(Into::into)))
        }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// What becomes of pieces of so many bytes, each after so many seconds, and when; `pause`: between reads.
    async fn passes(
        pieces: &[(u64, usize)],
        pause: Duration,
        answered: bool,
    ) -> (usize, Option<Failure>, u64) {
        let (sender, receiver) = mpsc::channel(1);
        let (mut body, watch) = watched(Channel(receiver), Some(1_000_000));
        if answered {
            watch.answered();
        }
        let began = Instant::now();
        let sending = async move {
            for (after, length) in pieces {
                sleep(seconds(*after)).await;
                if sender.send(Ok(Bytes::from(vec![0; *length]))).await.is_err() {
                    return;
                }
            }
        };
        let reading = async {
            let mut read = 0;
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.into_data().unwrap().len();
                sleep(pause).await;
            }
            drop(body);
            (read, watch.fault(), began.elapsed().as_secs())
        };
        tokio::join!(reading, sending).0
    }

    #[tokio::test(start_paused = true)]
    async fn lm_02_a_body_has_a_least_pace_while_the_upstream_waits_for_it() {
        let drip = [(3, 1); 100];
        assert_eq!(
            passes(&drip, Duration::ZERO, false).await,
            (6, Some(Failure::TooSlow), 20)
        );
        let silence = [(0, 5), (1_000, 5)];
        assert_eq!(
            passes(&silence, Duration::ZERO, false).await,
            (5, Some(Failure::TooSlow), 20)
        );
        // What was sent buys time.
        let burst = [(0, 24_000), (119, 1), (2, 1)];
        assert_eq!(
            passes(&burst, Duration::ZERO, false).await,
            (24_001, Some(Failure::TooSlow), 120)
        );
        let steady = [(10, 2_400); 100];
        assert_eq!(
            passes(&steady, Duration::ZERO, false).await,
            (240_000, None, 1_000)
        );
        // Who is held back is not slow, and neither is who has an answer already.
        let ready = [(0, 1); 50];
        assert_eq!(passes(&ready, seconds(60), false).await, (50, None, 3_000));
        assert_eq!(passes(&drip, Duration::ZERO, true).await, (100, None, 300));
    }

    #[tokio::test]
    async fn a_body_is_cut_at_its_limit_and_a_broken_one_is_the_browsers_fault() {
        let whole = passes(&[(0, 600_000), (0, 400_000)], Duration::ZERO, false).await;
        assert_eq!(whole, (1_000_000, None, 0));
        let large = passes(&[(0, 600_000), (0, 400_001)], Duration::ZERO, false).await;
        assert_eq!(large, (600_000, Some(Failure::TooLarge), 0));
        let (sender, receiver) = mpsc::channel(1);
        let (mut body, watch) = watched(Channel(receiver), None);
        sender.send(Err("malformed")).await.unwrap();
        assert!(body.frame().await.unwrap().is_err());
        assert!(matches!(watch.fault(), Some(Failure::BadRequest(_))));
    }
}

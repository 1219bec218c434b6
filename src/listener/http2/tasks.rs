//! Where the streams of a connection run; hyper starts a task for each, and from within that another one which sends the
//! bytes of the tunnel that the stream has become.
//!
//! INVARIANT: what a browser does not read is not held for it without end, but for the last piece of an answer, which is h2's. It
//! may leave one stream unread while it reads the others, so what the connection's bytes tell does not tell this.

use crate::patience::Stall;
use pin_project_lite::pin_project;
use std::cell::{Cell, OnceCell};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio_util::future::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

tokio::task_local! {
    /// What the task of a stream knows of it.
    static STREAM: Known;
}

#[derive(Default)]
struct Known {
    /// Ends what sends the bytes of its tunnel, once it is one.
    tunnel: OnceCell<CancellationToken>,
    /// What there is for the browser to take.
    offer: Cell<Offer>,
}

/// The last piece of an answer that was given out. hyper asks for the next one when it has this one off its hands.
#[derive(Clone, Copy, Debug, Default)]
pub enum Offer {
    /// None: the service is waited for.
    #[default]
    Nothing,
    /// This one is another than before.
    Next,
    /// Still the same.
    Same,
}

/// The stream that this is called from becomes a tunnel, which lasts until `end`.
pub fn becomes_tunnel(end: CancellationToken) {
    let _is_set = STREAM.try_with(|stream| stream.tunnel.set(end));
}

/// What there is for the browser to take of the stream that this is called from.
pub fn offer(offer: Offer) {
    let _is_set = STREAM.try_with(|stream| stream.offer.set(offer));
}

/// The streams' tasks.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    /// Ends them.
    pub end: CancellationToken,
}

impl Tasks {
    /// Ends them, and waits until they have.
    pub async fn end(self) {
        self.end.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let tunnel = STREAM.try_with(|stream| stream.tunnel.get().cloned());
        let end = tunnel.ok().flatten().unwrap_or_else(|| self.end.clone());
        let stream = STREAM.scope(
            Known::default(),
            Read {
                stream,
                stall: Stall::default(),
            },
        );
        // Not by the token's own method, which would keep room for the stream twice.
        self.tracker.spawn(stream.with_cancellation_token_owned(end));
    }
}

pin_project! {
    /// A stream for as long as its browser reads it. Dropped, it is reset. Of a tunnel it knows nothing: who joins that with
    /// another connection keeps the time.
    struct Read<F> {
        #[pin]
        stream: F,
        stall: Stall,
    }
}

impl<F: Future> Future for Read<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match STREAM.with(|stream| stream.offer.get()) {
            Offer::Nothing => {
                this.stall.end();
                return Poll::Pending;
            }
            Offer::Next => {
                this.stall.end();
                STREAM.with(|stream| stream.offer.set(Offer::Same));
            }
            Offer::Same => {}
        }
        ready!(this.stall.poll(cx));
        tracing::debug!("reset a stream that its browser does not read");
        Poll::Ready(())
    }
}

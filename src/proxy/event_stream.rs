//! An event stream on its way to the browser: as it is, for as long as its session lasts (contract 4.9).
//!
//! Where the session ends, so does the stream, as if the upstream had ended it: an event that is under way is thrown away
//! by the browser ("Once the end of the file is reached, any pending data must be discarded"), which then asks again, on
//! the same connection, and gets 401. That is no body which ends as if it were whole: this kind never is.
//!
//! INVARIANT: once the session is known to be over, nothing more of the upstream's goes to the browser, and the upstream
//! is let go of, even if the browser does not read.
//!
//! Sources: WHATWG HTML §9.2.2, §9.2.6.

use super::tie::Tie;
use crate::answer::Body;
use crate::protocol::BodyError;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

/// Whether a response is an event stream.
pub fn is_one(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next();
        essence
            .unwrap_or_default()
            .trim_ascii()
            .eq_ignore_ascii_case(b"text/event-stream")
    })
}

/// The same body, until its session ends.
pub fn tied(body: Body, tie: Tie, tasks: &TaskTracker) -> Body {
    let upstream = Arc::new(Upstream(Mutex::new(Some(Open { body, reader: None }))));
    let ending = Arc::clone(&upstream);
    let watcher = tasks.spawn(async move {
        tie.severed().await;
        ending.end();
    });
    let stream = EventStream {
        upstream,
        watcher: watcher.abort_handle(),
    };
    stream.boxed_unsync()
}

/// The upstream's stream; `None` once it is over.
struct Upstream(Mutex<Option<Open>>);

struct Open {
    body: Body,
    /// Who waits for its next piece.
    reader: Option<Waker>,
}

impl Upstream {
    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let ended = self.open().take();
        if let Some(Open {
            reader: Some(reader), ..
        }) = ended
        {
            reader.wake();
        }
    }
}

/// What the browser is given.
struct EventStream {
    upstream: Arc<Upstream>,
    watcher: AbortHandle,
}

impl http_body::Body for EventStream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut upstream = self.upstream.open();
        let Some(open) = &mut *upstream else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut open.body).poll_frame(cx);
        match &polled {
            Poll::Pending => match &mut open.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            },
            Poll::Ready(None | Some(Err(_))) => *upstream = None,
            Poll::Ready(Some(Ok(_))) => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.upstream
            .open()
            .as_ref()
            .is_none_or(|open| open.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let upstream = self.upstream.open();
        upstream
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |open| open.body.size_hint())
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

#[cfg(test)]
#[path = "event_stream_tests.rs"]
mod tests;

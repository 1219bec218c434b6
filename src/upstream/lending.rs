//! Lends a request's body to one attempt after another, until an attempt reads from it, and tells whether it moves.
//!
//! A stream that an HTTP/2 upstream refuses may have read nothing, so the next one can have the same body; and a response
//! that waits for a long upload is not late while the upload moves.

use super::RequestBody;
use crate::protocol::BodyError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Keeps the body until somebody reads from it.
pub struct Lender(Arc<Shared>);

struct Shared {
    body: Mutex<Option<RequestBody>>,
    began: Instant,
    /// When the body last moved, milliseconds after `began`.
    moved: AtomicU64,
}

impl Lender {
    pub fn new(body: RequestBody) -> Self {
        Self(Arc::new(Shared {
            body: Mutex::new(Some(body)),
            began: Instant::now(),
            moved: AtomicU64::new(0),
        }))
    }

    /// Whether no borrower has read from it.
    pub fn is_whole(&self) -> bool {
        self.0.ask(|_| ()).is_some()
    }

    /// The body, for as long as no borrower has read from it.
    pub fn lend(&self) -> RequestBody {
        Lent {
            shared: self.0.clone(),
            taken: None,
        }
        .boxed_unsync()
    }

    /// Returns once the body has not moved for so long.
    pub async fn still_for(&self, span: Duration) {
        loop {
            let moved = self.0.began + Duration::from_millis(self.0.moved.load(Ordering::Relaxed));
            if moved.elapsed() >= span {
                return;
            }
            tokio::time::sleep_until(moved + span).await;
        }
    }
}

impl Shared {
    fn take(&self) -> Option<RequestBody> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn ask<T>(&self, question: impl FnOnce(&RequestBody) -> T) -> Option<T> {
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        body.as_ref().map(question)
    }

    fn note_movement(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
    }
}

struct Lent {
    shared: Arc<Shared>,
    taken: Option<RequestBody>,
}

impl Body for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.taken.is_none() {
            self.taken = self.shared.take();
        }
        let Some(body) = &mut self.taken else {
            return Poll::Ready(Some(Err("the body was read by another attempt".into())));
        };
        let polled = Pin::new(body).poll_frame(cx);
        if polled.is_ready() {
            self.shared.note_movement();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.taken {
            Some(body) => body.is_end_stream(),
            None => self.shared.ask(Body::is_end_stream).unwrap_or(true),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.taken {
            Some(body) => body.size_hint(),
            None => self.shared.ask(Body::size_hint).unwrap_or_default(),
        }
    }
}

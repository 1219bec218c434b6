//! An answer's body on its way back, which brings its connection back to the pool when it ends.

use super::pool::Lease;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of an answer. Dropped before its end it takes its connection with it.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, lease: Option<Lease>) -> Self {
        let mut body = Self { incoming, lease };
        body.note_end(body.incoming.is_end_stream());
        body
    }

    fn note_end(&mut self, is_over: bool) {
        if is_over && let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => self.note_end(true),
            // Whoever knows that nothing follows does not ask for more.
            Poll::Ready(Some(Ok(frame))) => {
                let is_over = frame.is_trailers() || self.incoming.is_end_stream();
                self.note_end(is_over);
            }
            Poll::Ready(Some(Err(_))) => self.lease = None,
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

//! The request's body on its way up, counted where the route has a limit.

use crate::protocol::BodyError;
use crate::upstream::RequestBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Whether a body outgrew its limit.
#[derive(Clone, Debug, Default)]
pub struct Overflow(Arc<AtomicBool>);

impl Overflow {
    /// It did; the upstream request is aborted.
    pub fn happened(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Lets at most `limit` bytes pass; beyond it the body breaks off.
pub fn limited<B>(body: B, limit: Option<u64>) -> (RequestBody, Overflow)
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Send + Unpin + 'static,
{
    let overflow = Overflow::default();
    let body = match limit {
        Some(left) if !body.is_end_stream() => Limited {
            body,
            left,
            overflow: overflow.clone(),
        }
        .boxed_unsync(),
        _ => body.map_err(Into::into).boxed_unsync(),
    };
    (body, overflow)
}

struct Limited<B> {
    body: B,
    left: u64,
    overflow: Overflow,
}

impl<B> Body for Limited<B>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                self.overflow.0.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err("the body is larger than the route allows".into())));
            };
            self.left = left;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

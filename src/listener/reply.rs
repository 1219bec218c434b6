//! The body of an answer on its way to the browser: the service's, or none where it has no words for a refusal.
//!
//! While it lives its request is under way; the wire counts idle time only after that.

use super::wire::Following;
use crate::protocol::BodyError;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A request is under way for as long as this lives.
pub struct Under(Arc<Following>);

impl Under {
    pub fn way(following: Arc<Following>) -> Self {
        following.set_busy(true);
        Self(following)
    }

    /// What the wire and this request's service tell each other.
    pub fn following(&self) -> Arc<Following> {
        self.0.clone()
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.0.set_busy(false);
    }
}

/// An answer's body.
pub struct Reply<B> {
    body: Option<B>,
    _under_way: Under,
}

impl<B> Reply<B> {
    pub fn of(body: B, under_way: Under) -> Self {
        Self {
            body: Some(body),
            _under_way: under_way,
        }
    }

    /// An answer that nobody puts into words.
    pub fn bare(status: StatusCode, under_way: Under) -> Response<Self> {
        let mut response = Response::new(Self {
            body: None,
            _under_way: under_way,
        });
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl<B> Body for Reply<B>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

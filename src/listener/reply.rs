//! The body of an answer on its way to the browser: the service's, or none where it has no words for a refusal.
//!
//! While it lives its request is under way; idle time is counted only after that.

use super::{Refusal, Service};
use crate::protocol::BodyError;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

/// An answer's body, and what holds its request under way.
pub struct Reply<B, U> {
    body: Option<B>,
    _under_way: U,
}

impl<B, U> Reply<B, U> {
    pub fn of(body: B, under_way: U) -> Self {
        Self {
            body: Some(body),
            _under_way: under_way,
        }
    }

    /// A refusal: in the service's words, or bare where it has none.
    pub fn refusal<S: Service<Body = B>>(
        service: &S,
        refusal: Refusal,
        request: Option<&Request<Incoming>>,
        peer: SocketAddr,
        under_way: U,
    ) -> Response<Self> {
        if let Some(response) = service.refuse(refusal, request, peer) {
            return response.map(|body| Self::of(body, under_way));
        }
        let mut response = Response::new(Self {
            body: None,
            _under_way: under_way,
        });
        *response.status_mut() = refusal.status();
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl<B, U> Body for Reply<B, U>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    U: Unpin,
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

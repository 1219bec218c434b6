//! The body of an answer on its way to the browser, piece by piece.
//!
//! hyper takes a stream for done when it has given its last piece to h2, where that waits until the browser lets it be sent.
//!
//! INVARIANT: a stream is under way, and keeps its place, until its last piece is sent or given up.

use super::streams::Stream;
use super::tasks::{Offer, offer};
use crate::listener::reply::Reply;
use crate::protocol::BodyError;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// An answer's body.
pub struct Answer<B>(pub Reply<B, Arc<Stream>>);

/// Some bytes of it.
pub struct Piece {
    bytes: Bytes,
    _stream: Arc<Stream>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let polled = Pin::new(&mut self.0).poll_frame(cx);
        offer(if polled.is_ready() {
            Offer::Next
        } else {
            Offer::Nothing
        });
        let piece = |bytes| Piece {
            bytes,
            _stream: self.0.under_way().clone(),
        };
        polled.map_ok(|frame| frame.map_data(piece))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

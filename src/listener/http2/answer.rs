//! The body of an answer on its way to the browser, piece by piece.
//!
//! hyper gives h2 a piece as a whole once the browser lets it send one byte of it, and asks for the next one when nothing of it is
//! left that may not be sent. With the last one it takes the stream for done, and its place goes to another.
//!
//! INVARIANT: h2 has at most the buffer of a stream and a piece of its answer; of one whose browser does not let it send more,
//! when it is done, a piece.

use super::streams::{Stream, Streams, Unsent};
use super::tasks::{Offer, offer};
use crate::listener::reply::Reply;
use crate::protocol::BodyError;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The largest piece, bytes: what h2 sends in one frame.
const PIECE: usize = 16 * 1024;

/// An answer's body.
pub struct Answer<B> {
    reply: Reply<B, Stream>,
    streams: Arc<Streams>,
    /// What was given to us and is still to be given on; part of something larger.
    rest: Bytes,
}

/// Some bytes of it.
pub struct Piece {
    bytes: Bytes,
    _unsent: Unsent,
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

impl<B> Answer<B> {
    pub fn of(reply: Reply<B, Stream>, streams: Arc<Streams>) -> Self {
        Self {
            reply,
            streams,
            rest: Bytes::new(),
        }
    }

    fn give(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        offer(Offer::Next);
        let piece = Piece {
            bytes,
            _unsent: self.streams.unsent(),
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
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
        if self.rest.is_empty() {
            offer(Offer::Nothing);
            let polled = ready!(Pin::new(&mut self.reply).poll_frame(cx));
            match polled.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) if data.len() <= PIECE => return self.give(data),
                Some(Ok(data)) => self.rest = data,
                Some(Err(other)) => {
                    let trailers = other.into_trailers().ok().map(Frame::trailers);
                    return Poll::Ready(trailers.map(Ok));
                }
                None => return Poll::Ready(None),
            }
        }
        let piece = if self.rest.len() > PIECE {
            self.rest.split_to(PIECE)
        } else {
            // h2 may have it for long, and should not have all that it was part of.
            Bytes::copy_from_slice(&std::mem::take(&mut self.rest))
        };
        self.give(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.reply.is_end_stream()
    }

    /// Asked for before the first piece.
    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}

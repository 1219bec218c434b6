//! The body of an answer on its way to the browser, piece by piece.
//!
//! hyper gives h2 a piece as a whole once the browser lets it send one byte of it, and asks for the next one when nothing of it is
//! left that may not be sent. With the last one it takes the stream for done.
//!
//! INVARIANT: what is held of an answer is at most the buffer of its stream and a piece; when it is done, a piece.

use super::streams::Stream;
use super::tasks::{Offer, offer};
use crate::listener::reply::Reply;
use crate::protocol::BodyError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The largest piece, bytes: what h2 sends in one frame.
const PIECE: usize = 16 * 1024;

/// An answer's body.
pub struct Answer<B> {
    reply: Reply<B, Stream>,
    /// What was given to us and is still to be given on.
    rest: Bytes,
}

impl<B> Answer<B> {
    pub fn of(reply: Reply<B, Stream>) -> Self {
        Self {
            reply,
            rest: Bytes::new(),
        }
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.rest.is_empty() {
            offer(Offer::Nothing);
            match ready!(Pin::new(&mut self.reply).poll_frame(cx))
                .transpose()?
                .map(Frame::into_data)
            {
                Some(Ok(data)) => self.rest = data,
                Some(Err(other)) => return Poll::Ready(Some(Ok(other))),
                None => return Poll::Ready(None),
            }
        }
        offer(Offer::Next);
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.reply.is_end_stream()
    }

    /// Asked for before the first piece.
    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}

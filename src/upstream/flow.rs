//! The bytes of one connection to an upstream: how many may come before an answer, and how many at once.
//!
//! Stands between the socket or TLS and hyper.
//!
//! INVARIANT: no byte is changed, dropped or reordered.

use super::connect::Io;
use crate::{pieces, turn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const UNBOUNDED: usize = usize::MAX;

/// How much may still come, bytes; without a bound at first.
#[derive(Debug)]
pub struct Ahead(AtomicUsize);

impl Ahead {
    /// So many bytes, and no more.
    pub fn bound(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// As many as there are.
    pub fn unbound(&self) {
        self.0.store(UNBOUNDED, Ordering::Relaxed);
    }

    fn note(&self, read: usize) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed);
        if left == UNBOUNDED {
            return Ok(());
        }
        let Some(rest) = left.checked_sub(read) else {
            return Err(io::Error::other("the upstream says too much before its answer"));
        };
        // The bound was lifted meanwhile: then it stays so.
        let _lifted = self
            .0
            .compare_exchange(left, rest, Ordering::Relaxed, Ordering::Relaxed);
        Ok(())
    }
}

/// A connection's bytes.
pub struct Flow {
    io: Box<dyn Io>,
    ahead: Arc<Ahead>,
}

impl Flow {
    /// Over whatever it goes.
    pub fn over(io: impl Io + 'static) -> Self {
        Self {
            io: Box::new(io),
            ahead: Arc::new(Ahead(AtomicUsize::new(UNBOUNDED))),
        }
    }

    /// Its bound.
    pub fn ahead(&self) -> Arc<Ahead> {
        self.ahead.clone()
    }
}

impl AsyncRead for Flow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        turn::spend(cx, read);
        Poll::Ready(self.ahead.note(read))
    }
}

impl AsyncWrite for Flow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        pieces::poll_write(Pin::new(&mut self.io), cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

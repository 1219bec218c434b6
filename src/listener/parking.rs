//! Between two requests: what speaks on a connection is given up, and its bytes wait alone for the next request.
//!
//! hyper keeps two buffers of 8 KiB for a connection and room for a request under way, which is more than all the rest that
//! there is of it. So it gets the wire on loan. When the wire is parked, hyper sees the end of the stream, as if the browser
//! had gone, and ends; the wire comes home, and another hyper gets it with the first bytes of the next request.
//!
//! INVARIANT: no byte is lost: a wire is parked when hyper has written all that it had and read nothing that it has not
//! answered, and what comes after that is read by nobody but the next one.

use super::wire::Wire;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A wire on loan, until it is parked.
pub struct Lent<T>(Option<Loan<T>>);

type Loan<T> = (Box<Wire<T>>, oneshot::Sender<Box<Wire<T>>>);

/// Where a parked wire comes home to.
pub type Home<T> = oneshot::Receiver<Box<Wire<T>>>;

impl<T> Lent<T> {
    pub fn new(wire: Box<Wire<T>>) -> (Self, Home<T>) {
        let (sender, home) = oneshot::channel();
        (Self(Some((wire, sender))), home)
    }

    fn wire(&mut self) -> Option<Pin<&mut Wire<T>>>
    where
        T: Unpin,
    {
        self.0.as_mut().map(|(wire, _)| Pin::new(&mut **wire))
    }
}

/// Waits for the next request. `false`: none comes, and what is left to say to the browser was said.
///
/// # Cancel safety
/// Nothing is lost.
pub async fn next<T: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<T>,
    stop: &CancellationToken,
    cut: &CancellationToken,
) -> bool {
    let came = tokio::select! {
        // First: a request that has arrived before the stop is still served.
        biased;
        came = poll_fn(|cx| wire.poll_unpark(cx)) => came,
        () = stop.cancelled() => Ok(false),
        () = cut.cancelled() => return false,
    };
    match came {
        Ok(true) => return true,
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, "a connection ended while it was idle"),
    }
    // Tried once: nobody is waited for who does not read.
    poll_fn(|cx| {
        let _parted = Pin::new(&mut *wire).poll_shutdown(cx);
        Poll::Ready(false)
    })
    .await
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Lent<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some((wire, _)) = &mut self.0 else {
            return Poll::Ready(Ok(()));
        };
        ready!(Pin::new(&mut **wire).poll_read(cx, buf))?;
        if wire.is_parked()
            && let Some((wire, home)) = self.0.take()
        {
            // Nobody at home: dropped, as a connection is that ends.
            drop(home.send(wire));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lent<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.wire() {
            Some(wire) => wire.poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.wire() {
            Some(wire) => wire.poll_write_vectored(cx, bufs),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.0.as_ref().is_some_and(|(wire, _)| wire.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire()
            .map_or(Poll::Ready(Ok(())), |wire| wire.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire()
            .map_or(Poll::Ready(Ok(())), |wire| wire.poll_shutdown(cx))
    }
}

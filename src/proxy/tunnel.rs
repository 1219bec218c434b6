//! A WebSocket's two connections joined into one: bytes pass both ways until either side ends, or the session does.
//!
//! Comes after the handshake of `upgrade`. The bytes are passed as they come, through one small buffer for each direction;
//! the frames in them are only followed. Where the session ends (contract 4.9), each side is told so in a close frame
//! between two frames of the other's, and then the connections are closed as RFC 6455 wants it.
//!
//! INVARIANT: nothing of ours stands inside another's frame, and nothing follows a close frame.
//! INVARIANT: what is no WebSocket frame is not passed on; the tunnel is cut.
//! INVARIANT: where one side takes nothing of what the other says, the tunnel ends after [`SEND_STALL`](crate::patience::SEND_STALL).
//! INVARIANT: [`FAREWELL`] after the session's end both connections are closed, whatever either side does or leaves undone.
//!
//! Sources: RFC 6455 §5.1, §5.4, §5.5.1, §7.1.

use crate::patience::Stall;
use crate::protocol::websocket_frames::{CloseCode, Follower, Sender, close_frame};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::timeout;

/// How much of each direction is under way at most, bytes.
const BUFFER: usize = 8 * 1024;
/// How long saying goodbye may take: the second that contract 4.9 gives, less the time in which the end is noticed.
const FAREWELL: Duration = Duration::from_millis(900);
/// What both sides are told.
const REASON: &str = "session ended";

/// Passes bytes both ways until both directions have ended, or one breaks. When `over` is ready, both sides are told that
/// the session has ended, and the connections are closed. `spoken` is called when the browser says (part of) a message.
///
/// # Errors
/// A connection broke, or what came are no WebSocket frames.
pub async fn join<B, U>(
    browser: B,
    upstream: U,
    over: impl Future<Output = ()>,
    spoken: impl Fn(),
) -> io::Result<()>
where
    B: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (from_browser, to_browser) = split(browser);
    let (from_upstream, to_upstream) = split(upstream);
    let mut up = Flow::new(from_browser, to_upstream, Sender::Browser);
    let mut down = Flow::new(from_upstream, to_browser, Sender::Upstream);
    tokio::select! {
        // First: however much passes, the end is not waited for.
        biased;
        () = over => {}
        ended = async { tokio::try_join!(up.run(&spoken), down.run(&|| {})) } => {
            if ended.is_err() {
                // What was passed on before one side broke may not have gone out yet.
                let last = async { tokio::join!(up.sink.shutdown(), down.sink.shutdown()) };
                let _cut = timeout(FAREWELL, last).await;
            }
            return ended.map(|_| ());
        }
    }
    let mut mask = [0; 4];
    // "The masking key needs to be unpredictable" (RFC 6455 §5.3).
    aws_lc_rs::rand::fill(&mut mask).map_err(io::Error::other)?;
    // To the upstream we are the browser, which has gone; it is not the upstream that is not let in any more.
    let to_upstream = close_frame(CloseCode::GoingAway, REASON, Some(mask));
    let to_browser = close_frame(CloseCode::PolicyViolation, REASON, None);
    let farewell = async {
        // Where one side cannot be told, the other still is.
        let _told = tokio::join!(up.tell(&to_upstream), down.tell(&to_browser));
        tokio::join!(
            leave(&mut up.source, &mut down.sink),
            leave(&mut down.source, &mut up.sink)
        );
    };
    let _cut = timeout(FAREWELL, farewell).await;
    Ok(())
}

/// One direction.
struct Flow<R, W> {
    source: Source<R>,
    sink: W,
    /// The wait for who takes nothing of what comes.
    stall: Stall,
}

/// Where a direction comes from.
struct Source<R> {
    reader: R,
    /// What was read and not passed on: from `begin` to `end`.
    buffer: Box<[u8]>,
    begin: usize,
    end: usize,
    /// Where the frames are at `begin`.
    place: Follower,
    /// Nothing more comes.
    is_over: bool,
}

impl<R: AsyncRead + Unpin> Source<R> {
    /// Reads into the empty buffer. True if it was (part of) a message; at the end of the connection, nothing is there.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn fill(&mut self) -> io::Result<bool> {
        let read = self.reader.read(&mut self.buffer).await?;
        self.is_over = read == 0;
        let mut ahead = self.place;
        let is_message = ahead
            .follow(&self.buffer[..read])
            .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?;
        (self.begin, self.end) = (0, read);
        Ok(is_message)
    }

    fn waiting(&self) -> &[u8] {
        &self.buffer[self.begin..self.end]
    }

    /// So many bytes have gone their way.
    fn pass(&mut self, count: usize) {
        // They were found well-formed when they were read.
        let _is_message = self.place.follow(&self.buffer[self.begin..self.begin + count]);
        self.begin += count;
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Flow<R, W> {
    fn new(reader: R, sink: W, sender: Sender) -> Self {
        let source = Source {
            reader,
            buffer: vec![0; BUFFER].into(),
            begin: 0,
            end: 0,
            place: Follower::new(sender),
            is_over: false,
        };
        Self {
            source,
            sink,
            stall: Stall::default(),
        }
    }

    /// Passes on what comes until nothing more does.
    ///
    /// # Cancel safety
    /// What was read and not passed on is kept.
    async fn run(&mut self, spoken: &impl Fn()) -> io::Result<()> {
        loop {
            self.pass(self.source.waiting().len()).await?;
            let flushed = poll_fn(|cx| {
                let sent = Pin::new(&mut self.sink).poll_flush(cx);
                self.note_sent(cx, sent)
            });
            flushed.await?;
            if self.source.fill().await? {
                spoken();
            }
            if self.source.is_over {
                let shut = poll_fn(|cx| {
                    let sent = Pin::new(&mut self.sink).poll_shutdown(cx);
                    self.note_sent(cx, sent)
                });
                return shut.await;
            }
        }
    }

    /// Passes on so much of what waits.
    async fn pass(&mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            let written = poll_fn(|cx| {
                let sent = Pin::new(&mut self.sink).poll_write(cx, &self.source.waiting()[..count]);
                self.note_sent(cx, sent)
            });
            let written = written.await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.source.pass(written);
            count -= written;
        }
        Ok(())
    }

    /// What came of handing bytes on; an error where none were taken for too long. Of a tunnel over HTTP/2 only this tells.
    fn note_sent<T>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.stall.end();
            return sent;
        }
        ready!(self.stall.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Finishes the frame under way and says `close`, unless this direction was closed before.
    async fn tell(&mut self, close: &[u8]) -> io::Result<()> {
        loop {
            let rest = self.source.place.rest_of_frame(self.source.waiting());
            self.pass(rest.map_err(io::Error::other)?).await?;
            if self.source.place.is_at_boundary() {
                break;
            }
            if self.source.is_over {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.source.fill().await?;
        }
        if !self.source.is_over && !self.source.place.is_closed() {
            self.sink.write_all(close).await?;
        }
        self.sink.flush().await
    }
}

/// Waits until the side that `from` comes from has closed as well, then ends the connection to it. Closed at once, with
/// bytes of its in flight, TCP could take back what it was told last.
async fn leave<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(from: &mut Source<R>, to: &mut W) {
    loop {
        from.pass(from.waiting().len());
        if from.is_over || from.place.is_closed() || from.fill().await.is_err() {
            break;
        }
    }
    let _gone = to.shutdown().await;
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;

//! The bytes of one connection, between the socket and hyper: where a head begins and ends, and how long it may take.
//!
//! hyper keeps three things to itself that a proxy needs: a `#` in a request target is dropped without a word, an idle
//! connection and a slow head share one timeout, and an early answer is lost when the socket is closed over bytes that
//! were not read. So the wire hands hyper no more than one head at a time, notes what it saw, and is told by the service
//! ([`Following::take_head`]) how long the body is that follows. Where the two views part, the connection ends after the
//! answer.
//!
//! INVARIANT: no byte is changed, dropped or reordered; only how many are handed over at once is decided here.
//!
//! Sources: RFC 9112 §2.2 (lines, empty lines before a request), §9.6 (closing in stages).

use super::following::{Following, Told};
use super::opening::poll_some;
use super::{Bounds, Place};
use crate::patience::Stall;
use crate::{pieces, turn};
use bytes::{Buf, BytesMut};
use memchr::memchr;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a body may stand still while somebody waits for it.
const BODY_STALL: Duration = Duration::from_mins(1);

/// How long a connection is without a request before hyper's buffers are thought to be wasted on it: so rarely at most is the
/// timer of a busy one set again, and one that asks twice in this time pays nothing for asking.
pub const PARKED_AFTER: Duration = Duration::from_millis(500);

/// How long, and how far, the rest of an unwanted body is read away so that the early answer arrives.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 16 * 1024 * 1024;

/// Where in the stream the next byte from the socket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In a head: whether the request line is behind us, and whether the line under way has a byte yet.
    Head {
        request_line_done: bool,
        line_begun: bool,
    },
    /// Behind a head that the service has not told us about.
    HeadDone,
    /// In a body, so many bytes before its end.
    Body(u64),
    /// Somewhere that is not followed: a chunked body, another protocol, or out of step with hyper.
    Unfollowed,
}

const NEXT_HEAD: At = At::Head {
    request_line_done: false,
    line_begun: false,
};

/// What the browser is waited for.
enum Awaited {
    /// The rest of a head or body, until then.
    Rest(Instant),
    /// The next request, since then.
    Request(Instant),
    /// Nothing: a request is under way, or another protocol.
    Nothing,
}

/// What a wait has come to.
enum Due {
    /// It has lasted too long.
    Over,
    /// It is worth parking.
    Parking,
}

/// A connection of which it is known what is spoken, and little more.
pub struct Fresh<T> {
    pub stream: T,
    /// What was read of it already.
    pub begun: BytesMut,
    /// When it came.
    pub since: Instant,
    /// What it holds meanwhile.
    pub place: Place,
}

/// A connection's bytes.
#[expect(clippy::struct_excessive_bools, reason = "each is about something else")]
pub struct Wire<T> {
    io: T,
    at: At,
    /// Read from the socket, not yet handed over.
    held: BytesMut,
    following: Arc<Following>,
    header_timeout: Duration,
    idle_timeout: Duration,
    /// One timer for the connection's life; it is set again when it has run out, not for every wait.
    timer: Pin<Box<Sleep>>,
    /// It was set for no later than the end of a request under way, which wakes nobody, is to be noticed.
    looks_soon: bool,
    /// When the head under way began.
    head_since: Instant,
    /// When the wait for the bytes that come next began.
    waiting_since: Option<Instant>,
    linger_until: Option<Instant>,
    has_served: bool,
    /// The wait for a browser that takes nothing of what hyper has for it.
    stall: Stall,
    /// hyper was told that the browser is gone, to be rid of it; the next request is waited for without.
    is_parked: bool,
    lingered: u64,
    write_closed: bool,
    /// What the connection holds as long as there are bytes of it.
    _place: Place,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire<T> {
    /// Of HTTP/1.1, followed head by head.
    pub fn new(fresh: Fresh<T>, bounds: &Bounds, following: Arc<Following>) -> Self {
        Self {
            io: fresh.stream,
            at: NEXT_HEAD,
            held: fresh.begun,
            following,
            header_timeout: bounds.header_timeout,
            idle_timeout: bounds.idle_timeout,
            timer: Box::pin(tokio::time::sleep(bounds.header_timeout)),
            looks_soon: false,
            // The first head's time runs from the connection's first moment, bytes or none.
            head_since: fresh.since,
            waiting_since: None,
            linger_until: None,
            has_served: false,
            stall: Stall::default(),
            is_parked: false,
            lingered: 0,
            write_closed: false,
            _place: fresh.place,
        }
    }

    /// Of another protocol: the bytes pass through; only a browser that takes nothing, and closing in stages, are this wire's
    /// matter.
    pub fn unfollowed(fresh: Fresh<T>, bounds: &Bounds, following: Arc<Following>) -> Self {
        let mut wire = Self::new(fresh, bounds, following);
        wire.at = At::Unfollowed;
        wire
    }

    /// Follows bytes that hyper is about to see; returns how many of them it may see now.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        if self.following.has_left_http() {
            self.at = At::Unfollowed;
        }
        if let At::HeadDone = self.at {
            self.at = match self.following.take_told() {
                Told::Nothing | Told::Chunked => At::Unfollowed,
                Told::Length(0) => NEXT_HEAD,
                Told::Length(length) => At::Body(length),
            };
        } else if self.following.told() != Told::Nothing {
            // hyper saw the end of a head where we saw none.
            self.at = At::Unfollowed;
        }
        match self.at {
            At::Head {
                request_line_done,
                line_begun,
            } => self.follow_head(bytes, request_line_done, line_begun),
            At::Body(left) => {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let left = left - now as u64;
                self.at = if left == 0 { NEXT_HEAD } else { At::Body(left) };
                self.following.note_left(left);
                now
            }
            At::HeadDone | At::Unfollowed => {
                self.following.note_lost();
                bytes.len()
            }
        }
    }

    fn follow_head(&mut self, bytes: &[u8], mut request_line_done: bool, mut line_begun: bool) -> usize {
        let is_next = self.has_served && !request_line_done && !line_begun;
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest);
            let (line, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            rest = after;
            line_begun |= line.iter().any(|b| !matches!(b, b'\r' | b'\n'));
            if !request_line_done && memchr(b'#', line).is_some() {
                self.following.note_fragment();
            }
            if end.is_some() {
                // Empty lines before a request line are passed over (RFC 9112 §2.2); after it, one ends the head.
                if !line_begun && request_line_done {
                    self.at = At::HeadDone;
                    self.following.end_head();
                    self.has_served = true;
                    return bytes.len() - rest.len();
                }
                request_line_done |= line_begun;
                line_begun = false;
            }
        }
        self.at = At::Head {
            request_line_done,
            line_begun,
        };
        // Only where it does not come as a whole, as nearly all do.
        if is_next {
            self.head_since = Instant::now();
        }
        bytes.len()
    }

    /// What the browser is waited for.
    fn awaited(&mut self) -> Awaited {
        let next = || {
            if self.following.is_busy() {
                Awaited::Nothing
            } else {
                Awaited::Request(self.following.idle_since())
            }
        };
        match self.at {
            NEXT_HEAD if self.has_served => next(),
            At::Head { .. } => Awaited::Rest(self.head_since + self.header_timeout),
            At::HeadDone => match self.following.told() {
                Told::Length(0) => next(),
                Told::Nothing | Told::Chunked => Awaited::Nothing,
                Told::Length(_) => self.awaited_body(),
            },
            At::Body(_) => self.awaited_body(),
            At::Unfollowed => Awaited::Nothing,
        }
    }

    fn awaited_body(&mut self) -> Awaited {
        Awaited::Rest(*self.waiting_since.get_or_insert_with(Instant::now) + BODY_STALL)
    }

    /// Ready when the browser has been waited for long enough. It looks at the clock when the timer has run out, or would do so
    /// too late, and not for every request.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        if self.following.has_left_http() || matches!(self.at, At::Unfollowed) {
            return Poll::Pending;
        }
        loop {
            let awaited = self.awaited();
            let until = match awaited {
                Awaited::Rest(until) => Some(until),
                Awaited::Request(since) if self.is_parked => Some(since + self.idle_timeout),
                Awaited::Request(since) => Some(since + PARKED_AFTER.min(self.idle_timeout)),
                Awaited::Nothing => None,
            };
            let has_run_out = self.timer.is_elapsed();
            let is_late = match until {
                Some(until) => self.timer.deadline() > until,
                None => !self.looks_soon,
            };
            if has_run_out || is_late {
                let now = Instant::now();
                let look_at = match awaited {
                    Awaited::Rest(until) if until <= now => return Poll::Ready(Due::Over),
                    Awaited::Rest(until) => until,
                    // An answer's end is still on its way: how long that may take is judged where it is sent.
                    Awaited::Request(_) if self.following.is_stalled() => now + PARKED_AFTER,
                    Awaited::Request(since) if since + self.idle_timeout <= now => {
                        return Poll::Ready(Due::Over);
                    }
                    Awaited::Request(since) if self.is_parked => since + self.idle_timeout,
                    Awaited::Request(since) if since + PARKED_AFTER <= now => {
                        return Poll::Ready(Due::Parking);
                    }
                    Awaited::Request(since) => since + PARKED_AFTER.min(self.idle_timeout),
                    // The end of the request under way wakes nobody: look again, the later the longer it takes.
                    Awaited::Nothing => {
                        let waiting = *self.waiting_since.get_or_insert(now);
                        let later = now + (now - waiting).max(PARKED_AFTER).min(self.idle_timeout);
                        if has_run_out {
                            later
                        } else {
                            later.min(self.timer.deadline())
                        }
                    }
                };
                self.looks_soon = look_at <= now + PARKED_AFTER;
                if has_run_out || look_at != self.timer.deadline() {
                    self.timer.as_mut().reset(look_at);
                }
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }

    /// Whether hyper was told of an end that is none, and these bytes are still a browser's.
    pub fn is_parked(&self) -> bool {
        self.is_parked
    }

    /// Reads what comes first after parking, for hyper to be given next. `false`: nothing came, and the browser is gone or
    /// was waited for too long. While it waits it holds no buffer.
    ///
    /// # Errors
    /// The network's, or of TLS.
    pub fn poll_unpark(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Poll::Ready(some) = poll_some(&mut self.io, cx) else {
            return self.poll_due(cx).map(|_over| Ok(false));
        };
        self.held = some?;
        self.waiting_since = None;
        self.is_parked = false;
        Poll::Ready(Ok(!self.held.is_empty()))
    }

    /// What came of handing bytes to the browser; an error where it has taken none for too long.
    fn note_sent<R>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        self.following.set_stalled(sent.is_pending());
        if sent.is_ready() {
            self.stall.end();
            return sent;
        }
        ready!(self.stall.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn note_held(&self) {
        self.following.note_held(self.held.len());
    }

    /// Whether the browser may still be sending something that nobody will read.
    fn has_unread(&self) -> bool {
        match self.at {
            At::Body(_) | At::Unfollowed => true,
            At::Head {
                request_line_done,
                line_begun,
            } => request_line_done || line_begun,
            At::HeadDone => self.following.told() != Told::Length(0),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if !this.held.is_empty() {
            let held = std::mem::take(&mut this.held);
            let room = held.len().min(buf.remaining());
            let seen = this.follow(&held[..room]);
            buf.put_slice(&held[..seen]);
            if seen < held.len() {
                this.held = held;
                this.held.advance(seen);
            }
            this.note_held();
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(result) => result?,
            Poll::Pending => match ready!(this.poll_due(cx)) {
                Due::Over => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Due::Parking => {
                    this.is_parked = true;
                    return Poll::Ready(Ok(()));
                }
            },
        }
        this.waiting_since = None;
        let read = &buf.filled()[before..];
        if read.is_empty() {
            return Poll::Ready(Ok(()));
        }
        turn::spend(cx, read.len());
        let seen = this.follow(read);
        if seen < read.len() {
            this.held.extend_from_slice(&read[seen..]);
            buf.set_filled(before + seen);
            this.note_held();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.io).poll_write(cx, buf);
        this.note_sent(cx, sent)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = pieces::poll_write(Pin::new(&mut this.io), cx, bufs);
        this.note_sent(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.io).poll_flush(cx);
        this.note_sent(cx, sent)
    }

    /// Closes in stages (RFC 9112 §9.6): were the socket closed over unread bytes, TCP's reset could overtake the answer.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.write_closed {
            // Under TLS its last record may find no room.
            let sent = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.note_sent(cx, sent))?;
            this.write_closed = true;
        }
        if this.following.has_left_http() || !this.has_unread() {
            return Poll::Ready(Ok(()));
        }
        let mut scrap = [0; 8 * 1024];
        while this.lingered < LINGER_BYTES {
            let mut buf = ReadBuf::new(&mut scrap);
            match Pin::new(&mut this.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => this.lingered += buf.filled().len() as u64,
                Poll::Ready(_) => break,
                Poll::Pending => {
                    let until = *this.linger_until.get_or_insert_with(|| Instant::now() + LINGER);
                    if this.timer.deadline() != until {
                        this.timer.as_mut().reset(until);
                    }
                    ready!(this.timer.as_mut().poll(cx));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

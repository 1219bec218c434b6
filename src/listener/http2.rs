//! HTTP/2 on a connection: hyper's engine with its limits set, and what it does not bound.
//!
//! Each stream is a request like any other by the time that the service sees it: its cookie crumbs are one line again.
//! hyper and h2 refuse what is malformed (RFC 9113 §8.1.1) and bound CONTINUATION frames, empty DATA frames, resets before
//! a stream was taken up, and streams that end in an error of the peer's. Bounded here: silence, and streams that are
//! given up one after the other as soon as they are taken up.
//!
//! A WebSocket is a stream of its own (RFC 8441); what its request asks for is the service's to understand. Such a stream
//! outlives its answer, so who joins it with another connection keeps a [`Hold`] on it.
//!
//! INVARIANT: a stream's work ends with its stream, and every stream's with the connection.
//! INVARIANT: what a stream may make us hold is bounded by the constants below, and all listeners' streams together by their
//! places, which are as many as those of connections: over HTTP/1.1 each would be a connection.
//!
//! Sources: RFC 8441; RFC 9113 §5.1.2, §6.8, §8.2.3, §10.5; CVE-2023-44487 (rapid reset).

use super::connection::{Connection, LENIENCE, caught};
use super::reply::Reply;
use super::wire::{Fresh, Wire};
use super::{Bounds, Refusal, Service};
use http::{HeaderMap, HeaderValue, header};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::OnceCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::future::FutureExt;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The most requests at one time on a connection. RFC 9113 §6.5.2 recommends no less than 100.
const MAX_STREAMS: u32 = 100;

/// So many streams may be reset before we took them up; then GOAWAY (CVE-2023-44487).
const MAX_EARLY_RESETS: usize = 20;

/// So many streams may we have to reset for the peer's mistakes in a connection's life; then GOAWAY (CVE-2025-8671).
const MAX_MISTAKES: usize = 100;

/// How much of its body a stream may send ahead, bytes; and all streams together: as much as each may, so that those that
/// nobody reads do not stop the others.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;

/// How much of an answer waits for the browser, for each stream, bytes; a piece that was begun may pass it.
const SEND_BUFFER: usize = 32 * 1024;

/// How long a connection is silent before it is asked whether it is still there. Who stops in the middle of a header block
/// or frame cannot answer, so this bounds slow heads, too, once the preface is there.
const PING: Duration = Duration::from_secs(20);

/// So many streams may be given up before their answer; more only while most are waited for. Browsers give up what
/// belonged to a page that was left; an attack gives up everything (CVE-2023-44487).
const GIVEN_UP: u64 = 200;

/// How long the two sides may take to part, once all is said.
const PARTING: Duration = Duration::from_secs(5);

/// Serves one connection until it ends. After `stop` the requests under way are the last; at `cut` they are dropped.
pub async fn serve<S: Service>(
    fresh: Fresh<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    connection: Connection<S>,
) {
    let Connection {
        peer,
        bounds,
        service,
        stop,
        cut,
        refused,
    } = connection;
    let tasks = Tasks {
        tracker: TaskTracker::new(),
        end: CancellationToken::new(),
    };
    let streams = Arc::new(Streams::new(&bounds, fresh.since, tasks.end.clone()));
    let max_header_size = bounds.max_header_size.saturating_mul(LENIENCE);
    let mut builder = http2::Builder::new(tasks.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_EARLY_RESETS)
        .max_local_error_reset_streams(MAX_MISTAKES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(max_header_size).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(bounds.header_timeout);
    if S::WEBSOCKETS {
        builder.enable_connect_protocol();
    }
    let wire = Wire::unfollowed(fresh, &bounds);
    let answer = {
        let streams = streams.clone();
        service_fn(move |mut request: Request<Incoming>| {
            join_crumbs(request.headers_mut());
            let refusal = refused
                .or(bounds.refusal(&request))
                .or(odd_space(request.headers()));
            let stream = Stream::begin(&streams);
            answer(
                service.clone(),
                request,
                peer,
                refusal,
                stream,
                bounds.streams.clone(),
            )
        })
    };
    let engine = builder.serve_connection(TokioIo::new(wire), answer);
    let mut engine = pin!(engine);
    // Since when nothing new is taken.
    let mut leaving = None;
    loop {
        tokio::select! {
            // First: requests that have arrived before the stop are still served.
            biased;
            ended = engine.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                break;
            }
            () = cut.cancelled() => break,
            () = streams.flooded.notified() => {
                tracing::warn!(%peer, "closed an HTTP/2 connection that begins requests only to give them up");
                break;
            }
            // GOAWAY: the streams under way finish, no new ones are taken (RFC 9113 §6.8).
            () = stop.cancelled(), if leaving.is_none() => {
                engine.as_mut().graceful_shutdown();
                leaving = Some(Instant::now());
            }
            () = tokio::time::sleep_until(streams.patience(leaving)) => {
                if streams.patience(leaving) > Instant::now() {
                    continue;
                }
                // Who has said nothing yet, or nothing to our GOAWAY, is not waited for any longer.
                if leaving.is_some() || !streams.have_begun() {
                    break;
                }
                engine.as_mut().graceful_shutdown();
                leaving = Some(Instant::now());
            }
        }
    }
    tasks.end.cancel();
    tasks.tracker.close();
    tasks.tracker.wait().await;
}

async fn answer<S: Service>(
    service: S,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    refusal: Option<Refusal>,
    mut stream: Stream,
    places: Arc<Semaphore>,
) -> Result<Response<Reply<S::Body, Stream>>, Infallible> {
    // As a connection beyond those that are allowed waits, so does a stream; the semaphore is never closed.
    stream.place = places.acquire_owned().await.ok();
    if request.extensions().get::<Protocol>().is_some() {
        let hold = stream.hold();
        request.extensions_mut().insert(hold);
    }
    let answered = match refusal {
        Some(refusal) => Err((refusal, Some(&request))),
        None => match caught(|| service.call(request, peer)).await {
            Some(Ok(response)) => Ok(response),
            None => Err((Refusal::Panic, None)),
        },
    };
    stream.is_answered();
    let mut response = match answered {
        Ok(response) => response.map(|body| Reply::of(body, stream)),
        Err((refusal, request)) => Reply::refusal(&service, refusal, request, peer, stream),
    };
    // "An endpoint MUST NOT generate an HTTP/2 message containing connection-specific header fields" (RFC 9113 §8.2.2).
    response.headers_mut().remove(header::CONNECTION);
    Ok(response)
}

/// "If there are multiple Cookie header fields after decompression, these MUST be concatenated into a single octet string
/// using the two-octet delimiter of 0x3b, 0x20 (the ASCII string '; ') before being passed into a non-HTTP/2 context"
/// (RFC 9113 §8.2.3).
fn join_crumbs(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if let (Some(_), None) | (None, _) = (crumbs.next(), crumbs.next()) {
        return;
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    // Each crumb is a value, and so is the whole.
    if let Ok(mut line) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        line.set_sensitive(true);
        headers.insert(header::COOKIE, line);
    }
}

/// "A field value MUST NOT start or end with an ASCII whitespace character (ASCII SP or HTAB, 0x20 and 0x09)" (RFC 9113
/// §8.2.1): in HTTP/1.1 it would be another value.
fn odd_space(headers: &HeaderMap) -> Option<Refusal> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let mut values = headers.values().map(HeaderValue::as_bytes);
    values
        .any(|value| is_space(value.first()) || is_space(value.last()))
        .then_some(Refusal::OddSpace)
}

tokio::task_local! {
    /// Ends what sends the bytes of the stream's tunnel, once it is one.
    static TUNNEL: OnceCell<CancellationToken>;
}

/// Where the streams of a connection run; hyper starts a task for each, and from within that another one which sends the
/// bytes of the tunnel that the stream has become.
#[derive(Clone)]
struct Tasks {
    tracker: TaskTracker,
    end: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let tunnel = TUNNEL.try_with(|end| end.get().cloned()).ok().flatten();
        let end = tunnel.unwrap_or_else(|| self.end.clone());
        let stream = TUNNEL.scope(OnceCell::new(), stream);
        // Not by the token's own method, which would keep room for the stream twice.
        self.tracker.spawn(stream.with_cancellation_token_owned(end));
    }
}

/// The streams of one connection.
struct Streams {
    header_timeout: Duration,
    idle_timeout: Duration,
    count: Mutex<Count>,
    /// Told when it is enough.
    flooded: Notify,
    /// Ends them all.
    end: CancellationToken,
}

struct Count {
    /// How many there have been, and how many are under way.
    begun: u64,
    open: u64,
    /// Those that were answered, at least with a head; and those that were given up before.
    answered: u64,
    given_up: u64,
    /// When the last one ended, or the connection came.
    idle_since: Instant,
}

impl Count {
    /// One that was under way is not any more.
    fn end(&mut self) {
        self.open -= 1;
        if self.open == 0 {
            self.idle_since = Instant::now();
        }
    }
}

impl Streams {
    fn new(bounds: &Bounds, since: Instant, end: CancellationToken) -> Self {
        Self {
            header_timeout: bounds.header_timeout,
            idle_timeout: bounds.idle_timeout,
            count: Mutex::new(Count {
                begun: 0,
                open: 0,
                answered: 0,
                given_up: 0,
                idle_since: since,
            }),
            flooded: Notify::new(),
            end,
        }
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn have_begun(&self) -> bool {
        self.count().begun > 0
    }

    /// Until when the connection may go on without a further stream, as it looks now.
    fn patience(&self, leaving: Option<Instant>) -> Instant {
        let count = self.count();
        match leaving {
            // However long a stream takes: look again later.
            _ if count.open > 0 => Instant::now() + PARTING,
            Some(leaving) => count.idle_since.max(leaving) + PARTING,
            None if count.begun == 0 => count.idle_since + self.header_timeout,
            None => count.idle_since + self.idle_timeout,
        }
    }
}

/// A stream under way: until its answer is sent, or given up.
struct Stream {
    streams: Arc<Streams>,
    answered: bool,
    /// Its place among those of all connections; what may become a tunnel has it in its hold.
    place: Option<OwnedSemaphorePermit>,
    hold: Option<Hold>,
}

/// A hold on a stream of HTTP/2 that may become a tunnel, for as long as that lasts: it keeps its place, and its
/// connection is not idle. Let go, the stream is reset with what could not be sent; what shut down cleanly before that
/// has been sent. It is among the extensions of a request with an extended CONNECT.
#[derive(Clone)]
pub struct Hold {
    _held: Arc<Held>,
}

struct Held {
    streams: Arc<Streams>,
    _place: Option<OwnedSemaphorePermit>,
    _end: DropGuard,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.streams.count().end();
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hold")
    }
}

impl Stream {
    fn begin(streams: &Arc<Streams>) -> Self {
        let mut count = streams.count();
        count.begun += 1;
        count.open += 1;
        Self {
            streams: streams.clone(),
            answered: false,
            place: None,
            hold: None,
        }
    }

    fn hold(&mut self) -> Hold {
        self.streams.count().open += 1;
        let end = self.streams.end.child_token();
        let _is_set = TUNNEL.try_with(|tunnel| tunnel.set(end.clone()));
        let stream = Held {
            streams: self.streams.clone(),
            _place: self.place.take(),
            _end: end.drop_guard(),
        };
        let hold = Hold {
            _held: Arc::new(stream),
        };
        self.hold.insert(hold).clone()
    }

    fn is_answered(&mut self) {
        self.answered = true;
        self.streams.count().answered += 1;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut count = self.streams.count();
        count.end();
        if !self.answered {
            count.given_up += 1;
            if count.given_up > GIVEN_UP && count.given_up > count.answered {
                self.streams.flooded.notify_one();
            }
        }
    }
}

//! Takes connections and turns them into requests.
//!
//! Generic over what answers, so the public, admin and demo listeners share it. Everything a stranger can make grow is
//! bounded here: connections (further ones wait in the kernel's queue, but for one a listener), the head's size, lines and time, the target's
//! length, the time between requests, what is read of a body that nobody wanted.
//!
//! INVARIANT: bytes of one request are never read as another: a body that was not read to its end, or whose framing was
//! chunked, ends the connection.
//! INVARIANT: a panic while one request is answered is that request's 500, and nobody else's trouble.
//!
//! A connection's way: `connection` opens it (`opening`, `tls`), then `http1` or `http2` serves it over a `wire`; one of
//! HTTP/1.1 that falls idle waits in `parking`, without its engine.
//!
//! Sources: RFC 9112 §2.2, §3, §9.3, §9.6; RFC 9113 §3, §10.5; RFC 6585 §5; hyper's header-read timeout needs a timer, so
//! the time is kept here (`wire`).

mod connection;
mod following;
mod http1;
mod http2;
mod opening;
mod parking;
mod reply;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub use http2::Hold;
pub use tls::Tls;

use crate::cores::Seat;
use connection::Connection;
use http_body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long accepting rests after a failure that the next attempt would meet again, such as no free descriptors.
const REST: Duration = Duration::from_millis(100);

/// How long a connection is silent before TCP asks whether the other side is still there, and between such questions.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long a connection may wait for its next request. Above the 60 s for which load balancers keep theirs.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Bounds of a listener.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How long a request's head may take.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request: [`IDLE_TIMEOUT`], but in tests.
    pub idle_timeout: Duration,
    /// The largest head, bytes.
    pub max_header_size: usize,
    /// The most header lines.
    pub max_headers: usize,
    /// A place for each connection; listeners whose bounds are clones of each other share them.
    pub places: Arc<Semaphore>,
    /// A place for each stream of HTTP/2, which can make us hold as much as a connection of HTTP/1.1.
    pub streams: Arc<Semaphore>,
    /// How many connections speak HTTP/1.1 just now: neither idle for long nor a tunnel. What each may buffer depends on it.
    pub speaking: Arc<AtomicUsize>,
}

/// Places for so many connections at one time, at least one.
#[must_use]
pub fn places(max_connections: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(max_connections.clamp(1, Semaphore::MAX_PERMITS)))
}

/// What a connection holds for as long as it lives, also as a tunnel.
#[derive(Debug)]
struct Place {
    /// Among those that the listener allows.
    _permit: OwnedSemaphorePermit,
    /// On a core.
    seat: Seat,
}

impl Place {
    fn with(permit: OwnedSemaphorePermit) -> Self {
        Self {
            _permit: permit,
            seat: Seat::take(),
        }
    }
}

/// Where connections come from.
#[derive(Debug)]
pub struct Socket {
    /// Bound and listening.
    pub tcp: tokio::net::TcpListener,
    /// The certificate; `None`: in clear.
    pub tls: Option<Tls>,
}

/// Why the listener refuses a request on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: a `#` stands in the request target.
    Fragment,
    /// 400: it came in clear where TLS is spoken.
    PlainHttp,
    /// 400: a header's value begins or ends with a space, which only HTTP/2 can send.
    OddSpace,
    /// 414.
    TargetTooLong,
    /// 431: too many header lines, or too long.
    HeadTooLarge,
    /// 500: answering it ended in a panic.
    Panic,
}

impl Refusal {
    /// The refusal's status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Fragment | Self::PlainHttp | Self::OddSpace => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What answers requests.
pub trait Service: Clone + Send + Sync + 'static {
    /// Whether it takes `WebSocket`s over HTTP/2, which begin with an extended CONNECT (RFC 8441): a request of method
    /// CONNECT that has [`hyper::ext::Protocol`] and [`Hold`] among its extensions.
    const WEBSOCKETS: bool = false;
    /// The response's body.
    type Body: Body<Data = bytes::Bytes, Error: Into<crate::protocol::BodyError>> + Send + Unpin + 'static;
    /// Answers one request.
    fn call(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> impl Future<Output = Result<Response<Self::Body>, Infallible>> + Send;
    /// Puts a refusal into words; `None`: the bare status. What is refused never comes to [`Service::call`]; a request
    /// that ended in a panic is gone.
    fn refuse(
        &self,
        _refusal: Refusal,
        _request: Option<&Request<Incoming>>,
        _peer: SocketAddr,
    ) -> Option<Response<Self::Body>> {
        None
    }
}

/// Serves connections until `stop` is cancelled; then no new ones are taken and no new request on old ones, and it
/// returns when those under way are finished or `cut` is cancelled.
pub async fn serve<S: Service>(
    socket: Socket,
    bounds: Bounds,
    service: S,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            // The place second: a listener that nobody calls must not keep one from the others. The one connection
            // that waits here is not read; those behind it wait in the kernel's queue, which is bounded.
            let (stream, peer) = socket.tcp.accept().await?;
            let place = bounds.places.clone().acquire_owned().await;
            Ok((stream, peer, place.map_err(std::io::Error::other)?))
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = cut.cancelled() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                tune(&stream);
                let connection = Connection {
                    peer,
                    bounds: bounds.clone(),
                    service: service.clone(),
                    stop: stop.clone(),
                    cut: cut.clone(),
                    refused: None,
                };
                seat(
                    stream,
                    socket.tls.clone(),
                    connection,
                    Place::with(place),
                    &connections,
                );
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(REST).await;
            }
        }
    }
    drop(socket);
    connections.close();
    connections.wait().await;
}

/// Serves a connection on the core where it has its seat.
fn seat<S: Service>(
    stream: TcpStream,
    tls: Option<Tls>,
    connection: Connection<S>,
    place: Place,
    connections: &TaskTracker,
) {
    let Some(core) = place.seat.elsewhere() else {
        connections.spawn(connection::serve(stream, tls, connection, place));
        return;
    };
    // Of what becomes of the socket that core is to be told, and not this one.
    let stream = stream.into_std();
    let serve = async move {
        match stream.and_then(TcpStream::from_std) {
            Ok(stream) => connection::serve(stream, tls, connection, place).await,
            Err(error) => tracing::warn!(%error, "a connection cannot be served"),
        }
    };
    connections.spawn_on(serve, core);
}

/// Answers are written whole, so nothing is gained by waiting for more of them; and a browser that vanished without a
/// word is noticed, also by a stream or tunnel that has nothing to say.
fn tune(stream: &TcpStream) {
    let probes = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(stream).set_tcp_keepalive(&probes));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a connection's options cannot be set");
    }
}

/// Whether an error of `accept` is about the connection that was not taken rather than about us.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

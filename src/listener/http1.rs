//! HTTP/1.1 on a connection: hyper's engine over a [`Wire`], with what a proxy needs around each request.

use super::connection::{Connection, LENIENCE, caught};
use super::following::{Following, Under};
use super::parking::{Lent, next};
use super::reply::Reply;
use super::wire::{Fresh, Wire};
use super::{Refusal, Service};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::io::{AsyncRead, AsyncWrite};

/// The largest buffer of a connection in either direction, bytes: hyper grows its read buffer towards this for large bodies,
/// and holds as much of an answer for a browser that reads slowly. Large ones halve the cost of large bodies.
const LARGE_BUFFER: usize = 256 * 1024;

/// The same while so many connections speak that large ones would add up.
const SMALL_BUFFER: usize = 64 * 1024;

/// So many connections may have large buffers at one time: those of all together are bounded by 128 MiB in each direction,
/// and by 64 KiB for each one further.
pub const LARGE_BUFFERS: usize = 512;

/// Serves one connection until it ends. After `stop` the request under way is the last; at `cut` it is dropped.
pub async fn serve<S: Service>(
    fresh: Fresh<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    connection: Connection<S>,
) {
    let following = Arc::new(Following::default());
    // The place goes with the bytes: a tunnel is still a connection.
    let mut wire = Box::new(Wire::new(fresh, &connection.bounds, following.clone()));
    // Boxed, so that a connection that is parked holds nothing of it.
    while let Some(parked) = Box::pin(speak(wire, &following, &connection)).await {
        wire = parked;
        if !next(&mut wire, &connection.stop, &connection.cut).await {
            return;
        }
    }
}

/// Speaks on a connection until it ends, or is parked.
pub async fn speak<S: Service, T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    wire: Box<Wire<T>>,
    following: &Arc<Following>,
    connection: &Connection<S>,
) -> Option<Box<Wire<T>>> {
    let Connection {
        peer,
        bounds,
        service,
        stop,
        cut,
        refused,
    } = connection;
    let speaking = Speaking::begin(&bounds.speaking);
    let (lent, mut home) = Lent::new(wire);
    let max_header_size = bounds.max_header_size.saturating_mul(LENIENCE);
    let mut builder = http1::Builder::new();
    builder
        // The wire keeps the time.
        .header_read_timeout(None)
        .max_headers(bounds.max_headers.saturating_mul(LENIENCE))
        .max_header_size(max_header_size)
        .max_buf_size(speaking.buffer().max(max_header_size));
    let answer = service_fn(move |request: Request<Incoming>| {
        // Not in the future: hyper may read on before it polls that, and the wire has to know where the body ends.
        let head = following.take_head(request.body().size_hint().exact());
        // hyper drops the fragment without a word; a request target has none (RFC 9112 §3.2).
        let fragment = head.has_fragment.then_some(Refusal::Fragment);
        let refusal = refused.or(bounds.refusal(&request)).or(fragment);
        let under_way = Under::way(following.clone());
        // What may follow CONNECT or an upgrade was meant for another protocol, whoever refused to switch.
        let is_last =
            head.is_last || request.method() == Method::CONNECT || request.headers().contains_key(UPGRADE);
        // Here, too: a request is large, and would be moved with whatever holds it.
        let answered = match refusal {
            Some(refusal) => Err((refusal, Box::new(request))),
            None => Ok(caught(move || service.call(request, *peer))),
        };
        answer(service, answered, *peer, is_last, under_way)
    });
    let mut connection = pin!(
        builder
            .serve_connection(TokioIo::new(lent), answer)
            .with_upgrades()
    );
    let ended = tokio::select! {
        // First: a request that has arrived before the stop is still served.
        biased;
        ended = connection.as_mut() => ended,
        () = cut.cancelled() => return None,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = cut.cancelled() => return None,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    home.try_recv().ok()
}

/// A connection that speaks: neither parked nor a tunnel.
struct Speaking<'a> {
    all: &'a AtomicUsize,
    others: usize,
}

impl<'a> Speaking<'a> {
    fn begin(all: &'a AtomicUsize) -> Self {
        let others = all.fetch_add(1, Relaxed);
        Self { all, others }
    }

    /// Its largest buffer. Whoever gets a large one finds fewer others than may have one, so there are never more.
    fn buffer(&self) -> usize {
        if self.others < LARGE_BUFFERS {
            LARGE_BUFFER
        } else {
            SMALL_BUFFER
        }
    }
}

impl Drop for Speaking<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
    }
}

type Answered<B> = Option<Result<Response<B>, Infallible>>;

async fn answer<S: Service>(
    service: &S,
    answered: Result<impl Future<Output = Answered<S::Body>>, (Refusal, Box<Request<Incoming>>)>,
    peer: SocketAddr,
    is_last: bool,
    under_way: Under,
) -> Result<Response<Reply<S::Body, Under>>, Infallible> {
    let following = under_way.following();
    let mut response = match answered {
        Err((refusal, request)) => refuse(service, refusal, Some(&request), peer, under_way),
        Ok(answered) => match answered.await {
            Some(Ok(response)) => response.map(|body| Reply::of(body, under_way)),
            None => refuse(service, Refusal::Panic, None, peer, under_way),
        },
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        following.leave_http();
    } else if is_last || following.is_body_outstanding() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// An answer of the listener's own; the connection ends with it.
fn refuse<S: Service>(
    service: &S,
    refusal: Refusal,
    request: Option<&Request<Incoming>>,
    peer: SocketAddr,
    under_way: Under,
) -> Response<Reply<S::Body, Under>> {
    let mut response = Reply::refusal(service, refusal, request, peer, under_way);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

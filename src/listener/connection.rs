//! One connection: hyper's engine over a [`Wire`], with what a proxy needs around each request.

use super::reply::{Reply, Under};
use super::wire::{Following, Head, Wire};
use super::{Bounds, Refusal, Service};
use http::header::CONNECTION;
use http::{HeaderValue, Method, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// The longest request target, bytes.
const MAX_TARGET: usize = 8 * 1024;

/// The largest buffer of a connection, bytes: hyper grows its read buffer towards this for large bodies.
const MAX_BUFFER: usize = 256 * 1024;

/// Serves one connection until it ends. After `stop` the request under way is the last; at `cut` it is dropped.
pub async fn serve<S: Service>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    bounds: &Bounds,
    service: S,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let following = Arc::new(Following::default());
    // The place goes with the bytes: a tunnel is still a connection.
    let wire = Wire::new(stream, place, bounds.header_timeout, following.clone());
    let answer = service_fn(move |request: Request<Incoming>| {
        // Not in the future: hyper may read on before it polls that, and the wire has to know where the body ends.
        let head = following.take_head(request.body().size_hint().exact());
        let under_way = Under::way(following.clone());
        answer(service.clone(), request, peer, head, under_way)
    });
    let connection = http1::Builder::new()
        // The wire keeps the time.
        .header_read_timeout(None)
        .max_headers(bounds.max_headers)
        .max_header_size(bounds.max_header_size)
        .max_buf_size(MAX_BUFFER.max(bounds.max_header_size))
        .serve_connection(TokioIo::new(wire), answer)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = cut.cancelled() => return,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer<S: Service>(
    service: S,
    request: Request<Incoming>,
    peer: SocketAddr,
    head: Head,
    under_way: Under,
) -> Result<Response<Reply<S::Body>>, Infallible> {
    let is_last = head.is_last || request.method() == Method::CONNECT;
    let following = under_way.following();
    // "A server that receives a request-target longer than any URI it wishes to parse MUST respond with a 414"
    // (RFC 9112 §3). hyper's own bound is 64 KiB.
    let refused = if target_length(&request) > MAX_TARGET {
        Some(Refusal::TargetTooLong)
    // hyper drops the fragment without a word; a request target has none (RFC 9112 §3.2).
    } else if head.has_fragment {
        Some(Refusal::Fragment)
    } else {
        None
    };
    let mut response = match refused {
        Some(refusal) => refuse(&service, refusal, Some(&request), peer, under_way),
        None => match caught(service.call(request, peer)).await {
            Some(Ok(response)) => response.map(|body| Reply::of(body, under_way)),
            None => refuse(&service, Refusal::Panic, None, peer, under_way),
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
) -> Response<Reply<S::Body>> {
    let mut response = match service.refuse(refusal, request, peer) {
        Some(response) => response.map(|body| Reply::of(body, under_way)),
        None => Reply::bare(refusal.status(), under_way),
    };
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn target_length(request: &Request<Incoming>) -> usize {
    let target = request.uri();
    let authority = target.authority().map_or(0, |authority| authority.as_str().len());
    authority + target.path_and_query().map_or(0, |path| path.as_str().len())
}

/// Runs a future to its end, or to its panic: then `None`. The panic hook has said where it was.
async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let outcome = poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        },
    )
    .await;
    if outcome.is_none() {
        tracing::error!("a request was ended by a panic");
    }
    outcome
}

//! HTTP/2 on a connection: hyper's engine with its limits set, and what it does not bound.
//!
//! Each stream is a request like any other by the time that the service sees it: its cookie crumbs are one line again.
//! hyper and h2 refuse what is malformed (RFC 9113 §8.1.1) and bound CONTINUATION frames, empty DATA frames, resets before
//! a stream was taken up, and streams that end in an error of the peer's. Bounded here: silence, streams that are given up
//! one after the other as soon as they are taken up, and those that nobody reads. A head without an end is the connection's
//! silence: it holds no more than that may be, and no longer, unless other streams are under way.
//!
//! A WebSocket is a stream of its own (RFC 8441); what its request asks for is the service's to understand. Such a stream
//! outlives its answer, so who joins it with another connection keeps a [`Hold`] on it.
//!
//! INVARIANT: a stream's work ends with its stream, and every stream's with the connection.
//! INVARIANT: what a stream may make us hold is bounded by the constants below, and all listeners' streams together by their
//! places, which are as many as those of connections: over HTTP/1.1 each would be a connection. Beside them a connection may
//! have as many ends of answers that h2 has not sent.
//!
//! Sources: RFC 8441; RFC 9113 §5.1.2, §6.8, §8.2.3, §10.5; CVE-2023-44487 (rapid reset).

mod answer;
mod streams;
mod tasks;

pub use streams::Hold;

use super::connection::{Connection, LENIENCE, caught};
use super::following::Following;
use super::reply::Reply;
use super::wire::{Fresh, Wire};
use super::{Refusal, Service};
use answer::Answer;
use http::{HeaderMap, HeaderValue, header};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use streams::{Leaving, Stream, Streams};
use tasks::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::Instant;

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
    let tasks = Tasks::default();
    let following = Arc::new(Following::default());
    let streams = Arc::new(Streams::new(
        &bounds,
        fresh.since,
        following.clone(),
        tasks.end.clone(),
    ));
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
        // No PINGs of ours. An answer to one stands behind all that the kernel and the network hold for a slow browser, half a
        // minute of bytes and more; that nobody is there any more, TCP notices.
        .keep_alive_interval(None);
    if S::WEBSOCKETS {
        builder.enable_connect_protocol();
    }
    let wire = Wire::unfollowed(fresh, &bounds, following);
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
    let (mut leaving, mut is_stopped) = (None, false);
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
            () = stop.cancelled(), if !is_stopped => {
                engine.as_mut().graceful_shutdown();
                leaving = Some(Leaving::stopped());
                is_stopped = true;
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
                leaving = Some(Leaving::idle());
            }
        }
    }
    tasks.end().await;
}

async fn answer<S: Service>(
    service: S,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    refusal: Option<Refusal>,
    mut stream: Stream,
    places: Arc<Semaphore>,
) -> Result<Response<Answer<S::Body>>, Infallible> {
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
    let streams = stream.streams();
    let mut response = match answered {
        Ok(response) => response.map(|body| Reply::of(body, stream)),
        Err((refusal, request)) => Reply::refusal(&service, refusal, request, peer, stream),
    };
    // "An endpoint MUST NOT generate an HTTP/2 message containing connection-specific header fields" (RFC 9113 §8.2.2).
    response.headers_mut().remove(header::CONNECTION);
    Ok(response.map(|reply| Answer::of(reply, streams)))
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

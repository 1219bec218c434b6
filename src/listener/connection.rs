//! One connection: it is opened, then HTTP/1.1 or HTTP/2 is spoken on it; and what both have in common.
//!
//! INVARIANT: whatever a connection does in its first moments, it has done within `header_timeout` or it ends.

use super::opening::{Opened, Protocol, open};
use super::tls::Tls;
use super::wire::Fresh;
use super::{Bounds, Place, Refusal, Service, http1, http2};
use bytes::BytesMut;
use hyper::Request;
use hyper::body::Incoming;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The longest request target, bytes.
const MAX_TARGET: usize = 8 * 1024;

/// How many times over hyper takes a head before it refuses it with a bare status; up to that we have words for it.
pub const LENIENCE: usize = 2;

/// Serves one connection until it ends. After `stop` the requests under way are the last; at `cut` they are dropped.
pub async fn serve<S: Service>(
    stream: TcpStream,
    tls: Option<Tls>,
    mut connection: Connection<S>,
    place: Place,
) {
    let since = Instant::now();
    let deadline = since + connection.bounds.header_timeout;
    let opened = tokio::select! {
        // First: what has arrived before the stop is still served.
        biased;
        opened = tokio::time::timeout_at(deadline, open(stream, tls.as_ref())) => opened,
        () = connection.stop.cancelled() => return,
        () = connection.cut.cancelled() => return,
    };
    match opened {
        Ok(Ok(Opened::Clear(stream, protocol, begun))) => {
            connection.refused = tls.map(|_| Refusal::PlainHttp);
            let fresh = Fresh {
                stream,
                begun,
                since,
                place,
            };
            connection.speak(protocol, fresh).await;
        }
        Ok(Ok(Opened::Tls(stream, protocol))) => {
            let begun = BytesMut::new();
            let fresh = Fresh {
                stream,
                begun,
                since,
                place,
            };
            connection.speak(protocol, fresh).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a connection was not opened"),
        Err(_) => tracing::debug!("a connection said nothing, or took too long to say it"),
    }
}

/// What is known of a connection before it speaks.
pub struct Connection<S> {
    pub peer: SocketAddr,
    pub bounds: Bounds,
    pub service: S,
    /// After this the requests under way are the last.
    pub stop: CancellationToken,
    /// At this they are dropped.
    pub cut: CancellationToken,
    /// Every request gets this answer.
    pub refused: Option<Refusal>,
}

impl<S: Service> Connection<S> {
    async fn speak(
        self,
        protocol: Protocol,
        fresh: Fresh<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
    ) {
        match protocol {
            Protocol::Http1 => http1::serve(fresh, self).await,
            // Boxed: it is large, and most speak the other one.
            Protocol::Http2 => Box::pin(http2::serve(fresh, self)).await,
        }
    }
}

impl Bounds {
    /// What of a request's head is too much, whatever hyper thinks of it.
    pub fn refusal(&self, request: &Request<Incoming>) -> Option<Refusal> {
        let target = request.uri();
        let authority = target.authority().map_or(0, |authority| authority.as_str().len());
        let target = authority + target.path_and_query().map_or(0, |path| path.as_str().len());
        // "A server that receives a request-target longer than any URI it wishes to parse MUST respond with a 414"
        // (RFC 9112 §3). hyper's own bound is 64 KiB.
        if target > MAX_TARGET {
            return Some(Refusal::TargetTooLong);
        }
        // "A server that receives a request header field line, field value, or set of fields larger than it wishes to
        // process MUST respond with an appropriate 4xx (Client Error) status code" (RFC 9110 §5.4). A line may take half
        // of what the whole head may; lengths are as in HTTP/1.1, with a colon, a space and a line end.
        let lines = request.headers().iter();
        let lengths = lines.map(|(name, value)| name.as_str().len() + value.len() + 4);
        let (sum, longest) = lengths.fold((0, 0), |(sum, longest), length| {
            (sum + length, length.max(longest))
        });
        let too_large = request.headers().len() > self.max_headers
            || target + sum > self.max_header_size
            || longest > self.max_header_size / 2;
        too_large.then_some(Refusal::HeadTooLarge)
    }
}

/// Runs a future to its end, or to its panic: then `None`. The panic hook has said where it was.
///
/// It runs in a box because hyper keeps room for a request's future in each connection, also while that waits, and moves
/// it about: with the whole way of a request in it that would be many kilobytes. It is made in there, and at once, for the
/// same reason.
pub fn caught<F: Future>(make: impl FnOnce() -> F) -> impl Future<Output = Option<F::Output>> {
    let mut future = Box::into_pin(Box::write(Box::new_uninit(), make()));
    poll_fn(
        move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => {
                tracing::error!("a request was ended by a panic");
                Poll::Ready(None)
            }
        },
    )
}

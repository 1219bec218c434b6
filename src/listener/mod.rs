//! Takes connections and turns them into requests.
//!
//! Generic over what answers, so the public, admin and demo listeners share it.

use http_body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

/// Bounds of a listener.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How long a request's head may take.
    pub header_timeout: Duration,
    /// The largest head, bytes.
    pub max_header_size: usize,
    /// The most header lines.
    pub max_headers: usize,
    /// The most connections at one time.
    pub max_connections: usize,
}

/// What answers requests.
pub trait Service: Clone + Send + Sync + 'static {
    /// The response's body.
    type Body: Body<Data = bytes::Bytes, Error: Into<crate::protocol::BodyError>> + Send + 'static;
    /// Answers one request.
    fn call(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> impl Future<Output = Result<Response<Self::Body>, Infallible>> + Send;
}

/// Serves connections until `stop` is cancelled; then no new ones are taken and no new request on old ones, and it
/// returns when those under way are finished or `cut` is cancelled.
pub async fn serve<S: Service>(
    _socket: tokio::net::TcpListener,
    _bounds: Bounds,
    _service: S,
    _stop: tokio_util::sync::CancellationToken,
    _cut: tokio_util::sync::CancellationToken,
) {
    unimplemented!()
}

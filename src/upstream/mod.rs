//! The APIs behind the routes: pooled keep-alive connections, behind one function.

use crate::protocol::BodyError;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response};

/// A request body on its way up.
pub type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// Why there is no response head.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Refused, or broke off before its head: 502.
    #[error("the upstream is not available: {0}")]
    Unavailable(String),
    /// Late: 504.
    #[error("the upstream sent no response head in time")]
    Timeout,
}

/// One route's upstream: an origin or several, with a pool of connections.
#[derive(Debug)]
pub struct Upstream {}

impl Upstream {
    /// Sends a request up and waits for the head, at most `timeout`. The request's URI is origin-form: path and query
    /// go up byte for byte. A stale pooled connection is retried once where nothing was sent.
    ///
    /// # Errors
    /// [`UpstreamError`]
    pub async fn send(
        &self,
        _request: Request<RequestBody>,
        _timeout: std::time::Duration,
    ) -> Result<Response<Incoming>, UpstreamError> {
        unimplemented!()
    }
}

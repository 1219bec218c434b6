//! The APIs behind the routes: pooled keep-alive connections, behind one function.
//!
//! On a request's way this is the far end: `proxy` has made the head that goes up, [`Upstream::send`] chooses the origin
//! and brings the response's head back; both bodies stream on after it.
//!
//! INVARIANT: path and query go up byte for byte; no URL library touches them.
//! INVARIANT: a request of which anything was sent is never sent again (RFC 9110 §9.2.2).
//!
//! Sources: RFC 9110 §7.2, §9.2.2; RFC 9112 §3.2.1.

mod connect;
mod lending;
#[cfg(test)]
pub(crate) mod raw;
#[cfg(test)]
mod tests;

use crate::protocol::BodyError;
use bytes::Bytes;
use connect::{Connector, Late};
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri, Version};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lending::Lender;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A request body on its way up.
pub type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// How long a connection may take: name, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next request. Shorter than the 5 s after which Node, uvicorn and Apache close
/// theirs: a request that meets a closing connection is a 502 that nobody deserved.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The most idle connections that are kept, for each origin.
const MAX_IDLE: usize = 256;

/// The largest read buffer of a connection, bytes.
const MAX_BUFFER: usize = 256 * 1024;

/// How long an origin that refused a connection is asked only after the others, milliseconds.
const REFUSED_FOR: u64 = 5_000;

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

/// What `check --online` found out about one origin.
#[derive(Debug)]
pub struct Checked {
    /// The origin: `https://orders:8443`.
    pub origin: String,
    /// How long the attempt took.
    pub took: Duration,
    /// What went wrong and what to do about it.
    pub outcome: Result<(), String>,
}

/// One route's upstream: an origin or several, with a pool of connections.
#[derive(Debug)]
pub struct Upstream {
    origins: Vec<Origin>,
    next: AtomicUsize,
    started: Instant,
    connector: Connector,
    client: Client<Connector, RequestBody>,
}

#[derive(Debug)]
struct Origin {
    scheme: Scheme,
    authority: Authority,
    /// Its own name as `Host` says it: the scheme's own port is left out.
    host: HeaderValue,
    /// Milliseconds after [`Upstream::started`]; before that it is asked last.
    refused_until: AtomicU64,
}

impl Upstream {
    /// Takes one or several `http` or `https` origins; `ca` is a PEM file of authorities trusted beside the system's.
    ///
    /// # Errors
    /// A sentence for the operator: what was found and what is wanted.
    pub fn new(origins: &[String], ca: Option<&Path>) -> Result<Self, String> {
        if origins.is_empty() {
            return Err("an upstream needs at least one origin".into());
        }
        let origins: Vec<Origin> = origins
            .iter()
            .map(|text| Origin::parse(text))
            .collect::<Result<_, _>>()?;
        let needs_tls = origins.iter().any(|origin| origin.scheme == Scheme::HTTPS);
        let connector = Connector::new(needs_tls, ca)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_max_buf_size(MAX_BUFFER)
            .set_host(false)
            .build(connector.clone());
        Ok(Self {
            origins,
            next: AtomicUsize::new(0),
            started: Instant::now(),
            connector,
            client,
        })
    }

    /// The first origin's own name, as `Host` says it.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.origins[0].host.to_str().unwrap_or_default()
    }

    /// Sends a request up and waits for the head, at most `timeout` (counted anew while the request's body still moves).
    /// The request's URI is origin-form: path and query go up byte for byte. One without `Host` gets the name of the
    /// origin that is chosen. A stale pooled connection is retried where nothing was sent, and so is an origin that
    /// refuses the connection, if there is another.
    ///
    /// # Errors
    /// [`UpstreamError`]
    ///
    /// # Cancel safety
    /// Dropping the future breaks the upstream request off: it may have been carried out or not.
    pub async fn send(
        &self,
        request: Request<RequestBody>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let (parts, body) = request.into_parts();
        if body.is_end_stream() {
            return tokio::time::timeout(timeout, self.try_origins(parts, Lender::nothing))
                .await
                .unwrap_or(Err(UpstreamError::Timeout));
        }
        let lender = Lender::new(body);
        tokio::select! {
            result = self.try_origins(parts, || lender.lend()) => result,
            () = lender.still_for(timeout) => Err(UpstreamError::Timeout),
        }
    }

    async fn try_origins(
        &self,
        parts: http::request::Parts,
        body: impl Fn() -> RequestBody,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut parts = Some(parts);
        let candidates = self.in_order();
        let last = candidates.len() - 1;
        for (n, origin) in candidates.into_iter().enumerate() {
            let head = if n == last { parts.take() } else { parts.clone() };
            let Some(head) = head else { break };
            let request = origin.address(Request::from_parts(head, body()))?;
            match self.client.request(request).await {
                Ok(response) => return Ok(response),
                // Nothing was sent: the body was not even asked for.
                Err(error) if error.is_connect() => {
                    let until = self.now().saturating_add(REFUSED_FOR);
                    origin.refused_until.store(until, Ordering::Relaxed);
                    tracing::warn!(origin = %origin, error = %root(&error), "the upstream takes no connection");
                    if n == last {
                        return Err(origin.error(&error));
                    }
                }
                Err(error) => return Err(origin.error(&error)),
            }
        }
        Err(UpstreamError::Unavailable("no origin is left".into()))
    }

    /// The origins in turn, those that refused a moment ago after the others.
    fn in_order(&self) -> Vec<&Origin> {
        let count = self.origins.len();
        if count == 1 {
            return vec![&self.origins[0]];
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut candidates: Vec<&Origin> = (0..count)
            .map(|n| &self.origins[first.wrapping_add(n) % count])
            .collect();
        let now = self.now();
        candidates.sort_by_key(|origin| origin.refused_until.load(Ordering::Relaxed) > now);
        candidates
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Connects to each origin once: name, TCP and TLS; nothing is sent.
    pub async fn check_online(&self) -> Vec<Checked> {
        let mut all = Vec::with_capacity(self.origins.len());
        for origin in &self.origins {
            let began = Instant::now();
            let outcome = match self.connector.try_connect(origin.uri("/")).await {
                Ok(()) => Ok(()),
                Err(error) if error.is::<Late>() => Err(format!(
                    "no connection within {} s; is there a firewall between, or the wrong port?",
                    CONNECT_TIMEOUT.as_secs()
                )),
                Err(error) => Err(format!(
                    "{}; is it running, is the name right, and is its certificate trusted (see the route's `ca`)?",
                    root(error.as_ref())
                )),
            };
            all.push(Checked {
                origin: origin.to_string(),
                took: began.elapsed(),
                outcome,
            });
        }
        all
    }
}

impl Origin {
    fn parse(text: &str) -> Result<Self, String> {
        let wanted = "wanted: an origin such as http://orders:8080, without a path";
        let uri: Uri = text
            .parse()
            .map_err(|_| format!("the upstream is not a URL; {wanted}"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::HTTP,
            Some("https") => Scheme::HTTPS,
            _ => return Err(format!("the upstream has no http or https scheme; {wanted}")),
        };
        let authority = uri
            .authority()
            .filter(|authority| !authority.host().is_empty())
            .ok_or_else(|| format!("the upstream has no host; {wanted}"))?;
        if authority.as_str().contains('@') {
            return Err(format!("the upstream holds credentials; {wanted}"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return Err(format!("the upstream holds more than an origin; {wanted}"));
        }
        let default_port = if scheme == Scheme::HTTPS { 443 } else { 80 };
        let host = match authority.port_u16() {
            Some(port) if port != default_port => format!("{}:{port}", authority.host()),
            _ => authority.host().to_owned(),
        };
        Ok(Self {
            scheme,
            authority: authority.clone(),
            host: HeaderValue::try_from(host)
                .map_err(|_| format!("the upstream has no usable host; {wanted}"))?,
            refused_until: AtomicU64::new(0),
        })
    }

    fn uri(&self, path: &'static str) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// Directs a request to this origin. The client cuts scheme and authority off again before it writes the target.
    fn address(&self, mut request: Request<RequestBody>) -> Result<Request<RequestBody>, UpstreamError> {
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        target.scheme = Some(self.scheme.clone());
        target.authority = Some(self.authority.clone());
        target
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() =
            Uri::from_parts(target).map_err(|error| UpstreamError::Unavailable(error.to_string()))?;
        *request.version_mut() = Version::HTTP_11;
        request
            .headers_mut()
            .entry(HOST)
            .or_insert_with(|| self.host.clone());
        Ok(request)
    }

    fn error(&self, error: &Error) -> UpstreamError {
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if cause.is::<Late>() {
                return UpstreamError::Timeout;
            }
            source = cause.source();
        }
        UpstreamError::Unavailable(format!("{self}: {}", root(error)))
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// The innermost cause, which is the one that says something.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

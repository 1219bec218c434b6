//! The APIs behind the routes: pooled keep-alive connections, behind one function.
//!
//! On a request's way this is the far end: `proxy` has made the head that goes up, [`Upstream::send`] chooses the origin
//! and brings the response's head back; both bodies stream on after it.
//!
//! INVARIANT: path and query go up byte for byte; no URL library touches them.
//! INVARIANT: a request of which anything was sent is never sent again (RFC 9110 §9.2.2), unless an HTTP/2 upstream says
//! that it has not looked at it (RFC 9113 §8.7).
//!
//! Sources: RFC 9110 §7.2, §9.2.2; RFC 9112 §3.2.1.

mod body;
mod connect;
mod driven;
mod flow;
mod http2;
mod lending;
mod origin;
mod pool;
#[cfg(test)]
pub(crate) mod raw;
#[cfg(test)]
mod tests;

use crate::config::Protocol;
use crate::protocol::BodyError;
use bytes::Bytes;
use connect::Connector;
use http::Version;
use http::header::HOST;
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response};
use lending::Lender;
use origin::{Address, Origin, is_late};
use pool::{Again, Failed};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

pub use body::ResponseBody;

/// A request body on its way up.
pub type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// The body of a request that has none.
#[must_use]
pub fn nothing() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// How long a connection may take: name, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next request. Shorter than the 5 s after which Node, uvicorn and Apache close
/// theirs: a request that meets a closing connection is a 502 that nobody deserved.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The most idle connections that are kept, for each origin: each core keeps its share of them.
const MAX_IDLE: usize = 256;

/// The largest read buffer of a connection, bytes: large ones halve the cost of large bodies.
const LARGE_BUFFER: usize = 256 * 1024;

/// The same of a connection that is opened while an origin has so many that large ones would add up.
const SMALL_BUFFER: usize = 64 * 1024;
const LARGE_BUFFERS: usize = 512;

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
}

impl Upstream {
    /// Takes one or several `http`, `https` or `unix:` origins; `ca` is a PEM file of authorities trusted beside the
    /// system's.
    ///
    /// # Errors
    /// A sentence for the operator: what was found and what is wanted.
    pub fn new(origins: &[String], protocol: Protocol, ca: Option<&Path>) -> Result<Self, String> {
        if origins.is_empty() {
            return Err("an upstream needs at least one origin".into());
        }
        let addresses: Vec<Address> = origins
            .iter()
            .map(|text| Address::parse(text))
            .collect::<Result<_, _>>()?;
        let needs_tls = addresses.iter().any(Address::needs_tls);
        let connector = Connector::new(needs_tls, ca)?;
        let origins = addresses
            .into_iter()
            .map(|address| Origin::new(address, protocol, connector.clone()));
        Ok(Self {
            origins: origins.collect::<Result<_, _>>()?,
            next: AtomicUsize::new(0),
            started: Instant::now(),
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
        mut request: Request<RequestBody>,
        timeout: Duration,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        if request.body().is_end_stream() {
            let nothing = || Some(nothing());
            let exchange = pin!(self.try_origins(&mut request, &nothing));
            return tokio::time::timeout(timeout, exchange)
                .await
                .unwrap_or(Err(UpstreamError::Timeout));
        }
        let (head, body) = request.into_parts();
        let lender = Lender::new(body);
        let mut request = Request::from_parts(head, lender.lend());
        let again = || lender.is_whole().then(|| lender.lend());
        tokio::select! {
            result = self.try_origins(&mut request, &again) => result,
            () = lender.still_for(timeout) => Err(UpstreamError::Timeout),
        }
    }

    async fn try_origins(
        &self,
        request: &mut Request<RequestBody>,
        again: Again<'_>,
    ) -> Result<Response<ResponseBody>, UpstreamError> {
        *request.version_mut() = Version::HTTP_11;
        let has_host = request.headers().contains_key(HOST);
        // Mostly there is one, and nothing to be put in order.
        let only = [&self.origins[0]];
        let several = (self.origins.len() > 1).then(|| self.in_order());
        let mut candidates = several.as_deref().unwrap_or(&only).iter();
        while let Some(origin) = candidates.next() {
            if !has_host {
                request.headers_mut().insert(HOST, origin.host.clone());
            }
            let failed = match origin.pool.exchange(request, again).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let error = origin.error(&failed);
            // Nothing was sent: the body was not even asked for.
            let Failed::Connecting(cause) = failed else {
                return Err(error);
            };
            let until = self.now().saturating_add(REFUSED_FOR);
            origin.refused_until.store(until, Ordering::Relaxed);
            tracing::warn!(%origin, error = %root(cause.as_ref()), "the upstream takes no connection");
            if candidates.len() == 0 {
                return Err(error);
            }
        }
        Err(UpstreamError::Unavailable("no origin is left".into()))
    }

    /// The origins in turn, those that refused a moment ago after the others.
    fn in_order(&self) -> Vec<&Origin> {
        let count = self.origins.len();
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
            let outcome = match origin.pool.try_connect().await {
                Ok(()) => Ok(()),
                Err(error) if is_late(&error) => Err(format!(
                    "no connection within {} s; is there a firewall between, or the wrong port?",
                    CONNECT_TIMEOUT.as_secs()
                )),
                Err(error) if origin.is_socket() => Err(format!(
                    "{}; is it running, is the path right, and may it be written to by cloakroom's user?",
                    root(error.as_ref())
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

/// The innermost cause, which is the one that says something.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

//! HTTP/2 to an origin: all requests share one connection, and another is opened only where its streams are used up.
//!
//! What an HTTP/2 upstream says that it has not looked at is sent once more, on another connection: streams that it refuses,
//! and those above the last one that its GOAWAY names. Windows are fixed: measuring for larger ones takes pings, and gRPC
//! servers throw out who pings often.
//!
//! INVARIANT: a browser that reads slowly holds back its own stream alone: the connection's window is never used up.
//!
//! Sources: RFC 9113 §5.1.2, §6.8, §8.2.2, §8.3.1, §8.7; gRPC over HTTP/2 (`TE: trailers`), gRPC A8 (pings).

use super::RequestBody;
use crate::protocol::BodyError;
use h2::Reason;
use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, Version};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::TokioTimer;
use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// How much of one answer may be under way that nobody has read yet, bytes.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// The same of all answers of a connection: as much as HTTP/2 allows, for what stands still in one stream is taken from it.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// The largest head or trailers of an answer, bytes.
const MAX_HEADERS: u32 = 64 * 1024;

/// How long nothing may come on a connection that is in use before it is asked whether it lives. gRPC servers throw out who
/// asks more often than every five minutes.
const PING_AFTER: Duration = Duration::from_mins(6);

/// How long the answer to that may take.
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// The most connections; beyond them requests wait for a stream.
const MAX_CONNECTIONS: usize = 16;

/// After so many sweeps in which nobody used it a connection is closed: a minute.
const QUIET_SWEEPS: u32 = 15;

/// One connection, which many requests share. Each holds it until its answer has ended.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<RequestBody>,
    /// How many streams the upstream allows at a time, as far as it is known.
    most_streams: Arc<AtomicUsize>,
    quiet_sweeps: AtomicU32,
}

impl Connection {
    /// For one request.
    pub fn sender(&self) -> SendRequest<RequestBody> {
        self.sender.clone()
    }
}

/// The connections to one origin.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<Vec<Arc<Connection>>>,
    opening: tokio::sync::Mutex<()>,
    /// When and why the last attempt failed: those who waited for it do not try again one after the other.
    failed: Mutex<Option<(Instant, Arc<BodyError>)>>,
}

/// An attempt to connect that others made.
#[derive(Debug, thiserror::Error)]
#[error("{}", super::root(self.0.as_ref().as_ref()))]
pub struct TheirFailure(Arc<BodyError>);

impl TheirFailure {
    /// What it was.
    pub fn cause(&self) -> &BodyError {
        &self.0
    }
}

impl Connections {
    /// The connection with the fewest streams, if it takes one more, or if there are enough connections.
    pub fn usable(&self) -> Option<Arc<Connection>> {
        let mut open = self.open();
        open.retain(|connection| !connection.sender.is_closed());
        let least = open
            .iter()
            .min_by_key(|connection| Arc::strong_count(connection))?;
        // One holder is this list.
        let has_room = Arc::strong_count(least) <= least.most_streams.load(Ordering::Relaxed);
        (has_room || open.len() >= MAX_CONNECTIONS).then(|| {
            least.quiet_sweeps.store(0, Ordering::Relaxed);
            least.clone()
        })
    }

    /// Gives a connection no more requests; those under way go on.
    pub fn retire(&self, connection: &Arc<Connection>) {
        self.open().retain(|other| !Arc::ptr_eq(other, connection));
    }

    /// Speaks HTTP/2 on a new connection from now on.
    ///
    /// # Errors
    /// The connection broke before the first request.
    pub async fn add<T>(&self, stream: T, tasks: &TaskTracker) -> Result<Arc<Connection>, BodyError>
    where
        T: Read + Write + Send + Unpin + 'static,
    {
        let mut builder = http2::Builder::new(OnTracker(tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PONG_WITHIN);
        let (sender, mut driver) = builder.handshake::<_, RequestBody>(stream).await?;
        let most_streams = Arc::new(AtomicUsize::new(driver.current_max_send_streams()));
        let known = most_streams.clone();
        tasks.spawn(async move {
            let running = std::future::poll_fn(|cx| {
                let polled = Pin::new(&mut driver).poll(cx);
                // At least one: a server that allows none for now is waited for.
                known.store(driver.current_max_send_streams().max(1), Ordering::Relaxed);
                polled
            });
            if let Err(error) = running.await {
                tracing::debug!(%error, "a connection to an upstream ended early");
            }
        });
        let connection = Arc::new(Connection {
            sender,
            most_streams,
            quiet_sweeps: AtomicU32::new(0),
        });
        self.open().push(connection.clone());
        Ok(connection)
    }

    /// Runs one attempt to connect at a time; who waited for another's looks whether that was enough (`already`).
    ///
    /// # Errors
    /// What the attempt says; for those who waited for one that failed, the same.
    pub async fn one_at_a_time<T>(
        &self,
        already: impl Fn() -> Option<T>,
        attempt: impl Future<Output = Result<T, BodyError>>,
    ) -> Result<T, BodyError> {
        let began = Instant::now();
        let _turn = self.opening.lock().await;
        if let Some(there) = already() {
            return Ok(there);
        }
        if let Some((at, error)) = &*self.failed()
            && *at > began
        {
            return Err(TheirFailure(error.clone()).into());
        }
        attempt.await.map_err(|error| {
            let error = Arc::new(error);
            *self.failed() = Some((Instant::now(), error.clone()));
            TheirFailure(error).into()
        })
    }

    /// Closes what nobody has used for a while.
    pub fn sweep(&self) {
        self.open().retain(|connection| {
            let is_used = Arc::strong_count(connection) > 1;
            let quiet = connection.quiet_sweeps.load(Ordering::Relaxed);
            let quiet = if is_used { 0 } else { quiet + 1 };
            connection.quiet_sweeps.store(quiet, Ordering::Relaxed);
            quiet < QUIET_SWEEPS && !connection.sender.is_closed()
        });
    }

    /// How many connections there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.open().len()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, Option<(Instant, Arc<BodyError>)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a head the way of HTTP/2: the host is `:authority`, and nothing is said about the connection.
///
/// # Errors
/// The host is none.
pub fn address(request: &mut Request<RequestBody>, scheme: &Scheme) -> Result<(), BodyError> {
    // "An endpoint MUST NOT generate an HTTP/2 message containing connection-specific header fields" (RFC 9113 §8.2.2);
    // the others are gone already.
    request.headers_mut().remove(TRANSFER_ENCODING);
    let host = request.headers_mut().remove(HOST);
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.scheme = Some(scheme.clone());
    target.authority = host
        .map(|host| Authority::try_from(host.as_bytes()))
        .transpose()?;
    target
        .path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(target)?;
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

/// Whether the upstream has not looked at the request.
pub fn is_refused(error: &hyper::Error) -> bool {
    let Some(error) = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>())
    else {
        return false;
    };
    // "The REFUSED_STREAM error code can be included in a RST_STREAM frame to indicate that the stream is being closed prior
    // to any processing having occurred" and "requests that have not been processed [above the last stream of a GOAWAY] can
    // be retried" (RFC 9113 §8.7); h2 fails no other streams with a GOAWAY of the other side.
    error.is_remote()
        && (error.is_go_away() || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM))
}

#[derive(Clone)]
struct OnTracker(TaskTracker);

impl<F> Executor<F> for OnTracker
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

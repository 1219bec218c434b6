//! The one connection to Redis: opened when first needed, shared by all requests, replaced when it fails.
//!
//! INVARIANT: an answer or a fault within [`PATIENCE`], a new connection included (contract 4.6: 503 within 3 s).
//! INVARIANT: at most one attempt to connect is under way; after a failed one, requests fail at once with its fault
//! until the pause is over. Pauses grow to [`LONGEST_PAUSE`], so recovery needs no restart and takes no storm.

use super::fault::Fault;
use super::target::Target;
use crate::config::RedisSettings;
use crate::store::PATIENCE;
use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, cmd};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The longest that one attempt to connect takes: less than [`PATIENCE`], so that the request that began it sees it end.
const CONNECTING: Duration = Duration::from_millis(1500);
/// The first pause after a failed attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a connection is kept although the server calls itself the wrong one: no faster circle of new connections.
const LEAST_AGE: Duration = Duration::from_secs(1);
/// How often an idle connection is tried: whatever stands in between (a NAT, a firewall, a balancer) forgets silent
/// ones, and that should be found by us and not by the next request.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How many commands may wait to be written.
const QUEUE: usize = 1024;

/// The connection, or its absence.
pub(super) struct Link {
    target: Target,
    live: ArcSwapOption<Live>,
    attempts: Mutex<Attempts>,
    /// Drives the connections; each of them ends when the last user has let go of it.
    drivers: TaskTracker,
}

struct Live {
    connection: MultiplexedConnection,
    since: Instant,
    /// Cancelled when the connection has ended: closed by the server, perhaps while nothing was asked, or found dead.
    closed: CancellationToken,
    /// Ends the driver with the last user.
    _driven: DropGuard,
}

/// What became of the attempts to connect since the last success.
struct Attempts {
    failed: u32,
    /// Not before this moment.
    next: Instant,
    fault: Fault,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, String> {
        Ok(Self {
            target: Target::new(settings)?,
            live: ArcSwapOption::empty(),
            attempts: Mutex::new(Attempts {
                failed: 0,
                next: Instant::now(),
                fault: Fault::said("no connection yet"),
            }),
            drivers: TaskTracker::new(),
        })
    }

    /// Sends one command and reads its answer. Where the connection breaks under a `repeatable` command, it is sent
    /// once more on another: a server that restarted costs such a request nothing.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd, repeatable: bool) -> Result<T, Fault> {
        let deadline = Instant::now() + PATIENCE;
        let asked = timeout_at(deadline, async {
            match self.ask_once(command, deadline).await {
                Err(fault) if repeatable && fault.is_broken_connection() => {
                    self.ask_once(command, deadline).await
                }
                answer => answer,
            }
        });
        asked.await.unwrap_or_else(|_| Err(Fault::late()))
    }

    async fn ask_once<T: FromRedisValue>(&self, command: &Cmd, deadline: Instant) -> Result<T, Fault> {
        let live = self.connected().await?;
        let mut connection = live.connection.clone();
        let answer = match timeout_at(deadline, command.query_async::<T>(&mut connection)).await {
            Ok(answer) => answer.map_err(Fault::from),
            Err(_) => Err(Fault::late()),
        };
        if let Err(fault) = &answer
            && fault.spoils_connection()
        {
            self.drop_connection(&live, fault);
        }
        answer
    }

    /// Lets go of a connection that failed, unless another has taken its place.
    fn drop_connection(&self, failed: &Arc<Live>, fault: &Fault) {
        let server_still_answers = fault
            .kind()
            .is_some_and(|kind| matches!(kind, redis::ErrorKind::Server(_)));
        if server_still_answers && failed.since.elapsed() < LEAST_AGE {
            return;
        }
        let previous = self.live.compare_and_swap(failed, None);
        if previous
            .as_ref()
            .is_some_and(|previous| Arc::ptr_eq(previous, failed))
        {
            tracing::warn!(fault = %fault.words(), "the connection to the session store is lost");
        }
    }

    fn living(&self) -> Option<Arc<Live>> {
        self.live.load_full().filter(|live| !live.closed.is_cancelled())
    }

    async fn connected(&self) -> Result<Arc<Live>, Fault> {
        if let Some(live) = self.living() {
            return Ok(live);
        }
        let mut attempts = self.attempts.lock().await;
        if let Some(live) = self.living() {
            return Ok(live);
        }
        if Instant::now() < attempts.next {
            return Err(attempts.fault.clone());
        }
        // Counted as failed until it has succeeded: this future may be dropped at the next await.
        let pause = FIRST_PAUSE
            .saturating_mul(1 << attempts.failed.min(10))
            .min(LONGEST_PAUSE);
        attempts.failed = attempts.failed.saturating_add(1);
        attempts.next = Instant::now() + pause;
        attempts.fault = Fault::said("connecting to the server was given up");
        let attempt = timeout(CONNECTING, self.connect()).await;
        let attempt = attempt.unwrap_or_else(|_| {
            Err(Fault::said(format!(
                "no connection within {} ms",
                CONNECTING.as_millis()
            )))
        });
        match attempt {
            Ok(live) => {
                if attempts.failed > 1 {
                    tracing::info!("the session store answers again");
                }
                attempts.failed = 0;
                attempts.next = Instant::now();
                let live = Arc::new(live);
                self.live.store(Some(Arc::clone(&live)));
                Ok(live)
            }
            Err(fault) => {
                if attempts.failed == 1 {
                    tracing::error!(fault = %fault.words(), "the session store cannot be reached");
                }
                attempts.next = Instant::now() + pause;
                attempts.fault = fault.clone();
                Err(fault)
            }
        }
    }

    async fn connect(&self) -> Result<Live, Fault> {
        let info = self.target.current().map_err(Fault::Said)?;
        let stream = self.target.open(info.addr()).await?;
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(QUEUE);
        let (mut connection, driver) =
            MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await?;
        let (closed, unused) = (CancellationToken::new(), CancellationToken::new());
        let closing = closed.clone().drop_guard();
        let (letting_go, beating) = (unused.clone(), connection.clone());
        self.drivers.spawn(async move {
            tokio::select! {
                () = driver => {}
                () = letting_go.cancelled() => {}
                () = heartbeat(beating) => {}
            }
            drop(closing);
        });
        // A stopped server still accepts connections: only an answer shows that it lives.
        let _: redis::Value = cmd("PING").query_async(&mut connection).await?;
        Ok(Live {
            connection,
            since: Instant::now(),
            closed,
            _driven: unused.drop_guard(),
        })
    }
}

/// Ends when the connection has died.
async fn heartbeat(mut connection: MultiplexedConnection) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let asked = cmd("PING");
        match timeout(PATIENCE, asked.query_async::<redis::Value>(&mut connection)).await {
            // Also a refusal shows that somebody is there.
            Ok(answer) if !answer.as_ref().is_err_and(redis::RedisError::is_io_error) => {}
            _ => return,
        }
    }
}

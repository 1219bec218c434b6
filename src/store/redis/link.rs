//! The one connection to a server: opened when first needed, shared by all requests, replaced when it fails.
//!
//! INVARIANT: an answer or a fault within the caller's deadline, a new connection included (contract 4.6: 503 within 3 s).
//! INVARIANT: at most one attempt to connect is under way; after a failed one, requests fail at once with its fault
//! until the pause is over. Pauses grow to [`LONGEST_PAUSE`], so recovery needs no restart and takes no storm.
//! INVARIANT: once used, a link is opened again without anybody asking: who waits for news of a session (an open
//! WebSocket) asks nothing, and who asks several sentinels does not wait for the last of them.

use super::fault::Fault;
use super::live::Live;
use super::news::News;
use super::sentinel::{Sentinels, Watched};
use super::target::{Address, Target};
use super::tls::Tls;
use arc_swap::ArcSwapOption;
use redis::{Cmd, FromRedisValue};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

/// The longest that one attempt to connect takes: less than `PATIENCE`, so that the request that began it sees it end.
const CONNECTING: Duration = Duration::from_secs(1);
/// The first pause after a failed attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long a connection is kept although the server calls itself the wrong one: no faster circle of new connections.
const LEAST_AGE: Duration = Duration::from_secs(1);
/// How often a link that was lost is tried while nobody asks.
const KEPT_EVERY: Duration = Duration::from_millis(250);

/// How a server is found, each time anew.
#[derive(Debug)]
pub(super) enum Place {
    /// Where a URL of the config says.
    Named(Target),
    /// Where the sentinels say.
    Primary(Arc<Sentinels>),
    /// Where another node of the cluster said, with the login of one that the config names.
    Told(Target, Address),
}

/// The connection to one server, or its absence.
pub(super) struct Link {
    place: Place,
    tls: Arc<Tls>,
    /// Who wants to be told of changes; nobody at a sentinel.
    news: Option<Arc<News>>,
    live: ArcSwapOption<Live>,
    attempts: Mutex<Attempts>,
    /// Drives the connections; each of them ends when the last user has let go of it.
    drivers: TaskTracker,
    kept: AtomicBool,
    this: Weak<Self>,
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
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(place: Place, tls: Arc<Tls>, news: Option<Arc<News>>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            place,
            tls,
            news,
            live: ArcSwapOption::empty(),
            attempts: Mutex::new(Attempts {
                failed: 0,
                next: Instant::now(),
                fault: Fault::said("no connection yet"),
            }),
            drivers: TaskTracker::new(),
            kept: AtomicBool::new(false),
            this: this.clone(),
        })
    }

    /// Sends one command and reads its answer. Where the connection breaks under a `repeatable` command, it is sent
    /// once more on another: a server that restarted costs such a request nothing.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        command: &Cmd,
        repeatable: bool,
        deadline: Instant,
    ) -> Result<T, Fault> {
        self.ask_over(command, repeatable, deadline)
            .await
            .map(|(answer, _)| answer)
    }

    /// As [`Self::ask`], with the connection that the answer came over.
    pub(super) async fn ask_over<T: FromRedisValue>(
        &self,
        command: &Cmd,
        repeatable: bool,
        deadline: Instant,
    ) -> Result<(T, Arc<Live>), Fault> {
        let live = self.connected_by(deadline).await?;
        match self.send(&live, command, false, deadline).await {
            Err(fault) if repeatable && fault.is_broken_connection() => {
                let live = self.connected_by(deadline).await?;
                Ok((self.send(&live, command, false, deadline).await?, live))
            }
            answer => Ok((answer?, live)),
        }
    }

    /// Sends one command over a connection of this link's, which is let go where it is to blame for a failure.
    pub(super) async fn send<T: FromRedisValue>(
        &self,
        live: &Arc<Live>,
        command: &Cmd,
        asking: bool,
        deadline: Instant,
    ) -> Result<T, Fault> {
        let answer = live.send(command, asking, deadline).await;
        if let Err(fault) = &answer
            && fault.spoils_connection()
        {
            self.drop_connection(live, fault);
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
        failed.stop();
        let previous = self.live.compare_and_swap(failed, None);
        if previous
            .as_ref()
            .is_some_and(|previous| Arc::ptr_eq(previous, failed))
        {
            tracing::warn!(fault = %fault.words(), "the connection to {} is lost", self.name());
        }
    }

    fn name(&self) -> &'static str {
        if self.news.is_some() {
            "the session store"
        } else {
            "a sentinel"
        }
    }

    pub(super) fn living(&self) -> Option<Arc<Live>> {
        self.live.load_full().filter(|live| live.is_open())
    }

    /// As [`Self::connected`], by then. No timer is set for a connection that is there.
    async fn connected_by(&self, deadline: Instant) -> Result<Arc<Live>, Fault> {
        if let Some(live) = self.living() {
            return Ok(live);
        }
        timeout_at(deadline, self.connected())
            .await
            .unwrap_or_else(|_| Err(Fault::late()))
    }

    /// A connection that lives, as far as is known.
    pub(super) async fn connected(&self) -> Result<Arc<Live>, Fault> {
        if let Some(live) = self.living() {
            return Ok(live);
        }
        // Boxed, so that a request that finds a connection, as nearly all do, does not carry the room for this.
        Box::pin(self.connected_anew()).await
    }

    async fn connected_anew(&self) -> Result<Arc<Live>, Fault> {
        let mut attempts = self.attempts.lock().await;
        if let Some(live) = self.living() {
            return Ok(live);
        }
        if Instant::now() < attempts.next {
            return Err(attempts.fault.clone());
        }
        if !self.kept.swap(true, Ordering::Relaxed) {
            self.drivers.spawn(keep(self.this.clone()));
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
                    tracing::info!("{} answers again", self.name());
                }
                attempts.failed = 0;
                attempts.next = Instant::now();
                self.say_untracked(&live);
                if let Some(recent) = self.news.as_ref().and_then(|news| news.recent.as_ref()) {
                    recent.connected();
                }
                let live = Arc::new(live);
                self.live.store(Some(Arc::clone(&live)));
                Ok(live)
            }
            Err(fault) => {
                if attempts.failed == 1 {
                    tracing::error!(fault = %fault.words(), "{} cannot be reached", self.name());
                }
                attempts.next = Instant::now() + pause;
                attempts.fault = fault.clone();
                Err(fault)
            }
        }
    }

    /// Says it now and then where the server tells of no changes.
    fn say_untracked(&self, live: &Live) {
        if let (Some(news), Some(why)) = (&self.news, live.untracked())
            && news.none.due().is_some()
        {
            tracing::warn!(
                why,
                "the session store does not tell of changes, so every request reads it, and other replicas' logouts reach \
                 open streams late"
            );
        }
    }

    async fn connect(&self) -> Result<Live, Fault> {
        let (info, primary) = match &self.place {
            Place::Named(target) => (target.current().map_err(Fault::Said)?, None),
            Place::Told(target, address) => (target.at(address).map_err(Fault::Said)?, None),
            Place::Primary(sentinels) => {
                let asked = Instant::now();
                let verdict = sentinels.verdict().await?;
                let info = sentinels.login_at(&verdict.primary).map_err(Fault::Said)?;
                (info, Some(Watched::new(sentinels, verdict, asked)))
            }
        };
        Live::open(info, &self.tls, self.news.as_ref(), primary, &self.drivers).await
    }
}

/// Opens a link again that was lost, as long as there is one. Boxed: what opens a link starts this.
fn keep(link: Weak<Link>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        loop {
            tokio::time::sleep(KEPT_EVERY).await;
            let Some(link) = link.upgrade() else { return };
            if link.living().is_none() {
                // What fails has been said, and is tried again.
                let _fault = link.connected().await.err();
            }
        }
    })
}

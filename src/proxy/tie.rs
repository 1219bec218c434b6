//! What ties a stream to the session that it was opened with: where the one ends, so does the other (contract 4.9).
//!
//! Each open WebSocket and event stream waits here for news of its session. News say only that something may have changed:
//! the session is looked up again, and what is found decides. Between news it is looked up when its time is over, and now
//! and then.
//!
//! | the session                        | the stream                                                       |
//! | ---------------------------------- | ---------------------------------------------------------------- |
//! | is gone, idle too long, or over    | ends                                                             |
//! | is there                           | goes on, and looks again at the session's end as it is known now |
//! | was ended here, and the store has not confirmed it | ends                                             |
//! | cannot be asked for: the store is away | goes on, and asks each second; its absolute end needs no asking |
//!
//! INVARIANT: a store that does not answer ends no stream (contract 4.9); the end that nothing can put off does.
//! INVARIANT: however many streams are woken at once, few ask the store at a time.
//! INVARIANT: a session has no more than [`SOCKETS`] `WebSocket`s here, and none more than that costs an upstream anything.

use crate::answer::Failure;
use crate::clock::{Clock, UnixTime};
use crate::session::{Session, SessionError, SessionId, Sessions};
use crate::store::Watch;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// How many streams look up their sessions at a time. Each takes a store well under a millisecond, so that thousands are
/// judged within the second of contract 4.9, and requests still find their way between them.
const AT_ONCE: usize = 64;
/// How soon a session is asked for again that could not be.
const AGAIN: Duration = Duration::from_secs(1);
/// How long nothing is asked where there are no news: clocks can be set, and a machine can sleep.
const AT_LATEST: Duration = Duration::from_mins(1);
/// The shortest wait: a clock may lag a little behind the timer.
const AT_LEAST: Duration = Duration::from_millis(10);
/// How many `WebSocket`s a session may have at a time on one replica. Browsers open no more at one host: Chromium 255.
const SOCKETS: usize = 256;

/// What all streams share.
#[derive(Debug)]
pub struct Streams {
    sessions: Arc<Sessions>,
    clock: Clock,
    turns: Semaphore,
    /// How many `WebSocket`s each session has, by the hash of its id.
    sockets: Mutex<HashMap<[u8; 32], usize>>,
}

impl Streams {
    /// Streams that live as long as these sessions do.
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            sessions,
            clock,
            turns: Semaphore::new(AT_ONCE),
            sockets: Mutex::default(),
        })
    }

    fn sockets(&self) -> MutexGuard<'_, HashMap<[u8; 32], usize>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A WebSocket's seat among those of its session.
#[derive(Debug)]
pub struct Seat {
    streams: Arc<Streams>,
    session: [u8; 32],
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut sockets = self.streams.sockets();
        if let Some(taken) = sockets.get_mut(&self.session) {
            *taken -= 1;
            if *taken == 0 {
                sockets.remove(&self.session);
            }
        }
    }
}

/// The session that a request came with, in case that it opens a stream.
#[derive(Clone, Copy, Debug)]
pub struct Opener<'a> {
    /// What all streams share.
    pub streams: &'a Arc<Streams>,
    /// Which session.
    pub id: &'a SessionId,
    /// As it was found.
    pub session: &'a Session,
}

impl Opener<'_> {
    /// Ties a stream to it.
    #[must_use]
    pub fn tie(&self) -> Tie {
        Tie {
            streams: Arc::clone(self.streams),
            id: self.id.clone(),
            used: AtomicU64::new(self.session.used.as_millis()),
            absolute_end: self.session.absolute_end,
        }
    }

    /// Takes a seat for a WebSocket, before anything is asked of the upstream.
    ///
    /// # Errors
    /// [`Failure::TooManySockets`]
    pub fn seat(&self) -> Result<Seat, Failure> {
        let session = self.id.store_key();
        let mut sockets = self.streams.sockets();
        let taken = sockets.entry(session).or_default();
        if *taken >= SOCKETS {
            return Err(Failure::TooManySockets);
        }
        *taken += 1;
        Ok(Seat {
            streams: Arc::clone(self.streams),
            session,
        })
    }
}

/// A stream's tie to its session.
#[derive(Debug)]
pub struct Tie {
    streams: Arc<Streams>,
    id: SessionId,
    /// When the session was last used, as far as it is known here: [`UnixTime`] in milliseconds.
    used: AtomicU64,
    absolute_end: UnixTime,
}

impl Tie {
    /// The browser has said something: its session was used.
    pub fn spoken(&self) {
        let used = UnixTime::from_millis(self.used.load(Ordering::Relaxed));
        self.streams.sessions.touch_since(&self.id, used);
    }

    /// Waits until the session is over.
    ///
    /// # Cancel safety
    /// Dropped, it leaves nothing behind.
    pub async fn severed(&self) {
        let sessions = &self.streams.sessions;
        let mut news = sessions.watch(&self.id);
        let mut absolute_end = self.absolute_end;
        while self.streams.clock.now() < absolute_end {
            // Boxed, so that a stream that waits, which most of them do most of the time, does not hold the room for it.
            let found = tokio::select! {
                found = Box::pin(self.look_up(&mut news)) => found,
                // However long the answer takes.
                () = self.sleep_until(absolute_end) => continue,
            };
            let end = match found {
                Ok(None) => return,
                Ok(Some(session)) => {
                    self.used.store(session.used.as_millis(), Ordering::Relaxed);
                    absolute_end = session.absolute_end;
                    session.idle_end
                }
                // It ended here, and the store has not confirmed that yet.
                Err(_) if sessions.is_refused(&self.id) => return,
                Err(error) => {
                    tracing::debug!(%error, "a stream's session cannot be asked for: the stream goes on");
                    self.streams.clock.now().plus(AGAIN).min(absolute_end)
                }
            };
            tokio::select! {
                () = news.changed() => {}
                () = self.sleep_until(end) => {}
            }
        }
    }

    /// Looks the session up, in turn; anew where there are news meanwhile, for an answer that is long in coming may hang
    /// on a connection that is no more.
    async fn look_up(&self, news: &mut Watch) -> Result<Option<Arc<Session>>, SessionError> {
        let _turn = self.streams.turns.acquire().await;
        loop {
            tokio::select! {
                found = self.streams.sessions.look_up(&self.id) => return found,
                () = news.changed() => {}
            }
        }
    }

    /// Sleeps until that time of day, but no longer than [`AT_LATEST`].
    fn sleep_until(&self, end: UnixTime) -> impl Future<Output = ()> + use<> {
        sleep(end.since(self.streams.clock.now()).clamp(AT_LEAST, AT_LATEST))
    }
}

#[cfg(test)]
#[path = "tie_tests.rs"]
mod tests;

//! The streams of a connection: which are under way, which were given up, and until when the connection waits for more.

use super::tasks;
use super::{GIVEN_UP, PARTING};
use crate::listener::Bounds;
use crate::listener::following::Following;
use crate::patience::SEND_STALL;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The streams of one connection.
pub struct Streams {
    header_timeout: Duration,
    idle_timeout: Duration,
    /// What the connection's bytes tell.
    following: Arc<Following>,
    count: Mutex<Count>,
    /// Told when it is enough.
    pub flooded: Notify,
    /// Ends them all.
    end: CancellationToken,
}

struct Count {
    /// How many there have been, and how many are under way.
    begun: u64,
    open: u64,
    /// Those that were answered, at least with a head; and those that were given up before.
    answered: u64,
    given_up: u64,
    /// When the last one ended, or the connection came.
    idle_since: Instant,
}

impl Count {
    /// One that was under way is not any more.
    fn end(&mut self) {
        self.open -= 1;
        if self.open == 0 {
            self.idle_since = Instant::now();
        }
    }
}

impl Streams {
    pub fn new(bounds: &Bounds, since: Instant, following: Arc<Following>, end: CancellationToken) -> Self {
        Self {
            header_timeout: bounds.header_timeout,
            idle_timeout: bounds.idle_timeout,
            following,
            count: Mutex::new(Count {
                begun: 0,
                open: 0,
                answered: 0,
                given_up: 0,
                idle_since: since,
            }),
            flooded: Notify::new(),
            end,
        }
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn have_begun(&self) -> bool {
        self.count().begun > 0
    }

    /// Until when the connection may go on without a further stream, as it looks now.
    pub fn patience(&self, leaving: Option<Leaving>) -> Instant {
        let count = self.count();
        match leaving {
            None if count.begun == 0 => count.idle_since + self.header_timeout,
            // However long a stream takes, or the socket for the end of its answer: look again later.
            _ if count.open > 0 || self.following.is_stalled() => Instant::now() + PARTING,
            Some(leaving) => count.idle_since.max(leaving.since) + leaving.patience,
            None => count.idle_since + self.idle_timeout,
        }
    }
}

/// GOAWAY was said.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    since: Instant,
    /// How long the other side may take to part, once all is said.
    patience: Duration,
}

impl Leaving {
    /// For a stop.
    pub fn soon() -> Self {
        let (since, patience) = (Instant::now(), PARTING);
        Self { since, patience }
    }

    /// Of an idle connection. h2 may have the last piece of an answer that its browser has stopped reading; it ends the
    /// connection as soon as it has none.
    pub fn idle() -> Self {
        let (since, patience) = (Instant::now(), SEND_STALL);
        Self { since, patience }
    }
}

/// A stream under way: until its answer is sent, or given up.
pub struct Stream {
    streams: Arc<Streams>,
    answered: bool,
    /// Its place among those of all connections; what may become a tunnel has it in its hold.
    pub place: Option<OwnedSemaphorePermit>,
    hold: Option<Hold>,
}

/// A hold on a stream of HTTP/2 that may become a tunnel, for as long as that lasts: it keeps its place, and its
/// connection is not idle. Let go, the stream is reset with what could not be sent; what shut down cleanly before that
/// has been sent. It is among the extensions of a request with an extended CONNECT.
#[derive(Clone)]
pub struct Hold {
    _held: Arc<Held>,
}

struct Held {
    streams: Arc<Streams>,
    _place: Option<OwnedSemaphorePermit>,
    _end: DropGuard,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.streams.count().end();
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hold")
    }
}

impl Stream {
    pub fn begin(streams: &Arc<Streams>) -> Self {
        let mut count = streams.count();
        count.begun += 1;
        count.open += 1;
        Self {
            streams: streams.clone(),
            answered: false,
            place: None,
            hold: None,
        }
    }

    pub fn hold(&mut self) -> Hold {
        self.streams.count().open += 1;
        let end = self.streams.end.child_token();
        tasks::becomes_tunnel(end.clone());
        let stream = Held {
            streams: self.streams.clone(),
            _place: self.place.take(),
            _end: end.drop_guard(),
        };
        let hold = Hold {
            _held: Arc::new(stream),
        };
        self.hold.insert(hold).clone()
    }

    pub fn is_answered(&mut self) {
        self.answered = true;
        self.streams.count().answered += 1;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut count = self.streams.count();
        count.end();
        if !self.answered {
            count.given_up += 1;
            if count.given_up > GIVEN_UP && count.given_up > count.answered {
                self.streams.flooded.notify_one();
            }
        }
    }
}

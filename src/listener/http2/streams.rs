//! The streams of a connection: which are under way, which were given up, and until when the connection waits for more.

use super::tasks;
use super::{GIVEN_UP, PARTING};
use crate::listener::Bounds;
use crate::listener::following::Following;
use crate::patience::SEND_STALL;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
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
    /// How many pieces of answers h2 has not sent.
    unsent: AtomicUsize,
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
    /// When the last one ended, or its answer was last found on its way, or the connection came.
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

    /// Something is on its way. Its end wakes nobody.
    fn look_again(&mut self, now: Instant) -> Instant {
        self.idle_since = now;
        now + PARTING
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
            unsent: AtomicUsize::new(0),
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
        let (mut count, now) = (self.count(), Instant::now());
        let is_unsent = self.unsent.load(Relaxed) > 0;
        match leaving {
            None if count.begun == 0 => count.idle_since + self.header_timeout,
            Some(leaving) if is_unsent && now < leaving.unsent_until => count.look_again(now),
            // However long a stream takes, or the socket for what h2 has written.
            _ if count.open > 0 || self.following.is_stalled() => count.look_again(now),
            Some(leaving) => count.idle_since.max(leaving.since) + PARTING,
            None => count.idle_since + self.idle_timeout,
        }
    }

    /// Notes that h2 has a piece of an answer, until the guard goes.
    pub fn unsent(self: &Arc<Self>) -> Unsent {
        self.unsent.fetch_add(1, Relaxed);
        Unsent(self.clone())
    }
}

/// A piece of an answer that h2 has and has not sent.
pub struct Unsent(Arc<Streams>);

impl Drop for Unsent {
    fn drop(&mut self) {
        self.0.unsent.fetch_sub(1, Relaxed);
    }
}

/// GOAWAY was said.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    since: Instant,
    /// How long the other side is waited for that does not read the last piece of an answer.
    unsent_until: Instant,
}

impl Leaving {
    /// For a stop.
    pub fn stopped() -> Self {
        let since = Instant::now();
        Self {
            since,
            unsent_until: since,
        }
    }

    /// Because there is no stream under way.
    pub fn idle() -> Self {
        let since = Instant::now();
        Self {
            since,
            unsent_until: since + SEND_STALL,
        }
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

    pub fn streams(&self) -> Arc<Streams> {
        self.streams.clone()
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

//! What the bytes of a connection and its service tell each other. Over HTTP/1.1 both run in the connection's own task; over HTTP/2
//! only whether the bytes are stalled is of interest.
//!
//! The wire says what it saw of a head; the service says how long the body is that follows. Neither waits for the other:
//! hyper stands between them, and shows the service a head only after the wire has handed it over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

const UNTOLD: u64 = u64::MAX;
const UNKNOWN_LENGTH: u64 = u64::MAX - 1;

/// What a [`Wire`](super::wire::Wire) and the service tell each other.
#[derive(Debug)]
pub struct Following {
    /// The length of the body after the head that was handed over last, or one of the two constants above.
    body: AtomicU64,
    /// Of the body under way, so many bytes were not handed over; and so many are here and could be.
    left: AtomicU64,
    held: AtomicU64,
    head_complete: AtomicBool,
    fragment: AtomicBool,
    lost: AtomicBool,
    busy: AtomicBool,
    left_http: AtomicBool,
    stalled: AtomicBool,
    began: Instant,
    /// When the last request ended, milliseconds after `began`.
    idle_since: AtomicU64,
}

/// What was seen of a request's head.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// A `#` stands in the request target.
    pub has_fragment: bool,
    /// Nothing can follow this request on the connection: where its body ends is not for the wire to see.
    pub is_last: bool,
}

/// What the service said of the body after a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It has not seen the head.
    Nothing,
    /// It ends where it says so itself.
    Chunked,
    /// It has so many bytes.
    Length(u64),
}

impl Told {
    const fn of(body: u64) -> Self {
        match body {
            UNTOLD => Self::Nothing,
            UNKNOWN_LENGTH => Self::Chunked,
            length => Self::Length(length),
        }
    }
}

impl Default for Following {
    fn default() -> Self {
        Self {
            body: AtomicU64::new(UNTOLD),
            left: AtomicU64::new(0),
            held: AtomicU64::new(0),
            head_complete: AtomicBool::new(false),
            fragment: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            left_http: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            began: Instant::now(),
            idle_since: AtomicU64::new(0),
        }
    }
}

impl Following {
    /// The service has a request: its body is `length` bytes long, or chunked. Must be told before more is read.
    pub fn take_head(&self, length: Option<u64>) -> Head {
        self.body
            .store(length.unwrap_or(UNKNOWN_LENGTH).min(UNKNOWN_LENGTH), Relaxed);
        let in_step = self.head_complete.swap(false, Relaxed);
        Head {
            has_fragment: self.fragment.swap(false, Relaxed),
            is_last: length.is_none() || !in_step || self.lost.load(Relaxed),
        }
    }

    /// Whether bytes of the request's body are still to come from the browser.
    pub fn is_body_outstanding(&self) -> bool {
        let left = match self.body.load(Relaxed) {
            UNTOLD => self.left.load(Relaxed),
            told => told,
        };
        left > self.held.load(Relaxed)
    }

    /// A request is under way, or no longer.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Relaxed);
        if !busy {
            let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.idle_since.store(millis, Relaxed);
        }
    }

    /// When the last request ended, or the connection began.
    pub fn idle_since(&self) -> Instant {
        self.began + Duration::from_millis(self.idle_since.load(Relaxed))
    }

    /// Whether a request is under way.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Relaxed)
    }

    /// From here on the bytes are another protocol's.
    pub fn leave_http(&self) {
        self.left_http.store(true, Relaxed);
    }

    /// Whether they are.
    pub fn has_left_http(&self) -> bool {
        self.left_http.load(Relaxed)
    }

    /// The last line of a head was handed over.
    pub fn end_head(&self) {
        self.head_complete.store(true, Relaxed);
    }

    /// A `#` stands in the request target.
    pub fn note_fragment(&self) {
        self.fragment.store(true, Relaxed);
    }

    /// The wire does not know any more where in the stream it is.
    pub fn note_lost(&self) {
        self.lost.store(true, Relaxed);
    }

    /// So many bytes of the body under way were not handed over.
    pub fn note_left(&self, left: u64) {
        self.left.store(left, Relaxed);
    }

    /// So many bytes are here and were not handed over.
    pub fn note_held(&self, held: usize) {
        self.held.store(held as u64, Relaxed);
    }

    /// What the service said of the body under way.
    pub fn told(&self) -> Told {
        Told::of(self.body.load(Relaxed))
    }

    /// The same, once.
    pub fn take_told(&self) -> Told {
        Told::of(self.body.swap(UNTOLD, Relaxed))
    }

    /// The browser takes nothing of what there is for it, or it does again.
    pub fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Relaxed);
    }

    /// Whether it did not take the last bytes that there were for it.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }
}

/// A request is under way for as long as this lives.
pub struct Under(Arc<Following>);

impl Under {
    pub fn way(following: Arc<Following>) -> Self {
        following.set_busy(true);
        Self(following)
    }

    /// What the wire and this request's service tell each other.
    pub fn following(&self) -> Arc<Following> {
        self.0.clone()
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.0.set_busy(false);
    }
}

//! The connections to one origin: the one used last is used next, and what lies idle is closed.
//!
//! A connection is taken for one request and comes back when the answer's body has ended; a task of its own drives it from
//! its first byte to its last, and none is started for a request. One whose answer is not read to its end, or whose
//! request nobody waits for any more, does not come back: with its sender it is closed.
//!
//! INVARIANT: nobody gets a connection on which a message is still under way, or on which something came that nobody asked
//! for: hyper asks for the next request only when both messages are over and nothing more was read, and only then is a
//! sender ready.
//! INVARIANT: a request of which anything was sent is never sent again; hyper returns one that it has not looked at.
//!
//! Sources: RFC 9110 §9.2.2; RFC 9112 §9.3, §9.6.

use super::body::ResponseBody;
use super::connect::Connector;
use super::{IDLE_TIMEOUT, MAX_BUFFER, MAX_IDLE, RequestBody};
use crate::protocol::BodyError;
use http::{StatusCode, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// There is no connection; the request is as it was.
    Connecting(BodyError, Box<Request<RequestBody>>),
    /// The connection broke off.
    Broken(hyper::Error),
}

/// One origin's connections.
#[derive(Debug)]
pub struct Pool {
    origin: Uri,
    connector: Connector,
    idle: Mutex<Idle>,
    /// What drives the connections, and what sweeps the pool.
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Idle {
    /// The one used last at the back.
    kept: VecDeque<Kept>,
    is_swept: bool,
}

#[derive(Debug)]
struct Kept {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection that is in use, and where it goes afterwards.
#[derive(Debug)]
pub struct Lease {
    sender: SendRequest<RequestBody>,
    pool: Arc<Pool>,
}

impl Pool {
    /// No connections yet.
    pub fn new(origin: Uri, connector: Connector) -> Arc<Self> {
        Arc::new(Self {
            origin,
            connector,
            idle: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Sends a request and waits for the answer's head. A kept connection that turns out to be closed before it took the
    /// request is passed over; a new one is the last try.
    ///
    /// # Errors
    /// [`Failed`]
    pub async fn exchange(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Failed> {
        while let Some(mut sender) = self.take() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.answered(response, sender)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failed::Broken(error.into_error())),
                },
            }
        }
        let mut sender = match self.connect().await {
            Ok(sender) => sender,
            Err(error) => return Err(Failed::Connecting(error, Box::new(request))),
        };
        match sender.send_request(request).await {
            Ok(response) => Ok(self.answered(response, sender)),
            Err(error) => Err(Failed::Broken(error)),
        }
    }

    /// Connects and closes again.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn try_connect(&self) -> Result<(), BodyError> {
        self.connector.connect(self.origin.clone()).await.map(drop)
    }

    async fn connect(self: &Arc<Self>) -> Result<SendRequest<RequestBody>, BodyError> {
        let stream = self.connector.connect(self.origin.clone()).await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_BUFFER);
        let (sender, connection) = builder.handshake(stream).await?;
        let driven = connection.with_upgrades();
        self.tasks.spawn(async move {
            if let Err(error) = driven.await {
                tracing::debug!(%error, "a connection to an upstream ended early");
            }
        });
        self.begin_to_sweep();
        Ok(sender)
    }

    fn answered(
        self: &Arc<Self>,
        response: Response<Incoming>,
        sender: SendRequest<RequestBody>,
    ) -> Response<ResponseBody> {
        // A connection that has switched speaks HTTP no more.
        let lease = (response.status() != StatusCode::SWITCHING_PROTOCOLS).then(|| Lease {
            sender,
            pool: self.clone(),
        });
        response.map(|incoming| ResponseBody::new(incoming, lease))
    }

    /// The connection used last that can be used.
    fn take(&self) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle();
        let now = Instant::now();
        let mut place = idle.kept.len();
        while place > 0 {
            place -= 1;
            let kept = &idle.kept[place];
            if now.duration_since(kept.since) >= IDLE_TIMEOUT {
                // Those before it lie there for longer still.
                idle.kept.drain(..=place);
                break;
            }
            if kept.sender.is_closed() {
                idle.kept.remove(place);
            } else if kept.sender.is_ready() {
                return idle.kept.remove(place).map(|kept| kept.sender);
            }
        }
        None
    }

    fn put_back(&self, sender: SendRequest<RequestBody>) {
        if sender.is_closed() {
            return;
        }
        let since = Instant::now();
        let mut idle = self.idle();
        if idle.kept.len() >= MAX_IDLE {
            idle.kept.pop_front();
        }
        idle.kept.push_back(Kept { sender, since });
    }

    /// One task closes what lies idle, as long as any connection is open.
    fn begin_to_sweep(self: &Arc<Self>) {
        if !std::mem::replace(&mut self.idle().is_swept, true) {
            self.tasks.spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Whether there is anything left to sweep.
    fn sweep(&self) -> bool {
        let mut idle = self.idle();
        let now = Instant::now();
        idle.kept
            .retain(|kept| now.duration_since(kept.since) < IDLE_TIMEOUT && !kept.sender.is_closed());
        // The sweeper itself is one of them.
        idle.is_swept = self.tasks.len() > 1;
        idle.is_swept
    }

    /// How many connections wait for a request.
    #[cfg(test)]
    pub fn lying_idle(&self) -> usize {
        self.idle().kept.len()
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE_TIMEOUT).await;
        if !pool.upgrade().is_some_and(|pool| pool.sweep()) {
            return;
        }
    }
}

impl Lease {
    /// Both messages are over: the next request can have the connection.
    pub fn give_back(self) {
        self.pool.put_back(self.sender);
    }
}

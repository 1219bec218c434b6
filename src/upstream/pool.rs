//! The connections to one origin: the one used last is used next, and what lies idle is closed.
//!
//! A connection is taken for one request and comes back when the answer's body has ended; a task of its own drives it from
//! its first byte to its last, and none is started for a request. One whose answer is not read to its end, or whose
//! request nobody waits for any more, does not come back: with its sender it is closed.
//!
//! INVARIANT: nobody gets a connection on which a message is still under way, or on which something came that nobody asked
//! for: hyper asks for the next request only when both messages are over and nothing more was read, and only then is a
//! sender ready.
//! INVARIANT: a request of which anything was sent is never sent again, unless an HTTP/2 upstream says that it has not
//! looked at it and nobody has read from its body; hyper returns one that it has not looked at itself.
//!
//! Over HTTP/2 the connections are shared (`http2`). Which version an https origin speaks is known when it has chosen one;
//! an upgrade goes over HTTP/1.1 in any case.
//!
//! Sources: RFC 9110 §7.8, §9.2.2; RFC 9112 §9.3, §9.6; RFC 9113 §8.7.

use super::body::ResponseBody;
use super::connect::{Connector, Offer};
use super::driven::Driven;
use super::origin::Address;
use super::{IDLE_TIMEOUT, LARGE_BUFFER, LARGE_BUFFERS, MAX_IDLE, RequestBody, SMALL_BUFFER, http2};
use crate::config::Protocol;
use crate::cores;
use crate::protocol::BodyError;
use http::StatusCode;
use http::header::{TE, UPGRADE};
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// There is no connection; the request is as it was.
    Connecting(BodyError),
    /// The connection broke off.
    Broken(BodyError),
}

/// The request's body once more, if nobody has read from it.
pub type Again<'a> = &'a (dyn Fn() -> Option<RequestBody> + Sync);

/// One origin's connections.
#[derive(Debug)]
pub struct Pool {
    address: Address,
    connector: Connector,
    protocol: Protocol,
    /// Whether an origin that may choose is thought to choose HTTP/2.
    chooses_http2: AtomicBool,
    /// By core: a connection is driven where it was opened, and mostly used there. The one used last at the back.
    idle: Box<[Mutex<VecDeque<Kept>>]>,
    is_swept: Mutex<bool>,
    shared: http2::Connections,
    /// What drives the connections, and what sweeps the pool.
    tasks: TaskTracker,
}

/// A connection that takes one request.
enum Channel {
    Own(Driven),
    Shared(Arc<http2::Connection>),
}

#[derive(Debug)]
struct Kept {
    sender: Driven,
    since: Instant,
}

/// A connection that is in use, and where it goes afterwards.
#[derive(Debug)]
pub enum Lease {
    /// It comes back.
    Own(Driven, Arc<Pool>),
    /// Others use it as well.
    Shared(Arc<http2::Connection>),
}

impl Pool {
    /// No connections yet.
    pub fn new(address: Address, protocol: Protocol, connector: Connector) -> Arc<Self> {
        Arc::new(Self {
            address,
            connector,
            protocol,
            chooses_http2: AtomicBool::new(true),
            idle: (0..cores::count()).map(|_| Mutex::default()).collect(),
            is_swept: Mutex::new(false),
            shared: http2::Connections::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Sends a request and waits for the answer's head. A kept connection that turns out to be closed before it took the
    /// request is passed over; a new one is the last try. What is sent is taken from the request.
    ///
    /// # Errors
    /// [`Failed`]
    pub async fn exchange(
        self: &Arc<Self>,
        request: &mut Request<RequestBody>,
        again: Again<'_>,
    ) -> Result<Response<ResponseBody>, Failed> {
        let upgrades = request.headers().contains_key(UPGRADE);
        let mut was_refused = false;
        loop {
            let kept = self.kept(upgrades);
            let is_new = kept.is_none();
            let channel = match kept {
                Some(channel) => channel,
                // Boxed, so that a request, which hardly ever needs it, does not carry the room for it from hand to hand.
                None => match Box::pin(self.open(upgrades)).await {
                    Ok(channel) => channel,
                    Err(error) => return Err(Failed::Connecting(error)),
                },
            };
            match channel {
                Channel::Own(mut sender) => {
                    // It concerns one connection, and is for the other version.
                    request.headers_mut().remove(TE);
                    match sender.try_send_request(mem::take(request)).await {
                        Ok(response) => return Ok(self.answered(response, sender)),
                        Err(mut error) => match error.take_message() {
                            Some(unsent) if !is_new => *request = unsent,
                            _ => return Err(Failed::Broken(error.into_error().into())),
                        },
                    }
                }
                Channel::Shared(connection) => {
                    let mut outgoing = Request::new(mem::take(request.body_mut()));
                    outgoing.method_mut().clone_from(request.method());
                    outgoing.uri_mut().clone_from(request.uri());
                    outgoing.headers_mut().clone_from(request.headers());
                    http2::address(&mut outgoing, &self.address.scheme()).map_err(Failed::Broken)?;
                    let mut error = match connection.sender().try_send_request(outgoing).await {
                        Ok(response) => {
                            let lease = Some(Lease::Shared(connection));
                            return Ok(response.map(|incoming| ResponseBody::new(incoming, lease)));
                        }
                        Err(error) => error,
                    };
                    let unsent = error.take_message().filter(|_| !is_new).map(Request::into_body);
                    let refused = http2::is_refused(error.error()) && !was_refused;
                    let body = unsent.or_else(|| if refused { again() } else { None });
                    let Some(body) = body else {
                        return Err(Failed::Broken(error.into_error().into()));
                    };
                    self.shared.retire(&connection);
                    was_refused |= refused;
                    *request.body_mut() = body;
                }
            }
        }
    }

    /// Connects and closes again.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn try_connect(&self) -> Result<(), BodyError> {
        self.connector
            .connect(&self.address, self.offer(false))
            .await
            .map(drop)
    }

    /// What to offer an origin that may choose.
    fn offer(&self, upgrades: bool) -> Offer {
        if self.protocol == Protocol::Auto && !upgrades {
            Offer::Either
        } else {
            Offer::Http1
        }
    }

    /// Whether requests may go over HTTP/2.
    fn may_share(&self, upgrades: bool) -> bool {
        !upgrades
            && match self.protocol {
                Protocol::Auto => self.address.needs_tls(),
                Protocol::Http1 => false,
                Protocol::H2c => true,
            }
    }

    /// A connection that is there.
    fn kept(&self, upgrades: bool) -> Option<Channel> {
        let shares = self.may_share(upgrades);
        if shares && let Some(connection) = self.shared.usable() {
            return Some(Channel::Shared(connection));
        }
        // One that was opened for an upgrade which the upstream did not want is no good for anything else.
        if shares && self.protocol == Protocol::H2c {
            return None;
        }
        self.take().map(Channel::Own)
    }

    /// A new connection; where many want one that they can share, one for all.
    async fn open(self: &Arc<Self>, upgrades: bool) -> Result<Channel, BodyError> {
        if !self.may_share(upgrades) || !self.chooses_http2.load(Ordering::Relaxed) {
            return self.connect(upgrades).await;
        }
        let already = || match self.kept(upgrades) {
            None if !self.chooses_http2.load(Ordering::Relaxed) => Some(None),
            kept => kept.map(Some),
        };
        let attempt = async { self.connect(upgrades).await.map(Some) };
        match self.shared.one_at_a_time(already, attempt).await? {
            Some(channel) => Ok(channel),
            // It does not share, as has turned out meanwhile.
            None => self.connect(upgrades).await,
        }
    }

    async fn connect(self: &Arc<Self>, upgrades: bool) -> Result<Channel, BodyError> {
        let (stream, chose_http2) = self
            .connector
            .connect(&self.address, self.offer(upgrades))
            .await?;
        let is_shared = chose_http2 || self.protocol == Protocol::H2c && !upgrades;
        if !upgrades {
            self.chooses_http2.store(is_shared, Ordering::Relaxed);
        }
        let channel = if is_shared {
            Channel::Shared(self.shared.add(stream, &self.tasks).await?)
        } else {
            Channel::Own(Driven::begin(stream, self.buffer(), &self.tasks).await?)
        };
        self.begin_to_sweep();
        Ok(channel)
    }

    /// How much a new connection may buffer. One with a large buffer found fewer others, so there are never more of them.
    fn buffer(&self) -> usize {
        if self.tasks.len() < LARGE_BUFFERS {
            LARGE_BUFFER
        } else {
            SMALL_BUFFER
        }
    }

    fn answered(self: &Arc<Self>, response: Response<Incoming>, sender: Driven) -> Response<ResponseBody> {
        // A connection that has switched speaks HTTP no more.
        let lease =
            (response.status() != StatusCode::SWITCHING_PROTOCOLS).then(|| Lease::Own(sender, self.clone()));
        response.map(|incoming| ResponseBody::new(incoming, lease))
    }

    /// The connection used last that can be used: of this core, and where it has none, of another. To wake another core costs
    /// less than a new connection, of which an upstream may not take many.
    fn take(&self) -> Option<Driven> {
        let (here, count) = (self.here(), self.idle.len());
        (0..count).find_map(|after| usable(&mut lock(&self.idle[(here + after) % count])))
    }

    fn put_back(&self, sender: Driven) {
        if sender.is_closed() {
            return;
        }
        let since = Instant::now();
        let mut idle = lock(&self.idle[sender.home() % self.idle.len()]);
        if idle.len() >= (MAX_IDLE / self.idle.len()).max(1) {
            idle.pop_front();
        }
        idle.push_back(Kept { sender, since });
    }

    /// One task closes what lies idle, as long as any connection is open.
    fn begin_to_sweep(self: &Arc<Self>) {
        if !mem::replace(&mut *lock(&self.is_swept), true) {
            self.tasks.spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Whether there is anything left to sweep.
    fn sweep(&self) -> bool {
        self.shared.sweep();
        let now = Instant::now();
        for idle in &self.idle {
            lock(idle)
                .retain(|kept| now.duration_since(kept.since) < IDLE_TIMEOUT && !kept.sender.is_closed());
        }
        // The sweeper itself is one of them.
        let mut is_swept = lock(&self.is_swept);
        *is_swept = self.tasks.len() > 1;
        *is_swept
    }

    /// How many connections are shared.
    #[cfg(test)]
    pub fn shared(&self) -> usize {
        self.shared.count()
    }

    /// How many connections wait for a request.
    #[cfg(test)]
    pub fn lying_idle(&self) -> usize {
        self.idle.iter().map(|idle| lock(idle).len()).sum()
    }

    /// The place of this core's. A thread that is none of the cores' counts for the first.
    fn here(&self) -> usize {
        cores::here() % self.idle.len()
    }
}

/// The one used last that can be used.
fn usable(idle: &mut VecDeque<Kept>) -> Option<Driven> {
    let now = Instant::now();
    let mut place = idle.len();
    while place > 0 {
        place -= 1;
        let kept = &idle[place];
        if now.duration_since(kept.since) >= IDLE_TIMEOUT {
            // Those before it lie there for longer still.
            idle.drain(..=place);
            break;
        }
        if kept.sender.is_closed() {
            idle.remove(place);
        } else if kept.sender.is_ready() {
            return idle.remove(place).map(|kept| kept.sender);
        }
    }
    None
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        match self {
            Self::Own(sender, pool) => pool.put_back(sender),
            Self::Shared(connection) => drop(connection),
        }
    }
}

//! A connection of HTTP/1.1 to an upstream, and the task that drives it from its first byte to its last.
//!
//! hyper's engine does the work; here is what it leaves unbounded. What an upstream says before its answer (1xx after 1xx)
//! it would read for as long as it comes, and without letting anybody else have a turn; and a connection that nobody wants
//! any more it would keep until the upstream has read what is still to be sent, which may be never.
//!
//! INVARIANT: [`PARTING`] after nobody wants it any more a connection is closed, whatever the upstream does; but one that
//! speaks another protocol by then is its new owner's.
//!
//! Sources: RFC 9110 §15.2.

use super::RequestBody;
use super::connect::Stream;
use super::flow::Ahead;
use crate::cores;
use crate::protocol::BodyError;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// How long the two sides may take to part.
const PARTING: Duration = Duration::from_secs(5);

/// A connection that takes one request at a time.
#[derive(Debug)]
pub struct Driven {
    sender: SendRequest<RequestBody>,
    ahead: Arc<Ahead>,
    /// The most that is read before an answer is there, bytes.
    most_ahead: usize,
    /// The core that drives it.
    home: usize,
    /// Gone with the connection's last user.
    _wanted: oneshot::Sender<()>,
}

impl Driven {
    /// Speaks HTTP/1.1 on a fresh connection, with a read buffer of so many bytes at most.
    ///
    /// # Errors
    /// It broke off.
    pub async fn begin(stream: Stream, buffer: usize, tasks: &TaskTracker) -> Result<Self, BodyError> {
        let ahead = stream.inner().ahead();
        let mut builder = Builder::new();
        builder.max_buf_size(buffer);
        let (sender, driver) = builder.handshake(stream).await?;
        let driver = driver.with_upgrades();
        let (wanted, unwanted) = oneshot::channel::<()>();
        tasks.spawn(async move {
            let parted = async {
                let _nobody = unwanted.await;
                tokio::time::sleep(PARTING).await;
            };
            tokio::select! {
                biased;
                ended = driver => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection to an upstream ended early");
                    }
                }
                () = parted => tracing::debug!("an upstream does not read what nobody waits for any more"),
            }
        });
        Ok(Self {
            sender,
            ahead,
            // An answer's head may be as large as a buffer, and as much may have been read beyond it. What is left is for
            // interim answers.
            most_ahead: 2 * buffer,
            home: cores::here(),
            _wanted: wanted,
        })
    }

    /// Sends a request and waits for the answer's head.
    ///
    /// # Errors
    /// hyper's, with the request where nothing of it was sent.
    ///
    /// # Cancel safety
    /// The connection is no good any more.
    pub fn try_send_request(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        self.ahead.bound(self.most_ahead);
        // At once: a request is large, and would be moved with the future.
        let answered = self.sender.try_send_request(request);
        let ahead = &self.ahead;
        async move {
            let answered = answered.await;
            ahead.unbound();
            answered
        }
    }

    /// The number of the core that drives it.
    pub const fn home(&self) -> usize {
        self.home
    }

    /// Whether it can take no request any more.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it can take a request now.
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }
}

//! The upstream: writes down when which token came for which session, and answers with the request's number, which is when it was sent.

use crate::support::runtime;
use crate::support::wire::Wire;
use crate::{Millis, now};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request that came up.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Millis,
    /// When the browser sent it.
    pub sent: Millis,
    /// The session whose cookie it was sent with.
    pub session: String,
    pub token: String,
}

/// The upstream.
pub struct Api {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    served: JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Api {
    pub async fn start() -> Self {
        let bound = runtime().spawn(TcpListener::bind("127.0.0.1:0"));
        let listener = bound.await.unwrap().unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let shared = Arc::clone(&seen);
        let served = runtime().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&shared);
                runtime().spawn(async move {
                    let _ended = serve(Wire::new(stream), &seen).await;
                });
            }
        });
        Self { url, seen, served }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// `/api/SESSION/SENT`
async fn serve(mut wire: Wire<TcpStream>, seen: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    while let Some(head) = wire.head().await? {
        let at = now();
        let target = head.start.split(' ').nth(1).unwrap_or_default();
        let steps: Vec<_> = target.split('/').collect();
        let [_, _, session, number] = steps[..] else {
            panic!("an unexpected request: {target}");
        };
        let authorization = head.value("authorization").unwrap_or_default();
        let token = authorization
            .strip_prefix("Bearer ")
            .unwrap_or_default()
            .to_owned();
        let sent = number.parse().unwrap();
        let session = session.to_owned();
        seen.lock().unwrap().push(Seen {
            at,
            sent,
            session,
            token,
        });
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{number}",
            number.len()
        );
        wire.send(answer.as_bytes()).await?;
    }
    Ok(())
}

//! An upstream that records what it is asked, to the byte, and answers what a test scripted.

use super::runtime;
use super::websocket;
use super::wire::{Fields, Wire, values};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Its method.
    pub method: String,
    /// Its target, byte for byte (as Latin-1).
    pub target: String,
    /// Its fields in order, names as sent.
    pub fields: Fields,
    /// Its body, as far as it has come.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Fields,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl Recorded {
    /// The values of all fields of that name.
    pub fn values(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// The access token that came along.
    pub fn bearer(&self) -> Option<&str> {
        match self.values("authorization").as_slice() {
            [] => None,
            [one] => Some(one.strip_prefix("Bearer ").expect("a Bearer token")),
            more => panic!("{} Authorization lines", more.len()),
        }
    }
}

/// What comes after a scripted answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next request.
    Keep,
    /// The end of the connection.
    Close,
    /// Nothing: the connection stays open and silent.
    Hang,
}

/// A scripted answer.
#[derive(Clone, Debug)]
pub enum Play {
    /// Raw bytes, each piece after its delay; then what comes after.
    Pieces(Vec<(Duration, Vec<u8>)>, After),
    /// Nothing, ever; the request's body is not read either.
    Deaf,
    /// A WebSocket that sends every message back.
    Echo,
}

impl Play {
    /// These bytes at once; the connection stays usable.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Pieces(vec![(Duration::ZERO, bytes.into())], After::Keep)
    }

    /// These bytes at once, then the connection ends.
    pub fn cut(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Pieces(vec![(Duration::ZERO, bytes.into())], After::Close)
    }

    /// 200 with these further header lines.
    pub fn headers(lines: &str) -> Self {
        Self::bytes(format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok"))
    }
}

#[derive(Default)]
struct Book {
    requests: Vec<Recorded>,
    plays: BTreeMap<String, Play>,
    connections: usize,
    ended: usize,
}

/// The upstream.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    book: Arc<Mutex<Book>>,
    served: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Upstream {
    /// Starts on a free port.
    pub async fn start() -> Self {
        let listener = runtime()
            .spawn(TcpListener::bind("127.0.0.1:0"))
            .await
            .unwrap()
            .unwrap();
        let address = listener.local_addr().unwrap();
        let book: Arc<Mutex<Book>> = Arc::default();
        let shared = book.clone();
        let served = runtime().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().unwrap().connections += 1;
                let book = shared.clone();
                connections.spawn(async move {
                    let _end = serve(Wire::new(stream), &book).await;
                    book.lock().unwrap().ended += 1;
                });
            }
        });
        Self {
            address,
            book,
            served,
        }
    }

    /// Its origin.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// What it answers on that path from now on.
    pub fn on(&self, path: &str, play: Play) {
        self.book().plays.insert(path.to_owned(), play);
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.book().requests.clone()
    }

    /// How many requests so far.
    pub fn count(&self) -> usize {
        self.book().requests.len()
    }

    /// The last request.
    pub fn last(&self) -> Recorded {
        self.book().requests.last().cloned().expect("no request came up")
    }

    /// How many connections were opened so far.
    pub fn connections(&self) -> usize {
        self.book().connections
    }

    /// How many connections have ended so far.
    pub fn ended(&self) -> usize {
        self.book().ended
    }
}

async fn serve(mut wire: Wire<TcpStream>, book: &Mutex<Book>) -> std::io::Result<()> {
    while let Some(head) = wire.head().await? {
        let mut words = head.start.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        let path = target.split('?').next().unwrap_or_default();
        let (at, play) = {
            let mut book = book.lock().unwrap();
            let play = book.plays.get(path).cloned();
            let fields = head.fields.clone();
            book.requests.push(Recorded {
                method,
                target: target.clone(),
                fields,
                ..Recorded::default()
            });
            (book.requests.len() - 1, play)
        };
        if matches!(play, Some(Play::Deaf)) {
            std::future::pending::<()>().await;
        }
        let mut framing = head.request_framing();
        while let Some(piece) = wire.piece(&mut framing).await? {
            book.lock().unwrap().requests[at].body.extend(piece);
        }
        {
            let mut book = book.lock().unwrap();
            book.requests[at].trailers = std::mem::take(&mut wire.trailers);
            book.requests[at].complete = true;
        }
        match play {
            None | Some(Play::Deaf) => {
                let body = r#"{"ok":true}"#;
                let length = body.len();
                let body = if head.start.starts_with("HEAD ") { "" } else { body };
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}");
                wire.send(format!("{head}\r\n\r\n{body}").as_bytes()).await?;
            }
            Some(Play::Pieces(pieces, after)) => {
                for (delay, bytes) in pieces {
                    tokio::time::sleep(delay).await;
                    wire.send(&bytes).await?;
                }
                match after {
                    After::Keep => {}
                    After::Close => return Ok(()),
                    After::Hang => {
                        // Until the other side goes.
                        while wire.line().await?.is_some() {}
                        return Ok(());
                    }
                }
            }
            Some(Play::Echo) => return echo(wire, &head).await,
        }
    }
    Ok(())
}

/// Takes a WebSocket's handshake, and says back what it hears until it is closed.
pub async fn echo(mut wire: Wire<TcpStream>, head: &super::wire::Head) -> std::io::Result<()> {
    let accept = websocket::accept(head.value("sec-websocket-key").unwrap_or_default());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    wire.send(answer.as_bytes()).await?;
    loop {
        let (kind, payload) = websocket::read(&mut wire).await?;
        websocket::write(&mut wire, kind, &payload, false).await?;
        if kind == websocket::CLOSE {
            return Ok(());
        }
    }
}

//! Upstreams that do what no library would: what a request's path asks for, or over HTTP/2 what the test has told them.
//!
//! Whatever pours is bounded in bytes; it ends when the other side goes.

use crate::MIB;
use crate::support::h2::{self, PREFACE};
use crate::support::wire::{Head, Wire};
use crate::support::{runtime, until, websocket};
use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// The most that is poured into one connection.
const MOST: u64 = 1024 * MIB;
/// Large enough to keep a connection full, in bytes.
const PIECE: usize = 64 * 1024;
/// A length of HTTP/1.1's or a WebSocket frame's that no test lives to see the end of.
const ENDLESS: u64 = 1 << 40;

const OK: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Serves connections with `serve`, each in a task of its own.
pub async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, AbortHandle)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let bound = runtime().spawn(TcpListener::bind("127.0.0.1:0"));
    let listener = bound.await.unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    let served = runtime().spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream));
            while connections.try_join_next().is_some() {}
        }
    });
    (address, served.abort_handle())
}

/// The liar over HTTP/1.1: `/liar/WHAT`.
pub struct Liar {
    address: SocketAddr,
    book: Arc<Book>,
    served: AbortHandle,
}

/// What has happened to it.
#[derive(Default)]
struct Book {
    asked: AtomicU64,
    poured: AtomicU64,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Liar {
    pub async fn start() -> Self {
        let book: Arc<Book> = Arc::default();
        let kept = book.clone();
        let (address, served) = listen(move |stream| lie(Wire::new(stream), kept.clone())).await;
        Self {
            address,
            book,
            served,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests it has had so far.
    pub fn asked(&self) -> u64 {
        self.book.asked.load(Ordering::Relaxed)
    }

    /// How many bytes it has got rid of so far.
    pub fn poured(&self) -> u64 {
        self.book.poured.load(Ordering::Relaxed)
    }
}

/// Says `piece` again and again.
async fn pour(wire: &mut Wire<TcpStream>, piece: &[u8], book: &Book) -> Result<()> {
    let pieces = piece.repeat((PIECE / piece.len()).max(1));
    let mut left = MOST;
    while left > 0 {
        wire.send(&pieces).await?;
        left = left.saturating_sub(pieces.len() as u64);
        book.poured.fetch_add(pieces.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Answers one request.
async fn lie(mut wire: Wire<TcpStream>, book: Arc<Book>) -> Result<()> {
    let Some(asked) = wire.head().await? else {
        return Ok(());
    };
    book.asked.fetch_add(1, Ordering::Relaxed);
    let path = asked.start.split(' ').nth(1).unwrap_or_default();
    let what = path.rsplit('/').next().unwrap_or_default();
    let (first, again) = words(what, &asked);
    if what == "deaf" {
        return std::future::pending().await;
    }
    if what == "slow-head" {
        for byte in OK.repeat(100).bytes() {
            wire.send(&[byte]).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    wire.send(first.as_bytes()).await?;
    if what == "socket" {
        wire.send(&[&[0x82, 127][..], &ENDLESS.to_be_bytes()].concat())
            .await?;
    }
    if !again.is_empty() {
        return pour(&mut wire, again.as_bytes(), &book).await;
    }
    // What is still to be read would turn the end into a reset.
    wire.stream.shutdown().await
}

/// What comes first, and what comes then without an end; nothing: the connection ends.
fn words(what: &str, asked: &Head) -> (String, String) {
    let sixteen = "x".repeat(16 * 1024);
    let (first, again) = match what {
        "body" => (
            format!("{OK}Content-Length: {ENDLESS}\r\n\r\n"),
            "x".repeat(PIECE),
        ),
        "chunks" => (CHUNKED.to_owned(), format!("4000\r\n{sixteen}\r\n")),
        "tiny-chunks" => (CHUNKED.to_owned(), "1\r\nx\r\n".to_owned()),
        "events" => (
            format!("{OK}Content-Type: text/event-stream\r\n\r\n"),
            format!("data: {}\n\n", "x".repeat(1_000)),
        ),
        "no-event" => (
            format!("{OK}Content-Type: text/event-stream\r\n\r\n"),
            "data: without an end ".to_owned(),
        ),
        "socket" => {
            let accept = websocket::accept(asked.value("sec-websocket-key").unwrap_or_default());
            let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
            (
                format!("{switch}Sec-WebSocket-Accept: {accept}\r\n\r\n"),
                "x".repeat(PIECE),
            )
        }
        "many-fields" => (OK.to_owned(), "X-Filler: yyyyyyyyyyyyyyyyyyyyyyyy\r\n".to_owned()),
        "long-field" => (format!("{OK}X-Filler: "), "y".repeat(PIECE)),
        "long-status" => ("HTTP/1.1 200 ".to_owned(), "y".repeat(PIECE)),
        "interim" => (
            String::new(),
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n".to_owned(),
        ),
        "empty-lines" => (String::new(), "\r\n".to_owned()),
        "chunk-size" => (CHUNKED.to_owned(), "0".to_owned()),
        "chunk-extension" => (format!("{CHUNKED}1;"), "x".to_owned()),
        "chunk-extensions" => (CHUNKED.to_owned(), "1;xxxxxxxxxxxxxxxx\r\nx\r\n".to_owned()),
        "trailers" => (format!("{CHUNKED}0\r\n"), "X: y\r\n".to_owned()),
        "long-trailer" => (format!("{CHUNKED}0\r\nX: "), "y".to_owned()),
        "huge-chunk" => (format!("{CHUNKED}ffffffffffffffff\r\n"), "x".repeat(PIECE)),
        "bad-chunk" => (format!("{CHUNKED}zz\r\n"), String::new()),
        "cut-chunk" => (format!("{CHUNKED}3e8\r\nxxx"), String::new()),
        "short-body" => (format!("{OK}Content-Length: 1000\r\n\r\nxxx"), String::new()),
        "half-head" => (format!("{OK}Content-Le"), String::new()),
        "unasked" => (
            format!("{OK}Content-Length: 2\r\n\r\nok"),
            format!("{OK}Content-Length: 8\r\n\r\nsmuggled"),
        ),
        _ => (String::new(), String::new()),
    };
    (first, again)
}

/// What the liar over HTTP/2 does to the stream on which it is asked.
pub type Lie2 = fn(u32) -> (Vec<u8>, Vec<u8>);

/// The liar over HTTP/2, with prior knowledge.
pub struct Liar2 {
    address: SocketAddr,
    lie: watch::Sender<Lie2>,
    served: AbortHandle,
}

impl Drop for Liar2 {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Liar2 {
    pub async fn start() -> Self {
        let nothing: Lie2 = |_| (Vec::new(), Vec::new());
        let (lie, told) = watch::channel(nothing);
        let (address, served) = listen(move |stream| lie2(stream, told.clone())).await;
        Self { address, lie, served }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it does from now on: the frames that come first, and those that come then without an end. Connections on which
    /// it did something else have ended.
    pub async fn lies(&self, lie: Lie2) {
        self.lie.send_replace(lie);
        // Each holds one, and so does the listener.
        until(5, "the end of the last lie", || self.lie.receiver_count() == 1).await;
    }
}

async fn lie2(mut stream: TcpStream, mut told: watch::Receiver<Lie2>) -> Result<()> {
    let lie = *told.borrow_and_update();
    let mut preface = vec![0; PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    stream.write_all(&h2::settings(&[])).await?;
    let mut head = [0; 9];
    let asked = loop {
        stream.read_exact(&mut head).await?;
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        stream.read_exact(&mut vec![0; length]).await?;
        if head[3] == h2::HEADERS {
            break u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        }
    };
    let (first, again) = lie(asked);
    stream.write_all(&first).await?;
    let (mut from, mut to) = stream.into_split();
    let pouring = async {
        let pieces = again.repeat(PIECE.checked_div(again.len()).unwrap_or(0).max(1));
        let mut left = MOST;
        while left > 0 && !pieces.is_empty() {
            to.write_all(&pieces).await?;
            left = left.saturating_sub(pieces.len() as u64);
        }
        std::future::pending().await
    };
    let mut scrap = vec![0; PIECE];
    let gone = async { while let Ok(1..) = from.read(&mut scrap).await {} };
    tokio::select! {
        poured = pouring => poured,
        () = gone => Ok(()),
        _other = told.changed() => Ok(()),
    }
}

//! The upstream for uploads and WebSocket messages; `tests/bench/run` builds and starts it.
//!
//! It takes only uploads that are what they should be, byte by byte (else 400), and says WebSocket messages back. Under
//! `/private` it answers 401 unless a bearer token comes along. `/count` says how many good uploads and messages came so far:
//! whoever answers a load himself is found out.

use clap::Parser;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Takes uploads and says WebSocket messages back.
#[derive(Parser)]
struct Receiver {
    /// Where it listens, on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// A file with what every upload must be.
    #[arg(long)]
    upload: PathBuf,
    /// A file with the answer to a good one.
    #[arg(long)]
    answer: PathBuf,
}

struct State {
    upload: Bytes,
    answer: Bytes,
    count: AtomicU64,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let receiver = Receiver::parse();
    let state = Arc::new(State {
        upload: std::fs::read(receiver.upload)?.into(),
        answer: std::fs::read(receiver.answer)?.into(),
        count: AtomicU64::new(0),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", receiver.port)).await?;
        serve(listener, state).await
    })
}

async fn serve(listener: TcpListener, state: Arc<State>) -> Result<(), Error> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let state = state.clone();
        Handle::current().spawn(async move {
            let service = service_fn(|request| answer(request, state.clone()));
            let _whoever_broke_off_knows = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, Error> {
    if request.uri().path() == "/count" {
        return say(StatusCode::OK, state.count.load(Ordering::Relaxed).to_string());
    }
    let token = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    if request.uri().path().starts_with("/private/")
        && !token.is_some_and(|token| token.starts_with(b"Bearer ey"))
    {
        return say(StatusCode::UNAUTHORIZED, "");
    }
    if request.headers().contains_key(UPGRADE) {
        return accept(request, state);
    }
    if !is_good(request.into_body(), &state.upload).await? {
        return say(StatusCode::BAD_REQUEST, "another upload was wanted");
    }
    state.count.fetch_add(1, Ordering::Relaxed);
    say(StatusCode::OK, state.answer.clone())
}

fn say(status: StatusCode, words: impl Into<Bytes>) -> Result<Response<Full<Bytes>>, Error> {
    Ok(Response::builder().status(status).body(Full::new(words.into()))?)
}

async fn is_good(mut body: Incoming, wanted: &[u8]) -> Result<bool, Error> {
    let (mut good, mut left) = (true, wanted);
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            let rest = left.strip_prefix(&**data);
            good &= rest.is_some();
            left = rest.unwrap_or_default();
        }
    }
    Ok(good && left.is_empty())
}

/// Switches to a WebSocket whose messages go back as they came.
fn accept(mut request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, Error> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return say(StatusCode::BAD_REQUEST, "a WebSocket was wanted");
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    Handle::current().spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() {
                state.count.fetch_add(1, Ordering::Relaxed);
                if socket.send(message).await.is_err() {
                    break;
                }
            }
        }
    });
    Ok(Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "upgrade")
        .header(SEC_WEBSOCKET_ACCEPT, accept)
        .body(Full::default())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    /// What it says to these requests, one after the other on one connection, the last of which asks to close it.
    async fn said(requests: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            upload: "all of it".into(),
            answer: "{}".into(),
            count: AtomicU64::new(0),
        });
        let server = Handle::current().spawn(serve(listener, state));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(requests.as_bytes()).await.unwrap();
        let mut words = String::new();
        stream.read_to_string(&mut words).await.unwrap();
        server.abort();
        words
    }

    const COUNT: &str = "GET /count HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn only_what_was_uploaded_as_it_should_be_counts() {
        for (head, body, status, count) in [
            ("POST /open/x", "all of it", "200 OK", '1'),
            ("POST /open/x", "all of ix", "400 Bad", '0'),
            ("POST /open/x", "all of i", "400 Bad", '0'),
            ("POST /open/x", "all of it too", "400 Bad", '0'),
            ("POST /private/x", "all of it", "401 Un", '0'),
        ] {
            let length = body.len();
            let words = said(&format!(
                "{head} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}{COUNT}"
            ))
            .await;
            assert!(
                words.starts_with(&format!("HTTP/1.1 {status}")),
                "{head} {body}: {words}"
            );
            assert!(words.ends_with(count), "{head} {body}: {words}");
        }
    }
}

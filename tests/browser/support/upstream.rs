//! An API that remembers every request it got.

use super::http::{Answer, Server, answer};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::task::TaskTracker;

/// One request, as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Path and query.
    pub target: String,
    pub authorization: Option<String>,
    pub cookie: Option<String>,
    /// `X-Auth-Request-User`, where an ingress says it.
    pub user: Option<String>,
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<Seen>>>);

/// The API: `/api/whoami` and whatever else as JSON, `/api/ws` echo, `/api/events` ticks, `/api/upload` reads, `/docs/*` pages; and for an
/// ingress that serves it alone, the app itself.
pub struct Upstream {
    server: Server,
    memory: Memory,
}

impl Upstream {
    pub async fn start() -> Self {
        let memory = Memory::default();
        let (known, tasks) = (memory.clone(), TaskTracker::new());
        let server = Server::start(move |request: Request<Incoming>| {
            let (known, tasks) = (known.clone(), tasks.clone());
            async move {
                if request.uri().path() == "/api/upload" {
                    return read(request).await;
                }
                serve(request, &known, &tasks)
            }
        })
        .await;
        Self { server, memory }
    }

    pub fn origin(&self) -> String {
        format!("http://{}", self.server.address)
    }

    pub fn port(&self) -> u16 {
        self.server.address.port()
    }

    /// Every request so far whose target begins with `prefix`.
    pub fn seen(&self, prefix: &str) -> Vec<Seen> {
        let all = self.memory.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|seen| seen.target.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// The different bearer tokens so far, oldest first.
    pub fn tokens(&self) -> Vec<String> {
        let mut tokens: Vec<String> = Vec::new();
        for token in self
            .seen("/")
            .iter()
            .filter_map(|seen| seen.authorization.as_deref()?.strip_prefix("Bearer "))
        {
            if !tokens.iter().any(|known| known == token) {
                tokens.push(token.to_owned());
            }
        }
        tokens
    }
}

fn serve(mut request: Request<Incoming>, memory: &Memory, tasks: &TaskTracker) -> Answer {
    let text = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into())
    };
    let seen = Seen {
        target: request.uri().to_string(),
        authorization: text("authorization"),
        cookie: text("cookie"),
        user: text("x-auth-request-user"),
    };
    let (path, authorized) = (request.uri().path().to_owned(), seen.authorization.is_some());
    memory.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    if request.headers().contains_key("sec-websocket-key") {
        return echo(&mut request, tasks);
    }
    match path.as_str() {
        "/" => answer(
            "text/html; charset=utf-8",
            include_str!("../pages/spa/index.html"),
        ),
        "/app.js" => answer("text/javascript", include_str!("../pages/spa/app.js")),
        "/app.css" => answer("text/css", include_str!("../pages/spa/app.css")),
        "/api/events" => ticks(),
        path if path.starts_with("/docs") => answer(
            "text/html; charset=utf-8",
            format!(
                "<!doctype html><title>Document</title><h1 id=document>{path}</h1><p id=authorized>{authorized}</p>"
            ),
        ),
        path => answer(
            "application/json",
            json!({ "path": path, "authorized": authorized }).to_string(),
        ),
    }
}

/// How long the body was, once all of it is there.
async fn read(request: Request<Incoming>) -> Answer {
    let body = request.into_body().collect().await;
    let length = body.ok().map(|body| body.to_bytes().len());
    answer("application/json", json!({ "length": length }).to_string())
}

/// A WebSocket that says everything back, and speaks the first protocol that it is asked for.
fn echo(request: &mut Request<Incoming>, tasks: &TaskTracker) -> Answer {
    let key = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
    let upgrade = hyper::upgrade::on(&mut *request);
    tasks.spawn(async move {
        let Ok(connection) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, None).await;
        let (mut out, mut inward) = socket.split();
        while let Some(Ok(message)) = inward.next().await {
            if (message.is_text() || message.is_binary()) && out.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "websocket");
    let asked = request.headers().get("sec-websocket-protocol");
    if let Some(first) = asked.and_then(|line| line.to_str().ok()?.split(',').next()) {
        response = response.header("sec-websocket-protocol", first);
    }
    response
        .header("sec-websocket-accept", key)
        .body(Empty::new().boxed())
        .expect("a response")
}

/// Twenty events a second, for as long as somebody listens.
fn ticks() -> Answer {
    let events = stream::unfold(0_u32, |number| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let event = Frame::data(Bytes::from(format!("data: tick {number}\n\n")));
        Some((Ok::<_, Infallible>(event), number + 1))
    });
    let response = Response::builder()
        .header("content-type", "text/event-stream")
        .header("cache-control", "no-store");
    response
        .body(BodyExt::boxed(StreamBody::new(
            Box::pin(events).map(|event| event),
        )))
        .expect("a response")
}

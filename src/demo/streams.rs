//! The API's long-lived answers: an event stream, and a WebSocket that says back what it is told.
//!
//! INVARIANT: both end by themselves after a bounded time, and at once when the demo stops.
//!
//! Sources: WHATWG HTML §9.2 (event streams), RFC 6455 §4.2 (the server's half of the handshake).

use super::server::{self, Answer};
use crate::clock::Clock;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// An event a second, so many at most.
const MOST_EVENTS: u64 = 3600;
/// The longest that a WebSocket stays.
const LONGEST_SOCKET: Duration = Duration::from_hours(1);
/// The longest message that it takes, bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// Answers with an event a second.
#[must_use]
pub fn events(request: &Request<Incoming>, clock: Clock, stop: CancellationToken) -> Answer {
    // A browser that lost its stream says how far it came, and the count goes on from there.
    let last = request.headers().get("last-event-id");
    let last = last.and_then(|id| id.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = Events {
        ticks,
        clock,
        stopped: Box::pin(stop.cancelled_owned()),
        count: last,
        left: MOST_EVENTS,
    };
    let mut answer = server::content(StatusCode::OK, "text/event-stream", Bytes::new());
    *answer.body_mut() = events.boxed_unsync();
    answer
}

/// The body: a frame an event.
struct Events {
    ticks: Interval,
    clock: Clock,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    count: u64,
    left: u64,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 || self.stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        ready!(self.ticks.poll_tick(context));
        self.left -= 1;
        self.count = self.count.saturating_add(1);
        let data = json!({"count": self.count, "at": self.clock.now().as_millis()});
        let event = format!("id: {}\nevent: tick\ndata: {data}\n\n", self.count);
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

/// Accepts a WebSocket that says back what it is told, after a greeting.
#[must_use]
pub fn websocket(
    mut request: Request<Incoming>,
    claims: &Map<String, Value>,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> Answer {
    let is = |name, wanted: &str| {
        let lines = request.headers().get_all(name).into_iter();
        let mut words = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        words.any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    // RFC 6455 §4.2.1, points 3 to 6.
    let is_handshake =
        is(UPGRADE, "websocket") && is(CONNECTION, "upgrade") && is(SEC_WEBSOCKET_VERSION, "13");
    let accept = request
        .headers()
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
    let (true, Some(accept)) = (is_handshake, accept) else {
        let mut answer = server::words(StatusCode::UPGRADE_REQUIRED, "wanted: a WebSocket\n");
        let headers = answer.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return answer;
    };
    let greeting = json!({"hello": claims.get("name"), "sub": claims.get("sub")}).to_string();
    let upgrade = hyper::upgrade::on(&mut request);
    tracker.spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let config = WebSocketConfig::default()
                .max_message_size(Some(MAX_MESSAGE))
                .max_frame_size(Some(MAX_MESSAGE));
            let io = TokioIo::new(upgraded);
            let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
            say_back(socket, greeting, stop).await;
        }
    });
    let mut answer = server::words(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = answer.headers_mut();
    headers.clear();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer
}

async fn say_back(mut socket: WebSocketStream<TokioIo<Upgraded>>, greeting: String, stop: CancellationToken) {
    if socket.send(Message::text(greeting)).await.is_err() {
        return;
    }
    let until = tokio::time::sleep(LONGEST_SOCKET);
    let mut until = std::pin::pin!(until);
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => break,
            () = &mut until => break,
            message = socket.next() => message,
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
    // RFC 6455 §7.4.1: 1001, "an endpoint is going away".
    let farewell = CloseFrame {
        code: CloseCode::Away,
        reason: "the demo has ended".into(),
    };
    let closing = socket.close(Some(farewell));
    let _ = tokio::time::timeout(Duration::from_secs(1), closing).await;
}

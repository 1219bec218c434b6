//! `WebSocket`s and event streams end with their session, on every replica (contract 4.9, standards §17).
//!
//! The API is played by the test itself, frame by frame; the browser's WebSocket is a real client. What is measured is
//! printed.

use crate::support::browser::{Browser, Request, SESSION};
use crate::support::cloakroom::Cloakroom;
use crate::support::config::Config;
use crate::support::h2::H2;
use crate::support::redis::Redis;
use crate::support::rig::Rig;
use crate::support::wire::{Framing, Head, Wire};
use crate::support::{runtime, websocket, within};
use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// What contract 4.9 allows.
const SECOND: Duration = Duration::from_secs(1);
const EVENT: &str = "data: tick\n\n";

/// An API that accepts every WebSocket and begins every other answer as an event stream, and gives the test the rest.
struct Api {
    address: SocketAddr,
    opened: mpsc::Receiver<Wire<TcpStream>>,
    served: JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Api {
    async fn start() -> Self {
        let listener = runtime()
            .spawn(TcpListener::bind("127.0.0.1:0"))
            .await
            .unwrap()
            .unwrap();
        let address = listener.local_addr().unwrap();
        let (opening, opened) = mpsc::channel(16);
        let served = runtime().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let opening = opening.clone();
                connections.spawn(async move {
                    let mut wire = Wire::new(stream);
                    if let Ok(Some(asked)) = wire.head().await
                        && wire.send(answer(&asked).as_bytes()).await.is_ok()
                    {
                        let _gone = opening.send(wire).await;
                    }
                });
            }
        });
        Self {
            address,
            opened,
            served,
        }
    }

    async fn opened(&mut self) -> Wire<TcpStream> {
        within(5, "a stream to be opened at the API", self.opened.recv())
            .await
            .unwrap()
    }
}

fn answer(asked: &Head) -> String {
    match asked.value("sec-websocket-key") {
        Some(key) => format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            websocket::accept(key)
        ),
        None => "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
                 Transfer-Encoding: chunked\r\n\r\n"
            .to_owned(),
    }
}

/// A rig whose `/api` is the test's own.
async fn rig(redis: Option<Redis>, change: impl FnOnce(Config) -> Config) -> (Rig, Api) {
    let api = Api::start().await;
    let url = format!("http://{}", api.address);
    let rig = Rig::build(redis, |config| change(config.set("routes.0.upstream", url))).await;
    (rig, api)
}

type Socket = WebSocketStream<TcpStream>;

/// Opens a WebSocket as a browser does, at this replica.
async fn connect(browser: &Browser) -> Socket {
    let mut request = format!("ws://{}/api/ws", browser.host())
        .into_client_request()
        .unwrap();
    let headers = request.headers_mut();
    headers.insert("origin", browser.origin.parse().unwrap());
    let cookie = format!("{SESSION}={}", browser.session().unwrap());
    headers.insert("cookie", cookie.parse().unwrap());
    let stream = TcpStream::connect(browser.address).await.unwrap();
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(response.status(), 101);
    socket
}

/// Reads to the close frame, and answers it; `None`: the connection ended without one.
async fn closed(socket: &mut Socket) -> Option<CloseFrame> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => {
                // Answers, and waits for the end of the connection.
                while let Some(Ok(_)) = socket.next().await {}
                return frame;
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

fn is_1008(frame: Option<&CloseFrame>) {
    let frame = frame.expect("a close frame with a code");
    assert_eq!(
        (u16::from(frame.code), frame.reason.as_str()),
        (1008, "session ended")
    );
}

/// What the API is told: 1001, masked as a client must; then its connection ends.
async fn api_is_told(wire: &mut Wire<TcpStream>) {
    let (kind, payload) = within(2, "the API to be told", websocket::read(wire))
        .await
        .unwrap();
    assert_eq!(kind, websocket::CLOSE);
    assert_eq!(payload, [&1001_u16.to_be_bytes(), &b"session ended"[..]].concat());
    let _gone = websocket::write(wire, websocket::CLOSE, &payload, false).await;
    let end = within(2, "the end of the API's connection", wire.line()).await;
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
}

async fn log_out(browser: &mut Browser) -> Instant {
    let start = Instant::now();
    let reply = browser.fetch("POST", "/bff/logout").await;
    assert!(reply.status < 400, "{}", reply.text());
    start
}

fn took(what: &str, since: Instant) {
    let took = since.elapsed();
    println!("{what}: {} ms", took.as_millis());
    assert!(took < SECOND, "{what}: {took:?}");
}

async fn round_trip(socket: &mut Socket, api: &mut Wire<TcpStream>, word: &'static str) {
    socket.send(Message::text(word)).await.unwrap();
    let said = within(2, "a message to the API", websocket::read(api))
        .await
        .unwrap();
    assert_eq!(said, (websocket::TEXT, word.as_bytes().to_vec()));
    websocket::write(api, websocket::TEXT, &said.1, false)
        .await
        .unwrap();
    let back = within(2, "its answer", socket.next()).await.unwrap().unwrap();
    assert_eq!(back, Message::text(word));
}

/// Sends a chunk with an event.
async fn event(api: &mut Wire<TcpStream>) -> std::io::Result<()> {
    api.send(format!("{:x}\r\n{EVENT}\r\n", EVENT.len()).as_bytes())
        .await
}

/// Opens an event stream, and reads its first event.
async fn listen(browser: &mut Browser, api: &mut Api) -> (Wire<TcpStream>, Framing, Wire<TcpStream>) {
    let request = Request::fetch("GET", "/api/events").with("Accept", "text/event-stream");
    let (head, mut wire) = browser.open(&request).await;
    assert_eq!(
        (head.status(), head.value("content-type")),
        (200, Some("text/event-stream; charset=utf-8"))
    );
    let mut framing = head.response_framing("GET");
    let mut up = api.opened().await;
    event(&mut up).await.unwrap();
    let first = within(2, "the first event", wire.piece(&mut framing)).await;
    assert_eq!(first.unwrap().unwrap(), EVENT.as_bytes());
    (wire, framing, up)
}

#[tokio::test]
async fn ws_04_lo_06_a_logout_here_ends_websockets_and_event_streams_there_within_a_second() {
    let (rig, mut api) = rig(Some(Redis::start().await), |config| config).await;
    let there = Cloakroom::start(&rig.config.replica()).await;
    let mut browser = rig.signed_in().await;
    let mut other = browser.at(there.port);
    let mut socket = connect(&other).await;
    let mut api_socket = api.opened().await;
    round_trip(&mut socket, &mut api_socket, "hello").await;
    let (mut stream, mut framing, mut api_stream) = listen(&mut other, &mut api).await;
    // Somebody else's stay.
    let mut stranger = rig.browser();
    stranger.login_as(&rig.rogue, "bob", "/").await;
    let mut strangers = connect(&stranger.at(there.port)).await;
    let mut api_strangers = api.opened().await;

    let start = log_out(&mut browser).await;
    is_1008(within(2, "the close", closed(&mut socket)).await.as_ref());
    took("the socket on another replica", start);
    let end = within(2, "the stream's end", stream.piece(&mut framing)).await;
    assert!(end.unwrap().is_none(), "a clean end");
    took("the event stream on another replica", start);
    api_is_told(&mut api_socket).await;
    let gone = within(2, "the API's stream to be let go", api_stream.line()).await;
    assert!(!matches!(gone, Ok(Some(_))), "{gone:?}");
    took("the API of both", start);
    round_trip(&mut strangers, &mut api_strangers, "still here").await;

    // The browser's EventSource comes again, on the same connection, and is told why not.
    let again = format!(
        "GET /api/events HTTP/1.1\r\nHost: {}\r\nSec-Fetch-Site: same-origin\r\nCookie: {SESSION}={}\r\n\r\n",
        other.host(),
        other.session().unwrap()
    );
    stream.send(again.as_bytes()).await.unwrap();
    let head = within(2, "an answer", stream.head()).await.unwrap().unwrap();
    assert_eq!(head.status(), 401);
}

#[tokio::test]
async fn ws_04_many_streams_on_another_replica_end_within_a_second() {
    const MANY: usize = 200;
    let (rig, mut api) = rig(Some(Redis::start().await), |config| config).await;
    let there = Cloakroom::start(&rig.config.replica()).await;
    let mut browser = rig.signed_in().await;
    let other = browser.at(there.port);
    let (mut sockets, mut apis) = (JoinSet::new(), Vec::new());
    for _ in 0..MANY {
        let mut socket = connect(&other).await;
        apis.push(api.opened().await);
        sockets.spawn(async move { closed(&mut socket).await });
    }
    let start = log_out(&mut browser).await;
    let each = within(3, "all of them", sockets.join_all()).await;
    // The browsers' connections have ended as well, though the API has not answered yet.
    took("200 sockets on another replica", start);
    for frame in &each {
        is_1008(frame.as_ref());
    }
}

#[tokio::test]
async fn ws_04_a_redis_that_may_not_tell_of_changes_is_asked_often_enough() {
    let server = Redis::start().await;
    let denied = ["SETUSER", "default", "-client|tracking"];
    redis::cmd("ACL")
        .arg(&denied)
        .exec(&mut server.connection())
        .unwrap();
    let (rig, mut api) = rig(Some(server), |config| config).await;
    let there = Cloakroom::start(&rig.config.replica()).await;
    let mut browser = rig.signed_in().await;
    let mut other = browser.at(there.port);
    let mut socket = connect(&other).await;
    let mut up = api.opened().await;
    let (mut stream, mut framing, _up) = listen(&mut other, &mut api).await;
    let start = log_out(&mut browser).await;
    is_1008(within(2, "the close", closed(&mut socket)).await.as_ref());
    let end = within(2, "the stream's end", stream.piece(&mut framing)).await;
    assert!(end.unwrap().is_none());
    took("on another replica that is told nothing", start);
    api_is_told(&mut up).await;
}

#[tokio::test]
async fn ws_04_the_close_waits_for_the_end_of_a_large_frame() {
    let (rig, mut api) = rig(None, |config| config).await;
    let mut browser = rig.signed_in().await;
    let mut socket = connect(&browser).await;
    let mut up = api.opened().await;
    // 300 kB in one frame, of which only the half comes before the session ends.
    let length = 300_000_u64;
    let head = [&[0x82, 127][..], &length.to_be_bytes()].concat();
    let payload: Vec<u8> = [0x88, 0].repeat(150_000);
    up.send(&head).await.unwrap();
    up.send(&payload[..150_000]).await.unwrap();
    // It is under way once the browser has some of it.
    let mut some = [0; 100];
    let arrived = socket.get_ref().peek(&mut some);
    within(2, "the frame's beginning", arrived).await.unwrap();
    let start = log_out(&mut browser).await;
    // The other way nothing was under way: the API is told at once, while its own frame is unfinished.
    let told = within(2, "the API to be told", websocket::read(&mut up))
        .await
        .unwrap();
    assert_eq!(told.0, websocket::CLOSE);
    took("told in the middle of a frame", start);
    up.send(&payload[150_000..]).await.unwrap();
    websocket::write(&mut up, websocket::TEXT, b"too late", false)
        .await
        .unwrap();
    websocket::write(&mut up, websocket::CLOSE, &told.1, false)
        .await
        .unwrap();
    let message = within(2, "the message", socket.next()).await.unwrap().unwrap();
    assert!(message == Message::binary(payload), "{} bytes", message.len());
    let Message::Close(frame) = within(2, "the close", socket.next()).await.unwrap().unwrap() else {
        panic!("something came between the frame and the close");
    };
    is_1008(frame.as_ref());
    took("closed after the frame", start);
}

#[tokio::test]
async fn ws_04_ws_05_a_browser_that_does_not_read_is_cut_after_a_second() {
    let (rig, mut api) = rig(None, |config| config).await;
    let mut browser = rig.signed_in().await;
    let mut socket = connect(&browser).await;
    let mut up = api.opened().await;
    // Until nothing more goes: every buffer on the way is full.
    let head = [&[0x82, 127][..], &(1_u64 << 40).to_be_bytes()].concat();
    up.send(&head).await.unwrap();
    let piece = [b'x'; 8 * 1024];
    while let Ok(sent) = tokio::time::timeout(Duration::from_millis(300), up.send(&piece)).await {
        sent.unwrap();
    }
    let start = log_out(&mut browser).await;
    let told = within(2, "the API to be told", websocket::read(&mut up))
        .await
        .unwrap();
    assert_eq!(told.0, websocket::CLOSE);
    took("told, though the browser does not read", start);
    let end = within(3, "the cut", up.line()).await;
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
    let cut = start.elapsed();
    println!("cut: {} ms", cut.as_millis());
    assert!(cut < SECOND + Duration::from_millis(500), "{cut:?}");
    // Nothing but what was under way comes to a browser that wakes up late: no close in a frame's middle.
    assert!(within(5, "the end", closed(&mut socket)).await.is_none());
}

#[tokio::test]
async fn ws_04_se_06_rf_15_only_what_the_browser_says_keeps_a_session_alive() {
    let (rig, mut api) = rig(Some(Redis::start().await), |config| {
        config
            .set("session.idle_timeout", "2s")
            .set("session.absolute_timeout", "6s")
    })
    .await;
    // One hears messages and sends pings only.
    let listener = rig.signed_in().await;
    let begun = Instant::now();
    let mut hears = connect(&listener).await;
    let mut up = api.opened().await;
    let pouring = tokio::spawn(async move {
        while websocket::write(&mut up, websocket::TEXT, b"news", false)
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let pings = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(150));
        let mut hears_on = true;
        let mut frame = None;
        while hears_on {
            tokio::select! {
                _ = ticks.tick() => hears.send(Message::Ping("".into())).await.unwrap(),
                message = hears.next() => match message {
                    Some(Ok(Message::Close(close))) => (frame, hears_on) = (close, false),
                    Some(Ok(_)) => {}
                    other => panic!("{other:?}"),
                },
            }
        }
        (frame, begun.elapsed())
    });
    // One listens to events.
    let mut reader = rig.signed_in().await;
    let began_reading = Instant::now();
    let (mut stream, mut framing, mut up) = listen(&mut reader, &mut api).await;
    let ticking = tokio::spawn(async move {
        while event(&mut up).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let events = tokio::spawn(async move {
        while stream.piece(&mut framing).await.unwrap().is_some() {}
        began_reading.elapsed()
    });
    // One talks, into silence.
    let talker = rig.signed_in().await;
    let began_talking = Instant::now();
    let mut talks = connect(&talker).await;
    let _silent = api.opened().await;
    let talking = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(300));
        loop {
            tokio::select! {
                _ = ticks.tick() => talks.send(Message::text("I am here")).await.unwrap(),
                message = talks.next() => match message {
                    Some(Ok(Message::Close(close))) => return (close, began_talking.elapsed()),
                    other => panic!("{other:?}"),
                },
            }
        }
    });
    let lasts = |what: &str, lasted: Duration, seconds: u64| {
        println!("{what}: {} ms", lasted.as_millis());
        let wanted = Duration::from_secs(seconds);
        // A login before `begun` is a little older.
        assert!(
            lasted + SECOND / 2 > wanted && lasted < wanted + SECOND,
            "{what}: {lasted:?}"
        );
    };
    let (frame, lasted) = within(10, "the idle end", pings).await.unwrap();
    is_1008(frame.as_ref());
    lasts("a socket that only hears", lasted, 2);
    lasts(
        "an event stream",
        within(10, "the idle end", events).await.unwrap(),
        2,
    );
    let (frame, lasted) = within(10, "the absolute end", talking).await.unwrap();
    is_1008(frame.as_ref());
    lasts("a socket on which the browser talks", lasted, 6);
    pouring.abort();
    ticking.abort();
}

#[tokio::test]
async fn ws_04_event_streams_end_over_http_2_as_well() {
    let (rig, mut api) = rig(None, |config| config).await;
    let mut browser = rig.signed_in().await;
    let mut connection = H2::connect(rig.cloakroom.address()).await;
    let cookie = format!("{SESSION}={}", browser.session().unwrap());
    let ask = |path: &'static str| {
        [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", browser.host()),
            (":path", path),
            ("sec-fetch-site", "same-origin"),
            ("cookie", &cookie),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let stream = connection.open(&ask("/api/events"), true).await;
    let again = ask("/api/events");
    let open = ask("/api/public/x");
    let mut up = api.opened().await;
    event(&mut up).await.unwrap();
    connection
        .until("the first event", |c| {
            c.answers
                .get(&stream)
                .is_some_and(|answer| answer.text() == EVENT)
        })
        .await;
    let start = log_out(&mut browser).await;
    let answer = connection.answer(stream).await;
    took("an event stream over HTTP/2", start);
    assert!(
        answer.complete && answer.reset.is_none(),
        "a clean end: {answer:?}"
    );
    assert_eq!(answer.text(), EVENT);
    let gone = within(2, "the API's stream to be let go", up.line()).await;
    assert!(!matches!(gone, Ok(Some(_))), "{gone:?}");
    // The connection and its other streams go on.
    assert_eq!(connection.ask(&again).await.status, 401);
    assert_eq!(connection.ask(&open).await.status, 200);
    assert!(connection.goaway.is_none());
}

#[tokio::test]
async fn ws_04_streams_run_on_while_redis_is_away_and_are_judged_within_a_second_of_its_return() {
    let (mut rig, mut api) = rig(Some(Redis::start().await), |config| {
        config.set("session.idle_timeout", "3s")
    })
    .await;
    let browser = rig.signed_in().await;
    let mut socket = connect(&browser).await;
    let mut up = api.opened().await;
    let redis = rig.redis.as_mut().unwrap();
    redis.pause();
    let paused = Instant::now();
    // Past the idle end as it is known: whether another replica has put it off cannot be asked.
    while paused.elapsed() < Duration::from_millis(4500) {
        round_trip(&mut socket, &mut up, "who is there?").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    redis.resume();
    let start = Instant::now();
    is_1008(within(3, "the close", closed(&mut socket)).await.as_ref());
    took("after Redis went on", start);
    api_is_told(&mut up).await;

    // A server that comes back without the session.
    let browser = rig.signed_in().await;
    let mut socket = connect(&browser).await;
    let mut up = api.opened().await;
    let redis = rig.redis.as_mut().unwrap();
    redis.kill();
    for _ in 0..10 {
        round_trip(&mut socket, &mut up, "and now?").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    redis.open().await;
    let start = Instant::now();
    is_1008(within(3, "the close", closed(&mut socket)).await.as_ref());
    took("after Redis was there again", start);
    api_is_told(&mut up).await;
}

#[tokio::test]
async fn ws_04_lo_06_a_refresh_that_died_ends_the_sessions_streams() {
    let (rig, mut api) = rig(None, |config| config).await;
    rig.rogue.script(|script| script.lifetime = Some(4));
    let mut browser = rig.signed_in().await;
    rig.rogue.script(|script| script.lifetime = None);
    let mut socket = connect(&browser).await;
    let mut up = api.opened().await;
    round_trip(&mut socket, &mut up, "hello").await;
    let (mut stream, mut framing, _up) = listen(&mut browser, &mut api).await;
    rig.rogue.forget_refresh_tokens();
    let start = Instant::now();
    let status = loop {
        let status = browser.clone().fetch("GET", "/api/optional/x").await.status;
        if rig.rogue.grants("refresh_token") > 0 {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(8), "no refresh");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(status, 200);
    let start = Instant::now();
    is_1008(within(2, "the close", closed(&mut socket)).await.as_ref());
    let end = within(2, "the stream's end", stream.piece(&mut framing)).await;
    assert!(end.unwrap().is_none());
    took("after invalid_grant", start);
    api_is_told(&mut up).await;
}

#[tokio::test]
async fn ws_02_what_is_no_websocket_frame_does_not_pass() {
    let (rig, mut api) = rig(None, |config| config).await;
    let mut browser = rig.signed_in().await;
    for bytes in [&b"GET /api/smuggled HTTP/1.1\r\n\r\n"[..], &[0x81, 2, b'h', b'i']] {
        let opening = Request::bare("GET", "/api/ws")
            .with("Origin", &rig.cloakroom.origin)
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let (head, mut wire) = browser.open(&opening).await;
        assert_eq!(head.status(), 101);
        let mut up = api.opened().await;
        wire.send(bytes).await.unwrap();
        let ends = |end: std::io::Result<Option<String>>| assert!(!matches!(end, Ok(Some(_))), "{end:?}");
        ends(within(2, "the end upstream", up.line()).await);
        ends(within(2, "the end", wire.line()).await);
    }
}

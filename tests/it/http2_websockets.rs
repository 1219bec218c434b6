//! `WebSocket`s over HTTP/2 (RFC 8441), frame by frame: the rules of those over HTTP/1.1 hold, and to the upstream there is
//! no difference.

use crate::support::browser::{Browser, Request, SESSION};
use crate::support::h2::{self, Answer, H2};
use crate::support::rig::Rig;
use crate::support::upstream::Play;
use crate::support::{until, websocket, within};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

/// `SETTINGS_ENABLE_CONNECT_PROTOCOL` (RFC 8441 §3).
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

type Fields = Vec<(String, String)>;

/// A handshake as Chromium sends it.
fn handshake(browser: &Browser, path: &str) -> Fields {
    let session = browser.session().map(|session| format!("{SESSION}={session}"));
    let mut fields = vec![
        (":method", "CONNECT"),
        (":authority", browser.host()),
        (":scheme", "http"),
        (":path", path),
        (":protocol", "websocket"),
        ("origin", &browser.origin),
        ("sec-websocket-version", "13"),
    ];
    fields.extend(session.as_ref().map(|session| ("cookie", session.as_str())));
    let owned = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    owned.collect()
}

/// The same, with that field as it is told; `None`: without it.
fn with(mut fields: Fields, name: &str, value: Option<&str>) -> Fields {
    fields.retain(|(other, _)| other != name);
    let at = if name.starts_with(':') { 0 } else { fields.len() };
    fields.splice(at..at, value.map(|value| (name.to_owned(), value.to_owned())));
    fields
}

async fn connect(rig: &Rig) -> H2<TcpStream> {
    H2::connect(rig.cloakroom.address()).await
}

/// The head of what comes on a stream that may stay open.
async fn head(connection: &mut H2<TcpStream>, stream: u32) -> Answer {
    let is_there = |c: &H2<TcpStream>| {
        let answer = c.answers.get(&stream);
        answer.is_some_and(|answer| answer.status != 0 || answer.reset.is_some())
    };
    connection.until("the answer to a handshake", is_there).await;
    connection.answers.get(&stream).cloned().unwrap_or_default()
}

/// Opens a WebSocket.
async fn open(connection: &mut H2<TcpStream>, fields: &[(String, String)]) -> (u32, Answer) {
    let stream = connection.open(fields, false).await;
    let answer = head(connection, stream).await;
    assert_eq!((answer.status, answer.complete), (200, false), "{answer:?}");
    (stream, answer)
}

/// Says a word, and hears it again.
async fn talks(connection: &mut H2<TcpStream>, stream: u32, word: &str) {
    let before = connection.answers[&stream].body.len();
    let said = websocket::frame(websocket::TEXT, word.as_bytes(), true);
    connection.send(&h2::data(stream, &said, false)).await;
    let back = websocket::frame(websocket::TEXT, word.as_bytes(), false);
    let is_back = |c: &H2<TcpStream>| c.answers[&stream].body[before..] == back[..];
    connection.until("an echo", is_back).await;
    assert!(!connection.closed, "{word}");
}

#[tokio::test]
async fn a_websocket_over_http2_is_one_over_http_1_1_to_the_upstream() {
    let rig = Rig::start().await;
    rig.upstream.on("/api/ws", Play::Echo);
    let browser = rig.signed_in().await;
    let mut connection = connect(&rig).await;
    connection.settle().await;
    assert_eq!(connection.settings.get(&ENABLE_CONNECT_PROTOCOL), Some(&1));
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let mut fields = handshake(&browser, "/api/ws?room=1");
    for (name, value) in [
        ("sec-websocket-protocol", "chat, superchat"),
        (
            "sec-websocket-extensions",
            "permessage-deflate; client_max_window_bits",
        ),
        ("sec-websocket-key", key),
        ("x-forwarded-for", "192.0.2.1"),
        ("cookie", "theme=dark"),
    ] {
        fields.push((name.to_owned(), value.to_owned()));
    }
    let (one, answer) = open(&mut connection, &fields).await;
    for gone in [
        "connection",
        "upgrade",
        "sec-websocket-accept",
        "transfer-encoding",
        "content-length",
    ] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    talks(&mut connection, one, "hello").await;
    let (other, _) = open(&mut connection, &fields).await;
    talks(&mut connection, other, "another").await;
    talks(&mut connection, one, "and the first again").await;

    let ups = rig.upstream.requests();
    let keys: Vec<_> = ups.iter().flat_map(|up| up.values("sec-websocket-key")).collect();
    assert!(
        keys.len() == 2 && keys[0] != keys[1] && !keys.contains(&key),
        "{keys:?}"
    );
    let up = &ups[0];
    assert_eq!(
        (up.method.as_str(), up.target.as_str()),
        ("GET", "/api/ws?room=1")
    );
    assert_eq!(
        rig.rogue.subject_of(up.bearer().unwrap()).as_deref(),
        Some("alice")
    );
    for (name, value) in [
        ("host", rig.upstream.address.to_string().as_str()),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, superchat"),
        (
            "sec-websocket-extensions",
            "permessage-deflate; client_max_window_bits",
        ),
        ("origin", &browser.origin),
        ("x-forwarded-for", "127.0.0.1"),
        ("cookie", "theme=dark"),
    ] {
        assert_eq!(up.values(name), [value], "{name}");
    }
    assert!(
        up.fields.iter().all(|(name, _)| !name.starts_with(':')),
        "{:?}",
        up.fields
    );

    // The browser ends its side: so does the upstream, and then the stream is over.
    connection.send(&h2::data(one, &[], true)).await;
    let answer = connection.answer(one).await;
    assert!(answer.complete, "{answer:?}");
    talks(&mut connection, other, "still here").await;
    // One that gives up leaves nothing upstream.
    let ended = rig.upstream.ended();
    connection.send(&h2::reset(other, h2::CANCEL)).await;
    until(5, "the end upstream", || rig.upstream.ended() > ended).await;
}

#[tokio::test]
async fn what_the_upstream_agreed_to_comes_back() {
    let address = accepting(|key| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {}\r\n\
             Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\nContent-Length: 5\r\n\
             Set-Cookie: room=1\r\n\r\n",
            websocket::accept(key)
        )
    })
    .await;
    let rig = Rig::with(|config| config.set("routes.0.upstream", format!("http://{address}"))).await;
    let browser = rig.signed_in().await;
    let mut connection = connect(&rig).await;
    let (_, answer) = open(&mut connection, &handshake(&browser, "/api/ws")).await;
    assert_eq!(answer.header("sec-websocket-protocol"), Some("chat"));
    assert_eq!(
        answer.header("sec-websocket-extensions"),
        Some("permessage-deflate")
    );
    assert_eq!(answer.header("set-cookie"), Some("room=1"));
    assert_eq!(answer.header("content-length"), None);
}

/// An upstream that answers a handshake's key so, and says nothing more.
async fn accepting(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> SocketAddr {
    let runtime = crate::support::runtime();
    let listener = runtime
        .spawn(TcpListener::bind("127.0.0.1:0"))
        .await
        .unwrap()
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            let mut wire = crate::support::wire::Wire::new(stream);
            if let Ok(Some(asked)) = wire.head().await {
                let key = asked.value("sec-websocket-key").unwrap_or_default();
                let _gone = wire.send(answer(key).as_bytes()).await;
            }
            open.push(wire);
        }
    });
    address
}

#[tokio::test]
async fn ws_01_ws_02_a_handshake_over_http2_is_judged_as_one_over_http_1_1() {
    let rig = Rig::start().await;
    for path in ["/api/ws", "/api/optional/ws", "/api/public/ws"] {
        rig.upstream.on(path, Play::Echo);
    }
    let browser = rig.signed_in().await;
    let stranger = rig.browser();
    let mut connection = connect(&rig).await;
    for path in ["/api/ws", "/api/optional/ws"] {
        for who in [&browser, &stranger] {
            for origin in [None, Some("https://evil.example"), Some("null"), Some("")] {
                let fields = with(handshake(who, path), "origin", origin);
                let fields = with(fields, "sec-fetch-site", Some("same-origin"));
                let fields = with(fields, "x-csrf", Some("1"));
                let answer = connection.ask(&fields).await;
                assert_eq!(
                    (answer.status, answer.problem().as_str()),
                    (403, "csrf"),
                    "{origin:?}"
                );
            }
        }
    }
    let answer = connection.ask(&handshake(&stranger, "/api/ws")).await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (401, "unauthenticated")
    );
    let elsewhere = with(handshake(&browser, "/api/ws"), ":authority", Some("evil.example"));
    assert_eq!(connection.ask(&elsewhere).await.status, 421);
    for (path, wanted) in [("/api//ws", 400), ("/bff/user", 400), ("/app.js", 400)] {
        let answer = connection.ask(&handshake(&browser, path)).await;
        assert_eq!(answer.status, wanted, "{path}: {answer:?}");
    }
    // Other protocols, and none.
    for protocol in ["connect-udp", "h2c", "websocket2", ""] {
        let fields = with(handshake(&browser, "/api/ws"), ":protocol", Some(protocol));
        let mut connection = connect(&rig).await;
        let answer = connection.ask(&fields).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (405, "method_not_allowed")
        );
    }
    let fields = with(handshake(&browser, "/api/ws"), ":protocol", None);
    let answer = connect(&rig).await.ask(&fields).await;
    assert!(answer.reset.is_some() && answer.status == 0, "{answer:?}");
    assert_eq!(rig.upstream.connections(), 0);

    // Where no session is looked at, anybody may.
    for (who, path) in [
        (&stranger, "/api/optional/ws"),
        (&stranger, "/api/public/ws"),
        (&browser, "/api/ws"),
    ] {
        let mut fields = handshake(who, path);
        if path == "/api/public/ws" {
            fields = with(fields, "origin", Some("https://elsewhere.example"));
        }
        let (stream, _) = open(&mut connection, &fields).await;
        talks(&mut connection, stream, path).await;
        assert_eq!(rig.upstream.last().bearer().is_some(), path == "/api/ws");
    }
    // Another version is no handshake that is known here: an ordinary request, and no answer to that is a WebSocket.
    let fields = with(
        handshake(&browser, "/api/public/x"),
        "sec-websocket-version",
        Some("8"),
    );
    let answer = connection.ask(&fields).await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_request"));
    assert!(rig.upstream.last().values("upgrade").is_empty());
    // What a listener without WebSockets does not offer, it does not take.
    let mut admin = H2::connect(SocketAddr::from(([127, 0, 0, 1], rig.config.admin))).await;
    admin.settle().await;
    assert_eq!(admin.settings.get(&ENABLE_CONNECT_PROTOCOL), None);
    let answer = admin.ask(&handshake(&browser, "/healthz")).await;
    assert!(answer.reset.is_some() && answer.status == 0, "{answer:?}");
}

#[tokio::test]
async fn ws_03_an_upstream_that_does_not_agree_gets_nothing_more() {
    let rig = Rig::start().await;
    let browser = rig.signed_in().await;
    let mut connection = connect(&rig).await;
    let accept = websocket::accept("dGhlIHNhbXBsZSBub25jZQ==");
    let switched = |lines: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n");
    let agreed = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    for (play, wanted, says) in [
        (
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno".to_owned(),
            401,
            "no",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n".to_owned(),
            403,
            "no",
        ),
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            404,
            "",
        ),
        (
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n".to_owned(),
            426,
            "",
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".to_owned(),
            302,
            "",
        ),
        // A success is no agreement here, though it would be one to the browser.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
            400,
            "There is no WebSocket",
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{agreed}\r\n"),
            400,
            "There is no WebSocket",
        ),
        (
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            400,
            "There is no WebSocket",
        ),
        // It answers another handshake than ours, or says nothing of it.
        (
            switched(&format!("{agreed}Sec-WebSocket-Accept: {accept}\r\n")),
            502,
            "upstream_unavailable",
        ),
        (switched(agreed), 502, "upstream_unavailable"),
        (
            switched("Upgrade: h2c\r\nConnection: Upgrade\r\n"),
            502,
            "upstream_unavailable",
        ),
    ] {
        rig.upstream.on("/api/ws", Play::bytes(play.clone()));
        let stream = connection.open(&handshake(&browser, "/api/ws"), false).await;
        let smuggled = b"GET /api/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        connection.send(&h2::data(stream, smuggled, false)).await;
        let answer = connection.answer(stream).await;
        assert_eq!(
            (answer.status, answer.complete),
            (wanted, true),
            "{play}: {answer:?}"
        );
        assert!(answer.text().contains(says), "{play}: {answer:?}");
        for gone in ["connection", "upgrade", "sec-websocket-accept"] {
            assert_eq!(answer.header(gone), None, "{play}: {gone}");
        }
    }
    let seen = rig.upstream.requests();
    assert!(
        seen.iter().all(|up| up.target == "/api/ws" && up.body.is_empty()),
        "{seen:?}"
    );
    rig.upstream.on("/api/ws", Play::Echo);
    let (stream, _) = open(&mut connection, &handshake(&browser, "/api/ws")).await;
    talks(&mut connection, stream, "the connection goes on").await;
    // What is no frame ends the stream, and its neighbours do not notice.
    let (other, _) = open(&mut connection, &handshake(&browser, "/api/ws")).await;
    connection
        .send(&h2::data(other, b"GET / HTTP/1.1\r\n\r\n", false))
        .await;
    let answer = connection.answer(other).await;
    assert!(answer.body.is_empty(), "ws_02: {answer:?}");
    talks(&mut connection, stream, "still").await;
}

#[tokio::test]
async fn ws_04_a_logout_closes_it_with_1008_and_the_connections_other_streams_go_on() {
    let rig = Rig::start().await;
    rig.upstream.on("/api/ws", Play::Echo);
    rig.upstream.on("/api/public/ws", Play::Echo);
    let mut browser = rig.signed_in().await;
    let mut connection = connect(&rig).await;
    let (stream, _) = open(&mut connection, &handshake(&browser, "/api/ws")).await;
    let (open_to_all, _) = open(&mut connection, &handshake(&browser, "/api/public/ws")).await;
    talks(&mut connection, stream, "hello").await;
    let before = connection.answers[&stream].body.len();
    let start = Instant::now();
    let reply = browser.fetch("POST", "/bff/logout").await;
    assert!(reply.status < 400, "{}", reply.text());
    let close = [&1008_u16.to_be_bytes()[..], b"session ended"].concat();
    let frame = websocket::frame(websocket::CLOSE, &close, false);
    let is_closed = |c: &H2<TcpStream>| c.answers[&stream].body[before..] == frame[..];
    connection.until("the close", is_closed).await;
    let back = websocket::frame(websocket::CLOSE, &close, true);
    connection.send(&h2::data(stream, &back, false)).await;
    let answer = connection.answer(stream).await;
    println!("closed after {} ms", start.elapsed().as_millis());
    assert!(
        start.elapsed() < Duration::from_secs(1) && answer.complete,
        "{answer:?}"
    );
    talks(&mut connection, open_to_all, "not of that session").await;
    let again = connection.ask(&handshake(&browser, "/api/ws")).await;
    assert_eq!(again.status, 401);
}

#[tokio::test]
async fn ws_04_ws_05_a_stream_that_is_not_read_is_cut_after_a_second_and_holds_the_upstream_back() {
    let address = crate::limits::pouring_into_a_websocket().await;
    let rig = Rig::with(|config| config.set("routes.0.upstream", format!("http://{address}"))).await;
    let mut browser = rig.signed_in().await;
    let tcp = TcpStream::connect(rig.cloakroom.address()).await.unwrap();
    // So much may come, and no more: the test never opens the window again.
    let mut connection = H2::over(tcp, 1000).await;
    let stream = connection.open(&handshake(&browser, "/api/ws"), false).await;
    let is_full = |c: &H2<TcpStream>| c.answers.get(&stream).is_some_and(|a| a.body.len() == 1000);
    connection.until("a full window", is_full).await;
    let before = rig.cloakroom.resident();
    connection.settle().await;
    let start = Instant::now();
    let reply = browser.fetch("POST", "/bff/logout").await;
    assert!(reply.status < 400, "{}", reply.text());
    let answer = connection.answer(stream).await;
    let took = start.elapsed();
    println!("cut after {} ms", took.as_millis());
    assert_eq!((answer.reset, answer.body.len()), (Some(h2::CANCEL), 1000));
    assert!(took < Duration::from_millis(1500), "{took:?}");
    let grown = rig.cloakroom.resident().saturating_sub(before);
    assert!(grown < 20 * 1024 * 1024, "{grown} bytes more");
    assert!(!connection.closed && connection.goaway.is_none());
}

#[tokio::test]
async fn ws_05_lm_04_it_keeps_its_place_as_long_as_it_lasts() {
    let rig = Rig::with(|config| config.set("server.max_connections", 2)).await;
    rig.upstream.on("/api/ws", Play::Echo);
    let browser = rig.signed_in().await;
    let mut connection = connect(&rig).await;
    let (one, _) = open(&mut connection, &handshake(&browser, "/api/ws")).await;
    let (other, _) = open(&mut connection, &handshake(&browser, "/api/ws")).await;
    let get = ["GET", browser.host(), "http", "/api/public/x"].map(str::to_owned);
    let names = [":method", ":authority", ":scheme", ":path"].map(str::to_owned);
    let third: Fields = names.into_iter().zip(get).collect();
    let third = connection.open(&third, true).await;
    for word in ["both", "of them", "are there"] {
        talks(&mut connection, one, word).await;
        talks(&mut connection, other, word).await;
    }
    let early = tokio::time::timeout(Duration::from_millis(300), connection.answer(third)).await;
    assert!(early.is_err(), "{early:?}");
    connection
        .send(&h2::data(
            one,
            &websocket::frame(websocket::CLOSE, &[], true),
            true,
        ))
        .await;
    assert!(connection.answer(one).await.complete);
    assert_eq!(within(5, "the place", connection.answer(third)).await.status, 200);
    talks(&mut connection, other, "not idle").await;
}

#[tokio::test]
async fn ws_05_a_session_has_so_many_and_no_more_whatever_the_version() {
    let rig = Rig::start().await;
    rig.upstream.on("/api/ws", Play::Echo);
    let mut browser = rig.signed_in().await;
    let opening = handshake(&browser, "/api/ws");
    let mut connections = Vec::new();
    for _ in 0..4 {
        let mut connection = connect(&rig).await;
        for _ in 0..64 {
            open(&mut connection, &opening).await;
        }
        connections.push(connection);
    }
    let count = rig.upstream.connections();
    let answer = connections[0].ask(&opening).await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (429, "too_many_requests")
    );
    let over_http_1_1 = Request::bare("GET", "/api/ws")
        .with("Origin", &rig.cloakroom.origin)
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", "13")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(browser.send(over_http_1_1.clone()).await.status, 429);
    assert_eq!(rig.upstream.connections(), count, "nothing went up");
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200, "requests go on");
    let mut another = rig.signed_in().await;
    assert_eq!(
        another.open(&over_http_1_1).await.0.status(),
        101,
        "and other sessions"
    );
    // Those of a connection that breaks off give their seats back.
    drop(connections.pop());
    let start = Instant::now();
    while browser.try_open(&over_http_1_1).await.unwrap().0.status() != 101 {
        assert!(start.elapsed() < Duration::from_secs(10), "no seat");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn lm_11_it_lives_until_it_ends_or_drain_timeout() {
    for ends_by_itself in [true, false] {
        let rig = Rig::with(|config| config.set("server.drain_timeout", "3s")).await;
        rig.upstream.on("/api/ws", Play::Echo);
        let browser = rig.signed_in().await;
        let mut connection = connect(&rig).await;
        let (stream, _) = open(&mut connection, &handshake(&browser, "/api/ws")).await;
        let Rig {
            mut cloakroom,
            upstream,
            rogue,
            ..
        } = rig;
        let start = Instant::now();
        cloakroom.signal("TERM");
        connection.until("GOAWAY", |c| c.goaway.is_some()).await;
        talks(&mut connection, stream, "still here").await;
        if ends_by_itself {
            let close = websocket::frame(websocket::CLOSE, &[], true);
            connection.send(&h2::data(stream, &close, true)).await;
            assert!(connection.answer(stream).await.complete);
            assert_eq!(cloakroom.ended().await, 0);
            assert!(start.elapsed() < Duration::from_millis(2_900), "ended early");
        } else {
            assert_eq!(cloakroom.ended().await, 0);
            assert!((2_900..6_000).contains(&start.elapsed().as_millis()));
            connection.end().await;
        }
        drop((cloakroom, upstream, rogue));
    }
}

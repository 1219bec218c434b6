//! What strangers can make grow, and that it does not: heads, connections, and what waits for somebody slow.

use crate::support::browser::{Request, SESSION, raw};
use crate::support::rig::Rig;
use crate::support::runtime;
use crate::support::upstream::Play;
use crate::support::wire::{Head, Wire};
use crate::support::{until, websocket, within};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn lm_01_class_h_slow_heads_end_in_time_and_cost_nobody_else_anything() {
    let rig = Rig::with(|config| config.set("server.header_timeout", "2s")).await;
    let address = rig.cloakroom.address();
    let mut slow = JoinSet::new();
    // Fewer than the smallest queue of connections that kernels keep for a listener: of one that is silent and found no
    // room there, nobody but its client knows, and no server can end it.
    for n in 0..100_usize {
        slow.spawn(async move {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Nothing; half a head and silence; a byte now and then; a second head after a request that was fine.
            let (first, drip): (&[u8], &[u8]) = match n % 4 {
                0 => (b"", b""),
                1 => (b"GET /api/public/x HTTP/1.1\r\nHost: app.example\r\nX: ", b""),
                2 => (
                    b"GET /api/public/x HTTP/1.1\r\n",
                    b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
                ),
                _ => (
                    b"OPTIONS * HTTP/1.1\r\nHost: app.example\r\n\r\nGET / HTTP/1.1\r\n",
                    b"X: yyyyyyyyyyyyy",
                ),
            };
            let _cut = stream.write_all(first).await;
            let (mut reading, mut writing) = stream.split();
            let mut answer = Vec::new();
            let dripping = async {
                for byte in drip.chunks(1) {
                    let _cut = writing.write_all(byte).await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                std::future::pending::<()>().await;
            };
            let ended = async {
                tokio::select! {
                    _ended = reading.read_to_end(&mut answer) => {}
                    () = dripping => {}
                }
            };
            let late = tokio::time::timeout(Duration::from_secs(10), ended)
                .await
                .is_err();
            assert!(!late, "{n}: {} is still open", stream.local_addr().unwrap());
            (n, String::from_utf8(answer).unwrap(), begun.elapsed())
        });
    }
    let mut browser = rig.signed_in().await;
    while !slow.is_empty() {
        let reply = within(2, "an honest answer", browser.fetch("GET", "/api/x")).await;
        assert_eq!(reply.status, 200);
        while let Some(ended) = slow.try_join_next() {
            let (n, answer, after) = ended.unwrap();
            let wanted = if n % 4 == 3 { "HTTP/1.1 204 " } else { "" };
            assert!(
                answer.starts_with(wanted) && answer.matches("HTTP/1.1").count() <= 1,
                "{n}: {answer}"
            );
            assert!((1_900..10_000).contains(&after.as_millis()), "{n}: {after:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        rig.upstream
            .requests()
            .iter()
            .all(|request| request.target == "/api/x")
    );
}

#[tokio::test]
async fn lm_03_class_h_heads_and_targets_have_bounds_and_nothing_is_cut_off_silently() {
    let rig = Rig::start().await;
    let start = "GET /api/public/x HTTP/1.1\r\nHost: app.example\r\n";
    let many = |count: usize| -> String { (0..count).map(|n| format!("X-{n}: 1\r\n")).collect() };
    let line = |length: usize| format!("Cookie: {}\r\n", "a".repeat(length));
    for (name, head, wanted) in [
        ("a hundred lines", many(98), 200),
        ("a hundred and one", many(100), 431),
        ("two hundred", many(200), 431),
        ("two thousand", many(2_000), 431),
        ("a long line", line(16_000), 200),
        ("a line too long", line(16_500), 431),
        ("two long lines", line(15_000) + &line(15_000), 200),
        (
            "three long lines",
            line(15_000) + &line(15_000) + &line(5_000),
            431,
        ),
        ("a line of 40 kB", line(40_000), 431),
        ("a megabyte", line(1_000_000), 431),
        ("a long name", format!("{}: 1\r\n", "x".repeat(17_000)), 431),
    ] {
        let before = rig.upstream.count();
        let request = format!("{start}{head}Connection: close\r\n\r\n");
        let (reply, ended) = raw(rig.cloakroom.address(), request.as_bytes()).await;
        assert_eq!(reply.unwrap().status, wanted, "{name}");
        assert!(ended, "{name}");
        assert_eq!(
            rig.upstream.count() - before,
            usize::from(wanted == 200),
            "{name}"
        );
        if wanted == 200 && head.starts_with("Cookie") {
            let sent: usize = head.lines().map(|line| line.len() - "Cookie: ".len()).sum();
            let up: usize = rig
                .upstream
                .last()
                .values("cookie")
                .iter()
                .map(|line| line.len())
                .sum();
            assert_eq!(up, sent, "{name}: whole");
        }
    }
    // In words, and never in those that were sent.
    for (request, status) in [
        (format!("{start}{}\r\n", line(17_000)), 431),
        (
            format!("GET /{} HTTP/1.1\r\nHost: app.example\r\n\r\n", "a".repeat(9_000)),
            414,
        ),
        (
            format!(
                "GET /?{} HTTP/1.1\r\nHost: app.example\r\n\r\n",
                "a".repeat(9_000)
            ),
            414,
        ),
    ] {
        let reply = raw(rig.cloakroom.address(), request.as_bytes()).await.0.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (status, "bad_request"));
        assert!(!reply.text().contains("aaaa") && reply.header("cache-control") == Some("no-store"));
    }
    let roomy = Rig::with(|config| {
        config
            .set("server.max_header_size", "64KiB")
            .set("server.max_headers", 300)
    })
    .await;
    let request = format!("{start}{}{}Connection: close\r\n\r\n", line(30_000), many(200));
    assert_eq!(
        raw(roomy.cloakroom.address(), request.as_bytes())
            .await
            .0
            .unwrap()
            .status,
        200
    );
}

/// An upstream that says `head` and then pours, as fast as it may, until the other side goes; it reads nothing.
async fn pouring(head: impl Fn(&Head) -> Vec<u8> + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .into_std()
        .unwrap();
    let address = listener.local_addr().unwrap();
    runtime().spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let head = head.clone();
            connections.spawn(async move {
                let mut wire = Wire::new(stream);
                let Ok(Some(asked)) = wire.head().await else {
                    return;
                };
                let _cut = wire.send(&head(&asked)).await;
                let piece = vec![b'x'; 64 * 1024];
                while wire.send(&piece).await.is_ok() {}
            });
        }
    });
    address
}

/// How much more memory the process holds while `readers` is there than it readers `before`: it stays below this.
async fn stays_flat(rig: &Rig, before: u64, bound: u64) {
    // What grows without end would have grown by far more in a second on any machine: the other sides do not wait.
    for _ in 0..20 {
        let grown = rig.cloakroom.resident().saturating_sub(before);
        assert!(grown < bound, "{} MiB more", grown / MIB);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn lm_08_class_h_forty_slow_readers_of_endless_answers_take_no_memory_to_speak_of() {
    let address =
        pouring(|_| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40).into_bytes()).await;
    let rig = Rig::with(|config| config.set("routes.1.upstream", format!("http://{address}"))).await;
    let mut browser = rig.browser();
    let before = rig.cloakroom.resident();
    let mut readers = Vec::new();
    for _ in 0..40 {
        let (head, mut wire) = browser.open(&Request::fetch("GET", "/api/public/x")).await;
        let mut framing = head.response_framing("GET");
        wire.piece(&mut framing).await.unwrap();
        readers.push((wire, framing));
    }
    stays_flat(&rig, before, 80 * MIB).await;
    // They read on, slowly: what comes is what was sent.
    for (wire, framing) in &mut readers {
        for _ in 0..20 {
            let piece = within(5, "more", wire.piece(framing)).await.unwrap().unwrap();
            assert!(piece.iter().all(|byte| *byte == b'x'));
        }
    }
    stays_flat(&rig, before, 80 * MIB).await;
}

#[tokio::test]
async fn lm_08_class_h_forty_uploads_that_nobody_reads_take_no_memory_to_speak_of() {
    let rig = Rig::start().await;
    rig.upstream.on("/api/public/x", Play::Deaf);
    let before = rig.cloakroom.resident();
    let mut uploads = JoinSet::new();
    for n in 0..40 {
        let address = rig.cloakroom.address();
        uploads.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let framing = if n % 2 == 0 {
                "Content-Length: 1000000000000"
            } else {
                "Transfer-Encoding: chunked"
            };
            let head = format!("POST /api/public/x HTTP/1.1\r\nHost: app.example\r\n{framing}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
            while stream.write_all(&chunk).await.is_ok() {}
        });
    }
    until(5, "all of them upstream", || rig.upstream.count() == 40).await;
    stays_flat(&rig, before, 80 * MIB).await;
    uploads.abort_all();
}

/// The length of a WebSocket's frame that does not end as long as a test runs.
const ENDLESS: [u8; 8] = (1_u64 << 40).to_be_bytes();

/// An upstream that accepts a WebSocket and pours a frame without an end into it.
pub async fn pouring_into_a_websocket() -> SocketAddr {
    pouring(|asked| {
        let accept = websocket::accept(asked.value("sec-websocket-key").unwrap_or_default());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        [answer.as_bytes(), &[0x82, 127], &ENDLESS].concat()
    })
    .await
}

#[tokio::test]
async fn ws_05_class_h_tunnels_have_buffers_that_do_not_grow() {
    let address = pouring_into_a_websocket().await;
    let rig = Rig::with(|config| config.set("routes.0.upstream", format!("http://{address}"))).await;
    let mut browser = rig.signed_in().await;
    let opening = opening(&rig.cloakroom.origin);
    let before = rig.cloakroom.resident();
    let (mut slow, mut uploads) = (Vec::new(), JoinSet::new());
    for _ in 0..40 {
        let (head, wire) = browser.open(&opening).await;
        assert_eq!(head.status(), 101);
        slow.push(wire);
        // Nobody reads at the other end of this one.
        let (_, mut wire) = browser.open(&opening).await;
        let begun = [&[0x82, 0xff][..], &ENDLESS, &[0; 4]].concat();
        wire.send(&begun).await.unwrap();
        uploads.spawn(async move { while wire.send(&[b'y'; 16 * 1024]).await.is_ok() {} });
    }
    stays_flat(&rig, before, 80 * MIB).await;
    assert!(uploads.try_join_next().is_none(), "none was cut");
    uploads.abort_all();
}

fn opening(origin: &str) -> Request {
    Request::bare("GET", "/api/ws")
        .with("Origin", origin)
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", "13")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

#[tokio::test]
async fn ws_05_class_h_idle_tunnels_count_as_connections_and_give_their_place_back() {
    let rig = Rig::with(|config| config.set("server.max_connections", 3)).await;
    rig.upstream.on("/api/ws", Play::Echo);
    let mut browser = rig.signed_in().await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let (head, wire) = browser.open(&opening(&rig.cloakroom.origin)).await;
        assert_eq!(head.status(), 101);
        readers.push(wire);
    }
    let mut fourth = Wire::new(TcpStream::connect(rig.cloakroom.address()).await.unwrap());
    let ask = format!(
        "GET /api/x HTTP/1.1\r\nHost: {}\r\nCookie: {SESSION}={}\r\n\r\n",
        browser.host(),
        browser.session().unwrap()
    );
    fourth.send(ask.as_bytes()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), fourth.head()).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(
        rig.cloakroom.admin("/healthz").await.status,
        200,
        "operators keep their own places"
    );
    websocket::write(&mut readers[1], websocket::TEXT, b"alive", true)
        .await
        .unwrap();
    let echo = within(2, "the echo", websocket::read(&mut readers[1]))
        .await
        .unwrap();
    assert_eq!(echo, (websocket::TEXT, b"alive".to_vec()));
    drop(readers.remove(0));
    let head = within(5, "the place", fourth.head()).await.unwrap().unwrap();
    assert_eq!(head.status(), 200);
}

#[tokio::test]
async fn an_idle_connection_takes_little_memory_when_it_was_idle_for_a_moment() {
    let rig = Rig::start().await;
    let address = rig.cloakroom.address();
    let mut idle = Vec::new();
    let mut grown = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(300));
    // The memory of those who spoke a moment ago is there for those who come next, whatever the allocator does with it.
    // So of some lot on, all that remains of each is what waits; a connection that is not parked takes 30 KB and more.
    while grown.last().is_none_or(|grown| *grown >= 100 * 12 * 1024) {
        assert!(grown.len() < 10, "{grown:?} bytes for each 100 connections more");
        pace.tick().await;
        let before = rig.cloakroom.resident();
        for _ in 0..100 {
            let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
            wire.send(b"GET /api/public/x HTTP/1.1\r\nHost: app.example\r\n\r\n")
                .await
                .unwrap();
            let head = wire.head().await.unwrap().unwrap();
            assert!(head.start.starts_with("HTTP/1.1 200 "), "{head:?}");
            idle.push(wire);
        }
        grown.push(rig.cloakroom.resident().saturating_sub(before));
    }
}

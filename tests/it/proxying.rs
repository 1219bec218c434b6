//! Bodies, streams and failures on the way up and back (contract 4.11–4.13).

use crate::support::browser::{Request, SESSION, raw};
use crate::support::rig::Rig;
use crate::support::upstream::{After, Play};
use crate::support::wire::{Framing, values};
use crate::support::{until, within};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn fa_05_hp_18_class_k_upstreams_that_fail_are_502_or_504_and_sessions_stay() {
    let rig = Rig::with(|config| config.set("routes.0.timeout", "400ms")).await;
    let mut browser = rig.signed_in().await;
    let many: String = (0..300).map(|n| format!("X-{n}: 1\r\n")).collect();
    let large = format!("X: {}\r\n", "y".repeat(600_000));
    for (name, answer) in [
        ("no answer", ""),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
        (
            "a head without its end",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        ),
        ("no HTTP", "SSH-2.0-OpenSSH\r\n\r\n"),
        ("HTTP/2", "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64"),
        ("TLS", "\x15\x03\x01\0\x02\x02\x16"),
        (
            "a status of two digits",
            "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "a status of letters",
            "HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        ),
        (
            "a length twice",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "a list of lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        ),
        ("a bad length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"),
        (
            "a signed length",
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        ),
        (
            "a huge length",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
        ),
        (
            "a length and chunks",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (
            "chunks and a length",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (
            "another coding",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (
            "chunked twice",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (
            "chunks over HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (
            "a bad field",
            "HTTP/1.1 200 OK\r\nX Y: 1\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "a space before the colon",
            "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        ),
        (
            "a folded line",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "a bare return",
            "HTTP/1.1 200 OK\r\nX: a\rY: b\r\nContent-Length: 2\r\n\r\nok",
        ),
        ("NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok"),
        (
            "a switch that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        ),
        (
            "too many fields",
            &format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 2\r\n\r\nok"),
        ),
        (
            "a head that is too large",
            &format!("HTTP/1.1 200 OK\r\n{large}Content-Length: 2\r\n\r\nok"),
        ),
    ] {
        rig.upstream.on("/api/x", Play::cut(answer));
        let reply = browser.fetch("POST", "/api/x").await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (502, "upstream_unavailable"),
            "{name}"
        );
        assert!(
            !reply.text().contains(&rig.upstream.address.to_string()),
            "hy_09: {}",
            reply.text()
        );
    }
    until(5, "closed connections", || {
        rig.upstream.ended() + 1 >= rig.upstream.connections()
    })
    .await;
    for play in [Play::Deaf, Play::Pieces(Vec::new(), After::Hang)] {
        rig.upstream.on("/api/x", play);
        let start = Instant::now();
        let reply = browser.fetch("GET", "/api/x").await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (504, "upstream_timeout")
        );
        assert!(start.elapsed() < Duration::from_secs(3));
    }
    rig.upstream.on("/api/x", Play::headers(""));
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
    let page = browser
        .navigate("/api/nothing", crate::support::jar::Site::SameOrigin)
        .await;
    assert_eq!(page.status, 200);

    let gone = Rig::with(|config| {
        let nobody = format!("http://127.0.0.1:{}", crate::support::free_port());
        config
            .set("routes.0.upstream", nobody.clone())
            .set("routes.3.upstream", nobody)
    })
    .await;
    let mut browser = gone.signed_in().await;
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (502, "upstream_unavailable")
    );
    let page = browser
        .navigate("/pages/x", crate::support::jar::Site::SameOrigin)
        .await;
    assert_eq!(page.status, 502);
    page.page();
}

#[tokio::test]
async fn hp_18_a_body_that_breaks_off_is_never_a_clean_end() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nFFFFFFFFFFFFFFFF1\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf",
    ] {
        rig.upstream.on("/api/x", Play::cut(answer));
        // The break may overtake the head, which then has not gone out; that is no clean end either.
        let opened = browser.try_open(&Request::fetch("GET", "/api/x")).await;
        let Some((head, mut wire)) = opened.filter(|(head, _)| head.status() != 502) else {
            continue;
        };
        assert_eq!(head.status(), 200);
        let framing = head.response_framing("GET");
        assert_ne!(
            framing,
            Framing::Close,
            "no end could be told from a break: {head:?}"
        );
        let body = within(5, "the break", wire.body(framing)).await;
        assert!(body.is_err(), "{answer}: {body:?}");
    }
}

#[tokio::test]
async fn hp_22_class_k_a_post_is_not_sent_twice() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    browser.fetch("GET", "/api/warm").await;
    rig.upstream.on("/api/x", Play::cut(""));
    let before = rig.upstream.count();
    assert_eq!(
        browser
            .send(Request::fetch("POST", "/api/x").body("pay"))
            .await
            .status,
        502
    );
    assert_eq!(rig.upstream.count(), before + 1);
}

#[tokio::test]
async fn hp_22_what_was_read_upstream_is_not_sent_again_whatever_its_method() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "POST"] {
        // On a connection that was used before, and on a fresh one.
        for warm in [true, false] {
            if warm {
                browser.fetch("GET", "/api/warm").await;
            }
            rig.upstream.on("/api/x", Play::cut(""));
            let before = rig.upstream.count();
            assert_eq!(browser.fetch(method, "/api/x").await.status, 502, "{method}");
            assert_eq!(rig.upstream.count(), before + 1, "{method}");
        }
    }
}

#[tokio::test]
async fn hp_16_a_route_that_leads_back_here_ends_after_one_round_and_a_chain_does_not() {
    let rig = Rig::with(|config| {
        let own = format!("http://127.0.0.1:{}", config.port);
        config.route(json!({ "path": "/loop", "upstream": own, "auth": "none" }))
    })
    .await;
    let mut browser = rig.browser();
    let reply = browser.fetch("GET", "/loop/x").await;
    assert_eq!((reply.status, reply.problem().as_str()), (508, "internal"));
    let metrics = rig.cloakroom.admin("/metrics").await.text();
    let rounds = metrics
        .lines()
        .filter(|line| line.starts_with("cloakroom_requests_total") && line.contains("\"/loop\""));
    let rounds: u32 = rounds
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap())
        .sum();
    assert_eq!(rounds, 2, "there and back: {metrics}");

    // Two that lead to each other, and one that leads through another to the end.
    let far = Rig::with(|config| {
        let near = format!("http://127.0.0.1:{}", rig.config.port);
        config
            .route(json!({ "path": "/round", "upstream": near, "auth": "none" }))
            .route(json!({ "path": "/chain", "upstream": near, "auth": "none" }))
    })
    .await;
    let near = Rig::with(|config| {
        let far = format!("http://127.0.0.1:{}", far.config.port);
        let end = config.value["routes"][0]["upstream"].clone();
        config
            .route(json!({ "path": "/api/public/far", "upstream": far, "auth": "none" }))
            .route(json!({ "path": "/chain", "upstream": end, "auth": "none" }))
    })
    .await;
    let reply = near.browser().fetch("GET", "/api/public/far").await;
    assert_eq!(reply.status, 200);
    let via = far.upstream.last();
    let via = via.values("via");
    assert!(via.len() == 2 && via[0] != via[1], "{via:?}");
    assert!(via.iter().all(|hop| hop.starts_with("1.1 cloakroom-")), "{via:?}");
    // Whoever stands before us may have any name.
    let named = Request::fetch("GET", "/chain/x").with("Via", "1.1 cloakroom, 2.0 app.example");
    assert_eq!(near.browser().send(named).await.status, 200);
    assert_eq!(near.upstream.last().values("via").len(), 2);
}

#[tokio::test]
async fn hp_19_only_100_continue_can_be_expected_and_only_a_body_that_is_wanted_is_asked_for() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    for expectation in ["200-ok", "100-continue, x", "", "100", "100-continue;q=1"] {
        let request = format!(
            "POST /api/public/x HTTP/1.1\r\nHost: {host}\r\nExpect: {expectation}\r\nContent-Length: 5\r\n\r\n"
        );
        let (reply, ended) = raw(rig.cloakroom.address(), request.as_bytes()).await;
        let reply = reply.unwrap();
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (417, "bad_request"),
            "{expectation}"
        );
        assert!(ended, "{expectation}");
    }
    assert_eq!(rig.upstream.connections(), 0);
    let old = format!(
        "POST /api/public/x HTTP/1.0\r\nHost: {host}\r\nExpect: anything\r\nContent-Length: 5\r\n\r\nhello"
    );
    assert_eq!(
        raw(rig.cloakroom.address(), old.as_bytes())
            .await
            .0
            .unwrap()
            .status,
        200
    );
    for expectation in ["100-continue", "100-Continue"] {
        let stream = tokio::net::TcpStream::connect(rig.cloakroom.address())
            .await
            .unwrap();
        let mut wire = crate::support::wire::Wire::new(stream);
        let request = format!(
            "POST /api/public/x HTTP/1.1\r\nHost: {host}\r\nExpect: {expectation}\r\nContent-Length: 5\r\n\r\n"
        );
        wire.send(request.as_bytes()).await.unwrap();
        let interim = within(5, "100", wire.head()).await.unwrap().unwrap();
        assert_eq!((interim.status(), interim.fields.len()), (100, 0));
        wire.send(b"hello").await.unwrap();
        let head = within(5, "the answer", wire.head()).await.unwrap().unwrap();
        assert_eq!(head.status(), 200);
        assert_eq!(rig.upstream.last().body, b"hello");
    }
}

#[tokio::test]
async fn hp_20_interim_answers_never_end_a_request_and_are_bounded_in_time() {
    let rig = Rig::with(|config| config.set("routes.1.timeout", "1s")).await;
    let mut browser = rig.browser();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\nX: y\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nSet-Cookie: a=1\r\n\r\n",
        "HTTP/1.1 199 Odd\r\nContent-Length: 10\r\n\r\n",
    ] {
        for count in [1, 2, 1_000] {
            let bytes = interim.repeat(count) + answer;
            rig.upstream.on("/api/public/x", Play::bytes(bytes));
            let reply = browser.fetch("GET", "/api/public/x").await;
            assert_eq!(
                (reply.status, reply.text().as_str()),
                (200, "ok"),
                "{count} × {interim}"
            );
            assert_eq!((reply.header("link"), reply.cookies().len()), (None, 0));
        }
    }
    let flood = (0..200).map(|_| {
        (
            Duration::from_millis(20),
            b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100),
        )
    });
    rig.upstream
        .on("/api/public/x", Play::Pieces(flood.collect(), After::Hang));
    let begun = Instant::now();
    let reply = browser.fetch("GET", "/api/public/x").await;
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (504, "upstream_timeout")
    );
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn hp_21_class_d_trailers_carry_nothing_that_we_decide_in_either_direction() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let names = "X-Sum, Authorization, Cookie, Set-Cookie, Content-Length, Transfer-Encoding, Host, Via, X-Forwarded-For, \
                 X_Forwarded_Host, X-Auth-Request-User, Connection, Trailer, TE, Location, Clear-Site-Data";
    let section: String = names
        .split(", ")
        .map(|name| format!("{name}: {}\r\n", if name == "X-Sum" { "7" } else { "evil" }))
        .collect();
    let announced = format!("Transfer-Encoding: chunked\r\nTrailer: {names}\r\n");
    rig.upstream.on(
        "/api/x",
        Play::bytes(format!(
            "HTTP/1.1 200 OK\r\n{announced}\r\n2\r\nok\r\n0\r\n{section}X-Unannounced: evil\r\n\r\n"
        )),
    );
    let request = Request::fetch("POST", "/api/x")
        .with("Transfer-Encoding", "chunked")
        .with("Trailer", names)
        .with("TE", "trailers")
        .body(format!("2\r\nhi\r\n0\r\n{section}X-Unannounced: evil\r\n\r\n"));
    let reply = browser.send(request).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    let up = rig.upstream.last();
    for (side, fields, trailers) in [
        ("up", up.fields, up.trailers),
        ("back", reply.head.fields, reply.trailers),
    ] {
        assert_eq!(trailers.len(), 1, "{side}: {trailers:?}");
        assert_eq!(values(&trailers, "x-sum"), ["7"], "{side}");
        let merged = fields
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("x-sum") || value.contains("evil"));
        assert!(!merged, "{side}: {fields:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_upstream_closed_costs_no_request() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    rig.upstream.on(
        "/api/last",
        Play::Pieces(
            vec![(
                Duration::ZERO,
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
            )],
            After::Close,
        ),
    );
    for _ in 0..5 {
        let ended = rig.upstream.ended();
        assert_eq!(browser.fetch("GET", "/api/last").await.status, 200);
        until(2, "the connection's end", || rig.upstream.ended() > ended).await;
        assert_eq!(
            browser
                .send(Request::fetch("POST", "/api/x").body("a"))
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn class_h_body_limits_hold_for_lengths_and_for_chunks() {
    let rig = Rig::with(|config| config.set("routes.0.body_limit", "1KiB")).await;
    let mut browser = rig.signed_in().await;
    let exact = browser
        .send(Request::fetch("POST", "/api/x").body(vec![b'a'; 1024]))
        .await;
    assert_eq!(exact.status, 200);
    let before = rig.upstream.count();
    let reply = browser
        .send(Request::fetch("POST", "/api/x").body(vec![b'a'; 1025]))
        .await;
    assert_eq!((reply.status, reply.problem().as_str()), (413, "too_large"));
    assert_eq!(
        rig.upstream.count(),
        before,
        "class_k: the length alone refuses it"
    );
    let mut chunks = Vec::new();
    for _ in 0..8 {
        chunks.extend(b"100\r\n");
        chunks.extend([b'a'; 256]);
        chunks.extend(b"\r\n");
    }
    chunks.extend(b"0\r\n\r\n");
    let chunked = Request::fetch("POST", "/api/x")
        .with("Transfer-Encoding", "chunked")
        .body(chunks);
    let reply = browser.send(chunked).await;
    assert_eq!((reply.status, reply.problem().as_str()), (413, "too_large"));
    let up = rig.upstream.requests();
    assert!(
        up.iter().skip(before).all(|request| !request.complete),
        "the upstream sees no clean end"
    );
}

#[tokio::test]
async fn hp_19_hp_23_class_k_a_refused_upload_is_answered_before_its_body() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let head = format!("POST /api/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n");
    let smuggled = format!("GET /api/public/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for extra in [
        "Expect: 100-continue\r\n\r\n".to_owned(),
        format!("X-CSRF: 1\r\n\r\n{smuggled}"),
    ] {
        let (reply, _) = raw(rig.cloakroom.address(), format!("{head}{extra}").as_bytes()).await;
        assert_eq!(reply.unwrap().status, 401);
    }
    assert_eq!(rig.upstream.count(), 0, "no request out of an unread body");
}

#[tokio::test]
async fn streams_come_as_they_are_sent() {
    let rig = Rig::start().await;
    let event = |n: u32| (Duration::from_millis(200), format!("data: {n}\n\n").into_bytes());
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec();
    rig.upstream.on(
        "/api/events",
        Play::Pieces(
            vec![(Duration::ZERO, head), event(1), event(2), event(3)],
            After::Close,
        ),
    );
    let mut browser = rig.signed_in().await;
    let request = Request::fetch("GET", "/api/events").with("Accept", "text/event-stream");
    let (head, mut wire) = browser.open(&request).await;
    assert_eq!(head.value("content-type"), Some("text/event-stream"));
    let mut framing = head.response_framing("GET");
    let mut arrivals = Vec::new();
    for n in 1..=3 {
        let piece = within(5, "an event", wire.piece(&mut framing))
            .await
            .unwrap()
            .unwrap();
        // What waits in a buffer comes together.
        assert_eq!(String::from_utf8(piece).unwrap(), format!("data: {n}\n\n"));
        arrivals.push(Instant::now());
    }
    assert!(
        arrivals[2] - arrivals[0] > Duration::from_millis(200),
        "they are 400 ms apart when sent"
    );
}

#[tokio::test]
async fn a_stream_may_run_longer_than_the_routes_timeout() {
    let rig = Rig::with(|config| config.set("routes.0.timeout", "300ms")).await;
    let pieces = vec![
        (
            Duration::ZERO,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no".to_vec(),
        ),
        (Duration::from_millis(900), b"k".to_vec()),
    ];
    rig.upstream.on("/api/slow", Play::Pieces(pieces, After::Keep));
    let mut browser = rig.signed_in().await;
    assert_eq!(browser.fetch("GET", "/api/slow").await.text(), "ok");
}

#[tokio::test]
async fn uploads_arrive_while_they_are_sent() {
    let rig = Rig::start().await;
    let browser = rig.signed_in().await;
    let stream = tokio::net::TcpStream::connect(rig.cloakroom.address())
        .await
        .unwrap();
    let mut wire = crate::support::wire::Wire::new(stream);
    let head = format!(
        "POST /api/upload HTTP/1.1\r\nHost: {}\r\nCookie: {SESSION}={}\r\nX-CSRF: 1\r\nContent-Length: 10\r\n\r\n",
        browser.host(),
        browser.session().unwrap()
    );
    wire.send(head.as_bytes()).await.unwrap();
    wire.send(b"first").await.unwrap();
    until(5, "the first half", || {
        rig.upstream.count() == 1 && rig.upstream.last().body == b"first"
    })
    .await;
    wire.send(b"other").await.unwrap();
    let head = within(5, "the answer", wire.head()).await.unwrap().unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(rig.upstream.last().body, b"firstother");
}

#[tokio::test]
async fn a_browser_that_goes_away_takes_its_upstream_request_with_it() {
    let rig = Rig::start().await;
    rig.upstream.on("/api/x", Play::Pieces(Vec::new(), After::Hang));
    let browser = rig.signed_in().await;
    let ended = rig.upstream.ended();
    let stream = tokio::net::TcpStream::connect(rig.cloakroom.address())
        .await
        .unwrap();
    let mut wire = crate::support::wire::Wire::new(stream);
    let head = format!(
        "GET /api/x HTTP/1.1\r\nHost: {}\r\nCookie: {SESSION}={}\r\n\r\n",
        browser.host(),
        browser.session().unwrap()
    );
    wire.send(head.as_bytes()).await.unwrap();
    until(5, "the request", || rig.upstream.count() == 1).await;
    drop(wire);
    until(5, "its end upstream", || rig.upstream.ended() > ended).await;
}

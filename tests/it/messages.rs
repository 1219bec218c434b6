//! Requests that a proxy and the server behind it could read differently, over raw sockets (RFC 9112).

use crate::support::browser::{SESSION, raw};
use crate::support::rig::Rig;
use crate::support::upstream::Play;
use crate::support::wire::values;

#[tokio::test]
async fn hp_08_hp_09_hosts_are_ours_or_the_request_goes_nowhere() {
    let rig = Rig::start().await;
    let browser = rig.signed_in().await;
    let ours = browser.host().to_owned();
    let port = ours.split(':').nth(1).unwrap().to_owned();
    let cookie = format!("Cookie: {SESSION}={}\r\n", browser.session().unwrap());
    let lines = |hosts: &[&str]| -> String { hosts.iter().map(|host| format!("Host: {host}\r\n")).collect() };
    let upper = ours.to_uppercase();
    let dotted = format!("app.localhost.:{port}");
    let suffix = format!("app.localhost.evil.example:{port}");
    let prefix = format!("evil-app.localhost:{port}");
    for (hosts, wanted) in [
        (vec![ours.as_str()], 200),
        (vec![upper.as_str()], 200),
        (vec![dotted.as_str()], 200),
        (vec!["evil.example"], 421),
        (vec![suffix.as_str()], 421),
        (vec![prefix.as_str()], 421),
        (vec!["app.localhost"], 421),
        (vec!["app.localhost:1"], 421),
        (vec![&*format!("127.0.0.1:{port}").leak()], 421),
        (vec![], 400),
        (vec![ours.as_str(), ours.as_str()], 400),
        (vec![ours.as_str(), "evil.example"], 400),
        (vec!["a b"], 400),
        (vec!["user@app.localhost"], 400),
        (vec!["app.localhost:x"], 400),
        (vec![""], 400),
        (vec!["app.localhost/x"], 400),
    ] {
        for path in ["/api/x", "/bff/user", "/api/optional/x"] {
            let request = format!("GET {path} HTTP/1.1\r\n{}{cookie}\r\n", lines(&hosts));
            let (reply, _) = raw(rig.cloakroom.address(), request.as_bytes()).await;
            let reply = reply.unwrap();
            assert_eq!(reply.status, wanted, "{path} {hosts:?}");
            if wanted == 421 {
                assert_eq!(reply.problem(), "misdirected");
            }
        }
    }
    let open = b"GET /api/public/x HTTP/1.1\r\nHost: probe.internal\r\n\r\n";
    assert_eq!(
        raw(rig.cloakroom.address(), open).await.0.unwrap().status,
        200,
        "open routes have no host"
    );
    let none = b"GET /api/public/x HTTP/1.1\r\n\r\n";
    assert_eq!(
        raw(rig.cloakroom.address(), none).await.0.unwrap().status,
        400,
        "but one is needed everywhere"
    );
}

#[tokio::test]
async fn hp_03_to_hp_07_class_d_framing_that_can_be_read_in_two_ways_is_refused() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let start = format!("POST /api/public/x HTTP/1.1\r\nHost: {host}\r\n");
    let old = format!("POST /api/public/x HTTP/1.0\r\nHost: {host}\r\n");
    let smuggled = format!("GET /api/public/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let probes: Vec<(&str, String)> = vec![
        (
            "differing lengths",
            format!("{start}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{smuggled}"),
        ),
        (
            "a list of lengths",
            format!("{start}Content-Length: 5, 6\r\n\r\n{smuggled}"),
        ),
        (
            "a length with a sign",
            format!("{start}Content-Length: +5\r\n\r\n{smuggled}"),
        ),
        (
            "a negative length",
            format!("{start}Content-Length: -0\r\n\r\n{smuggled}"),
        ),
        (
            "a length in hex",
            format!("{start}Content-Length: 0x5\r\n\r\n{smuggled}"),
        ),
        (
            "no length in the line",
            format!("{start}Content-Length: \r\n\r\n{smuggled}"),
        ),
        (
            "a length beyond 64 bits",
            format!("{start}Content-Length: 18446744073709551621\r\n\r\n{smuggled}"),
        ),
        (
            "gzip, chunked",
            format!("{start}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "chunked, chunked",
            format!("{start}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "chunked twice",
            format!("{start}{chunked}{chunked}\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "identity",
            format!("{start}Transfer-Encoding: identity\r\n\r\n{smuggled}"),
        ),
        (
            "xchunked",
            format!("{start}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "chunked, then identity",
            format!("{start}{chunked}Transfer-Encoding: identity\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a vertical tab",
            format!("{start}Transfer-Encoding:\u{b}chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "HTTP/1.0 with a coding",
            format!("{old}{chunked}\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a space before the colon",
            format!("{start}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a folded line",
            format!("{start}X-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n{smuggled}"),
        ),
        (
            "a space before the first field",
            format!("POST /api/public/x HTTP/1.1\r\n Host: {host}\r\n\r\n"),
        ),
        ("a bare CR in a value", format!("{start}X-A: 1\rX-B: 2\r\n\r\n")),
        ("NUL in a value", format!("{start}X-A: 1\02\r\n\r\n")),
        (
            "an overflowing chunk",
            format!("{start}{chunked}\r\nFFFFFFFFFFFFFFFF1\r\nx\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a chunk size with a sign",
            format!("{start}{chunked}\r\n+1\r\nx\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a chunk with no end",
            format!("{start}{chunked}\r\n1\r\nxx\r\n0\r\n\r\n{smuggled}"),
        ),
    ];
    for (name, probe) in probes {
        let before = rig.upstream.requests().len();
        let (reply, _) = raw(rig.cloakroom.address(), probe.as_bytes()).await;
        let status = reply.map_or(0, |reply| reply.status);
        let seen = rig.upstream.requests();
        assert!(
            seen.iter().all(|request| !request.target.contains("smuggled")),
            "{name}: smuggled"
        );
        for request in &seen[before..] {
            let lengths = request.values("content-length").len();
            assert!(
                lengths <= 1 && lengths + request.values("transfer-encoding").len() <= 1,
                "{name}"
            );
            assert!(
                !request.complete || status != 200 || name == "chunked twice",
                "{name}: {request:?}"
            );
        }
        assert!(matches!(status, 0 | 400 | 501 | 502), "{name}: {status}");
    }
}

#[tokio::test]
async fn hp_03_a_length_beside_chunks_never_goes_up_and_the_connection_ends() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let smuggled = format!("GET /api/public/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
    ] {
        let probe = format!("POST /api/public/x HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n0\r\n\r\n{smuggled}");
        let (reply, ended) = raw(rig.cloakroom.address(), probe.as_bytes()).await;
        let reply = reply.unwrap();
        assert!(matches!(reply.status, 200 | 400), "{}", reply.status);
        assert!(ended, "{fields}");
        for request in rig.upstream.requests() {
            assert!(!request.target.contains("smuggled"));
            assert!(
                values(&request.fields, "content-length")
                    .iter()
                    .all(|length| *length == "0"),
                "{request:?}"
            );
        }
    }
}

#[tokio::test]
async fn lm_01_lm_03_class_h_heads_are_bounded_in_size_number_and_time() {
    let rig = Rig::with(|config| config.set("server.header_timeout", "500ms")).await;
    let host = rig.browser().host().to_owned();
    let start = format!("GET /api/public/x HTTP/1.1\r\nHost: {host}\r\n");
    let many: String = (0..300).map(|n| format!("X-{n}: 1\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "a".repeat(200_000));
    for head in [many, large] {
        let (reply, _) = raw(rig.cloakroom.address(), format!("{start}{head}\r\n").as_bytes()).await;
        assert!(reply.is_none_or(|reply| matches!(reply.status, 400 | 431)));
    }
    assert_eq!(rig.upstream.count(), 0);
    let begun = std::time::Instant::now();
    let (reply, ended) = raw(rig.cloakroom.address(), start.as_bytes()).await;
    assert!(reply.is_none_or(|reply| reply.status == 408) && ended);
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn ws_02_ws_03_only_websockets_are_upgraded_and_only_after_the_upstream_agreed() {
    let rig = Rig::start().await;
    let browser = rig.signed_in().await;
    let host = browser.host().to_owned();
    let smuggled = format!("GET /api/public/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let head = format!(
        "GET /api/ws HTTP/1.1\r\nHost: {host}\r\nCookie: {SESSION}={}\r\nOrigin: {}\r\nConnection: Upgrade\r\n",
        browser.session().unwrap(),
        browser.origin
    );
    let websocket =
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    // The upstream does not switch, or to something else: what follows must not be tunnelled to it.
    for (play, wanted) in [
        (Play::headers(""), 200),
        (
            Play::headers("Upgrade: websocket\r\nConnection: Upgrade\r\n"),
            200,
        ),
        (
            Play::bytes("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"),
            426,
        ),
        (
            Play::bytes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
            502,
        ),
        (Play::bytes("HTTP/1.1 101 Switching Protocols\r\n\r\n"), 502),
    ] {
        rig.upstream.on("/api/ws", play);
        let bytes = format!("{head}{websocket}\r\n{smuggled}");
        let (reply, ended) = raw(rig.cloakroom.address(), bytes.as_bytes()).await;
        let reply = reply.unwrap();
        assert_eq!(
            (reply.status, reply.header("connection")),
            (wanted, Some("close"))
        );
        assert!(ended && reply.header("upgrade").is_none());
    }
    // Nor is what follows a handshake that we refuse, or a file.
    for (line, wanted) in [
        ("GET /api/ws", 403),
        ("GET /app.js", 200),
        ("GET /bff/user", 401),
        ("GET //x", 400),
    ] {
        let bytes =
            format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n{websocket}\r\n{smuggled}");
        let (reply, ended) = raw(rig.cloakroom.address(), bytes.as_bytes()).await;
        assert!(
            ended && reply.is_some_and(|reply| reply.status == wanted),
            "{line}"
        );
    }
    let seen = rig.upstream.requests();
    assert!(seen.iter().all(|request| request.target == "/api/ws"), "{seen:?}");
    rig.upstream.on("/api/ws", Play::headers(""));
    for other in [
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: tls/1.0\r\n",
    ] {
        let (reply, _) = raw(rig.cloakroom.address(), format!("{head}{other}\r\n").as_bytes()).await;
        let status = reply.unwrap().status;
        assert!(matches!(status, 200 | 400), "{other}: {status}");
        if status == 200 {
            assert!(rig.upstream.last().values("upgrade").is_empty());
        }
    }
}

#[tokio::test]
async fn what_the_listener_refuses_is_a_problem_document_that_nobody_stores() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let long = "a".repeat(9_000);
    for (target, status) in [("/api/x#y", 400), (long.as_str(), 414)] {
        let target = format!("/{}", target.trim_start_matches('/'));
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let reply = raw(rig.cloakroom.address(), request.as_bytes()).await.0.unwrap();
        assert_eq!((reply.status, reply.problem().as_str()), (status, "bad_request"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("connection"), Some("close"));
        let page = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\r\n"
        );
        let reply = raw(rig.cloakroom.address(), page.as_bytes()).await.0.unwrap();
        assert_eq!(reply.status, status);
        assert!(!reply.page().contains("aaaa"), "nothing that was sent comes back");
    }
}

#[tokio::test]
async fn hy_06_own_answers_over_https_keep_browsers_on_https() {
    let rig = Rig::with(|config| config.set("public_url", "https://app.example.com")).await;
    for path in ["/bff/user", "/bff/nothing", "/api/x"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n");
        let (reply, _) = raw(rig.cloakroom.address(), request.as_bytes()).await;
        let reply = reply.unwrap();
        assert_eq!(
            reply.header("strict-transport-security"),
            Some("max-age=31536000"),
            "{path}"
        );
    }
    let plain = Rig::start().await.browser().fetch("GET", "/bff/user").await;
    assert_eq!(plain.header("strict-transport-security"), None);
}

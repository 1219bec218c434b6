//! The listener that leads from http to https (`src/to_https.rs`): pages, and nothing else, to `public_url`, and nowhere
//! else.

use crate::paths::{CORPUS, request_line};
use crate::support::browser::{Reply, SESSION, raw};
use crate::support::config::Config;
use crate::support::h2::H2;
use crate::support::rig::Rig;
use crate::support::tls::Authority;
use crate::support::wire::Wire;
use crate::support::{free_port, within};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// A cloakroom that leads to https, and where.
async fn rig(change: impl FnOnce(Config) -> Config) -> (Rig, SocketAddr) {
    let (authority, port) = (Authority::new(), free_port());
    let leaf = authority.leaf("app.localhost");
    let rig = Rig::with(|config| {
        let url = config.public_url().replace("http://", "https://");
        let tls = json!({ "cert": leaf.cert.to_str().unwrap(), "key": leaf.key.to_str().unwrap() });
        let config = config.set("public_url", url).set("server.tls", tls);
        change(config.set("server.redirect", format!("127.0.0.1:{port}")))
    })
    .await;
    (rig, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// The answer to a request line with these header lines, whatever it is, has neither cookies nor HSTS.
async fn ask(address: SocketAddr, line: &str, headers: &str) -> Reply {
    let (reply, ended) = raw(address, format!("{line} HTTP/1.1\r\n{headers}\r\n").as_bytes()).await;
    let reply = reply.unwrap_or_else(|| panic!("no answer to {line}"));
    assert!(ended, "{line}: who knows where to go does not come back");
    is_bare(&reply, line);
    reply
}

fn is_bare(reply: &Reply, line: &str) {
    assert!(reply.headers("set-cookie").is_empty(), "{line}");
    // RFC 6797 §7.2: not over non-secure transport.
    assert_eq!(reply.header("strict-transport-security"), None, "{line}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{line}");
    assert_eq!(reply.header("location").is_some(), reply.status == 308, "{line}");
}

#[tokio::test]
async fn lm_10_pages_are_led_to_https_with_path_and_query_as_sent_whatever_the_host_says() {
    let (rig, address) = rig(|config| config).await;
    let origin = &rig.cloakroom.origin;
    for (line, target) in [
        ("GET /", "/"),
        ("HEAD /app.js?v=1", "/app.js?v=1"),
        (
            "GET /pages/%C3%BC;a=b?x=%2F&y=//evil.example/&z='",
            "/pages/%C3%BC;a=b?x=%2F&y=//evil.example/&z='",
        ),
        ("GET http://app.localhost/pages/x", "/pages/x"),
        ("GET /nowhere/at/all", "/nowhere/at/all"),
    ] {
        for host in ["app.localhost", "APP.localhost.:80", "app.localhost:8443"] {
            // What browsers add, and what a proxy or a liar might.
            let more = "Accept: text/html\r\nUpgrade-Insecure-Requests: 1\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nForwarded: host=evil.example\r\n";
            let reply = ask(
                address,
                line,
                &format!("Host: {host}\r\nCookie: {SESSION}=x\r\n{more}"),
            )
            .await;
            assert_eq!(
                (reply.status, reply.header("location").unwrap()),
                (308, format!("{origin}{target}").as_str()),
                "{line} {host}"
            );
        }
    }
    assert_eq!((rig.upstream.count(), rig.rogue.count("/token")), (0, 0));
}

#[tokio::test]
async fn lm_10_no_call_of_a_program_and_no_form_is_led_on() {
    let (rig, address) = rig(|config| config).await;
    let form =
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\nConnection: close\r\n";
    for line in [
        "GET /api/orders",
        "GET /api/public/x",
        "HEAD /api",
        "GET /bff/user",
        "GET /bff/callback?code=x&state=y",
        "GET /BFF/logout?token=x",
        "POST /pages/x",
        "PUT /",
        "DELETE /api/x",
        "OPTIONS /",
        "BREW /",
    ] {
        for accept in ["*/*", "text/html"] {
            let headers = format!("Host: app.localhost\r\nAccept: {accept}\r\n{form}");
            let reply = ask(address, line, &format!("{headers}\r\na=b")).await;
            assert_eq!(reply.status, 403, "{line}");
            let said = reply.text();
            assert!(
                line.starts_with("HEAD") || said.contains("Use https."),
                "{line}: {said}"
            );
            assert!(!said.contains("a=b"), "{line}: {said}");
        }
    }
    for method in ["TRACE", "CONNECT", "TRACK"] {
        let target = if method == "CONNECT" {
            "app.localhost:443"
        } else {
            "/"
        };
        let reply = ask(
            address,
            &format!("{method} {target}"),
            "Host: app.localhost:443\r\n",
        )
        .await;
        assert!(matches!(reply.status, 400 | 405), "{method}: {}", reply.status);
    }
    assert_eq!((rig.upstream.count(), rig.rogue.count("/token")), (0, 0));
}

#[tokio::test]
async fn lm_10_hp_08_who_means_another_host_or_can_be_read_in_two_ways_is_led_nowhere() {
    let (rig, address) = rig(|config| config).await;
    for (line, headers, status) in [
        ("GET /", "Host: evil.example\r\n", 421),
        ("GET /", "Host: app.localhost.evil.example\r\n", 421),
        ("GET http://evil.example/", "Host: app.localhost\r\n", 421),
        ("GET /", "Host: 127.0.0.1\r\n", 421),
        ("GET /", "", 400),
        ("GET /", "Host: app.localhost\r\nHost: app.localhost\r\n", 400),
        ("GET /", "Host: app.localhost@evil.example\r\n", 400),
        ("GET /", "Host: app.localhost/x\r\n", 400),
        ("GET //evil.example/", "Host: app.localhost\r\n", 400),
        ("GET /%2f%2fevil.example", "Host: app.localhost\r\n", 400),
        ("GET /\\evil.example", "Host: app.localhost\r\n", 400),
        ("GET /a/../../b", "Host: app.localhost\r\n", 400),
        ("GET /%0d%0aSet-Cookie:a=b", "Host: app.localhost\r\n", 400),
        ("GET @evil.example/", "Host: app.localhost\r\n", 400),
        (
            "GET http://app.localhost?@evil.example/",
            "Host: app.localhost\r\n",
            400,
        ),
        ("GET /?\u{e9}", "Host: app.localhost\r\n", 400),
        ("GET /x#y", "Host: app.localhost\r\n", 400),
    ] {
        let (reply, _) = raw(address, format!("{line} HTTP/1.1\r\n{headers}\r\n").as_bytes()).await;
        let reply = reply.unwrap_or_else(|| panic!("no answer to {line}"));
        assert_eq!(reply.status, status, "{line} {headers}");
        assert_eq!(reply.header("location"), None, "{line} {headers}");
        assert!(!reply.text().contains("evil"), "{line}: {}", reply.text());
    }
    let mut refused = 0;
    for row in CORPUS.lines().skip(1) {
        let cells: Vec<_> = row.split('\t').collect();
        if cells[2] != "400" {
            continue;
        }
        let mut bytes = request_line(cells[1], "app.localhost");
        bytes.extend(b"\r\n");
        let (reply, _) = raw(address, &bytes).await;
        let reply = reply.unwrap_or_else(|| panic!("no answer to {row}"));
        assert_eq!((reply.status, reply.header("location")), (400, None), "{row}");
        refused += 1;
    }
    assert!(refused > 40, "{refused}");
    assert_eq!(rig.upstream.count(), 0);
}

#[tokio::test]
async fn lm_01_lm_03_the_limits_of_the_public_listener_hold_where_it_leads_to_https() {
    let (_rig, address) = rig(|config| config.set("server.header_timeout", "1s")).await;
    for (line, headers, status) in [
        (format!("GET /{}", "a".repeat(9000)), String::new(), 414),
        ("GET /".to_owned(), "X: y\r\n".repeat(120), 431),
        ("GET /".to_owned(), format!("X: {}\r\n", "y".repeat(20_000)), 431),
    ] {
        let (reply, _) = raw(
            address,
            format!("{line} HTTP/1.1\r\nHost: app.localhost\r\n{headers}\r\n").as_bytes(),
        )
        .await;
        let reply = reply.unwrap();
        assert_eq!(reply.status, status);
        is_bare(&reply, &line);
    }
    for begun in ["", "GET / HTTP/1.1\r\nHost: app."] {
        let since = Instant::now();
        let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
        wire.send(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        within(10, "the end of a slow head", wire.stream.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(since.elapsed().as_millis() >= 900, "{begun:?}");
    }
}

#[tokio::test]
async fn lm_10_http2_in_clear_is_led_to_https_too_and_ends_with_the_others() {
    let (mut rig, address) = rig(|config| config).await;
    let mut connection = H2::over(TcpStream::connect(address).await.unwrap(), 1 << 20).await;
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "app.localhost"),
        (":path", "/pages/x?y"),
    ];
    let reply = connection.ask(&fields).await;
    let wanted = format!("{}/pages/x?y", rig.cloakroom.origin);
    assert_eq!(
        (reply.status, reply.header("location")),
        (308, Some(wanted.as_str()))
    );
    assert_eq!(reply.header("connection"), None);
    rig.cloakroom.signal("TERM");
    connection.end().await;
    assert_eq!(rig.cloakroom.ended().await, 0);
    assert!(TcpStream::connect(address).await.is_err());
}

//! A proxy in front that changes, drops or collects what passes through it: a real nginx.

use super::front::Nginx;
use super::page::Entry;
use crate::support::browser::{Browser, Request, raw};
use crate::support::cloakroom::Cloakroom;
use crate::support::config::Config;
use crate::support::free_port;
use crate::support::jar::Site;
use crate::support::rig::Rig;
use crate::support::upstream::{After, Play};
use crate::support::within;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

/// The usual parts, with an nginx where `public_url` leads to.
async fn behind(lines: &str, change: impl FnOnce(Config) -> Config) -> (Nginx, Rig, Browser) {
    let port = free_port();
    let origin = format!("http://app.localhost:{port}");
    let rig = Rig::with(|config| change(config.set("public_url", origin.clone()))).await;
    let nginx = Nginx::on(port, rig.cloakroom.port, lines).await;
    let browser = Browser::new(&origin, nginx.port);
    (nginx, rig, browser)
}

/// What lets cloakroom see the host that the browser asked for.
const KEEP_HOST: &str = "proxy_set_header Host $http_host;";

#[tokio::test]
async fn another_host() {
    let mut entry = Entry::of("421 misdirected");
    // nginx' default: the host of `proxy_pass`.
    let (_nginx, rig, mut browser) = behind("", |config| config).await;
    let reply = browser.navigate("/bff/login", Site::None).await;
    assert_eq!(reply.status, 421);
    assert!(
        reply
            .text()
            .contains(&format!("href=\"{}\"", rig.cloakroom.origin)),
        "the way there"
    );
    entry.page(&reply);
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(reply.problem(), "misdirected");
    entry.answer(&reply);
    entry.settle(&rig.cloakroom).await;

    let (_nginx, rig, mut browser) = behind(KEEP_HOST, |config| config).await;
    browser.login(&rig.rogue, "/pages/x").await;
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
    assert!(!rig.cloakroom.log().contains("answered 421"));
}

#[tokio::test]
async fn what_was_asked_for_is_told_to_the_operator_alone_and_seldom() {
    let rig = Rig::start().await;
    for n in 0..5 {
        let request = format!("GET /bff/user HTTP/1.1\r\nHost: evil{n}.example\r\n\r\n");
        let reply = raw(rig.cloakroom.address(), request.as_bytes()).await.0.unwrap();
        assert_eq!(reply.status, 421);
        assert!(!reply.text().contains("evil"), "nothing that was sent comes back");
    }
    let told = |log: &str| {
        log.matches("answered 421 to a request for another host name")
            .count()
    };
    within(5, "the line", async {
        while told(&rig.cloakroom.log()) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(told(&rig.cloakroom.log()), 1, "{}", rig.cloakroom.log());
}

#[tokio::test]
async fn a_proxy_that_is_not_trusted() {
    let entry = Entry::of("All clients have the same address");
    let forwarding = format!("{KEEP_HOST} proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;");
    let (_nginx, rig, mut browser) = behind(&forwarding, |config| config).await;
    browser.fetch("GET", "/api/public/x").await;
    entry.settle(&rig.cloakroom).await;
    let trusted = |config: Config| config.set("server.trusted_proxies", json!(["127.0.0.0/8"]));
    let (_nginx, rig, mut browser) = behind(&forwarding, trusted).await;
    assert_eq!(browser.fetch("GET", "/api/public/x").await.status, 200);
    rig.cloakroom.admin("/healthz").await;
    assert!(!rig.cloakroom.log().contains("not among server.trusted_proxies"));
}

#[tokio::test]
async fn plain_http_in_front() {
    let mut entry = Entry::of("Cookies are lost because people come over http");
    let rig = Rig::with(|config| {
        config
            .set("public_url", "https://app.example.com")
            .set("server.trusted_proxies", json!(["127.0.0.1"]))
    })
    .await;
    // What nginx' `X-Forwarded-Proto $scheme` says on port 80, and a browser without Fetch Metadata, which it sends to
    // trustworthy origins only.
    let plain = |target: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nHost: app.example.com\r\nAccept: text/html\r\nX-Forwarded-For: 192.0.2.1\r\n\
             X-Forwarded-Proto: http\r\n\r\n"
        )
    };
    let begun = raw(rig.cloakroom.address(), plain("/bff/login").as_bytes())
        .await
        .0
        .unwrap();
    assert_eq!(begun.status, 302);
    // A browser keeps no Secure cookie of an answer over http, so the way back is without.
    let callback = rig.rogue.authorize(begun.location());
    let target = callback.strip_prefix("https://app.example.com").unwrap();
    let reply = raw(rig.cloakroom.address(), plain(target).as_bytes())
        .await
        .0
        .unwrap();
    assert_eq!(reply.status, 400);
    entry.page(&reply);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_handshake_without_its_upgrade() {
    let entry = Entry::of("A WebSocket does not open through the ingress");
    let handshake = |browser: &Browser| {
        Request::bare("GET", "/api/ws")
            .with("Origin", &browser.origin)
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let (_nginx, rig, mut browser) = behind(KEEP_HOST, |config| config).await;
    browser.login(&rig.rogue, "/").await;
    rig.upstream.on("/api/ws", Play::headers(""));
    let request = handshake(&browser);
    assert_eq!(browser.send(request).await.status, 200, "an ordinary request");
    entry.settle(&rig.cloakroom).await;

    let passing = format!(
        "{KEEP_HOST} proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";"
    );
    let (_nginx, rig, mut browser) = behind(&passing, |config| config).await;
    browser.login(&rig.rogue, "/").await;
    rig.upstream.on("/api/ws", Play::Echo);
    let request = handshake(&browser);
    assert_eq!(browser.send(request).await.status, 101);
}

#[tokio::test]
async fn events_that_the_proxy_collects() {
    let entry = Entry::of("Events arrive late and in bursts");
    let (_nginx, rig, mut browser) = behind(KEEP_HOST, |config| config).await;
    browser.login(&rig.rogue, "/").await;
    let stream = |more: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{more}\r\ndata: 1\n\n");
        Play::Pieces(vec![(Duration::ZERO, head.into_bytes())], After::Hang)
    };
    rig.upstream.on("/api/events", stream(""));
    rig.upstream
        .on("/api/unbuffered", stream("X-Accel-Buffering: no\r\n"));
    let mut straight = browser.clone();
    straight.address = SocketAddr::from(([127, 0, 0, 1], rig.cloakroom.port));
    let mut collected = browser.clone();
    let late = async {
        let (_, mut wire) = collected.open(&Request::fetch("GET", "/api/events")).await;
        wire.line().await
    };
    for (browser, path) in [(&mut straight, "/api/events"), (&mut browser, "/api/unbuffered")] {
        let (head, mut wire) = browser.open(&Request::fetch("GET", path)).await;
        assert_eq!(head.status(), 200);
        let mut framing = head.response_framing("GET");
        let piece = within(5, "the event", wire.piece(&mut framing)).await.unwrap();
        assert_eq!(piece.as_deref(), Some(&b"data: 1\n\n"[..]), "{path}");
    }
    let late = tokio::time::timeout(Duration::from_millis(500), late).await;
    assert!(late.is_err(), "nginx collects it: {late:?}");
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn headers_of_ours_fit_into_the_smallest_buffer() {
    let entry = Entry::of("nginx says that upstream sent too big header");
    let small = format!("{KEEP_HOST} proxy_buffer_size 4k; proxy_buffers 8 4k;");
    let (_nginx, rig, mut browser) = behind(&small, |config| config).await;
    let long = format!("?return_to=/pages/{}", "a".repeat(1_000));
    let mut urls = Vec::new();
    for _ in 0..7 {
        urls.push(browser.begin(&long).await);
    }
    let reply = browser
        .come_back(&rig.rogue.authorize(urls.last().unwrap()))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
    rig.upstream.on(
        "/api/x",
        Play::headers(&format!("X-Theirs: {}\r\n", "x".repeat(5_000))),
    );
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 502, "nginx' own");
    let mut straight = browser.clone();
    straight.address = rig.cloakroom.address();
    assert_eq!(straight.fetch("GET", "/api/x").await.status, 200);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_fallback_that_swallows_our_endpoints() {
    let entry = Entry::of("The app shows up where the sign-in should be");
    let fallback = format!("{KEEP_HOST} location /bff {{ return 200 'the app'; }}");
    let (_nginx, rig, mut browser) = behind(&fallback, |config| config).await;
    let mut straight = browser.clone();
    straight.address = rig.cloakroom.address();
    let request = format!(
        "GET /bff/login HTTP/1.1\r\nHost: {}\r\nAccept: text/html\r\n\r\n",
        browser.host()
    );
    let reply = raw(browser.address, request.as_bytes()).await.0.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "the app"));
    assert_eq!(straight.navigate("/bff/login", Site::None).await.status, 302);
    assert_eq!(browser.fetch("GET", "/api/public/x").await.status, 200);
    entry.settle(&rig.cloakroom).await;
}

/// Where nothing is wrong, nothing is said.
#[tokio::test]
async fn a_proxy_that_is_set_up_well_is_not_talked_about() {
    let well = format!(
        "{KEEP_HOST} proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;"
    );
    let trusted = |config: Config| config.set("server.trusted_proxies", json!(["127.0.0.0/8"]));
    let (_nginx, rig, mut browser) = behind(&well, trusted).await;
    browser.login(&rig.rogue, "/pages/x").await;
    assert_eq!(browser.navigate("/pages/x", Site::SameOrigin).await.status, 200);
    browser.fetch("POST", "/bff/logout").await;
    let Rig { cloakroom, .. } = rig;
    let log = stopped(cloakroom).await;
    let warned: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("\"WARN\"") && !line.contains("public_url: is plain http"))
        .collect();
    let about_the_config = |line: &&str| line.contains("cloakroom.yaml:");
    assert!(warned.iter().all(about_the_config), "{warned:#?}");
}

async fn stopped(mut cloakroom: Cloakroom) -> String {
    cloakroom.signal("TERM");
    assert_eq!(cloakroom.ended().await, 0);
    cloakroom.log()
}

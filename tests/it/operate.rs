//! The admin listener and stopping (contract §1, §7).

use crate::support::browser::{Request, raw};
use crate::support::cloakroom::Cloakroom;
use crate::support::jar::Site;
use crate::support::rig::Rig;
use crate::support::upstream::{After, Play};
use crate::support::{until, websocket, within};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[tokio::test]
async fn ob_04_health_readiness_and_metrics_are_on_the_admin_listener_only() {
    let rig = Rig::start().await;
    rig.signed_in().await.fetch("GET", "/api/x").await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(rig.cloakroom.admin(path).await.status, 200, "{path}");
        let outside = rig.browser().fetch("GET", path).await;
        assert_eq!(outside.status, 404, "{path}");
    }
    let metrics = rig.cloakroom.admin("/metrics").await.text();
    assert!(
        metrics.contains("# TYPE") && metrics.contains("cloakroom"),
        "{metrics}"
    );
    assert!(!metrics.contains("alice"), "no users in labels");
    assert_eq!(rig.cloakroom.admin("/nothing").await.status, 404);
    assert_eq!(
        rig.cloakroom.admin("/sessions?sub=alice").await.status,
        404,
        "no admin_token is set"
    );
    let public = rig
        .browser()
        .send(Request::bare("GET", "/healthz").with("User-Agent", "kube-probe/1.30"))
        .await;
    assert_eq!(public.status, 404, "rm_05");
}

#[tokio::test]
async fn the_admin_listener_answers_addresses_and_localhost_only() {
    let rig = Rig::start().await;
    let address = SocketAddr::from(([127, 0, 0, 1], rig.cloakroom.admin));
    for (host, wanted) in [
        ("127.0.0.1", 200),
        ("127.0.0.1:9090", 200),
        ("[::1]:9090", 200),
        ("10.1.2.3", 200),
        ("localhost", 200),
        ("localhost:9090", 200),
        ("evil.example", 421),
        ("evil.example:9090", 421),
        ("localhost.evil.example", 421),
        ("app.localhost", 421),
    ] {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let reply = raw(address, request.as_bytes()).await.0.unwrap();
        assert_eq!(reply.status, wanted, "{host}");
    }
}

#[tokio::test]
async fn lm_11_a_stop_signal_makes_it_unready_then_lets_requests_finish_and_exits_0() {
    let rig = Rig::with(|config| config.set("server.drain_delay", "400ms")).await;
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl".to_vec();
    let tail = (Duration::from_millis(1_200), b"ow".to_vec());
    rig.upstream.on(
        "/api/slow",
        Play::Pieces(vec![(Duration::ZERO, head), tail], After::Keep),
    );
    let mut browser = rig.signed_in().await;
    let (head, mut wire) = browser.open(&Request::fetch("GET", "/api/slow")).await;
    let Rig {
        mut cloakroom,
        upstream,
        rogue,
        ..
    } = rig;
    cloakroom.signal("TERM");
    cloakroom.becomes(503).await;
    assert_eq!(
        browser.fetch("GET", "/api/x").await.status,
        200,
        "still accepting"
    );
    let body = within(5, "the stream", wire.body(head.response_framing("GET")))
        .await
        .unwrap();
    assert_eq!(body, b"slow");
    assert_eq!(cloakroom.ended().await, 0);
    assert!(std::net::TcpStream::connect(cloakroom.address()).is_err());
    drop((cloakroom, upstream, rogue));
}

#[tokio::test]
async fn a_stream_that_never_ends_is_cut_after_drain_timeout_and_the_exit_code_is_0() {
    let rig = Rig::with(|config| config.set("server.drain_timeout", "500ms")).await;
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec();
    rig.upstream.on(
        "/api/events",
        Play::Pieces(vec![(Duration::ZERO, head)], After::Hang),
    );
    let mut browser = rig.signed_in().await;
    let (_, mut wire) = browser.open(&Request::fetch("GET", "/api/events")).await;
    let Rig {
        mut cloakroom,
        upstream,
        rogue,
        ..
    } = rig;
    let start = Instant::now();
    cloakroom.signal("TERM");
    assert_eq!(cloakroom.ended().await, 0);
    assert!(
        (400..4_000).contains(&start.elapsed().as_millis()),
        "{:?}",
        start.elapsed()
    );
    let _cut = within(2, "the cut", wire.line()).await;
    drop((cloakroom, upstream, rogue));
}

#[tokio::test]
async fn a_tunnel_lives_until_it_ends_or_drain_timeout_and_the_exit_code_is_0() {
    for ends_by_itself in [true, false] {
        let rig = Rig::with(|config| config.set("server.drain_timeout", "3s")).await;
        rig.upstream.on("/api/ws", Play::Echo);
        let mut browser = rig.signed_in().await;
        let opening = Request::bare("GET", "/api/ws")
            .with("Origin", &rig.cloakroom.origin)
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let (head, mut wire) = browser.open(&opening).await;
        assert_eq!(head.status(), 101, "{head:?}");
        let Rig {
            mut cloakroom,
            upstream,
            rogue,
            ..
        } = rig;
        let start = Instant::now();
        cloakroom.signal("TERM");
        let address = cloakroom.address();
        until(2, "closed listeners", || {
            std::net::TcpStream::connect(address).is_err()
        })
        .await;
        websocket::write(&mut wire, websocket::TEXT, b"still here", true)
            .await
            .unwrap();
        let echo = within(2, "the echo", websocket::read(&mut wire)).await.unwrap();
        assert_eq!(echo, (websocket::TEXT, b"still here".to_vec()));
        if ends_by_itself {
            drop(wire);
            assert_eq!(cloakroom.ended().await, 0);
            assert!(start.elapsed() < Duration::from_millis(2_900), "ended early");
        } else {
            assert_eq!(cloakroom.ended().await, 0);
            assert!((2_900..6_000).contains(&start.elapsed().as_millis()));
            assert!(within(2, "the cut", websocket::read(&mut wire)).await.is_err());
        }
        drop((cloakroom, upstream, rogue));
    }
}

#[tokio::test]
async fn an_idle_instance_stops_at_once_on_either_signal() {
    for signal in ["TERM", "INT"] {
        let rig = Rig::start().await;
        let mut browser = rig.signed_in().await;
        browser.fetch("GET", "/api/x").await;
        let idle = tokio::net::TcpStream::connect(rig.cloakroom.address())
            .await
            .unwrap();
        let Rig {
            mut cloakroom,
            upstream,
            rogue,
            ..
        } = rig;
        let start = Instant::now();
        cloakroom.signal(signal);
        assert_eq!(cloakroom.ended().await, 0, "{signal}");
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        drop((cloakroom, upstream, rogue, idle));
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_runtime_failure() {
    let rig = Rig::start().await;
    let folder = tempfile::TempDir::new().unwrap();
    let file = rig.config.write(folder.path());
    let output =
        crate::support::cloakroom::run(folder.path(), &["run", "--config", file.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = crate::support::cloakroom::text(&output.stderr);
    assert!(
        said.contains(&rig.config.port.to_string()) || said.contains(&rig.config.admin.to_string()),
        "{said}"
    );
}

#[tokio::test]
async fn ob_03_logs_are_json_lines_whatever_is_sent() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for value in ["\u{1b}[2J", "{\"level\":\"ERROR\"}", "a\tb", "\u{fc}"] {
        browser
            .send(
                Request::fetch("GET", "/api/x")
                    .with("User-Agent", value)
                    .with("Referer", value),
            )
            .await;
        browser
            .send(Request::fetch("GET", "/api/%1b[2J").with("X-Request-Id", value))
            .await;
    }
    browser
        .navigate("/bff/callback?state=%1b%5b2J&code=%0a%7b%7d", Site::CrossSite)
        .await;
    until(2, "a log", || !rig.cloakroom.log().is_empty()).await;
    for line in rig.cloakroom.log().lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok_and(|value| value.is_object()), "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
}

#[tokio::test]
async fn class_h_a_flood_of_connections_and_half_requests_leaves_it_answering() {
    let rig = Rig::start().await;
    let mut held = Vec::new();
    for n in 0..300 {
        let mut stream = tokio::net::TcpStream::connect(rig.cloakroom.address())
            .await
            .unwrap();
        if n % 3 == 0 {
            let _sent = tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nHo").await;
        }
        held.push(stream);
    }
    let mut browser = rig.signed_in().await;
    let reply = within(3, "an answer in the flood", browser.fetch("GET", "/api/x")).await;
    assert_eq!(reply.status, 200);
    drop(held);
}

#[tokio::test]
async fn md_10_starting_needs_no_provider_and_no_upstream() {
    let nobody = crate::support::free_port();
    let config = crate::support::config::Config::new(
        &format!("http://127.0.0.1:{nobody}"),
        &crate::support::secrets::canary("client-secret"),
        &format!("http://127.0.0.1:{nobody}"),
    );
    let cloakroom = Cloakroom::start(&config).await;
    assert_eq!(cloakroom.admin("/healthz").await.status, 200);
    assert_eq!(cloakroom.browser().fetch("GET", "/app.js").await.status, 200);
    assert_eq!(cloakroom.stop().await, 0);
}

/// Shells give 1024, and a crowd of browsers needs more.
#[tokio::test]
async fn lm_07_as_many_files_are_opened_as_the_system_allows_and_too_few_are_said_at_the_start() {
    let rig = Rig::start().await;
    let limits = |cloakroom: &Cloakroom| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", cloakroom.id())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files"));
        line.unwrap()
            .split_whitespace()
            .skip(3)
            .take(2)
            .collect::<Vec<_>>()
            .join("/")
    };
    for (max_connections, warned) in [(400, false), (450, true)] {
        let config = rig
            .config
            .replica()
            .set("server.max_connections", max_connections);
        let cloakroom = Cloakroom::start_with_open_files(300, 700, &config).await;
        assert_eq!(limits(&cloakroom), "700/700");
        let warning =
            "at most 700 files and connections may be open, and `server.max_connections` (450) may take 706";
        assert_eq!(cloakroom.log().contains(warning), warned, "{}", cloakroom.log());
    }
}

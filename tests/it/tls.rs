//! TLS on every side: browsers, upstreams and Redis, each with an authority that the system does not know.

use crate::support::browser::{Browser, SESSION};
use crate::support::cloakroom::{Cloakroom, run, text};
use crate::support::config::Config;
use crate::support::h2::{self, H2};
use crate::support::jar::Site;
use crate::support::redis::Redis;
use crate::support::rig::Rig;
use crate::support::tls::{Authority, tls_port_to};
use crate::support::until;
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use serde_json::json;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The usual config with TLS on its listener.
pub fn with_tls(config: Config, authority: &Authority) -> Config {
    let leaf = authority.leaf("app.localhost");
    let url = config.public_url().replace("http://", "https://");
    config.set("public_url", url).set(
        "server.tls",
        json!({ "cert": leaf.cert.to_str().unwrap(), "key": leaf.key.to_str().unwrap() }),
    )
}

/// A browser whose connections go over TLS.
pub async fn browser(cloakroom: &Cloakroom, authority: &Authority) -> Browser {
    let port = authority
        .plain_port_to(cloakroom.address(), "app.localhost")
        .await;
    Browser::new(&cloakroom.origin, port)
}

#[tokio::test]
async fn everything_can_go_over_tls_with_authorities_of_ones_own() {
    let (authority, redis) = (Authority::new(), Redis::start_tls().await);
    let redis_ca = redis.ca.clone().unwrap();
    let upstream = Upstream::start().await;
    let front = tls_port_to(upstream.address, &authority.leaf("localhost")).await;
    let rig = Rig::build(Some(redis), |config| {
        with_tls(config, &authority)
            .set("session.store.redis.ca", redis_ca.to_str().unwrap())
            .set("routes.0.upstream", format!("https://localhost:{front}"))
            .set("routes.0.ca", authority.file().to_str().unwrap())
    })
    .await;
    let mut browser = browser(&rig.cloakroom, &authority).await;
    assert_eq!(browser.login(&rig.rogue, "/app.js").await, "/app.js");
    let reply = browser.fetch("GET", "/api/orders?x=%2F").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let up = upstream.last();
    assert_eq!(up.target, "/api/orders?x=%2F");
    assert!(up.bearer().is_some());
    assert_eq!(up.values("x-forwarded-proto"), ["https"]);
    let user = browser.fetch("GET", "/bff/user").await;
    assert_eq!(
        user.head.value("strict-transport-security"),
        Some("max-age=31536000")
    );
    // The files that we serve are ours, too; what an upstream answers is not.
    for (path, hsts) in [("/app.js", Some("max-age=31536000")), ("/api/orders", None)] {
        let reply = browser.fetch("GET", path).await;
        assert_eq!(
            (reply.status, reply.header("strict-transport-security")),
            (200, hsts),
            "{path}"
        );
    }
    let out = browser.fetch("POST", "/bff/logout").await;
    assert_eq!(out.status, 303, "{}", out.text());
    assert_eq!(browser.fetch("GET", "/api/orders").await.status, 401);
}

#[tokio::test]
async fn oa_03_an_upstream_that_nobody_vouches_for_gets_no_request() {
    let (ours, other) = (Authority::new(), Authority::new());
    let upstream = Upstream::start().await;
    let unknown = tls_port_to(upstream.address, &other.leaf("localhost")).await;
    let misnamed = tls_port_to(upstream.address, &ours.leaf("elsewhere.localhost")).await;
    for port in [unknown, misnamed] {
        let rig = Rig::with(|config| {
            config
                .set("routes.1.upstream", format!("https://localhost:{port}"))
                .set("routes.1.ca", ours.file().to_str().unwrap())
        })
        .await;
        let reply = rig.browser().fetch("GET", "/api/public").await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (502, "upstream_unavailable")
        );
        assert_eq!(upstream.count(), 0);
        // The log says why, the browser does not.
        until(5, "the reason in the log", || {
            rig.cloakroom.log().contains("invalid peer certificate")
        })
        .await;
        assert!(!reply.text().contains("certificate"), "{}", reply.text());
    }
}

#[tokio::test]
async fn files_that_make_no_certificate_are_named_at_start() {
    let (one, other) = (Authority::new(), Authority::new());
    let (leaf, foreign) = (one.leaf("app.localhost"), other.leaf("app.localhost"));
    let good = with_tls(
        Config::new("http://127.0.0.1:9", "secret", "http://127.0.0.1:9"),
        &one,
    );
    for (key, path, place, message) in [
        (
            "cert",
            "/nowhere/tls.crt",
            "server.tls.cert",
            "there is no such file",
        ),
        (
            "cert",
            leaf.key.to_str().unwrap(),
            "server.tls.cert",
            "holds no certificate",
        ),
        (
            "key",
            leaf.cert.to_str().unwrap(),
            "server.tls.key",
            "holds no private key",
        ),
        (
            "key",
            foreign.key.to_str().unwrap(),
            "server.tls",
            "does not belong to the first certificate",
        ),
    ] {
        let config = good.clone().set(&format!("server.tls.{key}"), path);
        is_refused_at_start(&config, place, message);
        // The same as the second of two.
        let faulty = config.value["server"]["tls"].clone();
        let list = json!([good.value["server"]["tls"], faulty]);
        let config = good.clone().set("server.tls", list);
        is_refused_at_start(&config, &place.replace("tls", "tls[1]"), message);
    }
}

fn is_refused_at_start(config: &Config, place: &str, message: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = config.write(folder.path());
    for command in ["check", "run"] {
        let output = run(folder.path(), &[command, "--config", file.to_str().unwrap()], &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(
            said.contains(&format!(": {place}: ")) && said.contains(message),
            "{command}: {said}"
        );
    }
}

#[tokio::test]
async fn a_navigation_over_tls_is_sent_to_login_and_back_on_https() {
    let authority = Authority::new();
    let rig = Rig::with(|config| with_tls(config, &authority)).await;
    let mut browser = browser(&rig.cloakroom, &authority).await;
    let url = browser.begin("?return_to=/pages/x").await;
    let redirect_uri = crate::support::form::parameter(&url, "redirect_uri").unwrap();
    assert_eq!(redirect_uri, format!("{}/bff/callback", rig.cloakroom.origin));
    assert!(redirect_uri.starts_with("https://"));
    let reply = browser.navigate("/pages/x", Site::None).await;
    assert_eq!(
        (reply.status, reply.location()),
        (302, "/bff/login?return_to=/pages/x")
    );
}

#[tokio::test]
async fn lm_10_plain_http_on_the_tls_port_is_told_so_and_nothing_else() {
    let authority = Authority::new();
    let rig = Rig::with(|config| with_tls(config, &authority)).await;
    for path in ["/api/public", "/bff/login", "/"] {
        let reply = rig.browser().fetch("GET", path).await;
        assert_eq!((reply.status, reply.problem().as_str()), (400, "bad_request"));
        assert!(reply.text().contains("use https"), "{}", reply.text());
        assert_eq!(reply.header("strict-transport-security"), None);
        assert!(reply.headers("set-cookie").is_empty());
    }
    assert_eq!(rig.upstream.count(), 0);
}

#[tokio::test]
async fn http2_over_tls_serves_a_session_and_ends_with_goaway() {
    let authority = Authority::new();
    let rig = Rig::with(|config| with_tls(config, &authority)).await;
    let mut browser = browser(&rig.cloakroom, &authority).await;
    browser.login(&rig.rogue, "/app.js").await;
    let (secured, _) = connect(&rig, &authority.client(&["h2", "http/1.1"])).await;
    assert_eq!(secured.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut connection = H2::over(secured, 1 << 20).await;
    let cookie = format!("{SESSION}={}", browser.session().unwrap());
    let ask = |path| {
        [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", browser.host()),
            (":path", path),
            ("cookie", cookie.as_str()),
            ("sec-fetch-site", "same-origin"),
        ]
    };
    let streams: Vec<u32> = (0..50).map(|_| connection.fresh()).collect();
    for stream in &streams {
        connection
            .send(&h2::headers(*stream, &h2::block(&ask("/api/x")), true))
            .await;
    }
    for stream in streams {
        assert_eq!(connection.answer(stream).await.status, 200);
    }
    assert!(
        rig.upstream
            .requests()
            .iter()
            .all(|request| request.bearer().is_some())
    );
    let user = connection.ask(&ask("/bff/user")).await;
    assert_eq!(
        (user.status, user.header("strict-transport-security")),
        (200, Some("max-age=31536000"))
    );
    rig.cloakroom.signal("TERM");
    connection.end().await;
    assert_eq!(connection.goaway.map(|(_, code)| code), Some(h2::NO_ERROR));
}

#[tokio::test]
async fn hp_25_early_data_is_not_taken_although_sessions_are_resumed() {
    let authority = Authority::new();
    let rig = Rig::with(|config| with_tls(config, &authority)).await;
    let mut config = ClientConfig::clone(authority.client(&["http/1.1"]).config());
    config.enable_early_data = true;
    let connector = TlsConnector::from(Arc::new(config));
    for resumed in [false, true] {
        let (secured, name) = connect(&rig, &connector).await;
        let kind = secured.get_ref().1.handshake_kind();
        assert_eq!(kind == Some(HandshakeKind::Resumed), resumed, "{kind:?}");
        let mut wire = Wire::new(secured);
        wire.send(b"OPTIONS * HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(wire.head().await.unwrap().unwrap().status(), 204);
        // With what it has now, a client that would like to send early has leave for not one byte.
        let mut next = ClientConnection::new(connector.config().clone(), name).unwrap();
        assert!(next.early_data().is_none());
    }
}

async fn connect(rig: &Rig, connector: &TlsConnector) -> (TlsStream<TcpStream>, ServerName<'static>) {
    let name = ServerName::try_from("app.localhost").unwrap();
    let stream = TcpStream::connect(rig.cloakroom.address()).await.unwrap();
    (connector.connect(name.clone(), stream).await.unwrap(), name)
}

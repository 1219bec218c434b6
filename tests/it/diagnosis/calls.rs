//! The app's calls: refused by us, refused by the upstream, or lost on the way.

use super::check;
use super::page::Entry;
use crate::support::browser::{Request, SESSION, raw};
use crate::support::jar::Site;
use crate::support::rig::Rig;
use crate::support::upstream::{After, Play};
use serde_json::json;

#[tokio::test]
async fn a_fetch_without_a_session() {
    let mut entry = Entry::of("fetch gets 401 and no redirect");
    let rig = Rig::start().await;
    let reply = rig.browser().fetch("GET", "/api/x").await;
    assert_eq!(reply.problem(), "unauthenticated");
    entry.answer(&reply);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn the_upstreams_own_401() {
    let entry = Entry::of("The API answers 401 although people are signed in");
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    rig.upstream.on(
        "/api/x",
        Play::bytes("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\nContent-Length: 2\r\n\r\nno"),
    );
    let theirs = browser.fetch("GET", "/api/x").await;
    assert_eq!((theirs.status, theirs.text().as_str()), (401, "no"));
    assert_eq!(
        theirs.header("www-authenticate"),
        Some("Bearer error=\"invalid_token\"")
    );
    let ours = rig.browser().fetch("GET", "/api/x").await;
    assert_eq!(ours.problem(), "unauthenticated");
    assert_eq!(ours.header("www-authenticate"), Some("Cloakroom"));
    assert_eq!(
        browser.fetch("GET", "/bff/user").await.status,
        200,
        "the session goes on"
    );
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_session_that_lacks_what_a_route_requires() {
    let mut entry = Entry::of("Signed in, and 403 forbidden");
    let rig = Rig::with(|config| {
        let upstream = config.value["routes"][0]["upstream"].clone();
        config
            .set("routes.0.require", json!({ "claims": { "groups": ["admins"] } }))
            .route(
                json!({ "path": "/orders", "upstream": upstream, "require": { "scopes": ["orders.write"] } }),
            )
    })
    .await;
    let mut browser = rig.signed_in().await;
    for path in ["/api/x", "/orders"] {
        let reply = browser.fetch("GET", path).await;
        assert_eq!(reply.problem(), "forbidden", "{path}");
        entry.answer(&reply);
    }
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn an_app_on_another_port() {
    let mut entry =
        Entry::of("The app runs on another port or host, and its calls are 403 or fail with a CORS error");
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let other = "http://app.localhost:5173";
    let preflight = Request::bare("OPTIONS", "/api/x")
        .with("Origin", other)
        .with("Access-Control-Request-Method", "POST")
        .with("Sec-Fetch-Site", "same-site");
    let call = Request::fetch("POST", "/api/x")
        .with("Origin", other)
        .without("Sec-Fetch-Site")
        .with("Sec-Fetch-Site", "same-site");
    for request in [preflight, call] {
        let reply = browser.send(request).await;
        assert_eq!(reply.problem(), "csrf");
        assert_eq!(reply.header("access-control-allow-origin"), None);
        entry.answer(&reply);
    }
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_script_that_is_no_browser() {
    let mut entry = Entry::of("A script or curl gets 403 csrf");
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let reply = browser.send(Request::bare("POST", "/api/x")).await;
    assert_eq!(reply.problem(), "csrf");
    entry.answer(&reply);
    let with_header = Request::bare("POST", "/api/x").with("X-CSRF", "1");
    assert_eq!(browser.send(with_header).await.status, 200);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_link_from_elsewhere() {
    let mut entry = Entry::of("A link from a mail or another site ends in 403");
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let reply = browser.navigate("/api/x", Site::CrossSite).await;
    assert_eq!(reply.status, 403);
    entry.page(&reply);
    let (reply, _) = browser.follow("/pages/x", Site::CrossSite, &rig.rogue, 4).await;
    assert_eq!(reply.status, 200, "with `pages: true` it lands, session and all");
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_websocket_of_another_origin() {
    let mut entry = Entry::of("A WebSocket is refused with 403");
    let rig = Rig::start().await;
    rig.upstream.on("/api/ws", Play::Echo);
    let mut browser = rig.signed_in().await;
    let handshake = |origin: Option<&str>| {
        let request = Request::bare("GET", "/api/ws")
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        origin.map_or(request.clone(), |origin| request.with("Origin", origin))
    };
    for origin in [None, Some("http://app.localhost:5173")] {
        let reply = browser.send(handshake(origin)).await;
        assert_eq!(reply.problem(), "csrf");
        entry.answer(&reply);
    }
    let own = rig.cloakroom.origin.clone();
    assert_eq!(browser.send(handshake(Some(&own))).await.status, 101);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn an_encoded_slash() {
    let mut entry = Entry::of("400 for an address that holds %2F");
    let rig = Rig::with(|config| {
        let upstream = config.value["routes"][0]["upstream"].clone();
        config.route(json!({ "path": "/projects", "upstream": upstream, "encoded_slash": "pass" }))
    })
    .await;
    let mut browser = rig.signed_in().await;
    let reply = browser.fetch("GET", "/api/group%2Fproject").await;
    assert_eq!(reply.problem(), "bad_request");
    entry.answer(&reply);
    assert_eq!(
        browser.fetch("GET", "/projects/group%2Fproject").await.status,
        200
    );
    assert_eq!(rig.upstream.last().target, "/projects/group%2Fproject");
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn nothing_at_that_path() {
    let mut entry = Entry::of("404 everywhere, or for the start page");
    let rig = Rig::start().await;
    std::fs::remove_file(rig.config.folder().join("index.html")).unwrap();
    let reply = rig.browser().fetch("GET", "/").await;
    assert_eq!(reply.problem(), "not_found");
    entry.answer(&reply);
    let (code, said) = check(&rig.config.replica(), &[]);
    assert_eq!(code, 0, "{said}");
    entry.check(&said);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_body_beyond_the_limit() {
    let mut entry = Entry::of("413 for uploads");
    let rig = Rig::with(|config| config.set("routes.0.body_limit", "1KiB")).await;
    let mut browser = rig.signed_in().await;
    let reply = browser
        .send(Request::fetch("POST", "/api/x").body(vec![b'x'; 2_000]))
        .await;
    assert_eq!(reply.problem(), "too_large");
    entry.answer(&reply);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_head_beyond_the_limit() {
    let mut entry = Entry::of("431, or 400 Request Header Or Cookie Too Large");
    let rig = Rig::start().await;
    let browser = rig.signed_in().await;
    // Ours are small, also where many logins were begun.
    let mut many = rig.browser();
    for _ in 0..8 {
        many.begin(&format!("?return_to=/{}", "a".repeat(1_000))).await;
    }
    let own = many.jar.header(many.domain(), Site::SameOrigin, true).unwrap();
    assert!(own.len() <= 4_200, "{}", own.len());
    let large = format!(
        "GET /api/x HTTP/1.1\r\nHost: {}\r\nCookie: {SESSION}={}; theirs={}\r\n\r\n",
        browser.host(),
        browser.session().unwrap(),
        "x".repeat(33 * 1024)
    );
    let reply = raw(rig.cloakroom.address(), large.as_bytes()).await.0.unwrap();
    entry.answer(&reply);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn an_upstream_that_closes_idle_connections_too_soon() {
    let mut entry = Entry::of("502 now and then");
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    assert_eq!(browser.fetch("POST", "/api/x").await.status, 200);
    // The kept connection ends as the next request arrives.
    rig.upstream.on("/api/x", Play::cut(""));
    let reply = browser.fetch("POST", "/api/x").await;
    assert_eq!(reply.problem(), "upstream_unavailable");
    entry.answer(&reply);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn an_upstream_that_is_late() {
    let mut entry = Entry::of("504 for slow requests");
    let rig = Rig::with(|config| config.set("routes.0.timeout", "300ms")).await;
    let mut browser = rig.signed_in().await;
    rig.upstream.on("/api/x", Play::Pieces(Vec::new(), After::Hang));
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(reply.problem(), "upstream_timeout");
    entry.answer(&reply);
    entry.settle(&rig.cloakroom).await;
}

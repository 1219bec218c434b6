//! Cross-site requests: the whole matrix against the rules as the contract words them (4.1, 4.3–4.5).

use crate::support::browser::{Browser, Request};
use crate::support::html;
use crate::support::jar::Site;
use crate::support::rig::Rig;
use crate::support::websocket;
use serde_json::json;

const SITES: [&[&str]; 8] = [
    &[],
    &["same-origin"],
    &["none"],
    &["same-site"],
    &["cross-site"],
    &["Same-Origin"],
    &["anything"],
    &["same-origin", "same-origin"],
];

/// Contract 4.3 and 4.4, for a request that is no navigation and bears a session cookie.
fn passes(site: &[&str], origin: Option<&str>, ours: &str, method: &str, x_csrf: Option<&str>) -> bool {
    let safe = matches!(method, "GET" | "HEAD");
    if origin.is_some_and(|origin| origin != "null" && origin != ours) {
        return false;
    }
    if origin == Some("null") && site != ["same-origin"] {
        return false;
    }
    match site {
        [] if safe => true,
        [] => origin == Some(ours) || origin.is_none() && x_csrf == Some("1"),
        ["same-origin"] => true,
        ["none"] => safe,
        _ => false,
    }
}

fn request(method: &str, path: &str, site: &[&str], origin: Option<&str>, x_csrf: Option<&str>) -> Request {
    let mut request = Request::bare(method, path);
    for value in site {
        request = request.with("Sec-Fetch-Site", value);
    }
    if let Some(origin) = origin {
        request = request.with("Origin", origin);
    }
    if let Some(value) = x_csrf {
        request = request.with("X-CSRF", value);
    }
    request
}

fn origins(ours: &str) -> Vec<Option<String>> {
    let mut origins: Vec<_> = [
        "null",
        "https://evil.example",
        "http://app.localhost",
        "http://app.localhost.evil.example",
        "http://evil-app.localhost",
        "",
    ]
    .map(|origin| Some(origin.to_owned()))
    .into();
    origins.extend([
        None,
        Some(ours.to_owned()),
        Some(ours.replace("http:", "https:")),
        Some(format!("{ours}0")),
        Some(format!("{ours}/")),
        Some(format!("{ours}, {ours}")),
        Some(ours.replace("app.", "x.app.")),
    ]);
    origins
}

#[tokio::test]
async fn cs_01_cs_02_cs_03_the_matrix_of_site_origin_method_and_header() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let ours = rig.cloakroom.origin.clone();
    let mut wrong = Vec::new();
    for path in [
        "/api/x",
        "/api/optional/x",
        "/pages/x",
        "/bff/user",
        "/bff/session/extend",
        "/bff/sessions",
    ] {
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            let bff = match path {
                "/bff/user" => !matches!(method, "GET" | "HEAD"),
                "/bff/session/extend" => method != "POST",
                "/bff/sessions" => method == "POST",
                _ => false,
            };
            if bff {
                continue;
            }
            for site in SITES {
                for origin in origins(&ours) {
                    for x_csrf in [None, Some("1"), Some("0")] {
                        if x_csrf == Some("0") && !site.is_empty() {
                            continue;
                        }
                        let origin = origin.as_deref();
                        let wanted = if passes(site, origin, &ours, method, x_csrf) {
                            200
                        } else {
                            403
                        };
                        let connections = rig.upstream.count();
                        let reply = browser.send(request(method, path, site, origin, x_csrf)).await;
                        if reply.status != wanted {
                            wrong.push(format!(
                                "{method} {path} {site:?} {origin:?} {x_csrf:?}: {}",
                                reply.status
                            ));
                        }
                        if wanted == 403 {
                            if method != "HEAD" && reply.status == 403 {
                                assert_eq!(reply.problem(), "csrf");
                            }
                            assert!(reply.cookies().is_empty());
                            if rig.upstream.count() != connections {
                                wrong.push(format!("class_k: {method} {path} {site:?} {origin:?} went up"));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(40)]
    );
    assert_eq!(
        browser.fetch("GET", "/bff/user").await.status,
        200,
        "the session is untouched"
    );
}

#[tokio::test]
async fn routes_without_auth_and_requests_without_a_cookie_are_judged_as_such() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for (path, wanted) in [("/api/public/x", 200), ("/app.js", 200)] {
        let method = if path == "/app.js" { "GET" } else { "POST" };
        let reply = browser
            .send(request(
                method,
                path,
                &["cross-site"],
                Some("https://evil.example"),
                None,
            ))
            .await;
        assert_eq!(reply.status, wanted, "{path}");
    }
    let mut stranger = rig.browser();
    let before = rig.upstream.connections();
    let reply = stranger
        .send(request(
            "POST",
            "/api/x",
            &["cross-site"],
            Some("https://evil.example"),
            None,
        ))
        .await;
    assert!(matches!(reply.status, 401 | 403), "{}", reply.status);
    assert_eq!(rig.upstream.connections(), before, "class_k");
    for origin in [Some("https://evil.example"), None] {
        let reply = stranger
            .send(request("POST", "/bff/logout", &["cross-site"], origin, None))
            .await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (403, "csrf"),
            "lo_01: cookie or not"
        );
    }
}

#[tokio::test]
async fn a_route_may_ask_for_the_header_on_every_request_or_for_nothing() {
    let rig = Rig::with(|config| {
        let upstream = config.value["routes"][0]["upstream"].clone();
        config
            .route(json!({ "path": "/strictest", "upstream": upstream, "csrf": "header" }))
            .route(json!({ "path": "/open", "upstream": upstream, "csrf": "off" }))
    })
    .await;
    let mut browser = rig.signed_in().await;
    for method in ["GET", "HEAD", "POST"] {
        for (value, wanted) in [
            (None, 403),
            (Some("0"), 403),
            (Some(""), 403),
            (Some("1, 1"), 403),
            (Some("1"), 200),
        ] {
            let reply = browser
                .send(request(method, "/strictest/x", &["same-origin"], None, value))
                .await;
            assert_eq!(reply.status, wanted, "{method} {value:?}");
        }
        let reply = browser
            .send(request(method, "/strictest/x", &["cross-site"], None, Some("1")))
            .await;
        assert_eq!(reply.status, 403, "the header comes on top of the rules");
        let foreign = request(
            method,
            "/open/x",
            &["cross-site"],
            Some("https://evil.example"),
            None,
        );
        assert_eq!(browser.send(foreign).await.status, 200);
    }
}

#[tokio::test]
async fn navigations_from_elsewhere_land_on_pages_only() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let cookie = format!(
        "{}={}",
        crate::support::browser::SESSION,
        browser.session().unwrap()
    );
    for site in [Site::CrossSite, Site::SameSite] {
        for cookie in [Some(cookie.as_str()), None] {
            let before = rig.upstream.connections();
            let mut request = Request::navigate("/api/x", site).anonymous();
            if let Some(cookie) = cookie {
                request = request.with("Cookie", cookie);
            }
            let reply = browser.send(request).await;
            assert_eq!(reply.status, 403, "{site:?} {cookie:?}");
            reply.page();
            assert_eq!(rig.upstream.connections(), before);
        }
        let request = Request::navigate("/pages/x", site)
            .anonymous()
            .with("Cookie", &cookie);
        assert_eq!(browser.send(request).await.status, 200, "{site:?}: pages: true");
        let framed = Request::navigate("/pages/x", site)
            .without("Sec-Fetch-Dest")
            .with("Sec-Fetch-Dest", "iframe")
            .anonymous()
            .with("Cookie", &cookie);
        assert_eq!(
            browser.send(framed).await.status,
            403,
            "{site:?}: a frame is no page"
        );
        let post = Request::navigate("/pages/x", site)
            .anonymous()
            .with("Cookie", &cookie);
        let mut post = post.with("Origin", "https://evil.example");
        post = post.body("a=b");
        assert_eq!(browser.send(post).await.status, 403, "{site:?}: a foreign Origin");
    }
    for site in [Site::None, Site::SameOrigin] {
        let request = Request::navigate("/api/x", site)
            .anonymous()
            .with("Cookie", &cookie);
        assert_eq!(browser.send(request).await.status, 200, "{site:?}");
    }
}

#[tokio::test]
async fn bf_03_class_k_without_a_session_a_fetch_is_401_and_a_navigation_goes_to_login() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    for request in [
        Request::fetch("GET", "/api/x"),
        Request::fetch("POST", "/api/x"),
        Request::bare("GET", "/api/x"),
        Request::bare("GET", "/api/x").with("Accept", "application/json"),
        Request::fetch("GET", "/pages/x")
            .without("Accept")
            .with("Accept", "text/event-stream"),
        Request::fetch("GET", "/api/x").with("User-Agent", "GoogleHC/1.0"),
        Request::fetch("GET", "/api/x").with("Authorization", "Bearer x"),
        Request::fetch("GET", "/api/health"),
        Request::fetch("GET", "/api/x.css"),
        Request::fetch("GET", "/api/x?/api/public/"),
    ] {
        let reply = browser.send(request.clone()).await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (401, "unauthenticated"),
            "{request:?}"
        );
        assert_eq!(reply.json()["login_url"], "/bff/login");
        assert!(reply.cookies().is_empty() && reply.header("location").is_none());
        let challenge = reply
            .header("www-authenticate")
            .unwrap_or_default()
            .to_lowercase();
        assert!(
            !challenge.contains("basic") && !challenge.contains("negotiate"),
            "hy_07: {challenge}"
        );
    }
    for (url, return_to) in [
        ("/pages/x?a=b&c=%20d", "/pages/x?a=b&c=%20d"),
        ("/pages", "/pages"),
    ] {
        for site in [Site::None, Site::SameOrigin] {
            let reply = browser.navigate(url, site).await;
            let location = reply.location().to_owned();
            assert!(location.starts_with("/bff/login?") || location.starts_with(&rig.cloakroom.origin));
            let found = crate::support::form::parameter(&location, "return_to");
            assert_eq!(found.as_deref(), Some(return_to), "{site:?}");
            assert!(reply.cookies().is_empty());
        }
    }
    let old = Request::bare("GET", "/pages/x").with("Accept", "text/html");
    assert_eq!(
        browser.send(old).await.status,
        302,
        "a browser without Sec-Fetch-*"
    );
    assert_eq!(rig.upstream.connections(), 0);
}

#[tokio::test]
async fn ck_04_ck_05_under_strict_a_page_asked_for_from_elsewhere_is_asked_for_again_from_our_own_origin() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let url = "/pages/x?a=b&c=%22";
    let bounce = browser.navigate(url, Site::CrossSite).await;
    assert_eq!(bounce.status, 200);
    let page = bounce.page();
    assert_eq!(html::refresh_target(&page).as_deref(), Some(url), "{page}");
    assert!(bounce.cookies().is_empty());
    assert_eq!(rig.upstream.connections(), 0);
    let reply = browser.navigate(url, Site::SameOrigin).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"ok":true}"#));

    let mut stranger = rig.browser();
    assert_eq!(stranger.navigate(url, Site::CrossSite).await.status, 200);
    let reply = stranger.navigate(url, Site::SameOrigin).await;
    assert!(reply.location().contains("/bff/login?"), "only now to login");

    let lax = Rig::with(|config| config.set("session.cookie.same_site", "lax")).await;
    let reply = lax.browser().navigate(url, Site::CrossSite).await;
    assert!(
        reply.location().contains("/bff/login?"),
        "under Lax the cookie would have come"
    );
}

fn upgrade(path: &str) -> Request {
    Request::bare("GET", path)
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", "13")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

async fn talks(browser: &mut Browser, request: &Request) {
    let (head, mut wire) = browser.open(request).await;
    assert_eq!(head.status(), 101, "{head:?}");
    assert_eq!(
        head.value("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    websocket::write(&mut wire, websocket::TEXT, b"hello", true)
        .await
        .unwrap();
    assert_eq!(
        websocket::read(&mut wire).await.unwrap(),
        (websocket::TEXT, b"hello".to_vec())
    );
}

#[tokio::test]
async fn ws_01_class_k_websockets_are_judged_by_origin_alone() {
    let rig = Rig::start().await;
    for path in ["/api/ws", "/api/optional/ws", "/api/public/ws"] {
        rig.upstream.on(path, crate::support::upstream::Play::Echo);
    }
    let mut browser = rig.signed_in().await;
    let ours = rig.cloakroom.origin.clone();
    for path in ["/api/ws", "/api/optional/ws"] {
        for origin in origins(&ours) {
            if origin.as_deref() == Some(&ours) {
                continue;
            }
            for anonymous in [false, true] {
                let mut request = upgrade(path);
                if let Some(origin) = &origin {
                    request = request.with("Origin", origin);
                }
                let request = if anonymous { request.anonymous() } else { request };
                let request = request.with("X-CSRF", "1").with("Sec-Fetch-Site", "same-origin");
                let reply = browser.send(request).await;
                assert_eq!(reply.status, 403, "{path} {origin:?}");
            }
        }
    }
    assert_eq!(rig.upstream.connections(), 0);
    let good = upgrade("/api/ws")
        .with("Origin", &ours)
        .with("Sec-Fetch-Site", "cross-site");
    talks(&mut browser, &good).await;
    let up = rig.upstream.last();
    assert!(up.bearer().is_some());
    assert_eq!(up.values("sec-websocket-version"), ["13"]);
    let stranger = browser
        .send(upgrade("/api/ws").with("Origin", &ours).anonymous())
        .await;
    assert_eq!(stranger.status, 401);
    let before = rig.upstream.count();
    talks(
        &mut browser,
        &upgrade("/api/optional/ws").with("Origin", &ours).anonymous(),
    )
    .await;
    assert_eq!(rig.upstream.requests()[before].bearer(), None);
    talks(
        &mut browser,
        &upgrade("/api/public/ws").with("Origin", "https://elsewhere.example"),
    )
    .await;
}

#[tokio::test]
async fn cs_05_a_preflight_gets_no_permission_and_never_goes_up() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for path in ["/api/x", "/bff/user", "/bff/logout"] {
        let preflight = Request::bare("OPTIONS", path)
            .with("Origin", "https://evil.example")
            .with("Access-Control-Request-Method", "DELETE")
            .with("Sec-Fetch-Site", "cross-site")
            .with("Sec-Fetch-Mode", "cors");
        for request in [preflight.clone(), preflight.anonymous()] {
            let reply = browser.send(request).await;
            let allowed = reply
                .head
                .fields
                .iter()
                .any(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"));
            assert!(!allowed, "{path}: {:?}", reply.head);
        }
    }
    assert_eq!(rig.upstream.connections(), 0);
}

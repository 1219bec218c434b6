//! cloakroom behind a real nginx and a real Caddy, with the very files of `deploy/` (contract §6).
//!
//! The app stands behind the ingress alone and records what reaches it. Whatever a browser sees through the ingress is
//! searched for tokens, as everywhere in the suite.

use crate::ingresses::Kind;
use crate::support::behind::Behind;
use crate::support::browser::{ATTEMPT, Request, SESSION, raw};
use crate::support::jar::Site;
use crate::support::rogue::{Step, change};
use crate::support::secrets::{canary, remember};
use crate::support::upstream::Play;
use crate::support::{websocket, within};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const CORPUS: &str = include_str!("../corpus/path_match.tsv");

/// What a browser may not say of itself, of whom it speaks for and of what the app should see.
const PROTECTED: [&str; 34] = [
    "Authorization",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Groups",
    "X-Auth-Request-Redirect",
    "Proxy-Authorization",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Server",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Access-Token",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Envoy-External-Address",
    "Client-Cert",
    "Client-Cert-Chain",
    "X-Original-URL",
    "X-Original-URI",
    "X-Original-Method",
    "X-Original-Host",
    "X-Rewrite-URL",
    "X-HTTP-Method-Override",
    "X-Method-Override",
];

/// Ways to spell a name that apps fold into the same.
fn spellings(name: &str) -> Vec<String> {
    let mut spellings = vec![
        name.to_owned(),
        name.to_ascii_lowercase(),
        name.to_ascii_uppercase(),
    ];
    let Some(last) = name.rfind('-') else {
        return spellings;
    };
    for sign in ["_", "."] {
        spellings.push(name.replace('-', sign));
        let mut mixed = name.to_ascii_lowercase();
        mixed.replace_range(last..=last, sign);
        spellings.push(mixed);
    }
    spellings
}

/// Who the last request was for, by what reached the app.
fn identity(ingress: &Behind) -> (Option<String>, [String; 3]) {
    let up = ingress.rig.upstream.last();
    let bearer = up.values("authorization");
    assert!(bearer.len() <= 1, "{bearer:?}");
    let bearer = bearer.first().filter(|value| !value.is_empty());
    let token = bearer.map(|value| value.strip_prefix("Bearer ").expect("a Bearer token"));
    let names = [
        "x-auth-request-user",
        "x-auth-request-email",
        "x-auth-request-groups",
    ];
    let values = names.map(|name| {
        let values = up.values(name);
        assert!(values.len() <= 1, "{name}: {values:?}");
        values.first().copied().unwrap_or_default().to_owned()
    });
    (
        token.and_then(|token| ingress.rig.rogue.subject_of(token)),
        values,
    )
}

#[tokio::test]
async fn login_calls_and_logout_work_as_without_an_ingress() {
    for kind in Kind::ALL {
        let ingress = Behind::start(kind).await;
        ingress.rig.rogue.script(|script| {
            script.claims = change(|claims| {
                claims["email"] = "alice@example.com".into();
                claims["groups"] = json!(["staff", "ops"]);
            });
        });
        let mut browser = ingress.browser();
        let reply = browser.fetch("GET", "/api/x").await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (401, "unauthenticated"),
            "{kind}"
        );
        assert_eq!(reply.json()["login_url"], "/bff/login");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("location").is_some(), kind == Kind::Caddy);
        assert_eq!(ingress.rig.upstream.connections(), 0, "class_k");

        // A page leads to the login and back.
        let (reply, trace) = browser
            .follow("/pages/report?a=1", Site::None, &ingress.rig.rogue, 8)
            .await;
        assert_eq!(reply.status, 200, "{kind} {trace:#?}");
        assert_eq!(ingress.rig.upstream.last().target, "/pages/report?a=1");
        let named = ["alice", "alice@example.com", "staff,ops"].map(str::to_owned);
        assert_eq!(
            identity(&ingress),
            (Some("alice".to_owned()), named.clone()),
            "{kind}"
        );

        // Every method, with its body.
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let body = if matches!(method, "GET" | "HEAD") {
                Vec::new()
            } else {
                vec![b'x'; 100_000]
            };
            let reply = browser
                .send(Request::fetch(method, "/api/x?a=%zz").body(body.clone()))
                .await;
            assert_eq!(reply.status, 200, "{kind} {method}");
            let up = ingress.rig.upstream.last();
            assert_eq!((up.method.as_str(), up.target.as_str()), (method, "/api/x?a=%zz"));
            assert_eq!(up.body.len(), body.len(), "{kind} {method}");
            assert_eq!(up.values("host"), [browser.host()], "{kind}");
            assert_eq!(identity(&ingress), (Some("alice".to_owned()), named.clone()));
        }
        let chunked = Request::fetch("POST", "/api/x")
            .with("Transfer-Encoding", "chunked")
            .body(*b"5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(browser.send(chunked).await.status, 200, "{kind}");
        assert_eq!(ingress.rig.upstream.last().body, b"hello", "{kind}");

        // Open and optional routes, as nobody.
        let mut nobody = ingress.browser();
        for path in ["/api/public/x", "/api/optional/x", "/app.js"] {
            assert_eq!(nobody.fetch("GET", path).await.status, 200, "{kind} {path}");
            assert_eq!(
                identity(&ingress),
                (None, <[String; 3]>::default()),
                "{kind} {path}"
            );
            assert!(
                ingress.rig.upstream.last().values("authorization").is_empty(),
                "{kind} {path}"
            );
        }

        // Refused requests stay here.
        let before = ingress.rig.upstream.count();
        for request in [
            Request::bare("POST", "/api/x"),
            Request::fetch("GET", "/api/x").with("Origin", "https://evil.example"),
            Request::bare("TRACE", "/api/x"),
            Request::navigate("/api/x", Site::SameSite),
        ] {
            let reply = browser.send(request.clone()).await;
            assert!(
                matches!(reply.status, 403 | 405),
                "{kind} {request:?}: {}",
                reply.status
            );
        }
        assert_eq!(ingress.rig.upstream.count(), before);

        let request = Request::fetch("POST", "/bff/logout").with("Accept", "application/json");
        assert_eq!(browser.send(request).await.status, 200, "{kind}");
        assert!(browser.session().is_none());
        assert_eq!(browser.fetch("GET", "/api/x").await.status, 401, "{kind}");
        let reply = browser.navigate("/pages/x", Site::None).await;
        assert!(
            reply.location().contains("/bff/login?return_to=/pages/x"),
            "{kind}"
        );
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{kind}");
        assert_eq!(ingress.rig.upstream.count(), before, "{kind}");
    }
}

#[tokio::test]
async fn hp_14_fh_04_class_d_no_spelling_of_a_header_gets_past_the_ingress() {
    for kind in Kind::ALL {
        let ingress = Behind::start(kind).await;
        let mut alice = ingress.signed_in().await;
        let mut nobody = ingress.browser();
        for (path, signed_in) in [
            ("/api/x", true),
            ("/api/optional/x", false),
            ("/api/public/x", false),
        ] {
            for name in PROTECTED {
                for spelling in spellings(name) {
                    let request = Request::fetch("GET", path)
                        .with(&spelling, "evil")
                        .with(&spelling, "evil");
                    let browser = if signed_in { &mut alice } else { &mut nobody };
                    let before = ingress.rig.upstream.count();
                    let reply = browser.send(request).await;
                    // nginx refuses a second line of what it knows to have one.
                    if kind == Kind::Nginx && reply.status == 400 {
                        assert_eq!(ingress.rig.upstream.count(), before, "{spelling}");
                        let request = Request::fetch("GET", path).with(&spelling, "evil");
                        browser.send(request).await;
                    } else {
                        assert_eq!(reply.status, 200, "{kind} {path} {spelling}");
                    }
                    assert_eq!(
                        ingress.rig.upstream.count(),
                        before + 1,
                        "{kind} {path} {spelling}"
                    );
                    let up = ingress.rig.upstream.last();
                    let evil: Vec<_> = up
                        .fields
                        .iter()
                        .filter(|(_, value)| value.contains("evil"))
                        .collect();
                    assert!(evil.is_empty(), "{kind} {path} {spelling}: {evil:?}");
                    let (who, [user, ..]) = identity(&ingress);
                    let wanted = signed_in.then(|| "alice".to_owned());
                    assert_eq!((who, user), (wanted.clone(), wanted.unwrap_or_default()));
                }
            }
        }
        // A name of the family that no ingress replaces.
        let before = ingress.rig.upstream.count();
        let request = Request::fetch("GET", "/api/x").with("X-Auth-Request-Preferred-Username", "evil");
        let reply = alice.send(request).await;
        let up = &ingress.rig.upstream.requests()[before..];
        assert!(
            reply.status == 403 && up.is_empty()
                || up
                    .iter()
                    .all(|up| up.values("x-auth-request-preferred-username").is_empty()),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn hp_02_connection_takes_nothing_of_ours_away() {
    for kind in Kind::ALL {
        let ingress = Behind::start(kind).await;
        let mut browser = ingress.signed_in().await;
        for named in [
            "Authorization",
            "X-Auth-Request-User",
            "close, authorization, x-auth-request-user, cookie",
            "X-Forwarded-Uri, X-Forwarded-Method, X-Forwarded-Host, X-Forwarded-Proto",
            "X-Original-URL, X-Original-Method",
            "Cookie",
            "Upgrade, Authorization",
        ] {
            let request = Request::fetch("GET", "/api/x")
                .with("Connection", named)
                .with("Connection", "X-Auth-Request-User");
            assert_eq!(browser.send(request).await.status, 200, "{kind} {named}");
            let (who, [user, ..]) = identity(&ingress);
            assert_eq!(
                (who.as_deref(), user.as_str()),
                (Some("alice"), "alice"),
                "{kind} {named}"
            );
            // Nor is anything of it to be seen.
            let up = ingress.rig.upstream.last();
            let left = up.values("connection").join(",").to_ascii_lowercase();
            assert!(
                matches!(left.as_str(), "" | "close" | "keep-alive"),
                "{kind} {left}"
            );
            assert!(up.values("upgrade").is_empty(), "{kind}");
        }
    }
}

#[tokio::test]
async fn oa_10_our_cookies_stay_with_the_ingress_and_the_others_go_up_as_they_are() {
    for kind in Kind::ALL {
        let ingress = Behind::start(kind).await;
        let mut browser = ingress.signed_in().await;
        let ours = format!("{SESSION}={}", browser.session().unwrap());
        let attempt = format!("{ATTEMPT}abc-_1=v.w");
        for (path, status, sent, up) in [
            ("/api/x", 200, ours.clone(), ""),
            ("/api/x", 200, format!("a=1; {ours}; b=2"), "a=1; b=2"),
            ("/api/x", 200, format!("{ours}; a=1"), "a=1"),
            ("/api/x", 200, format!("a=1; {ours}"), "a=1"),
            ("/api/x", 200, format!("a=1;{ours};b=2"), "a=1;b=2"),
            (
                "/api/x",
                200,
                format!("{attempt}; {ours}; {SESSION}-logout=x; a=1"),
                "a=1",
            ),
            (
                "/api/x",
                200,
                format!("a=1; {attempt}; {ours}; a=1; b=\"x y\"; c"),
                "a=1; a=1; b=\"x y\"; c",
            ),
            (
                "/api/x",
                200,
                format!("{}{ours}; z=9", format!("{attempt}; ").repeat(6)),
                "z=9",
            ),
            // Other cookies of similar names.
            (
                "/api/x",
                200,
                format!("{SESSION}x=1; {ours}; x{SESSION}=2; {SESSION}-theme=3"),
                "__Host-Http-cloakroomx=1; x__Host-Http-cloakroom=2; __Host-Http-cloakroom-theme=3",
            ),
            // Two of that name are no session, and neither goes up.
            ("/api/optional/x", 200, format!("{ours}; a=1; {ours}"), "a=1"),
            ("/api/public/x", 200, format!("{SESSION}=x; a=1"), "a=1"),
            (
                "/api/public/x",
                200,
                format!("{SESSION}=; {SESSION}=x;{SESSION}=y"),
                "",
            ),
        ] {
            let request = Request::fetch("GET", path).with("Cookie", &sent);
            assert_eq!(browser.send(request).await.status, status, "{kind} {sent}");
            let last = ingress.rig.upstream.last();
            let cookies = last.values("cookie");
            assert_eq!(cookies.join("; "), up, "{kind} {sent}");
            assert_eq!(cookies.is_empty(), up.is_empty(), "{kind}: nothing is no cookie");
        }
        // More of them than cloakroom ever sets, and on several lines.
        let many = format!("a=1; {}b=2", format!("{ours}; ").repeat(50));
        let lines = Request::fetch("GET", "/api/public/x")
            .with("Cookie", "a=1")
            .with("Cookie", &ours)
            .with("Cookie", &format!("{attempt}; b=2"));
        for request in [
            Request::fetch("GET", "/api/public/x").with("Cookie", &many),
            lines,
        ] {
            assert_eq!(browser.send(request).await.status, 200);
            let cookies = ingress.rig.upstream.last().values("cookie").join("; ");
            assert!(!cookies.contains("cloakroom"), "{kind} {cookies}");
            assert!(
                cookies.is_empty() || cookies.contains("a=1") && cookies.contains("b=2"),
                "{kind} {cookies}"
            );
        }
    }
}

#[tokio::test]
async fn rm_01_rm_02_class_b_what_reaches_the_app_is_what_was_judged() {
    for kind in Kind::ALL {
        let ingress = Behind::start(kind).await;
        let browser = ingress.signed_in().await;
        let cookie = format!("Cookie: {SESSION}={}\r\n", browser.session().unwrap());
        let further = [
            "/api/public/%2e%2e%3b/x",
            "/api/public/..%00/x",
            "/bff/../api/x",
            "/bff/%2e%2e/api/x",
            "/bff%2f..%2fapi/x",
            "/bff//../api/x",
            "/_cloakroom",
            "/_cloakroom?x",
            "/%5fcloakroom",
            "/api/../_cloakroom",
            "/api/public?/../x",
            "/api/public/?x=../../",
            "/api/x?",
            "/api/{uri}",
            "/api/$request_uri",
        ]
        .map(|target| format!("further\t{target}\tas judged"));
        let rows: Vec<String> = CORPUS.lines().skip(1).map(str::to_owned).chain(further).collect();
        let mut wrong = Vec::new();
        for row in rows {
            let cells: Vec<_> = row.split('\t').collect();
            let (id, target, expected) = (cells[0], cells[1], cells[2]);
            let target = match target.split_once(" (") {
                Some((_, "raw UTF-8 bytes)")) => "/api/\u{c3}\u{bc}".to_owned(),
                Some((target, _)) => target.trim().to_owned(),
                None if target.contains("9000 x") => format!("/{}", "a".repeat(9000)),
                None => target.to_owned(),
            };
            let target = target.replace("app.example", browser.host());
            let method = if id == "PM-C065" { "OPTIONS" } else { "GET" };
            for signed_in in [true, false] {
                let mut bytes = format!("{method} ").into_bytes();
                bytes.extend(target.chars().map(|c| u8::try_from(c).unwrap()));
                bytes.extend(
                    format!(" HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", browser.host()).bytes(),
                );
                bytes.extend(
                    b"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n",
                );
                if signed_in {
                    bytes.extend(cookie.bytes());
                }
                bytes.extend(b"\r\n");
                let before = ingress.rig.upstream.count();
                let (reply, _) = raw(ingress.address(), &bytes).await;
                let status = reply.map_or(0, |reply| reply.status);
                let up = ingress.rig.upstream.requests().split_off(before);
                let what = format!("{kind} {id} {target} signed_in={signed_in}: {status}");
                if expected == "400" || expected.starts_with("421") {
                    // However the ingress reads it: judged as what is sent, or refused.
                    for up in &up {
                        if !is_allowed(&up.target, up.bearer().is_some()) {
                            wrong.push(format!("{what}: {} went up", up.target));
                        }
                    }
                    continue;
                }
                let session = expected.contains("(session)") && id != "PM-C059";
                if session && !signed_in && (status != 401 || !up.is_empty()) {
                    wrong.push(format!("{what}: without a session"));
                }
                for up in &up {
                    if !is_allowed(&up.target, up.bearer().is_some()) {
                        wrong.push(format!("{what}: {} went up", up.target));
                    }
                }
                let path_only = target
                    .strip_prefix(&format!("http://{}", browser.host()))
                    .unwrap_or(&target);
                let goes_up = up.iter().map(|up| up.target.as_str()).collect::<Vec<_>>();
                if session && signed_in && (status != 200 || goes_up != [path_only]) {
                    wrong.push(format!("{what}: {goes_up:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

/// Whether a target may reach the app as it is: it can be read in one way, and has a token where it needs one.
fn is_allowed(target: &str, has_token: bool) -> bool {
    let path = cloakroom::protocol::path::RequestPath::parse(target.split('?').next().unwrap());
    let Ok(path) = path else { return false };
    let view = path.decoded();
    let under = |prefix: &str| cloakroom::protocol::path::is_under(view, prefix);
    if path.has_encoded_slash() || under("/bff") {
        return false;
    }
    let needs = under("/api") && !under("/api/public") && !under("/api/optional") || under("/pages");
    needs == has_token
}

#[tokio::test]
async fn what_cloakroom_tells_the_ingress_is_never_told_a_browser() {
    for kind in Kind::ALL {
        let ingress = Behind::with(kind, |config| config.set("routes.4.auth", "required")).await;
        let mut browser = ingress.signed_in().await;
        let before = ingress.rig.upstream.count();
        // Where the question is asked, in nginx; and what a browser might ask itself. `send` searches for tokens.
        for path in [
            "/_cloakroom",
            "/_cloakroom/",
            "/_cloakroom?x",
            "/%5fcloakroom",
            "//_cloakroom",
            "/x/../_cloakroom",
        ] {
            for (method, name, value) in [
                ("GET", "X-Original-URL", format!("{}/api/x", browser.origin)),
                ("POST", "X-Original-Method", "GET".to_owned()),
                ("GET", "X-Forwarded-Uri", "/api/x".to_owned()),
            ] {
                let reply = browser
                    .send(Request::fetch(method, path).with(name, &value))
                    .await;
                for name in ["authorization", "x-auth-request-user", "x-auth-request-groups"] {
                    assert_eq!(reply.header(name), None, "{kind} {path}");
                }
                let is_the_apps = ingress.rig.upstream.count() > before;
                assert!(
                    reply.status >= 400 || is_the_apps,
                    "{kind} {path} {}",
                    reply.status
                );
            }
        }
    }
}

#[tokio::test]
async fn websockets_go_through_for_our_own_origin_and_no_other() {
    for kind in Kind::ALL {
        let ingress = Behind::start(kind).await;
        ingress.rig.upstream.on("/api/ws", Play::Echo);
        let mut browser = ingress.signed_in().await;
        let opening = |origin: Option<&str>| {
            let mut request = Request::bare("GET", "/api/ws")
                .with("Connection", "keep-alive, Upgrade, Authorization")
                .with("Upgrade", "websocket")
                .with("Sec-WebSocket-Version", "13")
                .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
            if let Some(origin) = origin {
                request = request.with("Origin", origin);
            }
            request
        };
        let ours = browser.origin.clone();
        let (head, mut wire) = browser.open(&opening(Some(&ours))).await;
        assert_eq!(head.status(), 101, "{kind} {head:?}");
        assert_eq!(identity(&ingress).0.as_deref(), Some("alice"), "{kind}");
        websocket::write(&mut wire, websocket::TEXT, b"hello", true)
            .await
            .unwrap();
        let (_, payload) = within(5, "an echo", websocket::read(&mut wire)).await.unwrap();
        assert_eq!(payload, b"hello", "{kind}");

        let before = ingress.rig.upstream.count();
        for origin in [None, Some("https://evil.example"), Some("null")] {
            let (head, _) = browser.open(&opening(origin)).await;
            assert_eq!(head.status(), 403, "{kind} {origin:?}");
        }
        let mut nobody = ingress.browser();
        let (head, _) = nobody.open(&opening(Some(&ours))).await;
        assert_eq!(head.status(), 401, "{kind}");
        assert_eq!(ingress.rig.upstream.count(), before, "{kind}");
        // Another upgrade is none.
        let mut request = Request::bare("GET", "/api/x").with("Connection", "Upgrade, HTTP2-Settings");
        for (name, value) in [("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA")] {
            request = request.with(name, value);
        }
        let (head, _) = browser.open(&request).await;
        assert_eq!(head.status(), 200, "{kind}");
        assert!(ingress.rig.upstream.last().values("upgrade").is_empty(), "{kind}");
    }
}

#[tokio::test]
async fn rf_02_fifty_calls_through_the_ingress_wait_for_one_refresh() {
    for kind in Kind::ALL {
        let ingress = Behind::start(kind).await;
        let rogue = &ingress.rig.rogue;
        rogue.script(|script| script.lifetime = Some(1));
        let browser = ingress.signed_in().await;
        rogue.script(|script| script.lifetime = None);
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        rogue.script(|script| script.steps.push_back(Step::Late(Duration::from_millis(300))));
        let barrier = Arc::new(Barrier::new(50));
        let mut work = JoinSet::new();
        for n in 0..50 {
            let (mut browser, barrier) = (browser.clone(), barrier.clone());
            work.spawn(async move {
                barrier.wait().await;
                let method = if n % 2 == 0 { "GET" } else { "POST" };
                browser.fetch(method, "/api/x").await.status
            });
        }
        while let Some(status) = work.join_next().await {
            assert_eq!(status.unwrap(), 200, "{kind}");
        }
        assert_eq!(rogue.grants("refresh_token"), 1, "{kind}");
        let requests = ingress.rig.upstream.requests();
        let tokens: std::collections::BTreeSet<_> = requests.iter().map(|up| up.bearer().unwrap()).collect();
        assert_eq!((requests.len(), tokens.len()), (50, 1), "{kind}");
    }
}

#[tokio::test]
async fn an_outage_is_503_and_the_apps_own_answers_stay_its_own() {
    for kind in Kind::ALL {
        let mut ingress = Behind::start(kind).await;
        let mut browser = ingress.signed_in().await;
        for status in [400, 401, 403, 404, 500, 502, 503] {
            let answer = format!("HTTP/1.1 {status} Own\r\nX-Own: yes\r\nContent-Length: 3\r\n\r\nown");
            ingress.rig.upstream.on("/api/own", Play::bytes(answer));
            let reply = browser.fetch("GET", "/api/own").await;
            assert_eq!((reply.status, reply.text().as_str()), (status, "own"), "{kind}");
            assert_eq!(reply.header("x-own"), Some("yes"), "{kind} {status}");
        }
        // The provider is away and the token has expired.
        ingress.rig.rogue.script(|script| script.lifetime = Some(1));
        let mut expired = ingress.signed_in().await;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        ingress.rig.rogue.close().await;
        let before = ingress.rig.upstream.count();
        for _ in 0..2 {
            let reply = expired.fetch("GET", "/api/x").await;
            assert_eq!(reply.status, 503, "{kind}");
            assert!(reply.header("retry-after").is_some(), "{kind}");
            assert_eq!(reply.header("cache-control"), Some("no-store"), "{kind}");
            assert!(reply.cookies().is_empty());
            reply.problem();
        }
        assert_eq!(
            browser.fetch("GET", "/api/x").await.status,
            200,
            "{kind}: a living token goes on"
        );
        // cloakroom itself is away: nobody is let in, on open routes neither.
        ingress.rig.cloakroom.signal("TERM");
        assert_eq!(ingress.rig.cloakroom.ended().await, 0);
        for path in ["/api/x", "/api/optional/x", "/api/public/x"] {
            let reply = browser.fetch("GET", path).await;
            assert!(
                matches!(reply.status, 502 | 503),
                "{kind} {path}: {}",
                reply.status
            );
        }
        assert_eq!(ingress.rig.upstream.count(), before + 1, "{kind}");
    }
}

#[tokio::test]
async fn a_link_from_another_site_arrives_with_the_session_and_nothing_loops() {
    for kind in Kind::ALL {
        let ingress = Behind::start(kind).await;
        let mut browser = ingress.signed_in().await;
        let logins = ingress.rig.rogue.grants("authorization_code");
        // With a session: once round by our own origin, and no login.
        let (reply, trace) = browser
            .follow("/pages/x?a=1", Site::CrossSite, &ingress.rig.rogue, 8)
            .await;
        assert_eq!((reply.status, trace.len()), (200, 3), "{kind} {trace:#?}");
        assert!(trace[1].contains("/bff/login/resume?"), "{kind} {trace:#?}");
        assert_eq!(ingress.rig.upstream.last().target, "/pages/x?a=1");
        assert_eq!(ingress.rig.rogue.grants("authorization_code"), logins, "{kind}");
        // Where nobody may land, not even with a session.
        assert_eq!(
            browser.navigate("/api/x", Site::CrossSite).await.status,
            403,
            "{kind}"
        );
        // Without a session: to the login, and back.
        let mut stranger = ingress.browser();
        let (reply, trace) = stranger
            .follow("/pages/x?a=1", Site::CrossSite, &ingress.rig.rogue, 10)
            .await;
        assert_eq!(reply.status, 200, "{kind} {trace:#?}");
        assert_eq!(identity(&ingress).0.as_deref(), Some("alice"), "{kind}");
        // A browser that does not keep the cookie ends on a page that says so (3.6).
        let mut forgetful = ingress.browser();
        forgetful.jar.refused = vec![SESSION.to_owned()];
        let (reply, trace) = forgetful
            .follow("/pages/x", Site::None, &ingress.rig.rogue, 10)
            .await;
        assert_eq!(reply.status, 400, "{kind} {trace:#?}");
        assert!(reply.page().contains("did not keep the cookie"), "{kind}");
    }
}

#[tokio::test]
async fn large_tokens_and_many_groups_fit_through() {
    for kind in Kind::ALL {
        let ingress = Behind::start(kind).await;
        let token = format!("{}{}", canary("at"), "x".repeat(10_000));
        remember(&token);
        let long = token.clone();
        ingress.rig.rogue.script(|script| {
            script.token = change(move |answer| answer["access_token"] = long.clone().into());
            script.claims = change(|claims| {
                claims["groups"] = (0..300).map(|n| format!("group-number-{n}")).collect();
                claims.as_object_mut().unwrap().remove("at_hash");
            });
        });
        let mut browser = ingress.signed_in().await;
        assert_eq!(browser.fetch("GET", "/api/x").await.status, 200, "{kind}");
        let up = ingress.rig.upstream.last();
        assert_eq!(up.bearer(), Some(token.as_str()), "{kind}");
        assert!(
            up.values("x-auth-request-groups")[0].ends_with(",group-number-299"),
            "{kind}"
        );
        // A head as large as nginx takes.
        let request = Request::fetch("GET", &format!("/api/{}", "a".repeat(7_000)))
            .with("X-Filling", &"b".repeat(7_000))
            .with("X-Filling", &"c".repeat(7_000));
        assert_eq!(browser.send(request).await.status, 200, "{kind}");
    }
}

#[tokio::test]
async fn a_host_that_is_not_ours_and_old_http_get_nothing() {
    for kind in Kind::ALL {
        let ingress = Behind::start(kind).await;
        let browser = ingress.signed_in().await;
        let cookie = format!("Cookie: {SESSION}={}\r\n", browser.session().unwrap());
        let host = browser.host();
        for (line, fields) in [
            ("GET /api/x HTTP/1.1", "Host: evil.example\r\n".to_owned()),
            ("GET /api/x HTTP/1.1", "Host: app.localhost\r\n".to_owned()),
            ("GET /api/x HTTP/1.1", format!("Host: {host}\r\nHost: {host}\r\n")),
            ("GET /api/x HTTP/1.1", String::new()),
            ("GET /api/x HTTP/1.0", String::new()),
            (
                "GET http://evil.example/api/x HTTP/1.1",
                "Host: evil.example\r\n".to_owned(),
            ),
            ("GET /api/x HTTP/1.1", format!("Host: user@{host}\r\n")),
        ] {
            let start = Instant::now();
            let bytes = format!("{line}\r\n{fields}{cookie}Connection: close\r\n\r\n");
            let (reply, _) = raw(ingress.address(), bytes.as_bytes()).await;
            let status = reply.map_or(0, |reply| reply.status);
            // Caddy says nothing, with 200, to hosts that no site of it has.
            assert!(
                status >= 400 || kind == Kind::Caddy && status == 200,
                "{kind} {line} {fields}: {status}"
            );
            assert!(start.elapsed() < Duration::from_secs(5));
        }
        assert_eq!(ingress.rig.upstream.connections(), 0, "{kind}");
        // Old HTTP with our host is HTTP all the same.
        let bytes = format!("GET /api/x HTTP/1.0\r\nHost: {host}\r\n{cookie}\r\n");
        let (reply, _) = raw(ingress.address(), bytes.as_bytes()).await;
        assert_eq!(reply.unwrap().status, 200, "{kind}");
    }
}

#[tokio::test]
async fn class_n_an_app_that_leads_nginx_to_the_question_gets_no_answer_of_it_out() {
    let ingress = Behind::start(Kind::Nginx).await;
    let mut browser = ingress.signed_in().await;
    let answer = "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /_cloakroom\r\nContent-Length: 0\r\n\r\n";
    ingress.rig.upstream.on("/api/led", Play::bytes(answer));
    // Whatever a browser sees is searched for tokens; the names must not be there either.
    let reply = browser.fetch("GET", "/api/led").await;
    assert_eq!(ingress.rig.upstream.last().target, "/api/led");
    for name in [
        "authorization",
        "x-auth-request-user",
        "x-auth-request-email",
        "x-auth-request-groups",
        "x-auth-request-redirect",
    ] {
        assert_eq!(reply.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn sessions_that_are_lost_again_and_again_end_on_a_page() {
    for kind in Kind::ALL {
        let ingress = Behind::start(kind).await;
        let mut browser = ingress.browser();
        for round in 0..3 {
            let (reply, trace) = browser
                .follow("/pages/x", Site::None, &ingress.rig.rogue, 8)
                .await;
            assert_eq!(reply.status, 200, "{kind} {round} {trace:#?}");
            // The store forgets it; the browser does not.
            let kept = browser.jar.clone();
            let request = Request::fetch("POST", "/bff/logout").with("Accept", "application/json");
            assert_eq!(browser.send(request).await.status, 200, "{kind}");
            browser.jar = kept;
        }
        let (reply, trace) = browser
            .follow("/pages/x", Site::None, &ingress.rig.rogue, 8)
            .await;
        assert_eq!(reply.status, 400, "{kind} {trace:#?}");
        assert!(reply.page().contains("lost again and again"), "{kind}");
        let log = ingress.rig.cloakroom.log();
        assert!(
            log.contains("brings a session that the store does not know"),
            "{kind} {log}"
        );
    }
}

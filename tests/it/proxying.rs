//! What goes up and what comes back (contract 4.11–4.13), to the byte.

use crate::support::browser::{ATTEMPT, Browser, Request, SESSION, raw};
use crate::support::rig::Rig;
use crate::support::upstream::{After, Play};
use crate::support::wire::{Framing, values};
use crate::support::{until, within};
use serde_json::json;
use std::time::{Duration, Instant};

const PROTECTED: [&str; 24] = [
    "Authorization",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-User",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Access-Token",
    "X-Forwarded-Anything",
    "X-Real-IP",
    "X-Original-URL",
    "X-Original-URI",
    "X-Original-Method",
    "X-Original-Host",
    "X-Rewrite-URL",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Groups",
    "X-HTTP-Method-Override",
];

/// Ways to spell a name that upstreams fold into the same.
fn spellings(name: &str) -> Vec<String> {
    let mut spellings = vec![
        name.to_owned(),
        name.to_ascii_lowercase(),
        name.to_ascii_uppercase(),
        name.replace('-', "_"),
    ];
    if let Some(at) = name.find('-') {
        let mut mixed = name.to_ascii_lowercase();
        mixed.replace_range(at..=at, "_");
        spellings.push(mixed);
    }
    spellings
}

#[tokio::test]
async fn hp_14_fh_01_fh_04_oa_10_class_d_no_spelling_of_a_header_of_ours_gets_past() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for path in ["/api/x", "/api/optional/x", "/api/public/x"] {
        for anonymous in [false, true] {
            if anonymous && path == "/api/x" {
                continue;
            }
            for name in PROTECTED {
                for spelling in spellings(name) {
                    let mut request = Request::fetch("GET", path)
                        .with(&spelling, "evil")
                        .with(&spelling, "evil");
                    if anonymous {
                        request = request.anonymous();
                    }
                    let reply = browser.send(request).await;
                    assert_eq!(reply.status, 200, "{spelling}");
                    let up = rig.upstream.last();
                    let evil: Vec<_> = up
                        .fields
                        .iter()
                        .filter(|(_, value)| value.contains("evil"))
                        .collect();
                    assert!(evil.is_empty(), "{path}: {evil:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn oa_09_bf_06_fh_03_what_cloakroom_adds_is_there_once_and_true() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = Request::fetch("GET", "/api/x")
        .with("traceparent", trace)
        .with("X-Request-Id", "mine");
    let reply = browser.send(request).await;
    let up = rig.upstream.last();
    let token = up.bearer().unwrap().to_owned();
    assert_eq!(rig.rogue.subject_of(&token).as_deref(), Some("alice"));
    assert_eq!(up.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(up.values("x-forwarded-proto"), ["http"]);
    assert_eq!(up.values("x-forwarded-host"), [browser.host()]);
    assert_eq!(
        up.values("host"),
        [rig.upstream.address.to_string()],
        "host: rewrite"
    );
    let id = up.values("x-request-id");
    assert!(id.len() == 1 && id[0] != "mine", "{id:?}");
    let continued = up.values("traceparent");
    assert_eq!(continued.len(), 1);
    assert!(
        continued[0].starts_with(&trace[..36]),
        "the same trace: {continued:?}"
    );
    for hop in [
        "connection",
        "keep-alive",
        "te",
        "upgrade",
        "transfer-encoding",
        "proxy-connection",
    ] {
        let found = up.values(hop);
        assert!(found.is_empty() || found == ["keep-alive"], "{hop}: {found:?}");
    }
    assert!(reply.header("authorization").is_none());
    browser.fetch("GET", "/api/public/x").await;
    assert_eq!(
        rig.upstream.last().bearer(),
        None,
        "tx_07: no token where the route is open"
    );
    browser.fetch("GET", "/api/optional/x").await;
    assert_eq!(rig.upstream.last().bearer(), Some(token.as_str()));
    rig.browser().fetch("GET", "/api/optional/x").await;
    assert_eq!(rig.upstream.last().bearer(), None);
}

#[tokio::test]
async fn hp_01_hp_02_class_d_connection_names_the_clients_own_headers_and_never_ours() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for name in [
        "Authorization",
        "Cookie",
        "Host",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Request-Id",
        "traceparent",
    ] {
        for spelling in [
            name.to_owned(),
            name.to_ascii_lowercase(),
            format!("close, {name}"),
        ] {
            let request = Request::fetch("GET", "/api/x").with("Connection", &spelling);
            let reply = browser.send(request).await;
            if reply.status == 400 {
                continue;
            }
            assert_eq!(reply.status, 200, "{spelling}");
            let up = rig.upstream.last();
            assert!(up.bearer().is_some(), "{spelling}");
            for added in [
                "host",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-forwarded-host",
                "x-request-id",
            ] {
                assert_eq!(up.values(added).len(), 1, "{spelling} took {added}");
            }
        }
    }
    let request = Request::fetch("GET", "/api/x")
        .with("Connection", "X-One")
        .with("connection", "keep-alive, x-two")
        .with("X-One", "1")
        .with("X-Two", "2")
        .with("X-Three", "3")
        .with("Keep-Alive", "timeout=5")
        .with("TE", "trailers")
        .with("Upgrade", "h2c")
        .with("HTTP2-Settings", "AAMAAABkAAQAAP__");
    assert_eq!(browser.send(request).await.status, 200);
    let up = rig.upstream.last();
    for gone in ["x-one", "x-two", "keep-alive", "upgrade"] {
        assert!(up.values(gone).is_empty(), "{gone}");
    }
    assert_eq!(up.values("x-three"), ["3"]);
}

#[tokio::test]
async fn bf_05_class_n_own_cookies_stay_here_and_others_go_up_as_they_are() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let session = browser.session().unwrap();
    let attempt = format!("{ATTEMPT}abc=secret");
    let own = format!("{SESSION}={session}");
    for (sent, up) in [
        (format!("a=1; {own}; b=\"2 3\""), vec!["a=1; b=\"2 3\""]),
        (format!("{own}; a=1"), vec!["a=1"]),
        (format!("a=1; {own}"), vec!["a=1"]),
        (own.clone(), vec![]),
        (format!("{attempt}; {own}"), vec![]),
        (format!("x=; {attempt}; y; {own}; z=a=b"), vec!["x=; y; z=a=b"]),
        (
            format!("__host-http-cloakroom=mine; {own}"),
            vec!["__host-http-cloakroom=mine"],
        ),
        (
            format!("{SESSION}x=1; {own}"),
            vec![&*format!("{SESSION}x=1").leak()],
        ),
    ] {
        let reply = browser
            .send(Request::fetch("GET", "/api/x").with("Cookie", &sent))
            .await;
        assert_eq!(reply.status, 200, "{sent}");
        assert_eq!(rig.upstream.last().values("cookie"), up, "{sent}");
    }
    let two = Request::fetch("GET", "/api/x")
        .with("Cookie", "a=1")
        .with("Cookie", &own)
        .with("Cookie", "b=2");
    assert_eq!(browser.send(two).await.status, 200);
    let cookies = rig.upstream.last().values("cookie").join("; ");
    assert_eq!(cookies, "a=1; b=2");
    let open = Request::fetch("GET", "/api/public/x").with("Cookie", &format!("a=1; {own}; {attempt}"));
    assert_eq!(browser.send(open).await.status, 200);
    assert_eq!(
        rig.upstream.last().values("cookie"),
        ["a=1"],
        "on open routes too"
    );
}

#[tokio::test]
async fn hp_17_hp_24_methods_queries_bodies_and_header_order_arrive_as_they_were() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for (method, target, body) in [
        (
            "POST",
            "/api/x?a=%20&b=+&c=%zz&&=;/?",
            b"\x00\xff\r\n0\r\n\r\n".to_vec(),
        ),
        ("PUT", "/api/%C3%BC/~x;v=1", vec![b'a'; 300_000]),
        ("PATCH", "/api/x?", Vec::new()),
        ("DELETE", "/api/x?a#b".split('#').next().unwrap(), Vec::new()),
        ("OPTIONS", "/api/x", Vec::new()),
    ] {
        let request = Request::fetch(method, target)
            .with("X-A", "1")
            .with("x-b", "2")
            .with("X-A", "3")
            .with("Content-Type", "application/octet-stream")
            .body(body.clone());
        let reply = browser.send(request).await;
        if method == "OPTIONS" {
            continue;
        }
        assert_eq!(reply.status, 200, "{method} {target}");
        let up = rig.upstream.last();
        assert_eq!((up.method.as_str(), up.target.as_str()), (method, target));
        assert!(
            up.body == body && up.complete,
            "{method}: {} bytes",
            up.body.len()
        );
        assert_eq!(up.values("x-a"), ["1", "3"]);
        assert_eq!(up.values("content-type"), ["application/octet-stream"]);
    }
    let head = browser.fetch("HEAD", "/api/x").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(rig.upstream.last().method, "HEAD");
}

#[tokio::test]
async fn hy_03_hy_04_hy_07_cs_06_what_would_act_on_our_origin_does_not_come_back() {
    let rig = Rig::start().await;
    let lines = "Set-Cookie: ok=1; Path=/; HttpOnly\r\n\
        Set-Cookie: __Host-Http-cloakroom=evil; Path=/; Secure; HttpOnly\r\n\
        Set-Cookie: __Host-Http-cloakroom-login-x=evil; Path=/; Secure; HttpOnly\r\n\
        Set-Cookie: wide=evil; Domain=localhost\r\n\
        Set-Cookie: wide2=evil; path=/; DOMAIN = localhost\r\n\
        Set-Cookie: ok2=a,b; Expires=Wed, 21 Oct 2037 07:28:00 GMT\r\n\
        Access-Control-Allow-Origin: evil\r\nAccess-Control-Allow-Credentials: evil\r\n\
        Clear-Site-Data: \"evil\"\r\nService-Worker-Allowed: /evil\r\nAlt-Svc: h3=\"evil:443\"\r\n\
        NEL: {\"evil\":1}\r\nReport-To: {\"evil\":1}\r\n\
        WWW-Authenticate: Basic realm=\"evil\"\r\nWWW-Authenticate: Negotiate evil\r\n\
        WWW-Authenticate: Bearer realm=\"fine\"\r\n\
        Connection: X-Evil\r\nX-Evil: evil\r\nKeep-Alive: evil\r\nProxy-Authenticate: evil\r\n\
        X-Fine: 1\r\nx-fine: 2\r\nETag: \"e\"\r\nLocation: /there\r\n";
    rig.upstream.on("/api/x", Play::headers(lines));
    let mut browser = rig.signed_in().await;
    let session = browser.session();
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    let evil: Vec<_> = reply
        .head
        .fields
        .iter()
        .filter(|(_, value)| value.contains("evil"))
        .collect();
    assert!(evil.is_empty(), "{evil:?}");
    assert_eq!(
        reply.headers("set-cookie").len(),
        2,
        "{:?}",
        reply.headers("set-cookie")
    );
    assert_eq!(
        reply.headers("set-cookie")[1],
        "ok2=a,b; Expires=Wed, 21 Oct 2037 07:28:00 GMT"
    );
    assert_eq!(reply.headers("www-authenticate"), ["Bearer realm=\"fine\""]);
    assert_eq!(reply.headers("x-fine"), ["1", "2"]);
    assert_eq!(
        (reply.header("etag"), reply.header("location")),
        (Some("\"e\""), Some("/there"))
    );
    assert_eq!(browser.session(), session);
}

#[tokio::test]
async fn hy_02_class_g_answers_without_cache_control_are_private() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for (path, wanted) in [
        ("/api/x", Some("private, no-store")),
        ("/api/optional/x", Some("private, no-store")),
        ("/api/public/x", None),
    ] {
        assert_eq!(
            browser.fetch("GET", path).await.header("cache-control"),
            wanted,
            "{path}"
        );
    }
    rig.upstream
        .on("/api/cached", Play::headers("Cache-Control: max-age=60\r\n"));
    let reply = browser.fetch("GET", "/api/cached").await;
    assert_eq!(
        reply.headers("cache-control"),
        ["max-age=60"],
        "the upstream's own word stays"
    );
}

#[tokio::test]
async fn statuses_and_bodies_come_back_as_they_are() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for status in [201, 204, 301, 304, 307, 400, 401, 403, 404, 418, 500, 503] {
        let length = if matches!(status, 204 | 304) {
            ""
        } else {
            "Content-Length: 0\r\n"
        };
        rig.upstream.on(
            "/api/x",
            Play::bytes(format!("HTTP/1.1 {status} X\r\nX-Up: 1\r\n{length}\r\n")),
        );
        let reply = browser.fetch("GET", "/api/x").await;
        assert_eq!((reply.status, reply.header("x-up")), (status, Some("1")));
        assert!(reply.cookies().is_empty(), "rf_08: an upstream's 401 is not ours");
    }
    assert!(browser.session().is_some());
}

#[tokio::test]
async fn hp_20_hp_21_interim_answers_pass_by_and_trailers_are_no_headers() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    rig.upstream.on(
        "/api/early",
        Play::bytes(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
    );
    let reply = browser.fetch("GET", "/api/early").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    rig.upstream.on(
        "/api/trailers",
        Play::bytes(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             2\r\nok\r\n0\r\nX-Sum: 7\r\nSet-Cookie: __Host-Http-cloakroom=evil; Path=/; Secure; HttpOnly\r\n\r\n",
        ),
    );
    let reply = browser
        .send(Request::fetch("GET", "/api/trailers").with("TE", "trailers"))
        .await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    assert!(reply.header("x-sum").is_none());
    assert!(
        values(&reply.trailers, "set-cookie").is_empty(),
        "{:?}",
        reply.trailers
    );
}

#[tokio::test]
async fn fa_05_hp_18_class_k_upstreams_that_fail_are_502_or_504_and_sessions_stay() {
    let rig = Rig::with(|config| config.set("routes.0.timeout", "400ms")).await;
    let mut browser = rig.signed_in().await;
    for (name, play) in [
        ("no answer", Play::cut("")),
        ("half a head", Play::cut("HTTP/1.1 200 OK\r\nContent-Le")),
        ("no HTTP", Play::cut("SSH-2.0-OpenSSH\r\n\r\n")),
        (
            "two lengths",
            Play::cut("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"),
        ),
        (
            "a bad length",
            Play::cut("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"),
        ),
        (
            "a bad field",
            Play::cut("HTTP/1.1 200 OK\r\nX Y: 1\r\nContent-Length: 2\r\n\r\nok"),
        ),
    ] {
        rig.upstream.on("/api/x", play);
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
    ] {
        rig.upstream.on("/api/x", Play::cut(answer));
        let (head, mut wire) = browser.open(&Request::fetch("GET", "/api/x")).await;
        if head.status() == 502 {
            continue;
        }
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
        assert_eq!(browser.fetch("GET", "/api/last").await.status, 200);
        let ended = rig.upstream.ended();
        until(2, "the connection's end", || rig.upstream.ended() >= ended).await;
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
    let start = Instant::now();
    let request = Request::fetch("GET", "/api/events").with("Accept", "text/event-stream");
    let (head, mut wire) = browser.open(&request).await;
    assert!(
        start.elapsed() < Duration::from_millis(180),
        "the head waits for nothing"
    );
    assert_eq!(head.value("content-type"), Some("text/event-stream"));
    let mut framing = head.response_framing("GET");
    for n in 1..=3 {
        let piece = within(2, "an event", wire.piece(&mut framing))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(String::from_utf8(piece).unwrap(), format!("data: {n}\n\n"));
        let due = Duration::from_millis(200 * n);
        assert!(
            start.elapsed() < due + Duration::from_millis(150),
            "event {n} after {:?}",
            start.elapsed()
        );
    }
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

#[tokio::test]
async fn require_asks_for_scopes_and_claims() {
    let rig = Rig::with(|config| {
        let upstream = config.value["routes"][0]["upstream"].clone();
        let route = |path: &str, require: serde_json::Value| {
            json!({ "path": path, "upstream": upstream, "require": require })
        };
        config
            .route(route("/r/scope", json!({ "scopes": ["profile", "email"] })))
            .route(route("/r/scope-none", json!({ "scopes": ["profile", "admin"] })))
            .route(route("/r/claim", json!({ "claims": { "groups": ["bosses", "staff"], "sub": ["alice"] } })))
            .route(route("/r/claim-none", json!({ "claims": { "groups": ["bosses"], "sub": ["alice"] } })))
            .route(route("/r/deep", json!({ "claims": { "realm_access.roles": ["clerk"] } })))
            .route(route("/r/deep-none", json!({ "claims": { "realm_access.roles": ["boss"] } })))
            .route(route("/r/missing", json!({ "claims": { "department": ["x"] } })))
    })
    .await;
    let mut browser = rig.signed_in().await;
    for (path, wanted) in [
        ("/r/scope", 200),
        ("/r/scope-none", 403),
        ("/r/claim", 200),
        ("/r/claim-none", 403),
        ("/r/deep", 200),
        ("/r/deep-none", 403),
        ("/r/missing", 403),
    ] {
        let before = rig.upstream.connections();
        let reply = browser.fetch("GET", path).await;
        assert_eq!(reply.status, wanted, "{path}");
        if wanted == 403 {
            assert_eq!(reply.problem(), "forbidden");
            assert_eq!(rig.upstream.connections(), before, "class_k");
        }
    }
    assert_eq!(rig.browser().fetch("GET", "/r/claim").await.status, 401);
}

#[tokio::test]
async fn routes_choose_host_upstreams_and_the_browsers_own_authorization() {
    let second = crate::support::upstream::Upstream::start().await;
    let url = second.url();
    let rig = Rig::with(|config| {
        let upstream = config.value["routes"][0]["upstream"].clone();
        config
            .route(json!({ "path": "/keep", "upstream": upstream, "host": "keep" }))
            .route(json!({ "path": "/own", "upstream": upstream, "auth": "none", "authorization": "pass" }))
            .route(json!({ "path": "/two", "upstream": [upstream, url] }))
            .route(json!({ "path": "/verify-only" }))
    })
    .await;
    let mut browser = rig.signed_in().await;
    browser.fetch("GET", "/keep/x").await;
    assert_eq!(rig.upstream.last().values("host"), [browser.host()]);
    browser
        .send(Request::fetch("GET", "/own/x").with("Authorization", "Basic mine"))
        .await;
    assert_eq!(rig.upstream.last().values("authorization"), ["Basic mine"]);
    let before = rig.upstream.count();
    for _ in 0..6 {
        assert_eq!(browser.fetch("GET", "/two/x").await.status, 200);
    }
    assert!(
        second.count() > 0 && rig.upstream.count() > before,
        "both are used"
    );
    assert_eq!(browser.fetch("GET", "/verify-only").await.status, 404);
}

#[tokio::test]
async fn tx_07_class_g_a_thousand_requests_of_many_users_never_swap_tokens() {
    let rig = Rig::start().await;
    let mut users: Vec<(String, Browser)> = Vec::new();
    for n in 0..20 {
        let (name, mut browser) = (format!("user{n}"), rig.browser());
        browser.login_as(&rig.rogue, &name, "/").await;
        users.push((name, browser));
    }
    let mut work = tokio::task::JoinSet::new();
    for (name, mut browser) in users {
        work.spawn(async move {
            for n in 0..25 {
                let reply = browser.fetch("GET", &format!("/api/{name}/{n}")).await;
                assert_eq!(reply.status, 200);
                assert_eq!(browser.fetch("GET", "/bff/user").await.json()["sub"], name);
            }
        });
    }
    while let Some(ended) = work.join_next().await {
        ended.unwrap();
    }
    for request in rig.upstream.requests() {
        let owner = request.target.split('/').nth(2).unwrap().to_owned();
        assert_eq!(rig.rogue.subject_of(request.bearer().unwrap()), Some(owner));
    }
}

#[tokio::test]
async fn static_files_are_served_and_nothing_outside_their_folder() {
    let rig = Rig::start().await;
    std::fs::create_dir(rig.config.folder().join("sub")).unwrap();
    std::fs::write(rig.config.folder().join(".hidden"), "hidden").unwrap();
    let mut browser = rig.browser();
    let home = browser.navigate("/", crate::support::jar::Site::CrossSite).await;
    assert_eq!(home.status, 200);
    assert!(home.text().contains("home"));
    let script = browser.fetch("GET", "/app.js").await;
    assert_eq!(script.text(), "console.log('app')");
    assert!(script.header("content-type").unwrap().contains("javascript"));
    for path in ["/nothing", "/etc/passwd", "/sub/nothing"] {
        assert_eq!(browser.fetch("GET", path).await.status, 404, "{path}");
    }
    for path in [
        "/../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/..%2fetc/passwd",
        "/%5c..%5cetc/passwd",
    ] {
        assert_eq!(browser.fetch("GET", path).await.status, 400, "{path}");
    }
    let spa = Rig::with(|config| config.set("routes.4.static.fallback", "index.html")).await;
    let deep = spa
        .browser()
        .navigate("/orders/42", crate::support::jar::Site::None)
        .await;
    assert_eq!(deep.status, 200);
    assert!(deep.text().contains("home"));
}

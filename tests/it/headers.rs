//! Headers, up and back (contract 4.11, 4.12), to the byte.

use crate::support::browser::{ATTEMPT, Request, SESSION};
use crate::support::rig::Rig;
use crate::support::upstream::Play;
use crate::support::wire::values;

const PROTECTED: [&str; 38] = [
    "Authorization",
    "Proxy-Authorization",
    "Proxy-Authenticate",
    "Proxy-Connection",
    "Proxy",
    "Forwarded",
    "X-Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-User",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Access-Token",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Anything",
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
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Preferred-Username",
    "X-Auth-Request-Access-Token",
    "X-HTTP-Method-Override",
    "X-Request-Id",
    "Keep-Alive",
];

/// Every way to spell a name that upstreams fold into the same: each `-` may be a `_`, in any case.
fn spellings(name: &str) -> Vec<String> {
    let hyphens: Vec<usize> = name.match_indices('-').map(|(at, _)| at).collect();
    let mut spellings = Vec::new();
    for mask in 0..1 << hyphens.len() {
        let mut spelling = name.to_owned();
        for (n, at) in hyphens.iter().enumerate() {
            if mask >> n & 1 == 1 {
                spelling.replace_range(at..=at, "_");
            }
        }
        spellings.push(spelling.to_ascii_lowercase());
        spellings.push(spelling.to_ascii_uppercase());
        spellings.push(spelling);
    }
    spellings
}

#[tokio::test]
async fn hp_14_fh_01_fh_04_oa_10_class_d_no_spelling_of_a_header_of_ours_gets_past() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for (path, anonymous) in [
        ("/api/x", false),
        ("/api/optional/x", false),
        ("/api/optional/x", true),
        ("/api/public/x", false),
        ("/api/public/x", true),
    ] {
        for name in PROTECTED {
            // All with `_` at once, and the one that is dotted throughout.
            let mut request = Request::fetch("GET", path).with("X-Mine_too", "1");
            request = request.with(&name.replace('-', "."), "evil");
            for spelling in spellings(name) {
                request = request.with(&spelling, "evil");
            }
            request = request.with(name, " evil ");
            if anonymous {
                request = request.anonymous();
            }
            assert_eq!(browser.send(request).await.status, 200, "{path} {name}");
            let up = rig.upstream.last();
            let evil: Vec<_> = up
                .fields
                .iter()
                .filter(|(_, value)| value.contains("evil"))
                .collect();
            assert!(evil.is_empty(), "{path}: {evil:?}");
            assert_eq!(up.values("x-mine_too"), ["1"], "other names with _ stay");
        }
    }
    // Framing that only some read.
    for name in [
        "Content_Length",
        "TRANSFER_ENCODING",
        "transfer_encoding",
        "Te",
        "Connection_",
    ] {
        let request = Request::fetch("POST", "/api/x")
            .with(name, "chunked")
            .body("hello");
        assert_eq!(browser.send(request).await.status, 200, "{name}");
        let up = rig.upstream.last();
        assert_eq!(
            (up.values("content-length"), &up.body[..]),
            (vec!["5"], &b"hello"[..])
        );
        let odd = up
            .fields
            .iter()
            .any(|(n, v)| n != "connection_" && v == "chunked");
        assert!(!odd, "{:?}", up.fields);
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
        "Content-Length",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Request-Id",
        "traceparent",
        "Via",
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
                "traceparent",
                "via",
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
async fn hp_01_what_concerns_one_connection_goes_no_further_in_either_direction() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let hops = "Connection: close, X-Hop\r\nconnection: x-HOP-2 ,, x-hop-3\r\nCONNECTION:keep-alive\r\n\
        X-Hop: hop\r\nx-hop-2: hop\r\nX-HOP-3: hop\r\nX-Hop-3: hop\r\nKeep-Alive: hop\r\nProxy-Connection: hop\r\n\
        Proxy-Authenticate: hop\r\nProxy-Authorization: hop\r\nProxy-Authentication-Info: hop\r\nTE: hop\r\n\
        Trailer: hop\r\nUpgrade: hop\r\nHTTP2-Settings: hop\r\nX-End: end\r\n";
    rig.upstream.on("/api/x", Play::headers(hops));
    let mut request = Request::fetch("GET", "/api/x");
    for line in hops.split_terminator("\r\n") {
        let (name, value) = line.split_once(':').unwrap();
        request = request.with(name, value.trim());
    }
    let reply = browser.send(request).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    for (side, fields) in [("up", rig.upstream.last().fields), ("back", reply.head.fields)] {
        let left: Vec<_> = fields.iter().filter(|(_, value)| value.contains("hop")).collect();
        assert!(left.is_empty(), "{side}: {left:?}");
        let named: Vec<_> = values(&fields, "connection");
        assert!(named.iter().all(|line| *line == "close"), "{side}: {named:?}");
        assert_eq!(values(&fields, "x-end"), ["end"], "{side}");
    }
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

/// Where an upstream sends the browser is the upstream's to say: cloakroom rewrites no part of an answer (contract 4.12).
#[tokio::test]
async fn hy_08_places_come_back_as_they_are() {
    let rig = Rig::start().await;
    let lines =
        "Location: http://orders.internal:8080/x?y=1\r\nContent-Location: https://elsewhere.example/x\r\n";
    rig.upstream.on("/api/x", Play::headers(lines));
    let reply = rig.signed_in().await.fetch("GET", "/api/x").await;
    assert_eq!(reply.headers("location"), ["http://orders.internal:8080/x?y=1"]);
    assert_eq!(reply.headers("content-location"), ["https://elsewhere.example/x"]);
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

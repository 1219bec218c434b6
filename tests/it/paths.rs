//! Paths that could be read in two ways: every row of the corpus, over raw sockets (contract 4.2).

use crate::support::browser::{SESSION, raw};
use crate::support::rig::Rig;
use serde_json::json;

pub const CORPUS: &str = include_str!("../corpus/path_match.tsv");

/// The method and target of a row, spelt for this origin.
pub fn request_line(target: &str, host: &str) -> Vec<u8> {
    let (method, target) = match target.split_once(" (") {
        Some((target, "GET)")) => ("GET", target.to_owned()),
        Some((target, "OPTIONS)")) => ("OPTIONS", target.to_owned()),
        Some((target, "CONNECT)")) => ("CONNECT", target.to_owned()),
        Some((target, "raw UTF-8 bytes)")) => ("GET", target.replace("\\xc3\\xbc", "\u{fc}")),
        Some((target, _)) => ("GET", target.trim().to_owned()),
        None if target.contains("9000 x") => ("GET", format!("/{}", "a".repeat(9000))),
        None => ("GET", target.to_owned()),
    };
    let target = target
        .replace("app.example:443", host)
        .replace("app.example", host);
    let mut line = format!("{method} ").into_bytes();
    line.extend(target.bytes());
    line.extend(format!(" HTTP/1.1\r\nHost: {host}\r\n").bytes());
    line.extend(b"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n");
    line
}

/// What goes up for a row, if anything.
fn goes_up(target: &str, expected: &str) -> Option<String> {
    if expected.contains("static") || expected.contains("own endpoint") || !expected.starts_with("match") {
        return None;
    }
    let target = target.split(" (").next().unwrap().trim();
    let target = target.strip_prefix("http://app.example").unwrap_or(target);
    target.starts_with('/').then(|| target.to_owned())
}

#[tokio::test]
async fn rm_01_rm_02_rm_03_hp_10_hp_17_class_b_every_row_of_the_corpus_is_read_in_one_way() {
    let rig = Rig::start().await;
    let pass = Rig::with(|config| config.set("routes.0.encoded_slash", "pass")).await;
    let mut wrong = Vec::new();
    for rig_is_pass in [false, true] {
        let rig = if rig_is_pass { &pass } else { &rig };
        let browser = rig.signed_in().await;
        let cookie = format!("Cookie: {SESSION}={}\r\n", browser.session().unwrap());
        for row in CORPUS.lines().skip(1) {
            let cells: Vec<_> = row.split('\t').collect();
            let (id, target, expected) = (cells[0], cells[1], cells[2]);
            if target.contains("encoded_slash: pass") != rig_is_pass {
                continue;
            }
            for signed_in in [true, false] {
                let mut bytes = request_line(target, browser.host());
                if signed_in {
                    bytes.extend(cookie.bytes());
                }
                bytes.extend(b"\r\n");
                let (requests, connections) = (rig.upstream.count(), rig.upstream.connections());
                let (reply, ended) = raw(rig.cloakroom.address(), &bytes).await;
                let status = reply.as_ref().map_or(0, |reply| reply.status);
                let session = expected.contains("(session)");
                let wanted = match expected {
                    _ if session && !signed_in => 401,
                    _ if expected.starts_with("match /api./admin") => 404,
                    _ if expected.starts_with("match /bff/user") => {
                        if signed_in {
                            200
                        } else {
                            401
                        }
                    }
                    _ if expected.starts_with("match") => 200,
                    _ if expected.starts_with("no /api/ match") => 404,
                    other => other[..3].parse().unwrap(),
                };
                if status != wanted {
                    wrong.push(format!("{id} signed_in={signed_in}: {status}, wanted {wanted}"));
                }
                if expected.contains("close") && !ended {
                    wrong.push(format!("{id}: the connection stays open"));
                }
                match goes_up(target, expected) {
                    Some(target) if status == 200 && target != "/" => {
                        if rig.upstream.count() != requests + 1 || rig.upstream.last().target != target {
                            wrong.push(format!("{id}: not byte for byte"));
                        }
                        if rig.upstream.last().bearer().is_some() != session {
                            wrong.push(format!("{id}: the token belongs to session routes only"));
                        }
                    }
                    Some(target) if target == "/" => {}
                    _ if rig.upstream.connections() != connections || rig.upstream.count() != requests => {
                        wrong.push(format!("{id} signed_in={signed_in}: class_k: it went up"));
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn encoded_slashes_may_pass_and_nothing_else_with_them() {
    let rig = Rig::with(|config| config.set("routes.0.encoded_slash", "pass")).await;
    let browser = rig.signed_in().await;
    let cookie = format!("Cookie: {SESSION}={}\r\n\r\n", browser.session().unwrap());
    for (target, wanted) in [
        ("/api/a%2Fb", 200),
        ("/api/a%2fb/c", 200),
        ("/api/public/..%2forders", 400),
        ("/api/public/%2e%2e%2forders", 400),
        ("/api%2forders", 400),
        ("/bff%2fuser", 400),
        ("/api/a%5cb", 400),
        ("/api/a%252fb", 400),
        ("/api/public%2f..%2forders", 400),
    ] {
        let mut bytes = request_line(target, browser.host());
        bytes.extend(cookie.bytes());
        let (reply, _) = raw(rig.cloakroom.address(), &bytes).await;
        assert_eq!(reply.unwrap().status, wanted, "{target}");
        if wanted == 200 {
            assert_eq!(rig.upstream.last().target, target);
        }
    }
}

#[tokio::test]
async fn class_b_a_stripped_prefix_is_cut_on_whole_segments_and_the_rest_stays_byte_for_byte() {
    let rig = Rig::with(|config| {
        let upstream = config.value["routes"][0]["upstream"].clone();
        config
            .route(json!({ "path": "/strip", "upstream": upstream, "strip_prefix": true }))
            .route(json!({ "path": "/strip/open", "upstream": upstream, "auth": "none" }))
    })
    .await;
    let mut browser = rig.signed_in().await;
    for (target, up) in [
        ("/strip/x?a=%zz", "/x?a=%zz"),
        ("/strip", "/"),
        ("/strip/", "/"),
        ("/strip?x=1", "/?x=1"),
        ("/%73trip/x", "/x"),
        ("/strip/%C3%BC/", "/%C3%BC/"),
        ("/strip/open/x", "/strip/open/x"),
        ("/strip/a;v=2", "/a;v=2"),
    ] {
        let reply = browser.fetch("GET", target).await;
        assert_eq!(reply.status, 200, "{target}");
        assert_eq!(rig.upstream.last().target, up, "{target}");
    }
    let before = rig.upstream.connections();
    for target in ["/stripx/y", "/strip%2e/admin", "/strip./admin"] {
        assert_eq!(browser.fetch("GET", target).await.status, 404, "{target}");
    }
    for target in ["/strip//evil.example/", "/strip/%2e%2e/x", "/strip/../x"] {
        assert_eq!(browser.fetch("GET", target).await.status, 400, "{target}");
    }
    assert_eq!(rig.upstream.connections(), before);
}

#[tokio::test]
async fn rm_03_rm_05_class_b_class_c_nothing_but_the_route_table_lets_anybody_in() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let get = "GET /api/orders";
    for (line, header) in [
        (get, "User-Agent: GoogleHC/1.0"),
        (get, "User-Agent: kube-probe/1.30"),
        (get, "User-Agent: ELB-HealthChecker/2.0"),
        (get, "X-Original-URL: /api/public/x"),
        (get, "X-Original-URI: /api/public/x"),
        (get, "X-Rewrite-URL: /api/public/x"),
        (get, "X-Forwarded-Uri: /api/public/x"),
        (get, "X-Forwarded-Prefix: /api/public"),
        (get, "X-Forwarded-Host: probe.internal"),
        (get, "X-Forwarded-For: 127.0.0.1"),
        (get, "X-Forwarded-User: admin"),
        (get, "X-Auth-Request-User: admin"),
        (get, "X-HTTP-Method-Override: OPTIONS"),
        (get, "Authorization: Bearer eyJhbGciOiJub25lIn0.e30."),
        (get, "Authorization: Basic YWRtaW46YWRtaW4="),
        (get, "Connection: Cookie, Authorization"),
        (get, "X-CSRF: 1"),
        (get, "Origin: http://app.localhost"),
        (get, "Referer: http://app.localhost/api/public/x"),
        (get, "Accept: */*"),
        ("GET /api/x?ping", "X: y"),
        ("GET /api/x?/api/public/", "X: y"),
        ("GET /api/x?x=/api/public/x", "X: y"),
        ("GET /api/x?x=..%2fpublic%2fx", "X: y"),
        ("GET /api/publicx", "X: y"),
        ("GET /api/x.css", "X: y"),
        ("GET /api/public.js", "X: y"),
        ("GET /api/healthz", "X: y"),
        ("GET /api/.well-known/x", "X: y"),
        ("GET /api/favicon.ico", "X: y"),
        ("GET /api/robots.txt", "X: y"),
        ("GET http://app.localhost/api/x", "X: y"),
        ("HEAD /api/x", "X: y"),
        ("OPTIONS /api/x", "X: y"),
        ("OPTIONS /api/x", "Access-Control-Request-Method: GET"),
        ("PROPFIND /api/x", "X: y"),
        ("get /api/x", "X: y"),
        ("POST /api/x", "X-HTTP-Method-Override: GET"),
    ] {
        let line = line.replace("app.localhost/", &format!("{host}/"));
        let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{header}\r\nContent-Length: 0\r\n\r\n");
        let (reply, _) = raw(rig.cloakroom.address(), request.as_bytes()).await;
        let status = reply.unwrap().status;
        // A foreign Origin is refused for what it is.
        assert!(matches!(status, 401 | 403), "{line} {header}: {status}");
        assert_eq!(rig.upstream.connections(), 0, "{line} {header}");
    }
}

#[tokio::test]
async fn hp_15_trace_track_and_connect_are_405() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    for path in ["/api/x", "/api/public/x", "/bff/user", "/"] {
        for method in ["TRACE", "TRACK"] {
            let reply = browser.fetch(method, path).await;
            assert_eq!(
                (reply.status, reply.problem().as_str()),
                (405, "method_not_allowed"),
                "{method} {path}"
            );
        }
    }
    assert_eq!(rig.upstream.connections(), 0);
}

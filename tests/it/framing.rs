//! Where a request ends, byte by byte: what two servers could read differently is refused, and nothing comes out of it
//! (RFC 9112 §5, §6, §7, §9).
//!
//! Every probe goes to an open route, so that only its framing can be what stops it, and carries a second request in its
//! tail that must never be read as one.

use crate::support::browser::raw;
use crate::support::message::Reply;
use crate::support::rig::Rig;
use crate::support::wire::Wire;
use crate::support::{until, within};
use tokio::net::TcpStream;

const START: &str = "POST /api/public/x HTTP/1.1\r\nHost: app.example\r\n";
const SMUGGLED: &str = "GET /api/public/smuggled HTTP/1.1\r\nHost: app.example\r\n\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// Sends a probe with the second request behind it: the first answer. The connection has ended after it.
async fn refused(rig: &Rig, name: &str, probe: &str) -> Reply {
    let bytes: Vec<u8> = format!("{probe}{SMUGGLED}").chars().map(latin1).collect();
    let (reply, ended) = raw(rig.cloakroom.address(), &bytes).await;
    assert!(ended, "{name}: the connection stays open");
    assert_nothing_smuggled(rig, name);
    reply.unwrap_or_else(|| panic!("{name}: no answer"))
}

fn latin1(c: char) -> u8 {
    u8::try_from(u32::from(c)).unwrap()
}

/// Nothing but whole requests with one framing each has come up, and the second one is not among them.
fn assert_nothing_smuggled(rig: &Rig, name: &str) {
    for request in rig.upstream.requests() {
        assert!(!request.target.contains("smuggled"), "{name}: {request:?}");
        let (lengths, codings) = (
            request.values("content-length"),
            request.values("transfer-encoding"),
        );
        assert!(lengths.len() + codings.len() <= 1, "{name}: {request:?}");
        assert!(
            codings.iter().all(|coding| *coding == "chunked"),
            "{name}: {request:?}"
        );
    }
}

#[tokio::test]
async fn hp_04_a_length_is_one_row_of_digits_or_the_request_is_refused() {
    let rig = Rig::start().await;
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 05\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -0\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length: \"5\"\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 1e1\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 18446744073709551621\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
        "Content-Length:\r\n",
        "Content-Length: \r\n",
        "Content-Length: \u{b2}\r\n",
    ] {
        let reply = refused(&rig, lines, &format!("{START}{lines}\r\nhello")).await;
        assert_eq!(reply.status, 400, "{lines}");
        assert_eq!(rig.upstream.connections(), 0, "{lines}");
    }
    // Equal lines may become one (RFC 9112 §6.3); two never go up.
    let twice = format!("{START}Content-Length: 5\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    let reply = refused(&rig, "equal lines", &twice).await;
    if reply.status != 400 {
        assert_eq!(reply.status, 200);
        let up = rig.upstream.last();
        assert_eq!(
            (up.values("content-length"), &up.body[..]),
            (vec!["5"], &b"hello"[..])
        );
    }
}

#[tokio::test]
async fn hp_05_the_only_coding_is_chunked_once_and_over_http_1_1() {
    let rig = Rig::start().await;
    let old = START.replace("HTTP/1.1", "HTTP/1.0");
    for lines in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chun ked\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: chunked\r\n\tgzip\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\u{b}chunked\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding: chunked\u{c}\r\n",
        "Transfer-Encoding: \0chunked\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\rX: y\r\n",
        "Transfer-Encoding: chunk\u{e4}d\r\n",
    ] {
        let reply = refused(&rig, lines, &format!("{START}{lines}\r\n5\r\nhello\r\n0\r\n\r\n")).await;
        assert!(matches!(reply.status, 400 | 501), "{lines}: {}", reply.status);
        assert_eq!(rig.upstream.connections(), 0, "{lines}");
    }
    let reply = refused(
        &rig,
        "HTTP/1.0",
        &format!("{old}{CHUNKED}\r\n5\r\nhello\r\n0\r\n\r\n"),
    )
    .await;
    assert_eq!((reply.status, rig.upstream.connections()), (400, 0));
    // A name that only looks like it frames nothing, here or behind.
    for lines in [
        "Transfer_Encoding: chunked\r\n",
        "Transfer-Encoding-: chunked\r\n",
    ] {
        let probe = format!("{START}{lines}Content-Length: 5\r\nConnection: close\r\n\r\nhello");
        assert_eq!(refused(&rig, lines, &probe).await.status, 200);
        assert_eq!(rig.upstream.last().body, b"hello");
        assert!(rig.upstream.last().values("transfer_encoding").is_empty());
    }
    let case = format!("{START}tRANSFER-eNCODING: cHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(refused(&rig, "case", &case).await.status, 200);
    assert_eq!(rig.upstream.last().body, b"hello");
}

#[tokio::test]
async fn hp_06_chunks_that_can_be_misread_are_the_browsers_fault_and_never_end_cleanly_upstream() {
    let rig = Rig::start().await;
    let ended = |rig: &Rig| rig.upstream.connections() == rig.upstream.ended();
    let extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(1_000_000));
    let extensions = "1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\nx\r\n".repeat(1_000) + "0\r\n\r\n";
    let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(20_000));
    let trailer = format!("0\r\nX: {}\r\n\r\n", "y".repeat(1_000_000));
    for (name, body) in [
        ("a size beyond 64 bits", "FFFFFFFFFFFFFFFF1\r\nhello\r\n0\r\n\r\n"),
        (
            "a size of 64 bits and one",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a minus", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("only an extension", ";x\r\nhello\r\n0\r\n\r\n"),
        ("no digit", "g\r\nhello\r\n0\r\n\r\n"),
        ("a space before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        ("two sizes", "5 5\r\nhello\r\n0\r\n\r\n"),
        ("a bare line feed after the size", "5\nhello\r\n0\r\n\r\n"),
        ("a bare line feed in an extension", "5;x\nhello\r\n0\r\n\r\n"),
        ("a bare line feed after the data", "5\r\nhello\n0\r\n\r\n"),
        ("a bare return after the size", "5\rhello\r\n0\r\n\r\n"),
        ("a return and another byte", "5\r\rhello\r\n0\r\n\r\n"),
        ("more data than the size", "4\r\nhello\r\n0\r\n\r\n"),
        ("less data than the size", "6\r\nhello\r\n0\r\n\r\n"),
        ("a bare line feed at the end", "5\r\nhello\r\n0\n\n"),
        ("a trailer without a colon", "5\r\nhello\r\n0\r\nX y\r\n\r\n"),
        ("a megabyte of extension", &extension),
        ("many extensions", &extensions),
        ("many trailers", &trailers),
        ("a long trailer", &trailer),
    ] {
        let reply = refused(&rig, name, &format!("{START}{CHUNKED}\r\n{body}")).await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (400, "bad_request"),
            "{name}"
        );
        assert!(
            rig.upstream.requests().iter().all(|request| !request.complete),
            "{name}"
        );
        until(5, "its end upstream", || ended(&rig)).await;
    }
    let metrics = rig.cloakroom.admin("/metrics").await.text();
    assert!(
        !metrics.contains("cloakroom_upstream_errors_total{"),
        "what a stranger sends is no error of the upstream's: {metrics}"
    );
    // What the grammar allows passes, and goes up in a spelling of our own.
    for (n, body) in [
        "5\r\nhello\r\n0\r\n\r\n",
        "05\r\nhello\r\n000\r\n\r\n",
        "2;a=b;c=\"d\"\r\nhe\r\n3\r\nllo\r\n0;x\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let start = START.replace("/x ", &format!("/good-{n} "));
        assert_eq!(
            refused(&rig, body, &format!("{start}{CHUNKED}\r\n{body}"))
                .await
                .status,
            200
        );
        let up = rig.upstream.requests();
        let up = up
            .iter()
            .find(|request| request.target.ends_with(&format!("good-{n}")))
            .unwrap();
        assert_eq!((&up.body[..], up.complete), (&b"hello"[..], true), "{body}");
    }
}

#[tokio::test]
async fn hp_07_bytes_that_end_a_line_early_or_hide_a_name_are_refused() {
    let rig = Rig::start().await;
    let start = "GET /api/public/x HTTP/1.1\r\nHost: app.example\r\n";
    for fields in [
        "X: a\rY: b\r\n",
        "X: a\r\r\n",
        "X: \rb\r\n",
        "X: a\0b\r\n",
        "X\0: a\r\n",
        "X: a\u{1}b\r\n",
        "X: a\u{7f}b\r\n",
        "X: a\u{b}b\r\n",
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        "X: a\r\n \r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        " X: a\r\n",
        "\tX: a\r\n",
        "X Y: a\r\n",
        "X\rY: a\r\n",
        "X(Y): a\r\n",
        "\"X\": a\r\n",
        "X\u{e4}: a\r\n",
        ": a\r\n",
        "X\r\n",
        "X;a\r\n",
        "GET / HTTP/1.1\r\n",
    ] {
        let reply = refused(&rig, fields, &format!("{start}{fields}\r\n")).await;
        assert_eq!((reply.status, rig.upstream.connections()), (400, 0), "{fields:?}");
    }
    for line in [
        "GET /api/public/x HTTP/1.1\r\n Host: app.example\r\n\r\n",
        "GET /api/public/x HTTP/1.1\r\n\tX: y\r\nHost: app.example\r\n\r\n",
        "GET  /api/public/x HTTP/1.1\r\nHost: app.example\r\n\r\n",
        "GET\t/api/public/x HTTP/1.1\r\nHost: app.example\r\n\r\n",
        " GET /api/public/x HTTP/1.1\r\nHost: app.example\r\n\r\n",
        "GET /api/public/x\u{b}HTTP/1.1\r\nHost: app.example\r\n\r\n",
        "GET /api/public/x HTTP/1.1 \r\nHost: app.example\r\n\r\n",
        "GET /api/public/x HTTP/1.1\rHost: app.example\r\n\r\n",
        "GET /api/public/x y HTTP/1.1\r\nHost: app.example\r\n\r\n",
        "GET /api/public/x\0 HTTP/1.1\r\nHost: app.example\r\n\r\n",
        "G\0T /api/public/x HTTP/1.1\r\nHost: app.example\r\n\r\n",
        "G(T) /api/public/x HTTP/1.1\r\nHost: app.example\r\n\r\n",
        "GET /api/public/x\r\nHost: app.example\r\n\r\n",
        "GET /api/public/x HTTP/1.2\r\nHost: app.example\r\n\r\n",
        "GET /api/public/x HTTP/0.9\r\nHost: app.example\r\n\r\n",
        "GET /api/public/x HTTP/11\r\nHost: app.example\r\n\r\n",
        "GET /api/public/x http/1.1\r\nHost: app.example\r\n\r\n",
    ] {
        let reply = refused(&rig, line, line).await;
        assert_eq!((reply.status, rig.upstream.connections()), (400, 0), "{line:?}");
    }
}

#[tokio::test]
async fn hp_10_an_absolute_target_names_the_host_and_other_forms_are_for_other_methods() {
    let rig = Rig::start().await;
    let browser = rig.signed_in().await;
    let host = browser.host().to_owned();
    let cookie = format!(
        "Cookie: {}={}\r\n",
        crate::support::browser::SESSION,
        browser.session().unwrap()
    );
    for (line, named, wanted) in [
        (format!("GET http://{host}/api/x?y"), host.as_str(), 200),
        (format!("GET HTTP://{host}/api/x?y"), host.as_str(), 200),
        (format!("GET https://{host}/api/x?y"), host.as_str(), 200),
        // The target's authority is what counts; a Host beside it must be there and well-formed.
        (format!("GET http://{host}/api/x?y"), "elsewhere.example", 200),
        ("GET http://elsewhere.example/api/x".into(), host.as_str(), 421),
        (format!("GET http://{host}/api/x"), "a b", 400),
        (format!("GET http://user@{host}/api/x"), host.as_str(), 400),
        (format!("GET http://user:pass@{host}/api/x"), host.as_str(), 400),
        (
            format!("GET http://{host}@elsewhere.example/api/x"),
            host.as_str(),
            400,
        ),
        (format!("GET ftp://{host}/api/x"), host.as_str(), 400),
        (format!("GET file://{host}/api/x"), host.as_str(), 400),
        ("GET http:///api/x".into(), host.as_str(), 400),
        ("GET http:/api/x".into(), host.as_str(), 400),
        ("GET http://:80/api/x".into(), host.as_str(), 400),
        (format!("GET //{host}/api/x"), host.as_str(), 400),
        (format!("GET http://{host}/api/../bff/user"), host.as_str(), 400),
        (format!("GET http://{host}//api/x"), host.as_str(), 400),
        ("GET *".into(), host.as_str(), 400),
        ("POST *".into(), host.as_str(), 400),
        ("OPTIONS *".into(), host.as_str(), 204),
        (format!("GET {host}"), host.as_str(), 400),
        ("GET api/x".into(), host.as_str(), 400),
        ("GET ?x".into(), host.as_str(), 400),
        (format!("CONNECT {host}"), host.as_str(), 405),
        (
            "CONNECT elsewhere.example:443".into(),
            "elsewhere.example:443",
            405,
        ),
        (format!("CONNECT http://{host}/api/x"), host.as_str(), 405),
    ] {
        let before = rig.upstream.connections();
        let request = format!("{line} HTTP/1.1\r\nHost: {named}\r\n{cookie}Content-Length: 0\r\n\r\n");
        let (reply, ended) = raw(rig.cloakroom.address(), request.as_bytes()).await;
        let status = reply.unwrap().status;
        if line.starts_with("CONNECT") {
            assert!(ended && matches!(status, 400 | 405), "{line}: {status}");
        } else {
            assert_eq!(status, wanted, "{line} {named}");
        }
        if status == 200 {
            assert_eq!(rig.upstream.last().target, "/api/x?y", "{line}");
            assert_eq!(rig.upstream.last().values("x-forwarded-host"), [host.as_str()]);
        } else {
            assert_eq!(rig.upstream.connections(), before, "{line}");
        }
    }
}

#[tokio::test]
async fn hp_23_a_refused_request_leaves_nothing_behind_that_could_be_read_as_another() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let inner = format!("GET /api/public/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let length = inner.len();
    let chunk = format!("{length:x}\r\n{inner}\r\n0\r\n\r\n");
    let padding = "x".repeat(200_000);
    for (path, method, wanted) in [
        ("/api/x", "POST", 401),
        ("/api/public/%2e%2e/x", "POST", 400),
        ("/bff/user", "TRACE", 405),
        ("/bff/nothing", "POST", 404),
    ] {
        let start = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for message in [
            format!("{start}Content-Length: {length}\r\n\r\n{inner}"),
            format!("{start}Content-Length: {}\r\n\r\n{inner}", length + 1),
            format!(
                "{start}Content-Length: {}\r\n\r\n{padding}{inner}",
                padding.len() + length
            ),
            format!("{start}{CHUNKED}\r\n{chunk}"),
            format!("{start}{CHUNKED}\r\n{chunk}{inner}"),
            format!("{start}Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n{inner}"),
        ] {
            let (reply, _) = raw(rig.cloakroom.address(), message.as_bytes()).await;
            assert_eq!(reply.unwrap().status, wanted, "{message:.60}");
            assert_eq!(rig.upstream.connections(), 0, "{message:.60}");
        }
    }
    let small = Rig::with(|config| config.set("routes.1.body_limit", "1KiB")).await;
    let start = format!("POST /api/public/x HTTP/1.1\r\nHost: {host}\r\n");
    for message in [
        format!(
            "{start}Content-Length: {}\r\n\r\n{padding}{inner}",
            padding.len() + length
        ),
        format!("{start}Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n{inner}"),
        format!("{start}{CHUNKED}\r\n800\r\n{}\r\n{chunk}", "x".repeat(0x800)),
    ] {
        let (reply, ended) = raw(small.cloakroom.address(), message.as_bytes()).await;
        assert_eq!(reply.unwrap().status, 413, "{message:.60}");
        assert!(ended, "{message:.60}");
        assert_nothing_smuggled(&small, "a body too large");
    }
}

#[tokio::test]
async fn hp_24_answers_without_a_body_keep_the_connection_in_step() {
    use crate::support::upstream::Play;
    let rig = Rig::start().await;
    rig.upstream.on(
        "/api/public/none",
        Play::bytes("HTTP/1.1 204 No Content\r\nX-Up: 204\r\n\r\n"),
    );
    rig.upstream.on(
        "/api/public/same",
        Play::bytes("HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\nContent-Length: 1000\r\n\r\n"),
    );
    rig.upstream.on(
        "/api/public/head",
        Play::bytes("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Up: head\r\n\r\n"),
    );
    rig.upstream.on(
        "/api/public/cookies",
        Play::headers("Set-Cookie: a=1, b; Path=/\r\nX: 1\r\nSet-Cookie: c=2\r\nX: 2\r\nSet-Cookie: a=3\r\n"),
    );
    let mut wire = Wire::new(TcpStream::connect(rig.cloakroom.address()).await.unwrap());
    for _ in 0..2 {
        for (method, path, status) in [
            ("HEAD", "head", 200),
            ("GET", "same", 304),
            ("DELETE", "none", 204),
            ("HEAD", "same", 304),
            ("GET", "cookies", 200),
            ("GET", "x", 200),
        ] {
            let request = format!("{method} /api/public/{path} HTTP/1.1\r\nHost: app.example\r\n\r\n");
            wire.send(request.as_bytes()).await.unwrap();
            let head = within(5, "an answer", wire.head()).await.unwrap().unwrap();
            assert_eq!(head.status(), status, "{method} {path}");
            let body = wire.body(head.response_framing(method)).await.unwrap();
            match path {
                "cookies" => {
                    assert_eq!(
                        crate::support::wire::values(&head.fields, "set-cookie"),
                        ["a=1, b; Path=/", "c=2", "a=3"]
                    );
                    assert_eq!(crate::support::wire::values(&head.fields, "x"), ["1", "2"]);
                }
                "x" => assert_eq!(body, br#"{"ok":true}"#),
                "head" => assert_eq!(head.value("content-length"), Some("1000")),
                _ => assert!(head.value("transfer-encoding").is_none() && body.is_empty()),
            }
        }
    }
    assert_eq!(rig.upstream.count(), 12);
}

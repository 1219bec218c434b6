//! HTTP/2 frame by frame (RFC 9113): what a malformed request becomes, and what a proper one is to the upstream, which
//! speaks HTTP/1.1 and must not be told anything that HTTP/1.1 reads in another way.

use crate::support::browser::SESSION;
use crate::support::h2::{self, Answer, H2};
use crate::support::rig::Rig;
use crate::support::upstream::{After, Play};
use crate::support::wire::values;
use crate::support::{until, within};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// The fields of a request, in order.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn field(name: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    // Latin-1: a test says any byte.
    let bytes = |text: &str| {
        text.chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect()
    };
    (bytes(name), bytes(value))
}

/// A request for a path on that host.
fn ask(method: &str, host: &str, path: &str) -> Fields {
    vec![
        field(":method", method),
        field(":scheme", "http"),
        field(":authority", host),
        field(":path", path),
    ]
}

fn with(mut fields: Fields, more: &[(&str, &str)]) -> Fields {
    fields.extend(more.iter().map(|(name, value)| field(name, value)));
    fields
}

async fn connect(rig: &Rig) -> H2<TcpStream> {
    H2::connect(rig.cloakroom.address()).await
}

/// What a connection is told that asks for something that must not be answered: its answer, if one came.
fn is_refused(answer: &Answer, connection: &H2<TcpStream>) -> bool {
    answer.status == 400 || answer.reset.is_some() || connection.goaway.is_some() || connection.closed
}

/// Another connection is answered.
async fn assert_answers(rig: &Rig) {
    let host = rig.browser().host().to_owned();
    let answer = connect(rig)
        .await
        .ask(&ask("GET", &host, "/api/public/honest"))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_request_over_http2_is_one_over_http_1_1_to_the_upstream() {
    let rig = Rig::start().await;
    let browser = rig.signed_in().await;
    let host = browser.host().to_owned();
    let mut connection = connect(&rig).await;
    let cookie = format!("{SESSION}={}", browser.session().unwrap());
    let request = with(
        ask("GET", &host, "/api/%C3%BC/x?a=%zz&b"),
        &[
            ("cookie", &cookie),
            ("sec-fetch-site", "same-origin"),
            ("x-one", "1"),
            ("x-two", "\u{fc}"),
            ("x-one", "2"),
            ("te", "trailers"),
        ],
    );
    let answer = connection.ask(&request).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"ok":true}"#));
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    for gone in [
        "connection",
        "keep-alive",
        "transfer-encoding",
        "upgrade",
        "proxy-connection",
    ] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    let up = rig.upstream.last();
    assert_eq!(
        (up.method.as_str(), up.target.as_str()),
        ("GET", "/api/%C3%BC/x?a=%zz&b")
    );
    assert_eq!(
        rig.rogue.subject_of(up.bearer().unwrap()).as_deref(),
        Some("alice")
    );
    assert_eq!(up.values("host"), [rig.upstream.address.to_string()]);
    assert_eq!(up.values("x-forwarded-host"), [host.as_str()]);
    assert_eq!(up.values("x-one"), ["1", "2"]);
    assert_eq!(up.values("x-two"), ["\u{fc}"]);
    for gone in [
        "cookie",
        "te",
        "connection",
        "http2-settings",
        "transfer-encoding",
        "content-length",
    ] {
        assert!(up.values(gone).is_empty(), "{gone}: {:?}", up.fields);
    }
    assert!(
        up.fields.iter().all(|(name, _)| !name.starts_with(':')),
        "{:?}",
        up.fields
    );
    // hp_12: what the connection was told before anything else.
    let streams = connection.settings[&h2::MAX_CONCURRENT_STREAMS];
    assert!((1..=100).contains(&streams), "lm_04: {streams}");
    assert!(connection.settings[&h2::MAX_HEADER_LIST_SIZE] <= 64 * 1024);

    let stranger = connection.ask(&ask("GET", &host, "/api/x")).await;
    assert_eq!(
        (stranger.status, stranger.problem().as_str()),
        (401, "unauthenticated")
    );
    let foreign = with(request, &[("origin", "https://evil.example")]);
    let foreign = connection.ask(&foreign).await;
    assert_eq!((foreign.status, foreign.problem().as_str()), (403, "csrf"));
}

#[tokio::test]
async fn hp_11_the_authority_is_the_host_and_a_host_beside_it_says_the_same() {
    let rig = Rig::start().await;
    let browser = rig.signed_in().await;
    let host = browser.host().to_owned();
    let port = host.split(':').nth(1).unwrap();
    let cookie = format!("{SESSION}={}", browser.session().unwrap());
    let (upper, dotted) = (host.to_uppercase(), format!("app.localhost.:{port}"));
    let (userinfo, evil) = (format!("user@{host}"), format!("evil.example:{port}"));
    for (authority, hosts, wanted) in [
        (Some(host.as_str()), vec![], 200),
        (Some(&host), vec![host.as_str()], 200),
        (Some(&host), vec![&upper], 200),
        (Some(&upper), vec![&dotted], 200),
        (None, vec![&host], 200),
        (Some(&host), vec![&evil], 400),
        (Some(&evil), vec![&host], 400),
        (Some(&host), vec!["app.localhost"], 400),
        (Some(&host), vec![""], 400),
        (Some(&host), vec!["a b"], 400),
        (Some(&host), vec![&host, &host], 400),
        (Some(&host), vec![&host, &evil], 400),
        (None, vec![], 400),
        (None, vec![&host, &host], 400),
        (None, vec!["a b"], 400),
        (Some(&userinfo), vec![], 400),
        (Some(&userinfo), vec![&userinfo], 400),
        (None, vec![&userinfo], 400),
        (Some(""), vec![], 400),
        (Some(""), vec![&host], 400),
        (Some("app.localhost:x"), vec![], 400),
        (Some("app.localhost/x"), vec![], 400),
        (Some(&evil), vec![], 421),
        (Some(&evil), vec![&evil], 421),
        (Some("app.localhost"), vec![], 421),
    ] {
        let mut fields = vec![
            field(":method", "GET"),
            field(":scheme", "http"),
            field(":path", "/api/x"),
        ];
        fields.extend(authority.map(|authority| field(":authority", authority)));
        fields.push(field("cookie", &cookie));
        fields.extend(hosts.iter().map(|host| field("host", host)));
        let before = rig.upstream.count();
        let mut connection = connect(&rig).await;
        let answer = connection.ask(&fields).await;
        if wanted == 400 {
            assert!(
                is_refused(&answer, &connection),
                "{authority:?} {hosts:?}: {answer:?}"
            );
        } else {
            assert_eq!(answer.status, wanted, "{authority:?} {hosts:?}");
        }
        assert_eq!(rig.upstream.count() - before, usize::from(wanted == 200));
    }
}

#[tokio::test]
async fn hp_12_class_d_a_malformed_request_goes_no_further_and_its_neighbours_do() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let get = || ask("GET", &host, "/api/public/x");
    let mut late = get();
    late.insert(1, field("x-early", "1"));
    let without =
        |name: &str| -> Fields { get().into_iter().filter(|(n, _)| n != name.as_bytes()).collect() };
    let smuggle = "x\r\n\r\nGET /api/public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut probes: Vec<(String, Fields)> = vec![
        ("a pseudo-header after a field".into(), late),
        ("two methods".into(), with(get(), &[(":method", "GET")])),
        ("a second path".into(), {
            let mut fields = get();
            fields.insert(4, field(":path", "/api/public/y"));
            fields
        }),
        ("a second authority".into(), {
            let mut fields = get();
            fields.insert(4, field(":authority", &host));
            fields
        }),
        ("an unknown pseudo-header".into(), {
            let mut fields = get();
            fields.insert(4, field(":unknown", "x"));
            fields
        }),
        ("a status".into(), {
            let mut fields = get();
            fields.insert(4, field(":status", "200"));
            fields
        }),
        ("a protocol without CONNECT".into(), {
            let mut fields = get();
            fields.insert(4, field(":protocol", "websocket"));
            fields
        }),
        ("an extended CONNECT without a path".into(), {
            let mut fields = ask("CONNECT", &host, "/api/public/x");
            fields[3] = field(":protocol", "websocket");
            fields
        }),
        ("no method".into(), without(":method")),
        ("no scheme".into(), without(":scheme")),
        ("no path".into(), without(":path")),
        ("no fields at all".into(), Vec::new()),
        ("an empty name".into(), with(get(), &[("", "x")])),
        (
            "CONNECT with a path".into(),
            ask("CONNECT", &host, "/api/public/x"),
        ),
    ];
    for (name, value) in [
        ("Upper", "x"),
        ("HOST", host.as_str()),
        ("Content-Length", "0"),
        ("connection", "close"),
        ("connection", "x-forwarded-for"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("te", "chunked"),
        ("x", smuggle),
        ("x", "a\r\nx-evil: 1"),
        ("x", "a\nx-evil: 1"),
        ("x", "a\rx-evil: 1"),
        ("x", "a\0b"),
        ("x\r\nx-evil: 1", "y"),
        ("x\nevil", "y"),
        ("x\0", "y"),
        ("x y", "y"),
        ("x:y", "y"),
        (" x", "y"),
        ("x\u{e4}", "y"),
        ("x\u{7f}", "y"),
        ("cookie", "a=1\r\nx-evil: 1"),
        ("content-length", "5"),
        ("content-length", "x"),
        ("content-length", "-1"),
        ("content-length", "18446744073709551616"),
    ] {
        probes.push((format!("{name:?}: {value:?}"), with(get(), &[(name, value)])));
    }
    for (name, fields) in probes {
        let mut connection = connect(&rig).await;
        let answer = connection.ask(&fields).await;
        assert!(is_refused(&answer, &connection), "{name}: {answer:?}");
        let evil = rig
            .upstream
            .requests()
            .into_iter()
            .find(|request| request.target != "/api/public/after");
        assert!(evil.is_none(), "{name}: it went up: {evil:?}");
        if connection.goaway.is_none() && !connection.closed {
            let after = connection.ask(&ask("GET", &host, "/api/public/after")).await;
            assert_eq!(after.status, 200, "{name}: a stream's error is its own");
        }
    }
    assert_answers(&rig).await;
}

#[tokio::test]
async fn hp_12_spaces_around_a_value_never_reach_the_upstream_as_they_are() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    for value in [" x", "x ", "\tx", "x\t", " "] {
        let mut connection = connect(&rig).await;
        let answer = connection
            .ask(&with(ask("GET", &host, "/api/public/x"), &[("x-odd", value)]))
            .await;
        // HTTP/1.1 has no such value to say: the spaces are no part of it there.
        if !is_refused(&answer, &connection) {
            assert_eq!(answer.status, 200, "{value:?}");
            assert_eq!(rig.upstream.last().values("x-odd"), [value.trim()], "{value:?}");
        }
    }
}

#[tokio::test]
async fn hp_12_a_body_is_as_long_as_it_says_or_it_is_no_request() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let post = |length: &[&str]| {
        let lengths: Vec<_> = length.iter().map(|length| ("content-length", *length)).collect();
        with(ask("POST", &host, "/api/public/x"), &lengths)
    };
    for (name, lengths, body) in [
        ("more than it says", vec!["5"], &b"hello world"[..]),
        ("less than it says", vec!["50"], b"hello"),
        ("something where it says nothing", vec!["0"], b"hello"),
        ("nothing where it says something", vec!["5"], b""),
        ("two lengths", vec!["5", "6"], b"hello"),
        ("hp_04: one length twice", vec!["5", "5"], b"hello"),
        ("hp_04: one length in two spellings", vec!["5", "05"], b"hello"),
        ("a list of lengths", vec!["5, 5"], b"hello"),
        ("a sign", vec!["+5"], b"hello"),
    ] {
        let mut connection = connect(&rig).await;
        let stream = connection.open(&post(&lengths), false).await;
        connection.send(&h2::data(stream, body, true)).await;
        let answer = connection.answer(stream).await;
        let whole = rig
            .upstream
            .requests()
            .into_iter()
            .find(|request| request.complete);
        assert!(whole.is_none(), "{name}: {whole:?}");
        assert!(
            is_refused(&answer, &connection) || answer.status >= 400,
            "{name}: {answer:?}"
        );
    }
    // What comes behind a body that was whole has no way up: the request before it may be answered by then.
    let mut connection = connect(&rig).await;
    let stream = connection.open(&post(&["5"]), false).await;
    connection.send(&h2::data(stream, b"hello", false)).await;
    until(10, "the announced body upstream", || {
        rig.upstream.requests().iter().any(|request| request.complete)
    })
    .await;
    connection.send(&h2::data(stream, b" world", true)).await;
    connection.settle().await;
    connection.answer(stream).await;
    let up = rig
        .upstream
        .requests()
        .into_iter()
        .filter(|request| request.complete);
    assert_eq!(up.map(|request| request.body).collect::<Vec<_>>(), [b"hello"]);
    // A length of its own goes up; so does a body without one, and an empty one.
    for (n, (lengths, body)) in [(vec!["5"], &b"hello"[..]), (vec![], b"hello"), (vec!["0"], b"")]
        .into_iter()
        .enumerate()
    {
        let mut connection = connect(&rig).await;
        let stream = connection.fresh();
        let path = format!("/api/public/good-{n}");
        let lengths: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
        let head = h2::block(&with(ask("POST", &host, &path), &lengths));
        connection.send(&h2::headers(stream, &head, false)).await;
        connection.send(&h2::data(stream, body, true)).await;
        assert_eq!(connection.answer(stream).await.status, 200);
        let up = rig.upstream.requests();
        let up = up.iter().find(|request| request.target == path).unwrap();
        assert_eq!((&up.body[..], up.complete), (body, true));
        assert!(up.values("content-length").len() + up.values("transfer-encoding").len() <= 1);
    }
}

#[tokio::test]
async fn hp_13_method_path_and_scheme_become_a_request_line_of_their_own_or_nothing() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let line = |method: &str, scheme: &str, path: &str| {
        vec![
            field(":method", method),
            field(":scheme", scheme),
            field(":authority", &host),
            field(":path", path),
        ]
    };
    let open = "/api/public/x";
    for (method, scheme, path) in [
        ("GET", "http", "/api/public/x HTTP/1.1\r\nFoo: bar"),
        ("GET", "http", "/api/public/x HTTP/1.1\r\n\r\nGET /api/public/y"),
        ("GET", "http", "/api/public/x y"),
        ("GET", "http", "/api/public/x\r\n"),
        ("GET", "http", "/api/public/x\n"),
        ("GET", "http", "/api/public/x\0"),
        ("GET", "http", "/api/public/x\t"),
        ("GET", "http", "/api/public/\u{fc}"),
        ("GET", "http", "/api/public/x\\y"),
        ("GET", "http", "/api/public/%2e%2e/x"),
        ("GET", "http", "/api/public//x"),
        ("GET", "http", ""),
        ("GET", "http", "api/public/x"),
        ("GET", "http", "?x"),
        ("GET", "http", "*"),
        ("GET", "http", "http://evil.example/api/public/x"),
        ("GET /api/public/y HTTP/1.1\r\nHost: a\r\n\r\nGET", "http", open),
        ("GET /", "http", open),
        ("GET\r\n", "http", open),
        ("G\0T", "http", open),
        ("G\u{e4}T", "http", open),
        ("G(T)", "http", open),
        ("", "http", open),
        ("GET", "http://evil.example/?", open),
        ("GET", "http\r\nx", open),
        ("GET", "h ttp", open),
        ("GET", "", open),
        ("GET", "ftp", open),
        ("GET", "javascript", open),
    ] {
        let mut connection = connect(&rig).await;
        let answer = connection.ask(&line(method, scheme, path)).await;
        assert!(
            is_refused(&answer, &connection),
            "{method:?} {scheme:?} {path:?}: {answer:?}"
        );
        assert_eq!(rig.upstream.connections(), 0, "{method:?} {scheme:?} {path:?}");
    }
    // A proxy in front that ends TLS says https over a connection in clear.
    for scheme in ["http", "https"] {
        let answer = connect(&rig).await.ask(&line("GET", scheme, open)).await;
        assert_eq!(answer.status, 200, "{scheme}");
    }
    for method in ["TRACE", "TRACK"] {
        let answer = connect(&rig).await.ask(&line(method, "http", open)).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (405, "method_not_allowed")
        );
    }
    let options = connect(&rig).await.ask(&line("OPTIONS", "http", "*")).await;
    assert_eq!(options.status, 204);
    let mut connection = connect(&rig).await;
    let connect = connection
        .ask(&[field(":method", "CONNECT"), field(":authority", &host)])
        .await;
    assert!(
        connect.status == 405 || is_refused(&connect, &connection),
        "{connect:?}"
    );
    // The library that reads :path drops what follows a `#`; what is matched is then what goes up.
    let mut connection = H2::connect(rig.cloakroom.address()).await;
    let fragment = connection
        .ask(&line("GET", "http", "/api/public/frag#/../../x"))
        .await;
    if !is_refused(&fragment, &connection) {
        assert_eq!(rig.upstream.last().target, "/api/public/frag");
    }
}

#[tokio::test]
async fn cookie_crumbs_are_one_line_upstream_and_one_session_here() {
    let rig = Rig::start().await;
    let browser = rig.signed_in().await;
    let host = browser.host().to_owned();
    let session = format!("{SESSION}={}", browser.session().unwrap());
    let other = format!("{SESSION}={}", "A".repeat(43));
    let mut connection = connect(&rig).await;
    for (crumbs, up) in [
        (vec!["a=1", &session, "b=2; c=3"], Some("a=1; b=2; c=3")),
        (vec![&session, "a=1", "b=2"], Some("a=1; b=2")),
        (vec!["a=1", "b=2", &session], Some("a=1; b=2")),
        (vec![&session], None),
    ] {
        let crumbs: Vec<_> = crumbs.iter().map(|crumb| ("cookie", *crumb)).collect();
        let answer = connection.ask(&with(ask("GET", &host, "/api/x"), &crumbs)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(rig.upstream.last().values("cookie"), Vec::from_iter(up));
    }
    let count = rig.upstream.count();
    for crumbs in [[&session, &session], [&session, &other], [&other, &session]] {
        let crumbs = crumbs.map(|crumb| ("cookie", crumb.as_str()));
        let answer = connection.ask(&with(ask("GET", &host, "/api/x"), &crumbs)).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (401, "unauthenticated")
        );
    }
    assert_eq!(rig.upstream.count(), count, "two of that name are no session");
}

#[tokio::test]
async fn lm_03_class_h_heads_over_http2_have_the_same_bounds() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let get = || ask("GET", &host, "/api/public/x");
    let many = |count: usize| -> Fields { (0..count).map(|n| field(&format!("x-{n}"), "1")).collect() };
    let cookie = |length: usize| vec![field("cookie", &"a".repeat(length))];
    let crumbs =
        |count: usize| -> Fields { (0..count).map(|n| field("cookie", &format!("c{n}=1"))).collect() };
    for (name, more, wanted) in [
        ("a hundred lines", many(100), 200),
        ("a hundred and one", many(101), 431),
        ("two hundred", many(200), 431),
        ("a long cookie", cookie(15_000), 200),
        ("a cookie too long", cookie(17_000), 431),
        ("a line of 40 kB", cookie(40_000), 431),
        // Browsers send each cookie as a crumb: they are one line when they are counted.
        ("many crumbs", crumbs(180), 200),
        ("too many crumbs", crumbs(3_000), 431),
    ] {
        let mut connection = connect(&rig).await;
        let stream = connection.open(&[get(), more].concat(), true).await;
        let answer = connection.answer(stream).await;
        assert_eq!(answer.status, wanted, "{name}: {answer:?}");
        if wanted == 431 && !answer.body.is_empty() {
            assert_eq!(answer.problem(), "bad_request");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
        if wanted == 200 {
            let up = rig.upstream.last();
            assert!(
                up.values("cookie").len() <= 1
                    && up.values("x-99").len() == usize::from(name == "a hundred lines")
            );
        }
        assert_eq!(
            connection.ask(&get()).await.status,
            200,
            "{name}: the connection goes on"
        );
    }
    let count = rig.upstream.count();
    for more in [cookie(1_000_000), many(20_000), crumbs(100_000)] {
        let mut connection = connect(&rig).await;
        let stream = connection.fresh();
        let head = h2::headers(stream, &h2::block(&[get(), more].concat()), true);
        connection.flood(&head).await;
        let answer = connection.answer(stream).await;
        let is_over = connection.goaway.is_some() || connection.closed || answer.reset.is_some();
        assert!(answer.status == 431 || is_over, "{answer:?}");
    }
    let long = "a".repeat(9_000);
    for path in [format!("/{long}"), format!("/api/public/x?{long}")] {
        let answer = connect(&rig).await.ask(&ask("GET", &host, &path)).await;
        assert_eq!((answer.status, answer.problem().as_str()), (414, "bad_request"));
    }
    assert_eq!(rig.upstream.count(), count);
    let odd = with(ask("POST", &host, "/api/public/x"), &[("expect", "200-ok")]);
    assert_eq!(connect(&rig).await.ask(&odd).await.status, 417, "hp_19");
}

#[tokio::test]
async fn hp_24_answers_without_a_body_end_with_their_head() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    for (method, play, status, length) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
            200,
            Some("1000"),
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            200,
            None,
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\n\r\n",
            304,
            None,
        ),
        (
            "GET",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            200,
            Some("0"),
        ),
    ] {
        rig.upstream.on("/api/public/x", Play::bytes(play));
        let mut connection = connect(&rig).await;
        let answer = connection.ask(&ask(method, &host, "/api/public/x")).await;
        assert_eq!(
            (answer.status, answer.complete, answer.body.len()),
            (status, true, 0),
            "{play}"
        );
        assert_eq!(
            (answer.header("content-length"), answer.header("link")),
            (length, None),
            "{play}"
        );
        assert_eq!(
            connection.ask(&ask("GET", &host, "/api/public/y")).await.status,
            200
        );
    }
    // hp_18: what breaks off upstream is reset here, never a clean end.
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        rig.upstream.on("/api/public/x", Play::cut(answer));
        let answer = connect(&rig).await.ask(&ask("GET", &host, "/api/public/x")).await;
        assert!(answer.reset.is_some() && !answer.complete, "{answer:?}");
    }
}

#[tokio::test]
async fn hp_21_trailers_pass_both_ways_and_pseudo_headers_in_them_do_not() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    rig.upstream.on(
        "/api/public/x",
        Play::bytes(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Set-Cookie\r\n\r\n\
             2\r\nok\r\n0\r\nX-Sum: 7\r\nSet-Cookie: evil=1\r\n\r\n",
        ),
    );
    let mut connection = connect(&rig).await;
    let request = with(
        ask("POST", &host, "/api/public/x"),
        &[("te", "trailers"), ("trailer", "x-sum, authorization")],
    );
    let stream = connection.open(&request, false).await;
    connection.send(&h2::data(stream, b"hi", false)).await;
    let trailers = h2::block(&[
        ("x-sum", "9"),
        ("authorization", "evil"),
        ("x-unannounced", "evil"),
    ]);
    connection.send(&h2::headers(stream, &trailers, true)).await;
    let answer = connection.answer(stream).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(values(&answer.trailers, "x-sum"), ["7"]);
    assert_eq!(answer.trailers.len(), 1, "{:?}", answer.trailers);
    let up = rig.upstream.last();
    assert_eq!((&up.body[..], up.complete), (&b"hi"[..], true));
    assert_eq!(values(&up.trailers, "x-sum"), ["9"]);
    assert_eq!(up.trailers.len(), 1, "{:?}", up.trailers);
    assert!(up.fields.iter().all(|(_, value)| value != "9" && value != "evil"));
    // Trailers that do not end the stream, that bear a pseudo-header, a name in capitals, or what belongs to a connection.
    let before = rig
        .upstream
        .requests()
        .iter()
        .filter(|request| request.complete)
        .count();
    for (trailers, ends) in [
        (vec![("x-sum", "9")], false),
        (vec![("x-sum", "9"), (":status", "200")], true),
        (vec![("X-Sum", "9")], true),
        (vec![("connection", "close")], true),
        (vec![("x-sum", "9\r\nx-evil: 1")], true),
    ] {
        let mut connection = connect(&rig).await;
        let stream = connection.open(&request, false).await;
        connection.send(&h2::data(stream, b"hi", false)).await;
        connection
            .send(&h2::headers(stream, &h2::block(&trailers), ends))
            .await;
        let answer = connection.answer(stream).await;
        assert!(
            is_refused(&answer, &connection) || answer.status >= 400,
            "{trailers:?}: {answer:?}"
        );
        let whole = rig
            .upstream
            .requests()
            .iter()
            .filter(|request| request.complete)
            .count();
        assert_eq!(whole, before, "{trailers:?}");
    }
    // The library passes over a pseudo-header that comes first: it is no trailer, and goes no further.
    let mut connection = connect(&rig).await;
    let stream = connection.open(&request, false).await;
    let trailers = h2::block(&[(":path", "/api/public/y")]);
    connection.send(&h2::headers(stream, &trailers, true)).await;
    let answer = connection.answer(stream).await;
    if !is_refused(&answer, &connection) {
        let up = rig.upstream.last();
        assert_eq!((up.target.as_str(), up.trailers.len()), ("/api/public/x", 0));
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once_on_many_streams() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let mut connection = connect(&rig).await;
    let upload = connection
        .open(&ask("POST", &host, "/api/public/up"), false)
        .await;
    connection.send(&h2::data(upload, b"first", false)).await;
    until(5, "the first half", || {
        rig.upstream
            .requests()
            .iter()
            .any(|request| request.body == b"first")
    })
    .await;
    let event = |n: u32| (Duration::from_millis(100), format!("data: {n}\n\n").into_bytes());
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec();
    let pieces = vec![(Duration::ZERO, head), event(1), event(2), event(3)];
    rig.upstream
        .on("/api/public/events", Play::Pieces(pieces, After::Hang));
    let events = connection
        .open(&ask("GET", &host, "/api/public/events"), true)
        .await;
    let mut arrivals = Vec::new();
    for n in 1..=3 {
        connection
            .until("an event", |c| {
                c.answers
                    .get(&events)
                    .is_some_and(|a| a.text().ends_with(&format!(" {n}\n\n")))
            })
            .await;
        arrivals.push(Instant::now());
    }
    assert!(
        arrivals[2] - arrivals[0] > Duration::from_millis(80),
        "each as it comes"
    );
    // Others are answered meanwhile, whatever their order.
    let others: Vec<u32> = {
        let mut others = Vec::new();
        for n in 0..50 {
            others.push(
                connection
                    .open(&ask("GET", &host, &format!("/api/public/{n}")), true)
                    .await,
            );
        }
        others
    };
    for other in others.into_iter().rev() {
        assert_eq!(connection.answer(other).await.status, 200);
    }
    connection
        .send(&h2::data(upload, &vec![b'y'; 100_000], true))
        .await;
    assert_eq!(connection.answer(upload).await.status, 200);
    let up = rig.upstream.requests();
    let up = up
        .iter()
        .find(|request| request.target == "/api/public/up")
        .unwrap();
    assert_eq!((up.body.len(), up.complete), (100_005, true));
    // A stream that is given up takes its upstream request with it.
    let ended = rig.upstream.ended();
    connection.send(&h2::reset(events, h2::CANCEL)).await;
    until(5, "its end upstream", || rig.upstream.ended() > ended).await;
    assert_eq!(
        connection.ask(&ask("GET", &host, "/api/public/z")).await.status,
        200
    );
}

#[tokio::test]
async fn lm_11_stopping_says_goaway_and_streams_under_way_finish() {
    let rig = Rig::start().await;
    let host = rig.browser().host().to_owned();
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl".to_vec();
    let tail = (Duration::from_millis(800), b"ow".to_vec());
    rig.upstream.on(
        "/api/public/slow",
        Play::Pieces(vec![(Duration::ZERO, head), tail], After::Keep),
    );
    let mut connection = connect(&rig).await;
    let slow = connection
        .open(&ask("GET", &host, "/api/public/slow"), true)
        .await;
    connection
        .until("its head", |c| {
            c.answers.get(&slow).is_some_and(|a| a.status == 200)
        })
        .await;
    let mut idle = connect(&rig).await;
    assert_eq!(idle.ask(&ask("GET", &host, "/api/public/x")).await.status, 200);
    let Rig {
        mut cloakroom,
        upstream,
        rogue,
        ..
    } = rig;
    cloakroom.signal("TERM");
    let answer = connection.answer(slow).await;
    assert_eq!((answer.text().as_str(), answer.complete), ("slow", true));
    for connection in [&mut connection, &mut idle] {
        connection.end().await;
        assert_eq!(connection.goaway.map(|(_, code)| code), Some(h2::NO_ERROR));
    }
    assert_eq!(within(5, "the end", cloakroom.ended()).await, 0);
    drop((cloakroom, upstream, rogue));
}

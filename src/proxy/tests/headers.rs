//! What each side sees of the other's head.

use super::*;

const OURS: [(&str, &str); 5] = [
    ("authorization", "Bearer the-access-token"),
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "app.example"),
    ("x-request-id", "our-request-id"),
];

fn assert_ours(head: &str) {
    for (name, value) in OURS {
        assert_eq!(values(head, name), [value], "{head}");
    }
    assert_eq!(values(head, "traceparent").len(), 1, "{head}");
    let via = values(head, "via");
    assert!(via.len() == 1 && via[0].starts_with("1.1 cloakroom-"), "{head}");
}

#[tokio::test]
async fn the_request_goes_up_as_it_came_with_what_we_say() {
    let (upstream, seen) = answering(OK).await;
    let rig = rig(upstream, route()).await;
    let response = rig
        .ask(
            "PATCH /%61pi/a%C3%BC;v=2?x=%zz&y=| HTTP/1.1\r\nAccept: a\r\nX-Same: 1\r\nX-Same: 2\r\nIf-Match: \"x\"\r\n\
             traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "",
        )
        .await;
    assert_eq!(status(&response), "200", "{response}");
    let head = seen.lock().unwrap().pop().unwrap();
    assert!(
        head.starts_with("PATCH /%61pi/a%C3%BC;v=2?x=%zz&y=| HTTP/1.1\r\n"),
        "{head}"
    );
    assert_ours(&head);
    assert_eq!(values(&head, "x-same"), ["1", "2"]);
    assert_eq!(values(&head, "host"), [upstream.to_string()]);
    assert_eq!(
        values(&head, "traceparent"),
        ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]
    );
    for absent in ["connection", "transfer-encoding", "content-length", "keep-alive"] {
        assert!(values(&head, absent).is_empty(), "{absent} {head}");
    }
}

#[tokio::test]
async fn hp_02_connection_cannot_name_what_we_add() {
    let (upstream, seen) = answering(OK).await;
    let rig = rig(upstream, route()).await;
    for name in OURS.map(|(name, _)| name).into_iter().chain(["via"]) {
        for nomination in [
            name.to_owned(),
            name.to_uppercase(),
            format!("close, {name}"),
            format!("x, , {name} ,y"),
        ] {
            let request = format!(
                "GET /api HTTP/1.1\r\nConnection: {nomination}\r\nconnection: traceparent,host,cookie"
            );
            rig.ask(&request, "").await;
            let head = seen.lock().unwrap().pop().unwrap();
            assert_ours(&head);
            assert_eq!(values(&head, "host"), [upstream.to_string()], "{head}");
        }
    }
    // A length that is named away is still the body's.
    let response = rig
        .ask(
            "POST /api HTTP/1.1\r\nContent-Length: 5\r\nConnection: content-length, transfer-encoding",
            "hello",
        )
        .await;
    assert_eq!(status(&response), "200");
    assert_eq!(
        values(&seen.lock().unwrap().pop().unwrap(), "content-length"),
        ["5"]
    );
}

#[tokio::test]
async fn fh_04_what_a_browser_makes_up_does_not_arrive() {
    let (upstream, seen) = answering(OK).await;
    let rig = rig(upstream, route()).await;
    for name in [
        "Authorization",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-User",
        "Forwarded",
        "X-Real-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Auth-Request-User",
        "X-HTTP-Method-Override",
        "Proxy-Authorization",
        "X-Request-Id",
    ] {
        for spelling in [
            name.to_owned(),
            name.to_lowercase(),
            name.to_uppercase(),
            name.replace('-', "_"),
        ] {
            let request =
                format!("GET /api HTTP/1.1\r\n{spelling}: evil\r\n{spelling}: evil\r\nX-Mine_too: 1");
            assert_eq!(status(&rig.ask(&request, "").await), "200");
            let head = seen.lock().unwrap().pop().unwrap();
            assert!(!head.contains("evil"), "{head}");
            assert_ours(&head);
            assert_eq!(values(&head, "x-mine_too"), ["1"]);
        }
    }
}

#[tokio::test]
async fn open_routes_carry_no_token_and_pass_authorization_only_where_told() {
    for (mode, wanted) in [
        (AuthorizationMode::Replace, &[][..]),
        (AuthorizationMode::Pass, &["Basic eA=="]),
    ] {
        let (upstream, seen) = answering(OK).await;
        let open = RouteSettings {
            auth: Some(crate::config::Auth::None),
            authorization: mode,
            ..route()
        };
        let rig = rig(upstream, open).await;
        let response = rig
            .ask(
                "GET /api HTTP/1.1\r\nAuthorization: Basic eA==\r\nX-Auth-Request-User: me",
                "",
            )
            .await;
        let head = seen.lock().unwrap().pop().unwrap();
        assert_eq!(values(&head, "authorization"), wanted);
        assert!(values(&head, "x-auth-request-user").is_empty());
        assert!(values(&response, "cache-control").is_empty());
    }
}

#[tokio::test]
async fn prefix_and_host_follow_the_route() {
    let (upstream, seen) = answering(OK).await;
    let rig = rig(
        upstream,
        RouteSettings {
            strip_prefix: true,
            host: HostMode::Keep,
            ..route()
        },
    )
    .await;
    for (target, wanted) in [
        ("/%61pi/a%20b/?q=%zz", "/a%20b/?q=%zz"),
        ("/api", "/"),
        ("/api?x", "/?x"),
        ("/api/", "/"),
        ("/api?", "/?"),
    ] {
        assert_eq!(
            status(&rig.ask(&format!("GET {target} HTTP/1.1"), "").await),
            "200"
        );
        let head = seen.lock().unwrap().pop().unwrap();
        assert_eq!(
            head.lines().next(),
            Some(format!("GET {wanted} HTTP/1.1").as_str())
        );
        assert_eq!(values(&head, "host"), ["app.example"]);
    }
}

#[tokio::test]
async fn hp_10_an_absolute_target_goes_up_as_a_path() {
    let (upstream, seen) = answering(OK).await;
    let rig = rig(upstream, route()).await;
    for (target, wanted) in [
        ("http://app.example/api/x?y", "/api/x?y"),
        ("http://app.example", "/"),
        ("http://app.example?x", "/?x"),
    ] {
        assert_eq!(
            status(&rig.ask(&format!("GET {target} HTTP/1.1"), "").await),
            "200"
        );
        let head = seen.lock().unwrap().pop().unwrap();
        assert_eq!(
            head.lines().next(),
            Some(format!("GET {wanted} HTTP/1.1").as_str()),
            "{target}"
        );
    }
}

#[tokio::test]
async fn cookies_of_ours_stay_and_those_of_the_app_go_up() {
    let (upstream, seen) = answering(OK).await;
    let rig = rig(upstream, route()).await;
    rig.ask("GET /api HTTP/1.1\r\nCookie: a=1; __Host-Http-cloakroom=secret; b=\"2\"\r\nCookie: __Host-Http-cloakroom-login-x=secret\r\nCookie: c", "")
        .await;
    let head = seen.lock().unwrap().pop().unwrap();
    assert_eq!(values(&head, "cookie"), ["a=1; b=\"2\"", "c"]);
}

#[tokio::test]
async fn hp_24_the_answer_comes_back_as_it_is_less_what_is_not_the_upstreams_to_say() {
    let (upstream, _) = answering(
        "HTTP/1.1 418 Short And Stout\r\nContent-Length: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: x\r\n\
         Set-Cookie: a=1; Path=/\r\nSet-Cookie: __host-http-cloakroom=x\r\nSet-Cookie: b=2; domain=example\r\nSet-Cookie: c=3\r\n\
         Access-Control-Allow-Origin: *\r\nAccess-Control-Whatever: x\r\nClear-Site-Data: \"*\"\r\nService-Worker-Allowed: /\r\n\
         Alt-Svc: h3\r\nNEL: {}\r\nReport-To: {}\r\nWWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: Bearer realm=\"x\"\r\n\
         Proxy-Authenticate: Basic\r\nX-Same: 1\r\nX-Same: 2\r\nServer: theirs\r\nLocation: http://elsewhere/\r\n\r\nok",
    )
    .await;
    let rig = rig(upstream, route()).await;
    let response = rig.ask("GET /api HTTP/1.1", "").await;
    assert!(
        response.starts_with("HTTP/1.1 418 Short And Stout\r\n") && response.ends_with("\r\n\r\nok"),
        "{response}"
    );
    assert_eq!(values(&response, "set-cookie"), ["a=1; Path=/", "c=3"]);
    assert_eq!(values(&response, "www-authenticate"), ["Bearer realm=\"x\""]);
    assert_eq!(values(&response, "x-same"), ["1", "2"]);
    assert_eq!(values(&response, "server"), ["theirs"]);
    assert_eq!(values(&response, "location"), ["http://elsewhere/"]);
    assert_eq!(values(&response, "cache-control"), ["private, no-store"]);
    for gone in [
        "x-hop",
        "keep-alive",
        "access-control-allow-origin",
        "access-control-whatever",
        "clear-site-data",
        "service-worker-allowed",
        "alt-svc",
        "nel",
        "report-to",
        "proxy-authenticate",
        "transfer-encoding",
    ] {
        assert!(values(&response, gone).is_empty(), "{gone} {response}");
    }
}

#[tokio::test]
async fn an_upstreams_own_cache_control_stays() {
    let (upstream, _) =
        answering("HTTP/1.1 200 OK\r\nCache-Control: max-age=5\r\nContent-Length: 0\r\n\r\n").await;
    let rig = rig(upstream, route()).await;
    assert_eq!(
        values(&rig.ask("GET /api HTTP/1.1", "").await, "cache-control"),
        ["max-age=5"]
    );
}

#[tokio::test]
async fn hp_24_answers_without_a_body_have_none() {
    for (method, answer, length) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 1155\r\n\r\n",
            &["1155"][..],
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &[],
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", &[]),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n",
            &[],
        ),
        (
            "GET",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            &["0"],
        ),
    ] {
        let (upstream, _) = answering(answer).await;
        let rig = rig(upstream, route()).await;
        let response = rig.ask(&format!("{method} /api HTTP/1.1"), "").await;
        assert!(
            response.ends_with("\r\n\r\n") && response.matches("HTTP/1.1").count() == 1,
            "{response}"
        );
        assert_eq!(values(&response, "content-length"), length, "{answer} {response}");
        assert!(values(&response, "link").is_empty());
    }
}

#[tokio::test]
async fn an_http_1_0_browser_is_spoken_to_in_its_own_way() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (upstream, seen) = answering(answer).await;
    let rig = rig(upstream, route()).await;
    let response = rig.ask("GET /api HTTP/1.0", "").await;
    assert!(
        response.starts_with("HTTP/1.0 200 OK\r\n") && response.ends_with("\r\n\r\nok"),
        "{response}"
    );
    assert!(values(&response, "transfer-encoding").is_empty());
    assert!(seen.lock().unwrap()[0].starts_with("GET /api HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_get_with_a_chunked_body_keeps_it() {
    let (upstream, seen) = answering(OK).await;
    let rig = rig(upstream, route()).await;
    let response = rig
        .ask(
            "GET /api HTTP/1.1\r\nTransfer-Encoding: chunked",
            "2\r\nhi\r\n0\r\n\r\n",
        )
        .await;
    assert_eq!(status(&response), "200");
    assert_eq!(values(&seen.lock().unwrap()[0], "transfer-encoding"), ["chunked"]);
}

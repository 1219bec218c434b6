//! The suite's own parts: a test that cannot fail proves nothing, so what judges is judged here.

use crate::support::browser::{SESSION, raw};
use crate::support::form;
use crate::support::html;
use crate::support::jar::{Jar, Site};
use crate::support::redis::Redis;
use crate::support::rogue::{Rogue, change};
use crate::support::secrets::{assert_none_in, canary, found_in, remember};
use crate::support::upstream::{Play, Upstream};
use crate::support::{jwt, random};
use base64::Engine as _;
use serde_json::{Value, json};
use std::net::SocketAddr;

#[test]
fn the_search_finds_what_it_knows_and_nothing_else() {
    let (known, basic) = (random(32), canary("client-secret"));
    remember(&known);
    assert_none_in(
        "nothing",
        "a log line with an id 0123456789012345678901234567890123456789012",
    );
    let header = base64::engine::general_purpose::STANDARD.encode(format!("app:{basic}"));
    let token = "eyJhbGciOiJSUzI1NiJ9.e30.x";
    for secret in [known.as_str(), &canary("at"), &header, token] {
        assert!(
            !found_in(&format!("GET /x?code={secret}&y")).is_empty(),
            "{secret}"
        );
        assert!(
            !found_in(&format!("{{\"cookie\":\"{SESSION}={secret}\"}}")).is_empty(),
            "{secret}"
        );
    }
}

#[test]
fn the_jar_is_as_strict_as_browsers() {
    let mut jar = Jar::default();
    let take = |jar: &mut Jar, line: &str| jar.take("app.localhost", &[line]);
    for refused in [
        "__Host-a=1; Path=/",
        "__Host-a=1; Path=/x; Secure",
        "__Host-a=1; Path=/; Secure; Domain=localhost",
        "__Host-Http-a=1; Path=/; Secure",
        "a=1; SameSite=None",
    ] {
        take(&mut jar, refused);
        assert!(jar.named("app.localhost", "").is_empty(), "{refused}");
    }
    take(
        &mut jar,
        "__Host-Http-strict=1; Path=/; Secure; HttpOnly; SameSite=Strict",
    );
    take(&mut jar, "lax=2; Path=/; Secure; SameSite=Lax");
    let header = |jar: &Jar, site, safe| jar.header("app.localhost", site, safe).unwrap_or_default();
    assert_eq!(
        header(&jar, Site::SameOrigin, false),
        "__Host-Http-strict=1; lax=2"
    );
    assert_eq!(header(&jar, Site::CrossSite, true), "lax=2");
    assert_eq!(header(&jar, Site::CrossSite, false), "");
    assert_eq!(jar.header("127.0.0.1", Site::None, true), None);
    take(&mut jar, "__Host-Http-strict=; Path=/; Max-Age=0");
    assert_eq!(
        header(&jar, Site::None, true),
        "__Host-Http-strict=1; lax=2",
        "a deletion without Secure fails"
    );
    take(
        &mut jar,
        "__Host-Http-strict=; Path=/; Max-Age=0; Secure; HttpOnly",
    );
    assert_eq!(header(&jar, Site::None, true), "lax=2");
}

#[test]
fn pages_and_forms_are_read_as_browsers_read_them() {
    let page = r#"<META http-equiv="refresh" content="0;url=/x?a=1&amp;b=2"><a class=y href="/x?a=1&amp;b=2">on</a>"#;
    assert_eq!(html::refresh_target(page).as_deref(), Some("/x?a=1&b=2"));
    assert_eq!(html::links(page), ["/x?a=1&b=2"]);
    assert_eq!(html::refresh_target("<p>nothing</p>"), None);
    let odd = "a:b%c+d é&=/";
    assert_eq!(form::decode(&form::encode(odd)), odd);
    assert_eq!(
        form::query("/x?a=1&b=%2F+#c"),
        [("a".into(), "1".into()), ("b".into(), "/ ".into())]
    );
    assert_eq!(form::with_parameter("/x?a=1&b=2", "a", Some("3")), "/x?b=2&a=3");
}

fn post(path: &str, form: &[(&str, &str)]) -> Vec<u8> {
    let body: Vec<_> = form
        .iter()
        .map(|(name, value)| format!("{name}={}", form::encode(value)))
        .collect();
    let body = body.join("&");
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Asks without the search that judges cloakroom's answers.
async fn ask(rogue: &Rogue, bytes: &[u8]) -> (u16, Value) {
    let address: SocketAddr = rogue.issuer.strip_prefix("http://").unwrap().parse().unwrap();
    let mut wire = crate::support::wire::Wire::new(tokio::net::TcpStream::connect(address).await.unwrap());
    wire.send(bytes).await.unwrap();
    let head = wire.head().await.unwrap().unwrap();
    let body = wire.body(head.response_framing("POST")).await.unwrap();
    (head.status(), serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn the_rogue_is_correct_until_told_otherwise_and_detects_reuse() {
    let rogue = Rogue::start().await;
    let secret = rogue.client_secret();
    // RFC 7636, appendix B.
    let (verifier, challenge) = (
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    );
    let url = format!(
        "{}/authorize?client_id=app&redirect_uri=http://x/cb&state=s&nonce=n&scope=openid+offline_access\
         &code_challenge={challenge}&code_challenge_method=S256",
        rogue.issuer
    );
    let code = form::parameter(&rogue.authorize(&url), "code").unwrap();
    let client = [("client_id", "app"), ("client_secret", secret.as_str())];
    let exchange = |code: &str, verifier: &str| {
        let mut pairs = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", "http://x/cb"),
        ];
        pairs.push(("code_verifier", verifier));
        pairs.extend(client);
        post("/token", &pairs)
    };
    let (status, tokens) = ask(&rogue, &exchange(&code, verifier)).await;
    assert_eq!(status, 200, "{tokens}");
    let (_, keys) = ask(&rogue, b"GET /jwks HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let claims = jwt::verify(tokens["id_token"].as_str().unwrap(), &keys);
    assert_eq!((&claims["nonce"], &claims["sub"]), (&json!("n"), &json!("alice")));
    assert_eq!(
        ask(&rogue, &exchange(&code, verifier)).await.0,
        400,
        "a code is good once"
    );
    let code = form::parameter(&rogue.authorize(&url), "code").unwrap();
    assert_eq!(ask(&rogue, &exchange(&code, "wrong")).await.0, 400, "PKCE");

    let renew = |token: &str| {
        let mut pairs = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
        pairs.extend(client);
        post("/token", &pairs)
    };
    let first = tokens["refresh_token"].as_str().unwrap();
    let (status, second) = ask(&rogue, &renew(first)).await;
    assert_eq!(status, 200);
    assert_eq!(ask(&rogue, &renew(first)).await.0, 400, "spent");
    assert_eq!(
        ask(&rogue, &renew(second["refresh_token"].as_str().unwrap()))
            .await
            .0,
        400,
        "and the family is dead"
    );
    rogue.script(|script| script.discovery = change(|document| document["issuer"] = "x".into()));
    let (_, document) = ask(
        &rogue,
        b"GET /.well-known/openid-configuration HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    .await;
    assert_eq!(document["issuer"], "x");
}

#[tokio::test]
async fn the_upstream_records_to_the_byte() {
    let upstream = Upstream::start().await;
    upstream.on("/a", Play::headers("X-A: 1\r\n"));
    let request = b"POST /a?b=%zz HTTP/1.1\r\nHost: x\r\nx-Odd: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: 1\r\n\r\n";
    let (reply, ended) = raw(upstream.address, request).await;
    assert_eq!((reply.unwrap().text().as_str(), ended), ("ok", false));
    let up = upstream.last();
    assert_eq!(
        (up.target.as_str(), up.body.as_slice(), up.complete),
        ("/a?b=%zz", &b"hi"[..], true)
    );
    assert_eq!(up.fields[1], ("x-Odd".to_owned(), "1".to_owned()));
    assert_eq!(up.trailers, [("T".to_owned(), "1".to_owned())]);
}

#[tokio::test]
async fn redis_starts_pauses_and_shows_what_is_in_it() {
    use redis::Commands as _;
    let mut redis = Redis::start().await;
    let _set: () = redis.connection().set_ex("k", "v", 60).unwrap();
    let entries = redis.dump();
    assert_eq!(
        (entries[0].key.as_str(), entries[0].content.as_slice()),
        ("k", &b"v"[..])
    );
    assert!(entries[0].ttl > 0);
    redis.pause();
    redis.resume();
    redis.kill();
    redis.open().await;
    assert!(redis.dump().is_empty());
    drop(Redis::start_tls().await);
}

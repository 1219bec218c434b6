//! The provider signs users out (contract 3.9): OpenID Connect Back-Channel Logout 1.0.

use crate::support::browser::{Browser, Reply, Request, raw};
use crate::support::cloakroom::Cloakroom;
use crate::support::config::Config;
use crate::support::form;
use crate::support::free_port;
use crate::support::jar::Site;
use crate::support::keys::{Key, Sign};
use crate::support::oidc_provider::OidcProvider;
use crate::support::redis::Redis;
use crate::support::rig::Rig;
use crate::support::rogue::{Rogue, Step, change};
use crate::support::secrets::canary;
use crate::support::upstream::Upstream;
use crate::support::{now, random, until};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const PATH: &str = "/bff/backchannel-logout";
const FORM: &str = "application/x-www-form-urlencoded";

/// The provider's request.
fn post(body: &str) -> Request {
    Request::bare("POST", PATH).with("Content-Type", FORM).body(body)
}

/// Posts a logout token, as the provider does.
async fn send(cloakroom: &Cloakroom, token: &str) -> Reply {
    let body = format!("logout_token={token}");
    cloakroom.browser().send(post(&body)).await
}

/// Held to what the specification and the contract ask of a success.
async fn ends(cloakroom: &Cloakroom, token: &str) {
    let reply = send(cloakroom, token).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, ""));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.headers("set-cookie").is_empty());
}

/// Held to what the contract asks of a refusal.
async fn refuses(cloakroom: &Cloakroom, token: &str, why: &str) {
    let reply = send(cloakroom, token).await;
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (400, "bad_request"),
        "{why}"
    );
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{why}");
}

async fn user(browser: &mut Browser) -> u16 {
    browser.fetch("GET", "/bff/user").await.status
}

/// The session is refused, on whatever replica, within a second (contract 4.9).
async fn is_out(browser: &mut Browser, why: &str) {
    let end = Instant::now() + Duration::from_secs(1);
    while user(browser).await != 401 {
        assert!(Instant::now() < end, "{why}: still signed in after a second");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The log says this (its lines come a moment after the answer).
async fn is_logged(cloakroom: &Cloakroom, text: &str) {
    until(5, text, || cloakroom.log().contains(text)).await;
}

/// Whether a logout token is remembered.
fn is_remembered(redis: &Redis) -> bool {
    redis
        .dump()
        .iter()
        .any(|entry| entry.key.ends_with(":logout-token"))
}

/// Somebody signs in, in a fresh browser; and the provider's own session.
async fn signed_in_as(rig: &Rig, sub: &str) -> (Browser, String) {
    let mut browser = rig.browser();
    browser.login_as(&rig.rogue, sub, "/").await;
    (browser, rig.rogue.sid())
}

#[tokio::test]
async fn lo_08_only_a_form_with_one_logout_token_is_taken() {
    let rig = Rig::start().await;
    let good = || {
        format!(
            "logout_token={}",
            rig.rogue.logout_token(&json!({ "sub": "bob" }))
        )
    };
    let mut provider = rig.browser();
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let request = Request::bare(method, PATH)
            .with("Content-Type", FORM)
            .body(good());
        let reply = provider.send(request).await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some("POST")),
            "{method}"
        );
    }
    let two = format!("{}&{}", good(), good());
    for (what, request) in [
        (
            "JSON",
            Request::bare("POST", PATH)
                .with("Content-Type", "application/json")
                .body("{}"),
        ),
        (
            "a form that says it is JSON",
            Request::bare("POST", PATH)
                .with("Content-Type", "application/json")
                .body(good()),
        ),
        ("no type", Request::bare("POST", PATH).body(good())),
        ("two types", post(&good()).with("Content-Type", FORM)),
        ("nothing", post("")),
        ("no token", post("state=1")),
        ("an empty token", post("logout_token=")),
        ("two tokens", post(&two)),
        ("a token twice", post(&format!("{0}&{0}", good()))),
        ("a malformed escape", post(&format!("{}&x=%zz", good()))),
        ("no UTF-8", post(&format!("{}&x=%ff", good()))),
        (
            "a token in the query",
            Request::bare("POST", &format!("{PATH}?{}", good())).with("Content-Type", FORM),
        ),
    ] {
        let reply = provider.send(request).await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (400, "bad_request"),
            "{what}"
        );
    }
    let large = provider
        .send(post(&format!("{}&x={}", good(), "x".repeat(64 * 1024))))
        .await;
    assert_eq!((large.status, large.problem().as_str()), (413, "too_large"));

    // Other parameters, a charset, a body in chunks; and whatever a browser would be refused for.
    let sent = good();
    let chunked = format!("{:x}\r\n{sent}\r\n0\r\n\r\n", sent.len());
    for (what, request) in [
        (
            "other parameters",
            post(&format!("state=1&{}&scope=a&scope=b", good())),
        ),
        (
            "a charset",
            Request::bare("POST", PATH)
                .with("Content-Type", "Application/X-WWW-form-urlencoded; charset=UTF-8")
                .body(good()),
        ),
        (
            "chunks",
            Request::bare("POST", PATH)
                .with("Content-Type", FORM)
                .with("Transfer-Encoding", "chunked")
                .body(chunked),
        ),
        (
            "another origin",
            post(&good())
                .with("Origin", "https://id.example.com")
                .with("Sec-Fetch-Site", "cross-site"),
        ),
        (
            "a stranger's cookie",
            post(&good()).with("Cookie", "__Host-Http-cloakroom=x"),
        ),
    ] {
        let reply = provider.send(request).await;
        assert_eq!(reply.status, 200, "{what}: {}", reply.text());
    }
}

#[tokio::test]
async fn lo_08_a_form_that_stops_coming_is_not_waited_for() {
    let rig = Rig::start().await;
    let begun = Instant::now();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: {}\r\nContent-Type: {FORM}\r\nContent-Length: 500\r\n\r\nlogout_token=",
        rig.browser().host()
    );
    let (reply, _) = raw(rig.cloakroom.address(), head.as_bytes()).await;
    assert_eq!(reply.unwrap().status, 408);
    assert!(begun.elapsed() < Duration::from_secs(13), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn lo_09_lo_10_lo_11_lo_12_lo_14_a_token_that_does_not_hold_ends_nothing() {
    let rig = Rig::start().await;
    let (mut browser, sid) = signed_in_as(&rig, "alice").await;
    let rogue = &rig.rogue;
    let named = |more: Value| {
        let mut claims = json!({ "sub": "alice", "sid": sid });
        claims
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        claims
    };
    for (row, sign) in [
        ("lo_09 none", Sign::None("none")),
        ("lo_09 nOnE", Sign::None("nOnE")),
        ("lo_09 HS256 under the public key", Sign::HsUnderPublicKey),
        ("lo_09 HS256 under the client secret", Sign::HsUnderClientSecret),
        ("lo_09 another key", Sign::With(Key::Rs256Other)),
        ("lo_09 a turned bit", Sign::Broken(Key::Rs256)),
        ("lo_09 another alg than signed", Sign::Claims("ES256")),
        (
            "lo_09 an alg that the metadata does not name",
            Sign::Claims("RS512"),
        ),
    ] {
        refuses(
            &rig.cloakroom,
            &rogue.logout_token_as(sign, |_| (), &named(json!({}))),
            row,
        )
        .await;
    }
    let jwk = change(|header| header["jwk"] = Key::Rs256Other.jwk()).unwrap();
    let own_key = rogue.logout_token_as(Sign::With(Key::Rs256Other), |head| jwk(head), &named(json!({})));
    refuses(&rig.cloakroom, &own_key, "md_08: a token that brings its own key").await;
    let event = "http://schemas.openid.net/event/backchannel-logout";
    for (row, claims) in [
        ("lo_10 iss", json!({ "iss": format!("{}/", rogue.issuer) })),
        ("lo_10 another iss", json!({ "iss": "https://id.example.com" })),
        ("lo_10 no iss", json!({ "iss": null })),
        ("lo_10 aud", json!({ "aud": "other" })),
        ("lo_10 a second aud", json!({ "aud": ["app", "other"] })),
        ("lo_10 no aud", json!({ "aud": null })),
        ("lo_10 expired", json!({ "iat": now() - 200, "exp": now() - 100 })),
        ("lo_10 no exp", json!({ "exp": null })),
        ("lo_10 no iat", json!({ "iat": null })),
        ("lo_10 old", json!({ "iat": now() - 700, "exp": now() + 3000 })),
        (
            "lo_10 from the future",
            json!({ "iat": now() + 200, "exp": now() + 300 }),
        ),
        ("lo_10 nobody", json!({ "sub": null, "sid": null })),
        ("lo_10 a sid that is no text", json!({ "sid": 5 })),
        ("lo_10 an empty sub", json!({ "sub": "" })),
        ("lo_11 no events", json!({ "events": null })),
        ("lo_11 a list", json!({ "events": [event] })),
        (
            "lo_11 another event",
            json!({ "events": { "http://schemas.openid.net/event/other": {} } }),
        ),
        ("lo_11 true", json!({ "events": { event: true } })),
        ("lo_12 a nonce", json!({ "nonce": "n" })),
        ("lo_13 no jti", json!({ "jti": null })),
        ("lo_13 an empty jti", json!({ "jti": "" })),
    ] {
        refuses(&rig.cloakroom, &rogue.logout_token(&named(claims)), row).await;
    }
    for typ in ["at+jwt", "secevent+jwt", "x"] {
        let head = |head: &mut Value| head["typ"] = typ.into();
        let token = rogue.logout_token_as(Sign::With(Key::Rs256), head, &named(json!({})));
        refuses(&rig.cloakroom, &token, &format!("lo_14 {typ}")).await;
    }
    for junk in ["x", "a.b.c", "..", "e30.e30.AAAA"] {
        refuses(&rig.cloakroom, junk, junk).await;
    }
    assert_eq!(user(&mut browser).await, 200, "still signed in after all of that");
    // All the algorithms that sign somebody in sign somebody out.
    for (sign, typ) in [
        (Key::Rs256, "JWT"),
        (Key::Ps256, "logout+jwt"),
        (Key::Es256, "logout+jwt"),
        (Key::EdDsa, "JWT"),
    ] {
        let (mut browser, sid) = signed_in_as(&rig, "alice").await;
        let head = |head: &mut Value| head["typ"] = typ.into();
        ends(
            &rig.cloakroom,
            &rogue.logout_token_as(Sign::With(sign), head, &json!({ "sid": sid })),
        )
        .await;
        assert_eq!(user(&mut browser).await, 401, "{sign:?}");
    }
    is_logged(&rig.cloakroom, "logout_refused").await;
}

#[tokio::test]
async fn id_13_an_id_token_is_no_logout_token() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let reply = browser.fetch("POST", "/bff/logout").await;
    let id_token = form::parameter(reply.location(), "id_token_hint").unwrap();
    refuses(&rig.cloakroom, &id_token, "an ID token").await;
}

#[tokio::test]
async fn lo_15_lo_16_a_sid_ends_one_session_and_a_sub_all_of_the_user() {
    let rig = Rig::on_redis(|config| config).await;
    let other = Cloakroom::start(&rig.config.replica()).await;
    let (mut first, first_sid) = signed_in_as(&rig, "alice").await;
    let (second, second_sid) = signed_in_as(&rig, "alice").await;
    let (third, _) = signed_in_as(&rig, "alice").await;
    let (mut bob, _) = signed_in_as(&rig, "bob").await;
    // The others are at the other replica.
    let (mut second, mut third) = (second.at(other.port), third.at(other.port));
    assert_eq!((user(&mut second).await, user(&mut third).await), (200, 200));

    // The sid of one, the sub of another: nobody's.
    let both = rig.rogue.logout_token(&json!({ "sub": "bob", "sid": first_sid }));
    ends(&rig.cloakroom, &both).await;
    assert_eq!(
        (user(&mut first).await, user(&mut bob).await),
        (200, 200),
        "both have to fit"
    );

    ends(
        &rig.cloakroom,
        &rig.rogue.logout_token(&json!({ "sid": first_sid })),
    )
    .await;
    is_out(&mut first, "its sid").await;
    assert_eq!(
        (user(&mut second).await, user(&mut third).await),
        (200, 200),
        "a sid ends one"
    );

    let both = rig
        .rogue
        .logout_token(&json!({ "sub": "alice", "sid": second_sid }));
    ends(&rig.cloakroom, &both).await;
    is_out(&mut second, "both of it").await;
    assert_eq!(user(&mut third).await, 200, "both end that one");

    let (mut fourth, _) = signed_in_as(&rig, "alice").await;
    ends(
        &rig.cloakroom,
        &rig.rogue.logout_token(&json!({ "sub": "alice" })),
    )
    .await;
    is_out(&mut third, "a sub ends all").await;
    is_out(&mut fourth, "a sub ends all").await;
    assert_eq!(user(&mut bob).await, 200, "and nobody else's");
    assert!(!third.fetch("GET", "/api/x").await.text().contains("ok"));

    for nobody in [
        json!({ "sub": "carol" }),
        json!({ "sid": "unknown" }),
        json!({ "sub": "alice" }),
    ] {
        ends(&rig.cloakroom, &rig.rogue.logout_token(&nobody)).await;
    }
    let metrics = rig.cloakroom.admin("/metrics").await.text();
    let counted = "cloakroom_logouts_total{kind=\"backchannel\"} 4\n";
    assert!(metrics.contains(counted), "sessions, not tokens: {metrics}");
}

#[tokio::test]
async fn a_logout_is_told_to_the_operator() {
    let rig = Rig::start().await;
    let (_alice, sid) = signed_in_as(&rig, "alice").await;
    ends(&rig.cloakroom, &rig.rogue.logout_token(&json!({ "sid": sid }))).await;
    is_logged(&rig.cloakroom, r#""cause":"backchannel""#).await;
    let log = rig.cloakroom.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_logout = |line: &Value| line.to_string().contains(r#""cause":"backchannel""#);
    let told: Vec<Value> = lines.filter(of_logout).collect();
    assert_eq!(told.len(), 1, "{told:#?}");
    let told = told[0].to_string();
    assert!(
        told.contains("cloakroom::audit") && told.contains(r#""event":"logout""#),
        "{told}"
    );
    assert!(
        told.contains(r#""was_there":true"#) && told.contains(r#""provider":"main""#),
        "{told}"
    );
    let at = told.find(r#""session":""#).expect("a reference") + 11;
    assert!(told[at..at + 64].bytes().all(|b| b.is_ascii_hexdigit()), "{told}");
    let metrics = rig.cloakroom.admin("/metrics").await.text();
    assert!(
        metrics.contains(r#"cloakroom_logouts_total{kind="backchannel"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn lo_15_another_issuers_users_and_sessions_are_left_alone() {
    let other = Rogue::start().await;
    let (issuer, secret) = (other.issuer.clone(), other.client_secret());
    let rig = Rig::with(|config| {
        let provider = json!({ "issuer": issuer, "client_id": "app", "client_secret": secret });
        config.set("providers.other", provider)
    })
    .await;
    for rogue in [&rig.rogue, &other] {
        rogue.script(|script| script.claims = change(|claims| claims["sid"] = "the-same".into()));
    }
    let (mut here, mut there) = (rig.browser(), rig.browser());
    for (browser, rogue, name) in [(&mut here, &rig.rogue, "main"), (&mut there, &other, "other")] {
        let url = browser.begin(&format!("?provider={name}")).await;
        browser.come_back(&rogue.authorize(&url)).await;
        assert_eq!(user(browser).await, 200, "{name}");
    }
    // What one signs is not the other's word.
    let kid = |head: &mut Value| head["kid"] = "ec-1".into();
    let forged = other.logout_token_as(
        Sign::Broken(Key::Es256),
        kid,
        &json!({ "iss": rig.rogue.issuer, "sub": "alice" }),
    );
    refuses(&rig.cloakroom, &forged, "a signature of nobody's").await;
    for whom in [
        json!({ "sid": "the-same" }),
        json!({ "sub": "alice" }),
        json!({ "sub": "alice", "sid": "the-same" }),
    ] {
        ends(&rig.cloakroom, &other.logout_token(&whom)).await;
        assert_eq!(
            (user(&mut here).await, user(&mut there).await),
            (200, 401),
            "{whom}"
        );
    }
    ends(
        &rig.cloakroom,
        &rig.rogue.logout_token(&json!({ "sid": "the-same" })),
    )
    .await;
    assert_eq!(user(&mut here).await, 401);
}

#[tokio::test]
async fn lo_13_a_token_is_acted_on_once_over_all_replicas() {
    let rig = Rig::on_redis(|config| config).await;
    let other = Cloakroom::start(&rig.config.replica()).await;
    let (mut alice, _) = signed_in_as(&rig, "alice").await;
    let (jti, exp) = (random(16), now() + 240);
    let claims = json!({ "sub": "alice", "jti": jti, "iat": now() - 10, "exp": exp });
    let token = rig.rogue.logout_token(&claims);
    ends(&rig.cloakroom, &token).await;
    assert_eq!(user(&mut alice).await, 401);

    // Signed in anew, by a login that is newer than the token.
    let (mut alice, _) = signed_in_as(&rig, "alice").await;
    assert_eq!(user(&mut alice).await, 200);
    refuses(&other, &token, "on the other replica").await;
    refuses(&rig.cloakroom, &token, "on the same one").await;
    refuses(
        &other,
        &rig.rogue.logout_token(&claims),
        "the same jti, signed anew",
    )
    .await;
    assert_eq!(user(&mut alice).await, 200, "what comes again ends nothing");

    let redis = rig.redis.as_ref().unwrap();
    let marks = redis
        .dump()
        .into_iter()
        .filter(|entry| entry.key.ends_with(":logout-token"));
    let marks: Vec<_> = marks.collect();
    assert_eq!(marks.len(), 1);
    assert!(!marks[0].key.contains(&jti), "nothing in the store is readable");
    let (left, least) = (marks[0].ttl / 1000, i64::try_from(exp - now()).unwrap() + 55);
    assert!(
        (least..=least + 10).contains(&left),
        "{left} s: exp, and the leeway"
    );

    // However many come at once, one is taken.
    for _ in 0..5 {
        let token = rig.rogue.logout_token(&json!({ "sub": "nobody" }));
        let (a, b) = tokio::join!(send(&rig.cloakroom, &token), send(&other, &token));
        let mut statuses = [a.status, b.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400]);
    }
    // Another issuer's jti, or another one of this issuer's, is another token.
    ends(&other, &rig.rogue.logout_token(&json!({ "sub": "alice" }))).await;
    is_out(&mut alice, "another token, at the other replica").await;
}

#[tokio::test]
async fn lo_18_lo_13_while_the_store_is_away_nothing_is_done_and_nothing_remembered() {
    let rig = Rig::on_redis(|config| config).await;
    let (mut alice, sid) = signed_in_as(&rig, "alice").await;
    let token = rig.rogue.logout_token(&json!({ "sub": "alice", "sid": sid }));
    let redis = rig.redis.as_ref().unwrap();
    redis.pause();
    let begun = Instant::now();
    let reply = send(&rig.cloakroom, &token).await;
    redis.resume();
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (503, "store_unavailable")
    );
    assert!(reply.header("retry-after").is_some());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let other = Cloakroom::start(&rig.config.replica()).await;
    assert_eq!(user(&mut alice.at(other.port)).await, 200, "nothing was done");
    assert!(!is_remembered(redis), "nothing is remembered");
    ends(&other, &token).await;
    is_out(&mut alice, "the provider's second try works").await;
    assert!(is_remembered(redis));
}

#[tokio::test]
async fn lo_13_lo_18_what_could_not_be_ended_is_not_remembered_either() {
    let rig = Rig::on_redis(|config| config).await;
    let other = Cloakroom::start(&rig.config.replica()).await;
    let (mut first, _) = signed_in_as(&rig, "alice").await;
    let (mut second, _) = signed_in_as(&rig, "alice").await;
    let (mut first_there, mut second_there) = (first.at(other.port), second.at(other.port));
    let redis = rig.redis.as_ref().unwrap();
    let allow = |rule: &str| {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("default").arg(rule);
        command.exec(&mut redis.connection()).unwrap();
    };
    let token = rig.rogue.logout_token(&json!({ "sub": "alice" }));
    allow("-del");
    let reply = send(&rig.cloakroom, &token).await;
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (503, "store_unavailable")
    );
    assert!(!is_remembered(redis));
    is_out(&mut first, "this replica refuses all of them").await;
    is_out(&mut second, "this replica refuses all of them").await;
    assert_eq!(
        (user(&mut first_there).await, user(&mut second_there).await),
        (200, 200)
    );
    allow("+del");
    ends(&other, &token).await;
    is_out(&mut first_there, "the second try").await;
    is_out(&mut second_there, "the second try").await;
    refuses(&rig.cloakroom, &token, "now it is remembered").await;
}

#[tokio::test]
async fn without_the_providers_keys_a_token_is_put_off() {
    let rig = Rig::start().await;
    let token = rig.rogue.logout_token(&json!({ "sub": "alice" }));
    for broken in [
        &b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        rig.rogue
            .script(|script| drop(script.raw.insert("/jwks", broken.to_vec())));
        let reply = send(&rig.cloakroom, &token).await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (503, "provider_unavailable")
        );
        assert!(reply.header("retry-after").is_some());
    }
    rig.rogue.behave();
    let end = Instant::now() + Duration::from_secs(10);
    while send(&rig.cloakroom, &token).await.status == 503 {
        assert!(Instant::now() < end, "the provider is asked again within 10 s");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    refuses(&rig.cloakroom, &token, "it was taken").await;
}

#[tokio::test]
async fn md_06_a_flood_of_junk_makes_few_fetches() {
    let rig = Rig::start().await;
    let (mut alice, _) = signed_in_as(&rig, "alice").await;
    let before = rig.rogue.count("/jwks");
    for n in 0..60 {
        let kid = |head: &mut Value| head["kid"] = format!("unknown-{n}").into();
        let junk = rig
            .rogue
            .logout_token_as(Sign::With(Key::Rs256Other), kid, &json!({ "sub": "alice" }));
        refuses(&rig.cloakroom, &junk, "junk").await;
    }
    let fetches = rig.rogue.count("/jwks") - before;
    assert!(fetches <= 3, "{fetches} fetches");
    assert_eq!(user(&mut alice).await, 200);
    ends(
        &rig.cloakroom,
        &rig.rogue.logout_token(&json!({ "sub": "alice" })),
    )
    .await;
    assert_eq!(user(&mut alice).await, 401);
}

#[tokio::test]
async fn lo_17_a_login_under_way_loses() {
    let rig = Rig::on_redis(|config| config).await;
    let other = Cloakroom::start(&rig.config.replica()).await;
    for by_sid in [true, false] {
        let mut browser = rig.browser();
        let url = browser.begin("?return_to=/").await;
        let callback = rig.rogue.authorize(&url);
        // The tokens are made, and their answer is held until the logout is through.
        let (issued, through) = (rig.rogue.issued(), Arc::new(Notify::new()));
        let held = Step::Held(through.clone());
        rig.rogue.script(|script| script.steps.push_back(held));
        let sid = rig.rogue.sid();
        let logout = async {
            until(10, "the tokens", || rig.rogue.issued() > issued).await;
            let whom = if by_sid {
                json!({ "sub": "alice", "sid": sid })
            } else {
                json!({ "sub": "alice" })
            };
            ends(&other, &rig.rogue.logout_token(&whom)).await;
            through.notify_one();
        };
        let (reply, ()) = tokio::join!(browser.come_back(&callback), logout);
        assert!(reply.leads_to().is_none(), "by_sid: {by_sid}: {}", reply.status);
        assert!((400..=503).contains(&reply.status), "{}", reply.status);
        assert!(
            browser.session().is_none(),
            "no session for who was logged out meanwhile"
        );
        assert_eq!(user(&mut browser).await, 401);
        let records = rig.redis.as_ref().unwrap().dump();
        assert!(
            records.iter().all(|entry| !entry.key.ends_with(":session")),
            "no record is left"
        );
    }
    // Who signs in afterwards is let in; within one second nobody knows which came first.
    let last = now();
    until(5, "the next second", || now() > last).await;
    let (mut alice, _) = signed_in_as(&rig, "alice").await;
    assert_eq!(user(&mut alice).await, 200);
}

#[tokio::test]
async fn further_hosts_reach_this_endpoint_and_nothing_else() {
    let rig = Rig::with(|config| {
        config
            .set("server.hosts", json!(["cloakroom.default.svc", "pinned:8080"]))
            .set("public_url", "https://app.example.com")
    })
    .await;
    let ask = async |head: &str, host: &str, body: &str| {
        let length = body.len();
        let text = format!(
            "{head} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {FORM}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        raw(rig.cloakroom.address(), text.as_bytes()).await.0.unwrap()
    };
    let post = format!("POST {PATH}");
    for host in [
        "cloakroom.default.svc",
        "CLOAKROOM.default.svc.:8080",
        "cloakroom.default.svc:80",
        "pinned:8080",
        "app.example.com",
        "app.example.com:443",
    ] {
        let token = rig.rogue.logout_token(&json!({ "sub": "alice" }));
        let reply = ask(&post, host, &format!("logout_token={token}")).await;
        assert_eq!(reply.status, 200, "{host}: {}", reply.text());
        assert_eq!(ask(&post, host, "").await.status, 400, "{host}");
    }
    let token = rig.rogue.logout_token(&json!({ "sub": "alice" }));
    for host in [
        "pinned",
        "pinned:8081",
        "cloakroom.default.svc.evil.example",
        "127.0.0.1",
        "app.example.com:8443",
    ] {
        let reply = ask(&post, host, &format!("logout_token={token}")).await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (421, "misdirected"),
            "{host}"
        );
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{host}");
    }
    for elsewhere in [
        "GET /bff/user",
        "POST /bff/logout",
        "GET /bff/login",
        "GET /bff/frontchannel-logout?iss=x&sid=y",
        "GET /bff",
        "POST /bff/backchannel-logout/",
        "POST /bff/backchannel-logout/x",
        "POST /bff/Backchannel-logout",
        "GET /api/x",
    ] {
        let reply = ask(elsewhere, "cloakroom.default.svc", "").await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (421, "misdirected"),
            "{elsewhere}"
        );
    }
}

/// The certified provider, which sends its logout tokens to this URI.
async fn certified(uri: impl Fn(&Config) -> String) -> (OidcProvider, Cloakroom, Upstream) {
    let (port, secret, upstream) = (free_port(), canary("client-secret"), Upstream::start().await);
    let config = Config::new(&format!("http://127.0.0.1:{port}"), &secret, &upstream.url());
    let config = config.set("server.hosts", json!(["127.0.0.1"]));
    let origin = config.public_url();
    let provider = OidcProvider::start(&json!({
        "issuer_host": "127.0.0.1", "port": port, "login": "auto",
        "clients": [{
            "client_id": "app", "client_secret": secret,
            "redirect_uris": [format!("{origin}/bff/callback")],
            "post_logout_redirect_uris": [format!("{origin}/")],
            "backchannel_logout_uri": uri(&config),
        }],
    }));
    (provider, Cloakroom::start(&config).await, upstream)
}

#[tokio::test]
async fn lo_15_who_signs_out_at_a_certified_provider_is_signed_out_here() {
    for further in [false, true] {
        let (provider, cloakroom, _upstream) = certified(|config| {
            let origin = if further {
                format!("http://127.0.0.1:{}", config.port)
            } else {
                config.public_url()
            };
            format!("{origin}{PATH}")
        })
        .await;
        let mut browser = cloakroom.browser();
        let (mut url, mut site) = (
            "/bff/login?return_to=/&login_hint=alice".to_owned(),
            Site::SameOrigin,
        );
        while let Some(next) = browser.navigate(&url, site).await.leads_to() {
            let here = if url.starts_with('/') {
                &browser.origin
            } else {
                &provider.issuer
            };
            url = if next.starts_with('/') {
                format!("{here}{next}")
            } else {
                next
            };
            site = if url.starts_with(&browser.origin) {
                Site::SameOrigin
            } else {
                Site::CrossSite
            };
        }
        assert_eq!(user(&mut browser).await, 200, "{url}");
        // At the provider, not here: its page, and the button on it.
        let page = browser
            .navigate(&format!("{}/session/end", provider.issuer), Site::None)
            .await
            .text();
        let value = |name: &str| {
            let (_, rest) = page
                .split_once(name)
                .unwrap_or_else(|| panic!("no {name} in {page}"));
            rest.split('"').next().unwrap().to_owned()
        };
        let (action, xsrf) = (value("action=\""), value("name=\"xsrf\" value=\""));
        let confirm = Request::bare("POST", &action).with("Content-Type", FORM);
        let reply = browser
            .send(confirm.body(format!("xsrf={xsrf}&logout=yes")))
            .await;
        assert!(matches!(reply.status, 200..=303), "{}", reply.text());
        // It sends the token before it answers.
        assert_eq!(
            user(&mut browser).await,
            401,
            "further: {further}\n{}",
            cloakroom.log()
        );
        is_logged(&cloakroom, r#""cause":"backchannel""#).await;
    }
}

#[tokio::test]
async fn the_address_to_register_is_said_at_the_start() {
    let rig = Rig::start().await;
    let uri = format!("{}{PATH}", rig.cloakroom.origin);
    is_logged(&rig.cloakroom, &uri).await;
    assert!(!rig.cloakroom.log().contains("frontchannel_logout_uri"));
}

//! Access tokens that age and expire (contract 4.7, 4.8).
//!
//! A token that lives two seconds ages after one of them (half its lifetime) and has expired after two.

use crate::support::browser::{Browser, Reply, Request};
use crate::support::cloakroom::Cloakroom;
use crate::support::keys::{Key, Sign};
use crate::support::rig::Rig;
use crate::support::rogue::{Direction, Step, change};
use crate::support::{until, within};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// Signs in with a token that lives so long, and lets `seconds` pass. Refreshed tokens live five minutes.
async fn aged(rig: &Rig, lifetime: u64, seconds: f64) -> Browser {
    rig.rogue.script(|script| script.lifetime = Some(lifetime));
    let browser = rig.signed_in().await;
    rig.rogue.script(|script| script.lifetime = None);
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    browser
}

async fn ageing(rig: &Rig) -> Browser {
    aged(rig, 10, 5.1).await
}

async fn expired(rig: &Rig) -> Browser {
    aged(rig, 1, 1.2).await
}

async fn bearer(rig: &Rig, browser: &mut Browser) -> String {
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    rig.upstream.last().bearer().unwrap().to_owned()
}

#[tokio::test]
async fn rf_01_an_ageing_token_goes_at_once_and_one_refresh_runs_behind_it() {
    let rig = Rig::start().await;
    let mut browser = ageing(&rig).await;
    rig.rogue
        .script(|script| script.steps.push_back(Step::Late(Duration::from_secs(3))));
    let start = Instant::now();
    let old = bearer(&rig, &mut browser).await;
    for _ in 0..5 {
        assert_eq!(bearer(&rig, &mut browser).await, old);
    }
    assert!(
        start.elapsed() < Duration::from_millis(2_500),
        "nobody waits: {:?}",
        start.elapsed()
    );
    until(5, "the refresh", || rig.rogue.grants("refresh_token") == 1).await;
    let mut new = old.clone();
    while new == old {
        assert!(start.elapsed() < Duration::from_secs(8));
        new = bearer(&rig, &mut browser).await;
    }
    assert_eq!(rig.rogue.subject_of(&new).as_deref(), Some("alice"));
    assert_eq!(rig.rogue.grants("refresh_token"), 1, "one refresh");
}

#[tokio::test]
async fn rf_02_expired_token_waits_for_the_one_refresh() {
    let rig = Rig::start().await;
    let browser = expired(&rig).await;
    rig.rogue
        .script(|script| script.steps.push_back(Step::Late(Duration::from_millis(300))));
    let barrier = Arc::new(Barrier::new(50));
    let mut work = JoinSet::new();
    for n in 0..50 {
        let (mut browser, barrier) = (browser.clone(), barrier.clone());
        work.spawn(async move {
            barrier.wait().await;
            browser
                .fetch(if n % 2 == 0 { "GET" } else { "POST" }, "/api/x")
                .await
                .status
        });
    }
    while let Some(status) = work.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(rig.rogue.grants("refresh_token"), 1);
    let tokens: std::collections::BTreeSet<_> = rig
        .upstream
        .requests()
        .iter()
        .map(|request| request.bearer().unwrap().to_owned())
        .collect();
    assert_eq!(tokens.len(), 1, "all with the new token");
}

#[tokio::test]
async fn rf_02_rf_04_two_replicas_refresh_once_against_a_provider_that_detects_reuse() {
    let rig = Rig::on_redis(|config| config).await;
    let other = Cloakroom::start(&rig.config.replica()).await;
    let browser = expired(&rig).await;
    rig.rogue
        .script(|script| script.steps.push_back(Step::Late(Duration::from_millis(300))));
    let barrier = Arc::new(Barrier::new(50));
    let mut work = JoinSet::new();
    for n in 0..50 {
        let port = if n % 2 == 0 {
            rig.cloakroom.port
        } else {
            other.port
        };
        let (mut browser, barrier) = (browser.at(port), barrier.clone());
        work.spawn(async move {
            barrier.wait().await;
            browser.fetch("GET", "/api/x").await.status
        });
    }
    while let Some(status) = work.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(rig.rogue.grants("refresh_token"), 1, "over all replicas");
    for port in [rig.cloakroom.port, other.port] {
        assert_eq!(browser.at(port).fetch("GET", "/api/x").await.status, 200);
    }
    assert_eq!(rig.rogue.grants("refresh_token"), 1);
}

#[tokio::test]
async fn rf_18_a_refresh_token_is_shown_to_its_provider_alone() {
    let rig = Rig::on_redis(|config| config).await;
    let mut browser = ageing(&rig).await;
    let is_in = |reply: &Reply| format!("{:?}{}", reply.head, reply.text()).contains("CANARY-rt");
    for path in ["/api/x", "/bff/user", "/api/x"] {
        assert!(!is_in(&browser.fetch("GET", path).await), "{path}");
        until(5, "the refresh", || rig.rogue.grants("refresh_token") == 1).await;
    }
    let calls = rig.rogue.calls("/token");
    let shown = calls.iter().filter_map(|call| call.value("refresh_token"));
    assert!(shown.count() == 1, "its provider has seen it");
    let went_up = format!("{:?}", rig.upstream.requests());
    assert!(went_up.contains("CANARY-at") && !went_up.contains("CANARY-rt"));
    // Sealed: what the whole of Redis shows is looked at here, and again when it goes.
    rig.redis.as_ref().unwrap().search();
    assert!(!is_in(&browser.fetch("POST", "/bff/logout").await));
}

#[tokio::test]
async fn rf_08_invalid_grant_ends_the_session_with_one_call() {
    let rig = Rig::start().await;
    let mut browser = expired(&rig).await;
    rig.rogue.forget_refresh_tokens();
    let before = rig.upstream.connections();
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!((reply.status, reply.problem().as_str()), (401, "unauthenticated"));
    assert!(reply.clears_session());
    assert!(browser.session().is_none());
    assert_eq!(rig.rogue.grants("refresh_token"), 1);
    assert_eq!(rig.upstream.connections(), before, "class_k");

    let mut browser = ageing(&rig).await;
    rig.rogue.forget_refresh_tokens();
    assert_eq!(
        browser.fetch("GET", "/api/x").await.status,
        200,
        "it goes with the token it has"
    );
    let start = Instant::now();
    while browser.fetch("GET", "/bff/user").await.status == 200 {
        assert!(start.elapsed() < Duration::from_secs(3), "the session lives on");
    }
}

#[tokio::test]
async fn rf_10_class_e_a_refresh_that_names_somebody_else_ends_the_session() {
    let rig = Rig::start().await;
    for (name, value) in [
        ("sub", "mallory"),
        ("iss", "https://evil.example"),
        ("aud", "other"),
    ] {
        rig.rogue.behave();
        let mut browser = expired(&rig).await;
        rig.rogue
            .script(|script| script.refreshed_claims = change(move |c| c[name] = value.into()));
        let before = rig.upstream.count();
        let reply = browser.fetch("GET", "/api/x").await;
        assert_eq!((reply.status, reply.clears_session()), (401, true), "{name}");
        assert_eq!(rig.upstream.count(), before, "{name}: the new token goes nowhere");
    }
}

#[tokio::test]
async fn rf_09_oa_07_what_is_no_invalid_grant_keeps_the_session() {
    let rig = Rig::start().await;
    let mut browser = expired(&rig).await;
    let answer = |status, body: &str| Step::Answer(status, "", body.to_owned());
    let steps = [
        answer(500, "oops"),
        answer(429, "{}"),
        answer(401, r#"{"error":"invalid_client"}"#),
        answer(400, r#"{"error":"unauthorized_client"}"#),
        answer(400, r#"{"error":"invalid_request"}"#),
        answer(400, "<html>"),
        answer(200, "<html>"),
        answer(200, r#"{"error":"invalid_grant"}"#),
        answer(200, "{}"),
        Step::DropBefore,
    ];
    for step in steps {
        let shown = format!("{step:?}");
        rig.rogue.script(|script| script.always = Some(step));
        let reply = browser.fetch("GET", "/api/x").await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (503, "provider_unavailable"),
            "{shown}"
        );
        assert!(reply.header("retry-after").unwrap().parse::<u32>().is_ok());
        assert!(reply.cookies().is_empty(), "{shown}");
        assert_eq!(
            browser.fetch("GET", "/bff/user").await.status,
            200,
            "{shown}: the session lives"
        );
    }
    rig.rogue.behave();
    within(10, "the provider to be asked again", async {
        while browser.fetch("GET", "/api/x").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(rig.upstream.last().bearer().is_some());
}

#[tokio::test]
async fn rf_14_a_failed_refresh_is_not_tried_again_by_every_waiting_request() {
    let rig = Rig::start().await;
    let browser = expired(&rig).await;
    rig.rogue
        .script(|script| script.always = Some(Step::Answer(500, "", String::new())));
    let mut work = JoinSet::new();
    for _ in 0..50 {
        let mut browser = browser.clone();
        work.spawn(async move { browser.fetch("GET", "/api/x").await.status });
    }
    while let Some(status) = work.join_next().await {
        assert_eq!(status.unwrap(), 503);
    }
    assert!(
        rig.rogue.grants("refresh_token") <= 2,
        "{}",
        rig.rogue.grants("refresh_token")
    );
}

#[tokio::test]
async fn rf_09_a_living_token_goes_on_while_the_provider_is_away() {
    let mut rig = Rig::start().await;
    let mut browser = aged(&rig, 60, 0.0).await;
    let token = bearer(&rig, &mut browser).await;
    rig.rogue.close().await;
    for _ in 0..3 {
        assert_eq!(bearer(&rig, &mut browser).await, token);
    }
    let mut ages = rig.browser();
    rig.rogue.open().await;
    rig.rogue.script(|script| script.lifetime = Some(4));
    ages.login(&rig.rogue, "/").await;
    rig.rogue
        .script(|script| script.always = Some(Step::Answer(503, "", String::new())));
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let token = bearer(&rig, &mut ages).await;
    until(3, "a refresh that fails", || {
        rig.rogue.grants("refresh_token") > 0
    })
    .await;
    assert_eq!(bearer(&rig, &mut ages).await, token);
}

#[tokio::test]
async fn an_expired_token_waits_ten_seconds_at_most() {
    let rig = Rig::start().await;
    let mut browser = expired(&rig).await;
    rig.rogue
        .script(|script| script.always = Some(Step::Late(Duration::from_mins(1))));
    let start = Instant::now();
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (503, "provider_unavailable")
    );
    assert!(reply.header("retry-after").is_some());
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
}

#[tokio::test]
async fn rf_05_rf_11_oa_06_answers_that_leave_things_out_are_normal() {
    let rig = Rig::start().await;
    let without = |name: &'static str| {
        change(move |answer: &mut Value| {
            answer.as_object_mut().unwrap().remove(name);
        })
    };
    let scripts: [(&str, Direction); 4] = [
        (
            "no rotation",
            Box::new(|script| script.keeps_refresh_tokens = true),
        ),
        (
            "no ID token",
            Box::new(move |script| script.refreshed = without("id_token")),
        ),
        (
            "no scope",
            Box::new(move |script| script.refreshed = without("scope")),
        ),
        (
            "no expires_in",
            Box::new(move |script| script.refreshed = without("expires_in")),
        ),
    ];
    for (name, apply) in scripts {
        rig.rogue.behave();
        rig.rogue.script(|script| script.lifetime = Some(1));
        let mut browser = rig.signed_in().await;
        rig.rogue.script(|script| apply(script));
        let mut tokens = vec![];
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            tokens.push(bearer(&rig, &mut browser).await);
        }
        assert_eq!(
            tokens[0] == tokens[1],
            name == "no expires_in",
            "{name}: five minutes by default"
        );
    }
    let user = {
        rig.rogue.behave();
        rig.rogue.script(|script| script.token = without("expires_in"));
        let mut browser = rig.signed_in().await;
        browser.fetch("GET", "/bff/user").await.json()
    };
    let left = user["session"]["access_token_expires_in"].as_i64().unwrap();
    assert!((290..=300).contains(&left), "default_token_lifetime: {left}");
}

#[tokio::test]
async fn rf_16_without_a_refresh_token_the_session_ends_with_its_access_token() {
    let rig = Rig::start().await;
    rig.rogue.script(|script| {
        script.lifetime = Some(1);
        script.token = change(|answer| {
            answer.as_object_mut().unwrap().remove("refresh_token");
        });
    });
    let mut browser = rig.signed_in().await;
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(reply.status, 401);
    assert_eq!(rig.rogue.grants("refresh_token"), 0);
    assert_eq!(browser.fetch("GET", "/bff/user").await.status, 401);
}

#[tokio::test]
async fn rf_15_asking_for_the_user_refreshes_nothing() {
    let rig = Rig::start().await;
    let mut browser = ageing(&rig).await;
    for _ in 0..3 {
        assert_eq!(browser.fetch("GET", "/bff/user").await.status, 200);
    }
    browser.fetch("GET", "/api/public/x").await;
    browser.fetch("GET", "/app.js").await;
    assert_eq!(rig.rogue.grants("refresh_token"), 0);
}

#[tokio::test]
async fn rf_07_a_browser_that_goes_away_does_not_cut_a_refresh_short() {
    let rig = Rig::start().await;
    let mut browser = expired(&rig).await;
    rig.rogue
        .script(|script| script.steps.push_back(Step::Late(Duration::from_millis(400))));
    for _ in 0..2 {
        let mut gone = browser.clone();
        let request = Request::fetch("GET", "/api/x");
        let opened = tokio::time::timeout(Duration::from_millis(150), gone.open(&request)).await;
        assert!(opened.is_err(), "it waits");
    }
    let token = bearer(&rig, &mut browser).await;
    assert_eq!(rig.rogue.subject_of(&token).as_deref(), Some("alice"));
    assert_eq!(rig.rogue.grants("refresh_token"), 1, "rotated once, and kept");
}

#[tokio::test]
async fn claims_and_requirements_are_renewed_at_each_refresh() {
    let rig = Rig::with(|config| {
        let upstream = config.value["routes"][0]["upstream"].clone();
        config.route(json!({ "path": "/staff", "upstream": upstream, "require": { "claims": { "groups": ["staff"] } } }))
    })
    .await;
    let mut browser = expired(&rig).await;
    rig.rogue.script(|script| {
        script.refreshed_claims = change(|claims| {
            claims["groups"] = json!(["guests"]);
            claims["name"] = "Alice Married".into();
        });
    });
    bearer(&rig, &mut browser).await;
    assert_eq!(
        browser.fetch("GET", "/bff/user").await.json()["claims"]["name"],
        "Alice Married"
    );
    assert_eq!(
        browser.fetch("GET", "/staff").await.status,
        403,
        "pomerium: no stale claims"
    );
}

#[tokio::test]
async fn rf_10_a_refreshed_id_token_that_does_not_hold_brings_no_token_up() {
    let rig = Rig::start().await;
    let mut browser = expired(&rig).await;
    rig.rogue
        .script(|script| script.sign = Some(Sign::Broken(Key::Rs256)));
    let before = rig.upstream.count();
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(
        (reply.status, reply.problem().as_str(), reply.clears_session()),
        (503, "provider_unavailable", false)
    );
    assert_eq!(rig.upstream.count(), before);
}

#[tokio::test]
async fn lo_06_class_f_a_logout_wins_over_a_refresh_under_way() {
    for redis in [false, true] {
        let rig = if redis {
            Rig::on_redis(|config| config).await
        } else {
            Rig::start().await
        };
        let mut browser = expired(&rig).await;
        rig.rogue
            .script(|script| script.steps.push_back(Step::Late(Duration::from_millis(600))));
        let mut waits = browser.clone();
        let waiting =
            crate::support::runtime().spawn(async move { waits.fetch("GET", "/api/x").await.status });
        until(3, "the refresh", || rig.rogue.grants("refresh_token") == 1).await;
        let stays = browser.clone();
        let reply = browser.fetch("POST", "/bff/logout").await;
        assert!(matches!(reply.status, 200 | 303), "{}", reply.status);
        assert_eq!(waiting.await.unwrap(), 401);
        assert_eq!(
            stays.clone().fetch("GET", "/bff/user").await.status,
            401,
            "nothing came back to life"
        );
    }
}

#[tokio::test]
async fn requirements_are_judged_on_the_claims_that_a_refresh_brings() {
    let rig = Rig::with(|config| {
        let upstream = config.value["routes"][0]["upstream"].clone();
        config.route(json!({ "path": "/staff", "upstream": upstream, "require": { "claims": { "groups": ["staff"] } } }))
    })
    .await;
    let mut browser = expired(&rig).await;
    rig.rogue.script(|script| {
        script.refreshed_claims = change(|claims| claims["groups"] = json!(["guests"]));
    });
    assert_eq!(
        browser.fetch("GET", "/staff").await.status,
        403,
        "the request that waited for the refresh as well"
    );
    assert_eq!(rig.upstream.count(), 0);
}

#[tokio::test]
async fn an_optional_route_with_requirements_lets_nobody_in_when_the_token_dies() {
    let rig = Rig::with(|config| {
        let upstream = config.value["routes"][0]["upstream"].clone();
        config.route(json!({ "path": "/maybe", "upstream": upstream, "auth": "optional", "require": { "scopes": ["openid"] } }))
    })
    .await;
    assert_eq!(rig.browser().fetch("GET", "/maybe").await.status, 403);
    let mut browser = expired(&rig).await;
    rig.rogue.forget_refresh_tokens();
    assert_eq!(browser.fetch("GET", "/maybe").await.status, 403);
    assert_eq!(rig.upstream.count(), 0);
}

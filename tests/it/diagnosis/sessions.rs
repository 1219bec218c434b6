//! Sessions that end when nobody meant them to, and one that does not.

use super::page::Entry;
use super::{check, check_online};
use crate::support::browser::{Request, raw};
use crate::support::cloakroom::Cloakroom;
use crate::support::config::key;
use crate::support::jar::Site;
use crate::support::rig::Rig;
use crate::support::rogue::change;
use crate::support::system_clock::SystemClock;
use crate::support::{until, within};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_restart_with_the_memory_store() {
    let mut entry = Entry::of("Everybody is signed out after a restart");
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let Rig {
        cloakroom,
        config,
        rogue,
        ..
    } = rig;
    assert_eq!(cloakroom.stop().await, 0);
    let again = Cloakroom::start(&config).await;
    let reply = browser.fetch("GET", "/bff/user").await;
    assert_eq!(reply.problem(), "unauthenticated");
    entry.answer(&reply);
    let mut silent = config.replica().set("public_url", "https://app.example.com");
    silent.value["session"].as_object_mut().unwrap().remove("store");
    entry.check(&check(&silent, &[]).1);
    entry.settle(&again).await;
    drop(rogue);
}

#[tokio::test]
async fn two_replicas_with_a_memory_store_each() {
    let mut entry = Entry::of("Every other request is 401");
    let keys = json!([key()]);
    let rig = Rig::with(|config| config.set("session.keys", keys)).await;
    let second = Cloakroom::start(&rig.config.replica()).await;
    let mut browser = rig.signed_in().await;
    let mut other = browser.at(second.port);
    let reply = other.fetch("GET", "/bff/user").await;
    assert_eq!(reply.status, 401);
    assert_eq!(browser.fetch("GET", "/bff/user").await.status, 200);
    entry.log(&after(&second, "brings a session that the store does not know").await);
    entry.settle(&second).await;
}

/// The log, once that is in it.
async fn after(cloakroom: &Cloakroom, wanted: &str) -> String {
    until(5, wanted, || cloakroom.log().contains(wanted)).await;
    cloakroom.log()
}

#[tokio::test]
async fn a_deploy_without_the_old_key() {
    let mut entry = Entry::of("503 for some people after a deploy");
    let rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.signed_in().await;
    let old = rig.config.value["session"]["keys"][0].clone();
    let new = key();
    let without = Cloakroom::start(&rig.config.replica().set("session.keys", json!([new]))).await;
    let reply = browser.at(without.port).fetch("GET", "/api/x").await;
    assert_eq!(reply.problem(), "store_unavailable");
    entry.answer(&reply);
    entry.settle(&without).await;
    let with = Cloakroom::start(&rig.config.replica().set("session.keys", json!([new, old]))).await;
    assert_eq!(browser.at(with.port).fetch("GET", "/api/x").await.status, 200);
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
}

#[tokio::test]
async fn a_token_that_expires_while_the_provider_is_away() {
    let mut entry = Entry::of("503 provider_unavailable");
    let mut rig = Rig::start().await;
    rig.rogue.script(|script| script.lifetime = Some(1));
    let mut browser = rig.signed_in().await;
    rig.rogue.close().await;
    let reply = within(8, "the token's end", async {
        loop {
            let reply = browser.fetch("GET", "/api/x").await;
            if reply.status != 200 {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(reply.problem(), "provider_unavailable");
    entry.answer(&reply);
    rig.rogue.open().await;
    within(15, "the same session again", async {
        while browser.fetch("GET", "/api/x").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn no_refresh_token() {
    let mut entry = Entry::of("Sessions end with the access token");
    let none = change(|answer| drop(answer.as_object_mut().unwrap().remove("refresh_token")));
    let asked = Rig::start().await;
    let not_asked = Rig::with(|config| config.set("providers.main.scopes", json!(["openid"]))).await;
    for rig in [&asked, &not_asked] {
        rig.rogue.script(|script| {
            script.token.clone_from(&none);
            script.lifetime = Some(2);
        });
        let mut browser = rig.signed_in().await;
        assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
        within(8, "the session's end", async {
            while browser.fetch("GET", "/api/x").await.status == 200 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    }
    entry.log(&after(&asked.cloakroom, "gave no refresh token").await);
    entry.settle(&not_asked.cloakroom).await;
}

#[tokio::test]
async fn a_provider_that_says_invalid_grant() {
    let entry = Entry::of("Sessions end earlier than configured");
    let rig = Rig::start().await;
    rig.rogue.script(|script| script.lifetime = Some(1));
    let mut browser = rig.signed_in().await;
    rig.rogue.forget_refresh_tokens();
    within(8, "the session's end", async {
        while browser.fetch("GET", "/api/x").await.status == 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn stores_that_drop_sessions() {
    let mut entry = Entry::of("Sessions vanish when there are many");
    let redis = Rig::on_redis(|config| config).await;
    let mut connection = redis.redis.as_ref().unwrap().connection();
    for (name, value) in [("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru")] {
        let _set: () = redis::cmd("CONFIG")
            .arg(&["SET", name, value])
            .query(&mut connection)
            .unwrap();
    }
    let (code, said) = check_online(&redis);
    assert_eq!(code, 0, "unwise, and no failure: {said}");
    entry.check(&said);
    let _set: () = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory-policy", "noeviction"])
        .query(&mut connection)
        .unwrap();
    assert!(check_online(&redis).1.contains("ok      store: eviction policy"));

    let memory = Rig::with(|config| config.set("session.store.memory.max_sessions", 1)).await;
    let mut first = memory.signed_in().await;
    let _second = memory.signed_in().await;
    assert_eq!(first.fetch("GET", "/api/x").await.status, 401);
    entry.settle(&memory.cloakroom).await;
}

#[tokio::test]
async fn two_deployments_under_one_host_name() {
    let entry = Entry::of("Signing in to one app signs out of another");
    let rig = Rig::start().await;
    // The same host name on another port: browsers do not tell their cookies apart.
    let other = rig.config.replica();
    let other = other
        .clone()
        .set("public_url", format!("http://app.localhost:{}", other.port));
    let second = Cloakroom::start(&other).await;
    let mut browser = rig.signed_in().await;
    let mut there = second.browser();
    there.jar = browser.jar.clone();
    there.login(&rig.rogue, "/").await;
    browser.jar = there.jar.clone();
    assert_eq!(browser.fetch("GET", "/bff/user").await.status, 401, "overwritten");
    entry.settle(&second).await;

    // With a name of its own each keeps its session.
    let named = other.replica().set("session.cookie.name", "__Host-Http-orders");
    let named = named
        .clone()
        .set("public_url", format!("http://app.localhost:{}", named.port));
    let third = Cloakroom::start(&named).await;
    let mut browser = rig.signed_in().await;
    let mut there = third.browser();
    there.jar = browser.jar.clone();
    let url = there.begin("").await;
    let reply = there.come_back(&rig.rogue.authorize(&url)).await;
    assert_eq!(reply.status, 200);
    browser.jar = there.jar.clone();
    assert_eq!(browser.fetch("GET", "/bff/user").await.status, 200);
    assert_eq!(there.fetch("GET", "/bff/user").await.status, 200);
}

#[tokio::test]
async fn a_sign_out_that_leads_nowhere() {
    let mut entry = Entry::of("Signing out does not last");
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let request = Request::fetch("POST", "/bff/logout")
        .without("Accept")
        .with("Accept", "application/json");
    let reply = browser.send(request).await;
    assert_eq!(reply.status, 200);
    entry.answer(&reply);
    let on = reply.json()["redirect_to"].as_str().unwrap().to_owned();
    let reply = browser.navigate(&on, Site::SameOrigin).await;
    assert!(
        reply
            .location()
            .starts_with(&format!("{}/end?", rig.rogue.issuer))
    );
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn a_sign_out_at_the_provider_that_is_not_heard() {
    let mut entry = Entry::of("Signed out at the provider, and still signed in here");
    let rig = Rig::start().await;
    let (code, said) = check(&rig.config, &[]);
    assert_eq!(code, 0, "{said}");
    entry.check(&said);
    let mut browser = rig.signed_in().await;
    let post = async |cloakroom: &Cloakroom, host: &str, token: &str| {
        let body = format!("logout_token={token}");
        let head = "Content-Type: application/x-www-form-urlencoded\r\nConnection: close";
        let request = format!(
            "POST /bff/backchannel-logout HTTP/1.1\r\nHost: {host}\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        raw(cloakroom.address(), request.as_bytes()).await.0.unwrap()
    };
    let inside = "cloakroom.default.svc:8080";
    let token = rig.rogue.logout_token(&json!({ "sub": "alice" }));
    entry.answer(&post(&rig.cloakroom, inside, &token).await);
    let public = browser.host().to_owned();
    let wrong = rig.rogue.logout_token(&json!({ "sub": "alice", "aud": "other" }));
    entry.answer(&post(&rig.cloakroom, &public, &wrong).await);
    let Rig {
        cloakroom,
        config,
        rogue,
        ..
    } = rig;
    // One that has no keys yet and gets none.
    let stranger = Cloakroom::start(&config.replica()).await;
    let broken = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".to_vec();
    rogue.script(|script| drop(script.raw.insert("/jwks", broken)));
    assert_eq!(post(&stranger, &public, &token).await.status, 503);
    until(5, "the log", || stranger.log().contains("logout token again")).await;
    entry.log(&stranger.log());
    entry.settle(&cloakroom).await;
    assert_eq!(browser.fetch("GET", "/bff/user").await.status, 200);

    // The remedy.
    rogue.behave();
    let named = config.replica().set("server.hosts", json!([inside]));
    let cloakroom = Cloakroom::start(&named).await;
    let mut browser = cloakroom.browser();
    browser.login(&rogue, "/").await;
    assert_eq!(
        post(
            &cloakroom,
            inside,
            &rogue.logout_token(&json!({ "sub": "alice" }))
        )
        .await
        .status,
        200
    );
    assert_eq!(browser.fetch("GET", "/bff/user").await.status, 401);
}

#[tokio::test]
async fn a_clock_that_was_set() {
    let entry = Entry::of("A replica's clock was set");
    let clock = SystemClock::new();
    let rig = Rig::with(|config| config.clock(&clock)).await;
    for (ahead, said) in [
        (3_600, "ahead of the time that cloakroom keeps"),
        (-3_600, "behind the time that cloakroom keeps"),
        (0, "agree again"),
    ] {
        clock.set(ahead);
        after(&rig.cloakroom, said).await;
    }
    entry.settle(&rig.cloakroom).await;
}

//! A store that does not answer (contract 4.6): 503, never a logout, never anonymous.

use crate::support::browser::{Browser, Request};
use crate::support::cloakroom::Cloakroom;
use crate::support::config::Config;
use crate::support::jar::Site;
use crate::support::redis::Redis;
use crate::support::rig::Rig;
use crate::support::rogue::Rogue;
use crate::support::upstream::Upstream;
use crate::support::within;
use std::time::{Duration, Instant};

/// Asks until the cache has let go, then once on every kind of route.
async fn all_are_503(rig: &Rig, browser: &mut Browser) {
    within(3, "the outage to be noticed", async {
        loop {
            let status = browser.fetch("GET", "/api/x").await.status;
            if status == 503 {
                return;
            }
            assert_eq!(status, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let up = rig.upstream.count();
    for request in [
        Request::fetch("GET", "/api/x"),
        Request::fetch("POST", "/api/x"),
        Request::fetch("GET", "/api/optional/x"),
        Request::fetch("GET", "/bff/user"),
        Request::fetch("POST", "/bff/session/extend"),
    ] {
        let start = Instant::now();
        let reply = browser.send(request.clone()).await;
        assert!(
            start.elapsed() < Duration::from_millis(3_200),
            "{:?} {request:?}",
            start.elapsed()
        );
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (503, "store_unavailable"),
            "{request:?}"
        );
        assert!(reply.header("retry-after").unwrap().parse::<u32>().is_ok());
        assert!(reply.headers("set-cookie").is_empty(), "fa_02");
    }
    let page = browser.navigate("/pages/x", Site::SameOrigin).await;
    assert_eq!(page.status, 503, "no redirect to login");
    page.page();
    assert!(page.headers("set-cookie").is_empty());
    assert_eq!(rig.upstream.count(), up, "class_k: never anonymous");
    assert_eq!(
        browser.fetch("GET", "/api/public/x").await.status,
        200,
        "open routes go on"
    );
    assert_eq!(browser.fetch("GET", "/app.js").await.status, 200);
    assert_eq!(rig.cloakroom.admin("/healthz").await.status, 200, "fa_06");
    assert_eq!(
        rig.cloakroom.admin("/readyz").await.status,
        200,
        "an outage does not decide"
    );
}

async fn comes_back(browser: &mut Browser, status: u16) {
    within(10, "the recovery", async {
        while browser.fetch("GET", "/api/x").await.status != status {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn fa_01_fa_02_a_paused_redis_is_503_and_the_same_session_afterwards() {
    let rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.signed_in().await;
    let session = browser.session();
    rig.redis.as_ref().unwrap().pause();
    all_are_503(&rig, &mut browser).await;
    rig.redis.as_ref().unwrap().resume();
    comes_back(&mut browser, 200).await;
    assert_eq!(browser.session(), session);
}

#[tokio::test]
async fn fa_01_a_killed_redis_is_503_and_recovers_without_a_restart() {
    let mut rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.signed_in().await;
    rig.redis.as_mut().unwrap().kill();
    all_are_503(&rig, &mut browser).await;
    rig.redis.as_mut().unwrap().open().await;
    comes_back(&mut browser, 401).await;
    assert!(
        browser.session().is_none(),
        "a healthy store says that it is gone"
    );
    browser.login(&rig.rogue, "/").await;
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
}

#[tokio::test]
async fn fa_01_a_redis_that_refuses_our_password_is_an_outage() {
    let rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.signed_in().await;
    let mut connection = rig.redis.as_ref().unwrap().connection();
    let old = rig.config.value["session"]["store"]["redis"]["url"]
        .as_str()
        .unwrap();
    let old = old
        .split("://:")
        .nth(1)
        .unwrap()
        .split('@')
        .next()
        .unwrap()
        .to_owned();
    let set = |connection: &mut redis::Connection, password: &str| {
        let _set: () = redis::cmd("CONFIG")
            .arg(&["SET", "requirepass", password])
            .query(connection)
            .unwrap();
        let _cut: i64 = redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .query(connection)
            .unwrap();
        let _cut: i64 = redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "pubsub"])
            .query(connection)
            .unwrap();
    };
    set(&mut connection, "another");
    all_are_503(&rig, &mut browser).await;
    set(&mut connection, &old);
    comes_back(&mut browser, 200).await;
}

#[tokio::test]
async fn fa_01_with_the_cache_off_the_very_next_request_is_503() {
    let rig = Rig::on_redis(|config| config.set("session.cache", "off")).await;
    let mut browser = rig.signed_in().await;
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
    rig.redis.as_ref().unwrap().pause();
    let start = Instant::now();
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(reply.status, 503);
    assert!(
        start.elapsed() < Duration::from_millis(3_200),
        "{:?}",
        start.elapsed()
    );
    rig.redis.as_ref().unwrap().resume();
    comes_back(&mut browser, 200).await;
}

#[tokio::test]
async fn a_callback_during_an_outage_is_a_503_page_and_the_attempt_is_not_lost() {
    let rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.browser();
    rig.redis.as_ref().unwrap().pause();
    let reply = browser
        .navigate("/bff/login?return_to=/x", Site::SameOrigin)
        .await;
    assert_eq!(reply.status, 302, "beginning a login needs no store");
    let callback = rig.rogue.authorize(reply.location());
    let start = Instant::now();
    let reply = browser.come_back(&callback).await;
    assert_eq!(reply.status, 503);
    assert!(
        start.elapsed() < Duration::from_millis(3_500),
        "{:?}",
        start.elapsed()
    );
    reply.page();
    assert_eq!(rig.rogue.count("/token"), 0, "no claim, no code");
    rig.redis.as_ref().unwrap().resume();
    within(10, "the recovery", async {
        loop {
            let reply = browser.come_back(&callback).await;
            if reply.status != 503 {
                assert_eq!(browser.landing(&reply), "/x");
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(rig.rogue.count("/token"), 1);
}

#[tokio::test]
async fn a_read_only_redis_refuses_logins_and_keeps_sessions() {
    let rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.signed_in().await;
    let mut connection = rig.redis.as_ref().unwrap().connection();
    let _set: () = redis::cmd("REPLICAOF")
        .arg(&["127.0.0.1", "1"])
        .query(&mut connection)
        .unwrap();
    let mut late = rig.browser();
    let url = late.begin("?return_to=/x").await;
    let reply = late.come_back(&rig.rogue.authorize(&url)).await;
    assert_eq!(reply.status, 503);
    reply.page();
    let status = browser.fetch("GET", "/api/x").await.status;
    assert!(matches!(status, 200 | 503), "{status}");
    let _set: () = redis::cmd("REPLICAOF")
        .arg(&["NO", "ONE"])
        .query(&mut connection)
        .unwrap();
    comes_back(&mut browser, 200).await;
}

#[tokio::test]
async fn readiness_may_depend_on_the_store() {
    let mut rig = Rig::on_redis(|config| config.set("readiness.store", true)).await;
    rig.redis.as_ref().unwrap().pause();
    rig.cloakroom.becomes(503).await;
    assert_eq!(rig.cloakroom.admin("/healthz").await.status, 200);
    rig.redis.as_ref().unwrap().resume();
    rig.cloakroom.becomes(200).await;
}

#[tokio::test]
async fn fa_06_a_redis_that_is_away_at_the_start_is_waited_for() {
    let mut redis = Redis::start().await;
    redis.kill();
    let (rogue, upstream) = (Rogue::start().await, Upstream::start().await);
    let config = Config::new(&rogue.issuer, &rogue.client_secret(), &upstream.url()).redis(&redis.url);
    let mut cloakroom = Cloakroom::start_unready(&config).await;
    assert_eq!(
        cloakroom.admin("/readyz").await.status,
        503,
        "the store has not answered yet"
    );
    assert_eq!(cloakroom.admin("/healthz").await.status, 200);
    let mut browser = cloakroom.browser();
    assert_eq!(browser.fetch("GET", "/app.js").await.status, 200);
    redis.open().await;
    cloakroom.becomes(200).await;
    browser.login(&rogue, "/").await;
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
}

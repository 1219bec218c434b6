//! Redis is away, refuses us, takes no writes, or is slow: a real one.

use super::page::Entry;
use super::{check, check_online};
use crate::support::browser::{Browser, SESSION};
use crate::support::cloakroom::Cloakroom;
use crate::support::config::Config;
use crate::support::jar::Site;
use crate::support::redis::Redis;
use crate::support::redis_group::Bare;
use crate::support::rig::Rig;
use crate::support::rogue::Rogue;
use crate::support::upstream::Upstream;
use crate::support::{free_port, until, within};
use redis::FromRedisValue;
use serde_json::json;
use std::time::Duration;

/// Sends Redis a command of the suite's own.
fn tell<T: FromRedisValue>(redis: &Redis, command: &str, arguments: &[&str]) -> T {
    redis::cmd(command)
        .arg(arguments)
        .query(&mut redis.connection())
        .unwrap()
}

#[tokio::test]
async fn redis_is_away() {
    let mut entry = Entry::of("503 store_unavailable for everybody");
    let mut rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.signed_in().await;
    rig.redis.as_mut().unwrap().kill();
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(reply.problem(), "store_unavailable");
    entry.answer(&reply);
    let (code, said) = check_online(&rig);
    assert_eq!(code, 1, "{said}");
    entry.check(&said);
    // However many requests meet it, the log has a line now and then.
    for _ in 0..30 {
        browser.fetch("GET", "/api/x").await;
    }
    entry.settle(&rig.cloakroom).await;
    let lines = rig.cloakroom.log().matches("a session could not be read").count();
    assert!(lines <= 2, "{lines}");
    rig.redis.as_mut().unwrap().open().await;
    within(10, "the end of it", async {
        while !rig.cloakroom.log().contains("the session store answers again") {
            browser.fetch("GET", "/api/x").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn redis_refuses_us() {
    let mut entry = Entry::of("Redis refuses the password");
    let redis = Redis::start().await;
    let address = redis.url.split('@').nth(1).unwrap();
    let _set: () = tell(&redis, "ACL", &["SETUSER", "weak", "on", "nopass", "~*", "+get"]);
    let (rogue, upstream) = (Rogue::start().await, Upstream::start().await);
    let usual = Config::new(&rogue.issuer, &rogue.client_secret(), &upstream.url());
    let mut running = Vec::new();
    for user in [":wrong@", "", "weak:any@"] {
        let config = usual.replica().redis(&format!("redis://{user}{address}"));
        let cloakroom = Cloakroom::start_unready(&config).await;
        let mut browser = Browser::new(&cloakroom.origin, cloakroom.port);
        browser.jar.plant("app.localhost", SESSION, &"A".repeat(43));
        let reply = browser.fetch("GET", "/api/x").await;
        assert_eq!(reply.problem(), "store_unavailable", "{user}");
        entry.answer(&reply);
        until(5, "the server's words", || {
            cloakroom.log().contains("the session store cannot be reached")
        })
        .await;
        entry.log(&cloakroom.log());
        running.push(cloakroom);
    }
    entry.settle(&running[0]).await;
}

#[tokio::test]
async fn redis_takes_no_writes() {
    let mut entry = Entry::of("Redis is a replica, or its memory is full");
    let rig = Rig::on_redis(|config| config).await;
    let redis = rig.redis.as_ref().unwrap();
    let _set: () = tell(redis, "REPLICAOF", &["127.0.0.1", "1"]);
    let mut browser = rig.browser();
    let callback = rig.rogue.authorize(&browser.begin("").await);
    let reply = browser.come_back(&callback).await;
    assert_eq!(reply.status, 503);
    entry.page(&reply);
    let (code, said) = check_online(&rig);
    assert_eq!(code, 1, "{said}");
    entry.check(&said);
    entry.log(&said);
    let _set: () = tell(redis, "REPLICAOF", &["NO", "ONE"]);
    let _set: () = tell(redis, "CONFIG", &["SET", "maxmemory", "1"]);
    let (code, said) = check_online(&rig);
    assert_eq!(code, 1, "{said}");
    entry.check(&said);
    let mut other = rig.browser();
    let callback_again = rig.rogue.authorize(&other.begin("").await);
    let reply = other.come_back(&callback_again).await;
    assert_eq!(reply.status, 503);
    let _set: () = tell(redis, "CONFIG", &["SET", "maxmemory", "0"]);
    within(10, "a login once there is room", async {
        loop {
            let reply = browser.come_back(&callback).await;
            if reply.status != 503 {
                assert_eq!(browser.landing(&reply), "/");
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn redis_is_not_found() {
    let mut entry = Entry::of("Redis behind Sentinel, or in a cluster, is not found");
    let rig = Rig::on_redis(|config| config).await;
    let (port, away) = (rig.redis.as_ref().unwrap().url.clone(), free_port());
    let sentinels = |url: &str| json!({ "sentinel": { "master": "main", "urls": [url] } });
    let nowhere = sentinels(&format!("redis://127.0.0.1:{away}"));
    let no_sentinel = sentinels(port.strip_suffix("/0").unwrap());
    let no_cluster = json!({ "cluster": [port] });
    // A sentinel that watches nobody, and a node of a cluster that has no slots.
    let sentinel = Bare::start("--sentinel").await;
    let unknown = sentinels(&format!("redis://127.0.0.1:{}", sentinel.port));
    for redis in [nowhere, no_sentinel, no_cluster, unknown] {
        let config = rig.config.clone().set("session.store.redis", redis);
        let (code, said) = check(&config, &["--online"]);
        assert_eq!(code, 1, "{said}");
        entry.check(&said);
    }
    // Two nodes, and the slots are all at the other.
    let (one, other) = (Bare::start("cluster").await, Bare::start("cluster").await);
    other.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    one.ask(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]);
    until(10, "nodes that know each other", || {
        one.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
    })
    .await;
    let node = json!({ "url": format!("redis://127.0.0.1:{}", one.port) });
    let (code, said) = check(
        &rig.config.clone().set("session.store.redis", node),
        &["--online"],
    );
    assert_eq!(code, 1, "{said}");
    entry.check(&said);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn redis_tells_of_no_changes() {
    let mut entry = Entry::of("Every request reads Redis");
    let redis = Redis::start().await;
    let _set: () = tell(&redis, "ACL", &["SETUSER", "default", "-client"]);
    let rig = Rig::build(Some(redis), |config| config).await;
    assert_eq!(rig.signed_in().await.fetch("GET", "/api/x").await.status, 200);
    let (code, said) = check_online(&rig);
    assert_eq!(code, 0, "unwise, and no failure: {said}");
    entry.check(&said);
    entry.settle(&rig.cloakroom).await;
}

#[tokio::test]
async fn redis_is_slow() {
    let entry = Entry::of("Everything is slow");
    let rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.signed_in().await;
    let redis = rig.redis.as_ref().unwrap();
    redis.pause();
    let (reply, ()) = tokio::join!(browser.navigate("/pages/x", Site::SameOrigin), async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        redis.resume();
    });
    assert_eq!(reply.status, 200, "slow, and well");
    entry.settle(&rig.cloakroom).await;
}

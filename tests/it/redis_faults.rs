//! Every way in which a Redis that is there can fail (contract 4.6): 503 or nothing at all, never a logout.
//!
//! One that is away, stopped, or refuses the password is in `outage`.

use crate::support::browser::Browser;
use crate::support::cloakroom::{run, text};
use crate::support::config::key;
use crate::support::jar::Site;
use crate::support::redis::Redis;
use crate::support::redis_group::Group;
use crate::support::rig::Rig;
use crate::support::tls::Authority;
use crate::support::{until, within};
use redis::FromRedisValue;
use serde_json::json;
use std::time::Duration;
use tempfile::TempDir;

/// Sends Redis a command of the suite's own.
fn tell<T: FromRedisValue>(redis: &Redis, command: &str) -> T {
    let mut words = command.split(' ');
    redis::cmd(words.next().unwrap())
        .arg(words.collect::<Vec<_>>())
        .query(&mut redis.connection())
        .unwrap()
}

/// Asks until the fault is met, which is 503 and nothing else; nobody is signed out by it.
async fn is_503(browser: &mut Browser, method: &str, path: &str) {
    let session = browser.session();
    within(5, "the fault", async {
        loop {
            let reply = browser.fetch(method, path).await;
            if reply.status == 503 {
                assert_eq!(reply.problem(), "store_unavailable");
                assert!(reply.header("retry-after").is_some());
                assert!(reply.headers("set-cookie").is_empty(), "fa_02");
                return;
            }
            assert_eq!(reply.status, 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(browser.session(), session);
}

async fn is_200(browser: &mut Browser) {
    within(5, "the end of the fault", async {
        while browser.fetch("POST", "/bff/session/extend").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
}

#[tokio::test]
async fn fa_01_fa_02_what_redis_refuses_is_503_and_the_same_session_afterwards() {
    let rig = Rig::on_redis(|config| config.set("session.cache", "off")).await;
    let redis = rig.redis.as_ref().unwrap();
    let mut browser = rig.signed_in().await;
    for (fault, end, reads) in [
        // NOPERM
        ("ACL SETUSER default -get", "ACL SETUSER default +get", true),
        ("ACL SETUSER default resetkeys", "ACL SETUSER default ~*", true),
        (
            "ACL SETUSER default -evalsha",
            "ACL SETUSER default +evalsha",
            false,
        ),
        // OOM, READONLY, NOREPLICAS: what is written is refused.
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", false),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", false),
        (
            "CONFIG SET min-replicas-to-write 1",
            "CONFIG SET min-replicas-to-write 0",
            false,
        ),
    ] {
        let _set: () = tell(redis, fault);
        if reads {
            is_503(&mut browser, "GET", "/api/x").await;
        } else {
            let mut other = rig.browser();
            let callback = rig.rogue.authorize(&other.begin("?return_to=/x").await);
            let reply = other.navigate(&callback, Site::CrossSite).await;
            assert_eq!(reply.status, 503, "{fault}: a login needs a write");
            reply.page();
            assert_eq!(
                browser.fetch("GET", "/api/x").await.status,
                200,
                "{fault}: it is read"
            );
        }
        let _set: () = tell(redis, end);
        is_200(&mut browser).await;
    }
}

#[tokio::test]
async fn a_pool_connection_that_was_cut_costs_no_request() {
    let rig = Rig::on_redis(|config| config.set("session.cache", "off")).await;
    let redis = rig.redis.as_ref().unwrap();
    let mut browser = rig.signed_in().await;
    for _ in 0..10 {
        let cut: i64 = tell(redis, "CLIENT KILL TYPE normal SKIPME yes");
        assert!(cut > 0);
        assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
    }
}

#[tokio::test]
async fn se_13_a_store_that_drops_sessions_is_said_loudly_at_start_and_by_the_check() {
    let redis = Redis::start().await;
    for (name, value) in [("maxmemory", "100mb"), ("maxmemory-policy", "volatile-ttl")] {
        let _set: () = tell(&redis, &format!("CONFIG SET {name} {value}"));
    }
    let rig = Rig::build(Some(redis), |config| config).await;
    until(5, "the line", || {
        let log = rig.cloakroom.log();
        let mut lines = log
            .lines()
            .filter(|line| line.contains("maxmemory-policy noeviction"));
        lines.any(|line| line.contains("\"ERROR\"") && line.contains("volatile-ttl"))
    })
    .await;
    // Unwise, and no failure: sessions are kept until the memory is full.
    let check = || {
        let folder = TempDir::new().unwrap();
        let file = rig.config.write(folder.path());
        let arguments = ["check", "--online", "--config", file.to_str().unwrap()];
        let output = run(folder.path(), &arguments, &[]);
        let said = text(&output.stdout);
        let line = said.lines().find(|line| line.contains("store: eviction policy"));
        (output.status.code(), line.unwrap_or(&said).to_owned())
    };
    let (code, line) = check();
    assert!(code == Some(0) && line.starts_with("unsure  "), "{line}");
    assert!(
        line.contains("volatile-ttl") && line.contains("set `maxmemory-policy noeviction`"),
        "{line}"
    );
    let _set: () = tell(
        rig.redis.as_ref().unwrap(),
        "CONFIG SET maxmemory-policy noeviction",
    );
    let (code, line) = check();
    assert!(code == Some(0) && line.starts_with("ok      "), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fa_01_fa_02_a_cluster_that_is_down_is_503_and_its_sessions_are_there_afterwards() {
    let authority = Authority::new();
    let mut group = Group::cluster(&authority, false).await;
    let rig = Rig::build(None, |config| {
        config
            .set("session.store", json!({ "redis": group.settings }))
            .set("session.keys", json!([key()]))
    })
    .await;
    let mut browsers = Vec::new();
    for _ in 0..6 {
        browsers.push(rig.signed_in().await);
    }
    let lost = group.counts()[2];
    group.data[2].kill();
    until(10, "the others' notice", || {
        group.data[0]
            .ask(&["CLUSTER", "INFO"])
            .contains("cluster_state:fail")
    })
    .await;
    for browser in &mut browsers {
        is_503(browser, "GET", "/api/x").await;
    }
    group.data[2].open();
    let mut there = 0;
    for browser in &mut browsers {
        // 401 only where the node that came back empty says so.
        within(10, "an answer", async {
            loop {
                match browser.fetch("GET", "/api/x").await.status {
                    200 => there += 1,
                    503 => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                    status => assert_eq!(status, 401),
                }
                return;
            }
        })
        .await;
    }
    assert!(there > 0 || lost >= 6, "{there} are there, {lost} keys were lost");
}

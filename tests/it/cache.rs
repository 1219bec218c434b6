//! Opened sessions in memory: what they spare, and that they keep nobody in (contract 4.9, 4.10).

use crate::support::browser::Browser;
use crate::support::cloakroom::Cloakroom;
use crate::support::redis::Redis;
use crate::support::rig::Rig;
use redis::Commands as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How often each command was called, by its name.
fn calls(redis: &Redis) -> BTreeMap<String, u64> {
    let mut connection = redis.connection();
    let told: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(&mut connection)
        .unwrap();
    let lines = told.lines().filter_map(|line| line.strip_prefix("cmdstat_"));
    let counts = lines.filter_map(|line| {
        let (name, rest) = line.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    counts.collect()
}

fn reset(redis: &Redis) {
    let mut connection = redis.connection();
    let _ok: () = redis::cmd("CONFIG")
        .arg("RESETSTAT")
        .query(&mut connection)
        .unwrap();
}

async fn asked(browser: &mut Browser, times: usize) {
    for _ in 0..times {
        assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
    }
}

#[tokio::test]
async fn requests_of_an_opened_session_cost_redis_nothing() {
    let rig = Rig::on_redis(|config| config).await;
    let redis = rig.redis.as_ref().unwrap();
    let mut browser = rig.signed_in().await;
    asked(&mut browser, 1).await;
    reset(redis);
    let (begun, times) = (Instant::now(), 300);
    asked(&mut browser, times).await;
    let kept = calls(redis);
    println!("{times} requests with the cache on: {kept:?}");
    // What is left is the question whether the link lives, some four times a second.
    let beats = begun.elapsed().as_millis() / 250 + 2;
    let get = kept.get("get").copied().unwrap_or(0);
    // One more for each second in which the machine had no time for the link.
    assert!(get <= 10, "{kept:?}");
    for name in ["evalsha", "eval", "set", "hgetall"] {
        assert_eq!(kept.get(name), None, "{kept:?}");
    }
    let role = kept.get("role").copied().unwrap_or(0);
    assert!(u128::from(role) <= beats, "{kept:?}");

    let other = Cloakroom::start(&rig.config.replica().set("session.cache", "off")).await;
    reset(redis);
    asked(&mut browser.at(other.port), times).await;
    let off = calls(redis);
    println!("{times} requests with the cache off: {off:?}");
    assert!(off["get"] >= 300, "{off:?}");
}

#[tokio::test]
async fn a_session_takes_little_room_in_redis() {
    let rig = Rig::on_redis(|config| config).await;
    let _browser = rig.signed_in().await;
    let mut connection = rig.redis.as_ref().unwrap().connection();
    let keys: Vec<String> = connection.keys("*").unwrap();
    let mut sum = 0;
    for key in &keys {
        let size: usize = redis::cmd("MEMORY")
            .arg("USAGE")
            .arg(key)
            .query(&mut connection)
            .unwrap();
        let kind = key.rsplit(':').next().unwrap();
        println!("{kind}: {size} bytes");
        if matches!(kind, "session" | "user" | "sid") {
            sum += size;
        }
    }
    println!("a session with its places in the indexes: {sum} bytes");
    assert!((500..8_000).contains(&sum), "{sum}");
}

#[tokio::test]
async fn lo_06_a_logout_is_felt_on_the_other_replica_within_a_second_under_load() {
    let rig = Rig::on_redis(|config| config).await;
    let replica = Cloakroom::start(&rig.config.replica()).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for n in 0..6 {
        let browser = rig.signed_in().await;
        let mut browser = if n % 2 == 0 {
            browser
        } else {
            browser.at(replica.port)
        };
        let done = Arc::clone(&done);
        load.spawn(async move {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                asked(&mut browser, 1).await;
                count += 1;
            }
            count
        });
    }
    let mut felt = Vec::new();
    for _ in 0..15 {
        let mut here = rig.signed_in().await;
        let mut there = here.at(replica.port);
        asked(&mut there, 2).await;
        let logout = here.fetch("POST", "/bff/logout").await;
        let answered = Instant::now();
        assert!(matches!(logout.status, 200 | 303), "{}", logout.status);
        loop {
            let began = Instant::now();
            let reply = there.fetch("GET", "/api/x").await;
            if reply.status == 401 {
                felt.push(began.saturating_duration_since(answered));
                break;
            }
            assert_eq!(reply.status, 200);
            assert!(
                answered.elapsed() < Duration::from_secs(1),
                "still in after a second"
            );
        }
    }
    done.store(true, Ordering::Relaxed);
    let requests: usize = load.join_all().await.iter().sum();
    felt.sort();
    println!(
        "15 logouts, {requests} requests beside them: felt on the other replica after {:?} (median), {:?} (longest)",
        felt[7], felt[14]
    );
}

#[tokio::test]
async fn a_half_open_link_is_a_dead_one() {
    let rig = Rig::on_redis(|config| config).await;
    let redis = rig.redis.as_ref().unwrap();
    let mut browser = rig.signed_in().await;
    asked(&mut browser, 3).await;
    // The connection stays open, and nobody answers on it.
    redis.pause();
    let paused = Instant::now();
    let last = loop {
        let began = paused.elapsed();
        let reply = browser.fetch("GET", "/api/x").await;
        if reply.status == 503 {
            assert_eq!(reply.problem(), "store_unavailable");
            break began;
        }
        assert_eq!(reply.status, 200);
        assert!(
            began < Duration::from_millis(1100),
            "served from memory after {began:?}"
        );
    };
    println!("served from memory for {last:?} after the link fell silent");
    redis.resume();
    crate::support::within(5, "the session to be there again", async {
        while browser.fetch("GET", "/api/x").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_written_while_the_link_was_down_is_seen_at_its_return() {
    let rig = Rig::on_redis(|config| config).await;
    let redis = rig.redis.as_ref().unwrap();
    let browser = rig.signed_in().await;
    let replica = Cloakroom::start(&rig.config.replica()).await;
    let (mut here, mut there) = (browser.clone(), browser.at(replica.port));
    asked(&mut here, 2).await;
    asked(&mut there, 2).await;
    // All connections are cut and the session deleted in one step: nobody can be told.
    let mut connection = redis.connection();
    let keys: Vec<String> = connection.keys("*:session").unwrap();
    let script = "redis.call('DEL', KEYS[1]) return 1";
    let mut cut = redis::pipe();
    cut.atomic()
        .cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .arg("SKIPME")
        .arg("yes")
        .ignore()
        .cmd("EVAL")
        .arg(script)
        .arg(1)
        .arg(&keys[0])
        .ignore();
    let _done: () = cut.query(&mut connection).unwrap();
    let cut = Instant::now();
    for browser in [&mut here, &mut there] {
        loop {
            let began = cut.elapsed();
            match browser.fetch("GET", "/api/x").await.status {
                401 => break,
                200 => assert!(began < Duration::from_secs(1), "still in after {began:?}"),
                status => panic!("{status}"),
            }
        }
    }
}

#[tokio::test]
async fn a_user_without_the_right_to_track_is_served_from_redis() {
    let redis = Redis::start().await;
    let mut connection = redis.connection();
    let rights = "on >only-in-tests ~* -@all +get +set +del +hset +hgetall +hdel +hlen +pttl +pexpire +eval +evalsha +ping";
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER")
        .arg("few")
        .arg(rights.split(' ').collect::<Vec<_>>());
    let _ok: () = user.query(&mut connection).unwrap();
    let (_, place) = redis.url.split_once('@').unwrap();
    let url = format!("redis://few:only-in-tests@{place}");
    let rig = Rig::build(Some(redis), |config| {
        config.set("session.store.redis.url", json!(url))
    })
    .await;
    let mut browser = rig.signed_in().await;
    reset(rig.redis.as_ref().unwrap());
    asked(&mut browser, 20).await;
    assert!(calls(rig.redis.as_ref().unwrap())["get"] >= 20);
    crate::support::until(5, "the remedy", || {
        let log = rig.cloakroom.log();
        log.contains("does not tell of changes") && log.contains("+role")
    })
    .await;
}

#[tokio::test]
async fn with_the_memory_store_too_a_session_is_opened_once() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    asked(&mut browser, 100).await;
    let metrics = rig.cloakroom.admin("/metrics").await.text();
    let count = |source: &str| -> u64 {
        let name = format!("cloakroom_session_lookups_total{{source=\"{source}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        line.parse().unwrap()
    };
    assert!(count("memory") >= 95 && count("store") <= 5, "{metrics}");
}

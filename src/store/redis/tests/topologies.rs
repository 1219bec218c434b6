//! Sentinel and Cluster, with real ones: who is asked, and what happens when that changes.

use super::{CANARY, KEY, MINUTE, recovers};
use crate::config::{RedisSettings, SecretSource};
use crate::store::testing::{Clustered, RedisServer, Replicated, becomes};
use crate::store::{Kind, Record, Replaced, Store, StoreKey};
use bytes::Bytes;
use futures_util::future::join_all;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const SESSION: Bytes = Bytes::from_static(b"x");

fn session(n: u8) -> StoreKey {
    StoreKey { hash: [n; 32], ..KEY }
}

async fn fill(store: &Store) {
    for n in 0..64 {
        store.create(session(n), SESSION, MINUTE).await.unwrap();
    }
}

/// Reads and writes every session again and again until all of that succeeds; how long that took.
async fn serves_again(store: &Store) -> Duration {
    let began = Instant::now();
    loop {
        let mut all = true;
        for n in 0..64 {
            // "Not there" would be a session that was lost.
            match store.read(session(n)).await {
                Ok(record) => {
                    let Some(Record { version, .. }) = record else {
                        panic!("session {n} is lost")
                    };
                    all &= store.replace(session(n), version, SESSION, MINUTE).await.is_ok();
                }
                Err(_) => all = false,
            }
        }
        if all {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(15), "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn fa_01_a_failover_by_sentinels_loses_nothing_and_is_followed_at_once() {
    let mut servers = Replicated::start();
    let store = Store::redis(&servers.settings()).unwrap();
    fill(&store).await;
    becomes("replicas with all of it", || {
        servers.replicas.iter().all(|replica| replica.count() == 64)
    });
    servers.primary.kill();
    let killed = Instant::now();
    let elect = async {
        while !servers.agree_on_another() {
            assert!(
                killed.elapsed() < Duration::from_secs(15),
                "no new primary is named"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        killed.elapsed()
    };
    // An election that no sentinel wins is held anew after twice the failover timeout: that is theirs to answer for.
    let (took, elected) = tokio::join!(serves_again(&store), elect);
    println!(
        "sentinel: writes again {took:?} after the kill, {elected:?} after which the new primary was named"
    );
    assert!(took < elected + Duration::from_secs(2), "{took:?}, {elected:?}");

    // The old one comes back empty, and takes itself for the primary for some seconds: nobody reads from it.
    servers.primary.start_again();
    assert!(servers.primary.cli(&["ROLE"]).starts_with("master"));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        serves_again(&store).await;
    }
    assert_eq!(servers.primary.count(), 0);
}

#[tokio::test]
async fn a_primary_that_steps_back_and_lives_on_is_left() {
    let servers = Replicated::start();
    let store = Store::redis(&servers.settings()).unwrap();
    fill(&store).await;
    becomes("replicas with all of it", || {
        servers.replicas.iter().all(|replica| replica.count() == 64)
    });
    let ticket = store.read_with_ticket(session(1)).await.unwrap().1;
    let sentinel = &servers.sentinels[0];
    assert_eq!(sentinel.cli(&["SENTINEL", "FAILOVER", "main"]), "OK");
    becomes("another primary", || servers.agree_on_another());
    let named = Instant::now();
    // The old one is alive, and still takes itself for the primary.
    let clients = || servers.primary.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
    while clients().contains("resp=3") {
        assert!(named.elapsed() < Duration::from_secs(2), "{}", clients());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!store.holds(&ticket));
    let took = serves_again(&store).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn sentinels_have_a_login_of_their_own_and_say_what_is_missing() {
    let mut servers = Replicated::start();
    // The replicas log in to it as well.
    for server in servers.replicas.iter().chain([&servers.primary]) {
        server.cli(&["CONFIG", "SET", "masterauth", CANARY]);
        server.cli(&["CONFIG", "SET", "requirepass", CANARY]);
    }
    for sentinel in &servers.sentinels {
        let set = ["SENTINEL", "SET", "main", "auth-pass", CANARY];
        assert_eq!(sentinel.cli(&set), "OK");
        let set = ["ACL", "SETUSER", "default", "resetpass", ">sentinels"];
        assert_eq!(sentinel.cli(&set), "OK");
    }
    let mut settings = servers.settings();
    let words = |settings: &RedisSettings| {
        let (store, again) = (Store::redis(settings).unwrap(), Store::redis(settings).unwrap());
        async move {
            let said = store.ping().await.err().map(|error| error.to_string());
            // Afresh: a sentinel that came third was not waited for.
            let shown = again.check_online().await;
            (said.unwrap_or_default(), format!("{shown:?}"))
        }
    };
    let wants = "set `session.store.redis.sentinel.password`";
    let (said, shown) = words(&settings).await;
    assert!(said.contains(wants) && shown.contains(wants), "{said}\n{shown}");

    settings.sentinel.as_mut().unwrap().password = Some(SecretSource::plain("sentinels"));
    let (said, _) = words(&settings).await;
    assert!(
        said.contains("NOAUTH") && said.contains("set one in `session.store.redis`"),
        "{said}"
    );

    settings.password = Some(SecretSource::plain(CANARY));
    let (said, shown) = words(&settings).await;
    assert_eq!(said, "", "{shown}");
    assert!(shown.contains("sentinel 3: primary is 127.0.0.1:"), "{shown}");
    assert!(!shown.contains(CANARY));

    settings.sentinel.as_mut().unwrap().master = "other".into();
    let (said, shown) = words(&settings).await;
    let wants = "know no primary called `other`";
    assert!(said.contains(wants) && shown.contains(wants), "{said}\n{shown}");

    // An address that leads to Redis itself, and nobody at all.
    let mut no_sentinel = settings.clone();
    let url = format!("redis://:{CANARY}@127.0.0.1:{}", servers.primary.port);
    no_sentinel.sentinel.as_mut().unwrap().urls = vec![SecretSource::plain(&url)];
    no_sentinel.sentinel.as_mut().unwrap().password = None;
    let (said, _) = words(&no_sentinel).await;
    assert!(said.contains("is it a sentinel"), "{said}");
    servers.sentinels.iter_mut().for_each(RedisServer::kill);
    let (said, shown) = words(&settings).await;
    assert!(
        said.contains("a sentinel:") && said.contains("refused"),
        "{said}\n{shown}"
    );
}

#[tokio::test]
async fn fa_01_a_failover_in_a_cluster_loses_nothing_and_is_followed_at_once() {
    let mut servers = Clustered::start(1);
    let store = Store::redis(&servers.settings()).unwrap();
    fill(&store).await;
    let keys = servers.nodes[0].count();
    becomes("a replica with all of it", || {
        servers.nodes[3..].iter().map(RedisServer::count).sum::<usize>() == 64
    });
    assert!(keys > 0);
    servers.nodes[0].kill();
    let took = serves_again(&store).await;
    println!("cluster: writes again {took:?} after the kill");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_node_that_hands_over_and_lives_on_sends_us_to_its_successor() {
    let servers = Clustered::start(1);
    let store = Store::redis(&servers.settings()).unwrap();
    fill(&store).await;
    let ticket = store.read_with_ticket(session(1)).await.unwrap().1;
    for replica in &servers.nodes[3..] {
        becomes("a replica in step", || {
            replica
                .cli(&["INFO", "replication"])
                .contains("master_link_status:up")
        });
        assert_eq!(replica.cli(&["CLUSTER", "FAILOVER"]), "OK");
        becomes("a primary", || replica.cli(&["ROLE"]).starts_with("master"));
    }
    let handed_over = Instant::now();
    while store.holds(&ticket) {
        assert!(
            handed_over.elapsed() < Duration::from_secs(1),
            "another may have written since"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    becomes("a whole cluster", || {
        let says = |node: &RedisServer| node.cli(&["CLUSTER", "INFO"]);
        servers
            .nodes
            .iter()
            .all(|node| says(node).contains("cluster_state:ok"))
    });
    // MOVED on every node.
    for n in 0..64 {
        let replaced = store.replace(session(n), 1, SESSION, MINUTE).await.unwrap();
        assert_eq!(replaced, Replaced::Done(2), "{n}");
    }
}

/// Moves all slots of the first node to the second while sessions are read, written, claimed and listed.
#[tokio::test]
async fn slots_that_move_cost_no_request() {
    let servers = Clustered::start(0);
    let store = Arc::new(Store::redis(&servers.settings()).unwrap());
    fill(&store).await;
    let (done, mut asking) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for n in 0..8u8 {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        asking.spawn(async move {
            let (mut version, mut rounds) = (1, 0u32);
            while !done.load(Ordering::SeqCst) || rounds < 10 {
                for n in (n * 8)..(n * 8 + 8) {
                    let record = store.read(session(n)).await.unwrap().expect("a session is lost");
                    assert_eq!(record.version, version, "{n}");
                    let replaced = store.replace(session(n), version, SESSION, MINUTE).await;
                    assert_eq!(replaced.unwrap(), Replaced::Done(version + 1), "{n}");
                    let lease = StoreKey {
                        kind: Kind::RefreshLock,
                        ..session(n)
                    };
                    assert!(store.claim(lease, &[n; 16], MINUTE).await.unwrap());
                    store.release(lease, &[n; 16]).await.unwrap();
                    let index = StoreKey {
                        kind: Kind::UserIndex,
                        ..session(n)
                    };
                    assert_eq!(store.enlist(index, &[1; 32], SESSION, MINUTE).await.unwrap(), 1);
                    assert_eq!(store.listed(index).await.unwrap().len(), 1);
                }
                version += 1;
                rounds += 1;
            }
            rounds
        });
    }
    let ids = [0, 1].map(|i: usize| servers.nodes[i].cli(&["CLUSTER", "MYID"]));
    let at = format!("127.0.0.1:{}", servers.nodes[0].port);
    let moved = tokio::task::spawn_blocking(move || {
        let mut reshard = std::process::Command::new("redis-cli");
        reshard.args([
            "--cluster",
            "reshard",
            &at,
            "--cluster-from",
            &ids[0],
            "--cluster-to",
            &ids[1],
        ]);
        reshard.args([
            "--cluster-slots",
            "2000",
            "--cluster-yes",
            "--cluster-pipeline",
            "2",
        ]);
        let output = reshard.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    });
    moved.await.unwrap();
    done.store(true, Ordering::SeqCst);
    let rounds = asking.join_all().await;
    println!("rounds while slots moved: {rounds:?}");
    let told: Vec<_> = servers
        .nodes
        .iter()
        .map(|node| node.cli(&["INFO", "errorstats"]))
        .collect();
    assert!(
        told.iter().any(|told| told.contains("errorstat_MOVED")),
        "{told:?}"
    );
}

#[tokio::test]
async fn keys_on_their_way_to_another_node_are_found_there() {
    let servers = Clustered::start(0);
    let store = Store::redis(&servers.settings()).unwrap();
    let (key, lease) = (
        session(1),
        StoreKey {
            kind: Kind::RefreshLock,
            ..session(1)
        },
    );
    store.create(key, SESSION, MINUTE).await.unwrap();
    let from = servers
        .nodes
        .iter()
        .position(|node| !node.keys().is_empty())
        .unwrap();
    let (from, to) = (&servers.nodes[from], &servers.nodes[(from + 1) % 3]);
    let name = from.keys()[0].0.clone();
    let slot = from.cli(&["CLUSTER", "KEYSLOT", &name]);
    let (from_id, to_id) = (from.cli(&["CLUSTER", "MYID"]), to.cli(&["CLUSTER", "MYID"]));
    assert_eq!(
        to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]),
        "OK"
    );
    assert_eq!(
        from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]),
        "OK"
    );
    // What is still there is served there; what is not is asked for at the other: ASK.
    assert_eq!(store.read(key).await.unwrap().unwrap().version, 1);
    assert!(store.claim(lease, &[1; 16], MINUTE).await.unwrap());
    assert!(!store.claim(lease, &[2; 16], MINUTE).await.unwrap());
    assert!(store.renew(lease, &[1; 16], MINUTE).await.unwrap());
    store.release(lease, &[1; 16]).await.unwrap();
    let moved = from.cli(&["MIGRATE", "127.0.0.1", &to.port.to_string(), &name, "0", "1000"]);
    assert_eq!(moved, "OK");
    let replaced = store.replace(key, 1, SESSION, MINUTE).await.unwrap();
    assert_eq!(replaced, Replaced::Done(2));
    assert!(from.cli(&["INFO", "errorstats"]).contains("errorstat_ASK"));
    for node in [to, from] {
        assert_eq!(node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]), "OK");
    }
    assert_eq!(store.read(key).await.unwrap().unwrap().version, 2);
    assert!(store.delete(key).await.unwrap());
}

#[tokio::test]
async fn fa_01_a_cluster_that_is_down_is_an_error_with_a_remedy_and_comes_back() {
    let mut servers = Clustered::start(0);
    let store = Store::redis(&servers.settings()).unwrap();
    fill(&store).await;
    servers.nodes[2].kill();
    let mut words = Vec::new();
    becomes("the others' notice", || {
        servers.nodes[0]
            .cli(&["CLUSTER", "INFO"])
            .contains("cluster_state:fail")
    });
    for n in 0..64 {
        let began = Instant::now();
        words.extend(store.read(session(n)).await.err().map(|error| error.to_string()));
        assert!(began.elapsed() < Duration::from_millis(2500));
    }
    assert!(words.len() == 64, "{}", words.len());
    assert!(
        words
            .iter()
            .any(|w| w.contains("CLUSTERDOWN") && w.contains("cluster info")),
        "{words:?}"
    );
    assert!(words.iter().any(|w| w.contains("refused")), "{words:?}");
    servers.nodes[2].start_again();
    let began = Instant::now();
    while store.ping().await.is_err() || store.create(KEY, SESSION, MINUTE).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(recovers(&store).await);
}

/// Each operation once, while nobody answers.
async fn all_end_in_time(what: &str, store: &Store) {
    let began = Instant::now();
    let lease = StoreKey {
        kind: Kind::RefreshLock,
        ..KEY
    };
    let asked: [Pin<Box<dyn Future<Output = bool> + '_>>; 8] = [
        Box::pin(async { store.read(KEY).await.is_err() }),
        Box::pin(async { store.create(KEY, SESSION, MINUTE).await.is_err() }),
        Box::pin(async { store.replace(KEY, 1, SESSION, MINUTE).await.is_err() }),
        Box::pin(async { store.delete(KEY).await.is_err() }),
        Box::pin(async { store.claim(lease, &[1; 16], MINUTE).await.is_err() }),
        Box::pin(async { store.enlist(KEY, &[1; 32], SESSION, MINUTE).await.is_err() }),
        Box::pin(async { store.listed(KEY).await.is_err() }),
        Box::pin(async { store.ping().await.is_err() }),
    ];
    let failed = join_all(asked).await;
    let took = began.elapsed();
    assert_eq!(failed, [true; 8], "{what}");
    assert!(took < Duration::from_secs(3), "{what}: {took:?}");
}

#[tokio::test]
async fn fa_01_every_operation_ends_in_time_where_every_server_hangs() {
    let (servers, nodes) = (Replicated::start(), Clustered::start(0));
    let stores = [
        Store::redis(&servers.settings()).unwrap(),
        Store::redis(&nodes.settings()).unwrap(),
    ];
    for store in &stores {
        store.create(KEY, SESSION, MINUTE).await.unwrap();
    }
    let fresh = [
        Store::redis(&servers.settings()).unwrap(),
        Store::redis(&nodes.settings()).unwrap(),
    ];
    let Replicated {
        primary,
        replicas,
        sentinels,
    } = &servers;
    let all = || {
        [primary]
            .into_iter()
            .chain(replicas)
            .chain(sentinels)
            .chain(&nodes.nodes)
    };
    all().for_each(|server| server.signal("STOP"));
    for _ in 0..2 {
        tokio::join!(
            all_end_in_time("sentinel", &stores[0]),
            all_end_in_time("cluster", &stores[1]),
            all_end_in_time("sentinel, never connected", &fresh[0]),
            all_end_in_time("cluster, never connected", &fresh[1]),
        );
    }
    all().for_each(|server| server.signal("CONT"));
    for store in stores.iter().chain(&fresh) {
        let began = Instant::now();
        while store.create(KEY, SESSION, MINUTE).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(15));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_node_of_a_cluster_behind_url_says_so() {
    let servers = Clustered::start(0);
    let store = servers.nodes[0].store();
    let mut words = Vec::new();
    for n in 0..64 {
        words.extend(store.read(session(n)).await.err().map(|error| error.to_string()));
    }
    assert!(!words.is_empty() && words.len() < 64);
    assert!(
        words
            .iter()
            .all(|w| w.contains("name some of its nodes in `session.store.redis.cluster`")),
        "{words:?}"
    );
    // The other way round: one server behind `cluster`.
    let single = RedisServer::start();
    let store = Store::redis(&RedisSettings {
        url: None,
        cluster: single.settings().url.map(|url| vec![url]),
        ..single.settings()
    });
    let error = store.unwrap().ping().await.unwrap_err().to_string();
    assert!(error.contains("cluster"), "{error}");
}

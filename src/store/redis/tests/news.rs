//! What the server tells of changes, and that nothing is taken for true without it (contract 4.10): a real Redis.

use super::super::key_of;
use super::{CANARY, KEY, MINUTE, recovers};
use crate::store::testing::{Clustered, RedisServer, Replicated, becomes, settings};
use crate::store::{Kind, Store, StoreKey, Ticket, Watch};
use bytes::Bytes;
use std::time::{Duration, Instant};

const SESSION: Bytes = Bytes::from_static(b"x");
/// Longer than a change may be under way, and shorter than a connection takes to be found dead.
const SOON: Duration = Duration::from_millis(500);

async fn kept(store: &Store, key: StoreKey) -> Ticket {
    let (record, ticket) = store.read_with_ticket(key).await.unwrap();
    assert!(record.is_some() && ticket.is_worth_keeping(), "{ticket:?}");
    ticket
}

/// Reads until the answer may be kept: the first one that brings a connection is void at once.
async fn kept_soon(store: &Store, key: StoreKey) -> Ticket {
    let began = Instant::now();
    loop {
        let ticket = kept(store, key).await;
        if store.holds(&ticket) {
            return ticket;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{ticket:?}");
    }
}

async fn void_within(span: Duration, store: &Store, ticket: &Ticket) -> bool {
    let began = Instant::now();
    while began.elapsed() < span {
        if !store.holds(ticket) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

async fn wakes(watch: &mut Watch) -> bool {
    tokio::time::timeout(SOON, watch.changed()).await.is_ok()
}

/// Takes the news that a watch has already.
async fn quiet(watch: &mut Watch) {
    while tokio::time::timeout(Duration::from_millis(20), watch.changed())
        .await
        .is_ok()
    {}
}

#[tokio::test]
async fn what_another_writes_or_deletes_is_heard_of_at_once_and_nothing_else_is() {
    let server = RedisServer::start();
    let (store, other) = (server.store(), server.store());
    let foreign = StoreKey { hash: [9; 32], ..KEY };
    for key in [KEY, foreign] {
        other.create(key, SESSION, MINUTE).await.unwrap();
    }
    let (mut ticket, mut watch) = (kept_soon(&store, KEY).await, store.watch(KEY.hash));
    // It holds for as long as the server answers, with nobody asking.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(store.holds(&ticket));
    other.delete(foreign).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(store.holds(&ticket), "somebody else's");
    quiet(&mut watch).await;
    for change in ["replace", "delete", "create", "FLUSHALL"] {
        match change {
            "replace" => drop(other.replace(KEY, 1, SESSION, MINUTE).await.unwrap()),
            "delete" => drop(other.delete(KEY).await.unwrap()),
            "create" => other.create(KEY, SESSION, MINUTE).await.unwrap(),
            _ => assert_eq!(server.cli(&["FLUSHALL"]), "OK"),
        }
        assert!(void_within(SOON, &store, &ticket).await, "{change}");
        assert!(wakes(&mut watch).await, "{change}");
        ticket = store.read_with_ticket(KEY).await.unwrap().1;
        assert!(store.holds(&ticket), "{change}");
    }
    // And of what ends by itself, and of the lease on a refresh.
    other
        .create(KEY, SESSION, Duration::from_millis(100))
        .await
        .unwrap();
    let ticket = kept_soon(&store, KEY).await;
    assert!(
        void_within(Duration::from_secs(2), &store, &ticket).await,
        "its time has come"
    );
    quiet(&mut watch).await;
    let kind = Kind::RefreshLock;
    assert!(
        other
            .claim(StoreKey { kind, ..KEY }, &[1; 16], MINUTE)
            .await
            .unwrap()
    );
    assert!(wakes(&mut watch).await);
    other.release(StoreKey { kind, ..KEY }, &[1; 16]).await.unwrap();
    assert!(wakes(&mut watch).await);
}

#[tokio::test]
async fn a_server_that_is_silent_for_a_second_voids_what_was_read() {
    let server = RedisServer::start();
    let store = server.store();
    store.create(KEY, SESSION, MINUTE).await.unwrap();
    let ticket = kept_soon(&store, KEY).await;
    server.signal("STOP");
    let began = Instant::now();
    assert!(void_within(Duration::from_secs(2), &store, &ticket).await);
    assert!(
        began.elapsed() < Duration::from_millis(1100),
        "{:?}",
        began.elapsed()
    );
    server.signal("CONT");
    assert!(recovers(&store).await);
    kept_soon(&store, KEY).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_voids_what_was_read_and_is_replaced_unasked() {
    let server = RedisServer::start();
    let store = server.store();
    store.create(KEY, SESSION, MINUTE).await.unwrap();
    let (ticket, mut watch) = (kept_soon(&store, KEY).await, store.watch(KEY.hash));
    quiet(&mut watch).await;
    let id = || server.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
    let before = id();
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(void_within(SOON, &store, &ticket).await);
    assert!(wakes(&mut watch).await, "anything may have changed");
    // Nobody asks anything, and yet what happens next is heard.
    quiet(&mut watch).await;
    tokio::time::sleep(SOON).await;
    assert_ne!(before, id());
    quiet(&mut watch).await;
    server.cli(&[
        "DEL",
        "cloakroom:{BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc}:session",
    ]);
    assert!(wakes(&mut watch).await);
    assert_eq!(store.read(KEY).await.unwrap(), None);
}

#[tokio::test]
async fn se_12_without_the_right_to_hear_of_changes_everything_works_and_nothing_is_kept() {
    let server = RedisServer::start();
    for (missing, remedy) in [("-client", "+client|tracking"), ("-role", "+role")] {
        let user = format!("ACL SETUSER app reset on >{CANARY} ~cloakroom:* +@all {missing}");
        assert_eq!(server.cli(&user.split(' ').collect::<Vec<_>>()), "OK");
        let store = Store::redis(&settings(&format!(
            "redis://app:{CANARY}@127.0.0.1:{}",
            server.port
        )))
        .unwrap();
        store.create(KEY, SESSION, MINUTE).await.unwrap();
        let (record, ticket) = store.read_with_ticket(KEY).await.unwrap();
        assert!(record.is_some() && !ticket.is_worth_keeping() && !store.holds(&ticket));
        let steps = store.check_online().await;
        assert!(steps.iter().all(|step| step.outcome.is_ok()), "{steps:?}");
        let doubts: Vec<_> = steps.iter().filter_map(|step| step.doubt.as_deref()).collect();
        assert!(doubts.iter().any(|doubt| doubt.contains(remedy)), "{doubts:?}");
    }
}

#[tokio::test]
async fn a_server_without_resp3_works_and_nothing_is_kept() {
    let server = RedisServer::start_with(&["--rename-command", "HELLO", ""]);
    let store = server.store();
    store.create(KEY, SESSION, MINUTE).await.unwrap();
    let (record, ticket) = store.read_with_ticket(KEY).await.unwrap();
    assert!(record.is_some() && !ticket.is_worth_keeping());
    let steps = store.check_online().await;
    let doubts: Vec<_> = steps.iter().filter_map(|step| step.doubt.as_deref()).collect();
    assert!(doubts.iter().any(|doubt| doubt.contains("RESP3")), "{steps:?}");
}

#[tokio::test]
async fn what_a_replica_says_is_not_kept() {
    let server = RedisServer::start();
    let store = server.store();
    store.create(KEY, SESSION, MINUTE).await.unwrap();
    let ticket = kept_soon(&store, KEY).await;
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(void_within(Duration::from_secs(1), &store, &ticket).await);
    assert!(recovers(&store).await);
    assert!(!store.read_with_ticket(KEY).await.unwrap().1.is_worth_keeping());
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    let began = Instant::now();
    while !store
        .read_with_ticket(KEY)
        .await
        .is_ok_and(|(_, ticket)| store.holds(&ticket))
    {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_the_primary_says_is_kept_only_while_most_sentinels_stand_behind_it() {
    let servers = Replicated::start();
    let store = Store::redis(&servers.settings()).unwrap();
    store.create(KEY, SESSION, MINUTE).await.unwrap();
    let ticket = kept_soon(&store, KEY).await;
    servers.sentinels[0].signal("STOP");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(store.holds(&ticket), "two of three");
    servers.sentinels[1].signal("STOP");
    assert!(
        void_within(Duration::from_secs(2), &store, &ticket).await,
        "one of three"
    );
    assert!(store.read(KEY).await.unwrap().is_some(), "and yet it is read");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        let ticket = kept(&store, KEY).await;
        assert!(!store.holds(&ticket), "one of three is no majority");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    servers.sentinels[0].signal("CONT");
    kept_soon(&store, KEY).await;
}

#[tokio::test]
async fn each_node_of_a_cluster_answers_for_its_own_keys() {
    let servers = Clustered::start(0);
    let store = Store::redis(&servers.settings()).unwrap();
    let mut tickets = Vec::new();
    for n in 0..32 {
        let key = StoreKey { hash: [n; 32], ..KEY };
        store.create(key, SESSION, MINUTE).await.unwrap();
    }
    for n in 0..32 {
        let key = StoreKey { hash: [n; 32], ..KEY };
        tickets.push(kept_soon(&store, key).await);
    }
    assert!(tickets.iter().all(|ticket| store.holds(ticket)));
    let there = servers.nodes[0].keys().len();
    assert!((1..32).contains(&there), "{there}");
    servers.nodes[0].signal("STOP");
    tokio::time::sleep(Duration::from_millis(1050)).await;
    let holding = tickets.iter().filter(|ticket| store.holds(ticket)).count();
    servers.nodes[0].signal("CONT");
    assert_eq!(holding, 32 - there);
}

#[tokio::test]
async fn a_node_that_calls_its_cluster_down_answers_for_nothing() {
    let servers = Clustered::start(0);
    let store = Store::redis(&servers.settings()).unwrap();
    store.create(KEY, SESSION, MINUTE).await.unwrap();
    let ticket = kept_soon(&store, KEY).await;
    let owner = |node: &&RedisServer| !node.keys().is_empty();
    let owner = servers.nodes.iter().find(owner).unwrap();
    // It still calls itself a primary, and has the key; somebody else may have both by now.
    let slot = owner.cli(&["CLUSTER", "NODES"]);
    let myself = slot.lines().find(|line| line.contains("myself")).unwrap();
    let last = myself.rsplit(['-', ' ']).next().unwrap();
    assert_eq!(owner.cli(&["CLUSTER", "DELSLOTS", last]), "OK");
    becomes("a node that calls its cluster down", || {
        owner.cli(&["CLUSTER", "INFO"]).contains("cluster_state:fail")
    });
    assert!(owner.cli(&["ROLE"]).starts_with("master"));
    assert!(void_within(Duration::from_millis(1500), &store, &ticket).await);
}

#[test]
fn names_of_keys_are_read_back() {
    let server = Store::redis(&settings("redis://127.0.0.1:1")).unwrap();
    let crate::store::Backend::Redis(redis) = &server.backend else {
        panic!("{server:?}")
    };
    for (n, kind) in (0..).zip(Kind::ALL) {
        let key = StoreKey { kind, hash: [n; 32] };
        assert_eq!(key_of("cloakroom:", redis.key(key).as_bytes()), Some(key));
    }
    for text in [
        "",
        "cloakroom:",
        "other:{BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc}:session",
        "cloakroom:{BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc}:sessions",
        "cloakroom:{BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH}:session",
        "cloakroom:{}:session",
        "cloakroom:{BwcH",
    ] {
        assert_eq!(key_of("cloakroom:", text.as_bytes()), None, "{text}");
    }
}

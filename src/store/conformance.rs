//! What every store does, written once and run over each of them.

use super::testing::{Clustered, RedisServer, Replicated};
use super::{Kind, Record, Replaced, Store, StoreKey};
use crate::clock::{Clock, UnixTime};
use crate::config::RedisSettings;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);
const BEGIN: UnixTime = UnixTime::from_secs(1_800_000_000);

/// A store, and how time passes for it.
struct Fixture {
    store: Arc<Store>,
    clock: Clock,
}

impl Fixture {
    /// Moves a manual clock; waits where the clock is Redis's own.
    async fn pass(&self, span: Duration) {
        match &self.clock {
            Clock::Manual(_) => self.clock.advance(span),
            Clock::System => tokio::time::sleep(span).await,
        }
    }
}

fn key(kind: Kind, n: u8) -> StoreKey {
    StoreKey { kind, hash: [n; 32] }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

type Check = for<'a> fn(&'a Fixture) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! conformance {
    ($($name:ident),+ $(,)?) => {
        const CHECKS: &[(&str, Check)] = &[$((stringify!($name), |fixture| Box::pin($name(fixture)))),+];
        mod memory {$(
            #[tokio::test]
            async fn $name() {
                let clock = crate::clock::Clock::manual(super::BEGIN);
                let store = super::Store::memory(1000, clock.clone()).into();
                super::$name(&super::Fixture { store, clock }).await;
            }
        )+}
    };
}

conformance!(
    what_is_created_is_read_with_version_one,
    a_version_moves_by_one_with_each_replacement,
    a_slower_older_write_never_wins,
    a_deleted_session_is_never_revived,
    an_entry_ends_with_its_time,
    a_replacement_has_its_own_time,
    a_claim_is_had_once,
    only_its_owner_renews_or_releases_a_lease,
    kinds_of_one_hash_do_not_meet,
    of_many_writers_at_one_version_one_wins,
    of_many_claimants_one_wins,
    every_byte_comes_back,
    a_set_holds_its_members_and_their_summaries,
    a_set_never_lives_shorter_than_it_would_have,
    a_ticket_is_void_once_its_key_was_written_or_deleted,
    who_watches_a_session_is_told_of_its_writes_and_leases,
    it_answers_a_ping,
    the_online_check_passes,
);

/// All checks over one Redis, each on its own key prefix, so that the last step can look at all the keys.
async fn redis_conforms(settings: &RedisSettings, servers: &[&RedisServer]) {
    for (name, check) in CHECKS {
        let mut settings = settings.clone();
        settings.key_prefix = format!("{name}:");
        let store = Store::redis(&settings).unwrap().into();
        println!("redis: {name}");
        check(&Fixture {
            store,
            clock: Clock::System,
        })
        .await;
    }
    let keys: Vec<_> = servers.iter().flat_map(|server| server.keys()).collect();
    assert!(keys.len() > 5, "{keys:?}");
    assert!(keys.iter().all(|(_, ttl)| *ttl > 0), "{keys:?}");
}

#[tokio::test]
async fn redis_conforms_and_se_07_every_key_has_a_ttl() {
    let server = RedisServer::start();
    redis_conforms(&server.settings(), &[&server]).await;
}

#[tokio::test]
async fn sentinel_conforms_and_se_07_every_key_has_a_ttl() {
    let servers = Replicated::start();
    redis_conforms(&servers.settings(), &[&servers.primary]).await;
}

#[tokio::test]
async fn a_cluster_conforms_and_se_07_every_key_has_a_ttl() {
    let servers = Clustered::start(0);
    let nodes: Vec<_> = servers.nodes.iter().collect();
    redis_conforms(&servers.settings(), &nodes).await;
    assert!(nodes.iter().all(|node| !node.keys().is_empty()), "each has some");
}

async fn what_is_created_is_read_with_version_one(f: &Fixture) {
    let k = key(Kind::Session, 1);
    assert_eq!(f.store.read(k).await.unwrap(), None);
    f.store.create(k, bytes("a"), MINUTE).await.unwrap();
    let record = Record {
        version: 1,
        sealed: bytes("a"),
    };
    assert_eq!(f.store.read(k).await.unwrap(), Some(record));
}

async fn a_version_moves_by_one_with_each_replacement(f: &Fixture) {
    let k = key(Kind::Session, 2);
    f.store.create(k, bytes("a"), MINUTE).await.unwrap();
    for version in 1..300 {
        let replaced = f.store.replace(k, version, bytes("b"), MINUTE).await.unwrap();
        assert_eq!(replaced, Replaced::Done(version + 1));
    }
    assert_eq!(f.store.read(k).await.unwrap().unwrap().version, 300);
    // Or to where no number of those moves it, and on from there.
    for (version, above) in [(300, 1 << 32), (1 << 32, 2 << 32)] {
        let replaced = f.store.replace_above(k, version, bytes("c"), MINUTE).await;
        assert_eq!(replaced.unwrap(), Replaced::Done(above));
    }
    let replaced = f.store.replace(k, 2 << 32, bytes("d"), MINUTE).await.unwrap();
    assert_eq!(replaced, Replaced::Done((2 << 32) + 1));
    let late = f.store.replace_above(k, 300, bytes("e"), MINUTE).await.unwrap();
    assert_eq!(late, Replaced::Changed);
    assert_eq!(f.store.read(k).await.unwrap().unwrap().sealed, bytes("d"));
}

async fn a_slower_older_write_never_wins(f: &Fixture) {
    let k = key(Kind::Session, 3);
    f.store.create(k, bytes("a"), MINUTE).await.unwrap();
    assert_eq!(
        f.store.replace(k, 1, bytes("new"), MINUTE).await.unwrap(),
        Replaced::Done(2)
    );
    assert_eq!(
        f.store.replace(k, 1, bytes("old"), MINUTE).await.unwrap(),
        Replaced::Changed
    );
    assert_eq!(f.store.read(k).await.unwrap().unwrap().sealed, bytes("new"));
}

async fn a_deleted_session_is_never_revived(f: &Fixture) {
    let k = key(Kind::Session, 4);
    f.store.create(k, bytes("a"), MINUTE).await.unwrap();
    assert!(f.store.delete(k).await.unwrap());
    assert!(!f.store.delete(k).await.unwrap());
    assert_eq!(
        f.store.replace(k, 1, bytes("b"), MINUTE).await.unwrap(),
        Replaced::Gone
    );
    assert_eq!(f.store.read(k).await.unwrap(), None);
}

async fn an_entry_ends_with_its_time(f: &Fixture) {
    let ttl = Duration::from_millis(200);
    let (session, claim) = (key(Kind::Session, 5), key(Kind::AttemptClaim, 5));
    f.store.create(session, bytes("a"), ttl).await.unwrap();
    assert!(f.store.claim(claim, &[1; 16], ttl).await.unwrap());
    assert!(f.store.read(session).await.unwrap().is_some());
    f.pass(Duration::from_millis(300)).await;
    assert_eq!(f.store.read(session).await.unwrap(), None);
    assert_eq!(
        f.store.replace(session, 1, bytes("b"), ttl).await.unwrap(),
        Replaced::Gone
    );
    assert!(!f.store.delete(session).await.unwrap());
    assert!(!f.store.renew(claim, &[1; 16], ttl).await.unwrap());
    assert!(f.store.claim(claim, &[2; 16], ttl).await.unwrap());
}

async fn a_replacement_has_its_own_time(f: &Fixture) {
    let k = key(Kind::Session, 6);
    let lease = key(Kind::RefreshLock, 6);
    let short = Duration::from_millis(200);
    f.store.create(k, bytes("a"), short).await.unwrap();
    f.store.replace(k, 1, bytes("b"), MINUTE).await.unwrap();
    assert!(f.store.claim(lease, &[1; 16], short).await.unwrap());
    assert!(f.store.renew(lease, &[1; 16], MINUTE).await.unwrap());
    f.pass(Duration::from_millis(300)).await;
    assert!(f.store.read(k).await.unwrap().is_some());
    assert!(!f.store.claim(lease, &[2; 16], short).await.unwrap());
}

async fn a_claim_is_had_once(f: &Fixture) {
    let k = key(Kind::AttemptClaim, 7);
    assert!(f.store.claim(k, &[1; 16], MINUTE).await.unwrap());
    assert!(!f.store.claim(k, &[2; 16], MINUTE).await.unwrap());
    // Not even by the same owner: a doubled callback must see that the first is under way.
    assert!(!f.store.claim(k, &[1; 16], MINUTE).await.unwrap());
}

async fn only_its_owner_renews_or_releases_a_lease(f: &Fixture) {
    let k = key(Kind::RefreshLock, 8);
    assert!(f.store.claim(k, &[1; 16], MINUTE).await.unwrap());
    assert!(!f.store.renew(k, &[2; 16], MINUTE).await.unwrap());
    f.store.release(k, &[2; 16]).await.unwrap();
    assert!(f.store.renew(k, &[1; 16], MINUTE).await.unwrap());
    f.store.release(k, &[1; 16]).await.unwrap();
    assert!(!f.store.renew(k, &[1; 16], MINUTE).await.unwrap());
    assert!(f.store.claim(k, &[2; 16], MINUTE).await.unwrap());
}

async fn kinds_of_one_hash_do_not_meet(f: &Fixture) {
    f.store
        .create(key(Kind::Session, 9), bytes("a"), MINUTE)
        .await
        .unwrap();
    assert!(
        f.store
            .claim(key(Kind::RefreshLock, 9), &[1; 16], MINUTE)
            .await
            .unwrap()
    );
    assert!(f.store.delete(key(Kind::Session, 9)).await.unwrap());
    assert!(
        f.store
            .renew(key(Kind::RefreshLock, 9), &[1; 16], MINUTE)
            .await
            .unwrap()
    );
}

async fn of_many_writers_at_one_version_one_wins(f: &Fixture) {
    let k = key(Kind::Session, 10);
    f.store.create(k, bytes("a"), MINUTE).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..50u8 {
        let store = f.store.clone();
        writers.spawn(async move { store.replace(k, 1, Bytes::from(vec![n]), MINUTE).await.unwrap() });
    }
    let outcomes = writers.join_all().await;
    assert_eq!(outcomes.iter().filter(|o| **o == Replaced::Done(2)).count(), 1);
    assert_eq!(outcomes.iter().filter(|o| **o == Replaced::Changed).count(), 49);
}

async fn of_many_claimants_one_wins(f: &Fixture) {
    let k = key(Kind::RefreshLock, 11);
    let mut claimants = tokio::task::JoinSet::new();
    for n in 0..50 {
        let store = f.store.clone();
        claimants.spawn(async move { store.claim(k, &[n; 16], MINUTE).await.unwrap() });
    }
    assert_eq!(claimants.join_all().await.iter().filter(|won| **won).count(), 1);
}

async fn every_byte_comes_back(f: &Fixture) {
    let k = key(Kind::Session, 12);
    let all: Vec<u8> = (0..=255).cycle().take(64 * 1024).collect();
    f.store.create(k, all.clone().into(), MINUTE).await.unwrap();
    f.store.replace(k, 1, all.clone().into(), MINUTE).await.unwrap();
    assert_eq!(f.store.read(k).await.unwrap().unwrap().sealed, all);
}

fn session(n: u8) -> [u8; 32] {
    [n; 32]
}

/// A set's members, in order.
async fn members(f: &Fixture, k: StoreKey) -> Vec<(u8, Bytes)> {
    let mut members = f.store.listed(k).await.unwrap();
    members.sort();
    members
        .into_iter()
        .map(|(hash, sealed)| (hash[0], sealed))
        .collect()
}

async fn a_set_holds_its_members_and_their_summaries(f: &Fixture) {
    let (user, other) = (key(Kind::UserIndex, 13), key(Kind::UserIndex, 14));
    assert_eq!(members(f, user).await, []);
    f.store.strike(user, &[session(1)]).await.unwrap();
    for n in [1, 2, 3] {
        f.store
            .create(key(Kind::Session, n), bytes("s"), MINUTE)
            .await
            .unwrap();
        let count = f
            .store
            .enlist(user, &session(n), bytes("a"), MINUTE)
            .await
            .unwrap();
        assert_eq!(count, usize::from(n));
    }
    let again = f
        .store
        .enlist(user, &session(2), bytes("b"), MINUTE)
        .await
        .unwrap();
    assert_eq!(again, 3, "the same member once");
    assert_eq!(
        members(f, user).await,
        [(1, bytes("a")), (2, bytes("b")), (3, bytes("a"))]
    );
    assert_eq!(members(f, other).await, []);
    f.store
        .strike(user, &[session(1), session(3), session(9)])
        .await
        .unwrap();
    assert_eq!(members(f, user).await, [(2, bytes("b"))]);
    f.store.strike(user, &[session(2)]).await.unwrap();
    f.store.strike(user, &[]).await.unwrap();
    assert_eq!(members(f, user).await, []);
}

async fn a_set_never_lives_shorter_than_it_would_have(f: &Fixture) {
    let (short, long) = (key(Kind::SidIndex, 15), key(Kind::SidIndex, 16));
    for n in [4, 5] {
        f.store
            .create(key(Kind::Session, n), bytes("s"), MINUTE)
            .await
            .unwrap();
    }
    let moment = Duration::from_millis(60);
    f.store
        .enlist(short, &session(4), bytes("a"), moment)
        .await
        .unwrap();
    f.store
        .enlist(long, &session(4), bytes("a"), MINUTE)
        .await
        .unwrap();
    f.store
        .enlist(long, &session(5), bytes("b"), moment)
        .await
        .unwrap();
    f.pass(moment * 2).await;
    assert_eq!(members(f, short).await, []);
    assert_eq!(members(f, long).await, [(4, bytes("a")), (5, bytes("b"))]);
}

async fn a_ticket_is_void_once_its_key_was_written_or_deleted(f: &Fixture) {
    let k = key(Kind::Session, 17);
    f.store.create(k, bytes("a"), MINUTE).await.unwrap();
    let (record, first) = f.store.read_with_ticket(k).await.unwrap();
    assert_eq!(record.unwrap().version, 1);
    assert_eq!(f.store.holds(&first), first.is_worth_keeping());
    f.store.replace(k, 1, bytes("b"), MINUTE).await.unwrap();
    assert!(!f.store.holds(&first));
    let (_, second) = f.store.read_with_ticket(k).await.unwrap();
    f.store.delete(k).await.unwrap();
    assert!(!f.store.holds(&second));
    // That there is nothing is an answer as well.
    let (none, third) = f.store.read_with_ticket(k).await.unwrap();
    assert_eq!(none, None);
    f.store.create(k, bytes("c"), MINUTE).await.unwrap();
    assert!(!f.store.holds(&third));
}

async fn who_watches_a_session_is_told_of_its_writes_and_leases(f: &Fixture) {
    let (k, lease) = (key(Kind::Session, 18), key(Kind::RefreshLock, 18));
    let mut watch = f.store.watch(k.hash);
    f.store.create(k, bytes("a"), MINUTE).await.unwrap();
    watch.changed().await;
    f.store.replace(k, 1, bytes("b"), MINUTE).await.unwrap();
    watch.changed().await;
    f.store.claim(lease, &[1; 16], MINUTE).await.unwrap();
    f.store.release(lease, &[1; 16]).await.unwrap();
    watch.changed().await;
    f.store.delete(k).await.unwrap();
    watch.changed().await;
}

async fn it_answers_a_ping(f: &Fixture) {
    f.store.ping().await.unwrap();
}

async fn the_online_check_passes(f: &Fixture) {
    let steps = f.store.check_online().await;
    let tried: Vec<_> = steps.iter().map(|step| step.tried.as_str()).collect();
    for wanted in ["PING", "write", "read", "delete", "lease", "list"] {
        assert!(tried.iter().any(|tried| tried.ends_with(wanted)), "{tried:?}");
    }
    assert!(
        steps
            .iter()
            .all(|step| step.outcome.is_ok() && step.doubt.is_none()),
        "{steps:?}"
    );
}

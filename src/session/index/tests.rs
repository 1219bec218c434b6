//! Tests of [`super`]: real sessions over a memory store.

use super::*;
use crate::clock::Clock;
use crate::config::SessionSettings;
use crate::secret::Secret;
use crate::session::testing::{BEGIN, Scripted, World, key_ring, new_session, replica};
use crate::session::{BeginError, NewSession};
use crate::store::testing::{Fails, RedisServer};
use serde_json::json;
use std::time::Duration;

const ISSUER: &str = "https://id.example.com";

fn sub(sub: &str) -> Whose<'_> {
    Whose::Sub { issuer: ISSUER, sub }
}

fn sid(sid: &str) -> Whose<'_> {
    Whose::Sid { issuer: ISSUER, sid }
}

fn of(world: &World, sub: &str, sid: &str) -> NewSession {
    let mut new = new_session(&world.clock);
    sub.clone_into(&mut new.sub);
    new.sid = Some(sid.to_owned());
    new.claims
        .insert("iat".into(), json!(world.clock.now().as_secs()));
    new
}

async fn begin(world: &World, sub: &str, sid: &str) -> SessionId {
    world.sessions.begin(of(world, sub, sid)).await.unwrap().0
}

async fn found(world: &World, whose: Whose<'_>) -> Vec<Reference> {
    let found = world.sessions.find(whose, Wanted::There).await.unwrap();
    found.iter().map(Listed::reference).collect()
}

fn references(world: &World, ids: &[&SessionId]) -> Vec<Reference> {
    ids.iter().map(|id| world.sessions.reference(id)).collect()
}

#[test]
fn a_reference_survives_its_text() {
    let reference = Reference::of([0xa7; 32]);
    assert_eq!(reference.to_string(), "a7".repeat(32));
    assert_eq!(reference.to_string().parse(), Ok(reference));
    assert_eq!("A7".repeat(32).parse(), Ok(reference));
    for bad in [
        String::new(),
        "a7".repeat(31),
        "a7".repeat(33),
        "g7".repeat(32),
        "é".repeat(32),
        "+7".repeat(32),
    ] {
        assert_eq!(bad.parse::<Reference>(), Err(NoReference), "{bad}");
    }
}

#[tokio::test]
async fn lo_16_each_session_is_found_by_its_user_and_by_the_providers_session() {
    let world = World::new();
    let one = begin(&world, "alice", "s1").await;
    world.clock.advance(Duration::from_secs(1));
    let two = begin(&world, "alice", "s2").await;
    begin(&world, "bob", "s3").await;
    assert_eq!(
        found(&world, sub("alice")).await,
        references(&world, &[&one, &two])
    );
    assert_eq!(found(&world, sid("s2")).await, references(&world, &[&two]));
    assert_eq!(found(&world.another(), sub("alice")).await.len(), 2);
    let elsewhere = Whose::Sub {
        issuer: "https://elsewhere.example.com",
        sub: "alice",
    };
    assert_eq!(found(&world, elsewhere).await, []);
    // A user's name is not taken for a session's.
    assert_eq!(found(&world, sid("alice")).await, []);
    // Ending one leaves the others to be found.
    world.sessions.end_known(one.store_key()).await.unwrap();
    assert_eq!(found(&world, sub("alice")).await, references(&world, &[&two]));
}

#[tokio::test]
async fn what_lists_show_is_sealed_and_belongs_to_its_member() {
    let world = World::new();
    let (one, other) = (
        begin(&world, "alice", "s1").await,
        begin(&world, "mallory", "s2").await,
    );
    let sets = [sub("alice"), sub("mallory")].map(|whose| world.sessions.names(&whose, Kind::UserIndex)[0]);
    let (member, sealed) = world.store.listed(sets[0]).await.unwrap().remove(0);
    let readable = String::from_utf8_lossy(&sealed).into_owned();
    for word in ["alice", "main", "app", "s1"] {
        assert!(!readable.contains(word), "{word}");
    }
    assert!(member != one.store_key());
    // A summary that was moved to another session's place names neither.
    let hour = Duration::from_hours(1);
    let its_place = world.sessions.keys.scoped(other.store_key());
    world
        .store
        .enlist(sets[1], &its_place, sealed, hour)
        .await
        .unwrap();
    assert_eq!(found(&world, sub("mallory")).await, []);
}

#[tokio::test]
async fn se_05_sets_are_found_after_the_keys_have_rotated() {
    let world = World::new();
    let before = begin(&world, "alice", "s1").await;
    let key = |n: u8| {
        Secret::new(base64::Engine::encode(
            &base64::prelude::BASE64_URL_SAFE_NO_PAD,
            [n; 32],
        ))
    };
    let ring = KeyRing::new("https://app.example.com", &[key(9), key(1)]).unwrap();
    let mut after = world.another();
    after.sessions = replica(
        &world.store,
        ring,
        std::slice::from_ref(&world.provider),
        &world.clock,
        &world.tasks,
    );
    let late = Duration::from_secs(1);
    world.clock.advance(late);
    let new = begin(&after, "alice", "s1").await;
    assert_eq!(
        found(&after, sub("alice")).await,
        references(&world, &[&before, &new])
    );
    assert_eq!(found(&after, sid("s1")).await.len(), 2);
    // A replica without the new key does not take what it cannot read for nothing.
    let blind = replica(
        &world.store,
        key_ring("https://app.example.com", 9),
        std::slice::from_ref(&world.provider),
        &world.clock,
        &world.tasks,
    );
    assert_eq!(blind.find(sub("alice"), Wanted::There).await.unwrap().len(), 1);
}

/// A real Redis, whose sets are not in step with the sessions by themselves.
fn over_redis() -> (RedisServer, World) {
    let redis = RedisServer::start();
    let world = World::over(redis.store().into(), Clock::manual(BEGIN), Scripted::new("main"));
    (redis, world)
}

async fn members(world: &World) -> usize {
    let set = world.sessions.names(&sub("alice"), Kind::UserIndex)[0];
    world.store.listed(set).await.unwrap().len()
}

#[tokio::test]
async fn sets_are_swept_of_what_lives_no_more() {
    let (_redis, world) = over_redis();
    let keeps = begin(&world, "alice", "s1").await;
    for n in 1..100 {
        let id = begin(&world, "alice", "s1").await;
        world.sessions.end_known(id.store_key()).await.unwrap();
        world.clock.advance(Duration::from_secs(12));
        assert!(members(&world).await <= (n + 1).min(64), "{n}");
    }
    assert_eq!(found(&world, sub("alice")).await, references(&world, &[&keeps]));
}

#[tokio::test]
async fn fa_01_who_looks_while_a_record_is_lost_does_not_hide_it_when_it_is_written_again() {
    let (_redis, world) = over_redis();
    let id = begin(&world, "alice", "s1").await;
    let key = world.sessions.key(Kind::Session, id.store_key());
    let record = world.store.read(key).await.unwrap().unwrap();
    world.store.delete(key).await.unwrap();
    assert_eq!(found(&world.another(), sub("alice")).await, []);
    let to_end = world.sessions.find(sub("alice"), Wanted::ToEnd).await.unwrap();
    assert_eq!(to_end.len(), 1, "an end reaches it");
    let ttl = Duration::from_mins(30);
    world.store.create(key, record.sealed, ttl).await.unwrap();
    let its = references(&world, &[&id]);
    assert_eq!(found(&world.another(), sub("alice")).await, its);
    world.store.delete(key).await.unwrap();
    world.clock.advance(UNSETTLED + Duration::from_millis(1));
    assert_eq!(found(&world.another(), sub("alice")).await, []);
    assert_eq!(members(&world).await, 0, "gone for good");
}

#[tokio::test(start_paused = true)]
async fn lo_15_members_that_are_slow_to_ask_for_are_asked_for_at_once() {
    let world = World::new();
    for _ in 0..30 {
        begin(&world, "alice", "s1").await;
    }
    world.store.outage.begin(&["read"], Fails::Late);
    let begun = tokio::time::Instant::now();
    assert_eq!(found(&world, sub("alice")).await.len(), 30);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn lo_17_a_login_under_way_loses_against_a_logout_at_the_provider() {
    for (named, is_kept_out) in [
        ((Some("alice"), Some("s1")), true),
        ((None, Some("s1")), true),
        ((Some("alice"), None), true),
        ((Some("bob"), None), false),
        ((Some("bob"), Some("s1")), false),
        ((Some("alice"), Some("s2")), false),
    ] {
        let world = World::new();
        let new = of(&world, "alice", "s1");
        let replica = world.another();
        let marked = replica
            .sessions
            .log_out_at_provider(ISSUER, named.0, named.1, world.clock.now());
        marked.await.unwrap();
        let begun = world.sessions.begin(new).await;
        assert_eq!(
            matches!(begun, Err(BeginError::LoggedOut)),
            is_kept_out,
            "{named:?}"
        );
        assert_eq!(
            found(&world, sub("alice")).await.is_empty(),
            is_kept_out,
            "{named:?}"
        );
    }
}

#[tokio::test]
async fn lo_17_a_login_begun_before_an_administrator_ended_all_sessions_of_its_user_loses() {
    let second = Duration::from_secs(1);
    for (whose, provider, is_kept_out) in [
        ("alice", None, true),
        ("alice", Some("main"), true),
        ("alice", Some("partner"), false),
        ("bob", None, false),
    ] {
        let world = World::new();
        let mut new = of(&world, "alice", "s1");
        let marked = world.another();
        let marked = marked.sessions.keep_out_logins_under_way(whose, provider);
        marked.await.unwrap();
        // The user has signed in at the provider only afterwards: what counts is when the login was begun here.
        world.clock.advance(second);
        new.claims
            .insert("iat".into(), json!(world.clock.now().plus(second).as_secs()));
        let begun = world.sessions.begin(new).await;
        let case = format!("{whose} {provider:?}");
        assert_eq!(matches!(begun, Err(BeginError::LoggedOut)), is_kept_out, "{case}");
        assert_eq!(
            found(&world, sub("alice")).await.is_empty(),
            is_kept_out,
            "{case}"
        );
        // The provider's clock may be late: a login that was begun afterwards is let in.
        let mut new = of(&world, "alice", "s2");
        new.claims
            .insert("iat".into(), json!(BEGIN.minus(second).as_secs()));
        world.sessions.begin(new).await.unwrap();
    }
}

#[tokio::test]
async fn lo_17_neither_mark_takes_the_place_of_the_other() {
    let world = World::new();
    let (early, mut late) = (of(&world, "alice", "s1"), of(&world, "alice", "s2"));
    let minute = Duration::from_mins(1);
    late.attempted = world.clock.now().plus(minute * 2);
    let logout = world
        .sessions
        .log_out_at_provider(ISSUER, Some("alice"), None, world.clock.now());
    logout.await.unwrap();
    world.clock.advance(minute);
    let marked = world.sessions.keep_out_logins_under_way("alice", None);
    marked.await.unwrap();
    for new in [early, late] {
        let begun = world.sessions.begin(new).await;
        assert!(matches!(begun, Err(BeginError::LoggedOut)));
    }
}

#[tokio::test]
async fn lo_17_an_older_logout_token_that_comes_late_takes_nothing_back() {
    let world = World::new();
    let new = of(&world, "alice", "s1");
    for at in [world.clock.now(), BEGIN.minus(Duration::from_mins(5))] {
        let logout = world
            .sessions
            .log_out_at_provider(ISSUER, Some("alice"), None, at);
        logout.await.unwrap();
    }
    assert!(matches!(
        world.sessions.begin(new).await,
        Err(BeginError::LoggedOut)
    ));
}

#[tokio::test]
async fn lo_07_a_session_is_found_until_its_delete_is_confirmed() {
    let world = World::new();
    let id = begin(&world, "alice", "s1").await;
    world.store.outage.begin(&["delete"], Fails::Before);
    assert!(world.sessions.end_known(id.store_key()).await.is_err());
    // A logout token that is sent once more must not be taken for done.
    assert_eq!(found(&world, sub("alice")).await.len(), 1);
    assert_eq!(found(&world.another(), sub("alice")).await.len(), 1);
}

#[tokio::test]
async fn lo_17_a_login_after_the_logout_succeeds() {
    let world = World::new();
    let logout = world
        .sessions
        .log_out_at_provider(ISSUER, Some("alice"), None, world.clock.now());
    logout.await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    begin(&world, "alice", "s2").await;
}

#[tokio::test]
async fn fa_01_a_login_whose_marks_cannot_be_read_leaves_no_session() {
    let world = World::new();
    let set = world.sessions.names(&sub("alice"), Kind::UserIndex)[0];
    world.store.outage.begin(&["read"], Fails::Before);
    assert!(matches!(
        world.sessions.begin(of(&world, "alice", "s1")).await,
        Err(BeginError::Session(_))
    ));
    // Whether it is there cannot be told, so whoever ends all of them ends it as well.
    assert_eq!(found(&world, sub("alice")).await.len(), 1);
    world.store.outage.end();
    assert_eq!(world.store.listed(set).await.unwrap().len(), 1);
    assert_eq!(found(&world, sub("alice")).await, []);
}

#[tokio::test(start_paused = true)]
async fn lo_17_a_login_under_way_is_not_struck_from_its_sets_by_whoever_looks() {
    for slow in ["create", "enlist"] {
        let world = World::new();
        world.store.outage.begin(&[slow], Fails::Late);
        let looks = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            found(&world.another(), sub("alice")).await
        };
        let (id, under_way) = tokio::join!(begin(&world, "alice", "s1"), looks);
        assert_eq!(under_way, [], "{slow}");
        world.store.outage.end();
        let its = references(&world, &[&id]);
        assert_eq!(found(&world, sub("alice")).await, its, "{slow}");
        assert_eq!(found(&world, sid("s1")).await, its, "{slow}");
    }
}

#[tokio::test]
async fn fa_01_a_session_that_cannot_be_entered_into_its_sets_ends() {
    let world = World::new();
    world.store.outage.begin(&["enlist"], Fails::After);
    assert!(world.sessions.begin(of(&world, "alice", "s1")).await.is_err());
    world.store.outage.end();
    let set = world.sessions.names(&sub("alice"), Kind::UserIndex)[0];
    let left = world.store.listed(set).await.unwrap();
    assert_eq!(left.len(), 1, "it was entered all the same");
    assert!(!world.sessions.is_there(left[0].0).await.unwrap());
}

#[tokio::test]
async fn se_09_a_users_oldest_sessions_end_where_there_are_too_many() {
    let mut world = World::new();
    let settings = SessionSettings {
        max_per_user: Some(2),
        ..SessionSettings::default()
    };
    world = world.with(&settings);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(begin(&world, "alice", "s1").await);
        world.clock.advance(Duration::from_secs(1));
    }
    begin(&world, "bob", "s2").await;
    assert_eq!(
        found(&world, sub("alice")).await,
        references(&world, &[&ids[2], &ids[3]])
    );
    assert!(world.look_up(&ids[1]).await.is_none());
    assert!(world.look_up(&ids[2]).await.is_some() && BEGIN < world.clock.now());
    // A replica whose clock lags signs somebody in: that is the newest all the same.
    world.clock = crate::clock::Clock::manual(BEGIN);
    world = world.with(&settings);
    let late = begin(&world, "alice", "s1").await;
    assert!(world.look_up(&late).await.is_some());
    assert_eq!(
        found(&world, sub("alice")).await,
        references(&world, &[&ids[3], &late])
    );
}

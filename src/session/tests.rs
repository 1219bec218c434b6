//! What a session is and how long it lives.

mod records;

use super::seal::Purpose;
use super::testing::{BEGIN, Scripted, World, key_ring, new_session, replica};
use super::*;
use crate::secret::IdToken;
use crate::store::testing::Fails;
use serde_json::json;

const MINUTE: Duration = Duration::from_mins(1);

fn key_of(world: &World, id: &SessionId) -> StoreKey {
    world.sessions.key(Kind::Session, id.store_key())
}

#[tokio::test]
async fn a_session_comes_back_as_it_began() {
    let world = World::new();
    let (id, begun) = world.begin().await;
    let found = world.look_up(&id).await.unwrap();
    for session in [&begun, &found] {
        assert_eq!((session.begun, session.used, session.version), (BEGIN, BEGIN, 1));
        assert_eq!(session.idle_end, BEGIN.plus(30 * MINUTE));
        assert_eq!(session.absolute_end, BEGIN.plus(12 * 60 * MINUTE));
        assert_eq!(session.claims["groups"], json!(["staff"]));
        assert_eq!(session.tokens.access_token.expose(), "access-0");
        assert_eq!(
            session.tokens.refresh_token.as_ref().unwrap().expose(),
            "refresh-0"
        );
        assert_eq!(session.bearer.as_ref().unwrap(), "Bearer access-0");
        assert!(session.bearer.as_ref().unwrap().is_sensitive());
        assert_eq!((&session.provider[..], &session.sub[..]), ("main", "canary-sub"));
    }
    assert!(world.look_up(&SessionId::random()).await.is_none());
}

#[tokio::test]
async fn se_08_each_login_makes_a_new_id() {
    let world = World::new();
    let (first, _) = world.begin().await;
    let (second, _) = world.begin().await;
    assert!(first != second);
}

#[tokio::test]
async fn se_02_nothing_in_the_store_is_readable() {
    let world = World::new();
    let (id, _) = world.begin().await;
    let record = world.store.read(key_of(&world, &id)).await.unwrap().unwrap();
    let readable = String::from_utf8_lossy(&record.sealed).into_owned();
    for word in ["canary", "access", "refresh", "main", "app", "example", "sub"] {
        assert!(!readable.contains(word), "{word}");
    }
    assert!(key_of(&world, &id).hash != id.store_key());
}

#[tokio::test]
async fn se_06_it_ends_when_idle_and_at_its_absolute_end() {
    let world = World::new();
    let (id, _) = world.begin().await;
    world.clock.advance(29 * MINUTE);
    assert!(world.look_up(&id).await.is_some());
    world.clock.advance(MINUTE);
    assert!(world.look_up(&id).await.is_none());

    let (id, _) = world.begin().await;
    for _ in 0..35 {
        world.clock.advance(20 * MINUTE);
        let session = world.sessions.extend(&id).await.unwrap().unwrap();
        assert!(session.idle_end <= session.absolute_end);
    }
    world.clock.advance(20 * MINUTE);
    assert!(world.sessions.extend(&id).await.unwrap().is_none());
    assert!(world.look_up(&id).await.is_none());
}

#[tokio::test]
async fn se_06_the_sealed_moments_decide_and_not_the_stores_time_to_live() {
    let world = World::new();
    let (id, _) = world.begin().await;
    let record = world.store.read(key_of(&world, &id)).await.unwrap().unwrap();
    world
        .store
        .create(key_of(&world, &id), record.sealed, 1000 * 60 * MINUTE)
        .await
        .unwrap();
    world.clock.advance(31 * MINUTE);
    assert!(world.look_up(&id).await.is_none());
    assert!(world.store.read(key_of(&world, &id)).await.unwrap().is_some());
}

#[tokio::test]
async fn se_07_the_store_keeps_it_little_longer_than_it_lives() {
    let world = World::new();
    let (id, _) = world.begin().await;
    world.clock.advance(30 * MINUTE + Duration::from_secs(59));
    assert!(world.store.read(key_of(&world, &id)).await.unwrap().is_some());
    world.clock.advance(Duration::from_secs(1));
    assert!(world.store.read(key_of(&world, &id)).await.unwrap().is_none());
}

#[tokio::test]
async fn rf_16_without_a_refresh_token_it_ends_with_its_access_token() {
    let world = World::new();
    let mut new = new_session(&world.clock);
    new.tokens.refresh_token = None;
    let (id, session) = world.sessions.begin(new).await.unwrap();
    assert_eq!(session.absolute_end, session.tokens.expires);
    world.clock.advance(Duration::from_secs(299));
    let session = world.look_up(&id).await.unwrap();
    assert!(world.sessions.fresh(&id, &session).await.unwrap().is_none());
    world.clock.advance(Duration::from_secs(1));
    assert!(matches!(
        world.sessions.fresh(&id, &session).await,
        Err(FreshError::Ended(_))
    ));
    assert!(world.look_up(&id).await.is_none());
    world.settle().await;
    assert!(world.store.read(key_of(&world, &id)).await.unwrap().is_none());
    assert_eq!(world.provider.calls(), 0);
}

#[tokio::test]
async fn rf_15_looking_does_not_extend_and_touching_writes_once_in_a_tenth() {
    let world = World::new();
    let (id, _) = world.begin().await;
    for minute in 1..=29 {
        world.clock.advance(MINUTE);
        let session = world.look_up(&id).await.unwrap();
        assert_eq!(session.used, BEGIN, "minute {minute}");
    }
    for _ in 0..3 {
        let session = world.look_up(&id).await.unwrap();
        for _ in 0..100 {
            world.sessions.touch(&id, &session);
        }
        world.settle().await;
    }
    let session = world.look_up(&id).await.unwrap();
    assert_eq!((session.used, session.version), (BEGIN.plus(29 * MINUTE), 2));
    for _ in 0..30 {
        world.clock.advance(MINUTE);
        world.sessions.touch(&id, &world.look_up(&id).await.unwrap());
        world.settle().await;
    }
    assert_eq!(world.look_up(&id).await.unwrap().version, 12);
    assert!(world.sessions.touching.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_touch_never_revives_what_ended() {
    let world = World::new();
    let (id, _) = world.begin().await;
    world.clock.advance(10 * MINUTE);
    let session = world.look_up(&id).await.unwrap();
    world.sessions.touch(&id, &session);
    assert!(world.sessions.end(id.store_key()).await.unwrap());
    world.settle().await;
    assert!(world.look_up(&id).await.is_none());
    world.sessions.touch(&id, &session);
    world.settle().await;
    assert!(world.look_up(&id).await.is_none());
    assert!(world.sessions.extend(&id).await.unwrap().is_none());
    assert!(!world.sessions.end(id.store_key()).await.unwrap());
}

#[tokio::test]
async fn se_04_a_tampered_moved_or_foreign_record_is_no_session() {
    let world = World::new();
    let (id, _) = world.begin().await;
    let (other, _) = world.begin().await;
    let record = world.store.read(key_of(&world, &id)).await.unwrap().unwrap();
    // Moved to another session's key.
    world
        .store
        .create(key_of(&world, &other), record.sealed.clone(), MINUTE)
        .await
        .unwrap();
    assert!(world.look_up(&other).await.is_none());
    // Tampered with.
    for n in [9, 45, record.sealed.len() - 1] {
        let mut sealed = record.sealed.to_vec();
        sealed[n] ^= 1;
        world
            .store
            .create(key_of(&world, &id), sealed.into(), MINUTE)
            .await
            .unwrap();
        let found = world.sessions.look_up(&id).await;
        assert!(
            matches!(found, Ok(None) | Err(SessionError::Elsewhere)),
            "byte {n}"
        );
        // What tells the provider cannot be told from that of a provider that is not known here.
        assert_eq!(found.is_err(), n < 49, "byte {n}");
    }
    // Nothing at all.
    world
        .store
        .create(key_of(&world, &id), bytes::Bytes::new(), MINUTE)
        .await
        .unwrap();
    assert!(world.look_up(&id).await.is_none());
    // Sealed well, but no record.
    let context = ["https://id.example.com", "app"];
    let sealed = world
        .sessions
        .keys
        .seal(Purpose::Session, id.bits(), &context, b"{}");
    world
        .store
        .create(key_of(&world, &id), sealed.into(), MINUTE)
        .await
        .unwrap();
    assert!(world.look_up(&id).await.is_none());
}

#[tokio::test]
async fn two_deployments_on_one_store_never_take_each_others_cookies() {
    let world = World::new();
    let (id, _) = world.begin().await;
    for key in [1, 2] {
        let keys = key_ring("https://other.example.com", key);
        let elsewhere = replica(
            &world.store,
            keys,
            &[Scripted::new("main")],
            &world.clock,
            &world.tasks,
        );
        assert!(elsewhere.look_up(&id).await.unwrap().is_none());
        assert!(!elsewhere.end(id.store_key()).await.unwrap());
    }
}

#[tokio::test]
async fn a_provider_or_client_that_is_not_configured_here_costs_no_session() {
    let world = World::new();
    let (id, _) = world.begin().await;
    let mut client = Arc::into_inner(Scripted::new("main")).unwrap();
    client.client_id = "other".into();
    for providers in [vec![Arc::new(client)], vec![]] {
        let keys = key_ring("https://app.example.com", 1);
        let elsewhere = replica(&world.store, keys, &providers, &world.clock, &world.tasks);
        assert!(matches!(
            elsewhere.look_up(&id).await,
            Err(SessionError::Elsewhere)
        ));
    }
    assert!(world.look_up(&id).await.is_some());
}

#[tokio::test]
async fn se_05_an_unknown_key_is_the_operators_fault_and_keeps_the_session() {
    let world = World::new();
    let (id, _) = world.begin().await;
    let keys = key_ring("https://app.example.com", 2);
    let misconfigured = replica(
        &world.store,
        keys,
        &[Scripted::new("main")],
        &world.clock,
        &world.tasks,
    );
    assert!(matches!(
        misconfigured.look_up(&id).await,
        Err(SessionError::Unreadable(_))
    ));
    assert!(world.look_up(&id).await.is_some());
}

#[tokio::test]
async fn a_renamed_provider_keeps_its_sessions_and_of_two_names_the_sessions_own_is_found() {
    let world = World::new();
    let (id, _) = world.begin().await;
    let names = |names: &[&str]| {
        let providers: Vec<_> = names.iter().map(|name| Scripted::new(name)).collect();
        replica(
            &world.store,
            key_ring("https://app.example.com", 1),
            &providers,
            &world.clock,
            &world.tasks,
        )
    };
    assert_eq!(
        names(&["renamed"]).look_up(&id).await.unwrap().unwrap().provider,
        "renamed"
    );
    assert_eq!(
        names(&["other", "main"])
            .look_up(&id)
            .await
            .unwrap()
            .unwrap()
            .provider,
        "main"
    );
}

#[tokio::test(start_paused = true)]
async fn a_logout_that_the_store_does_not_confirm_is_refused_here_and_repeated() {
    let world = World::new();
    let (id, session) = world.begin().await;
    let (bystander, _) = world.begin().await;
    world.store.outage.begin(&["delete"], Fails::Before);
    assert!(world.sessions.end(id.store_key()).await.is_err());
    // The store answers reads, and this replica refuses the session all the same.
    assert!(world.look_up(&id).await.is_none());
    assert!(world.sessions.extend(&id).await.unwrap().is_none());
    world.sessions.touch(&id, &session);
    assert!(world.another().look_up(&id).await.is_some());
    assert!(world.look_up(&bystander).await.is_some());
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(world.sessions.end(id.store_key()).await.is_err());
    world.store.outage.end();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(world.another().look_up(&id).await.is_none());
    world.settle().await;
    assert!(!world.sessions.refused.holds(&id.store_key()));
    assert!(world.look_up(&bystander).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn repeating_a_delete_ends_when_the_session_cannot_live_any_longer() {
    let world = World::new();
    let (id, _) = world.begin().await;
    world.store.outage.begin(&["delete"], Fails::Before);
    assert!(world.sessions.end(id.store_key()).await.is_err());
    world.clock.advance(12 * 60 * MINUTE);
    world.settle().await;
    assert!(!world.sessions.refused.holds(&id.store_key()));
}

#[tokio::test]
async fn a_logout_is_carried_through_even_if_who_asked_goes_away() {
    let world = World::new();
    let (id, _) = world.begin().await;
    let mut ending = Box::pin(world.sessions.end(id.store_key()));
    let once = std::future::poll_fn(|context| {
        let _ = ending.as_mut().poll(context);
        std::task::Poll::Ready(())
    });
    once.await;
    drop(ending);
    world.settle().await;
    assert!(world.look_up(&id).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn fa_01_extending_gives_up_in_time_however_slow_each_round_trip_is() {
    let world = World::new();
    let (id, _) = world.begin().await;
    world.store.outage.begin(&["read", "replace"], Fails::Late);
    let began = tokio::time::Instant::now();
    assert!(matches!(
        world.sessions.extend(&id).await,
        Err(SessionError::Store(_))
    ));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn fa_01_a_store_outage_is_never_no_session() {
    let world = World::new();
    let (id, _) = world.begin().await;
    world
        .store
        .outage
        .begin(&["read", "create", "replace", "delete"], Fails::Before);
    assert!(matches!(
        world.sessions.look_up(&id).await,
        Err(SessionError::Store(_))
    ));
    assert!(matches!(
        world.sessions.extend(&id).await,
        Err(SessionError::Store(_))
    ));
    assert!(matches!(
        world.sessions.begin(new_session(&world.clock)).await,
        Err(BeginError::Session(SessionError::Store(_)))
    ));
    world.store.outage.end();
    assert!(world.look_up(&id).await.is_some());
}

#[tokio::test]
async fn a_logout_value_names_the_session_and_cannot_be_made_or_changed() {
    let world = World::new();
    let (id, session) = world.begin().await;
    let value = world.sessions.logout_value(&id, &session);
    assert_eq!(
        world.sessions.open_logout_value(&value),
        Some((id.store_key(), "main".into()))
    );
    assert!(world.another().sessions.open_logout_value(&value).is_some());
    assert!(!value.contains(&id.cookie_value()[..20]));
    assert!(
        value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    );
    for n in 0..value.len() {
        let mut changed = value.clone().into_bytes();
        changed[n] = if changed[n] == b'A' { b'B' } else { b'A' };
        assert_eq!(
            world
                .sessions
                .open_logout_value(std::str::from_utf8(&changed).unwrap()),
            None,
            "{n}"
        );
    }
    for bad in [
        "",
        "A",
        "Ä",
        &"A".repeat(86),
        &"A".repeat(10_000),
        &format!("{value}A"),
        &value[..value.len() - 1],
    ] {
        assert_eq!(world.sessions.open_logout_value(bad), None, "{bad}");
    }
    let rotated = key_ring("https://app.example.com", 2);
    let rotated = replica(
        &world.store,
        rotated,
        &[Scripted::new("main")],
        &world.clock,
        &world.tasks,
    );
    assert_eq!(rotated.open_logout_value(&value), None);
}

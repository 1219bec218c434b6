//! What fails, and what that costs: never a session but for `invalid_grant` and another user's ID token.

use super::*;

#[tokio::test(start_paused = true)]
async fn rf_08_invalid_grant_ends_the_session_after_one_call() {
    let (world, id, session) = expired().await;
    world
        .provider
        .with(|state| state.failures.push_back(TokenError::InvalidGrant));
    for _ in 0..3 {
        assert!(matches!(
            world.sessions.fresh(&id, &session).await,
            Err(FreshError::Ended(_))
        ));
        assert!(world.look_up(&id).await.is_none());
    }
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn invalid_grant_while_the_store_is_away_ends_the_session_when_it_is_back() {
    let (world, id, session) = expired().await;
    world
        .provider
        .with(|state| state.failures.push_back(TokenError::InvalidGrant));
    world.store.outage.begin(&["delete"], Fails::Before);
    assert!(matches!(
        world.sessions.fresh(&id, &session).await,
        Err(FreshError::Ended(_))
    ));
    assert!(world.look_up(&id).await.is_none());
    world.store.outage.end();
    world.settle().await;
    assert!(world.another().look_up(&id).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn fa_01_a_slow_store_is_said_within_three_seconds_and_the_refresh_goes_on() {
    for slow in [&["read", "claim", "replace"][..], &["read", "replace"]] {
        let (world, id, _) = expired().await;
        world.store.outage.begin(slow, Fails::Late);
        let begun = Instant::now();
        let session = world.sessions.look_up_in_store(&id).await.unwrap().unwrap();
        let away = world.sessions.fresh(&id, &session).await;
        assert!(
            matches!(away, Err(FreshError::Session(SessionError::Store(_)))),
            "{slow:?}: {away:?}"
        );
        let took = begun.elapsed();
        assert!(took < 3 * SECOND, "{slow:?}: {took:?}");
        assert_eq!(world.provider.calls(), 0, "{slow:?}");
        world.settle().await;
        world.store.outage.end();
        assert_eq!(world.fresh(&id).await.unwrap(), "access-1");
        assert_eq!(world.provider.calls(), 1, "{slow:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_waited_for_longer_than_a_store() {
    let (world, id, session) = expired().await;
    world
        .provider
        .with(|state| state.delays = (4 * SECOND, 5 * SECOND));
    let fresh = world.sessions.fresh(&id, &session).await;
    assert!(fresh.is_ok(), "{fresh:?}");
}

#[tokio::test(start_paused = true)]
async fn rf_09_no_other_failure_ends_a_session() {
    let no_answer = |retry_after| TokenError::NoAnswer {
        unreadable: false,
        reason: "503".into(),
        retry_after,
    };
    for (failure, longest) in [
        (TokenError::Refused("invalid_client".into()), 5 * SECOND),
        (TokenError::Unreachable("refused".into()), 5 * SECOND),
        (no_answer(None), 5 * SECOND),
        (no_answer(Some(Duration::ZERO)), 5 * SECOND),
        (no_answer(Some(3 * SECOND)), 4 * SECOND),
        (no_answer(Some(3600 * SECOND)), 10 * SECOND),
    ] {
        let (world, id, _) = session_with(30 * SECOND).await;
        world
            .provider
            .with(|state| state.failures.extend(std::iter::repeat_n(failure.clone(), 4)));
        // A living token goes on.
        for _ in 0..100 {
            assert_eq!(world.fresh(&id).await.unwrap(), "access-0");
            world.settle().await;
        }
        assert_eq!(world.provider.calls(), 1, "{failure}: its failure is remembered");
        // An expired one is the provider's fault, for all who wait, and without a call for each.
        world.clock.advance(30 * SECOND);
        for round in 2..=4 {
            sleep(longest).await;
            for _ in 0..20 {
                assert!(
                    matches!(world.fresh(&id).await, Err(FreshError::ProviderAway)),
                    "{failure}"
                );
            }
            assert_eq!(world.provider.calls(), round, "{failure}");
        }
        sleep(longest).await;
        assert_eq!(world.fresh(&id).await.unwrap(), "access-5", "{failure}");
        assert_eq!(world.provider.calls(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_up_to_ten_seconds() {
    let (world, id, _) = expired().await;
    let failure = TokenError::NoAnswer {
        unreadable: false,
        reason: "429".into(),
        retry_after: Some(7 * SECOND),
    };
    world.provider.with(|state| state.failures.push_back(failure));
    let began = Instant::now();
    while world.fresh(&id).await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(
        (7 * SECOND..8 * SECOND).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(world.provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn rf_10_another_users_id_token_ends_the_session_and_its_tokens_are_discarded() {
    let (world, id, session) = expired().await;
    world
        .provider
        .with(|state| state.id_token = Some(Err(ProviderError::Mismatch("sub".into()))));
    assert!(matches!(
        world.sessions.fresh(&id, &session).await,
        Err(FreshError::Ended(_))
    ));
    assert!(world.look_up(&id).await.is_none());
    world.settle().await;
    assert_eq!(
        world.provider.with(|state| state.revoked.clone()),
        ["refresh-1", "access-1"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_id_token_that_cannot_be_checked_brings_no_token_and_costs_no_session() {
    for error in [
        ProviderError::Bad("signature".into()),
        ProviderError::Away("jwks".into()),
    ] {
        let (world, id, _) = session_with(30 * SECOND).await;
        world.provider.with(|state| state.id_token = Some(Err(error)));
        assert_eq!(world.fresh(&id).await.unwrap(), "access-0");
        world.settle().await;
        // Its access token is not used, but the refresh token was rotated: the old one is dead.
        assert_eq!(world.stored(&id).await, ("access-0".into(), "refresh-1".into()));
        world.clock.advance(30 * SECOND);
        assert!(matches!(world.fresh(&id).await, Err(FreshError::ProviderAway)));
        sleep(5 * SECOND).await;
        // Without an ID token nobody knows whose tokens these are; with one that holds, they are the user's.
        world
            .provider
            .with(|state| state.id_token = Some(Ok(claims(&json!({"sub": "canary-sub"})))));
        assert_eq!(world.fresh(&id).await.unwrap(), "access-2");
        let replica = world.another();
        assert_eq!(replica.stored(&id).await, ("access-2".into(), "refresh-2".into()));
        assert_eq!(world.provider.with(|state| state.reuses), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn no_id_token_after_one_that_did_not_hold_brings_no_token_and_costs_no_session() {
    let (world, id, _) = expired().await;
    world
        .provider
        .with(|state| state.id_token = Some(Err(ProviderError::Bad("signature".into()))));
    assert!(world.fresh(&id).await.is_err());
    for n in 2..4 {
        sleep(5 * SECOND).await;
        world.provider.with(|state| state.id_token = None);
        assert!(matches!(world.fresh(&id).await, Err(FreshError::ProviderAway)));
        // What was rotated is kept all the same.
        assert_eq!(
            world.stored(&id).await,
            ("access-0".into(), format!("refresh-{n}"))
        );
    }
    sleep(10 * SECOND).await;
    world
        .provider
        .with(|state| state.id_token = Some(Ok(claims(&json!({"sub": "canary-sub"})))));
    assert_eq!(world.fresh(&id).await.unwrap(), "access-4");
    assert_eq!(world.provider.with(|state| state.reuses), 0);
}

#[tokio::test(start_paused = true)]
async fn rf_04_no_request_sees_a_new_token_before_the_store_holds_it() {
    for fails in [Fails::Before, Fails::After] {
        let (world, id, session) = expired().await;
        world.provider.with(|state| state.delays = (SECOND, SECOND));
        let (sessions, theirs, old) = (Arc::clone(&world.sessions), id.clone(), session.clone());
        let first = world
            .tasks
            .spawn(async move { sessions.fresh(&theirs, &old).await });
        sleep(SECOND).await;
        // The call is under way.
        world.store.outage.begin(&["replace"], fails);
        for _ in 0..3 {
            let began = Instant::now();
            let outcome = world.sessions.fresh(&id, &session).await;
            if fails == Fails::Before {
                assert!(matches!(
                    outcome,
                    Err(FreshError::Session(SessionError::Store(_)))
                ));
            }
            assert!(began.elapsed() < 3 * SECOND);
        }
        let _told_or_not = first.await.unwrap();
        sleep(90 * SECOND).await;
        world.store.outage.end();
        sleep(SECOND).await;
        assert_eq!(
            world.stored(&id).await,
            ("access-1".into(), "refresh-1".into()),
            "{fails:?}"
        );
        assert_eq!(world.fresh(&id).await.unwrap(), "access-1");
        assert_eq!(world.provider.calls(), 1);
        world.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_at_any_step_is_the_stores_and_passes_with_it() {
    for operation in ["read", "claim", "replace", "release", "renew"] {
        for fails in [Fails::Before, Fails::After] {
            let (world, id, session) = expired().await;
            world.store.outage.begin(&[operation], fails);
            match world.sessions.fresh(&id, &session).await {
                Ok(landed) => assert_eq!(token(&landed.unwrap()), "access-1"),
                Err(FreshError::Session(SessionError::Store(_))) => {}
                Err(other) => panic!("{operation} {fails:?}: {other}"),
            }
            sleep(SECOND).await;
            world.store.outage.end();
            sleep(SECOND).await;
            // At once: a lease whose taking was not answered is known to be ours.
            assert_eq!(
                world.fresh(&id).await.unwrap(),
                "access-1",
                "{operation} {fails:?}"
            );
            world.clock.advance(LIFETIME);
            assert_eq!(
                world.fresh(&id).await.unwrap(),
                "access-2",
                "{operation} {fails:?}"
            );
            assert_eq!(world.provider.with(|state| state.reuses), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fa_04_a_refresh_that_breaks_down_does_not_block_the_next() {
    let (world, id, session) = expired().await;
    // `Scripted` panics where it is asked to verify and has nothing to say.
    world.provider.with(|state| {
        state.id_token = Some(Ok(Map::new()));
        state.verify_delay = SECOND;
        state.keeps_refresh_token = true;
    });
    let (sessions, theirs) = (Arc::clone(&world.sessions), id.clone());
    let waiting = world
        .tasks
        .spawn(async move { sessions.fresh(&theirs, &session).await });
    sleep(SECOND / 2).await;
    world.provider.with(|state| state.id_token = None);
    assert!(matches!(waiting.await.unwrap(), Err(FreshError::ProviderAway)));
    world.settle().await;
    assert_eq!(world.sessions.flights.count(), 0);
    world.clock.advance(30 * SECOND);
    assert_eq!(world.fresh(&id).await.unwrap(), "access-2");
}

#[tokio::test]
async fn fa_01_with_redis_stopped_in_mid_refresh_the_answer_is_the_stores_and_the_token_is_saved_later() {
    let server = RedisServer::start();
    let store: Arc<Store> = Arc::new(server.store());
    let clock = Clock::manual(BEGIN);
    let world = World::over(store, clock.clone(), Scripted::new("main"));
    let (id, session) = world.begin().await;
    world
        .provider
        .with(|state| state.delays = (Duration::from_millis(300), Duration::ZERO));
    clock.advance(LIFETIME);
    let (sessions, theirs) = (Arc::clone(&world.sessions), id.clone());
    let waiting = world
        .tasks
        .spawn(async move { sessions.fresh(&theirs, &session).await });
    while world.provider.calls() == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    server.signal("STOP");
    let outcome = tokio::time::timeout(3 * SECOND, waiting).await.unwrap().unwrap();
    assert!(matches!(
        outcome,
        Err(FreshError::Session(SessionError::Store(_)))
    ));
    server.signal("CONT");
    world.settle().await;
    assert_eq!(world.stored(&id).await, ("access-1".into(), "refresh-1".into()));
    assert_eq!(world.provider.calls(), 1);
}

/// What is logged while this runs.
async fn logged(doing: impl Future<Output = ()>) -> String {
    let log = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(log.reopen().unwrap()))
        .finish();
    // Where a process has one subscriber, tracing asks the thread that comes to an event first whether anybody wants it,
    // once for all; that may be another test's. Where it has two, it asks both.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    doing.await;
    std::fs::read_to_string(log.path()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_and_one_that_ends_a_session_are_audited() {
    let (world, id, _) = expired().await;
    world.provider.with(|state| {
        state.failures = [TokenError::Unreachable("down".into()), TokenError::InvalidGrant].into();
    });
    let text = logged(async {
        assert!(world.fresh(&id).await.is_err());
        sleep(5 * SECOND).await;
        assert!(matches!(world.fresh(&id).await, Err(FreshError::Ended(_))));
    })
    .await;
    let audited = |event: &str, reason: &str| {
        let session = format!("session={}", world.sessions.reference(&id));
        let wanted = ["cloakroom::audit", event, reason, "provider=\"main\"", &session];
        text.lines()
            .filter(|line| wanted.iter().all(|word| line.contains(word)))
            .count()
    };
    assert_eq!(audited("refresh_failed", "unreachable"), 1, "{text}");
    assert_eq!(audited("session_ended", "reason=\"invalid_grant\""), 1, "{text}");
    assert!(!text.contains("refresh-0") && !text.contains("access-0"));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_whose_session_was_logged_out_meanwhile_tells_of_no_other_end() {
    let (world, id, session) = expired().await;
    world.provider.with(|state| {
        state.delays = (SECOND, SECOND);
        state.failures.push_back(TokenError::InvalidGrant);
    });
    let text = logged(async {
        let refresh = world.sessions.fresh(&id, &session);
        let logout = async {
            sleep(SECOND / 2).await;
            // The logout revokes the token, which the provider says of the call under way.
            assert!(world.another().sessions.end(id.store_key()).await.unwrap());
        };
        let (outcome, ()) = tokio::join!(refresh, logout);
        assert!(
            matches!(outcome, Err(FreshError::Ended(EndReason::Gone))),
            "{outcome:?}"
        );
    })
    .await;
    assert_eq!(world.provider.calls(), 1);
    assert!(!text.contains("session_ended"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn fa_03_a_token_is_not_shown_while_the_store_takes_no_writes() {
    let (world, id, session) = expired().await;
    world.store.outage.begin(&["replace"], Fails::Before);
    let outcome = world.sessions.fresh(&id, &session).await;
    assert!(matches!(
        outcome,
        Err(FreshError::Session(SessionError::Store(_)))
    ));
    world.settle().await;
    assert_eq!(world.provider.calls(), 0);
    world.store.outage.end();
    assert_eq!(world.fresh(&id).await.unwrap(), "access-1");
}

#[tokio::test(start_paused = true)]
async fn fa_03_rf_06_after_a_lost_answer_the_token_is_shown_once_more_and_the_cause_is_told() {
    let lost = || TokenError::NoAnswer {
        reason: "cut".into(),
        retry_after: None,
        unreadable: false,
    };
    // The provider never saw it, or did not act: the second showing succeeds.
    let (world, id, _) = expired().await;
    world.provider.with(|state| state.failures.push_back(lost()));
    assert!(world.fresh(&id).await.is_err());
    sleep(SECOND).await;
    assert_eq!(world.fresh(&id).await.unwrap(), "access-2");
    // It rotated, and the answer was lost: the second showing ends the session, and says why.
    let (world, id, _) = expired().await;
    world.provider.with(|state| state.failures.push_back(lost()));
    assert!(world.fresh(&id).await.is_err());
    world.provider.with(|state| state.current += 1);
    sleep(SECOND).await;
    let Err(FreshError::Ended(why)) = world.fresh(&id).await else {
        panic!("it goes on");
    };
    assert_eq!(why, EndReason::AnswerLost);
    assert_eq!(world.provider.calls(), 2);
    // A provider that could not be reached has not used it.
    let (world, id, _) = expired().await;
    let away = TokenError::Unreachable("refused".into());
    world.provider.with(|state| state.failures.push_back(away));
    assert!(world.fresh(&id).await.is_err());
    world.provider.with(|state| state.current += 1);
    sleep(SECOND).await;
    let Err(FreshError::Ended(why)) = world.fresh(&id).await else {
        panic!("it goes on");
    };
    assert_eq!(why, EndReason::InvalidGrant);
}

#[tokio::test(start_paused = true)]
async fn rf_14_a_provider_that_wants_to_be_left_alone_is_asked_by_no_other_session() {
    let (world, id, session) = expired().await;
    let (other, _) = world.begin().await;
    world.clock.advance(LIFETIME);
    let busy = TokenError::NoAnswer {
        reason: "429".into(),
        retry_after: Some(3 * SECOND),
        unreadable: false,
    };
    world.provider.with(|state| state.failures.push_back(busy));
    assert!(world.sessions.fresh(&id, &session).await.is_err());
    assert!(matches!(world.fresh(&other).await, Err(FreshError::ProviderAway)));
    assert_eq!(world.provider.calls(), 1);
    sleep(4 * SECOND).await;
    assert!(world.fresh(&other).await.is_ok());
}

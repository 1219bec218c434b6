//! Two replicas, requests that go away, logouts in between: nothing is lost, revived or done twice.

use super::*;

#[tokio::test(start_paused = true)]
async fn rf_02_expired_token_waits_for_the_one_refresh_over_two_replicas() {
    let (one, id, session) = expired().await;
    let two = one.another();
    one.provider.with(|state| state.delays = (2 * SECOND, SECOND));
    let mut requests = JoinSet::new();
    for n in 0..200 {
        let sessions = Arc::clone(if n % 2 == 0 { &one.sessions } else { &two.sessions });
        let (id, session) = (id.clone(), session.clone());
        requests.spawn(async move { token(&sessions.fresh(&id, &session).await.unwrap().unwrap()) });
    }
    let tokens = requests.join_all().await;
    assert!(tokens.iter().all(|token| token == "access-1"), "{tokens:?}");
    assert_eq!(one.provider.calls(), 1);
    // Late arrivals with what they looked up before use the result as well.
    assert_eq!(
        token(&two.sessions.fresh(&id, &session).await.unwrap().unwrap()),
        "access-1"
    );
    assert_eq!(one.provider.calls(), 1);
    one.settle().await;
    two.settle().await;
    assert_eq!(one.sessions.flights.count() + two.sessions.flights.count(), 0);
    assert!(
        one.store.claim(one.lock(&id), &[9; 16], MINUTE).await.unwrap(),
        "the lease was given back"
    );
}

#[tokio::test]
async fn rf_02_over_two_replicas_and_a_real_redis_a_rotated_token_is_used_once() {
    let server = RedisServer::start();
    let clock = Clock::manual(BEGIN);
    let provider = Scripted::new("main");
    provider.with(|state| state.delays = (20 * Duration::from_millis(1), Duration::from_millis(20)));
    let worlds: Vec<World> = (0..2)
        .map(|_| World::over(Arc::new(server.store()), clock.clone(), Arc::clone(&provider)))
        .collect();
    let (id, _) = worlds[0].begin().await;
    for round in 1..=5 {
        clock.advance(LIFETIME);
        let mut requests = JoinSet::new();
        for n in 0..100 {
            let (world, id) = (worlds[n % 2].clone(), id.clone());
            requests.spawn(async move { world.fresh(&id).await.unwrap() });
        }
        let tokens = requests.join_all().await;
        assert!(
            tokens.iter().all(|token| *token == format!("access-{round}")),
            "{tokens:?}"
        );
        assert_eq!(provider.calls(), round);
    }
    assert_eq!(provider.with(|state| state.reuses), 0);
    for world in &worlds {
        world.settle().await;
    }
    let keys = server.keys();
    assert!(
        !keys.is_empty() && keys.iter().all(|(_, ttl)| *ttl > 0),
        "{keys:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn rf_07_a_request_that_goes_away_at_any_moment_loses_nothing() {
    for polls in 1..40 {
        let (world, id, session) = expired().await;
        world
            .provider
            .with(|state| state.delays = (Duration::from_millis(3), Duration::from_millis(3)));
        let mut request = Box::pin(world.sessions.fresh(&id, &session));
        for _ in 0..polls {
            let done = std::future::poll_fn(|context| {
                std::task::Poll::Ready(request.as_mut().poll(context).is_ready())
            });
            if done.await {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        drop(request);
        world.settle().await;
        assert_eq!(
            world.stored(&id).await,
            ("access-1".into(), "refresh-1".into()),
            "{polls} polls"
        );
        assert_eq!(world.provider.calls(), 1);
    }
}

/// A refresh under way, by the request that waits for it.
fn begin(
    world: &World,
    id: &SessionId,
    session: Session,
) -> tokio::task::JoinHandle<Result<String, FreshError>> {
    let (sessions, id) = (Arc::clone(&world.sessions), id.clone());
    world.tasks.spawn(async move {
        let landed = sessions.fresh(&id, &session).await?;
        Ok(token(&landed.unwrap()))
    })
}

/// What a failed-over Redis does: the lease is gone while its holder's call is under way, which may take ten seconds.
#[tokio::test(start_paused = true)]
async fn rf_02_fa_03_under_a_broken_lease_a_call_is_waited_for_as_long_as_it_may_take() {
    for delays in [
        (Duration::ZERO, SECOND),
        (Duration::ZERO, 9 * SECOND),
        (5 * SECOND, SECOND),
        (9 * SECOND, Duration::ZERO),
    ] {
        let (slow, id, session) = expired().await;
        let quick = slow.another();
        slow.provider.with(|state| state.delays = delays);
        let begun = begin(&slow, &id, session);
        sleep(SECOND / 2).await;
        slow.store.delete(slow.lock(&id)).await.unwrap();
        assert_eq!(quick.fresh(&id).await.unwrap(), "access-1", "{delays:?}");
        assert_eq!(begun.await.unwrap().unwrap(), "access-1", "{delays:?}");
        let seen = slow.provider.with(|state| (state.calls.len(), state.reuses));
        assert_eq!(seen, (1, 0), "{delays:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rf_02_fa_03_under_a_broken_lease_nobody_waits_for_a_call_that_is_known_to_have_ended() {
    let lost = TokenError::NoAnswer {
        unreadable: false,
        reason: "cut".into(),
        retry_after: None,
    };
    // It is told while another replica waits, and before one comes.
    for (comes_after, least) in [(SECOND / 2, SECOND), (5 * SECOND, Duration::ZERO)] {
        let (slow, id, session) = expired().await;
        let other = slow.another();
        slow.provider.with(|state| {
            state.delays = (SECOND, SECOND / 2);
            state.failures.push_back(lost.clone());
        });
        let begun = begin(&slow, &id, session);
        sleep(comes_after).await;
        slow.store.delete(slow.lock(&id)).await.unwrap();
        slow.provider
            .with(|state| state.delays = (Duration::ZERO, Duration::ZERO));
        let came = Instant::now();
        assert_eq!(other.fresh(&id).await.unwrap(), "access-2");
        let took = came.elapsed();
        assert!((least / 2..=least).contains(&took), "{took:?}");
        assert!(begun.await.unwrap().is_err());
        assert_eq!(slow.provider.with(|state| state.reuses), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn rf_02_rf_14_an_old_failure_shows_no_token_that_another_replica_has_just_shown() {
    let (world, id, session) = expired().await;
    let other = world.another();
    let away = TokenError::Unreachable("refused".into());
    world.provider.with(|state| state.failures.push_back(away));
    assert!(world.fresh(&id).await.is_err());
    sleep(2 * 60 * MINUTE).await;
    world
        .provider
        .with(|state| state.delays = (Duration::ZERO, SECOND));
    let begun = begin(&other, &id, session);
    sleep(SECOND / 2).await;
    world.store.delete(world.lock(&id)).await.unwrap();
    assert_eq!(world.fresh(&id).await.unwrap(), "access-2");
    assert_eq!(begun.await.unwrap().unwrap(), "access-2");
    assert_eq!(world.provider.with(|state| state.reuses), 0);
}

#[tokio::test(start_paused = true)]
async fn se_11_of_a_showing_that_the_release_before_noted_the_answer_is_waited_for_as_it_did() {
    let (world, id, _) = expired().await;
    let mut opened = world.sessions.read(&id).await.unwrap().unwrap();
    opened.payload.shown = 1;
    assert_eq!(opened.payload.showing, None);
    world.sessions.replace(&id, &opened).await.unwrap();
    let began = Instant::now();
    assert_eq!(world.fresh(&id).await.unwrap(), "access-1");
    assert_eq!(began.elapsed().as_secs(), 2);
}

/// A holder that is paused, or whose clock is far behind, is not waited for without end.
#[tokio::test(start_paused = true)]
async fn of_two_refreshes_under_a_broken_lease_the_loser_uses_what_the_winner_wrote() {
    for (delays, slow_is_first_at_the_provider, reuses) in [
        ((5 * SECOND, SECOND), false, 1),
        // A provider without reuse detection, so that both succeed.
        ((Duration::ZERO, 5 * SECOND), true, 0),
    ] {
        let (slow, id, session) = expired().await;
        let quick = slow.another();
        slow.provider.with(|state| {
            state.delays = delays;
            state.keeps_refresh_token = slow_is_first_at_the_provider;
        });
        let begun = begin(&slow, &id, session);
        sleep(SECOND).await;
        slow.store.delete(slow.lock(&id)).await.unwrap();
        slow.clock.advance(20 * SECOND);
        slow.provider
            .with(|state| state.delays = (Duration::ZERO, Duration::ZERO));
        assert_eq!(quick.fresh(&id).await.unwrap(), "access-2");
        assert_eq!(begun.await.unwrap().unwrap(), "access-2");
        assert_eq!(slow.stored(&id).await.0, "access-2");
        let seen = slow.provider.with(|state| (state.calls.len(), state.reuses));
        assert_eq!(seen, (2, reuses));
        slow.settle().await;
        quick.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn lo_06_a_refresh_that_is_saved_after_a_logout_that_the_store_has_not_confirmed_revokes_what_it_got() {
    let (world, id, session) = expired().await;
    world.provider.with(|state| state.delays = (SECOND, SECOND));
    let begun = begin(&world, &id, session);
    sleep(SECOND).await;
    world.store.outage.begin(&["delete"], Fails::Before);
    assert!(world.sessions.end_known(id.store_key()).await.is_err());
    let outcome = begun.await.unwrap();
    assert!(
        matches!(outcome, Err(FreshError::Ended(EndReason::Gone))),
        "{outcome:?}"
    );
    assert!(world.another().look_up(&id).await.is_some(), "it was saved");
    world.store.outage.end();
    world.settle().await;
    assert!(world.another().look_up(&id).await.is_none());
    let revoked = world.provider.with(|state| state.revoked.clone());
    assert_eq!(revoked, ["refresh-1", "access-1"]);
}

#[tokio::test(start_paused = true)]
async fn logging_out_during_a_refresh_never_revives_and_revokes_what_came() {
    for moment in [0, 500, 1500, 2500] {
        let (world, id, session) = expired().await;
        world.provider.with(|state| state.delays = (SECOND, SECOND));
        let (sessions, theirs) = (Arc::clone(&world.sessions), id.clone());
        let waiting = world
            .tasks
            .spawn(async move { sessions.fresh(&theirs, &session).await });
        sleep(Duration::from_millis(moment)).await;
        assert!(world.another().sessions.end(id.store_key()).await.unwrap());
        let outcome = waiting.await.unwrap();
        world.settle().await;
        assert!(world.look_up(&id).await.is_none());
        let revoked = world.provider.with(|state| state.revoked.clone());
        match moment {
            0 => assert!(matches!(outcome, Err(FreshError::Ended(_)))),
            2500 => assert_eq!(token(&outcome.unwrap().unwrap()), "access-1"),
            _ => {
                assert!(matches!(outcome, Err(FreshError::Ended(_))), "{moment}");
                assert_eq!(revoked, ["refresh-1", "access-1"]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn se_10_a_use_that_is_noted_during_a_refresh_is_kept_and_so_are_the_tokens() {
    let (world, id, session) = expired().await;
    world.provider.with(|state| state.delays = (SECOND, SECOND));
    let (sessions, theirs) = (Arc::clone(&world.sessions), id.clone());
    let waiting = world
        .tasks
        .spawn(async move { sessions.fresh(&theirs, &session).await });
    sleep(SECOND).await;
    world.another().sessions.extend(&id).await.unwrap().unwrap();
    let landed = waiting.await.unwrap().unwrap();
    assert_eq!(token(&landed.unwrap()), "access-1");
    let session = world.look_up(&id).await.unwrap();
    assert_eq!((session.used, session.version), (BEGIN.plus(LIFETIME), 1 << 32));
}

#[tokio::test(start_paused = true)]
async fn rf_03_a_dead_replicas_lease_is_waited_for_and_runs_out() {
    let (world, id, _) = expired().await;
    assert!(
        world
            .store
            .claim(world.lock(&id), &[9; 16], 30 * SECOND)
            .await
            .unwrap()
    );
    let began = Instant::now();
    assert!(matches!(world.fresh(&id).await, Err(FreshError::ProviderAway)));
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert_eq!(world.provider.calls(), 0);
    world.settle().await;
    world.clock.advance(30 * SECOND);
    assert_eq!(world.fresh(&id).await.unwrap(), "access-1");
}

#[tokio::test(start_paused = true)]
async fn rf_03_the_lease_is_renewed_while_the_calls_run() {
    let (world, id, session) = expired().await;
    world.provider.with(|state| {
        state.delays = (5 * SECOND, 6 * SECOND);
        state.id_token = Some(Ok(Map::new()));
        state.verify_delay = 11 * SECOND;
        state.userinfo = Some((11 * SECOND, Ok(Map::new())));
    });
    let (sessions, theirs) = (Arc::clone(&world.sessions), id.clone());
    let waiting = world
        .tasks
        .spawn(async move { sessions.fresh(&theirs, &session).await });
    sleep(Duration::from_millis(500)).await;
    for second in 0..32 {
        assert!(
            !world
                .store
                .claim(world.lock(&id), &[9; 16], MINUTE)
                .await
                .unwrap(),
            "{second}"
        );
        sleep(SECOND).await;
        world.clock.advance(SECOND);
    }
    assert!(waiting.await.unwrap().is_err());
    world.settle().await;
    assert!(
        world
            .store
            .claim(world.lock(&id), &[9; 16], MINUTE)
            .await
            .unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn a_slower_older_write_never_wins() {
    let (world, id, _) = expired().await;
    let older = world.sessions.read(&id).await.unwrap().unwrap();
    assert_eq!(world.fresh(&id).await.unwrap(), "access-1");
    assert_eq!(
        world.sessions.replace(&id, &older).await.unwrap(),
        Replaced::Changed
    );
    assert_eq!(world.stored(&id).await, ("access-1".into(), "refresh-1".into()));
}

/// Small random numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test(start_paused = true)]
async fn se_10_refresh_touch_extend_and_logout_interleave_without_loss_or_revival() {
    for seed in 0..150 {
        let mut dice = Dice(seed);
        let one = World::new();
        let two = one.another();
        one.provider.with(|state| {
            state.delays = (
                Duration::from_millis(dice.roll(40)),
                Duration::from_millis(dice.roll(40)),
            );
        });
        let (id, _) = one.begin().await;
        let mut ended = false;
        for _ in 0..60 {
            let world = if dice.roll(2) == 0 { &one } else { &two };
            match dice.roll(if ended { 6 } else { 40 }) {
                // Not under a refresh: in this world a jump of the clock ends its lease at once.
                0..=1 => {
                    one.settle().await;
                    two.settle().await;
                    one.clock.advance(LIFETIME / 2);
                }
                2..=3 => sleep(Duration::from_millis(dice.roll(60))).await,
                4 => drop(world.sessions.extend(&id).await.unwrap()),
                5 | 7..=8 => {
                    if let Some(session) = world.look_up(&id).await {
                        assert!(!ended, "seed {seed}: revived");
                        world.sessions.touch(&id, &session);
                    }
                }
                6 => {
                    world.sessions.end(id.store_key()).await.unwrap();
                    ended = true;
                }
                _ => {
                    if let Some(session) = world.look_up(&id).await {
                        assert!(!ended, "seed {seed}: revived");
                        let sessions = Arc::clone(&world.sessions);
                        let id = id.clone();
                        world.tasks.spawn(async move {
                            let _ = sessions.fresh(&id, &session).await;
                        });
                    }
                }
            }
        }
        one.settle().await;
        two.settle().await;
        assert_eq!(
            one.provider.with(|state| state.reuses),
            0,
            "seed {seed}: a rotated token was used again"
        );
        let session = one.look_up(&id).await;
        assert!(!ended || session.is_none(), "seed {seed}: revived");
        if let Some(session) = session {
            let good = one.provider.with(|state| format!("refresh-{}", state.current));
            assert_eq!(
                session.tokens.refresh_token.as_ref().unwrap().expose(),
                good,
                "seed {seed}: a token was lost"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rf_02_rf_03_an_outage_that_outlasts_the_lease_shows_no_token_twice() {
    let (world, id, session) = expired().await;
    world.provider.with(|state| state.delays = (SECOND, SECOND));
    let (sessions, theirs) = (Arc::clone(&world.sessions), id.clone());
    let first = world
        .tasks
        .spawn(async move { sessions.fresh(&theirs, &session).await });
    sleep(SECOND).await;
    // The answer comes and cannot be saved; nor can the lease be renewed, and it ends.
    world
        .store
        .outage
        .begin(&["replace", "renew", "claim", "read"], Fails::Before);
    sleep(20 * SECOND).await;
    world.clock.advance(20 * SECOND);
    world.store.outage.end();
    // Another replica is the first to come.
    let survivor = world.another();
    assert_eq!(survivor.fresh(&id).await.unwrap(), "access-1");
    let _told_or_not = first.await.unwrap();
    world.settle().await;
    assert_eq!(
        world.provider.with(|state| (state.calls.len(), state.reuses)),
        (1, 0)
    );
    // Where nobody has it, the token is shown again after a while, and not before.
    let (world, id, session) = expired().await;
    world
        .provider
        .with(|state| state.delays = (Duration::from_hours(1), SECOND));
    let dead = world.another();
    let (sessions, theirs) = (Arc::clone(&dead.sessions), id.clone());
    let dying = dead
        .tasks
        .spawn(async move { sessions.fresh(&theirs, &session).await });
    sleep(SECOND).await;
    dying.abort();
    world.clock.advance(20 * SECOND);
    world
        .provider
        .with(|state| state.delays = (Duration::ZERO, Duration::ZERO));
    let began = Instant::now();
    assert!(world.fresh(&id).await.is_ok());
    assert!(
        (2..5).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
}

//! Tests of [`super`]: real sessions over a memory store whose outages are made, and both clocks moved together.

use super::*;
use crate::config::SessionSettings;
use crate::session::testing::{BEGIN, World};
use crate::store::testing::Fails;
use std::sync::atomic::AtomicUsize;
use tokio::time::{Instant, timeout};

const IDLE: Duration = Duration::from_mins(2);
const ABSOLUTE: Duration = Duration::from_mins(12);

/// A replica with short timeouts, and what its streams share.
fn streams() -> (World, Arc<Streams>) {
    let mut world = World::new();
    let settings = SessionSettings {
        idle_timeout: IDLE,
        absolute_timeout: ABSOLUTE,
        ..SessionSettings::default()
    };
    world = world.with(&settings);
    let streams = Streams::new(Arc::clone(&world.sessions), world.clock.clone());
    (world, streams)
}

async fn tie(world: &World, streams: &Arc<Streams>) -> (SessionId, Arc<Tie>) {
    let (id, session) = world.begin().await;
    let opener = Opener {
        streams,
        id: &id,
        session: &session,
    };
    (id.clone(), Arc::new(opener.tie()))
}

/// When the tie is severed, counted from the beginning of the session; `None`: not within `at_most`. The clock of sessions
/// goes with the runtime's, by tenths of a second.
async fn severed_after(world: &World, tie: &Tie, at_most: Duration) -> Option<Duration> {
    let moving = async {
        loop {
            sleep(Duration::from_millis(100)).await;
            world.clock.advance(Duration::from_millis(100));
        }
    };
    let waiting = timeout(at_most, tie.severed());
    tokio::select! {
        waited = waiting => waited.ok().map(|()| world.clock.now().since(BEGIN)),
        () = moving => unreachable!(),
    }
}

fn about(found: Option<Duration>, wanted: Duration) {
    let off = found.expect("it was severed").abs_diff(wanted);
    assert!(
        off <= Duration::from_millis(300),
        "severed after {found:?}, not {wanted:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn ws_04_lo_06_a_stream_ends_as_soon_as_its_session_is_ended() {
    let (world, streams) = streams();
    let (id, tie) = tie(&world, &streams).await;
    let waiting = Arc::clone(&tie);
    let severed = world.tasks.spawn(async move { waiting.severed().await });
    sleep(Duration::from_secs(1)).await;
    assert!(!severed.is_finished());
    let ended = Instant::now();
    assert!(world.sessions.end_known(id.store_key()).await.unwrap());
    severed.await.unwrap();
    assert_eq!(ended.elapsed(), Duration::ZERO);
    // One that comes too late for the news asks by itself.
    tie.severed().await;
    assert_eq!(ended.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn se_06_a_silent_stream_ends_when_its_session_has_been_idle_too_long() {
    let (world, streams) = streams();
    let (_, tie) = tie(&world, &streams).await;
    about(severed_after(&world, &tie, ABSOLUTE * 2).await, IDLE);
}

#[tokio::test(start_paused = true)]
async fn se_06_a_stream_on_which_the_browser_talks_lives_until_the_absolute_end() {
    let (world, streams) = streams();
    let (_, tie) = tie(&world, &streams).await;
    let talking = Arc::clone(&tie);
    let talk = world.tasks.spawn(async move {
        loop {
            sleep(IDLE / 3).await;
            talking.spoken();
        }
    });
    about(severed_after(&world, &tie, ABSOLUTE * 2).await, ABSOLUTE);
    talk.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stream_follows_a_session_that_other_requests_prolong() {
    let (world, streams) = streams();
    let (id, tie) = tie(&world, &streams).await;
    let sessions = Arc::clone(&world.sessions);
    world.tasks.spawn(async move {
        sleep(IDLE / 2).await;
        sessions.extend(&id).await.unwrap().unwrap();
    });
    about(severed_after(&world, &tie, ABSOLUTE * 2).await, IDLE / 2 + IDLE);
}

#[tokio::test(start_paused = true)]
async fn what_a_browser_says_is_written_once_in_a_while() {
    let (world, streams) = streams();
    let (id, tie) = tie(&world, &streams).await;
    let waiting = Arc::clone(&tie);
    let severed = world.tasks.spawn(async move { waiting.severed().await });
    for _ in 0..100 {
        for _ in 0..50 {
            tie.spoken();
        }
        sleep(IDLE / 100).await;
        world.clock.advance(IDLE / 100);
    }
    let session = world.look_up(&id).await.unwrap();
    assert!((9..=11).contains(&session.version), "{}", session.version);
    // Nor is the store asked each time whether it is worth a write.
    assert_eq!(tie.used.load(Ordering::Relaxed), session.used.as_millis());
    assert!(session.used > BEGIN);
    severed.abort();
}

#[tokio::test(start_paused = true)]
async fn lo_07_a_logout_while_the_store_is_away_ends_this_replicas_streams() {
    let (world, streams) = streams();
    let (id, tie) = tie(&world, &streams).await;
    let ending = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.store.outage.begin(&["read", "delete"], Fails::Before);
        assert!(world.sessions.end_known(id.store_key()).await.is_err());
    };
    let (after, ()) = tokio::join!(severed_after(&world, &tie, Duration::from_secs(5)), ending);
    about(after, Duration::from_secs(1));
    world.store.outage.end();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_ends_no_stream_and_is_asked_when_it_is_back() {
    let (world, streams) = streams();
    for fails in [Fails::Before, Fails::Late] {
        let (id, tie) = tie(&world, &streams).await;
        let waiting = Arc::clone(&tie);
        let severed = world.tasks.spawn(async move { waiting.severed().await });
        sleep(Duration::from_secs(1)).await;
        world.store.outage.begin(&["read"], fails);
        // Its idle end passes, and it was ended besides; neither can be known.
        assert!(world.sessions.end_known(id.store_key()).await.unwrap());
        if fails == Fails::Before {
            sleep(Duration::from_secs(30)).await;
            world.clock.advance(IDLE * 2);
            sleep(Duration::from_secs(30)).await;
            assert!(!severed.is_finished());
        }
        world.store.outage.end();
        let back = Instant::now();
        // The link is there again.
        world.store.link_is_back();
        severed.await.unwrap();
        assert!(
            back.elapsed() <= Duration::from_millis(100),
            "{:?}",
            back.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_absolute_end_needs_no_store() {
    let (world, streams) = streams();
    let (_, tie) = tie(&world, &streams).await;
    world.store.outage.begin(&["read"], Fails::Before);
    about(severed_after(&world, &tie, ABSOLUTE * 2).await, ABSOLUTE);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_long_for_its_turn_goes_on() {
    let (world, streams) = streams();
    let (_, tie) = tie(&world, &streams).await;
    let turns = streams.turns.acquire_many(AT_ONCE.try_into().unwrap()).await;
    assert_eq!(severed_after(&world, &tie, IDLE * 3).await, None);
    drop(turns);
    about(severed_after(&world, &tie, IDLE).await, IDLE * 3);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_does_not_matter_to_a_stream() {
    let (world, streams) = streams();
    let (id, tie) = tie(&world, &streams).await;
    let waiting = Arc::clone(&tie);
    let severed = world.tasks.spawn(async move { waiting.severed().await });
    sleep(Duration::from_secs(1)).await;
    for _ in 0..6 {
        world.clock.advance(Duration::from_mins(1));
        world.sessions.extend(&id).await.unwrap().unwrap();
    }
    let session = world.look_up(&id).await.unwrap();
    let renewed = world.sessions.fresh(&id, &session).await.unwrap();
    assert!(renewed.is_some() && world.provider.calls() == 1);
    sleep(Duration::from_secs(5)).await;
    assert!(!severed.is_finished());
    severed.abort();
}

#[tokio::test(start_paused = true)]
async fn however_many_are_woken_few_ask_at_a_time() {
    let (world, streams) = streams();
    let (id, first) = tie(&world, &streams).await;
    let finished = Arc::new(AtomicUsize::new(0));
    let session = world.look_up(&id).await.unwrap();
    for _ in 0..1000 {
        let opener = Opener {
            streams: &streams,
            id: &id,
            session: &session,
        };
        let (tie, finished) = (opener.tie(), Arc::clone(&finished));
        world.tasks.spawn(async move {
            tie.severed().await;
            finished.fetch_add(1, Ordering::SeqCst);
        });
    }
    sleep(Duration::from_secs(1)).await;
    world.store.outage.begin(&["read"], Fails::Late);
    assert!(world.sessions.end_known(id.store_key()).await.unwrap());
    // Each answer takes 1.3 s now: so many have theirs after one.
    sleep(Duration::from_millis(1400)).await;
    assert_eq!(finished.load(Ordering::SeqCst), AT_ONCE);
    world.store.outage.end();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(finished.load(Ordering::SeqCst), 1000);
    first.severed().await;
}

#[tokio::test]
async fn a_stream_that_waits_takes_little_room() {
    let (world, streams) = streams();
    let (_, tie) = tie(&world, &streams).await;
    let waiting = size_of_val(&tie.severed());
    println!("{waiting} bytes");
    assert!(waiting < 1024, "{waiting} bytes");
}

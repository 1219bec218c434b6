//! One refresh at a time, and nothing lost: here by the clock, and below under failures and races.

mod failures;
mod model;
mod races;

use super::*;
use crate::clock::Clock;
use crate::protocol::token_response::TokenError;
use crate::provider::ProviderError;
use crate::session::testing::{BEGIN, LIFETIME, Scripted, World, new_session};
use crate::session::{Replaced, SessionError};
use crate::store::testing::{Fails, RedisServer};
use crate::store::{Kind, Store, StoreKey};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

fn claims(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// A world with a session whose token has `left` to live.
async fn session_with(left: Duration) -> (World, SessionId, Session) {
    let world = World::new();
    let (id, session) = world.begin().await;
    world.clock.advance(LIFETIME.saturating_sub(left));
    (world, id, session)
}

/// A world with a session whose token has expired.
async fn expired() -> (World, SessionId, Session) {
    session_with(Duration::ZERO).await
}

fn token(session: &Session) -> String {
    session.tokens.access_token.expose().to_owned()
}

impl World {
    async fn fresh(&self, id: &SessionId) -> Result<String, FreshError> {
        let session = self.look_up(id).await.expect("the session lives");
        let landed = self.sessions.fresh(id, &session).await?;
        Ok(token(landed.as_deref().unwrap_or(&session)))
    }

    fn lock(&self, id: &SessionId) -> StoreKey {
        self.sessions.key(Kind::RefreshLock, id.store_key())
    }

    /// What the store holds of the tokens.
    async fn stored(&self, id: &SessionId) -> (String, String) {
        let session = self.look_up(id).await.expect("the session lives");
        let tokens = &session.tokens;
        (
            tokens.access_token.expose().into(),
            tokens.refresh_token.as_ref().unwrap().expose().into(),
        )
    }
}

#[test]
fn freshness_counts_from_the_moment_the_token_was_asked_for() {
    let at = |obtained: u64, expires: u64, now: u64, before: u64| {
        let mut tokens = new_session(&Clock::manual(BEGIN)).tokens;
        tokens.obtained = UnixTime::from_secs(obtained);
        tokens.expires = UnixTime::from_secs(expires);
        Freshness::of(&tokens, UnixTime::from_secs(now), Duration::from_secs(before))
    };
    for (obtained, expires, now, before, wanted) in [
        (1000, 1300, 1000, 60, Freshness::Fresh),
        (1000, 1300, 1240, 60, Freshness::Fresh),
        (1000, 1300, 1241, 60, Freshness::Ageing),
        (1000, 1300, 1299, 60, Freshness::Ageing),
        (1000, 1300, 1300, 60, Freshness::Expired),
        (1000, 1300, 9999, 60, Freshness::Expired),
        // A short token is renewed at half of its lifetime, not at once.
        (1000, 1030, 1000, 60, Freshness::Fresh),
        (1000, 1030, 1015, 60, Freshness::Fresh),
        (1000, 1030, 1016, 60, Freshness::Ageing),
        (1000, 1300, 1299, 0, Freshness::Fresh),
        (1000, 1000, 1000, 60, Freshness::Expired),
        // A clock that was set back does not make a token immortal, and replicas may differ a little.
        (5000, 5300, 4950, 60, Freshness::Fresh),
        (5000, 5300, 1400, 60, Freshness::Ageing),
    ] {
        assert_eq!(
            at(obtained, expires, now, before),
            wanted,
            "{obtained} {expires} {now} {before}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_goes_at_once_and_nothing_happens_behind_it() {
    let (world, id, _) = session_with(2 * MINUTE).await;
    assert_eq!(world.fresh(&id).await.unwrap(), "access-0");
    world.settle().await;
    assert_eq!(world.provider.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn rf_01_an_ageing_token_goes_at_once_while_one_refresh_runs_behind_it() {
    let (world, id, _) = session_with(30 * SECOND).await;
    world.provider.with(|state| state.delays = (3 * SECOND, SECOND));
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(world.fresh(&id).await.unwrap(), "access-0");
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    world.settle().await;
    assert_eq!(world.fresh(&id).await.unwrap(), "access-1");
    assert_eq!(world.provider.calls(), 1);
    assert_eq!(world.stored(&id).await, ("access-1".into(), "refresh-1".into()));
}

#[tokio::test(start_paused = true)]
async fn expired_token_waits_at_most_ten_seconds_and_the_session_stays() {
    let (world, id, _) = expired().await;
    world.provider.with(|state| state.delays = (10 * SECOND, SECOND));
    let began = Instant::now();
    assert!(matches!(world.fresh(&id).await, Err(FreshError::ProviderAway)));
    assert_eq!(began.elapsed(), 10 * SECOND);
    // The answer that nobody waited for is not lost.
    world.settle().await;
    assert_eq!(world.fresh(&id).await.unwrap(), "access-1");
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_dead_on_arrival_is_not_sent_and_the_next_is_waited_for() {
    let (world, id, session) = expired().await;
    world.provider.with(|state| state.delays = (SECOND, SECOND));
    let (sessions, theirs) = (Arc::clone(&world.sessions), id.clone());
    let waiting = world
        .tasks
        .spawn(async move { sessions.fresh(&theirs, &session).await });
    sleep(Duration::from_millis(500)).await;
    // The answer is so long on its way that its token has expired when it comes.
    world.clock.advance(LIFETIME);
    let landed = waiting.await.unwrap().unwrap();
    assert_eq!(token(&landed.unwrap()), "access-2");
    // Where each is, nobody asks without end.
    let (world, id, session) = expired().await;
    let waiting = world.sessions.fresh(&id, &session);
    let clock = async {
        loop {
            sleep(Duration::from_millis(1500)).await;
            world.clock.advance(LIFETIME);
        }
    };
    world.provider.with(|state| state.delays = (SECOND, SECOND));
    tokio::select! {
        outcome = waiting => assert!(matches!(outcome, Err(FreshError::ProviderAway))),
        () = clock => {}
    }
    assert_eq!(world.provider.calls(), ROUNDS);
}

#[tokio::test(start_paused = true)]
async fn rf_05_what_the_answer_leaves_out_stays() {
    let (world, id, _) = expired().await;
    world.provider.with(|state| {
        state.keeps_refresh_token = true;
        state.scope = Some("openid orders.read".into());
    });
    assert_eq!(world.fresh(&id).await.unwrap(), "access-1");
    let session = world.look_up(&id).await.unwrap();
    assert_eq!(
        session.tokens.refresh_token.as_ref().unwrap().expose(),
        "refresh-0"
    );
    assert_eq!(session.tokens.scopes, ["openid", "orders.read"]);
    assert_eq!(session.claims["groups"], json!(["staff"]));
    assert_eq!(session.tokens.expires, BEGIN.plus(2 * LIFETIME));
    world.clock.advance(LIFETIME);
    world.provider.with(|state| state.scope = None);
    assert_eq!(world.fresh(&id).await.unwrap(), "access-2");
    assert_eq!(
        world.look_up(&id).await.unwrap().tokens.scopes,
        ["openid", "orders.read"]
    );
}

#[tokio::test(start_paused = true)]
async fn claims_are_renewed_by_the_id_token_and_then_by_userinfo_which_may_fail() {
    let (world, id, _) = expired().await;
    world
        .provider
        .with(|state| state.id_token = Some(Ok(claims(&json!({"sub": "canary-sub", "name": "N"})))));
    let session = world.look_up(&id).await.unwrap();
    let landed = world.sessions.fresh(&id, &session).await.unwrap().unwrap();
    let session = world.look_up(&id).await.unwrap();
    for session in [&session, &*landed] {
        assert_eq!(
            *session.claims,
            claims(&json!({"sub": "canary-sub", "name": "N"}))
        );
    }
    assert!(session.tokens.id_token.is_some());

    world.clock.advance(LIFETIME);
    let userinfo = claims(&json!({"sub": "canary-sub", "name": "U", "email": "e"}));
    world
        .provider
        .with(|state| state.userinfo = Some((5 * SECOND, Ok(userinfo))));
    let began = Instant::now();
    world.fresh(&id).await.unwrap();
    assert_eq!(
        began.elapsed(),
        Duration::ZERO,
        "the token does not wait for userinfo"
    );
    world.settle().await;
    let both = claims(&json!({"sub": "canary-sub", "name": "N", "email": "e"}));
    assert_eq!(*world.look_up(&id).await.unwrap().claims, both);

    world.clock.advance(LIFETIME);
    world
        .provider
        .with(|state| state.userinfo = Some((SECOND, Err(ProviderError::Away("500".into())))));
    assert_eq!(world.fresh(&id).await.unwrap(), "access-3");
    world.settle().await;
    assert_eq!(*world.look_up(&id).await.unwrap().claims, both);
}

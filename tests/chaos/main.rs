//! Two minutes in which everything goes wrong at once: four replicas on one Redis, two hundred sessions with tokens that
//! live three seconds, and a certified provider that rotates refresh tokens and ends a grant whose token comes twice.
//! Meanwhile replicas are killed and started again, browsers go away, connections to Redis are cut or fall silent, and
//! the provider is late, refuses, hangs up, and loses answers after it has rotated the token.
//!
//! What must hold all the same (contract 4.7, 4.8; design §4):
//!
//! - a refresh token is used once, unless the answer to the first use was lost;
//! - no token that has died, was replaced, or is somebody else's comes up to the upstream;
//! - a session is lost only together with such an answer, and never comes back to life;
//! - browsers get 200, or 503 with `Retry-After` while there is a reason, and no answer takes longer than it may.
//!
//! Not one of `cargo test`'s, for its length: `cargo test --test chaos`. `CHAOS_SEED` has the dice fall as in an earlier
//! run, which printed it; `CHAOS_SECONDS` makes it shorter or longer.

#![expect(
    clippy::disallowed_methods,
    reason = "the suite is not the product: it reads its own environment"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(dead_code, reason = "the support is that of the other tests, too")]
#![expect(clippy::too_many_lines, clippy::format_collect, reason = "as in the support")]

mod api;
mod dice;
mod door;
mod fleet;
#[path = "../shared/ingress.rs"]
mod ingresses;
mod judge;
mod proxy;
#[path = "../it/support/mod.rs"]
mod support;
mod visitor;

use api::Api;
use dice::Dice;
use fleet::{Deaths, Replica, kill_now_and_then};
use judge::{Evidence, Fault, Outcome, Visit, judge};
use proxy::Proxy;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::config::Config;
use support::free_port;
use support::oidc_provider::OidcProvider;
use support::redis::Redis;
use support::secrets::{canary, remember};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use visitor::Visitor;

/// Milliseconds since 1970, or between two moments.
type Millis = u64;

/// How long it goes on.
const SECONDS: u64 = 120;
/// How many replicas there are.
const REPLICAS: usize = 4;
/// How many sessions live at a time: who loses one signs in again.
const SESSIONS: usize = 200;
/// How long an access token lives.
const TOKEN: Millis = 3_000;
/// How long a request that was sent with a living token may take to the upstream, on a machine that is busy.
const TRANSIT: Millis = 1_000;
/// How long a replica may not know that a token was replaced (contract 4.10).
const TOLD: Millis = 1_000;
/// How long a lease lasts whose holder is dead.
const LEASE: Millis = 15_000;
/// The longest that a browser waits: 10 s for a refresh (contract 4.7), and what a busy machine adds.
const LONGEST_WAIT: Millis = 15_000;

/// How many violations of each kind are told.
const MOST_SHOWN: usize = 4;

fn now() -> Millis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// What the provider does to refreshes: most are spared.
fn weather(seed: u64) -> Value {
    json!({
        "seed": seed & 0x7fff_ffff,
        "delay": { "share": 0.08, "ms": [20, 4_000] },
        "late": { "share": 0.03, "ms": [20, 5_000] },
        // Nobody waits for these any more: cloakroom gives a call ten seconds.
        "too_late": { "share": 0.003, "ms": [11_500, 14_000] },
        "status": { "share": 0.02, "of": [500, 502, 503, 429] },
        "drop_before": { "share": 0.02 },
        "drop_after": { "share": 0.005 },
    })
}

/// What all browsers share.
struct Scene {
    origin: String,
    ports: Vec<u16>,
    visits: Mutex<Vec<Visit>>,
}

/// A session of the run.
#[derive(Clone)]
struct Guest {
    name: String,
    visitor: Visitor,
}

impl Scene {
    /// One request; whether its answer was this status is returned, everything else written down.
    async fn visit(&self, guest: &Guest, replica: usize, leaves_after: Option<Duration>) -> Outcome {
        let mut visitor = guest.visitor.clone();
        let sent = now();
        let path = format!("/api/{}/{sent}", guest.name);
        let asked = visitor.fetch(self.ports[replica], &path);
        let reply = match leaves_after {
            None => Some(asked.await),
            Some(leaves) => tokio::time::timeout(leaves, asked).await.ok(),
        };
        let outcome = match reply {
            None => Outcome::WentAway,
            Some(Err(error)) => Outcome::Broke(error.to_string()),
            Some(Ok(reply)) if reply.status == 200 => {
                assert_eq!(reply.text(), sent.to_string(), "an answer to another request");
                Outcome::Answer(200, String::new(), false)
            }
            Some(Ok(reply)) => {
                let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                let code = body["code"].as_str().unwrap_or("no problem document").to_owned();
                Outcome::Answer(reply.status, code, reply.header("retry-after").is_some())
            }
        };
        self.visits.lock().unwrap().push(Visit {
            session: guest.name.clone(),
            replica,
            sent,
            ended: now(),
            outcome: outcome.clone(),
        });
        outcome
    }

    /// Signs in under this name and no other, at whichever replica lets it. `None`: not before `end`.
    async fn sign_in(&self, name: &str, dice: &mut Dice, end: Instant) -> Option<Guest> {
        for n in 0.. {
            let mut visitor = Visitor::new(&self.origin);
            // A login that is broken off may leave a session that nobody knows: the next one is another.
            let name = format!("{name}-{n}");
            let signed = visitor.sign_in(self.ports[dice.below(REPLICAS)], &name).await;
            match signed {
                Ok(()) => return Some(Guest { name, visitor }),
                Err(why) => {
                    assert!(!why.starts_with("500"), "{why}");
                    if Instant::now() >= end {
                        return None;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
        None
    }

    /// What one browser does until `over`: the sessions that it has had, the living one last.
    async fn wander(self: Arc<Self>, slot: usize, first: Guest, mut dice: Dice, over: Instant) -> Vec<Guest> {
        let mut guests = vec![first];
        while Instant::now() < over {
            tokio::time::sleep(dice.millis(50, 3_000)).await;
            let guest = guests.last().unwrap();
            let at_once = [1, 1, 1, 1, 1, 2, 2, 3, 4][dice.below(9)];
            let mut work = JoinSet::new();
            for _ in 0..at_once {
                let (scene, guest, replica) = (Arc::clone(&self), guest.clone(), dice.below(REPLICAS));
                let leaves = dice.percent(6).then(|| dice.millis(0, 400));
                work.spawn(async move { scene.visit(&guest, replica, leaves).await });
            }
            let outcomes = work.join_all().await;
            if outcomes.iter().any(|outcome| outcome.is(401)) {
                let name = format!("s{slot}-{}", guests.len());
                match self.sign_in(&name, &mut dice, over).await {
                    Some(guest) => guests.push(guest),
                    None => break,
                }
            }
        }
        guests
    }

    /// Asks every replica for the session until all say the same: 200 or 401.
    async fn settle(self: Arc<Self>, guest: Guest, turns: Arc<Semaphore>) -> Option<String> {
        let _turn = turns.acquire().await.unwrap();
        let end = Instant::now() + Duration::from_millis(LEASE + LONGEST_WAIT);
        for replica in 0..REPLICAS {
            loop {
                let outcome = self.visit(&guest, replica, None).await;
                if outcome.is(401) {
                    // The others are asked as well: what they say is judged.
                    for other in 0..REPLICAS {
                        self.visit(&guest, other, None).await;
                    }
                    return None;
                }
                if outcome.is(200) {
                    break;
                }
                if Instant::now() >= end {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        Some(guest.name)
    }
}

/// How much later than it wished a task woke that wishes for little.
async fn longest_stall(end: Instant) -> Millis {
    let (wish, mut longest) = (Duration::from_millis(20), Duration::ZERO);
    while Instant::now() < end {
        let begun = Instant::now();
        tokio::time::sleep(wish).await;
        longest = longest.max(begun.elapsed().saturating_sub(wish));
    }
    Millis::try_from(longest.as_millis()).unwrap_or(Millis::MAX)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_refresh_at_a_time_whatever_happens() {
    let seconds = from_environment("CHAOS_SECONDS").unwrap_or(SECONDS);
    let seed = from_environment("CHAOS_SEED").unwrap_or_else(now);
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let mut dice = Dice::new(seed);

    let (redis, api, secret) = (Redis::start().await, Api::start().await, canary("client-secret"));
    let redis_port: u16 = {
        let (_, port) = redis.url.rsplit_once(':').unwrap();
        port.trim_end_matches("/0").parse().unwrap()
    };
    let issuer = format!("http://127.0.0.1:{}", free_port());
    let config = Config::new(&issuer, &secret, &api.url)
        .redis(&redis.url)
        .set("log.level", "info");
    let origin = config.public_url();
    let provider = OidcProvider::start(&json!({
        "issuer_host": "127.0.0.1",
        "port": issuer.rsplit_once(':').unwrap().1.parse::<u16>().unwrap(),
        "clients": [{
            "client_id": "app",
            "client_secret": secret,
            "redirect_uris": [format!("{origin}/bff/callback")],
            "post_logout_redirect_uris": [format!("{origin}/")],
        }],
        "access_token_ttl": TOKEN / 1_000,
        "rotate": true,
        "login": "auto",
        "log": true,
    }));
    let mut replicas = Vec::new();
    for number in 0..REPLICAS {
        let proxy = Arc::new(Proxy::start(redis_port).await);
        let url = redis
            .url
            .replace(&format!(":{redis_port}/"), &format!(":{}/", proxy.port));
        let config = config.replica().set("session.store.redis.url", url);
        replicas.push(Replica::start(number, config, &issuer, proxy).await);
    }
    let proxies: Vec<_> = replicas
        .iter()
        .map(|replica| Arc::clone(&replica.proxy))
        .collect();
    let scene = Arc::new(Scene {
        origin,
        ports: replicas.iter().map(Replica::port).collect(),
        visits: Mutex::default(),
    });

    let mut signing_in = JoinSet::new();
    for slot in 0..SESSIONS {
        let (scene, mut dice) = (Arc::clone(&scene), dice.split());
        let end = Instant::now() + Duration::from_mins(2);
        signing_in.spawn(async move {
            let guest = scene.sign_in(&format!("s{slot}-0"), &mut dice, end).await;
            (slot, guest.expect("everybody can sign in while all is well"))
        });
    }
    let guests = signing_in.join_all().await;

    door::weather(&provider.control, weather(seed)).await;
    let deaths: Deaths = Arc::default();
    let begun = Instant::now();
    let over = begun + Duration::from_secs(seconds);
    let killing = tokio::spawn(kill_now_and_then(
        replicas,
        Arc::clone(&deaths),
        dice.split(),
        now() + seconds * 1_000,
    ));
    let stalls = tokio::spawn(longest_stall(over));
    let mut storm = dice.split();
    let cutting = tokio::spawn(async move {
        let mut faults = Vec::new();
        while Instant::now() < over {
            tokio::time::sleep(storm.millis(500, 3_000)).await;
            let (replica, from) = (storm.below(REPLICAS), now());
            proxies[replica].fail(&mut storm).await;
            let until = now();
            faults.push(Fault { replica, from, until });
        }
        faults
    });
    let mut wandering = JoinSet::new();
    for (slot, guest) in guests {
        wandering.spawn(Arc::clone(&scene).wander(slot, guest, dice.split(), over));
    }
    let guests = wandering.join_all().await.concat();
    let replicas = killing.await.unwrap();
    let faults = cutting.await.unwrap();
    let stall = stalls.await.unwrap();
    door::weather(&provider.control, Value::Null).await;

    // A few at a time: two hundred refreshes in one moment would be another storm.
    let (mut settling, turns) = (JoinSet::new(), Arc::new(Semaphore::new(8)));
    for guest in guests {
        settling.spawn(Arc::clone(&scene).settle(guest, Arc::clone(&turns)));
    }
    let alive: BTreeSet<_> = settling.join_all().await.into_iter().flatten().collect();

    let evidence = Evidence {
        calls: door::log(&provider.control).await,
        seen: api.seen(),
        visits: scene.visits.lock().unwrap().clone(),
        deaths: deaths.lock().unwrap().clone(),
        faults,
        gave_up: replicas.iter().flat_map(Replica::gave_up).collect(),
        stall,
        alive,
    };
    for call in &evidence.calls {
        for token in [&call.refresh_token, &call.access_token].into_iter().flatten() {
            remember(token);
        }
    }
    // What they wrote is searched for secrets.
    drop(replicas);
    let verdict = judge(&evidence);
    println!("{}", verdict.table);
    assert!(
        verdict.violations.is_empty(),
        "CHAOS_SEED={seed}: {} violations, the first of each kind:{}",
        verdict.violations.len(),
        verdict.first_of_each(MOST_SHOWN)
    );
}

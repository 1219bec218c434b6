//! Sessions: cookies, lifetimes, fixation, and what the store shows (contract 3.7, 5.1–5.5).

use crate::support::browser::{ATTEMPT, Browser, Request, SESSION};
use crate::support::cloakroom::Cloakroom;
use crate::support::config::key;
use crate::support::jar::Site;
use crate::support::random;
use crate::support::redis::Redis;
use crate::support::rig::Rig;
use redis::Commands as _;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn user(browser: &mut Browser) -> u16 {
    browser.fetch("GET", "/bff/user").await.status
}

async fn until_past(start: Instant, seconds: f64) {
    let end = start + Duration::from_secs_f64(seconds);
    tokio::time::sleep_until(tokio::time::Instant::from_std(end)).await;
}

#[tokio::test]
async fn bf_02_id_22_the_user_document_shows_listed_claims_and_never_a_token() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let reply = browser.fetch("GET", "/bff/user").await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/json"))
    );
    let user = reply.json();
    assert_eq!(
        (&user["sub"], &user["provider"]),
        (&json!("alice"), &json!("main"))
    );
    let claims = user["claims"].as_object().unwrap();
    assert_eq!(claims["email"], "alice@example.com");
    assert_eq!(claims["groups"], json!(["staff", "readers"]));
    for hidden in [
        "nonce",
        "at_hash",
        "aud",
        "exp",
        "iat",
        "iss",
        "sid",
        "secret_claim",
        "realm_access",
    ] {
        assert!(!claims.contains_key(hidden), "{hidden}");
    }
    let session = &user["session"];
    let seconds = |name: &str| {
        session[name]
            .as_i64()
            .unwrap_or_else(|| panic!("{name}: {session}"))
    };
    assert!((43_190..=43_200).contains(&seconds("expires_in")), "{session}");
    assert!((1_790..=1_800).contains(&seconds("idle_expires_in")), "{session}");
    assert!(
        (290..=300).contains(&seconds("access_token_expires_in")),
        "{session}"
    );
    assert!(
        user["logout_url"].as_str().unwrap().starts_with("/bff/logout?"),
        "{user}"
    );
    let extended = browser.fetch("POST", "/bff/session/extend").await;
    assert_eq!(extended.status, 200);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&extended.json()), keys(&user), "the same document");

    let reply = rig.browser().fetch("GET", "/bff/user").await;
    assert_eq!((reply.status, reply.problem().as_str()), (401, "unauthenticated"));
    assert_eq!(reply.json()["login_url"], "/bff/login");
    assert!(reply.cookies().is_empty());
}

#[tokio::test]
async fn listed_claims_can_be_chosen() {
    let rig = Rig::with(|config| config.set("session.claims", json!(["sub", "secret_claim"]))).await;
    let mut browser = rig.signed_in().await;
    let user = browser.fetch("GET", "/bff/user").await.json();
    assert_eq!(
        user["claims"],
        json!({ "sub": "alice", "secret_claim": "not on the list" })
    );
}

#[tokio::test]
async fn cs_08_se_08_class_f_a_login_makes_a_new_id_and_ends_the_old_session() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let domain = browser.domain().to_owned();
    let planted = random(32);
    browser.jar.plant(&domain, SESSION, &planted);
    browser.login(&rig.rogue, "/").await;
    let first = browser.session().unwrap();
    assert_ne!(first, planted, "fixation");
    let mut attacker = rig.browser();
    attacker.jar.plant(&domain, SESSION, &planted);
    assert_eq!(user(&mut attacker).await, 401);

    let mut old = browser.clone();
    browser.login_as(&rig.rogue, "bob", "/").await;
    assert_ne!(browser.session().unwrap(), first);
    assert_eq!(browser.fetch("GET", "/bff/user").await.json()["sub"], "bob");
    assert_eq!(user(&mut old).await, 401, "the old id is dead");

    let kept = browser.clone();
    let reply = browser.navigate("/bff/login", Site::CrossSite).await;
    let reply = browser.come_back(&rig.rogue.authorize(reply.location())).await;
    browser.landing(&reply);
    assert_eq!(
        user(&mut kept.clone()).await,
        200,
        "a login begun elsewhere brings no Strict cookie"
    );
}

#[tokio::test]
async fn ck_03_ck_07_ck_09_class_h_strange_cookies_are_no_session_and_never_a_failure() {
    let rig = Rig::start().await;
    let mut browser = rig.signed_in().await;
    let good = browser.session().unwrap();
    let flipped = format!("{}{}", if good.starts_with('A') { 'B' } else { 'A' }, &good[1..]);
    let mut strange = vec![
        format!("{SESSION}={good}; {SESSION}={good}"),
        format!("{SESSION}={good}; {SESSION}={}", random(32)),
        format!("{SESSION}={good}; {SESSION}="),
        format!("{SESSION}={}", random(32)),
        format!("{SESSION}={flipped}"),
        format!("{SESSION}={good}A"),
        format!("{SESSION}={}", &good[..42]),
        format!("{SESSION}={good}="),
        format!("{SESSION}=\"{good}\""),
        format!("{SESSION}={good}%20"),
        format!("{SESSION}=99999999"),
        format!("{SESSION}"),
        format!("__host-http-cloakroom={good}"),
        "=".to_owned(),
        ";;;===;;".to_owned(),
        "\u{fc}\u{1}=\u{2}".replace(['\u{1}', '\u{2}'], "x"),
        format!("{SESSION}={}", "a".repeat(5000)),
    ];
    strange.push((0..1000).map(|n| format!("c{n}=v; ")).collect());
    for cookie in strange {
        let reply = browser
            .send(Request::fetch("GET", "/api/x").with("Cookie", &cookie))
            .await;
        assert!(matches!(reply.status, 401 | 431), "{cookie}: {}", reply.status);
        if reply.status == 401 {
            reply.problem();
        }
    }
    let two_lines = Request::fetch("GET", "/api/x")
        .with("Cookie", &format!("{SESSION}={good}"))
        .with("Cookie", &format!("{SESSION}={good}"));
    assert_eq!(browser.send(two_lines).await.status, 401);
    let elsewhere = Request::fetch("GET", &format!("/api/x?{SESSION}={good}"))
        .anonymous()
        .with("X-Session", &good)
        .with("Authorization", &format!("Bearer {good}"));
    assert_eq!(
        browser.send(elsewhere).await.status,
        401,
        "class_e: an id counts in the cookie only"
    );
    assert_eq!(rig.upstream.connections(), 0, "class_k");
    let split = Request::fetch("GET", "/api/x")
        .with("Cookie", "a=1; __Host-Http-Cloakroom=x")
        .with("Cookie", &format!("{SESSION}={good};b=2"));
    assert_eq!(
        browser.send(split).await.status,
        200,
        "ck_08: several Cookie lines are one"
    );
}

#[tokio::test]
async fn ck_09_an_unknown_id_is_cleared_with_the_attributes_it_would_have_had() {
    let rig = Rig::start().await;
    let mut browser = rig.browser();
    let domain = browser.domain().to_owned();
    browser.jar.plant(&domain, SESSION, &random(32));
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(reply.status, 401);
    assert!(reply.clears_session(), "a healthy store says that it is gone");
    assert!(
        browser.session().is_none(),
        "lo_04: the browser takes the deletion"
    );
    assert!(
        !rig.browser().fetch("GET", "/api/x").await.clears_session(),
        "nothing to clear, nothing set"
    );
}

#[tokio::test]
async fn class_e_an_attempt_cookie_pasted_into_the_session_cookie_is_no_session() {
    let rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.browser();
    browser.begin("").await;
    let attempt = browser.attempts()[0].value.clone();
    let name = browser.attempts()[0]
        .name
        .strip_prefix(ATTEMPT)
        .unwrap()
        .to_owned();
    for value in [attempt.clone(), attempt[..43.min(attempt.len())].to_owned(), name] {
        let request = Request::fetch("GET", "/api/x").with("Cookie", &format!("{SESSION}={value}"));
        assert_eq!(browser.send(request).await.status, 401);
    }
    assert_eq!(rig.upstream.connections(), 0);
}

#[tokio::test]
async fn se_06_rf_15_idle_sessions_end_and_asking_for_the_user_does_not_extend() {
    let rig = Rig::with(|config| config.set("session.idle_timeout", "5s")).await;
    let (mut asks, mut extends, mut works) = (
        rig.signed_in().await,
        rig.signed_in().await,
        rig.signed_in().await,
    );
    let start = Instant::now();
    until_past(start, 2.0).await;
    assert_eq!(user(&mut asks).await, 200);
    let extended = extends.fetch("POST", "/bff/session/extend").await.json();
    assert!(
        extended["session"]["idle_expires_in"].as_i64().unwrap() >= 3,
        "{extended}"
    );
    assert_eq!(works.fetch("GET", "/api/x").await.status, 200);
    until_past(start, 5.5).await;
    let reply = asks.fetch("GET", "/bff/user").await;
    assert_eq!(
        (reply.status, reply.clears_session()),
        (401, true),
        "idle, and the store says so"
    );
    assert_eq!(user(&mut extends).await, 200, "extended");
    assert_eq!(user(&mut works).await, 200, "a proxied request is activity");
    until_past(start, 11.5).await;
    for mut browser in [extends, works] {
        assert_eq!(user(&mut browser).await, 401);
    }
}

#[tokio::test]
async fn se_06_a_session_ends_at_its_absolute_end_whatever_happens() {
    let rig = Rig::with(|config| {
        config
            .set("session.idle_timeout", "4s")
            .set("session.absolute_timeout", "7s")
    })
    .await;
    let mut browser = rig.signed_in().await;
    let start = Instant::now();
    for step in [1.5, 3.0, 4.5] {
        until_past(start, step).await;
        assert_eq!(browser.fetch("GET", "/api/x").await.status, 200, "{step}");
        assert_eq!(browser.fetch("POST", "/bff/session/extend").await.status, 200);
    }
    until_past(start, 7.3).await;
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 401);
    assert_eq!(browser.fetch("POST", "/bff/session/extend").await.status, 401);
}

#[tokio::test]
async fn a_persistent_cookie_lives_as_long_as_the_session_may() {
    let rig = Rig::with(|config| config.set("session.cookie.persistent", true)).await;
    let mut browser = rig.browser();
    let reply = {
        let url = browser.begin("").await;
        browser.come_back(&rig.rogue.authorize(&url)).await
    };
    let cookie = reply
        .cookies()
        .into_iter()
        .find(|cookie| cookie.name == SESSION)
        .unwrap();
    let age: u32 = cookie.attribute("max-age").unwrap().parse().unwrap();
    assert!((43_190..=43_200).contains(&age), "{age}");
}

#[tokio::test]
async fn sessions_in_redis_are_shared_by_replicas_and_survive_a_restart() {
    let rig = Rig::on_redis(|config| config).await;
    let other = Cloakroom::start(&rig.config.replica()).await;
    let browser = rig.signed_in().await;
    assert_eq!(user(&mut browser.at(other.port)).await, 200);
    let url = browser.clone().begin("?return_to=/orders").await;
    assert!(url.starts_with(&rig.rogue.issuer));
    let mut walks = rig.browser();
    let url = walks.begin("?return_to=/orders").await;
    let mut walks = walks.at(other.port);
    let reply = walks.come_back(&rig.rogue.authorize(&url)).await;
    assert_eq!(
        walks.landing(&reply),
        "/orders",
        "a login may end on another replica"
    );
    let Rig {
        cloakroom,
        config,
        redis,
        ..
    } = rig;
    cloakroom.stop().await;
    let again = Cloakroom::start(&config).await;
    assert_eq!(user(&mut browser.at(again.port)).await, 200);
    drop((again, other, redis));
}

#[tokio::test]
async fn se_02_se_07_class_n_nothing_in_redis_can_be_read_and_nothing_lives_for_ever() {
    let rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.signed_in().await;
    browser.fetch("GET", "/api/x").await;
    browser.begin("?return_to=/orders").await;
    let redis = rig.redis.as_ref().unwrap();
    let entries = redis.dump();
    assert!(
        entries.iter().any(|entry| entry.content.len() > 200),
        "there is a session"
    );
    redis.search();
    let prefixed = entries.iter().all(|entry| entry.key.starts_with("cloakroom:"));
    assert!(
        prefixed,
        "{:?}",
        entries.iter().map(|entry| &entry.key).collect::<Vec<_>>()
    );
    for entry in &entries {
        let zeroes = entry
            .content
            .windows(8)
            .filter(|window| window == &[0; 8])
            .count();
        assert!(zeroes < 3, "{} looks like plain text", entry.key);
    }
}

#[tokio::test]
async fn se_03_se_04_class_e_class_i_records_that_were_swapped_or_altered_do_not_open() {
    let rig = Rig::on_redis(|config| config.set("session.cache", "off")).await;
    let mut alice = rig.signed_in().await;
    let redis = rig.redis.as_ref().unwrap();
    let before: Vec<String> = redis.dump().into_iter().map(|entry| entry.key).collect();
    let mut bob = rig.browser();
    bob.login_as(&rig.rogue, "bob", "/").await;
    let mut connection = redis.connection();
    let copies: Vec<(String, Vec<u8>)> = redis
        .dump()
        .iter()
        .filter(|entry| !before.contains(&entry.key))
        .map(|entry| {
            (
                entry.key.clone(),
                redis::cmd("DUMP").arg(&entry.key).query(&mut connection).unwrap(),
            )
        })
        .collect();
    // Everything of Alice's is replaced by what is Bob's.
    let largest = |keys: &[String]| -> Vec<u8> {
        let key = keys.iter().max_by_key(|key| {
            let size: Vec<u8> = redis::cmd("DUMP")
                .arg(*key)
                .query(&mut redis.connection())
                .unwrap();
            size.len()
        });
        redis::cmd("DUMP")
            .arg(key.unwrap())
            .query(&mut redis.connection())
            .unwrap()
    };
    let mine: Vec<String> = before.clone();
    let original = largest(&mine);
    let theirs = copies
        .iter()
        .max_by_key(|(_, dump)| dump.len())
        .unwrap()
        .1
        .clone();
    for key in &mine {
        let dump: Vec<u8> = redis::cmd("DUMP").arg(key).query(&mut connection).unwrap();
        if dump == original {
            let _done: () = redis::cmd("RESTORE")
                .arg(key)
                .arg(60_000)
                .arg(&theirs)
                .arg("REPLACE")
                .query(&mut connection)
                .unwrap();
        }
    }
    let reply = alice.fetch("GET", "/bff/user").await;
    assert_ne!(reply.status, 200, "{}", reply.text());
    assert_eq!(user(&mut bob).await, 200);
}

#[tokio::test]
async fn class_e_two_deployments_on_one_redis_never_take_each_others_cookies() {
    let rig = Rig::on_redis(|config| config).await;
    let browser = rig.signed_in().await;
    let replica = rig.config.replica();
    let origin = format!("http://other.localhost:{}", replica.port);
    let config = replica.set("public_url", origin);
    let other = Cloakroom::start(&config).await;
    let mut stranger = other.browser();
    let domain = stranger.domain().to_owned();
    stranger.jar.plant(&domain, SESSION, &browser.session().unwrap());
    assert_eq!(user(&mut stranger).await, 401, "public_url is bound in");
    assert_eq!(user(&mut browser.clone()).await, 200, "and nothing was deleted");
}

#[tokio::test]
async fn se_05_keys_rotate_without_a_logout_and_an_unknown_key_is_the_operators_fault() {
    let rig = Rig::on_redis(|config| config).await;
    let browser = rig.signed_in().await;
    let old = rig.config.value["session"]["keys"][0].clone();
    let rotated = rig.config.replica().set("session.keys", json!([key(), old]));
    let second = Cloakroom::start(&rotated).await;
    assert_eq!(user(&mut browser.at(second.port)).await, 200, "all keys open");
    let stranger = Cloakroom::start(&rig.config.replica().set("session.keys", json!([key()]))).await;
    let reply = browser.at(stranger.port).fetch("GET", "/api/x").await;
    assert!(matches!(reply.status, 401 | 503), "{}", reply.status);
    assert!(
        !reply.clears_session(),
        "a session that is there is not taken away"
    );
    assert_eq!(user(&mut browser.clone()).await, 200);
}

/// The key id in the one session's record: behind its version and the format.
fn sealed_by(redis: &Redis) -> Vec<u8> {
    let mut connection = redis.connection();
    let keys: Vec<String> = connection.keys("*:session").unwrap();
    assert_eq!(keys.len(), 1);
    let value: Vec<u8> = connection.get(&keys[0]).unwrap();
    value[9..17].to_vec()
}

#[tokio::test]
async fn se_05_keys_in_files_rotate_in_three_steps_while_requests_and_logins_are_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["first", "second"].map(|name| folder.path().join(name));
    let write = |keys: [&str; 2]| {
        for (file, key) in files.iter().zip(keys) {
            std::fs::write(file, key).unwrap();
        }
    };
    let (old, spare, new) = (key(), key(), key());
    write([&old, &spare]);
    let sources = json!([{ "file": files[0] }, { "file": files[1] }]);
    let rig = Rig::on_redis(|config| config.set("session.keys", sources)).await;
    let replica = Cloakroom::start(&rig.config.replica()).await;
    let redis = rig.redis.as_ref().unwrap();
    let mut browser = rig.signed_in().await;
    let mut elsewhere = browser.at(replica.port);
    let mut guest = rig.browser();
    let under_way = guest.begin("?return_to=/late").await;
    let before = sealed_by(redis);
    // 1: the new key behind. 2: in front; for a moment both files hold the same. 3: the old one goes.
    let steps = [[&old, &new], [&new, &new], [&new, &old], [&new, &spare]];
    for (n, step) in steps.into_iter().enumerate() {
        write(step.map(String::as_str));
        // The files are looked at about once a second, while they are in use.
        let end = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < end {
            for browser in [&mut browser, &mut elsewhere] {
                assert_eq!(browser.fetch("GET", "/api/x").await.status, 200, "step {n}");
                let extended = browser.fetch("POST", "/bff/session/extend").await;
                assert_eq!(extended.status, 200, "step {n}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if n == 0 {
            assert_eq!(sealed_by(redis), before, "the first key seals");
        }
    }
    assert_ne!(sealed_by(redis), before, "what is written is sealed anew");
    // The login began under the old key.
    let reply = guest.come_back(&rig.rogue.authorize(&under_way)).await;
    assert_eq!(guest.landing(&reply), "/late");
    // Who starts now knows the new key only.
    let young = Cloakroom::start(&rig.config.replica().set("session.keys", json!([new]))).await;
    assert_eq!(user(&mut browser.at(young.port)).await, 200);
    assert_eq!(user(&mut guest.at(young.port)).await, 200);
}

#[tokio::test]
async fn se_12_redis_over_tls_with_a_user_of_few_rights_is_enough() {
    let redis = Redis::start_tls().await;
    let ca = redis.ca.clone().unwrap();
    let rig = Rig::build(Some(redis), |config| {
        config.set("session.store.redis.ca", ca.to_str().unwrap())
    })
    .await;
    let mut browser = rig.signed_in().await;
    assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
    let logout = browser.fetch("POST", "/bff/logout").await;
    assert!(matches!(logout.status, 200 | 303), "{}", logout.status);
    assert_eq!(user(&mut browser).await, 401);
}

#[tokio::test]
async fn fa_01_a_redis_that_was_emptied_is_a_healthy_store_without_the_session() {
    let rig = Rig::on_redis(|config| config).await;
    let mut browser = rig.signed_in().await;
    let mut connection = rig.redis.as_ref().unwrap().connection();
    let _emptied: () = connection.flushall().unwrap();
    crate::support::within(3, "the cache to follow", async {
        while user(&mut browser).await == 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let reply = browser.fetch("GET", "/api/x").await;
    assert_eq!(reply.status, 401);
}

//! A user's own sessions over `/bff/sessions` (standards SE-09; ASVS 7.4.5, 7.5.2).

use crate::support::browser::{Browser, Reply, Request};
use crate::support::cloakroom::Cloakroom;
use crate::support::config::Config;
use crate::support::refusals::{is_problem, is_refused_at};
use crate::support::rig::Rig;
use crate::support::within;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The usual parts on Redis, and another replica.
async fn replicas(change: impl FnOnce(Config) -> Config) -> (Rig, Cloakroom) {
    let rig = Rig::on_redis(change).await;
    let other = Cloakroom::start(&rig.config.replica()).await;
    (rig, other)
}

async fn signed_in_as(rig: &Rig, sub: &str) -> Browser {
    let mut browser = rig.browser();
    browser.login_as(&rig.rogue, sub, "/").await;
    browser
}

async fn list(browser: &Browser) -> Vec<Value> {
    let reply = browser.clone().fetch("GET", "/bff/sessions").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(reply.cookies().is_empty());
    reply.json().as_array().unwrap().clone()
}

fn reference(listed: &Value) -> &str {
    listed["reference"].as_str().unwrap()
}

/// The path that names the session of this browser.
async fn path_of(browser: &Browser) -> String {
    let listed = list(browser).await;
    let current = listed.iter().find(|listed| listed["current"] == true).unwrap();
    format!("/bff/sessions/{}", reference(current))
}

async fn user(browser: &Browser) -> u16 {
    browser.clone().fetch("GET", "/bff/user").await.status
}

#[tokio::test]
async fn se_09_a_user_lists_and_ends_their_own_sessions_on_every_replica() {
    let (rig, other) = replicas(|config| config).await;
    let before = crate::support::now();
    let mut alice = Vec::new();
    for _ in 0..3 {
        alice.push(signed_in_as(&rig, "alice").await);
    }
    let bob = signed_in_as(&rig, "bob").await;
    for browser in &alice {
        let status = browser.at(other.port).fetch("GET", "/api/x").await.status;
        assert_eq!(status, 200, "kept in memory there");
    }

    // The list: the same from everywhere, but for which one asks.
    let mut paths = Vec::new();
    for (n, browser) in alice.iter().enumerate() {
        let listed = list(browser).await;
        assert_eq!(listed, list(&browser.at(other.port)).await);
        assert_eq!(listed.len(), 3, "{listed:?}");
        for (m, one) in listed.iter().enumerate() {
            let keys: Vec<&str> = one.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(
                keys,
                ["absolute_end", "begun", "current", "provider", "reference"]
            );
            assert_eq!(one["current"], n == m, "the oldest first");
            assert_eq!((&one["provider"], reference(one).len()), (&json!("main"), 64));
            let begun = one["begun"].as_u64().unwrap();
            assert!((before..before + 60).contains(&begun), "{begun}");
            assert_eq!(one["absolute_end"].as_u64().unwrap() - begun, 12 * 3600);
        }
        paths.push(path_of(browser).await);
    }
    let head = alice[0].clone().fetch("HEAD", "/bff/sessions").await;
    assert_eq!((head.status, head.body.len()), (200, 0));

    // Somebody else's, and one that there never was, are the same.
    let bobs = path_of(&bob).await;
    assert_eq!(list(&bob).await.len(), 1);
    let mut said = Vec::new();
    for path in [
        &bobs,
        &format!("/bff/sessions/{}", "7".repeat(64)),
        "/bff/sessions/7",
        "/bff/sessions/",
    ] {
        let reply = alice[0].clone().fetch("DELETE", path).await;
        is_problem(&reply, 404, "not_found");
        assert!(reply.cookies().is_empty());
        let mut problem = reply.json();
        problem["request_id"].take();
        said.push(problem);
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(user(&bob).await, 200);

    // Another one of one's own.
    let ended = alice[0]
        .at(other.port)
        .fetch(
            "DELETE",
            &paths[1].to_uppercase().replace("/BFF/SESSIONS", "/bff/sessions"),
        )
        .await;
    assert_eq!((ended.status, ended.json()), (200, json!({ "ended": 1 })));
    assert!(ended.cookies().is_empty());
    for cloakroom in [&rig.cloakroom, &other] {
        is_refused_at(&alice[1], cloakroom).await;
    }
    let again = alice[0].clone().fetch("DELETE", &paths[1]).await;
    is_problem(&again, 404, "not_found");
    assert_eq!(list(&alice[2]).await.len(), 2);

    // All others.
    let ended = alice[2].clone().fetch("DELETE", "/bff/sessions").await;
    assert_eq!((ended.status, ended.json()), (200, json!({ "ended": 1 })));
    assert!(ended.cookies().is_empty());
    for cloakroom in [&rig.cloakroom, &other] {
        is_refused_at(&alice[0], cloakroom).await;
        for stays in [&alice[2], &bob] {
            assert_eq!(stays.at(cloakroom.port).fetch("GET", "/api/x").await.status, 200);
        }
    }
    let none = alice[2].clone().fetch("DELETE", "/bff/sessions").await;
    assert_eq!((none.status, none.json()), (200, json!({ "ended": 0 })));

    // The one that asks, whose tokens can be revoked.
    assert!(rig.rogue.revoked().is_empty(), "5.2: the others' are sealed");
    let mut last = alice[2].clone();
    let ended = last.fetch("DELETE", &paths[2]).await;
    assert_eq!((ended.status, ended.json()), (200, json!({ "ended": 1 })));
    assert!(ended.clears_session() && last.session().is_none());
    for cloakroom in [&rig.cloakroom, &other] {
        is_refused_at(&alice[2], cloakroom).await;
    }
    within(4, "the revocations", async {
        while rig.rogue.revoked().len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let again = alice[2].clone().fetch("DELETE", &paths[2]).await;
    is_problem(&again, 401, "unauthenticated");
    assert!(again.clears_session());
    assert_eq!(user(&bob).await, 200);

    let counted = |cloakroom: String| -> u32 {
        let line = cloakroom
            .lines()
            .find_map(|line| line.strip_prefix("cloakroom_logouts_total{kind=\"sessions\"} "));
        line.map_or(0, |count| count.parse().unwrap())
    };
    let (here, there) = (
        rig.cloakroom.admin("/metrics").await.text(),
        other.admin("/metrics").await.text(),
    );
    assert_eq!((counted(here), counted(there)), (2, 1));
}

#[tokio::test]
async fn se_09_own_sessions_want_a_session_a_page_of_ours_and_clear_words() {
    let (rig, _other) = replicas(|config| config).await;
    let alice = [
        signed_in_as(&rig, "alice").await,
        signed_in_as(&rig, "alice").await,
    ];
    let one = path_of(&alice[1]).await;
    let asked = [
        ("GET", "/bff/sessions"),
        ("DELETE", "/bff/sessions"),
        ("DELETE", &one),
    ];
    for (method, path) in asked {
        let reply = rig.browser().fetch(method, path).await;
        is_problem(&reply, 401, "unauthenticated");
        assert!(reply.cookies().is_empty());
        for site in ["cross-site", "same-site", "nonsense"] {
            let request = Request::bare(method, path).with("Sec-Fetch-Site", site);
            is_problem(&alice[0].clone().send(request).await, 403, "csrf");
            // 4.3: without a session cookie there is nothing to forge.
            let request = Request::bare(method, path).with("Sec-Fetch-Site", site);
            is_problem(&rig.browser().send(request).await, 401, "unauthenticated");
        }
        for origin in ["https://evil.example", "null"] {
            let request = Request::bare(method, path).with("Origin", origin);
            is_problem(&alice[0].clone().send(request).await, 403, "csrf");
        }
        if method == "DELETE" {
            let request = Request::bare(method, path);
            is_problem(&alice[0].clone().send(request).await, 403, "csrf");
        }
    }
    for (method, path, status, code, allow) in [
        (
            "POST",
            "/bff/sessions",
            405,
            "method_not_allowed",
            "GET, HEAD, DELETE",
        ),
        ("GET", &one, 405, "method_not_allowed", "DELETE"),
        ("POST", &one, 405, "method_not_allowed", "DELETE"),
        ("DELETE", "/bff/sessions?current=false", 400, "bad_request", ""),
        ("DELETE", &format!("{one}?x"), 400, "bad_request", ""),
        ("DELETE", "/bff/sessionsx", 404, "not_found", ""),
    ] {
        let reply = alice[0].clone().fetch(method, path).await;
        is_problem(&reply, status, code);
        assert_eq!(reply.header("allow").unwrap_or_default(), allow);
    }
    for browser in &alice {
        assert_eq!(user(browser).await, 200, "nothing has ended");
    }
    // 4.4: what needs no `Sec-Fetch-Site`.
    let request = Request::bare("DELETE", &one).with("X-CSRF", "1");
    assert_eq!(alice[0].clone().send(request).await.status, 200);
    assert_eq!(user(&alice[1]).await, 401);
}

#[tokio::test]
async fn se_09_looking_at_sessions_extends_none() {
    let rig = Rig::start().await;
    let mut alice = rig.signed_in().await;
    let idle = |reply: Reply| reply.json()["session"]["idle_expires_in"].as_u64().unwrap();
    let full = idle(alice.fetch("POST", "/bff/session/extend").await);
    within(10, "a second to pass", async {
        loop {
            list(&alice).await;
            alice.fetch("DELETE", "/bff/sessions").await;
            if idle(alice.fetch("GET", "/bff/user").await) < full - 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn fa_01_an_own_end_while_the_store_is_away_is_said_and_done_later() {
    let (rig, other) = replicas(|config| config).await;
    let (mut alice, second) = (
        signed_in_as(&rig, "alice").await,
        signed_in_as(&rig, "alice").await,
    );
    let (one, another) = (path_of(&alice).await, path_of(&second).await);
    let stays = alice.clone();
    rig.redis.as_ref().unwrap().pause();
    for (method, path, code) in [
        ("GET", "/bff/sessions", "store_unavailable"),
        ("DELETE", "/bff/sessions", "store_unavailable"),
        ("DELETE", &another, "store_unavailable"),
        ("DELETE", &one, "logout_incomplete"),
    ] {
        let start = Instant::now();
        let reply = alice.fetch(method, path).await;
        let took = start.elapsed();
        assert!(took < Duration::from_millis(3_200), "4.6: {took:?}");
        is_problem(&reply, 503, code);
        assert!(reply.header("retry-after").unwrap().parse::<u32>().is_ok());
        assert_eq!(reply.clears_session(), code == "logout_incomplete");
    }
    assert!(alice.session().is_none());
    let here = user(&stays).await;
    assert!(
        matches!(here, 401 | 503),
        "this replica refuses it from now on: {here}"
    );
    rig.redis.as_ref().unwrap().resume();
    within(10, "the delete to be confirmed", async {
        while user(&stays.at(other.port)).await != 401 {
            assert_ne!(user(&stays).await, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(
        list(&second.at(other.port)).await.len(),
        1,
        "nothing else has ended"
    );
}

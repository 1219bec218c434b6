//! A primary is killed under load (contract 4.6): no session is lost, and soon nobody notices any more.
//!
//! Two replicas of cloakroom, and tokens that live for seconds at a provider that ends a grant whose refresh token is shown
//! twice. Redis replicates behind its answers. Here the primary dies with everything that it had confirmed, so what is there
//! afterwards is what cloakroom wrote again.
//!
//! Sentinel and Cluster as people run them: TLS with an authority of their own and client certificates, passwords, and an
//! ACL user with the documented rights and no others.

use crate::support::browser::Browser;
use crate::support::cloakroom::{Cloakroom, run};
use crate::support::config::{Config, key};
use crate::support::redis_group::Group;
use crate::support::rig::Rig;
use crate::support::tls::Authority;
use crate::support::within;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// When the last 5xx may come after the kill.
const LATEST: Duration = Duration::from_secs(5);
/// What of it is ours: to find the new primary.
const OURS: Duration = Duration::from_secs(2);
const PEOPLE: usize = 8;

fn on(group: &Group, config: Config) -> Config {
    config
        .set("session.store", json!({ "redis": group.settings }))
        .set("session.keys", json!([key()]))
}

/// One answer: when it was asked for, its status, and the code of a refusal.
type Answer = (Instant, u16, String);

/// Somebody who asks all the time: reads, and writes (an extension of the session).
fn keeps_asking(mut browser: Browser, done: &Arc<AtomicBool>, all: &mut JoinSet<(Browser, Vec<Answer>)>) {
    let done = Arc::clone(done);
    all.spawn(async move {
        let mut answers = Vec::new();
        while !done.load(Ordering::SeqCst) {
            for (method, path) in [("GET", "/api/x"), ("POST", "/bff/session/extend")] {
                let asked = Instant::now();
                let reply = browser.fetch(method, path).await;
                let code = match reply.status {
                    200 => String::new(),
                    _ => reply.problem(),
                };
                answers.push((asked, reply.status, code));
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
        (browser, answers)
    });
}

/// Loses the first data server and all that it had while everybody asks, and sees when the last 5xx comes.
async fn killed_under_load(rig: &Rig, group: &mut Group) {
    let (done, mut all) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    let mut sessions = Vec::new();
    let other = Cloakroom::start(&rig.config.replica()).await;
    rig.rogue.script(|script| script.lifetime = Some(4));
    for _ in 0..PEOPLE {
        let browser = rig.signed_in().await;
        sessions.push(browser.session().unwrap());
        for port in [rig.cloakroom.port, other.port] {
            keeps_asking(browser.at(port), &done, &mut all);
        }
    }
    assert!(group.counts()[0] > 0, "it has some of the sessions");
    let replicas = group.lose_the_first();
    let killed = Instant::now();
    group.succeeded_by(&replicas).await;
    // Redis' own part takes a second or two; where the machine has no time for it, ours counts from its end.
    let latest = LATEST.max(killed.elapsed() + OURS);
    // Until well after everybody was served again, and not before there was something to notice.
    tokio::time::sleep(latest + Duration::from_secs(1)).await;
    done.store(true, Ordering::SeqCst);
    let (mut last, mut count, mut failures) = ((Duration::ZERO, String::new()), 0, 0);
    let mut after = Vec::new();
    for (browser, answers) in within(10, "everybody", all.join_all()).await {
        count += answers.len();
        for (asked, status, code) in answers {
            assert!(
                matches!(status, 200 | 503),
                "{status}: a session was lost, or worse"
            );
            if status == 503 {
                failures += 1;
                last = last.max((asked.saturating_duration_since(killed), code));
            }
        }
        after.push(browser);
    }
    for mut browser in after {
        assert!(
            sessions.contains(&browser.session().unwrap()),
            "fa_02: the same session"
        );
        assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
    }
    let refreshes = rig.rogue.grants("refresh_token");
    println!(
        "{count} answers, {failures} of them 503, the last {last:?} after the kill, {refreshes} refreshes"
    );
    assert!(refreshes > PEOPLE, "{refreshes}");
    assert!(failures > 0, "nobody noticed: what was killed?");
    assert!(last.0 < latest, "{last:?} of {latest:?}");
}

/// What `check --online` says of the store.
fn check_online(rig: &Rig) -> (i32, String) {
    let folder = TempDir::new().unwrap();
    let file = rig.config.write(folder.path());
    let output = run(
        folder.path(),
        &["check", "--online", "--config", file.to_str().unwrap()],
        &[],
    );
    let said = String::from_utf8(output.stdout).unwrap();
    let store: Vec<_> = said.lines().filter(|line| line.contains("store: ")).collect();
    (output.status.code().unwrap(), store.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn fa_01_a_primary_of_sentinels_that_is_killed_under_load_costs_no_session() {
    let authority = Authority::new();
    let mut group = Group::sentinel(&authority).await;
    let rig = Rig::build(None, |config| on(&group, config)).await;
    let (code, said) = check_online(&rig);
    assert_eq!(code, 0, "{said}");
    for wanted in [
        "ok      store: sentinel 1: primary is 127.0.0.1:",
        "ok      store: sentinel 3: primary is",
        "ok      store: PING",
        "ok      store: list",
        "ok      store: news of changes",
        "ok      store: eviction policy",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    killed_under_load(&rig, &mut group).await;
    group.all_end();

    // What is left: two of three sentinels, then one, then none.
    group.sentinels[0].kill();
    let (code, said) = check_online(&rig);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("unsure  store: sentinel 1") && said.contains("refused"),
        "{said}"
    );
    group.sentinels[1].kill();
    group.sentinels[2].kill();
    let (code, said) = check_online(&rig);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("FAILED  store: sentinel 3") && !said.contains("PING"),
        "{said}"
    );
    // The primary is connected, and goes on.
    assert_eq!(rig.signed_in().await.fetch("GET", "/api/x").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn fa_01_a_primary_of_a_cluster_that_is_killed_under_load_costs_no_session() {
    let authority = Authority::new();
    let mut group = Group::cluster(&authority, true).await;
    let rig = Rig::build(None, |config| on(&group, config)).await;
    let (code, said) = check_online(&rig);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("ok      store: cluster slots: 3 primaries"),
        "{said}"
    );
    for node in &group.data[..3] {
        for tried in [
            "write",
            "read",
            "delete",
            "list",
            "news of changes",
            "eviction policy",
        ] {
            let wanted = format!("ok      store: 127.0.0.1:{}: {tried}", node.port);
            assert!(said.contains(&wanted), "{wanted}: {said}");
        }
    }
    killed_under_load(&rig, &mut group).await;
    group.all_end();
}

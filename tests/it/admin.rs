//! Sessions over the admin listener, and `cloakroom sessions` (contract §1, §7; standards SE-09).

use crate::support::browser::{Browser, raw};
use crate::support::cloakroom::{Cloakroom, run, text};
use crate::support::config::Config;
use crate::support::refusals::{is_problem, is_refused_at};
use crate::support::rig::Rig;
use crate::support::rogue::Step;
use crate::support::secrets::canary;
use crate::support::{until, within};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::Notify;

/// The usual parts on Redis with an admin token, and another replica.
async fn replicas(change: impl FnOnce(Config) -> Config) -> (Rig, Cloakroom, String) {
    let token = canary("admin-token");
    let rig = Rig::on_redis(|config| change(config.set("server.admin_token", token.as_str()))).await;
    let other = Cloakroom::start(&rig.config.replica()).await;
    (rig, other, token)
}

async fn signed_in_as(rig: &Rig, sub: &str) -> Browser {
    let mut browser = rig.browser();
    browser.login_as(&rig.rogue, sub, "/").await;
    browser
}

async fn list(cloakroom: &Cloakroom, token: &str, query: &str) -> Vec<Value> {
    let reply = cloakroom
        .ask_admin("GET", &format!("/sessions?{query}"), Some(token))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().as_array().unwrap().clone()
}

fn reference(listed: &Value) -> &str {
    listed["reference"].as_str().unwrap()
}

#[tokio::test]
async fn se_09_an_administrator_lists_and_ends_sessions_on_every_replica() {
    let (rig, other, token) = replicas(|config| config).await;
    let before = crate::support::now();
    let (first, second) = (
        signed_in_as(&rig, "alice").await,
        signed_in_as(&rig, "alice").await,
    );
    let bob = signed_in_as(&rig, "bob").await;
    for browser in [&first, &second] {
        for _ in 0..3 {
            let status = browser.at(other.port).fetch("GET", "/api/x").await.status;
            assert_eq!(status, 200, "kept in memory there");
        }
    }
    let alices = list(&rig.cloakroom, &token, "sub=alice").await;
    assert_eq!(alices, list(&other, &token, "sub=alice&provider=main").await);
    assert_eq!(alices.len(), 2, "{alices:?}");
    for listed in &alices {
        let keys: Vec<&str> = listed.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["absolute_end", "begun", "provider", "reference", "sid", "sub"]
        );
        assert_eq!(
            (&listed["provider"], &listed["sub"]),
            (&json!("main"), &json!("alice"))
        );
        let begun = listed["begun"].as_u64().unwrap();
        assert!((before..before + 60).contains(&begun), "{begun}");
        assert_eq!(listed["absolute_end"].as_u64().unwrap() - begun, 12 * 3600);
        assert_eq!(reference(listed).len(), 64);
    }
    assert_ne!(alices[0]["sid"], alices[1]["sid"]);

    let one = format!("/sessions/{}", reference(&alices[0]));
    let shown = other.ask_admin("GET", &one, Some(&token)).await;
    assert_eq!((shown.status, &shown.json()), (200, &alices[0]));
    let ended = rig.cloakroom.ask_admin("DELETE", &one, Some(&token)).await;
    assert_eq!((ended.status, ended.json()), (200, json!({ "ended": 1 })));
    is_refused_at(&first, &other).await;
    is_refused_at(&first, &rig.cloakroom).await;
    assert_eq!(second.at(other.port).fetch("GET", "/api/x").await.status, 200);
    for method in ["GET", "DELETE"] {
        is_problem(
            &other.ask_admin(method, &one, Some(&token)).await,
            404,
            "not_found",
        );
    }
    assert_eq!(list(&other, &token, "sub=alice").await, alices[1..]);

    let ended = other
        .ask_admin("DELETE", "/sessions?sub=alice", Some(&token))
        .await;
    assert_eq!((ended.status, ended.json()), (200, json!({ "ended": 1 })));
    is_refused_at(&second, &rig.cloakroom).await;
    let ended = other
        .ask_admin("DELETE", "/sessions?sub=alice", Some(&token))
        .await;
    assert_eq!((ended.status, ended.json()), (200, json!({ "ended": 0 })));
    assert_eq!(list(&rig.cloakroom, &token, "sub=alice").await, [] as [Value; 0]);
    assert_eq!(
        bob.at(rig.cloakroom.port).fetch("GET", "/api/x").await.status,
        200
    );
    for cloakroom in [&rig.cloakroom, &other] {
        let metrics = cloakroom.admin("/metrics").await.text();
        assert!(
            metrics.contains("cloakroom_logouts_total{kind=\"admin\"} 1\n"),
            "{metrics}"
        );
        assert!(!metrics.contains("alice"), "ob_04");
    }
}

#[tokio::test]
async fn se_09_sessions_want_the_token_and_clear_words() {
    let (rig, _other, token) = replicas(|config| config).await;
    let alice = signed_in_as(&rig, "alice").await;
    let cloakroom = &rig.cloakroom;
    let known = list(cloakroom, &token, "sub=alice").await;
    let one = format!("/sessions/{}", reference(&known[0]));
    let cookie = alice.session().unwrap();
    for (method, path) in [
        ("GET", "/sessions?sub=alice"),
        ("DELETE", "/sessions?sub=alice"),
        ("GET", &one),
        ("DELETE", &one),
        ("PATCH", "/sessions"),
        ("GET", "/sessions"),
    ] {
        for wrong in [
            None,
            Some(""),
            Some(&canary("other")),
            Some(&token[..token.len() - 1]),
        ] {
            let reply = cloakroom.ask_admin(method, path, wrong).await;
            is_problem(&reply, 403, "forbidden");
        }
    }
    for (method, path, status, code) in [
        ("POST", "/sessions?sub=alice", 405, "method_not_allowed"),
        ("PUT", &one, 405, "method_not_allowed"),
        ("GET", "/sessions", 400, "bad_request"),
        ("DELETE", "/sessions", 400, "bad_request"),
        ("DELETE", "/sessions?sub=", 400, "bad_request"),
        ("DELETE", "/sessions?sub=alice&sub=alice", 400, "bad_request"),
        ("DELETE", "/sessions?sub=alice&provder=main", 400, "bad_request"),
        ("DELETE", "/sessions?sub=alice&provider=other", 400, "bad_request"),
        ("DELETE", "/sessions?sub=%ff", 400, "bad_request"),
        ("DELETE", "/sessions/", 400, "bad_request"),
        ("DELETE", &one[..one.len() - 1], 400, "bad_request"),
        ("DELETE", &format!("{one}?sub=alice"), 400, "bad_request"),
        ("DELETE", &format!("/sessions/{cookie}"), 400, "bad_request"),
        ("GET", &format!("/sessions/{}", "7".repeat(64)), 404, "not_found"),
        (
            "DELETE",
            &format!("/sessions/{}", "7".repeat(64)),
            404,
            "not_found",
        ),
    ] {
        let reply = cloakroom.ask_admin(method, path, Some(&token)).await;
        is_problem(&reply, status, code);
        let allow = (status == 405).then_some("GET, HEAD, DELETE");
        assert_eq!(reply.header("allow"), allow, "{method} {path}");
        assert!(
            !reply.text().contains("provder"),
            "nothing that was sent is reflected"
        );
    }
    let admin = SocketAddr::from(([127, 0, 0, 1], cloakroom.admin));
    let ask = async |line: &str, host: &str| {
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n");
        raw(admin, head.as_bytes()).await.0.unwrap()
    };
    let line = "GET /sessions?sub=alice";
    assert_eq!(ask(line, "evil.example").await.status, 421, "rebinding");
    assert_eq!(ask(line, "localhost:9090").await.status, 200);
    assert_eq!(ask("HEAD /sessions?sub=alice", "127.0.0.1").await.status, 200);
    let outside = alice.clone().fetch("GET", "/sessions?sub=alice").await;
    assert_eq!(outside.status, 404, "never on the public listener");
    assert_eq!(list(cloakroom, &token, "sub=alice").await, known, "nothing ended");
}

#[tokio::test]
async fn lo_17_a_login_under_way_loses_where_all_sessions_of_its_user_end() {
    let (rig, other, token) = replicas(|config| config).await;
    for is_asked_before_the_provider in [true, false] {
        let mut browser = rig.browser();
        let url = browser.begin("?return_to=/").await;
        let end_all = async || {
            let ended = other
                .ask_admin("DELETE", "/sessions?sub=alice", Some(&token))
                .await;
            assert_eq!((ended.status, ended.json()), (200, json!({ "ended": 0 })));
        };
        let reply = if is_asked_before_the_provider {
            end_all().await;
            // The user has signed in there later than that, by any clock.
            let last = crate::support::now();
            until(5, "the next second", || crate::support::now() > last).await;
            browser.come_back(&rig.rogue.authorize_as(&url, "alice")).await
        } else {
            let callback = rig.rogue.authorize_as(&url, "alice");
            // The tokens are made, and their answer is held until the sessions have ended.
            let (issued, through) = (rig.rogue.issued(), Arc::new(Notify::new()));
            let held = Step::Held(through.clone());
            rig.rogue.script(|script| script.steps.push_back(held));
            let ends = async {
                until(10, "the tokens", || rig.rogue.issued() > issued).await;
                end_all().await;
                through.notify_one();
            };
            tokio::join!(browser.come_back(&callback), ends).0
        };
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.text().contains("You were signed out meanwhile."));
        assert!(browser.session().is_none());
        let records = rig.redis.as_ref().unwrap().dump();
        assert!(records.iter().all(|entry| !entry.key.ends_with(":session")));
    }
    assert!(rig.cloakroom.log().contains("\"reason\":\"logged_out\""));
    // Who begins afterwards is let in, and a login of somebody else was all along.
    let alice = signed_in_as(&rig, "alice").await;
    let mut bob = rig.browser();
    let url = bob.begin("?return_to=/").await;
    let ended = other
        .ask_admin("DELETE", "/sessions?sub=alice", Some(&token))
        .await;
    assert_eq!(ended.json(), json!({ "ended": 1 }));
    is_refused_at(&alice, &rig.cloakroom).await;
    bob.come_back(&rig.rogue.authorize_as(&url, "bob")).await;
    assert_eq!(bob.fetch("GET", "/api/x").await.status, 200);
}

#[tokio::test]
async fn ca_06_a_new_admin_token_counts_without_a_restart() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("token");
    let (old, new) = (canary("admin-token"), canary("admin-token"));
    std::fs::write(&file, format!("{old}\n")).unwrap();
    let rig =
        Rig::with(|config| config.set("server.admin_token", json!({ "file": file.to_str().unwrap() }))).await;
    assert_eq!(list(&rig.cloakroom, &old, "sub=alice").await, [] as [Value; 0]);
    std::fs::write(&file, format!("{new}\n")).unwrap();
    assert_eq!(list(&rig.cloakroom, &new, "sub=alice").await, [] as [Value; 0]);
    let reply = rig
        .cloakroom
        .ask_admin("GET", "/sessions?sub=alice", Some(&old))
        .await;
    is_problem(&reply, 403, "forbidden");
}

#[tokio::test]
async fn fa_01_an_end_while_the_store_is_away_is_said_and_done_later() {
    let (rig, other, token) = replicas(|config| config).await;
    let alice = signed_in_as(&rig, "alice").await;
    let bob = signed_in_as(&rig, "bob").await;
    let known = list(&rig.cloakroom, &token, "sub=alice").await;
    let one = format!("/sessions/{}", reference(&known[0]));
    rig.redis.as_ref().unwrap().pause();
    for (method, path, code) in [
        ("GET", "/sessions?sub=bob", "store_unavailable"),
        ("DELETE", "/sessions?sub=bob", "store_unavailable"),
        ("GET", &one, "store_unavailable"),
        ("DELETE", &one, "logout_incomplete"),
    ] {
        let start = Instant::now();
        let reply = rig.cloakroom.ask_admin(method, path, Some(&token)).await;
        assert!(
            start.elapsed() < Duration::from_millis(3_200),
            "4.6: {:?}",
            start.elapsed()
        );
        is_problem(&reply, 503, code);
        assert!(reply.header("retry-after").unwrap().parse::<u32>().is_ok());
    }
    let here = alice.clone().fetch("GET", "/api/x").await.status;
    assert!(
        matches!(here, 401 | 503),
        "this replica refuses it from now on: {here}"
    );
    rig.redis.as_ref().unwrap().resume();
    within(10, "the delete to be confirmed", async {
        while alice.at(other.port).fetch("GET", "/api/x").await.status != 401 {
            assert_ne!(alice.clone().fetch("GET", "/api/x").await.status, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let is_bob_there = bob.at(other.port).fetch("GET", "/api/x").await.status;
    assert_eq!(is_bob_there, 200, "nothing was known of his sessions");
    assert_eq!(list(&rig.cloakroom, &token, "sub=alice").await, [] as [Value; 0]);
}

#[tokio::test]
async fn se_09_the_oldest_session_ends_where_a_user_has_too_many() {
    let (rig, other, token) = replicas(|config| config.set("session.max_per_user", 2)).await;
    let bob = signed_in_as(&rig, "bob").await;
    let mut browsers = Vec::new();
    for port in [rig.cloakroom.port, other.port, rig.cloakroom.port] {
        let mut browser = rig.browser().at(port);
        browser.login(&rig.rogue, "/").await;
        assert_eq!(browser.fetch("GET", "/api/x").await.status, 200);
        browsers.push(browser);
    }
    for cloakroom in [&rig.cloakroom, &other] {
        is_refused_at(&browsers[0], cloakroom).await;
        for stays in [&browsers[1], &browsers[2], &bob] {
            assert_eq!(stays.at(cloakroom.port).fetch("GET", "/api/x").await.status, 200);
        }
    }
    assert_eq!(list(&other, &token, "sub=alice").await.len(), 2);
    let log = rig.cloakroom.log();
    assert_eq!(log.matches("\"reason\":\"max_per_user\"").count(), 1, "{log}");
}

/// Runs `cloakroom sessions`: the exit code, stdout and stderr.
fn sessions(folder: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let arguments = [&["sessions"], arguments].concat();
    let output = run(folder.path(), &arguments, environment);
    let code = output.status.code().unwrap_or(-1);
    (code, text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn the_command_lists_shows_and_revokes() {
    let (rig, other, token) = replicas(|config| config).await;
    let alice = [
        signed_in_as(&rig, "alice").await,
        signed_in_as(&rig, "alice").await,
    ];
    let odd = "auth0|b b&x=%2F +";
    let bob = signed_in_as(&rig, odd).await;
    let folder = TempDir::new().unwrap();
    // As the other commands find it.
    rig.config.write(folder.path());
    let known = list(&rig.cloakroom, &token, "sub=alice").await;

    let (code, said, wrong) = sessions(&folder, &["list", "--sub", "alice"], &[]);
    assert_eq!(code, 0, "{wrong}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].starts_with("REFERENCE") && lines[0].ends_with("ENDS WITHIN"),
        "{said}"
    );
    for (line, listed) in lines[1..].iter().zip(&known) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let its_sid = listed["sid"].as_str().unwrap();
        assert_eq!(cells[..4], [reference(listed), "main", "alice", its_sid]);
        assert!(
            cells[5].starts_with("11h59m") || cells[5].starts_with("12h00m"),
            "{line}"
        );
    }
    let (code, said, _) = sessions(
        &folder,
        &["list", "--sub", "alice", "--provider", "main", "--json"],
        &[],
    );
    assert_eq!(
        (code, serde_json::from_str::<Value>(&said).unwrap()),
        (0, json!(known))
    );
    let (code, said, _) = sessions(&folder, &["list", "--sub", "nobody"], &[]);
    assert_eq!((code, said.as_str()), (0, "There are no sessions.\n"));

    let one = reference(&known[0]);
    let (code, said, _) = sessions(&folder, &["show", one], &[]);
    assert_eq!((code, said.lines().count()), (0, 2), "{said}");
    assert!(said.contains(one) && said.contains("alice"));
    let (code, said, _) = sessions(&folder, &["revoke", one], &[]);
    assert_eq!((code, said.as_str()), (0, "1 session has ended.\n"));
    is_refused_at(&alice[0], &other).await;
    let (code, said, wrong) = sessions(&folder, &["revoke", one], &[]);
    assert_eq!((code, said.as_str()), (1, ""));
    assert!(wrong.contains("no session of this reference"), "{wrong}");

    // Said on the command line, without a config.
    let elsewhere = TempDir::new().unwrap();
    std::fs::write(elsewhere.path().join("token"), format!("{token}\n")).unwrap();
    let url = format!("http://127.0.0.1:{}", other.admin);
    let from_file = ["revoke", "--sub", "alice", "--url", &url, "--token-file", "token"];
    let (code, said, wrong) = sessions(&elsewhere, &from_file, &[]);
    assert_eq!((code, said.as_str()), (0, "1 session has ended.\n"), "{wrong}");
    is_refused_at(&alice[1], &rig.cloakroom).await;
    let from_variable = [
        "revoke",
        "--sub",
        odd,
        "--url",
        &url,
        "--token-env",
        "ADMIN",
        "--json",
    ];
    let (code, said, wrong) = sessions(&elsewhere, &from_variable, &[("ADMIN", &token)]);
    assert_eq!((code, said.as_str()), (0, "{\n  \"ended\": 1\n}\n"), "{wrong}");
    is_refused_at(&bob, &rig.cloakroom).await;
}

#[tokio::test]
async fn the_command_says_what_is_wrong_and_is_1() {
    let (rig, _other, token) = replicas(|config| config).await;
    let alice = signed_in_as(&rig, "alice").await;
    let folder = TempDir::new().unwrap();
    let write = |name: &str, config: &Config| {
        let written = config.write(folder.path());
        std::fs::rename(written, folder.path().join(name)).unwrap();
    };
    write("good.yaml", &rig.config);
    let mut without = rig.config.replica();
    without.value["server"]
        .as_object_mut()
        .unwrap()
        .remove("admin_token");
    write("without.yaml", &without);
    let silent = Cloakroom::start(&without).await;
    write(
        "wrong.yaml",
        &rig.config.clone().set("server.admin_token", canary("other")),
    );
    write("away.yaml", &rig.config.replica());
    let broken = rig.config.clone().set("session.idle_timeout", "soon");
    write("broken.yaml", &broken);
    std::fs::write(folder.path().join("token"), &token).unwrap();
    let no_sessions = format!("http://127.0.0.1:{}", silent.admin);
    let public = format!("http://127.0.0.1:{}", rig.cloakroom.port);
    let cookie = alice.session().unwrap();
    let list = ["list", "--sub", "alice"];
    let cases: [(&[&str], &[&str]); 13] = [
        (&["--config", "wrong.yaml"], &["refuses the token (403)"]),
        (
            &["--config", "away.yaml"],
            &["cannot be asked (Connection refused", "is it running"],
        ),
        (
            &["--config", "without.yaml"],
            &["no `server.admin_token` is set", "keys generate"],
        ),
        (
            &["--config", "broken.yaml"],
            &["session.idle_timeout", "1 mistake in the config"],
        ),
        (&["--config", "nothing.yaml"], &["nothing.yaml"]),
        (&[], &["no config"]),
        (
            &["--url", &no_sessions, "--token-file", "token"],
            &["no `server.admin_token` is set", "(404)"],
        ),
        (
            &["--url", &public, "--token-file", "token"],
            &["There is nothing at this address"],
        ),
        (
            &["--url", "ftp://127.0.0.1:1", "--token-file", "token"],
            &["wanted: something like http://"],
        ),
        (
            &["--url", "https://127.0.0.1:1", "--token-file", "token"],
            &["cannot be asked", "is this its server.admin address?"],
        ),
        (&["--url", &no_sessions, "--token-file", "nowhere"], &["nowhere"]),
        (
            &["--url", &no_sessions, "--token-env", "NOWHERE"],
            &["NOWHERE is not set"],
        ),
        (
            &["--config", "good.yaml", "--provider", "other"],
            &["`provider` is none", "(400)"],
        ),
    ];
    for (arguments, wanted) in cases {
        let (code, said, wrong) = sessions(&folder, &[&list, arguments].concat(), &[]);
        assert_eq!((code, said.as_str()), (1, ""), "{arguments:?}: {wrong}");
        for word in wanted {
            assert!(
                wrong.contains(word),
                "{arguments:?}: {word} is missing in: {wrong}"
            );
        }
    }
    // Whoever takes the cookie for the reference is not shown it, and nobody is asked.
    let hyphened = format!("-{}", &cookie[1..]);
    for (command, cookie) in [
        ("show", &cookie),
        ("revoke", &cookie),
        ("show", &hyphened),
        ("revoke", &hyphened),
    ] {
        let (code, _, wrong) = sessions(&folder, &[command, cookie, "--config", "good.yaml"], &[]);
        assert_eq!(code, 1, "{wrong}");
        assert!(
            wrong.contains("64 hexadecimal digits") && !wrong.contains(&cookie[1..]),
            "{wrong}"
        );
    }
    for usage in [
        &["list"][..],
        &["show"],
        &["revoke"],
        &["revoke", "--provider", "main"],
        &["revoke", "7", "--sub", "alice"],
        &["list", "--sub", "a", "--token-file", "x", "--token-env", "Y"],
    ] {
        assert_eq!(sessions(&folder, usage, &[]).0, 2, "{usage:?}");
    }
    rig.redis.as_ref().unwrap().pause();
    let (code, _, wrong) = sessions(
        &folder,
        &["revoke", "--sub", "alice", "--config", "good.yaml"],
        &[],
    );
    assert_eq!(code, 1);
    assert!(
        wrong.contains("nothing has ended") && wrong.contains("(503)"),
        "{wrong}"
    );
    rig.redis.as_ref().unwrap().resume();
    until(5, "the end of the outage", || {
        sessions(&folder, &["list", "--sub", "alice", "--config", "good.yaml"], &[]).0 == 0
    })
    .await;
}

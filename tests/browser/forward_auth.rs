//! The app behind a real nginx and a real Caddy that ask cloakroom (contract §6), with the very files of `deploy/`.

use crate::attack;
use crate::ingresses::Kind;
use crate::support::{DEADLINE, Elsewhere, Wish, World};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

async fn behind(kind: Kind) -> World {
    World::with(Wish {
        behind: Some(kind),
        ..Wish::default()
    })
    .await
}

#[tokio::test]
async fn signing_in_calling_the_api_and_signing_out_work_behind_an_ingress() {
    for kind in Kind::ALL {
        let world = behind(kind).await;
        world.chrome.goto(&world.url("/")).await;
        world.chrome.text("#state", "signed out").await;
        // A script is told where the login is, and nothing goes up.
        assert_eq!(world.chrome.promise("callApi('/api/early')").await, 401, "{kind}");
        let told = world.chrome.text("#result", "401").await;
        assert!(told.contains("\"login_url\":\"/bff/login\""), "{kind} {told}");
        assert!(world.upstream.seen("/api/early").is_empty(), "{kind}");

        world.sign_in().await;
        assert_eq!(
            world.chrome.promise("callApi('/api/whoami?q=%20a')").await,
            200,
            "{kind}"
        );
        world.chrome.text("#result", "\"authorized\":true").await;
        let seen = &world.upstream.seen("/api/whoami?q=%20a")[0];
        assert_eq!(seen.cookie, None, "{kind}: our cookie stays with the ingress");
        assert!(
            seen.user.as_deref().is_some_and(|user| !user.is_empty()),
            "{kind}"
        );
        let post = json!({ "method": "POST", "body": "order=1" });
        assert_eq!(
            world.chrome.fetch("/api/orders", &post).await["status"],
            200,
            "{kind}"
        );
        // A name that a script gives itself is not the one that goes up.
        let spoof = json!({ "headers": { "X-Auth-Request-User": "admin", "Authorization": "Bearer evil" } });
        assert_eq!(
            world.chrome.fetch("/api/spoof", &spoof).await["status"],
            200,
            "{kind}"
        );
        let spoofed = &world.upstream.seen("/api/spoof")[0];
        assert_eq!(
            (&spoofed.user, &spoofed.authorization),
            (&seen.user, &seen.authorization),
            "{kind}"
        );
        world.chrome.screenshot(&format!("behind-{kind}-signed-in")).await;

        // No token is readable, whatever the ingress passes on.
        let readable = "(async () => {
            const answers = [];
            for (const path of ['/', '/bff/user', '/api/whoami', '/_cloakroom', '/docs/page']) {
                const answer = await fetch(path);
                answers.push([path, answer.status, [...answer.headers], await answer.text()]);
            }
            return JSON.stringify([answers, document.cookie, document.documentElement.outerHTML]);
        })()";
        let readable = world.chrome.promise(readable).await.to_string();
        assert!(readable.contains("Alice"), "the search looked at something");
        for token in world.upstream.tokens() {
            assert!(!readable.contains(&token), "{kind}: a token is readable");
            assert!(!world.app.log().contains(&token), "{kind}: a token is in the log");
        }

        world.chrome.goto(&world.url("/")).await;
        world.chrome.click("#logout-post").await;
        world.chrome.text("#state", "signed out").await;
        assert_eq!(
            world.chrome.fetch("/api/late", &json!({})).await["status"],
            401,
            "{kind}"
        );
        assert_eq!(world.provider.count("end_session").await, 1, "{kind}");
        assert!(world.upstream.seen("/api/late").is_empty(), "{kind}");
    }
}

#[tokio::test]
async fn a_deep_link_goes_through_the_login_and_arrives() {
    for kind in Kind::ALL {
        let world = behind(kind).await;
        world.chrome.goto(&world.url("/docs/report?chapter=1")).await;
        world.chrome.fill("#username", "alice").await;
        world.chrome.click("#sign-in").await;
        world
            .chrome
            .arrives_at(&world.url("/docs/report?chapter=1"))
            .await;
        world.chrome.text("#authorized", "true").await;
        assert_eq!(
            world.upstream.seen("/docs").len(),
            1,
            "{kind}: nothing went up before the login"
        );
        assert_eq!(world.provider.count("authorization").await, 1, "{kind}");
        // Once there, reloading and the back button keep it.
        world.chrome.client.refresh().await.expect("a reload");
        world.chrome.text("#authorized", "true").await;
        world.chrome.screenshot(&format!("behind-{kind}-deep-link")).await;
    }
}

#[tokio::test]
async fn a_link_from_another_site_ends_signed_in_and_not_at_the_login() {
    for kind in Kind::ALL {
        let (world, elsewhere) = (behind(kind).await, Elsewhere::start().await);
        let link = |path: &str| elsewhere.url("evil.localhost", &format!("/link?to={}", world.url(path)));
        // Without a session: to the login, and then there.
        world.chrome.goto(&link("/docs/report")).await;
        world.chrome.click("#go").await;
        world.chrome.fill("#username", "alice").await;
        world.chrome.click("#sign-in").await;
        world.chrome.arrives_at(&world.url("/docs/report")).await;
        world.chrome.text("#authorized", "true").await;
        assert_eq!(world.provider.count("authorization").await, 1, "{kind}");
        // With one, whose Strict cookie the browser keeps back at first.
        let session = world.session_cookie().await.expect("a session cookie").value;
        world.chrome.goto(&link("/docs/other?a=1")).await;
        world.chrome.click("#go").await;
        world.chrome.arrives_at(&world.url("/docs/other?a=1")).await;
        world.chrome.text("#document", "/docs/other").await;
        assert_eq!(
            world.provider.count("authorization").await,
            1,
            "{kind}: nobody had to sign in again"
        );
        assert_eq!(
            world.session_cookie().await.expect("the same").value,
            session,
            "{kind}"
        );
        assert_eq!(world.upstream.seen("/docs/other").len(), 1, "{kind}");
        // One step back is the other site's page: the way through our own origin left no entry.
        world.chrome.client.back().await.expect("a step back");
        world
            .chrome
            .wait("", "return location.hostname", |host| host == "evil.localhost")
            .await;
    }
}

#[tokio::test]
async fn a_browser_that_keeps_no_cookies_ends_on_a_page_that_says_so() {
    for kind in Kind::ALL {
        let world = World::with(Wish {
            behind: Some(kind),
            login: "auto",
            ..Wish::default()
        })
        .await;
        world.chrome.goto(&world.url("/docs/first")).await;
        world.chrome.arrives_at(&world.url("/docs/first")).await;
        // The session cookie alone is lost, as a setting or an extension would do it.
        let name = "__Host-Http-cloakroom";
        let cookie = json!({ "name": name, "url": world.url("/") });
        world.chrome.devtools("Network.deleteCookies", cookie).await;
        assert!(world.session_cookie().await.is_none());
        world.chrome.goto(&world.url("/docs/second")).await;
        world.chrome.text("h1", "did not keep the cookie").await;
        world.chrome.screenshot(&format!("behind-{kind}-stuck")).await;
        assert_eq!(world.provider.count("authorization").await, 1, "{kind}: no loop");
        assert!(world.upstream.seen("/docs/second").is_empty());
    }
}

#[tokio::test]
async fn tokens_are_renewed_under_load_and_no_call_fails() {
    for kind in Kind::ALL {
        let world = World::with(Wish {
            behind: Some(kind),
            token_ttl: 3,
            ..Wish::default()
        })
        .await;
        world.sign_in().await;
        // Six calls at a time, as many as a browser has connections to one origin.
        let calling = "window.statuses = {}; window.go = true;
            for (let i = 0; i < 6; i += 1) (async () => {
                while (window.go) {
                    const { status } = await fetch('/api/load');
                    window.statuses[status] = (window.statuses[status] ?? 0) + 1;
                }
            })();";
        world.chrome.run(calling).await;
        let began = Instant::now();
        while world.upstream.tokens().len() < 4 {
            assert!(
                began.elapsed() < DEADLINE,
                "saw {} tokens",
                world.upstream.tokens().len()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let statuses = world
            .chrome
            .run("window.go = false; return window.statuses")
            .await;
        let statuses = statuses.as_object().expect("statuses by number");
        assert_eq!(
            statuses.keys().collect::<Vec<_>>(),
            ["200"],
            "{kind} {statuses:?}"
        );
        // Each brought a token that was used, but for one that may be on its way.
        let refreshes = world.provider.count("token.refresh_token").await;
        let tokens = world.upstream.tokens().len() as u64;
        assert!(
            refreshes >= 3 && refreshes <= tokens,
            "{kind} {refreshes} refreshes, {tokens} tokens"
        );
        assert_eq!(world.provider.count("authorization").await, 1, "{kind}");
    }
}

#[tokio::test]
async fn a_websocket_goes_through_with_the_sessions_token() {
    for kind in Kind::ALL {
        let world = behind(kind).await;
        world.sign_in().await;
        let echo = "new Promise((settle, fail) => {
            const socket = new WebSocket(location.origin.replace('http', 'ws') + '/api/ws');
            socket.onopen = () => socket.send('a word');
            socket.onmessage = (event) => settle(event.data);
            socket.onclose = (event) => fail('closed with ' + event.code);
        })";
        assert_eq!(world.chrome.promise(echo).await, "a word", "{kind}");
        let upgrade = &world.upstream.seen("/api/ws")[0];
        let bearer = upgrade.authorization.as_deref().unwrap_or_default();
        assert!(
            bearer.starts_with("Bearer ") && upgrade.cookie.is_none(),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn another_site_gets_nothing_behind_an_ingress() {
    for kind in Kind::ALL {
        let wish = Wish {
            behind: Some(kind),
            ..Wish::default()
        };
        attack::nothing_gets_through(wish, "evil.localhost").await;
    }
}

#[tokio::test]
async fn a_sibling_on_the_same_site_gets_nothing_behind_an_ingress() {
    for kind in Kind::ALL {
        let wish = Wish {
            behind: Some(kind),
            same_site: "none",
            ..Wish::default()
        };
        attack::nothing_gets_through(wish, "sibling.app.localhost").await;
    }
}

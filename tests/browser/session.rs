//! Being signed in: what the page may do, what it never sees, and how a session goes on and ends.

use crate::support::{Wish, World};
use serde_json::json;

/// Everything that a script of the page could read, in one string.
const ALL_THAT_A_PAGE_CAN_READ: &str = "(async () => {
    const databases = indexedDB.databases ? await indexedDB.databases() : [];
    const cached = 'caches' in window ? await caches.keys() : [];
    const answers = [];
    for (const path of ['/', '/bff/user', '/api/whoami', '/api/missing', '/bff/nothing', '/docs/page']) {
        const answer = await fetch(path);
        answers.push([path, answer.status, [...answer.headers], await answer.text()]);
    }
    return JSON.stringify({
        html: document.documentElement.outerHTML, cookie: document.cookie, local: { ...localStorage }, session: { ...sessionStorage },
        databases, cached, answers, history: history.state, name: window.name, referrer: document.referrer,
        resources: performance.getEntries().map((entry) => entry.name),
    });
})()";

#[tokio::test]
async fn an_api_call_carries_the_token_and_the_page_never_sees_one() {
    let world = World::new().await;
    world.sign_in().await;
    assert_eq!(world.chrome.promise("callApi('/api/whoami?q=%20a')").await, 200);
    world.chrome.text("#result", "\"authorized\":true").await;
    let seen = world.upstream.seen("/api/whoami?q=%20a");
    assert_eq!(seen.len(), 1);
    assert!(
        !seen[0]
            .cookie
            .as_deref()
            .unwrap_or_default()
            .contains("cloakroom"),
        "our cookie stays with us"
    );

    let readable = world.chrome.promise(ALL_THAT_A_PAGE_CAN_READ).await;
    let readable = readable.as_str().expect("all that a page can read");
    let session = world.session_cookie().await.expect("a session cookie");
    assert!(readable.contains("Alice"), "the search looked at something");
    assert!(
        !readable.contains(&session.value),
        "the session cookie is readable"
    );
    let tokens = world.upstream.tokens();
    assert!(!tokens.is_empty());
    let cookies = world.chrome.cookies().await;
    for token in &tokens {
        assert!(!readable.contains(token.as_str()), "a token is readable");
        assert!(
            !cookies.iter().any(|cookie| cookie.value.contains(token.as_str())),
            "a token is in a cookie"
        );
        assert!(!world.app.log().contains(token.as_str()), "a token is in the log");
    }
    assert!(
        !world.app.log().contains(&session.value),
        "the session cookie is in the log"
    );
    assert!(
        world
            .own_cookies()
            .await
            .iter()
            .all(|cookie| cookie.http_only && cookie.secure)
    );
}

#[tokio::test]
async fn tokens_are_renewed_behind_a_page_that_keeps_working() {
    let world = World::with(Wish {
        token_ttl: 3,
        ..Wish::default()
    })
    .await;
    world.sign_in().await;
    world.chrome.run("window.calling = keepCalling(200)").await;
    let began = tokio::time::Instant::now();
    while world.upstream.tokens().len() < 4 {
        assert!(
            began.elapsed() < crate::support::DEADLINE,
            "saw {} tokens",
            world.upstream.tokens().len()
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let statuses = world
        .chrome
        .run("clearInterval(window.calling); return window.statuses")
        .await;
    let statuses = statuses.as_object().expect("statuses by number");
    assert_eq!(statuses.keys().collect::<Vec<_>>(), ["200"], "{statuses:?}");
    assert!(world.provider.count("token.refresh_token").await >= 3);
    let log = world.app.log();
    assert!(
        world
            .upstream
            .tokens()
            .iter()
            .all(|token| !log.contains(token.as_str())),
        "a token is in the log"
    );
    assert_eq!(
        world.provider.count("authorization").await,
        1,
        "nobody had to sign in again"
    );
}

#[tokio::test]
async fn an_expired_session_is_a_401_and_the_page_offers_to_sign_in() {
    let session = "  idle_timeout: 4s\n  absolute_timeout: 4s";
    let world = World::with(Wish {
        session,
        ..Wish::default()
    })
    .await;
    world.sign_in().await;
    world.chrome.run("keepCalling(200)").await;
    world.chrome.text("#state", "the session has ended").await;
    let result = world.chrome.text("#result", "401").await;
    assert!(
        result.contains("\"code\":\"unauthenticated\"") && result.contains("login_url"),
        "{result}"
    );
    assert_eq!(
        world
            .chrome
            .run("return document.getElementById('sign-in').hidden")
            .await,
        false
    );
    assert_eq!(
        world.provider.count("authorization").await,
        1,
        "a 401 starts no login"
    );
    // Still signed in at the provider: one click, no form.
    world.chrome.click("#sign-in").await;
    world.chrome.text("#state", "signed in as Alice").await;
}

#[tokio::test]
async fn a_script_can_neither_read_nor_set_nor_clear_the_session_cookie() {
    let world = World::new().await;
    world.chrome.goto(&world.url("/")).await;
    let set =
        "for (const attributes of ['', '; path=/', '; Secure; path=/', '; Secure; path=/; Max-Age=0']) {
        document.cookie = `__Host-Http-cloakroom=${'A'.repeat(43)}${attributes}`;
    }
    return document.cookie";
    assert_eq!(world.chrome.run(set).await, "");
    assert!(
        world.session_cookie().await.is_none(),
        "a script planted a session cookie"
    );
    world.sign_in().await;
    let before = world.session_cookie().await.expect("a session cookie").value;
    assert_eq!(world.chrome.run(set).await, "");
    assert_eq!(world.session_cookie().await.expect("still there").value, before);
    assert_eq!(world.chrome.fetch("/api/whoami", &json!({})).await["status"], 200);
}

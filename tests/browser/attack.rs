//! Somebody else's page tries what a page can try. The upstream hears none of it and the user stays signed in.

use crate::support::{Elsewhere, Wish, World};
use serde_json::Value;

const VECTORS: [&str; 10] = [
    "form",
    "image",
    "script",
    "style",
    "fetch_no_cors",
    "fetch_cors",
    "iframe",
    "beacon",
    "websocket",
    "eventsource",
];

/// Which vectors reached the upstream.
fn reached(world: &World) -> Vec<String> {
    let vector = |target: String| target.split_once("vector=").map(|(_, name)| name.to_owned());
    world
        .upstream
        .seen("/api/attack")
        .into_iter()
        .filter_map(|seen| vector(seen.target))
        .collect()
}

/// Every vector against `target`, from a page of `host`; what the page saw of it.
async fn attack(world: &World, elsewhere: &Elsewhere, host: &str, target: &str) -> Value {
    world
        .chrome
        .goto(&elsewhere.url(host, &format!("/attack?target={target}")))
        .await;
    let outcomes = world.chrome.promise("attack()").await;
    let own = world.chrome.client.window().await.expect("this window");
    let before = world.chrome.client.windows().await.expect("windows").len();
    world.chrome.click("#popup").await;
    let after = world.chrome.client.windows().await.expect("windows");
    assert_eq!(after.len(), before + 1, "no popup came");
    for window in after.into_iter().filter(|window| *window != own) {
        world
            .chrome
            .client
            .switch_to_window(window)
            .await
            .expect("the popup");
        world
            .chrome
            .wait("", "return document.readyState", |state| state == "complete")
            .await;
        world
            .chrome
            .client
            .close_window()
            .await
            .expect("closing the popup");
    }
    world
        .chrome
        .client
        .switch_to_window(own)
        .await
        .expect("this window");
    outcomes
}

/// All of the attack, and logout by link and by form, as the browser carries it out from a page of `host`.
pub async fn nothing_gets_through(wish: Wish, host: &str) {
    let (world, elsewhere) = (World::with(wish).await, Elsewhere::start().await);
    world.sign_in().await;
    let session = world.session_cookie().await.expect("a session cookie").value;

    // That the attacks are real: a server that does not defend itself gets every one of them.
    let open = format!("http://open.localhost:{}", world.upstream.port());
    attack(&world, &elsewhere, host, &open).await;
    let through = reached(&world);
    for vector in VECTORS.iter().chain(&["popup"]) {
        assert!(
            through.iter().any(|name| name == vector),
            "{vector} never left the browser: {through:?}"
        );
    }

    let outcomes = attack(&world, &elsewhere, host, &world.app.origin).await;
    assert_eq!(
        reached(&world).len(),
        through.len(),
        "something got through: {outcomes}"
    );
    let text = outcomes.to_string();
    assert!(!text.contains("READ") && !text.contains("OPEN"), "{text}");

    for button in ["#go", "#post"] {
        world
            .chrome
            .goto(&elsewhere.url(host, &format!("/page?to={}", world.url("/bff/logout"))))
            .await;
        world.chrome.click(button).await;
        world.chrome.arrives_at(&world.url("/bff/logout")).await;
    }
    assert_eq!(world.provider.count("end_session").await, 0);
    assert_eq!(world.session_cookie().await.expect("still there").value, session);
    world.chrome.goto(&world.url("/")).await;
    world.chrome.text("#state", "signed in as Alice").await;
    assert_eq!(reached(&world).len(), through.len(), "something got through late");
}

#[tokio::test]
async fn another_site_gets_nothing() {
    nothing_gets_through(Wish::default(), "evil.localhost").await;
}

#[tokio::test]
async fn a_sibling_on_the_same_site_gets_nothing_though_strict_cookies_come_along() {
    nothing_gets_through(Wish::default(), "sibling.app.localhost").await;
}

#[tokio::test]
async fn another_site_gets_nothing_though_the_cookie_is_sent_everywhere() {
    nothing_gets_through(
        Wish {
            same_site: "none",
            ..Wish::default()
        },
        "evil.localhost",
    )
    .await;
}

//! Signing out: by the form, by a script, by the link, here and at the provider.

use crate::support::World;
use serde_json::json;

/// Nothing of a session is left: not in the jar, not at the BFF, not at the provider.
async fn assert_signed_out(world: &World) {
    world.chrome.arrives_at(&world.url("/")).await;
    world.chrome.text("#state", "signed out").await;
    // What remains of a login is a mark that knows where the tab wanted to go, and nothing else.
    let left: Vec<_> = world
        .own_cookies()
        .await
        .into_iter()
        .map(|cookie| cookie.name)
        .collect();
    assert!(
        left.iter()
            .all(|name| name.starts_with("__Host-Http-cloakroom-login-")),
        "{left:?}"
    );
    assert_eq!(world.chrome.fetch("/api/whoami", &json!({})).await["status"], 401);
    assert_eq!(world.provider.count("end_session").await, 1);
    world.chrome.click("#sign-in").await;
    world.chrome.text("h1", "Test provider: sign in").await;
}

#[tokio::test]
async fn the_form_signs_out_here_and_at_the_provider() {
    let world = World::new().await;
    world.sign_in().await;
    world.chrome.click("#logout-post").await;
    assert_signed_out(&world).await;
}

#[tokio::test]
async fn the_logout_url_signs_out_here_and_at_the_provider() {
    let world = World::new().await;
    world.sign_in().await;
    world.chrome.click("#logout-link").await;
    assert_signed_out(&world).await;
}

#[tokio::test]
async fn a_script_signs_out_and_is_told_where_to_go_without_a_token() {
    let world = World::new().await;
    world.sign_in().await;
    let options = json!({ "method": "POST", "headers": { "accept": "application/json" } });
    let answer = world.chrome.fetch("/bff/logout", &options).await;
    assert_eq!(answer["status"], 200, "{answer}");
    let text = answer["text"].as_str().expect("a body");
    let onward: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let path = onward["redirect_to"].as_str().expect("a path").to_owned();
    assert!(path.starts_with("/bff/logout/continue?"), "{path}");
    assert!(!text.contains("eyJ"), "no JWT in the answer");
    world.chrome.goto(&world.url(&path)).await;
    assert_signed_out(&world).await;
    world.chrome.goto(&world.url(&path)).await;
    assert_eq!(
        world.provider.count("end_session").await,
        1,
        "the way is gone once"
    );
}

#[tokio::test]
async fn a_bare_link_to_logout_signs_nobody_out() {
    let world = World::new().await;
    world.sign_in().await;
    let before = world.session_cookie().await.expect("a session cookie").value;
    world.chrome.goto(&world.url("/bff/logout")).await;
    world.chrome.screenshot("bare-logout-page").await;
    world.chrome.goto(&world.url("/")).await;
    world.chrome.text("#state", "signed in as Alice").await;
    assert_eq!(world.session_cookie().await.expect("still there").value, before);
}

//! Signing in: the way out to the provider and back, in one tab and in many.

use crate::support::{Elsewhere, Wish, World};
use fantoccini::Locator;
use serde_json::json;

const DOCUMENT: &str = "/docs/welcome?chapter=1";

#[tokio::test]
async fn a_click_on_sign_in_lands_on_return_to_with_the_session_there_at_once() {
    let world = World::new().await;
    world.chrome.goto(&world.url("/")).await;
    world.chrome.text("#state", "signed out").await;
    let link = format!(
        "document.getElementById('sign-in').href = '/bff/login?return_to={}'",
        "/docs/welcome%3Fchapter=1"
    );
    world.chrome.run(&link).await;
    world.chrome.click("#sign-in").await;
    world.chrome.fill("#username", "alice").await;
    world.chrome.click("#sign-in").await;
    world.chrome.arrives_at(&world.url(DOCUMENT)).await;
    world.chrome.text("#authorized", "true").await;
    // One way out and one document: nothing went round twice for want of a cookie.
    assert_eq!(world.provider.count("authorization").await, 1);
    let seen = world.upstream.seen("/docs");
    assert_eq!(
        seen.len(),
        1,
        "{:?}",
        seen.iter().map(|one| &one.target).collect::<Vec<_>>()
    );
    assert_eq!(seen[0].target, DOCUMENT);

    let cookie = world.session_cookie().await.expect("a session cookie");
    assert_eq!(cookie.value.len(), 43);
    assert!(cookie.http_only && cookie.secure && cookie.session);
    assert_eq!(
        (cookie.path.as_str(), cookie.same_site.as_deref()),
        ("/", Some("Strict"))
    );

    world.chrome.goto(&world.url("/")).await;
    world.chrome.text("#state", "signed in as Alice").await;
    world.chrome.screenshot("app-signed-in").await;
}

#[tokio::test]
async fn five_tabs_sign_in_at_once_and_all_succeed_though_finished_in_reverse_order() {
    let world = World::new().await;
    let mut tabs = Vec::new();
    for number in 1..=5 {
        let tab = world.chrome.client.new_window(true).await.expect("a tab").handle;
        world
            .chrome
            .client
            .switch_to_window(tab.clone())
            .await
            .expect("the tab");
        world
            .chrome
            .goto(&world.url(&format!("/bff/login?return_to=/%3Ftab={number}")))
            .await;
        world.chrome.text("h1", "Test provider: sign in").await;
        tabs.push((number, tab));
    }
    for (number, tab) in tabs.into_iter().rev() {
        world.chrome.client.switch_to_window(tab).await.expect("the tab");
        world.chrome.fill("#username", "alice").await;
        world.chrome.click("#sign-in").await;
        world
            .chrome
            .arrives_at(&world.url(&format!("/?tab={number}")))
            .await;
        world.chrome.text("#state", "signed in as Alice").await;
    }
    assert_eq!(world.provider.count("token.authorization_code").await, 5);
}

#[tokio::test]
async fn a_callback_loaded_again_leads_on_and_spends_no_second_code() {
    let world = World::new().await;
    world.sign_in().await;
    let (callback, before) = (world.provider.last_callback().await, world.session_cookie().await);
    world.chrome.goto(&callback).await;
    world.chrome.arrives_at(&world.url("/")).await;
    world.chrome.text("#state", "signed in as Alice").await;
    let tab = world.chrome.client.new_window(true).await.expect("a tab").handle;
    world.chrome.client.switch_to_window(tab).await.expect("the tab");
    world.chrome.goto(&callback).await;
    world.chrome.text("#state", "signed in as Alice").await;
    assert_eq!(world.provider.count("token.authorization_code").await, 1);
    let value = |cookie: Option<crate::support::Cookie>| cookie.map(|cookie| cookie.value);
    assert_eq!(value(world.session_cookie().await), value(before));
}

#[tokio::test]
async fn the_back_button_after_a_login_leads_to_the_app_and_not_to_an_error() {
    let world = World::with(Wish {
        login: "auto",
        ..Wish::default()
    })
    .await;
    world.chrome.goto(&world.url("/?first")).await;
    world.chrome.text("#state", "signed out").await;
    world.chrome.click("#sign-in").await;
    world.chrome.text("#state", "signed in as Alice").await;
    world.chrome.client.back().await.expect("a step back");
    world.chrome.text("#state", "signed in as Alice").await;
    assert!(
        world.chrome.url().await.starts_with(&world.url("/?first")),
        "at {}",
        world.chrome.url().await
    );
    assert_eq!(world.provider.count("token.authorization_code").await, 1);
}

#[tokio::test]
async fn a_deep_link_without_a_session_goes_through_the_login_and_arrives() {
    let world = World::with(Wish {
        login: "auto",
        ..Wish::default()
    })
    .await;
    world.chrome.goto(&world.url("/docs/report")).await;
    world.chrome.arrives_at(&world.url("/docs/report")).await;
    world.chrome.text("#authorized", "true").await;
    assert_eq!(
        world.upstream.seen("/docs").len(),
        1,
        "nothing went up before the login"
    );
}

#[tokio::test]
async fn a_link_from_another_site_to_a_document_ends_signed_in_and_not_at_the_login() {
    let (world, elsewhere) = (World::new().await, Elsewhere::start().await);
    world.sign_in().await;
    let begun = world.provider.count("authorization").await;
    let link = elsewhere.url(
        "evil.localhost",
        &format!("/link?to={}", world.url("/docs/report")),
    );
    world.chrome.goto(&link).await;
    world.chrome.click("#go").await;
    world.chrome.arrives_at(&world.url("/docs/report")).await;
    world.chrome.text("#document", "/docs/report").await;
    assert_eq!(world.provider.count("authorization").await, begun);
}

#[tokio::test]
async fn a_link_from_another_site_to_a_document_without_a_session_ends_at_the_login() {
    let (world, elsewhere) = (World::new().await, Elsewhere::start().await);
    world
        .chrome
        .goto(&elsewhere.url(
            "evil.localhost",
            &format!("/link?to={}", world.url("/docs/report")),
        ))
        .await;
    world.chrome.click("#go").await;
    world.chrome.fill("#username", "alice").await;
    world.chrome.click("#sign-in").await;
    world.chrome.arrives_at(&world.url("/docs/report")).await;
    world.chrome.text("#authorized", "true").await;
}

#[tokio::test]
async fn a_prefetched_or_fetched_login_link_changes_nothing() {
    let world = World::new().await;
    world.chrome.goto(&world.url("/")).await;
    let prefetch = "new Promise((settle) => {
        const link = Object.assign(document.createElement('link'), { rel: 'prefetch', href: '/bff/login?return_to=/' });
        link.onload = () => settle('loaded');
        link.onerror = () => settle('refused');
        document.head.append(link);
    })";
    let outcome = world.chrome.promise(prefetch).await;
    assert!(outcome.is_string(), "the browser did not prefetch: {outcome}");
    assert_eq!(
        world
            .chrome
            .fetch("/bff/login?return_to=/", &json!({ "redirect": "manual" }))
            .await["status"],
        403
    );
    assert!(world.own_cookies().await.is_empty());
    assert_eq!(world.provider.count("authorization").await, 0);
}

#[tokio::test]
async fn a_refused_login_ends_on_a_page_that_says_so_and_offers_the_way_back() {
    let world = World::new().await;
    world.chrome.goto(&world.url("/bff/login?return_to=/")).await;
    world.chrome.click("#cancel").await;
    world
        .chrome
        .wait("", "return location.pathname", |path| path == "/bff/callback")
        .await;
    let page = world.chrome.text("body", "").await;
    assert!(page.len() > 20, "{page}");
    world.chrome.screenshot("error-page").await;
    let source = world.chrome.client.source().await.expect("the page");
    assert!(
        !source.contains("the user said no"),
        "what the provider sent is not reflected"
    );
    let links = world
        .chrome
        .client
        .find_all(Locator::Css("a[href^='/']"))
        .await
        .expect("links");
    assert!(!links.is_empty(), "no way back: {source}");
    links[0].clone().click().await.expect("a click");
    world
        .chrome
        .wait("", "return location.pathname", |path| path != "/bff/callback")
        .await;
}

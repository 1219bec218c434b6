//! `cloakroom demo`, as somebody meets it who tries the product for the first time.

use crate::support::{Chrome, Cloakroom, folder, free_port};
use fantoccini::Locator;
use serde_json::json;
use std::time::Duration;

const COUNT: &str = "return document.querySelectorAll(arguments[0]).length";

/// The demo, with Alex signed in.
async fn signed_in(chrome: &Chrome, app: &Cloakroom) {
    chrome.goto(&app.origin).await;
    chrome
        .wait("out", "return document.documentElement.dataset.state", |state| {
            state == "out"
        })
        .await;
    chrome.click("#sign-in").await;
    chrome.click("button[name=person][value=alex]").await;
    chrome.text("#bar-name", "Alex").await;
}

#[tokio::test]
async fn the_demo_signs_in_calls_refreshes_streams_resists_and_signs_out() {
    let folder = folder();
    let app = Cloakroom::demo(folder.path(), free_port()).await;
    let mut chrome = Chrome::start(json!({})).await;
    // Its tokens live thirty seconds, and are renewed in the last ten.
    chrome.patience = Duration::from_secs(45);
    signed_in(&chrome, &app).await;
    chrome.click("#watch").await;

    chrome.click("#call-form button").await;
    chrome.text("#received", "authorization").await;
    chrome.text("#answer-status", "200").await;

    chrome.click("#events-toggle").await;
    chrome.text("#events-state", "open").await;
    chrome
        .wait("#events-strip li", COUNT, |count| count.as_u64() >= Some(2))
        .await;

    chrome.click("#socket-toggle").await;
    chrome.text("#socket-state", "open").await;
    chrome.click("#socket-form button:enabled").await;
    chrome
        .text("#socket-log .theirs:last-child", "Is my coat still there?")
        .await;

    chrome.click("#attack").await;
    chrome
        .wait("#attacker-frame iframe", COUNT, |count| count == 1)
        .await;
    chrome.client.enter_frame(0).await.expect("the attacker's frame");
    chrome
        .wait("#attempts li", COUNT, |count| count.as_u64() >= Some(6))
        .await;
    chrome
        .text("#attempts li:last-child", "refused at the door")
        .await;
    chrome
        .client
        .enter_parent_frame()
        .await
        .expect("the page around it");
    chrome.click("#hand-over").await;
    chrome.text("#handed-over", "1").await;
    chrome.text("#forged", "0").await;
    chrome.text("#still-here", "still there").await;

    // The first token's fingerprint is on the rack already; a second one means that it was refreshed.
    chrome
        .wait("#rack li", COUNT, |count| count.as_u64() >= Some(2))
        .await;
    let cookies = chrome.cookies().await;
    let ticket = cookies
        .iter()
        .find(|cookie| cookie.name == "__Host-Http-cloakroom")
        .expect("a ticket")
        .clone();
    assert!(ticket.http_only && ticket.secure);
    chrome.portrait("demo-signed-in-light", 1280, "light").await;
    chrome.portrait("demo-signed-in-dark", 1200, "dark").await;
    chrome.portrait("demo-signed-in-narrow", 360, "light").await;

    chrome.click("#leave [data-action=log-out]").await;
    chrome
        .wait("out", "return document.documentElement.dataset.state", |state| {
            state == "out"
        })
        .await;
    let cookies = chrome.cookies().await;
    assert!(
        !cookies.iter().any(|cookie| cookie.name == ticket.name),
        "the ticket is still there"
    );
    assert!(!app.log().contains(&ticket.value), "the ticket is in the log");
}

#[tokio::test]
async fn the_demos_pages_look_as_they_should_before_anybody_signs_in() {
    let folder = folder();
    let app = Cloakroom::demo(folder.path(), free_port()).await;
    let chrome = Chrome::start(json!({})).await;
    chrome.goto(&app.origin).await;
    chrome
        .wait("out", "return document.documentElement.dataset.state", |state| {
            state == "out"
        })
        .await;
    chrome.portrait("demo-signed-out-light", 1200, "light").await;
    chrome.portrait("demo-signed-out-dark", 1200, "dark").await;
    chrome.portrait("demo-signed-out-narrow", 360, "dark").await;
    chrome.click("#sign-in").await;
    chrome
        .wait("button[name=person]", COUNT, |count| count.as_u64() >= Some(1))
        .await;
    chrome.portrait("demo-sign-in-light", 1200, "light").await;
    chrome.portrait("demo-sign-in-dark", 1200, "dark").await;
    chrome.portrait("demo-sign-in-narrow", 360, "light").await;
    // Saying no is an answer as well.
    chrome.click("button[name=cancel]").await;
    chrome
        .wait(
            "/bff/callback",
            "return location.pathname === arguments[0]",
            |there| there == true,
        )
        .await;
    chrome.portrait("demo-cancelled", 1200, "light").await;
    let back = chrome
        .client
        .find(Locator::Css("a[href^='/']"))
        .await
        .expect("a way back");
    back.click().await.expect("a click");
}

//! The app over TLS, as it is in production: HTTP/2 between browser and cloakroom, and a certificate that changes.

use crate::support::{Wish, World, certificate};
use serde_json::json;

#[tokio::test]
async fn a_browser_signs_in_calls_and_signs_out_over_http2() {
    let world = World::with(Wish {
        tls: true,
        ..Wish::default()
    })
    .await;
    // Who types the address without its s, in a browser that has not heard of us yet, is led to it.
    let typed = format!("http://app.localhost:{}/?typed=%2F", world.redirect);
    world.chrome.goto(&typed).await;
    world.chrome.arrives_at(&world.url("/?typed=%2F")).await;
    world.sign_in().await;
    // Several cookies: Chromium sends each as a crumb of its own over HTTP/2, and upstream they are one line without ours.
    world
        .chrome
        .run("document.cookie = 'theme=dark; path=/; secure'")
        .await;
    world
        .chrome
        .run("document.cookie = 'lang=en; path=/; secure'")
        .await;
    assert_eq!(world.chrome.promise("callApi('/api/whoami?h2')").await, 200);
    let seen = world.upstream.seen("/api/whoami?h2");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].cookie.as_deref(), Some("theme=dark; lang=en"));
    let protocols = world
        .chrome
        .run("return performance.getEntries().filter((entry) => entry.nextHopProtocol).map((entry) => entry.nextHopProtocol)")
        .await;
    let protocols = protocols.as_array().expect("a list");
    assert!(
        protocols.len() > 2 && protocols.iter().all(|protocol| protocol == "h2"),
        "{protocols:?}"
    );
    world.chrome.screenshot("app-over-http2").await;

    // The certificate is renewed while the page stays open.
    certificate(world.folder.path());
    let many = "Promise.all(Array.from({ length: 40 }, (_, n) => fetch('/api/whoami?n=' + n).then((answer) => answer.status)))";
    assert_eq!(world.chrome.promise(many).await, json!(vec![200; 40]));

    let upload =
        "fetch('/api/upload', { method: 'POST', body: 'x'.repeat(300000) }).then((answer) => answer.json())";
    assert_eq!(world.chrome.promise(upload).await, json!({ "length": 300_000 }));
    world.chrome.click("#logout-post").await;
    world.chrome.arrives_at(&world.url("/")).await;
    world.chrome.text("#state", "signed out").await;
    assert!(world.session_cookie().await.is_none());
    assert_eq!(world.chrome.promise("callApi('/api/whoami')").await, 401);
}

//! A browser that refuses cookies ends on a page that explains itself, not in a circle.

use crate::support::{Wish, World};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn refused_cookies_end_on_a_page_that_says_so_and_not_in_a_loop() {
    let refused =
        json!({ "profile.content_settings.exceptions.cookies": { "[*.]app.localhost,*": { "setting": 2 } } });
    let world = World::with(Wish {
        prefs: refused,
        login: "auto",
        ..Wish::default()
    })
    .await;
    world
        .chrome
        .goto(&world.url("/bff/login?return_to=/docs/welcome"))
        .await;
    let script = "return location.pathname.startsWith('/bff/') && document.readyState === 'complete' && document.body.innerText";
    let page = world
        .chrome
        .wait("", script, |text| {
            text.as_str()
                .is_some_and(|text| text.to_lowercase().contains("cookie"))
        })
        .await;
    world.chrome.screenshot("cookies-refused").await;
    assert!(
        world.own_cookies().await.is_empty(),
        "the browser did not refuse them"
    );
    let (begun, address) = (
        world.provider.count("authorization").await,
        world.chrome.url().await,
    );
    assert!(begun <= 2, "went round {begun} times");
    // It stays where it is: a circle would be somewhere else by now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.chrome.url().await, address, "{page}");
    assert_eq!(world.provider.count("authorization").await, begun);
}

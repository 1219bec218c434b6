//! What stays open: `WebSocket`s and event streams, and that they end with their session.

use crate::support::World;
use serde_json::json;

#[tokio::test]
async fn a_websocket_says_back_what_it_was_told_and_closes_with_the_session() {
    let world = World::new().await;
    world.sign_in().await;
    let echo = "new Promise((settle, fail) => {
        window.socket = new WebSocket(location.origin.replace('http', 'ws') + '/api/ws');
        window.socket.onopen = () => window.socket.send('a word with ünïcode');
        window.socket.onmessage = (event) => settle(event.data);
        window.socket.onerror = () => fail('refused');
        window.socket.onclose = (event) => { window.closed = event.code; };
    })";
    assert_eq!(world.chrome.promise(echo).await, "a word with ünïcode");
    let upgrade = world.upstream.seen("/api/ws");
    assert!(
        upgrade[0]
            .authorization
            .as_deref()
            .is_some_and(|value| value.starts_with("Bearer "))
    );
    assert_eq!(
        world.chrome.run("return window.closed ?? null").await,
        json!(null)
    );
    let options = json!({ "method": "POST", "headers": { "accept": "application/json" } });
    assert_eq!(world.chrome.fetch("/bff/logout", &options).await["status"], 200);
    world
        .chrome
        .wait("", "return window.closed ?? null", |code| code == 1008)
        .await;
}

#[tokio::test]
async fn an_event_stream_flows_and_ends_with_the_session() {
    let world = World::new().await;
    world.sign_in().await;
    let listen = "new Promise((settle, fail) => {
        const source = new EventSource('/api/events');
        const events = [];
        source.onmessage = (event) => { events.push(event.data); if (events.length === 3) settle(events); };
        source.onerror = () => { source.close(); window.ended = true; fail('ended'); };
    })";
    assert_eq!(
        world.chrome.promise(listen).await,
        json!(["tick 0", "tick 1", "tick 2"])
    );
    let options = json!({ "method": "POST", "headers": { "accept": "application/json" } });
    assert_eq!(world.chrome.fetch("/bff/logout", &options).await["status"], 200);
    world
        .chrome
        .wait("", "return window.ended ?? false", |ended| ended == true)
        .await;
}

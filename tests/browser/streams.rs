//! What stays open: `WebSocket`s and event streams, which pass through with the session's token and unbuffered.

use crate::support::World;
use serde_json::json;

#[tokio::test]
async fn a_websocket_says_back_what_it_was_told_with_the_sessions_token() {
    let world = World::new().await;
    world.sign_in().await;
    let echo = "new Promise((settle, fail) => {
        const socket = new WebSocket(location.origin.replace('http', 'ws') + '/api/ws');
        socket.onopen = () => socket.send('a word with ünïcode');
        socket.onmessage = (event) => settle(event.data);
        socket.onclose = (event) => fail('closed with ' + event.code);
    })";
    assert_eq!(world.chrome.promise(echo).await, "a word with ünïcode");
    let upgrade = &world.upstream.seen("/api/ws")[0];
    assert!(
        upgrade
            .authorization
            .as_deref()
            .is_some_and(|value| value.starts_with("Bearer "))
    );
    assert_eq!(upgrade.cookie, None);
}

#[tokio::test]
async fn an_event_stream_flows_while_it_is_still_open() {
    let world = World::new().await;
    world.sign_in().await;
    // The stream has no end: what arrives was not held back until there was more of it.
    let listen = "new Promise((settle, fail) => {
        const source = new EventSource('/api/events');
        const events = [];
        source.onmessage = (event) => { events.push(event.data); if (events.length === 3) settle(events); };
        source.onerror = () => { source.close(); fail('ended'); };
    })";
    assert_eq!(
        world.chrome.promise(listen).await,
        json!(["tick 0", "tick 1", "tick 2"])
    );
}

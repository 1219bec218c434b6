//! What stays open: `WebSocket`s and event streams, which pass through with the session's token and unbuffered.

use crate::support::{Wish, World};
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

#[tokio::test]
async fn ws_04_a_logout_closes_the_websocket_with_1008_and_ends_the_event_stream() {
    ends_with_the_session(World::new().await).await;
}

/// There the event stream comes over HTTP/2, and the WebSocket has a connection of its own.
#[tokio::test]
async fn ws_04_the_same_over_tls() {
    let wish = Wish {
        tls: true,
        ..Wish::default()
    };
    ends_with_the_session(World::with(wish).await).await;
}

async fn ends_with_the_session(world: World) {
    world.sign_in().await;
    let story = "new Promise((settle, fail) => {
        const seen = {};
        const socket = new WebSocket(location.origin.replace('http', 'ws') + '/api/ws');
        const source = new EventSource('/api/events');
        let begun, open = 0;
        const both = () => {
            if (++open < 2) return;
            begun = performance.now();
            fetch('/bff/logout', { method: 'POST', redirect: 'manual' }).catch(fail);
        };
        const done = () => { if (seen.close && seen.refused) settle(seen); };
        socket.onopen = () => socket.send('hello');
        socket.onmessage = both;
        socket.onclose = (event) => {
            seen.close = [event.code, event.reason, event.wasClean];
            seen.took = performance.now() - begun;
            done();
        };
        source.addEventListener('message', both, { once: true });
        source.onerror = () => {
            if (source.readyState === EventSource.CONNECTING) seen.ended = performance.now() - begun;
            if (source.readyState === EventSource.CLOSED) { seen.refused = true; done(); }
        };
    })";
    let seen = world.chrome.promise(story).await;
    println!("{seen}");
    assert_eq!(seen["close"], json!([1008, "session ended", true]), "{seen}");
    // The event stream ends, is asked for again, and is refused then.
    assert_eq!(seen["refused"], true, "{seen}");
    for took in ["took", "ended"] {
        let millis = seen[took].as_f64().unwrap_or(f64::INFINITY);
        assert!(millis < 1000.0, "{took}: {seen}");
    }
    let asked = world.upstream.seen("/api/events").len();
    assert_eq!(asked, 1, "the second request did not come up");
}

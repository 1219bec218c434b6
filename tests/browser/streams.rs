//! What stays open: `WebSocket`s and event streams, which pass through with the session's token and unbuffered.

use crate::support::{Wish, World};
use serde_json::{Value, json};

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
    let world = World::new().await;
    ends_with_the_session(&world).await;
    assert_eq!(handshakes(&world), [("GET".to_owned(), 101)]);
}

/// There both come over HTTP/2, with everything else on one connection.
#[tokio::test]
async fn ws_04_the_same_over_tls() {
    let world = over_tls().await;
    ends_with_the_session(&world).await;
    assert_eq!(handshakes(&world), [("CONNECT".to_owned(), 200)]);
}

#[tokio::test]
async fn a_websocket_goes_over_http2_where_the_page_came_that_way() {
    let world = over_tls().await;
    world.sign_in().await;
    // As the browser's own account has it, an extended CONNECT is answered with 200 where an upgrade is with 101.
    let echo = "new Promise((settle, fail) => {
        const socket = new WebSocket(location.origin.replace('http', 'ws') + '/api/ws', ['chat', 'superchat']);
        const sizes = [0, 1, 125, 126, 65535, 65536, 1000000];
        const back = [];
        const next = () => socket.send('ü'.repeat(sizes[back.length] / 2) + 'x'.repeat(sizes[back.length] % 2));
        socket.onopen = next;
        socket.onmessage = (event) => {
            back.push(new TextEncoder().encode(event.data).length);
            if (back.length < sizes.length) return next();
            socket.onclose = (event) => settle([back, socket.protocol, event.code, event.wasClean]);
            socket.close(1000);
        };
        socket.onclose = (event) => fail('closed with ' + event.code);
    })";
    let said = world.chrome.promise(echo).await;
    let sizes = [0, 1, 125, 126, 65_535, 65_536, 1_000_000];
    assert_eq!(said, json!([sizes, "chat", 1000, true]));
    assert_eq!(handshakes(&world), [("CONNECT".to_owned(), 200)]);
    let up = &world.upstream.seen("/api/ws")[0];
    let bearer = up.authorization.as_deref();
    assert!(bearer.is_some_and(|value| value.starts_with("Bearer ")));
    assert_eq!(up.cookie, None);
    // Without a session it is refused, and the page learns no more than that.
    world.chrome.click("#logout-post").await;
    world.chrome.arrives_at(&world.url("/")).await;
    world.chrome.text("#state", "signed out").await;
    let refused = "new Promise((settle) => {
        const socket = new WebSocket(location.origin.replace('http', 'ws') + '/api/ws');
        socket.onopen = () => settle('open');
        socket.onclose = (event) => settle(event.code);
    })";
    assert_eq!(world.chrome.promise(refused).await, 1006);
    assert_eq!(handshakes(&world)[1], ("CONNECT".to_owned(), 401));
    assert_eq!(world.upstream.seen("/api/ws").len(), 1);
}

async fn over_tls() -> World {
    let wish = Wish {
        tls: true,
        ..Wish::default()
    };
    World::with(wish).await
}

/// Method and status of the handshakes of `WebSocket`s, as the access log has them. The page asks for all else under `/api`
/// with GET: its own requests are left out by their method, and handshakes over HTTP/1.1 stand out by their status.
fn handshakes(world: &World) -> Vec<(String, u64)> {
    let log = world.app.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let asked = lines
        .filter(|line| line["target"] == "cloakroom::access")
        .map(|line| {
            let method = line["method"].as_str().unwrap_or_default().to_owned();
            (method, line["status"].as_u64().unwrap_or_default())
        });
    asked
        .filter(|(method, status)| method == "CONNECT" || *status == 101)
        .collect()
}

async fn ends_with_the_session(world: &World) {
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

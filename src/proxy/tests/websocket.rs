//! Tunnels, and what is none.

use super::*;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

const OPENING: &str = "GET /api/ws HTTP/1.1\r\nHost: app.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Protocol: chat\r\n\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

/// A short message in one frame, as a browser sends it; the mask changes nothing.
fn said(message: &[u8]) -> Vec<u8> {
    let length = u8::try_from(message.len()).unwrap();
    assert!(length < 126);
    [&[0x82, 0x80 | length, 0, 0, 0, 0], message].concat()
}

/// The same as an upstream sends it.
fn said_back(message: &[u8]) -> Vec<u8> {
    [&[0x82, u8::try_from(message.len()).unwrap()], message].concat()
}

/// An upstream that accepts, then gives back what it gets.
async fn echoing() -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let heads = seen.clone();
    let address = raw::serve(move |mut stream, _| {
        let heads = heads.clone();
        async move {
            let head = raw::read_head(&mut stream).await;
            heads.lock().unwrap().push(head);
            raw::say(&mut stream, ACCEPTED).await;
            let mut head = [0; 6];
            while stream.read_exact(&mut head).await.is_ok() {
                let mut message = vec![0; usize::from(head[1] & 0x7f)];
                stream.read_exact(&mut message).await.unwrap();
                raw::say(&mut stream, said_back(&message)).await;
            }
        }
    })
    .await;
    (address, seen)
}

#[tokio::test]
async fn messages_pass_both_ways_through_the_tunnel() {
    let upstream = raw::serve(|stream, _| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                return;
            }
            socket.send(message).await.unwrap();
        }
    })
    .await;
    let rig = rig(upstream, route()).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (mut socket, response) = tokio_tungstenite::client_async("ws://app.example/api/ws", stream)
        .await
        .unwrap();
    assert_eq!(response.status(), 101);
    for length in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let text = "x".repeat(length);
        socket.send(Message::text(text.clone())).await.unwrap();
        let back = timeout(raw::PATIENCE, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(back.into_text().unwrap().as_str(), text);
    }
    assert!(!rig.tasks.is_empty());
}

#[tokio::test]
async fn the_handshake_goes_up_and_the_answer_comes_back() {
    let (upstream, seen) = echoing().await;
    let rig = rig(upstream, route()).await;
    let mut browser = TcpStream::connect(rig.address).await.unwrap();
    // What follows the handshake at once waits for the upstream's 101.
    let first = b"GET /first#bytes HTTP/1.1\r\n\r\n\r\nmore";
    raw::say(&mut browser, [OPENING.as_bytes(), &said(first)].concat()).await;
    let head = raw::read_head(&mut browser).await;
    assert_eq!(status(&head), "101", "{head}");
    assert_eq!(values(&head, "connection"), ["Upgrade"]);
    assert_eq!(values(&head, "upgrade"), ["websocket"]);
    assert_eq!(
        values(&head, "sec-websocket-accept"),
        ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
    );
    assert_eq!(values(&head, "sec-websocket-protocol"), ["chat"]);
    let back = said_back(first);
    assert_eq!(raw::read_exactly(&mut browser, back.len()).await, back);
    let odd = [0x81, 0, b'\n', b'\r', b'\n', 0xff];
    raw::say(&mut browser, said(&odd)).await;
    assert_eq!(raw::read_exactly(&mut browser, 8).await, said_back(&odd));
    let head = seen.lock().unwrap().pop().unwrap();
    assert_eq!(values(&head, "connection"), ["Upgrade"]);
    assert_eq!(values(&head, "upgrade"), ["websocket"]);
    assert_eq!(values(&head, "sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    assert_eq!(values(&head, "authorization"), ["Bearer the-access-token"]);
    // A tunnel is a connection under way: it ends with `cut`, not with `stop`.
    rig.stop.cancel();
    raw::say(&mut browser, said(b"still")).await;
    assert_eq!(raw::read_exactly(&mut browser, 7).await, said_back(b"still"));
    rig.tasks.close();
    assert!(
        timeout(Duration::from_millis(100), rig.tasks.wait())
            .await
            .is_err()
    );
    rig.cut.cancel();
    assert_eq!(raw::read_all(&mut browser).await, b"");
    timeout(raw::PATIENCE, rig.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn either_side_ends_the_tunnel() {
    let (upstream, _) = echoing().await;
    let browser_first = rig(upstream, route()).await;
    let mut browser = TcpStream::connect(browser_first.address).await.unwrap();
    raw::say(&mut browser, OPENING).await;
    raw::read_head(&mut browser).await;
    browser.shutdown().await.unwrap();
    assert_eq!(
        timeout(raw::PATIENCE, browser.read(&mut [0; 1]))
            .await
            .unwrap()
            .unwrap(),
        0
    );

    let (upstream, _) = answering(ACCEPTED).await;
    let upstream_first = rig(upstream, route()).await;
    let mut browser = TcpStream::connect(upstream_first.address).await.unwrap();
    raw::say(&mut browser, OPENING).await;
    assert_eq!(status(&raw::read_head(&mut browser).await), "101");
    assert_eq!(raw::read_all(&mut browser).await, b"");
}

#[tokio::test]
async fn ws_03_an_upstream_that_does_not_switch_gets_nothing_more() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let seen = Seen::default();
        let all = seen.clone();
        let upstream = raw::serve(move |mut stream, _| {
            let all = all.clone();
            async move {
                let head = raw::read_head(&mut stream).await;
                raw::say(&mut stream, answer).await;
                let more = timeout(Duration::from_millis(300), raw::read_all(&mut stream))
                    .await
                    .unwrap_or_default();
                all.lock()
                    .unwrap()
                    .push(format!("{head}{}", String::from_utf8_lossy(&more)));
            }
        })
        .await;
        let rig = rig(upstream, route()).await;
        let response = raw::exchange(
            rig.address,
            format!("{OPENING}GET /api/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        )
        .await;
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
        assert!(
            response.ends_with("\r\n\r\nok") && values(&response, "connection") == ["close"],
            "{response}"
        );
        assert!(values(&response, "upgrade").is_empty());
        timeout(raw::PATIENCE, async {
            while seen.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        let seen = seen.lock().unwrap();
        assert!(seen.len() == 1 && !seen[0].contains("smuggled"), "{seen:?}");
    }
    // It switches to something else, or without saying to what.
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let (upstream, _) = answering(answer).await;
        let rig = rig(upstream, route()).await;
        assert_eq!(
            status(&raw::exchange(rig.address, OPENING.replace("keep-alive", "close")).await),
            "502"
        );
    }
}

#[tokio::test]
async fn ws_02_other_upgrades_go_as_plain_http() {
    let (upstream, seen) = answering(OK).await;
    let rig = rig(upstream, route()).await;
    for request in [
        "GET /api HTTP/1.1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings",
        "GET /api HTTP/1.1\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade",
        "GET /api HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade",
        "GET /api HTTP/1.1\r\nUpgrade: websocket, h2c\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade",
        "POST /api HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 0\r\nConnection: Upgrade",
    ] {
        let response = rig.ask(request, "").await;
        assert_eq!(
            (status(&response), &values(&response, "connection")[..]),
            ("200", &["close"][..]),
            "{response}"
        );
        let head = seen.lock().unwrap().pop().unwrap();
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert!(values(&head, gone).is_empty(), "{head}");
        }
    }
}

//! One request here is one request there, and its body ends at the same byte for both.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An upstream that keeps everything it reads, and answers once a message is there.
async fn recording() -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let record = seen.clone();
    let address = raw::serve(move |mut stream, _| {
        let record = record.clone();
        async move {
            loop {
                let head = raw::read_head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                let mut message = head.clone();
                if let [length] = values(&head, "content-length")[..] {
                    let body = raw::read_exactly(&mut stream, length.parse().unwrap()).await;
                    message.push_str(&String::from_utf8_lossy(&body));
                } else if !values(&head, "transfer-encoding").is_empty() {
                    while !message.ends_with("\r\n0\r\n\r\n") {
                        message.push(char::from(raw::read_exactly(&mut stream, 1).await[0]));
                    }
                }
                record.lock().unwrap().push(message);
                raw::say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    (address, seen)
}

#[tokio::test]
async fn hp_03_to_hp_07_the_upstream_sees_at_most_one_request_with_one_framing() {
    let (upstream, seen) = recording().await;
    let rig = rig(upstream, route()).await;
    let inner = "GET /api/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunk = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let te = "Transfer-Encoding: chunked";
    for (fields, body) in [
        (format!("Content-Length: 4\r\n{te}"), format!("{chunk}{inner}")),
        (format!("{te}\r\nContent-Length: 4"), format!("{chunk}{inner}")),
        (
            format!("{te}\r\nContent-Length: 6\r\nContent-Length: 4"),
            format!("0\r\n\r\n{inner}"),
        ),
        (format!("Content-Length: 4\r\n{te}"), format!("0\r\n\r\n{inner}")),
        ("Content-Length: 5\r\nContent-Length: 5".into(), "hello".into()),
        (
            "Content-Length: 5\r\nContent-Length: 40".into(),
            format!("hello{inner}"),
        ),
        ("Content-Length: 5, 5".into(), format!("hello{inner}")),
        (
            "Transfer-Encoding: gzip, chunked".into(),
            format!("{chunk}{inner}"),
        ),
        (
            "Transfer-Encoding: chunked, chunked".into(),
            format!("{chunk}{inner}"),
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity".into(),
            format!("{chunk}{inner}"),
        ),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked".into(),
            format!("{chunk}{inner}"),
        ),
        ("Transfer-Encoding:\r\n chunked".into(), format!("{chunk}{inner}")),
        (
            "Transfer-Encoding: chunked\r\n\tx".into(),
            format!("{chunk}{inner}"),
        ),
        ("Transfer-Encoding : chunked".into(), format!("{chunk}{inner}")),
        (
            "Transfer_Encoding: chunked\r\nContent-Length: 5".into(),
            "hello".into(),
        ),
        ("Content_Length: 40\r\nContent-Length: 5".into(), "hello".into()),
        ("Transfer-Encoding: cHuNkEd".into(), chunk.clone()),
        (te.into(), format!("5;ext=\"a\"\r\nhello\r\n0\r\n\r\n{inner}")),
        (te.into(), format!("5\nhello\r\n0\r\n\r\n{inner}")),
        (te.into(), format!("5\r\nhello\n0\r\n\r\n{inner}")),
        (
            te.into(),
            format!("FFFFFFFFFFFFFFFF1\r\nhello\r\n0\r\n\r\n{inner}"),
        ),
        (te.into(), format!("0x5\r\nhello\r\n0\r\n\r\n{inner}")),
        (te.into(), format!("-5\r\nhello\r\n0\r\n\r\n{inner}")),
        (
            te.into(),
            format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000)),
        ),
        (te.into(), format!("0\r\n{}\r\n\r\n", "X: y\r\n".repeat(20_000))),
        (
            "Transfer-Encoding: chunked\r\nConnection: transfer-encoding".into(),
            chunk.clone(),
        ),
    ] {
        // The bare line feeds of some stacks: one request line, one framing, whatever the ends of lines.
        for end in ["\r\n", "\n"] {
            let head =
                format!("POST /api HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n{fields}\r\n\r\n")
                    .replace("\r\n", end);
            let response = raw::exchange(rig.address, format!("{head}{body}")).await;
            let seen = std::mem::take(&mut *seen.lock().unwrap());
            assert!(seen.len() <= 1, "{fields} {seen:?}");
            for message in &seen {
                let lengths = values(message, "content-length").len();
                let codings = values(message, "transfer-encoding");
                assert!(
                    lengths + codings.len() <= 1 && codings.iter().all(|c| *c == "chunked"),
                    "{fields} {message}"
                );
                assert!(
                    message.starts_with("POST /api HTTP/1.1\r\n") && !message.contains('_'),
                    "{message}"
                );
            }
            // What comes after a request that TE framed is never looked at.
            assert!(
                response.matches("HTTP/1.1 ").count() <= 1 || fields.starts_with("Content-Length: 5"),
                "{fields} {response}"
            );
        }
    }
}

#[tokio::test]
async fn hp_18_an_upstream_that_frames_badly_is_502_or_breaks_off() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 99 Odd\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "",
    ] {
        let (upstream, _) = answering(answer).await;
        let rig = rig(upstream, route()).await;
        let response = rig.ask("GET /api HTTP/1.1", "").await;
        assert_eq!(
            (status(&response), &values(&response, "x-failure")[..]),
            ("502", &["UpstreamUnavailable"][..]),
            "{answer} {response}"
        );
    }
    // After the head the answer breaks off: never a clean end.
    for (answer, length) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Some("10")),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
            None,
        ),
    ] {
        let (upstream, _) = answering(answer).await;
        let rig = rig(upstream, route()).await;
        let response = rig.ask("GET /api HTTP/1.1", "").await;
        assert_eq!(
            (
                status(&response),
                values(&response, "content-length").first().copied()
            ),
            ("200", length)
        );
        let body = response.split_once("\r\n\r\n").unwrap().1;
        assert!(
            !body.ends_with("0\r\n\r\n") && body.len() < 12 && !response.contains("x-failure"),
            "{response}"
        );
    }
}

#[tokio::test]
async fn hp_22_a_request_is_sent_once_whatever_comes_back() {
    let hits = Arc::new(AtomicUsize::new(0));
    let count = hits.clone();
    let upstream = raw::serve(move |mut stream, _| {
        let count = count.clone();
        async move {
            while !raw::read_head(&mut stream).await.is_empty() {
                if count.fetch_add(1, Ordering::SeqCst) % 2 == 1 {
                    return;
                }
                raw::say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let rig = rig(upstream, route()).await;
    for n in 0..10 {
        let response = rig.ask("POST /api HTTP/1.1\r\nContent-Length: 0", "").await;
        assert_eq!(status(&response), if n % 2 == 0 { "200" } else { "502" });
        assert_eq!(hits.load(Ordering::SeqCst), n + 1);
    }
}

#[tokio::test]
async fn hp_18_an_answer_that_nobody_asked_for_reaches_nobody() {
    let twice = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst\
                 HTTP/1.1 200 OK\r\nContent-Length: 7\r\nSet-Cookie: a=evil\r\n\r\nsmuggle";
    let upstream = raw::serve(move |mut stream, n| async move {
        while !raw::read_head(&mut stream).await.is_empty() {
            let own = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{n}");
            raw::say(&mut stream, if n == 0 { twice.to_owned() } else { own }).await;
        }
    })
    .await;
    let rig = rig(upstream, route()).await;
    for own in ["first", "1", "1"] {
        let response = rig.ask("GET /api HTTP/1.1", "").await;
        assert!(
            response.ends_with(&format!("\r\n\r\n{own}")) && !response.contains("evil"),
            "{response}"
        );
    }
}

//! Bodies pass through, each side waiting for the other, and break off together.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

const MIB: usize = 1024 * 1024;
const REQUEST: &str = "GET /api HTTP/1.1\r\nHost: app.example\r\n\r\n";

async fn until(what: impl Fn() -> bool) {
    timeout(raw::PATIENCE, async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("it does not come to pass");
}

#[tokio::test]
async fn lm_08_a_slow_browser_stops_the_upstream_and_nothing_is_kept_between() {
    let written = Arc::new(AtomicU64::new(0));
    let count = written.clone();
    let upstream = raw::serve(move |mut stream, _| {
        let count = count.clone();
        async move {
            raw::read_head(&mut stream).await;
            raw::say(
                &mut stream,
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 100 * MIB),
            )
            .await;
            let piece = vec![b'x'; 64 * 1024];
            for _ in 0..100 * 16 {
                if stream.write_all(&piece).await.is_err() {
                    return;
                }
                count.fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
        }
    })
    .await;
    let rig = rig(upstream, route()).await;
    let mut browser = TcpStream::connect(rig.address).await.unwrap();
    raw::say(&mut browser, REQUEST).await;
    raw::read_head(&mut browser).await;
    // It settles: what the upstream could write is what buffers hold, the kernel's (a few MiB) and ours.
    let mut last = u64::MAX;
    while last != written.load(Ordering::SeqCst) {
        last = written.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert!(
        last < 24 * MIB as u64,
        "{last} bytes were taken from the upstream for nobody"
    );
    let mut read = 0_usize;
    let mut chunk = vec![0; 256 * 1024];
    while read < 100 * MIB {
        read += timeout(raw::PATIENCE, browser.read(&mut chunk))
            .await
            .unwrap()
            .unwrap();
        let ahead = usize::try_from(written.load(Ordering::SeqCst))
            .unwrap()
            .saturating_sub(read);
        assert!(ahead < 24 * MIB, "{ahead}");
    }
    assert_eq!(read, 100 * MIB);
}

#[tokio::test]
async fn a_slow_upstream_stops_the_upload() {
    let go = Arc::new(Notify::new());
    let wait = go.clone();
    let upstream = raw::serve(move |mut stream, _| {
        let wait = wait.clone();
        async move {
            raw::read_head(&mut stream).await;
            wait.notified().await;
            let body = raw::read_exactly(&mut stream, 50 * MIB).await;
            assert!(body.iter().all(|b| *b == b'y'));
            raw::say(&mut stream, OK).await;
        }
    })
    .await;
    let rig = rig(upstream, route()).await;
    let mut browser = TcpStream::connect(rig.address).await.unwrap();
    let head = format!(
        "POST /api HTTP/1.1\r\nHost: app.example\r\nContent-Length: {}\r\n\r\n",
        50 * MIB
    );
    raw::say(&mut browser, head).await;
    let piece = vec![b'y'; 256 * 1024];
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_millis(300), browser.write(&piece)).await {
        sent += written.unwrap();
        assert!(sent < 24 * MIB, "somebody keeps it all");
    }
    go.notify_one();
    while sent < 50 * MIB {
        let rest = piece.len().min(50 * MIB - sent);
        sent += browser.write(&piece[..rest]).await.unwrap();
    }
    assert!(raw::read_head(&mut browser).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn chunks_are_passed_on_as_they_come() {
    let go = Arc::new(Notify::new());
    let wait = go.clone();
    let upstream = raw::serve(move |mut stream, _| {
        let wait = wait.clone();
        async move {
            raw::read_head(&mut stream).await;
            raw::say(
                &mut stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )
            .await;
            for _ in 0..3 {
                raw::say(&mut stream, "9\r\ndata: 1\n\n\r\n").await;
                wait.notified().await;
            }
            raw::say(&mut stream, "0\r\n\r\n").await;
        }
    })
    .await;
    let rig = rig(upstream, route()).await;
    let mut browser = TcpStream::connect(rig.address).await.unwrap();
    raw::say(&mut browser, REQUEST).await;
    assert!(values(&raw::read_head(&mut browser).await, "transfer-encoding") == ["chunked"]);
    for _ in 0..3 {
        assert_eq!(raw::read_exactly(&mut browser, 14).await, b"9\r\ndata: 1\n\n\r\n");
        go.notify_one();
    }
    assert_eq!(raw::read_exactly(&mut browser, 5).await, b"0\r\n\r\n");
}

#[tokio::test]
async fn body_limit_is_judged_before_connecting_where_the_length_is_known() {
    let (upstream, seen) = answering(OK).await;
    let rig = rig(
        upstream,
        RouteSettings {
            body_limit: Some(10),
            ..route()
        },
    )
    .await;
    for expect in ["", "\r\nExpect: 100-continue"] {
        let response = rig
            .ask(
                &format!("POST /api HTTP/1.1\r\nContent-Length: 11{expect}"),
                "hello world",
            )
            .await;
        assert_eq!(
            (status(&response), &values(&response, "x-failure")[..]),
            ("413", &["TooLarge"][..]),
            "{response}"
        );
    }
    assert!(seen.lock().unwrap().is_empty(), "no upstream connection");
    assert_eq!(
        status(
            &rig.ask("POST /api HTTP/1.1\r\nContent-Length: 10", "hello worl")
                .await
        ),
        "200"
    );
}

/// An upstream that says `early` at once, reads until the browser's side ends, and notes whether that end was clean.
async fn reading(early: &'static str) -> (SocketAddr, Arc<AtomicBool>, Arc<AtomicBool>) {
    let (ended, clean) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let noted = (ended.clone(), clean.clone());
    let upstream = raw::serve(move |mut stream, _| {
        let (ended, clean) = noted.clone();
        async move {
            raw::read_head(&mut stream).await;
            raw::say(&mut stream, early).await;
            let mut body = Vec::new();
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                body.extend_from_slice(&chunk[..read]);
                clean.store(body.ends_with(b"0\r\n\r\n"), Ordering::SeqCst);
            }
            ended.store(true, Ordering::SeqCst);
        }
    })
    .await;
    (upstream, ended, clean)
}

#[tokio::test]
async fn a_body_that_outgrows_its_limit_on_the_way_aborts_the_upstream_request() {
    let (upstream, ended, clean) = reading("").await;
    let rig = rig(
        upstream,
        RouteSettings {
            body_limit: Some(10),
            ..route()
        },
    )
    .await;
    let response = rig
        .ask(
            "POST /api HTTP/1.1\r\nTransfer-Encoding: chunked",
            "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        )
        .await;
    assert_eq!(status(&response), "413", "{response}");
    until(|| ended.load(Ordering::SeqCst)).await;
    assert!(
        !clean.load(Ordering::SeqCst),
        "the upstream must not take it for whole"
    );

    // A head has gone back already: the answer breaks off.
    let early = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let (upstream, ended, clean) = reading(early).await;
    let rig = self::rig(
        upstream,
        RouteSettings {
            body_limit: Some(10),
            ..route()
        },
    )
    .await;
    let mut browser = TcpStream::connect(rig.address).await.unwrap();
    raw::say(
        &mut browser,
        "POST /api HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    )
    .await;
    assert!(raw::read_head(&mut browser).await.starts_with("HTTP/1.1 200 "));
    raw::read_exactly(&mut browser, 10).await;
    raw::say(&mut browser, "6\r\n world\r\n0\r\n\r\n").await;
    assert_eq!(raw::read_all(&mut browser).await, b"", "no clean end");
    until(|| ended.load(Ordering::SeqCst)).await;
    assert!(!clean.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn lm_02_a_body_that_drips_is_408_and_no_clean_end() {
    let (upstream, ended, clean) = reading("").await;
    let rig = rig(upstream, route()).await;
    for head in [
        "Transfer-Encoding: chunked\r\n\r\n",
        "Content-Length: 1000000\r\n\r\n",
    ] {
        let mut browser = TcpStream::connect(rig.address).await.unwrap();
        let (began, mut answer) = (tokio::time::Instant::now(), String::new());
        raw::say(
            &mut browser,
            format!("POST /api HTTP/1.1\r\nHost: app.example\r\n{head}"),
        )
        .await;
        let (mut reading, mut writing) = browser.split();
        let dripping = async {
            loop {
                raw::say(&mut writing, "1\r\nx\r\n").await;
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        };
        tokio::select! {
            read = reading.read_to_string(&mut answer) => drop(read.unwrap()),
            () = dripping => {}
        }
        assert_eq!(
            (status(&answer), &values(&answer, "connection")[..]),
            ("408", &["close"][..]),
            "{answer}"
        );
        assert!(
            (20..23).contains(&began.elapsed().as_secs()),
            "{:?}",
            began.elapsed()
        );
        until(|| ended.load(Ordering::SeqCst)).await;
        assert!(!clean.load(Ordering::SeqCst));
        ended.store(false, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_breaks_off_upstream() {
    let (upstream, ended, clean) = reading("").await;
    let rig = rig(upstream, route()).await;
    let mut browser = TcpStream::connect(rig.address).await.unwrap();
    raw::say(
        &mut browser,
        "POST /api HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    )
    .await;
    drop(browser);
    until(|| ended.load(Ordering::SeqCst)).await;
    assert!(!clean.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_browser_that_goes_away_cancels_the_upstream_request() {
    // Before the head, and while the answer streams.
    for early in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"] {
        let (upstream, ended, _) = reading(early).await;
        let rig = rig(upstream, route()).await;
        let mut browser = TcpStream::connect(rig.address).await.unwrap();
        raw::say(&mut browser, REQUEST).await;
        if early.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        } else {
            raw::read_head(&mut browser).await;
        }
        assert!(!ended.load(Ordering::SeqCst));
        drop(browser);
        until(|| ended.load(Ordering::SeqCst)).await;
    }
}

#[tokio::test]
async fn hp_19_the_body_is_asked_for_only_when_the_upstream_takes_it() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let away = rig(nobody, route()).await;
    let expecting = "POST /api HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue";
    let response = away.ask(expecting, "").await;
    assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
    let upstream = raw::serve(|mut stream, _| async move {
        raw::read_head(&mut stream).await;
        assert_eq!(raw::read_exactly(&mut stream, 5).await, b"hello");
        raw::say(&mut stream, OK).await;
    })
    .await;
    let rig = rig(upstream, route()).await;
    let mut browser = TcpStream::connect(rig.address).await.unwrap();
    raw::say(&mut browser, format!("{expecting}\r\nHost: app.example\r\n\r\n")).await;
    assert_eq!(
        raw::read_head(&mut browser).await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    raw::say(&mut browser, "hello").await;
    assert!(raw::read_head(&mut browser).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_late_upstream_is_504_and_an_absent_one_502() {
    let (upstream, ended, _) = reading("").await;
    let late = rig(
        upstream,
        RouteSettings {
            timeout: Duration::from_millis(100),
            ..route()
        },
    )
    .await;
    let response = late.ask("POST /api HTTP/1.1\r\nContent-Length: 5", "hello").await;
    assert_eq!(
        (status(&response), &values(&response, "x-failure")[..]),
        ("504", &["UpstreamTimeout"][..])
    );
    until(|| ended.load(Ordering::SeqCst)).await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let response = rig(nobody, route()).await.ask("GET /api HTTP/1.1", "").await;
    assert_eq!(
        (status(&response), &values(&response, "x-failure")[..]),
        ("502", &["UpstreamUnavailable"][..])
    );
}

#[tokio::test]
async fn hp_21_trailers_pass_where_both_sides_carry_them() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Set-Cookie, Authorization\r\n\r\n\
                  2\r\nok\r\n0\r\nX-Sum: 7\r\nSet-Cookie: a=1\r\nAuthorization: x\r\nX-Unannounced: 1\r\n\r\n";
    let (upstream, _) = answering(answer).await;
    let back = rig(upstream, route()).await;
    let response = back.ask("GET /api HTTP/1.1\r\nTE: trailers", "").await;
    assert!(
        response.ends_with("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"),
        "{response}"
    );
    assert_eq!(values(&response, "trailer"), ["x-sum"]);
    let response = back.ask("GET /api HTTP/1.1", "").await;
    assert!(
        response.ends_with("2\r\nok\r\n0\r\n\r\n") && values(&response, "trailer").is_empty(),
        "{response}"
    );

    let seen = Seen::default();
    let all = seen.clone();
    let upstream = raw::serve(move |mut stream, _| {
        let all = all.clone();
        async move {
            let mut message = raw::read_head(&mut stream).await;
            while !message.ends_with("\r\n\r\n") || message.matches("\r\n\r\n").count() < 2 {
                message.push(char::from(raw::read_exactly(&mut stream, 1).await[0]));
            }
            all.lock().unwrap().push(message);
            raw::say(&mut stream, OK).await;
        }
    })
    .await;
    let up = rig(upstream, route()).await;
    let body =
        "2\r\nhi\r\n0\r\nX-Sum: 9\r\nX-Forwarded-For: evil\r\nCookie: evil\r\nAuthorization: evil\r\n\r\n";
    let fields = "Transfer-Encoding: chunked\r\nTrailer: X-Sum, X-Forwarded-For, Cookie, Authorization";
    up.ask(&format!("POST /api HTTP/1.1\r\n{fields}"), body).await;
    let message = seen.lock().unwrap().pop().unwrap();
    assert!(
        message.ends_with("2\r\nhi\r\n0\r\nx-sum: 9\r\n\r\n") && !message.contains("evil"),
        "{message}"
    );
}

#[tokio::test]
async fn stopping_lets_a_stream_run_on_and_cutting_ends_it() {
    let go = Arc::new(Notify::new());
    let wait = go.clone();
    let upstream = raw::serve(move |mut stream, _| {
        let wait = wait.clone();
        async move {
            raw::read_head(&mut stream).await;
            raw::say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
            wait.notified().await;
            raw::say(&mut stream, "world").await;
        }
    })
    .await;
    for cut in [false, true] {
        let rig = rig(upstream, route()).await;
        let mut browser = TcpStream::connect(rig.address).await.unwrap();
        raw::say(&mut browser, REQUEST).await;
        raw::read_head(&mut browser).await;
        assert_eq!(raw::read_exactly(&mut browser, 5).await, b"hello");
        rig.stop.cancel();
        if cut {
            rig.cut.cancel();
        } else {
            go.notify_one();
        }
        assert_eq!(
            raw::read_all(&mut browser).await,
            if cut { &b""[..] } else { b"world" }
        );
        rig.tasks.close();
        timeout(raw::PATIENCE, rig.tasks.wait()).await.unwrap();
    }
}

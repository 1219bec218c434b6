//! HTTP/1.1 over bare sockets: what strangers send, and how connections end.

use super::*;

#[tokio::test]
async fn lm_03_heads_and_targets_are_bounded() {
    let rig = rig(|_| {}).await;
    let long = "a".repeat(9000);
    for (request, wanted) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "414"),
        (format!("GET /?{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "414"),
        (format!("GET http://a/{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "414"),
        (
            format!(
                "GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                &long[..8000]
            ),
            "200",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100)),
            "431",
        ),
        // So far beyond it that hyper ends it.
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(2000)),
            "431",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n",
                "a".repeat(40_000)
            ),
            "431",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n",
                "a".repeat(1_000_000)
            ),
            "431",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\nConnection: close\r\n\r\n",
                "a".repeat(16_000)
            ),
            "200",
        ),
    ] {
        let response = rig.exchange(&request).await;
        assert_eq!(status(&response), wanted, "{}… {response}", &request[..20]);
        assert!(response.contains("connection: close"), "{response}");
        let words = response.ends_with("TargetTooLong true") || response.ends_with("HeadTooLarge true");
        let is_moderate =
            wanted != "200" && request.len() < 60_000 && !request.contains(&"X: y\r\n".repeat(2000));
        assert_eq!(words, is_moderate, "{response}");
    }
}

#[tokio::test]
async fn hp_07_malformed_requests_are_refused() {
    let rig = rig(|_| {}).await;
    for request in [
        &b"GET /api#x HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"GET /?a#x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\nGET /x# HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX y: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let response = rig.exchange(request).await;
        assert!(
            matches!(status(&response), "400" | ""),
            "{:?} {response}",
            String::from_utf8_lossy(request)
        );
        assert!(rig.asked().is_empty(), "{:?}", String::from_utf8_lossy(request));
    }
}

#[tokio::test]
async fn a_fragment_is_seen_on_every_request_of_a_connection() {
    let rig = rig(|_| {}).await;
    let mut stream = rig.connect().await;
    for n in 0..3 {
        let request =
            format!("POST /read?{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\nGET /x# \r\n\r\n#");
        stream.write_all(request.as_bytes()).await.unwrap();
        let response = read_response(&mut stream, "GET /x# \r\n\r\n#").await;
        assert!(!response.contains("connection: close"), "{response}");
        stream
            .write_all(b"GET /x HTTP/1.1\r\nReferer: /#x\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        read_response(&mut stream, "hello").await;
    }
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y# HTTP/1.1\r\nHost: a\r\n\r\nGET /z HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let rest = read_all(&mut stream).await;
    assert!(
        rest.contains("hello") && rest.contains("400 Bad Request") && rest.ends_with("Fragment true"),
        "{rest}"
    );
    assert!(
        !rig.asked()
            .iter()
            .any(|asked| asked.contains("/y") || asked.contains("/z"))
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let rig = rig(|_| {}).await;
    let mut requests = String::new();
    for n in 0..40 {
        write!(requests, "GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        write!(
            requests,
            "POST /read?{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n{n:04}"
        )
        .unwrap();
    }
    requests.push_str("GET /last HTTP/1.1\nHost: a\nConnection: close\n\n");
    // Also cut into pieces wherever it may be.
    for piece in [1, 7, 64, 100_000] {
        let mut stream = rig.connect().await;
        let (mut reading, mut writing) = stream.split();
        let all = async {
            let mut all = String::new();
            timeout(PATIENCE, reading.read_to_string(&mut all))
                .await
                .unwrap()
                .unwrap();
            all
        };
        let (all, ()) = tokio::join!(all, async {
            for piece in requests.as_bytes().chunks(piece) {
                writing.write_all(piece).await.unwrap();
                writing.flush().await.unwrap();
            }
        });
        assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 81);
        assert_eq!(all.matches("hello").count(), 41);
        let asked = rig.asked();
        assert_eq!(
            (asked.len(), asked[0].as_str(), asked[80].as_str()),
            (81, "GET /0", "GET /last")
        );
        assert_eq!(asked[79], "POST /read?39");
    }
}

#[tokio::test]
async fn hp_23_an_unread_body_is_never_a_request() {
    let rig = rig(|_| {}).await;
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunked = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let padding = "x".repeat(100_000);
    for request in [
        format!(
            "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}",
            inner.len() + 10
        ),
        format!(
            "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{padding}{inner}",
            padding.len() + 500
        ),
        format!("POST /refuse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!(
            "POST /refuse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunked}{inner}"
        ),
        format!(
            "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}{inner}"
        ),
        format!(
            "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
        ),
        format!(
            "POST /refuse HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n{inner}"
        ),
        format!("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n{inner}"),
    ] {
        let response = rig.exchange(&request).await;
        assert!(response.contains("connection: close"), "{response}");
        assert!(!response.contains("100 Continue"), "{response}");
        assert_eq!(rig.asked().len(), 1, "{request:.80}");
    }
}

#[tokio::test]
async fn an_early_answer_arrives_although_the_upload_goes_on() {
    let rig = rig(|_| {}).await;
    let mut stream = rig.connect().await;
    stream
        .write_all(b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n")
        .await
        .unwrap();
    // What the kernel's buffers do not take is read away, so the answer is not lost to a reset.
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..64 {
        if stream.write_all(&piece).await.is_err() {
            break;
        }
    }
    let response = read_all(&mut stream).await;
    assert!(
        response.starts_with("HTTP/1.1 401 ") && response.ends_with("hello"),
        "{response}"
    );
}

#[tokio::test]
async fn expect_continue_is_answered_when_the_body_is_wanted() {
    let rig = rig(|_| {}).await;
    let mut stream = rig.connect().await;
    stream
        .write_all(b"POST /read HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        read_response(&mut stream, "").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    stream.write_all(b"body").await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("\r\n\r\nbody"));
}

#[tokio::test]
async fn fa_04_a_panic_is_one_requests_500() {
    let rig = rig(|_| {}).await;
    let response = rig.exchange("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&response), "500", "{response}");
    assert!(
        response.ends_with("Panic false") && response.contains("connection: close"),
        "{response}"
    );
    assert_eq!(
        status(
            &rig.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .await
        ),
        "200"
    );
}

#[tokio::test(start_paused = true)]
async fn lm_01_a_slow_head_and_an_idle_connection_end_in_time() {
    let seconds = |began: Instant| began.elapsed().as_secs();
    let rig = rig(|_| {}).await;
    // Nothing at all, and a byte now and then: the head's time runs from the connection's first moment.
    let began = Instant::now();
    assert_eq!(read_all(&mut rig.connect().await).await, "");
    assert_eq!(seconds(began), 10);
    let mut stream = rig.connect().await;
    let began = Instant::now();
    let (mut reading, mut writing) = stream.split();
    tokio::select! {
        _ = reading.read_u8() => {}
        () = async {
            for byte in b"GET / HTTP/1.1\r\nX-Slow: sloooooooooooooooooooow".iter().cycle() {
                if writing.write_all(&[*byte]).await.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        } => {}
    }
    assert!((10..=11).contains(&seconds(began)), "{}", seconds(began));
    // Between requests there is more time, until the next head begins.
    let mut stream = rig.connect().await;
    for _ in 0..2 {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        read_response(&mut stream, "hello").await;
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    let began = Instant::now();
    stream.write_all(b"GET / HT").await.unwrap();
    assert_eq!(read_all(&mut stream).await, "");
    assert!((10..=11).contains(&seconds(began)), "{}", seconds(began));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_and_a_request_under_way_does_not() {
    let rig = rig(|_| {}).await;
    let mut stream = rig.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    read_response(&mut stream, "hello").await;
    let began = Instant::now();
    let ended = timeout(Duration::from_mins(5), read_all_slowly(&mut stream)).await;
    assert!(ended.is_ok() && (75..=76).contains(&began.elapsed().as_secs()));

    let mut stream = rig.connect().await;
    for body in ["", "body"] {
        let request = format!(
            "POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        rig.echo.arrived.notified().await;
        tokio::time::sleep(Duration::from_secs(400)).await;
        rig.echo.release.notify_one();
        if body.is_empty() {
            read_response(&mut stream, "waited").await;
        }
    }
}

async fn read_all_slowly(stream: &mut TcpStream) {
    let mut scrap = [0; 64];
    while let Ok(1..) = stream.read(&mut scrap).await {}
}

#[tokio::test]
async fn a_browser_that_goes_away_ends_its_request() {
    let rig = rig(|_| {}).await;
    let mut stream = rig.connect().await;
    stream
        .write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    rig.echo.arrived.notified().await;
    drop(stream);
    timeout(PATIENCE, async {
        while rig.echo.dropped.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_connection_too_many_waits_for_a_place() {
    let rig = rig(|bounds| bounds.places = places(2)).await;
    let mut first = rig.connect().await;
    first
        .write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    rig.echo.arrived.notified().await;
    let mut second = rig.connect().await;
    second
        .write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    read_response(&mut second, "hello").await;
    let mut third = rig.connect().await;
    third
        .write_all(b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let early = timeout(Duration::from_millis(200), third.read_u8()).await;
    assert!(early.is_err() && !rig.asked().contains(&"GET /3".to_owned()));
    rig.echo.release.notify_one();
    assert!(read_all(&mut first).await.ends_with("waited"));
    read_response(&mut third, "hello").await;
}

#[tokio::test]
async fn listeners_share_their_places_and_none_keeps_one_without_need() {
    let shared = places(1);
    let one = rig(|bounds| bounds.places = shared.clone()).await;
    let other = rig(|bounds| bounds.places = shared).await;
    // Whichever listener is asked, the other one does not sit on the only place.
    for rig in [&one, &other] {
        let response = rig
            .exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(status(&response), "200", "{response}");
    }
    let mut first = one.connect().await;
    first
        .write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    one.echo.arrived.notified().await;
    other.asked();
    let mut second = other.connect().await;
    second
        .write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let early = timeout(Duration::from_millis(200), second.read_u8()).await;
    assert!(early.is_err() && other.asked().is_empty());
    one.echo.release.notify_one();
    assert!(read_all(&mut first).await.ends_with("waited"));
    read_response(&mut second, "hello").await;
}

#[tokio::test]
async fn stopping_lets_requests_finish_and_cutting_does_not() {
    let rig = rig(|_| {}).await;
    let mut idle = rig.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    read_response(&mut idle, "hello").await;
    let mut busy = rig.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    rig.echo.arrived.notified().await;
    rig.stop.cancel();
    assert_eq!(read_all(&mut idle).await, "", "idle connections end at once");
    assert!(!rig.tasks.is_empty());
    rig.echo.release.notify_one();
    let response = read_all(&mut busy).await;
    assert!(
        response.contains("connection: close") && response.ends_with("waited"),
        "{response}"
    );
    rig.ended().await;
    assert!(
        TcpStream::connect(rig.address).await.is_err(),
        "no new connections"
    );

    let rig = self::rig(|_| {}).await;
    let mut busy = rig.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    rig.echo.arrived.notified().await;
    rig.stop.cancel();
    rig.cut.cancel();
    assert_eq!(read_all(&mut busy).await, "");
    rig.ended().await;
}

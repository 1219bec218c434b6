//! Which connections may be used again, and which requests may be sent again: upstreams that end, break and talk out of
//! turn.
//!
//! Sources: RFC 9110 §9.2.2; RFC 9112 §6.3, §9.2, §9.3, §9.5, §9.6.

use super::*;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Barrier, Notify, mpsc};
use tokio::time::timeout;

/// What an upstream does with its first connection, once it has answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// Waits until our side closes it.
    Waits,
    /// Closes it.
    Closes,
    /// Ends its own side and reads on, until our side closes it.
    HalfCloses,
    /// Takes it back.
    Resets,
    /// Says these bytes a moment after the answer, and waits until our side closes it.
    Says(&'static str),
}

/// Connection and request line.
type Requests = Arc<Mutex<Vec<(usize, String)>>>;

/// An upstream whose first connection answers `/first` with `answer` and then does that; every other request is answered
/// with [`OK`]. It notes the requests, and says when the first connection is over.
async fn odd(answer: &'static str, then: Then) -> (SocketAddr, Requests, mpsc::Receiver<()>) {
    let requests = Requests::default();
    let (seen, (over, is_over)) = (requests.clone(), mpsc::channel(1));
    let address = raw::serve(move |mut stream, n| {
        let (seen, over) = (seen.clone(), over.clone());
        async move {
            loop {
                let head = read_head(&mut stream).await;
                let Some(line) = head.lines().next() else { break };
                seen.lock().unwrap().push((n, line.to_owned()));
                if n > 0 || !line.contains("/first") {
                    say(&mut stream, OK).await;
                    continue;
                }
                say(&mut stream, answer).await;
                match then {
                    Then::Waits => {}
                    Then::Closes => break,
                    Then::HalfCloses => stream.shutdown().await.unwrap(),
                    Then::Resets => {
                        let socket = socket2::SockRef::from(&stream);
                        socket.set_linger(Some(Duration::ZERO)).unwrap();
                        break;
                    }
                    Then::Says(more) => {
                        // The answer is read before this comes: it is a piece of its own.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        say(&mut stream, more).await;
                    }
                }
            }
            drop(stream);
            if n == 0 {
                // A test that does not ask has ended.
                let _ = over.send(()).await;
            }
        }
    })
    .await;
    (address, requests, is_over)
}

/// Waits until the first connection is over.
async fn over(mut is_over: mpsc::Receiver<()>) {
    let told = timeout(raw::PATIENCE, is_over.recv()).await;
    told.expect("the first connection is kept").unwrap();
}

/// A request whose body is `length` long and comes through the channel.
fn upload(target: &str, length: &str) -> (mpsc::Sender<Bytes>, Request<RequestBody>) {
    let (sender, receiver) = mpsc::channel(1);
    let request = Request::builder()
        .method("POST")
        .uri(target)
        .header("content-length", length);
    (sender, request.body(stream_of(receiver)).unwrap())
}

const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

#[tokio::test]
async fn a_connection_that_ended_or_says_too_much_is_not_used_again() {
    let split =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n";
    let late = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    for (method, answer, then, body) in [
        ("GET", OK, Then::Closes, "ok"),
        ("GET", OK, Then::HalfCloses, "ok"),
        ("GET", OK, Then::Resets, "ok"),
        ("GET", OK, Then::Says(EVIL), "ok"),
        ("GET", OK, Then::Says(late), "ok"),
        ("GET", OK, Then::Says("\r\n"), "ok"),
        // More than the answer, in the same piece.
        ("GET", split, Then::Waits, "ok"),
        ("GET", chunked, Then::Waits, "ok"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\nevil", Then::Waits, ""),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
            Then::Waits,
            "",
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            Then::Waits,
            "",
        ),
        // It is said to be the last one.
        (
            "GET",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            Then::Waits,
            "ok",
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Then::Waits,
            "ok",
        ),
        // The end of the connection is the end of the body.
        ("GET", "HTTP/1.1 200 OK\r\n\r\nok", Then::Closes, "ok"),
        ("GET", "HTTP/1.1 200 OK\r\n\r\nok", Then::HalfCloses, "ok"),
    ] {
        let (address, requests, is_over) = odd(answer, then).await;
        let upstream = upstream(&[address]);
        let mut first = get("/first");
        *first.method_mut() = method.parse().unwrap();
        let answered = upstream.send(first, SOON).await.unwrap();
        assert_eq!(text(answered).await, body, "{answer} {then:?}");
        over(is_over).await;
        // One that was sent twice would do harm.
        let answered = upstream.send(post(""), SOON).await.unwrap();
        assert_eq!(text(answered).await, "ok", "{answer} {then:?}");
        let wanted = [
            (0, format!("{method} /first HTTP/1.1")),
            (1, "POST / HTTP/1.1".into()),
        ];
        assert_eq!(*requests.lock().unwrap(), wanted, "{answer} {then:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_in_an_error_and_its_connection_with_it() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ] {
        for then in [Then::Closes, Then::HalfCloses, Then::Resets] {
            let (address, requests, is_over) = odd(answer, then).await;
            let upstream = upstream(&[address]);
            // A reset may come before the head was read.
            if let Ok(answered) = upstream.send(get("/first"), SOON).await {
                let body = answered.into_body().collect().await;
                assert!(body.is_err(), "{answer} {then:?}");
            } else {
                assert_eq!(then, Then::Resets, "{answer}");
            }
            over(is_over).await;
            assert_eq!(text(upstream.send(get("/2"), SOON).await.unwrap()).await, "ok");
            let wanted = [
                (0, "GET /first HTTP/1.1".into()),
                (1, "GET /2 HTTP/1.1".to_owned()),
            ];
            assert_eq!(*requests.lock().unwrap(), wanted, "{answer} {then:?}");
        }
    }
}

#[tokio::test]
async fn hp_20_what_comes_before_the_answer_is_not_the_answer() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
                  HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (address, requests, _is_over) = odd(answer, Then::Waits).await;
    let upstream = upstream(&[address]);
    for target in ["/first", "/2"] {
        let answered = upstream.send(get(target), SOON).await.unwrap();
        assert_eq!(answered.status(), 200);
        assert_eq!(text(answered).await, "ok");
    }
    let second = (0, "GET /2 HTTP/1.1".to_owned());
    assert_eq!(
        requests.lock().unwrap()[1],
        second,
        "the connection is as good as before"
    );
}

#[tokio::test]
async fn hp_20_lm_07_what_comes_before_the_answer_has_an_end() {
    let address = raw::serve(|mut stream, _| async move {
        read_head(&mut stream).await;
        let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1_000);
        while stream.write_all(flood.as_bytes()).await.is_ok() {}
    })
    .await;
    let upstream = upstream(&[address]);
    let flooded = timeout(SOON, upstream.send(get("/"), raw::PATIENCE)).await;
    let error = flooded.expect("an end to it").unwrap_err().to_string();
    assert!(error.contains("too much before its answer"), "{error}");
}

#[tokio::test]
async fn lm_07_an_upload_that_nobody_reads_or_waits_for_lets_go_of_its_body() {
    let address = raw::serve(|mut stream, _| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let upstream = upstream(&[address]);
    let (sender, request) = upload("/", "1000000000");
    let pushing = async { while sender.send(vec![b'x'; 64 * 1024].into()).await.is_ok() {} };
    let sent = upstream.send(request, Duration::from_millis(300));
    tokio::select! {
        () = pushing => panic!("it was let go of too early"),
        late = sent => assert!(matches!(late, Err(UpstreamError::Timeout)), "{late:?}"),
    }
    timeout(raw::PATIENCE, sender.closed())
        .await
        .expect("the body is let go of");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_to_its_end_takes_its_connection_with_it() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\nhello";
    let (address, requests, is_over) = odd(answer, Then::Waits).await;
    let upstream = upstream(&[address]);
    let mut answered = upstream.send(get("/first"), SOON).await.unwrap();
    assert!(answered.body_mut().frame().await.unwrap().is_ok());
    drop(answered);
    over(is_over).await;
    assert_eq!(text(upstream.send(get("/2"), SOON).await.unwrap()).await, "ok");
    assert_eq!(requests.lock().unwrap()[1].0, 1);
}

#[tokio::test]
async fn hp_23_a_connection_on_which_a_body_still_goes_up_serves_nobody_else() {
    let whole = Arc::new(Notify::new());
    let uploaded = whole.clone();
    let address = raw::serve(move |mut stream, n| {
        let uploaded = uploaded.clone();
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                say(
                    &mut stream,
                    format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{n}"),
                )
                .await;
                if head.starts_with("POST") {
                    let body = read_exactly(&mut stream, 10).await;
                    assert_eq!(body, [b'x'; 10], "and nothing between");
                    uploaded.notify_one();
                }
            }
        }
    })
    .await;
    let upstream = upstream(&[address]);
    let (sender, request) = upload("/", "10");
    // The answer is there before the body has begun, and while it is under way.
    assert_eq!(text(upstream.send(request, SOON).await.unwrap()).await, "0");
    for _ in 0..2 {
        assert_eq!(text(upstream.send(get("/"), SOON).await.unwrap()).await, "1");
        sender.send(Bytes::from_static(b"xxxxx")).await.unwrap();
    }
    drop(sender);
    timeout(raw::PATIENCE, whole.notified()).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_breaks_off_after_its_answer_leaves_no_connection_behind() {
    let (address, requests, is_over) = odd(OK, Then::Waits).await;
    let upstream = upstream(&[address]);
    let (sender, request) = upload("/first", "10");
    assert_eq!(text(upstream.send(request, SOON).await.unwrap()).await, "ok");
    drop(sender);
    over(is_over).await;
    assert_eq!(text(upstream.send(get("/2"), SOON).await.unwrap()).await, "ok");
    assert_eq!(requests.lock().unwrap()[1].0, 1);
}

#[tokio::test]
async fn an_early_answer_counts_although_the_upload_meets_a_closed_connection() {
    let answer = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno";
    let (address, _, is_over) = odd(answer, Then::HalfCloses).await;
    let upstream = upstream(&[address]);
    let (sender, request) = upload("/first", "1000000");
    let answered = upstream.send(request, SOON).await.unwrap();
    assert_eq!(answered.status(), 413);
    assert_eq!(text(answered).await, "no");
    drop(sender);
    over(is_over).await;
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_any_more_takes_its_connection_with_it() {
    let (address, requests, is_over) = odd("", Then::Waits).await;
    let upstream = upstream(&[address]);
    let late = upstream.send(get("/first"), Duration::from_millis(50)).await;
    assert!(matches!(late, Err(UpstreamError::Timeout)));
    over(is_over).await;
    assert_eq!(text(upstream.send(get("/2"), SOON).await.unwrap()).await, "ok");
    assert_eq!(requests.lock().unwrap().len(), 2);
}

/// An upstream whose first `count` connections answer together, once each has a request. When that is told it closes what
/// is open, and says so.
async fn together(count: usize) -> (SocketAddr, Requests, Arc<Notify>, Arc<Barrier>) {
    let (requests, close) = (Requests::default(), Arc::new(Notify::new()));
    let closed = Arc::new(Barrier::new(count + 1));
    let (seen, closing, gone) = (requests.clone(), close.clone(), closed.clone());
    let all = Arc::new(Barrier::new(count));
    let address = raw::serve(move |mut stream, n| {
        let (seen, closing, gone, all) = (seen.clone(), closing.clone(), gone.clone(), all.clone());
        async move {
            for turn in 0.. {
                let head = tokio::select! {
                    head = read_head(&mut stream) => head,
                    () = closing.notified() => {
                        drop(stream);
                        gone.wait().await;
                        return;
                    }
                };
                let Some(line) = head.lines().next() else { return };
                seen.lock().unwrap().push((n, line.to_owned()));
                if n < count && turn == 0 {
                    all.wait().await;
                }
                say(&mut stream, OK).await;
            }
        }
    })
    .await;
    (address, requests, close, closed)
}

async fn ask_at_once(count: usize, upstream: &Arc<Upstream>) {
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..count {
        let upstream = upstream.clone();
        asking.spawn(async move { text(upstream.send(get("/"), SOON).await.unwrap()).await });
    }
    assert!(asking.join_all().await.iter().all(|answer| answer == "ok"));
}

#[tokio::test]
async fn the_connection_used_last_is_used_next() {
    let (address, requests, _, _) = together(3).await;
    let upstream = Arc::new(upstream(&[address]));
    ask_at_once(3, &upstream).await;
    for _ in 0..3 {
        text(upstream.send(get("/"), SOON).await.unwrap()).await;
    }
    let requests = requests.lock().unwrap();
    let used: Vec<usize> = requests[3..].iter().map(|(n, _)| *n).collect();
    assert!(used.iter().all(|n| *n == used[0] && *n < 3), "{used:?}");
}

#[tokio::test]
async fn stale_connections_are_passed_over_however_many_there_are() {
    let (address, requests, close, closed) = together(3).await;
    let upstream = Arc::new(upstream(&[address]));
    ask_at_once(3, &upstream).await;
    close.notify_waiters();
    closed.wait().await;
    let answered = upstream.send(post(""), SOON).await.unwrap();
    assert_eq!(text(answered).await, "ok");
    let wanted = [(3, "POST / HTTP/1.1".to_owned())];
    assert_eq!(requests.lock().unwrap()[3..], wanted, "sent once");
}

#[tokio::test]
async fn no_more_than_so_many_connections_lie_idle() {
    let many = MAX_IDLE + 10;
    let (address, ..) = together(many).await;
    let upstream = Arc::new(upstream(&[address]));
    ask_at_once(many, &upstream).await;
    assert_eq!(upstream.origins[0].pool.lying_idle(), MAX_IDLE);
}

#[tokio::test(start_paused = true)]
async fn what_lies_idle_is_closed_in_time() {
    let (address, requests, is_over) = odd(OK, Then::Waits).await;
    let upstream = upstream(&[address]);
    text(upstream.send(get("/first"), SOON).await.unwrap()).await;
    let began = Instant::now();
    over(is_over).await;
    let took = began.elapsed();
    assert!((IDLE_TIMEOUT..=2 * IDLE_TIMEOUT).contains(&took), "{took:?}");
    text(upstream.send(get("/2"), SOON).await.unwrap()).await;
    assert_eq!(requests.lock().unwrap()[1].0, 1);
}

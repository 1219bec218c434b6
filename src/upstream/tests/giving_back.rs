//! When a connection goes back to its pool, how long it lies there, and which one is taken out again.

use super::*;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Barrier, Notify};
use tokio::time::{sleep, timeout};

/// An upstream that does with each request what `script` does with the stream, its connection's number and the head.
async fn scripted<F>(
    script: impl Fn(tokio::net::TcpStream, usize, String) -> F + Clone + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = tokio::net::TcpStream> + Send + 'static,
{
    raw::serve(move |mut stream, n| {
        let script = script.clone();
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                stream = script(stream, n, head).await;
            }
        }
    })
    .await
}

/// Answers with the connection's number.
async fn say_number(stream: &mut tokio::net::TcpStream, n: usize) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{n}",
        n.to_string().len()
    );
    say(stream, answer).await;
}

/// The number of the connection that served a request.
async fn number(upstream: &Upstream) -> usize {
    text(upstream.send(get("/"), SOON).await.unwrap())
        .await
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_connection_comes_back_however_much_of_its_answer_has_to_be_read() {
    // How many frames are read, after which the body is dropped: nobody asks for more where it is known that nothing comes.
    for (answer, frames) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", 0),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0),
        (OK, 1),
        (
            "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 9\r\n\r\n",
            2,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            2,
        ),
    ] {
        let address = scripted(move |mut stream, n, head| async move {
            if head.starts_with("GET /first") {
                say(&mut stream, answer).await;
            } else {
                say_number(&mut stream, n).await;
            }
            stream
        })
        .await;
        let upstream = upstream(&[address]);
        let mut first = get("/first");
        first
            .headers_mut()
            .insert("te", HeaderValue::from_static("trailers"));
        let mut answered = upstream.send(first, SOON).await.unwrap();
        for _ in 0..frames {
            let frame = timeout(raw::PATIENCE, answered.body_mut().frame()).await.unwrap();
            assert!(frame.is_none_or(|frame| frame.is_ok()), "{answer}");
        }
        assert_eq!(upstream.origins[0].pool.lying_idle(), 1, "{answer}");
        assert_eq!(number(&upstream).await, 0, "{answer}");
        drop(answered);
        assert_eq!(number(&upstream).await, 0, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_answer_takes_long_has_not_lain_idle_meanwhile() {
    let address = scripted(|mut stream, n, head| async move {
        if head.starts_with("GET /slow") {
            say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await;
            sleep(3 * IDLE_TIMEOUT).await;
            say(&mut stream, "k").await;
        } else {
            say_number(&mut stream, n).await;
        }
        stream
    })
    .await;
    let upstream = upstream(&[address]);
    let slow = upstream.send(get("/slow"), SOON).await.unwrap();
    assert_eq!(upstream.origins[0].pool.lying_idle(), 0, "it is still in use");
    assert_eq!(text(slow).await, "ok");
    assert_eq!(number(&upstream).await, 0);
}

#[tokio::test]
async fn hp_23_a_connection_on_which_a_body_goes_up_is_passed_over_and_used_later() {
    let (uploaded, both) = (Arc::new(Notify::new()), Arc::new(Barrier::new(2)));
    let (is_up, meet) = (uploaded.clone(), both.clone());
    let address = scripted(move |mut stream, n, head| {
        let (is_up, meet) = (is_up.clone(), meet.clone());
        async move {
            if head.starts_with("GET /together") {
                meet.wait().await;
            }
            say_number(&mut stream, n).await;
            if head.starts_with("POST") {
                read_exactly(&mut stream, 2).await;
                is_up.notify_one();
            }
            stream
        }
    })
    .await;
    let upstream = upstream(&[address]);
    let (sender, body) = tokio::sync::mpsc::channel(1);
    let request = Request::post("/").header("content-length", "2");
    let request = request.body(stream_of(body)).unwrap();
    // The answer is over, and the request is not.
    assert_eq!(text(upstream.send(request, SOON).await.unwrap()).await, "0");
    assert_eq!(number(&upstream).await, 1);
    sender.send(Bytes::from_static(b"up")).await.unwrap();
    drop(sender);
    timeout(raw::PATIENCE, uploaded.notified()).await.unwrap();
    let ask = async || text(upstream.send(get("/together"), SOON).await.unwrap()).await;
    let (one, other) = tokio::join!(ask(), ask());
    let mut used = [one, other];
    used.sort();
    assert_eq!(used, ["0", "1"], "both connections, and no third");
}

#[tokio::test(start_paused = true)]
async fn what_has_lain_idle_for_too_long_is_not_used_before_it_is_swept_away() {
    let address = scripted(|mut stream, n, _| async move {
        say_number(&mut stream, n).await;
        stream
    })
    .await;
    let upstream = upstream(&[address]);
    // The sweeper comes in whole timeouts after the first request. Each of these is out of step with it.
    let mut used = vec![number(&upstream).await];
    for pause in [IDLE_TIMEOUT / 4, IDLE_TIMEOUT * 15 / 16, IDLE_TIMEOUT * 17 / 16] {
        sleep(pause).await;
        used.push(number(&upstream).await);
    }
    assert_eq!(used, [0, 0, 0, 1]);
}

#[tokio::test]
async fn the_connection_that_has_lain_idle_longest_makes_room() {
    let (first, rest) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (waiting, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let shared = (first.clone(), rest.clone(), waiting.clone(), closed.clone());
    let address = raw::serve(move |mut stream, _| {
        let (first, rest, waiting, closed) = shared.clone();
        async move {
            let head = read_head(&mut stream).await;
            let is_first = head.starts_with("GET /first");
            let go = if is_first {
                first.notified()
            } else {
                rest.notified()
            };
            tokio::pin!(go);
            go.as_mut().enable();
            waiting.fetch_add(1, Ordering::SeqCst);
            go.await;
            say(&mut stream, OK).await;
            raw::read_all(&mut stream).await;
            closed.lock().unwrap().push(is_first);
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let upstream = Arc::new(upstream(&[address]));
    let ask = |target| {
        let upstream = upstream.clone();
        async move { text(upstream.send(get(target), SOON).await.unwrap()).await }
    };
    let mut asking = tokio::task::JoinSet::new();
    asking.spawn(ask("/first"));
    for _ in 0..MAX_IDLE {
        asking.spawn(ask("/"));
    }
    let until = async |is_so: &(dyn Fn() -> bool + Sync)| {
        let so = async {
            while !is_so() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(raw::PATIENCE, so).await.expect("it comes so far");
    };
    until(&|| waiting.load(Ordering::SeqCst) == MAX_IDLE + 1).await;
    first.notify_waiters();
    asking.join_next().await.unwrap().unwrap();
    assert_eq!(upstream.origins[0].pool.lying_idle(), 1);
    rest.notify_waiters();
    asking.join_all().await;
    until(&|| !closed.lock().unwrap().is_empty()).await;
    assert_eq!(
        *closed.lock().unwrap(),
        [true],
        "the first that came back, and it alone"
    );
    assert_eq!(upstream.origins[0].pool.lying_idle(), MAX_IDLE);
}

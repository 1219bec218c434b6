//! HTTP/2 upstreams, with the h2 library's server or bare frames at the other end.

use super::*;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header::{TE, TRANSFER_ENCODING};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

fn h2c(address: SocketAddr) -> Upstream {
    Upstream::new(&[format!("http://{address}")], Protocol::H2c, None).unwrap()
}

fn builder(most_streams: u32) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(most_streams);
    builder
}

/// Answers each stream of a connection with `answer`.
async fn speak<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    builder: &h2::server::Builder,
    answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let tasks = TaskTracker::new();
    let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tasks.spawn(answer(request, respond));
    }
}

/// An upstream whose streams are answered with `answer`, which is told the connection's number.
async fn serving<F>(
    most_streams: u32,
    answer: impl Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    raw::serve(move |stream, n| {
        let answer = answer.clone();
        async move {
            speak(stream, &builder(most_streams), |request, respond| {
                answer(n, request, respond)
            })
            .await;
        }
    })
    .await
}

fn say_ok(mut respond: SendResponse<Bytes>) {
    // Who has gone away reads nothing.
    if let Ok(mut body) = respond.send_response(Response::new(()), false) {
        let _ = body.send_data(Bytes::from_static(b"ok"), true);
    }
}

async fn read(mut body: RecvStream) -> (Vec<u8>, HeaderMap) {
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        all.extend_from_slice(&data);
    }
    (all, body.trailers().await.ok().flatten().unwrap_or_default())
}

#[tokio::test]
async fn a_request_goes_up_the_way_of_http2_and_its_answer_comes_back_whole() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = seen.clone();
    let address = serving(100, move |n, request, mut respond| {
        let heads = heads.clone();
        async move {
            let (head, body) = request.into_parts();
            let (body, trailers) = read(body).await;
            heads.lock().unwrap().push((n, head, body, trailers));
            let mut back = respond.send_response(Response::new(()), false).unwrap();
            back.send_data(Bytes::from_static(b"ok"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            back.send_trailers(trailers).unwrap();
        }
    })
    .await;
    let upstream = h2c(address);
    let mut up = HeaderMap::new();
    up.insert("x-sum", HeaderValue::from_static("9"));
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"hi"))),
        Ok(Frame::trailers(up)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    let request = Request::post("/a/../%2Fb?x=%zz&")
        .header(TRANSFER_ENCODING, "chunked")
        .header(TE, "trailers");
    let answered = upstream.send(request.body(body).unwrap(), SOON).await.unwrap();
    let answer = answered.into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(answer.to_bytes(), "ok");
    let mut request = get("/x?");
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("app.example"));
    text(upstream.send(request, SOON).await.unwrap()).await;

    let seen = seen.lock().unwrap();
    let (n, head, body, trailers) = &seen[0];
    assert_eq!(head.uri, format!("http://{address}/a/../%2Fb?x=%zz&").as_str());
    assert_eq!((*n, head.method.as_str(), &body[..]), (0, "POST", &b"hi"[..]));
    assert_eq!(trailers["x-sum"], "9");
    let names: Vec<&str> = head.headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["te"], "nothing about a connection, and the host once");
    let (n, head, ..) = &seen[1];
    assert_eq!((*n, head.uri.to_string().as_str()), (0, "http://app.example/x?"));
    assert!(head.headers.is_empty(), "{:?}", head.headers);
}

#[tokio::test]
async fn many_share_one_connection_and_more_are_opened_only_beyond_its_streams() {
    let (most, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let go = Arc::new(Notify::new());
    let (noted, under_way, wait) = (most.clone(), now.clone(), go.clone());
    let address = serving(10, move |n, _, respond| {
        let (noted, under_way, wait) = (noted.clone(), under_way.clone(), wait.clone());
        async move {
            noted.fetch_max(n + 1, Ordering::SeqCst);
            under_way.fetch_add(1, Ordering::SeqCst);
            wait.notified().await;
            say_ok(respond);
        }
    })
    .await;
    let upstream = Arc::new(h2c(address));
    // The first says how many streams there may be; then ten fit, and twenty-five need three connections.
    for (at_once, connections) in [(1, 1), (10, 1), (25, 3)] {
        now.store(0, Ordering::SeqCst);
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..at_once {
            let upstream = upstream.clone();
            asking.spawn(async move { text(upstream.send(get("/"), SOON).await.unwrap()).await });
        }
        let all = async {
            while now.load(Ordering::SeqCst) < at_once {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(raw::PATIENCE, all).await.expect("all are under way");
        go.notify_waiters();
        assert!(asking.join_all().await.iter().all(|answer| answer == "ok"));
        assert_eq!(most.load(Ordering::SeqCst), connections, "{at_once} at once");
        assert_eq!(upstream.origins[0].pool.shared(), connections);
    }
}

#[tokio::test]
async fn hp_22_what_an_upstream_refuses_to_look_at_is_sent_once_more() {
    for (always, body_read, status) in [(false, false, true), (true, false, false), (false, true, false)] {
        let hits = Arc::new(Mutex::new(Vec::new()));
        let seen = hits.clone();
        let address = serving(100, move |n, _, mut respond| {
            let seen = seen.clone();
            async move {
                seen.lock().unwrap().push(n);
                if always || n == 0 {
                    respond.send_reset(Reason::REFUSED_STREAM);
                } else {
                    say_ok(respond);
                }
            }
        })
        .await;
        let upstream = h2c(address);
        let request = if body_read { post("x") } else { get("/") };
        let sent = upstream.send(request, SOON).await;
        assert_eq!(sent.is_ok(), status, "{sent:?}");
        let wanted: &[usize] = if body_read { &[0] } else { &[0, 1] };
        assert_eq!(*hits.lock().unwrap(), wanted, "on another connection, and once");
    }
    // Any other reset may have come after it was carried out.
    let hits = Arc::new(AtomicUsize::new(0));
    let count = hits.clone();
    let address = serving(100, move |_, _, mut respond| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { respond.send_reset(Reason::INTERNAL_ERROR) }
    })
    .await;
    let error = h2c(address).send(get("/"), SOON).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "{error}");
    assert_eq!(hits.load(Ordering::SeqCst), 1);
}

const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

/// Reads the preface and frames, up to a request's head.
async fn read_to_headers(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut frame = vec![0; 24];
    if stream.read_exact(&mut frame).await.is_err() {
        return false;
    }
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        frame.resize(usize::try_from(length).unwrap(), 0);
        stream.read_exact(&mut frame).await.unwrap();
        if head[3] == 1 {
            return true;
        }
    }
}

#[tokio::test]
async fn hp_22_a_goaway_says_what_may_be_sent_again() {
    // The first connection's GOAWAY names its last stream: none, so that the request was not looked at; or this one.
    for (last, again) in [(0, true), (1, false)] {
        let hits = Arc::new(AtomicUsize::new(0));
        let count = hits.clone();
        let address = raw::serve(move |mut stream, n| {
            let count = count.clone();
            async move {
                if n > 0 {
                    let builder = builder(10);
                    let ok = |_, respond| {
                        count.fetch_add(1, Ordering::SeqCst);
                        async move { say_ok(respond) }
                    };
                    return speak(stream, &builder, ok).await;
                }
                say(&mut stream, SETTINGS).await;
                assert!(read_to_headers(&mut stream).await);
                count.fetch_add(1, Ordering::SeqCst);
                let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0];
                say(&mut stream, goaway).await;
            }
        })
        .await;
        let upstream = h2c(address);
        let sent = upstream.send(get("/"), SOON).await;
        assert_eq!(sent.is_ok(), again, "{sent:?}");
        assert_eq!(hits.load(Ordering::SeqCst), if again { 2 } else { 1 });
        // The connection is gone for everybody.
        assert_eq!(text(upstream.send(post("x"), SOON).await.unwrap()).await, "ok");
    }
}

#[tokio::test]
async fn a_connection_that_says_goodbye_while_nobody_uses_it_is_replaced() {
    let address = raw::serve(|stream, _| async move {
        let mut connection = builder(10).handshake::<_, Bytes>(stream).await.unwrap();
        let (_, respond) = connection.accept().await.unwrap().unwrap();
        say_ok(respond);
        connection.graceful_shutdown();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    })
    .await;
    let upstream = h2c(address);
    for _ in 0..5 {
        assert_eq!(text(upstream.send(post("x"), SOON).await.unwrap()).await, "ok");
    }
}

#[tokio::test]
async fn lm_08_an_answer_that_nobody_reads_holds_nobody_else_back() {
    let address = serving(100, |_, request, mut respond| async move {
        if request.uri().path() == "/" {
            return say_ok(respond);
        }
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        loop {
            body.reserve_capacity(64 * 1024);
            match std::future::poll_fn(|cx| body.poll_capacity(cx)).await {
                Some(Ok(room)) => body.send_data(vec![0; room].into(), false).unwrap(),
                _ => return,
            }
        }
    })
    .await;
    let upstream = h2c(address);
    let mut unread = Vec::new();
    for _ in 0..20 {
        let mut answered = upstream.send(get("/endless"), SOON).await.unwrap();
        assert!(answered.body_mut().frame().await.unwrap().is_ok());
        unread.push(answered);
    }
    assert_eq!(text(upstream.send(get("/"), SOON).await.unwrap()).await, "ok");
    assert_eq!(upstream.origins[0].pool.shared(), 1);
}

#[tokio::test]
async fn who_waits_for_the_same_connection_gets_the_same_failure() {
    let upstream = Arc::new(h2c(nobody().await));
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let upstream = upstream.clone();
        asking.spawn(async move { upstream.send(get("/"), SOON).await.unwrap_err().to_string() });
    }
    for error in asking.join_all().await {
        assert!(error.contains("refused"), "{error}");
    }
}

#[tokio::test]
async fn an_upstream_that_speaks_no_http2_is_unavailable() {
    let (address, _) = noting().await;
    let error = h2c(address).send(get("/"), SOON).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_shared_connection_that_nobody_uses_is_closed_after_a_minute() {
    let ended = Arc::new(Notify::new());
    let tell = ended.clone();
    let address = raw::serve(move |stream, _| {
        let tell = tell.clone();
        async move {
            speak(stream, &builder(10), |_, respond| async move { say_ok(respond) }).await;
            tell.notify_one();
        }
    })
    .await;
    let upstream = h2c(address);
    text(upstream.send(get("/"), SOON).await.unwrap()).await;
    let began = Instant::now();
    ended.notified().await;
    assert!(
        (56..=64).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fell_silent_is_given_up_and_one_that_lives_is_waited_for() {
    const LONG: Duration = Duration::from_hours(2);
    let address = raw::serve(|mut stream, n| async move {
        if n == 0 {
            // Takes the request, and then neither says nor closes anything.
            say(&mut stream, SETTINGS).await;
            assert!(read_to_headers(&mut stream).await);
            return std::future::pending().await;
        }
        // Thinks for an hour, and answers pings meanwhile.
        let answer = |_, respond| async move {
            tokio::time::sleep(LONG / 2).await;
            say_ok(respond);
        };
        speak(stream, &builder(10), answer).await;
    })
    .await;
    let upstream = h2c(address);
    let began = Instant::now();
    let error = upstream.send(get("/"), LONG).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "{error}");
    // Six minutes of silence, and twenty seconds for an answer to the ping.
    let took = began.elapsed().as_secs();
    assert!((380..=390).contains(&took), "{took} s");
    let began = Instant::now();
    assert_eq!(text(upstream.send(get("/"), LONG).await.unwrap()).await, "ok");
    assert!(began.elapsed() >= LONG / 2);
    assert_eq!(upstream.origins[0].pool.shared(), 1);
}

/// An https upstream that offers `protocols` and says in its answer which one was chosen, and the authority for it.
async fn choosing(protocols: &[&str]) -> (SocketAddr, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(vec!["api.localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let address = raw::serve(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                return speak(stream, &builder(10), |_, respond| async move { say_ok(respond) }).await;
            }
            while !read_head(&mut stream).await.is_empty() {
                say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n1.1").await;
            }
        }
    })
    .await;
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut ca, made.cert.pem().as_bytes()).unwrap();
    (address, ca)
}

#[tokio::test]
async fn over_tls_the_upstream_chooses_and_upgrades_go_over_http1() {
    for (offered, protocol, answer) in [
        (&["h2", "http/1.1"][..], Protocol::Auto, "ok"),
        (&["http/1.1"], Protocol::Auto, "1.1"),
        (&[], Protocol::Auto, "1.1"),
        (&["h2", "http/1.1"], Protocol::Http1, "1.1"),
    ] {
        let (address, ca) = choosing(offered).await;
        let origin = format!("https://api.localhost:{}", address.port());
        let upstream = Arc::new(Upstream::new(&[origin], protocol, Some(ca.path())).unwrap());
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let upstream = upstream.clone();
            asking.spawn(async move { text(upstream.send(get("/"), SOON).await.unwrap()).await });
        }
        let answers = asking.join_all().await;
        assert!(
            answers.iter().all(|found| found == answer),
            "{offered:?} {answers:?}"
        );
        assert_eq!(upstream.origins[0].pool.shared(), usize::from(answer == "ok"));
        let mut upgrade = get("/");
        upgrade
            .headers_mut()
            .insert("upgrade", HeaderValue::from_static("websocket"));
        let answered = upstream.send(upgrade, SOON).await.unwrap();
        assert_eq!(text(answered).await, "1.1", "{offered:?}");
        assert_eq!(text(upstream.send(get("/"), SOON).await.unwrap()).await, answer);
        assert_eq!(upstream.check_online().await[0].outcome, Ok(()));
    }
}

#[tokio::test]
async fn an_upstream_may_be_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let origin = format!("unix:{}", path.display());
    let upstream = Upstream::new(std::slice::from_ref(&origin), Protocol::Auto, None).unwrap();
    let error = upstream.send(get("/"), SOON).await.unwrap_err().to_string();
    assert!(
        error.contains(&origin) && error.contains("No such file"),
        "{error}"
    );
    let checked = &upstream.check_online().await[0];
    assert_eq!(checked.origin, origin);
    let complaint = checked.outcome.clone().unwrap_err();
    assert!(
        complaint.contains("No such file") && complaint.contains("may it be written to"),
        "{complaint}"
    );

    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let tasks = TaskTracker::new();
    let serving = tasks.clone();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            serving.spawn(async move {
                loop {
                    let head = read_head(&mut stream).await;
                    if head.is_empty() {
                        return;
                    }
                    assert!(head.contains("\r\nhost: localhost\r\n"), "{head}");
                    say(&mut stream, OK).await;
                }
            });
        }
    });
    for _ in 0..3 {
        assert_eq!(text(upstream.send(post(""), SOON).await.unwrap()).await, "ok");
    }
    assert_eq!(upstream.check_online().await[0].outcome, Ok(()));
    assert_eq!(upstream.origins[0].pool.lying_idle(), 1);
}

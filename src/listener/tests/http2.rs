//! HTTP/2 with prior knowledge, with hyper's client at the other end; malformed frames are the integration tests' matter.

use super::*;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::pin::pin;
use tokio::task::JoinHandle;

pub(super) struct Browser {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

pub(super) async fn browser(rig: &Rig) -> Browser {
    let stream = TokioIo::new(rig.connect().await);
    let (sender, connection) = handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = rig.tasks.spawn(connection);
    Browser { sender, connection }
}

impl Browser {
    pub(super) async fn send(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, http::HeaderMap, String) {
        let response = self.start(path, headers).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (
            head.status,
            head.headers,
            String::from_utf8_lossy(&body).into_owned(),
        )
    }

    fn start(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let mut request = Request::get(format!("http://app.example{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = self.sender.send_request(request.body(Full::default()).unwrap());
        async move { timeout(PATIENCE, sent).await.expect("an answer in time") }
    }

    /// The connection's end, as the browser sees it.
    async fn ends(self) -> bool {
        let ended = timeout(PATIENCE, self.connection)
            .await
            .expect("the connection ends");
        ended.unwrap().is_ok()
    }
}

#[tokio::test]
async fn a_connection_that_begins_with_the_preface_speaks_http2() {
    let rig = rig(|_| {}).await;
    let mut browser = browser(&rig).await;
    let (status, headers, body) = browser.send("/x?y", &[]).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "hello"));
    assert!(!headers.contains_key("connection"));
    assert_eq!(rig.asked(), ["GET http://app.example/x?y"]);
}

#[tokio::test]
async fn cookie_crumbs_are_one_line_for_everybody_behind() {
    let rig = rig(|_| {}).await;
    let mut browser = browser(&rig).await;
    browser
        .send(
            "/",
            &[
                ("cookie", "a=1"),
                ("x", "y"),
                ("cookie", "b=2; c=3"),
                ("cookie", "d=4"),
            ],
        )
        .await;
    browser.send("/", &[("cookie", "a=1")]).await;
    browser.send("/", &[]).await;
    let cookies = std::mem::take(&mut *rig.echo.cookies.lock().unwrap());
    assert_eq!(cookies, [vec!["a=1; b=2; c=3; d=4"], vec!["a=1"], vec![]]);
}

#[tokio::test]
async fn lm_03_heads_and_targets_are_bounded_on_http2() {
    let rig = rig(|_| {}).await;
    let mut browser = browser(&rig).await;
    let (long, cookie) = ("a".repeat(9000), "c".repeat(40_000));
    let (status, _, body) = browser.send(&format!("/{long}"), &[]).await;
    assert_eq!((status.as_u16(), body.as_str()), (414, "TargetTooLong true"));
    let (status, _, body) = browser.send("/", &[("cookie", &cookie)]).await;
    assert_eq!((status.as_u16(), body.as_str()), (431, "HeadTooLarge true"));
    let (status, _, body) = browser.send("/", &[("x", "y"); 101]).await;
    assert_eq!((status.as_u16(), body.as_str()), (431, "HeadTooLarge true"));
    assert!(rig.asked().is_empty());
    // One bad request is not the others' trouble.
    let (status, _, _) = browser.send("/", &[("x", "y"); 90]).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_panic_is_one_streams_500() {
    let rig = rig(|_| {}).await;
    let mut browser = browser(&rig).await;
    let waiting = browser.start("/wait", &[]);
    rig.echo.arrived.notified().await;
    let (status, _, body) = browser.send("/panic", &[]).await;
    assert_eq!((status.as_u16(), body.as_str()), (500, "Panic false"));
    rig.echo.release.notify_one();
    assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn lm_04_a_stream_that_is_given_up_ends_its_work() {
    let rig = rig(|_| {}).await;
    let mut browser = browser(&rig).await;
    let waiting = browser.start("/wait", &[]);
    rig.echo.arrived.notified().await;
    drop(waiting);
    timeout(PATIENCE, async {
        while rig.echo.dropped.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the work ends with its stream");
    assert_eq!(browser.send("/", &[]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn lm_04_who_only_begins_requests_and_gives_them_up_is_cut_off() {
    let rig = rig(|_| {}).await;
    let mut browser = browser(&rig).await;
    // Taken up first, then given up, so that the library's own count does not see it.
    for n in 0..=200 {
        assert!(!browser.connection.is_finished(), "cut off after {n}");
        let waiting = browser.start("/wait", &[]);
        rig.echo.arrived.notified().await;
        drop(waiting);
    }
    browser.ends().await;
    let mut next = self::browser(&rig).await;
    assert_eq!(next.send("/", &[]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn lm_04_giving_up_is_fine_where_most_is_waited_for() {
    let rig = rig(|_| {}).await;
    let mut browser = browser(&rig).await;
    for _ in 0..250 {
        assert_eq!(browser.send("/", &[]).await.0, StatusCode::OK);
        let waiting = browser.start("/wait", &[]);
        rig.echo.arrived.notified().await;
        drop(waiting);
    }
    assert_eq!(browser.send("/", &[]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn lm_11_stopping_says_goaway_and_lets_streams_finish() {
    let rig = rig(|_| {}).await;
    let mut browser = browser(&rig).await;
    let waiting = browser.start("/wait", &[]);
    rig.echo.arrived.notified().await;
    let mut idle = self::browser(&rig).await;
    idle.send("/", &[]).await;
    rig.stop.cancel();
    assert!(idle.ends().await, "an idle connection ends cleanly");
    rig.echo.release.notify_one();
    assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    assert!(browser.ends().await, "so does one whose streams have finished");
    rig.ended().await;
}

#[tokio::test]
async fn cutting_ends_streams_at_once() {
    let rig = rig(|_| {}).await;
    let mut browser = browser(&rig).await;
    let waiting = browser.start("/wait", &[]);
    rig.echo.arrived.notified().await;
    rig.stop.cancel();
    rig.cut.cancel();
    assert!(waiting.await.is_err());
    browser.ends().await;
    assert_eq!(rig.echo.dropped.load(Ordering::SeqCst), 1, "no work is left");
    rig.ended().await;
}

#[tokio::test]
async fn an_idle_connection_ends_and_one_with_a_stream_does_not() {
    let idle = Duration::from_millis(300);
    let rig = rig(|bounds| bounds.idle_timeout = idle).await;
    let mut first = browser(&rig).await;
    let began = Instant::now();
    first.send("/", &[]).await;
    assert!(first.ends().await, "with GOAWAY");
    assert!(began.elapsed() >= idle, "{:?}", began.elapsed());

    let mut busy = browser(&rig).await;
    let waiting = busy.start("/wait", &[]);
    rig.echo.arrived.notified().await;
    let later = began + began.elapsed() + 4 * idle;
    let ended = tokio::time::timeout_at(later, &mut busy.connection).await;
    assert!(ended.is_err(), "a request under way is not idle");
    rig.echo.release.notify_one();
    assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    assert!(busy.ends().await);
}

#[tokio::test]
async fn ws_05_a_tunnel_keeps_its_place_and_its_connection_for_as_long_as_it_lasts() {
    let idle = Duration::from_millis(300);
    let rig = rig(|bounds| (bounds.idle_timeout, bounds.streams) = (idle, places(1))).await;
    let (mut first, mut other) = (browser(&rig).await, browser(&rig).await);
    let mut request = Request::connect("http://app.example/tunnel")
        .body(Full::default())
        .unwrap();
    let protocol = hyper::ext::Protocol::from_static("websocket");
    request.extensions_mut().insert(protocol);
    let response = first.sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let waiting = other.start("/", &[]);
    let mut waiting = pin!(waiting);
    assert!(
        timeout(4 * idle, waiting.as_mut()).await.is_err(),
        "the place is taken"
    );
    assert!(!first.connection.is_finished(), "a tunnel is not idle");
    tunnel.write_all(b"still here").await.unwrap();
    let mut back = [0; 10];
    tunnel.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"still here");
    tunnel.shutdown().await.unwrap();
    assert_eq!(tunnel.read(&mut back).await.unwrap(), 0);
    assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    assert!(first.ends().await, "after it the connection is idle");
}

#[tokio::test(start_paused = true)]
async fn lm_01_a_header_block_without_an_end_is_not_waited_for() {
    let rig = rig(|_| {}).await;
    // Preface and SETTINGS; HEADERS without END_HEADERS on stream 1; silence.
    for head in [
        &b"\0\0\0\x04\0\0\0\0\0\0\0\x02\x01\0\0\0\0\x01\x82\x87"[..],
        b"\0\0\0\x04\0\0\0\0\0\0\0\x64\x01",
        b"",
    ] {
        let mut stream = rig.connect().await;
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(head).await.unwrap();
        let began = Instant::now();
        let mut scrap = [0; 1024];
        timeout(Duration::from_mins(5), async {
            while let Ok(1..) = stream.read(&mut scrap).await {}
        })
        .await
        .expect("the connection ends");
        assert!(
            began.elapsed() <= Duration::from_secs(33),
            "{:?}",
            began.elapsed()
        );
    }
    assert!(rig.asked().is_empty());
}

#[tokio::test]
async fn lm_04_a_stream_too_many_waits_for_a_place_whatever_its_connection() {
    let rig = rig(|bounds| bounds.streams = places(2)).await;
    let (mut one, mut other) = (browser(&rig).await, browser(&rig).await);
    let waiting = (one.start("/wait", &[]), one.start("/wait", &[]));
    rig.echo.arrived.notified().await;
    while rig.echo.asked.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let third = other.start("/3", &[]);
    let mut third = pin!(third);
    assert!(timeout(Duration::from_millis(200), third.as_mut()).await.is_err());
    assert_eq!(rig.asked().len(), 2);
    rig.echo.release.notify_one();
    assert_eq!(third.await.unwrap().status(), StatusCode::OK);
    rig.echo.release.notify_one();
    assert!(waiting.0.await.is_ok() && waiting.1.await.is_ok());
}

#[tokio::test]
async fn lm_11_a_connection_without_streams_does_not_hold_a_stop_up() {
    let rig = rig(|_| {}).await;
    // Speaks once and then answers nothing, not even PING: a laptop that sleeps.
    let mut asleep = rig.connect().await;
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x82\x87\x84";
    asleep.write_all(hello).await.unwrap();
    while rig.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    // And one that has not even begun.
    let silent = rig.connect().await;
    let began = Instant::now();
    rig.stop.cancel();
    rig.ended().await;
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    drop((asleep, silent));
}

#[tokio::test]
async fn a_request_that_meets_the_idle_close_is_answered() {
    let rig = rig(|bounds| bounds.idle_timeout = Duration::from_millis(300)).await;
    let mut stream = rig.connect().await;
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
    stream.write_all(settings).await.unwrap();
    stream
        .write_all(b"\0\0\x03\x01\x05\0\0\0\x01\x82\x87\x84")
        .await
        .unwrap();
    let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0];
    read_until(&mut stream, &goaway).await;
    // It was sent before the GOAWAY was seen, and takes longer than two sides need to part.
    let mut waits = b"\0\0\x09\x01\x05\0\0\0\x03\x82\x87\x04\x05/wait".to_vec();
    waits[2] = 9;
    stream.write_all(&waits).await.unwrap();
    rig.echo.arrived.notified().await;
    let later = timeout(Duration::from_secs(6), read_until(&mut stream, b"waited")).await;
    assert!(later.is_err(), "still under way");
    rig.echo.release.notify_one();
    timeout(PATIENCE, read_until(&mut stream, b"waited"))
        .await
        .expect("the answer");
}

#[tokio::test]
async fn who_agrees_on_http2_and_says_nothing_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pair = super::tls::pair();
    let tls = Tls::watching(&[super::tls::files(folder.path(), &pair)]).unwrap();
    let rig = rig_with(Some(tls), |bounds| bounds.header_timeout = Duration::from_secs(1)).await;
    let began = Instant::now();
    let mut stream = super::tls::connect(&rig, rustls::ALL_VERSIONS, &["h2"])
        .await
        .unwrap();
    let mut scrap = [0; 64];
    timeout(PATIENCE, async {
        while let Ok(1..) = stream.read(&mut scrap).await {}
    })
    .await
    .expect("the connection ends");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn hp_12_a_value_with_space_around_it_is_refused() {
    let rig = rig(|_| {}).await;
    for value in [" b", "b ", "\tb", "b\t", " "] {
        let mut stream = rig.connect().await;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        let length = u8::try_from(value.len()).unwrap();
        let block = [
            b"\x82\x87\x84\x01\x01a\x00\x01x".as_slice(),
            &[length],
            value.as_bytes(),
        ]
        .concat();
        bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
        bytes.extend(block);
        stream.write_all(&bytes).await.unwrap();
        timeout(PATIENCE, read_until(&mut stream, b"OddSpace true"))
            .await
            .expect("a refusal");
    }
    assert!(rig.asked().is_empty());
}

/// Reads until these bytes have come.
async fn read_until(stream: &mut TcpStream, wanted: &[u8]) {
    let mut seen = Vec::new();
    while !seen.windows(wanted.len()).any(|window| window == wanted) {
        let byte = stream.read_u8().await;
        seen.push(byte.unwrap_or_else(|_| panic!("the end after {:?}", String::from_utf8_lossy(&seen))));
    }
}

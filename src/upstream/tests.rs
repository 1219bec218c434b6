//! Against upstreams on bare sockets.

mod giving_back;
mod http2;
mod reuse;

use super::raw::{self, read_exactly, read_head, say};
use super::*;
use http::HeaderValue;
use http_body_util::{BodyExt, Full};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SOON: Duration = Duration::from_secs(10);

fn upstream(addresses: &[SocketAddr]) -> Upstream {
    let origins: Vec<String> = addresses
        .iter()
        .map(|address| format!("http://{address}"))
        .collect();
    Upstream::new(&origins, Protocol::Auto, None).unwrap()
}

fn get(target: &str) -> Request<RequestBody> {
    Request::builder().uri(target).body(nothing()).unwrap()
}

fn post(body: &'static str) -> Request<RequestBody> {
    let body = Full::from(body).map_err(|never| match never {}).boxed_unsync();
    Request::builder().method("POST").uri("/").body(body).unwrap()
}

async fn text(response: Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug>>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// An upstream that answers every request and notes its head.
async fn noting() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let address = raw::serve(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                seen.lock().unwrap().push(head);
                say(&mut stream, OK).await;
            }
        }
    })
    .await;
    (address, heads)
}

#[tokio::test]
async fn hp_17_path_and_query_go_up_byte_for_byte() {
    let (address, heads) = noting().await;
    let upstream = upstream(&[address]);
    for target in [
        "/",
        "/%61pi",
        "/a%2Fb",
        "/a;x=1/b",
        "/x?%zz",
        "/x?a|b{c}^`\\[]",
        "/x?",
        "/x??a=/../b",
        "/%C3%BC",
        "/a/../b",
        "//x",
        "/a%20b?q=a%20b+c",
        "/?\u{fc}",
        "/x?y=http://z/",
    ] {
        text(upstream.send(get(target), SOON).await.unwrap()).await;
        let head = heads.lock().unwrap().pop().unwrap();
        assert_eq!(
            head.lines().next(),
            Some(format!("GET {target} HTTP/1.1").as_str())
        );
    }
}

#[tokio::test]
async fn host_is_the_chosen_origins_own_unless_it_is_given() {
    let (first, first_heads) = noting().await;
    let (second, second_heads) = noting().await;
    let upstream = upstream(&[first, second]);
    assert_eq!(upstream.authority(), first.to_string());
    for _ in 0..4 {
        text(upstream.send(get("/"), SOON).await.unwrap()).await;
    }
    for (address, heads) in [(first, first_heads), (second, second_heads.clone())] {
        let heads = heads.lock().unwrap();
        assert_eq!(heads.len(), 2, "in turn");
        assert!(
            heads
                .iter()
                .all(|head| head.contains(&format!("\r\nhost: {address}\r\n"))),
            "{heads:?}"
        );
    }
    let mut request = get("/");
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("app.example"));
    text(upstream.send(request, SOON).await.unwrap()).await;
    let one = self::upstream(&[second]);
    let mut request = get("/");
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("app.example"));
    text(one.send(request, SOON).await.unwrap()).await;
    assert!(
        second_heads
            .lock()
            .unwrap()
            .last()
            .unwrap()
            .contains("\r\nhost: app.example\r\n")
    );
    assert_eq!(
        Upstream::new(&["https://orders:443".into()], Protocol::Auto, None)
            .unwrap()
            .authority(),
        "orders"
    );
    assert_eq!(
        Upstream::new(&["http://orders:8080/".into()], Protocol::Auto, None)
            .unwrap()
            .authority(),
        "orders:8080"
    );
}

#[tokio::test]
async fn connections_are_kept_and_a_stale_one_is_replaced() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let (closed, mut closing) = tokio::sync::mpsc::channel(1);
    let address = raw::serve(move |mut stream, n| {
        let (seen, closed) = (seen.clone(), closed.clone());
        async move {
            // The first connection serves two requests and is closed while it is idle.
            for _ in 0..2 {
                read_head(&mut stream).await;
                let body = read_exactly(&mut stream, 3).await;
                seen.lock().unwrap().push((n, body));
                say(&mut stream, OK).await;
            }
            drop(stream);
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let upstream = upstream(&[address]);
    for body in ["one", "two"] {
        assert_eq!(text(upstream.send(post(body), SOON).await.unwrap()).await, "ok");
    }
    closing.recv().await.unwrap();
    assert_eq!(text(upstream.send(post("tri"), SOON).await.unwrap()).await, "ok");
    let bodies = bodies.lock().unwrap();
    let wanted: Vec<(usize, Vec<u8>)> = vec![(0, b"one".into()), (0, b"two".into()), (1, b"tri".into())];
    assert_eq!(*bodies, wanted, "each exactly once");
}

#[tokio::test]
async fn hp_22_what_was_sent_is_never_sent_again() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let address = raw::serve(move |mut stream, _| {
        let count = count.clone();
        async move {
            read_head(&mut stream).await;
            read_exactly(&mut stream, 3).await;
            count.fetch_add(1, Ordering::SeqCst);
            say(&mut stream, OK).await;
            // The second request on the connection is read and never answered.
            if !read_head(&mut stream).await.is_empty() {
                read_exactly(&mut stream, 3).await;
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let upstream = upstream(&[address]);
    text(upstream.send(post("one"), SOON).await.unwrap()).await;
    let error = upstream.send(post("two"), SOON).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "{error}");
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
async fn an_origin_that_refuses_is_passed_over() {
    let (address, heads) = noting().await;
    let upstream = upstream(&[nobody().await, address]);
    for _ in 0..6 {
        assert_eq!(text(upstream.send(post(""), SOON).await.unwrap()).await, "ok");
    }
    assert_eq!(heads.lock().unwrap().len(), 6);
    assert_eq!(
        upstream.in_order()[0].host,
        address.to_string().as_str(),
        "the refusing one comes last"
    );
    let upstream = self::upstream(&[nobody().await, nobody().await]);
    let error = upstream.send(post("x"), SOON).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_body_goes_whole_to_the_origin_that_answers() {
    let address = raw::serve(|mut stream, _| async move {
        let head = read_head(&mut stream).await;
        assert!(head.contains("content-length: 5\r\n"), "{head}");
        let body = read_exactly(&mut stream, 5).await;
        say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
        say(&mut stream, body).await;
    })
    .await;
    let upstream = upstream(&[nobody().await, address]);
    assert_eq!(
        text(upstream.send(post("hello"), SOON).await.unwrap()).await,
        "hello"
    );
}

#[tokio::test]
async fn a_silent_upstream_is_late() {
    let address = raw::serve(|mut stream, _| async move {
        raw::read_all(&mut stream).await;
    })
    .await;
    let upstream = upstream(&[address]);
    for request in [get("/"), post("x")] {
        let error = upstream
            .send(request, Duration::from_millis(100))
            .await
            .unwrap_err();
        assert!(matches!(error, UpstreamError::Timeout), "{error}");
    }
}

#[tokio::test]
async fn an_upload_that_moves_is_not_late() {
    let address = raw::serve(|mut stream, _| async move {
        read_head(&mut stream).await;
        read_exactly(&mut stream, 10).await;
        say(&mut stream, OK).await;
    })
    .await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames = stream_of(receiver);
    let request = Request::builder()
        .method("POST")
        .uri("/")
        .header("content-length", "10")
        .body(frames)
        .unwrap();
    let upstream = upstream(&[address]);
    let began = Instant::now();
    let (sent, ()) = tokio::join!(upstream.send(request, Duration::from_millis(300)), async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            sender.send(Bytes::from_static(b"x")).await.unwrap();
        }
    });
    assert_eq!(text(sent.unwrap()).await, "ok");
    assert!(began.elapsed() > Duration::from_millis(300));
}

/// A body out of what is sent into a channel.
fn stream_of(receiver: tokio::sync::mpsc::Receiver<Bytes>) -> RequestBody {
    struct Frames(tokio::sync::mpsc::Receiver<Bytes>);
    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
            self.0
                .poll_recv(cx)
                .map(|data| data.map(|data| Ok(http_body::Frame::data(data))))
        }
    }
    Frames(receiver).boxed_unsync()
}

#[tokio::test]
async fn this_machines_names_are_this_machine() {
    let (address, _) = noting().await;
    for name in ["localhost", "api.localhost", "API.LocalHost"] {
        let upstream = Upstream::new(
            &[format!("http://{name}:{}", address.port())],
            Protocol::Auto,
            None,
        )
        .unwrap();
        assert_eq!(
            text(upstream.send(get("/"), SOON).await.unwrap()).await,
            "ok",
            "{name}"
        );
    }
}

#[tokio::test]
async fn check_online_says_what_was_tried_and_what_to_do() {
    let (address, heads) = noting().await;
    let away = nobody().await;
    let checked = upstream(&[address, away]).check_online().await;
    assert_eq!(checked[0].origin, format!("http://{address}"));
    assert_eq!(checked[0].outcome, Ok(()));
    assert!(
        checked[1].outcome.as_ref().unwrap_err().contains("refused"),
        "{checked:?}"
    );
    assert!(heads.lock().unwrap().is_empty(), "nothing is sent");
}

#[test]
fn only_origins_are_upstreams() {
    for wrong in [
        "",
        "orders:8080",
        "ftp://a",
        "http://",
        "http://u:p@a",
        "http://a/b",
        "http://a?b",
        "http://a#b",
        "/x",
    ] {
        assert!(
            Upstream::new(&[wrong.to_owned()], Protocol::Auto, None).is_err(),
            "{wrong}"
        );
    }
    assert!(Upstream::new(&[], Protocol::Auto, None).is_err());
    assert!(
        Upstream::new(
            &["https://a".into()],
            Protocol::Auto,
            Some(Path::new("/nowhere.pem"))
        )
        .is_err()
    );
}

#[tokio::test]
async fn https_upstreams_are_verified_against_the_routes_ca() {
    let made = rcgen::generate_simple_self_signed(vec!["api.localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let address = raw::serve(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            if !read_head(&mut stream).await.is_empty() {
                say(&mut stream, OK).await;
            }
        }
    })
    .await;
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut ca, made.cert.pem().as_bytes()).unwrap();
    let origin = |name: &str| vec![format!("https://{name}:{}", address.port())];
    let trusting = Upstream::new(&origin("api.localhost"), Protocol::Auto, Some(ca.path())).unwrap();
    assert_eq!(text(trusting.send(get("/"), SOON).await.unwrap()).await, "ok");
    assert_eq!(trusting.check_online().await[0].outcome, Ok(()));
    // Another name than the certificate's, and an authority that nobody vouched for.
    for wrong in [
        Upstream::new(&origin("localhost"), Protocol::Auto, Some(ca.path())),
        Upstream::new(&origin("api.localhost"), Protocol::Auto, None),
    ] {
        let Ok(wrong) = wrong else { continue };
        let error = wrong.send(get("/"), SOON).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Unavailable(_)), "{error}");
        assert!(
            wrong.check_online().await[0]
                .outcome
                .as_ref()
                .unwrap_err()
                .contains("certificate")
        );
    }
}

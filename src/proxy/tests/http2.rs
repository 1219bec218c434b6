//! An upstream that speaks HTTP/2, and browsers of both versions: what makes gRPC pass.

use super::*;
use crate::config::Protocol;
use h2::server::SendResponse;
use h2::{RecvStream, server};
use http::HeaderMap;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

type Messages = Arc<Mutex<Vec<(http::request::Parts, Vec<u8>, HeaderMap)>>>;

/// Notes a message and answers it with its own body and some trailers.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Messages) {
    let (head, mut body) = request.into_parts();
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let kind = head.headers.get("content-type").cloned();
    seen.lock().unwrap().push((head, all.clone(), trailers));
    let mut answer = Response::builder().header("trailer", "grpc-status, set-cookie");
    if let Some(kind) = kind {
        answer = answer.header("content-type", kind);
    }
    let mut back = respond.send_response(answer.body(()).unwrap(), false).unwrap();
    back.send_data(all.into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("set-cookie", HeaderValue::from_static("a=evil"));
    back.send_trailers(trailers).unwrap();
}

async fn echoing(host: HostMode) -> (Rig, SocketAddr, Messages) {
    let seen = Messages::default();
    let all = seen.clone();
    let upstream = raw::serve(move |stream, _| {
        let all = all.clone();
        async move {
            let tasks = TaskTracker::new();
            let mut connection = server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                tasks.spawn(echo(request, respond, all.clone()));
            }
        }
    })
    .await;
    let route = RouteSettings {
        protocol: Protocol::H2c,
        host,
        ..route()
    };
    (rig(upstream, route).await, upstream, seen)
}

#[tokio::test]
async fn hp_21_http2_passes_trailers_both_ways_and_te_with_them() {
    for (host, keeps) in [(HostMode::Rewrite, false), (HostMode::Keep, true)] {
        let (rig, upstream, seen) = echoing(host).await;
        let stream = TokioIo::new(TcpStream::connect(rig.address).await.unwrap());
        let (mut sender, driver) = handshake(TokioExecutor::new(), stream).await.unwrap();
        rig.tasks.spawn(driver);
        let mut trailers = HeaderMap::new();
        for (name, value) in [
            ("x-sum", "9"),
            ("x-forwarded-for", "evil"),
            ("authorization", "evil"),
            ("cookie", "evil"),
        ] {
            trailers.insert(name, HeaderValue::from_static(value));
        }
        // A gRPC-web message as well passes byte for byte.
        let message = Bytes::from_static(b"\0\0\0\0\x02\xff\0\x80\0\0\0\x10grpc-status: 0\r\n");
        let frames = [
            Ok::<_, Infallible>(http_body::Frame::data(message.clone())),
            Ok(http_body::Frame::trailers(trailers)),
        ];
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let request = Request::post("http://app.example/api/echo.Echo/Say")
            .header("content-type", "application/grpc-web+proto")
            .header("te", "trailers");
        let answered = sender.send_request(request.body(body).unwrap()).await.unwrap();
        assert_eq!(answered.headers()["content-type"], "application/grpc-web+proto");
        let answer = answered.into_body().collect().await.unwrap();
        let back = answer.trailers().unwrap();
        assert_eq!(
            (back.len(), back["grpc-status"].as_bytes()),
            (1, &b"0"[..]),
            "{back:?}"
        );
        assert_eq!(answer.to_bytes(), message);

        let seen = seen.lock().unwrap();
        let (head, body, up) = &seen[0];
        assert_eq!(*body, message);
        assert_eq!(
            (up.len(), up.get("x-sum").map(HeaderValue::as_bytes)),
            (1, Some(&b"9"[..])),
            "{up:?}"
        );
        let authority = if keeps {
            "app.example".to_owned()
        } else {
            upstream.to_string()
        };
        assert_eq!(head.uri, format!("http://{authority}/api/echo.Echo/Say").as_str());
        assert_eq!(head.headers["te"], "trailers");
        assert_eq!(head.headers["authorization"], "Bearer the-access-token");
        assert!(!head.headers.contains_key("host") && !head.headers.contains_key("transfer-encoding"));
    }
}

#[tokio::test]
async fn hp_21_http1_gets_the_trailers_that_it_takes() {
    let (rig, _, seen) = echoing(HostMode::Rewrite).await;
    let head = "POST /api HTTP/1.1\r\nTransfer-Encoding: chunked";
    let response = rig
        .ask(&format!("{head}\r\nTE: trailers"), "2\r\nhi\r\n0\r\n\r\n")
        .await;
    assert!(
        response.ends_with("2\r\nhi\r\n0\r\ngrpc-status: 0\r\n\r\n"),
        "{response}"
    );
    assert_eq!(values(&response, "trailer"), ["grpc-status"]);
    let response = rig.ask(head, "2\r\nhi\r\n0\r\n\r\n").await;
    assert!(
        response.ends_with("2\r\nhi\r\n0\r\n\r\n") && !response.contains("trailer"),
        "{response}"
    );
    let seen = seen.lock().unwrap();
    assert!(!seen[1].0.headers.contains_key("te"), "it was not said");
}

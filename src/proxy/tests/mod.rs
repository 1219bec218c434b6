//! The whole way over real sockets: a bare browser, our listener, `forward`, a bare upstream.

mod headers;
mod http2;
mod smuggling;
mod streaming;
mod websocket;

use super::*;
use crate::config::{AuthorizationMode, Csrf, EncodedSlash, HostMode, Protocol, Require};
use crate::listener::{self, Bounds, Socket};
use crate::upstream::raw;
use bytes::Bytes;
use http_body_util::Empty;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// Forwards every request; a failure becomes its status and its name in `x-failure`.
#[derive(Clone)]
struct Forwarding(Arc<Setting>);

struct Setting {
    route: RouteSettings,
    upstream: Upstream,
    public_url: PublicUrl,
    bearer: Option<HeaderValue>,
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl listener::Service for Forwarding {
    type Body = Body;

    async fn call(&self, request: Request<Incoming>, peer: SocketAddr) -> Result<Response<Body>, Infallible> {
        let setting = &self.0;
        let (mut head, body) = request.into_parts();
        let forwarded = match RequestPath::parse(head.uri.path()) {
            Ok(path) => {
                let passage = Passage {
                    route: &setting.route,
                    upstream: &setting.upstream,
                    path: &path,
                    bearer: setting.bearer.clone(),
                    client: peer.ip(),
                    request_id: "our-request-id",
                    public_url: &setting.public_url,
                    session_cookie: "__Host-Http-cloakroom",
                    opener: None,
                    tasks: &setting.tasks,
                    cut: &setting.cut,
                };
                forward(&mut head, body, passage).await
            }
            Err(doubt) => Err(Failure::BadRequest(doubt.0)),
        };
        Ok(forwarded.unwrap_or_else(|failure| {
            let status = match failure {
                Failure::TooLarge => 413,
                Failure::TooSlow => 408,
                Failure::Loop => 508,
                Failure::UpstreamUnavailable => 502,
                Failure::UpstreamTimeout => 504,
                Failure::BadRequest(_) => 400,
                _ => 500,
            };
            let mut response = Response::new(
                Empty::<Bytes>::new()
                    .map_err(|never| match never {})
                    .boxed_unsync(),
            );
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let name = HeaderValue::try_from(format!("{failure:?}")).unwrap();
            response.headers_mut().insert("x-failure", name);
            response
        }))
    }
}

fn route() -> RouteSettings {
    RouteSettings {
        path: "/api".into(),
        upstream: Vec::new(),
        files: None,
        auth: None,
        pages: None,
        csrf: Csrf::Auto,
        require: Require::default(),
        strip_prefix: false,
        protocol: Protocol::Auto,
        host: HostMode::Rewrite,
        encoded_slash: EncodedSlash::Refuse,
        authorization: AuthorizationMode::Replace,
        timeout: Duration::from_secs(10),
        body_limit: None,
        ca: None,
    }
}

struct Rig {
    address: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
}

/// A listener that forwards to `upstream`.
async fn rig(upstream: SocketAddr, route: RouteSettings) -> Rig {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig {
        address: socket.local_addr().unwrap(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        cut: CancellationToken::new(),
    };
    let bounds = Bounds {
        header_timeout: Duration::from_secs(10),
        idle_timeout: listener::IDLE_TIMEOUT,
        max_header_size: 32 * 1024,
        max_headers: 100,
        places: listener::places(100),
        streams: listener::places(100),
        speaking: Arc::default(),
    };
    let mut bearer = HeaderValue::from_static("Bearer the-access-token");
    bearer.set_sensitive(true);
    let forwarding = Forwarding(Arc::new(Setting {
        bearer: (route.auth() != crate::config::Auth::None).then_some(bearer),
        upstream: Upstream::new(&[format!("http://{upstream}")], route.protocol, None).unwrap(),
        route,
        public_url: PublicUrl::parse("https://app.example").unwrap(),
        tasks: rig.tasks.clone(),
        cut: rig.cut.clone(),
    }));
    let serving = listener::serve(
        Socket {
            tcp: socket,
            tls: None,
        },
        bounds,
        forwarding,
        rig.stop.clone(),
        rig.cut.clone(),
    );
    rig.tasks.spawn(serving);
    rig
}

impl Rig {
    /// Says a request (`Connection: close` is added) and returns the whole answer.
    async fn ask(&self, head: &str, body: &str) -> String {
        raw::exchange(
            self.address,
            format!("{head}\r\nHost: app.example\r\nConnection: close\r\n\r\n{body}"),
        )
        .await
    }
}

/// Everything that an upstream saw, in order of arrival.
type Seen = Arc<Mutex<Vec<String>>>;

/// An upstream that notes each head and answers with `answer`, one request a connection.
async fn answering(answer: impl Into<Vec<u8>>) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let heads = seen.clone();
    let answer = Arc::new(answer.into());
    let address = raw::serve(move |mut stream, _| {
        let (heads, answer) = (heads.clone(), answer.clone());
        async move {
            let head = raw::read_head(&mut stream).await;
            heads.lock().unwrap().push(head);
            raw::say(&mut stream, &*answer).await;
        }
    })
    .await;
    (address, seen)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// The values of a header in a raw head, in order.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let head = head.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines
        .filter(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or_default()
}

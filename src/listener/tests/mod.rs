//! The listener over real sockets, with a service that notes what it is asked.

mod http1;
mod http2;
mod parking;
mod stall;
mod tls;

use super::*;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers by path; notes what it is asked.
#[derive(Clone, Default)]
struct Echo {
    cookies: Arc<Mutex<Vec<Vec<String>>>>,
    asked: Arc<Mutex<Vec<String>>>,
    dropped: Arc<AtomicUsize>,
    tunnels: TaskTracker,
    arrived: Arc<Notify>,
    release: Arc<Notify>,
    switching: Arc<Mutex<Option<OnUpgrade>>>,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Service for Echo {
    const WEBSOCKETS: bool = true;
    type Body = Full<Bytes>;

    async fn call(
        &self,
        mut request: Request<Incoming>,
        _: SocketAddr,
    ) -> Result<Response<Self::Body>, Infallible> {
        let path = request.uri().path().to_owned();
        self.asked
            .lock()
            .unwrap()
            .push(format!("{} {}", request.method(), request.uri()));
        let lines = request.headers().get_all("cookie").iter();
        let cookies = lines.map(|line| line.to_str().unwrap().to_owned()).collect();
        self.cookies.lock().unwrap().push(cookies);
        if path == "/switch" {
            *self.switching.lock().unwrap() = Some(hyper::upgrade::on(request));
            let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            return Ok(switching.body(Full::default()).unwrap());
        }
        let body = match path.as_str() {
            "/read" => match request.into_body().collect().await {
                Ok(body) => body.to_bytes(),
                Err(_) => Bytes::from_static(b"broken"),
            },
            "/tunnel" => {
                let hold = request.extensions_mut().remove::<Hold>();
                let upgrade = hyper::upgrade::on(&mut request);
                self.tunnels.spawn(async move {
                    let _held = hold.expect("a hold");
                    let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
                    tokio::io::copy(&mut from, &mut to).await.unwrap();
                    to.shutdown().await.unwrap();
                });
                Bytes::new()
            }
            "/panic" => panic!("as the test asked"),
            "/wait" => {
                let _counted = Counted(self.dropped.clone());
                self.arrived.notify_one();
                self.release.notified().await;
                Bytes::from_static(b"waited")
            }
            _ => Bytes::from_static(b"hello"),
        };
        let mut response = Response::new(Full::new(body));
        if path == "/refuse" {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok(response)
    }

    fn refuse(
        &self,
        refusal: Refusal,
        request: Option<&Request<Incoming>>,
        _: SocketAddr,
    ) -> Option<Response<Self::Body>> {
        let words = format!("{refusal:?} {}", request.is_some());
        let mut response = Response::new(Full::new(words.into()));
        *response.status_mut() = refusal.status();
        Some(response)
    }
}

struct Rig {
    address: SocketAddr,
    echo: Echo,
    stop: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

async fn rig(change: impl FnOnce(&mut Bounds)) -> Rig {
    rig_with(None, change).await
}

fn bounds() -> Bounds {
    Bounds {
        header_timeout: Duration::from_secs(10),
        idle_timeout: IDLE_TIMEOUT,
        max_header_size: 32 * 1024,
        max_headers: 100,
        places: places(100),
        streams: places(100),
        speaking: Arc::default(),
    }
}

async fn rig_with(tls: Option<Tls>, change: impl FnOnce(&mut Bounds)) -> Rig {
    let mut bounds = bounds();
    change(&mut bounds);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig {
        address: socket.local_addr().unwrap(),
        echo: Echo::default(),
        stop: CancellationToken::new(),
        cut: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let serving = serve(
        Socket { tcp: socket, tls },
        bounds,
        rig.echo.clone(),
        rig.stop.clone(),
        rig.cut.clone(),
    );
    rig.tasks.spawn(serving);
    rig
}

impl Rig {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything that comes back until the connection ends.
    async fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        let _ = stream.write_all(request.as_ref()).await;
        read_all(&mut stream).await
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.echo.asked.lock().unwrap())
    }

    async fn ended(&self) {
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.expect("still serving");
    }
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(PATIENCE, async {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut chunk).await {
            bytes.extend_from_slice(&chunk[..read]);
        }
    })
    .await
    .expect("the connection does not end");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_response(stream: &mut TcpStream, body: &str) -> String {
    let mut text = String::new();
    timeout(PATIENCE, async {
        while !text.ends_with(&format!("\r\n\r\n{body}")) {
            text.push(char::from(
                stream.read_u8().await.unwrap_or_else(|_| panic!("only {text}")),
            ));
        }
    })
    .await
    .unwrap_or_else(|_| panic!("only {text}"));
    text
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or_default()
}

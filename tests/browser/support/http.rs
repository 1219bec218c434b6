//! Just enough HTTP for tests: a server around a function, and a request to 127.0.0.1.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub type Answer = Response<BoxBody<Bytes, Infallible>>;

/// A server on a free port of 127.0.0.1 that ends when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    _accepting: JoinSet<()>,
}

impl Server {
    pub async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let connection = server::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                connections.spawn(async { drop(connection.await) });
            }
        });
        Self {
            address,
            _accepting: accepting,
        }
    }
}

/// An answer with a body of this type.
pub fn answer(content_type: &str, body: impl Into<Bytes>) -> Answer {
    let response = Response::builder().header("content-type", content_type);
    response.body(Full::new(body.into()).boxed()).expect("a response")
}

/// Status and body of one request to `authority` on this machine.
///
/// # Errors
/// Whatever stood in the way, as text.
pub async fn ask(method: &str, authority: &str, path: &str, body: &str) -> Result<(u16, Bytes), String> {
    let run = async {
        let stream = TcpStream::connect(authority)
            .await
            .map_err(|error| error.to_string())?;
        let (mut sender, connection) = client::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let mut driver = JoinSet::new();
        driver.spawn(async { drop(connection.await) });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", authority);
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .map_err(|error| error.to_string())?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    tokio::time::timeout(super::DEADLINE, run)
        .await
        .map_err(|_| "no answer in time".to_owned())?
}

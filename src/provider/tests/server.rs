//! A provider for tests, in this process, that answers as it is told and misbehaves on command.

use crate::protocol::signing::SIGNERS;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// What the server does with a request.
pub enum Reply {
    /// Status and JSON.
    Json(u16, Value),
    /// Status, header lines, body.
    Raw(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// A gigabyte.
    Endless,
    /// A byte now and then, for ever.
    Drip,
    /// Nothing, for ever.
    Hang,
    /// The request is read and the connection closed.
    Drop,
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Seen {
    /// A parameter of a form.
    pub fn form(&self, name: &str) -> Option<String> {
        let pairs = oauth2::url::form_urlencoded::parse(self.body.as_bytes());
        pairs
            .into_owned()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value)
    }
}

type Handler = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    /// `http://127.0.0.1:port`, or what it was started as.
    pub origin: String,
    handlers: Arc<Mutex<HashMap<String, Handler>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Listens on loopback, with an orderly discovery document and all test keys.
    pub async fn start() -> Self {
        Self::start_as("http", "127.0.0.1", None).await
    }

    /// The same under another name, over TLS where there is an acceptor.
    pub async fn start_as(scheme: &str, host: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self {
            address,
            origin: format!("{scheme}://{host}:{}", address.port()),
            handlers: Arc::default(),
            seen: Arc::default(),
        };
        server.answer("/.well-known/openid-configuration", 200, server.document());
        server.answer("/jwks", 200, json!({"keys": all_keys()}));
        let (tracker, on) = (TaskTracker::new(), server.clone());
        tracker.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (on, tls) = (on.clone(), tls.clone());
                tracker.spawn(async move {
                    match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => on.serve(stream).await,
                            Err(_) => None,
                        },
                        None => on.serve(stream).await,
                    }
                });
            }
        });
        server
    }

    pub fn document(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.origin);
        json!({
            "issuer": self.origin,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "jwks_uri": at("/jwks"),
            "userinfo_endpoint": at("/userinfo"),
            "revocation_endpoint": at("/revoke"),
            "end_session_endpoint": at("/logout?tenant=a"),
        })
    }

    /// From now on, this path does that.
    pub fn on(&self, path: &str, handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        self.handlers
            .lock()
            .unwrap()
            .insert(path.to_owned(), Arc::new(handler));
    }

    /// From now on, this path answers with that JSON.
    pub fn answer(&self, path: &str, status: u16, body: Value) {
        self.on(path, move |_| Reply::Json(status, body.clone()));
    }

    /// The requests for a path so far.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.target == path).cloned().collect()
    }

    pub fn count(&self, path: &str) -> usize {
        self.seen(path).len()
    }

    /// `None` where the connection broke.
    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        let seen = read_request(&mut stream).await?;
        self.seen.lock().unwrap().push(seen.clone());
        let handler = self.handlers.lock().unwrap().get(&seen.target).cloned();
        let reply = handler.map_or(Reply::Json(404, json!({})), |handler| handler(&seen));
        match reply {
            Reply::Json(status, body) => {
                let headers = vec![("Content-Type", "application/json".to_owned())];
                write(&mut stream, status, &headers, body.to_string().as_bytes()).await?;
            }
            Reply::Raw(status, headers, body) => write(&mut stream, status, &headers, &body).await?,
            Reply::Endless => {
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n";
                stream.write_all(head.as_bytes()).await.ok()?;
                let block = vec![b' '; 64 * 1024];
                for _ in 0..16 * 1024 {
                    stream.write_all(&block).await.ok()?;
                }
            }
            Reply::Drip => {
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n";
                stream.write_all(head.as_bytes()).await.ok()?;
                loop {
                    stream.write_all(b" ").await.ok()?;
                    stream.flush().await.ok()?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Reply::Hang => std::future::pending().await,
            Reply::Drop => {}
        }
        stream.shutdown().await.ok()
    }
}

/// All test keys, each named after the first algorithm that uses it.
pub fn all_keys() -> Vec<Value> {
    let mut keys = Vec::new();
    for signer in SIGNERS
        .iter()
        .filter(|signer| matches!(signer.alg, "RS256" | "ES256" | "ES384" | "EdDSA"))
    {
        let mut jwk = signer.jwk();
        jwk["kid"] = signer.key.into();
        keys.push(jwk);
    }
    keys
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen {
        method,
        target,
        headers,
        body: String::from_utf8(bytes[head..].to_vec()).ok()?,
    })
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    headers: &[(&str, String)],
    body: &[u8],
) -> Option<()> {
    let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.extend([*name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body).await.ok()
}

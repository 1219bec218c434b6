//! Calls to the provider: bounded in time and size, no redirects, no cookies, through the configured proxy.
//!
//! INVARIANT: it can be told whether anything can have been sent: where the connection never stood, a code or refresh
//! token is still unused.

use crate::config::ProxyEnvironment;
use crate::protocol::BodyError;
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body that is read.
const LARGEST_BODY: usize = 1024 * 1024;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The connection never stood: nothing was sent.
    #[error("no connection: {0}")]
    NotSent(String),
    /// Sent, and no whole answer came back.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// Status and headers.
    pub head: http::response::Parts,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }
}

/// The client for one provider.
#[derive(Clone)]
pub struct ProviderHttp {
    client: Client<Route, Full<Bytes>>,
}

impl std::fmt::Debug for ProviderHttp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProviderHttp")
    }
}

impl ProviderHttp {
    /// A client that trusts the system's authorities, and those in `ca` beside them.
    pub fn new(ca: Option<&Path>, proxies: &ProxyEnvironment) -> Result<Self, String> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let tls = tls(ca)?;
        let matcher = Matcher::builder()
            .http(proxies.http.clone().unwrap_or_default())
            .https(proxies.https.clone().unwrap_or_default())
            .no(proxies.no.clone().unwrap_or_default())
            .build();
        let route = Route {
            tcp,
            tls,
            matcher: Arc::new(matcher),
        };
        // Calls are rare and must not meet a connection that went stale in between.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(route);
        Ok(Self { client })
    }

    /// Makes one call.
    pub async fn call(&self, request: Request<Full<Bytes>>) -> Result<Answer, CallError> {
        let answer = async {
            let response = self.client.request(request).await.map_err(|error| {
                if error.is_connect() {
                    CallError::NotSent(chain(&error))
                } else {
                    CallError::NoAnswer(chain(&error))
                }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_BODY)
                .collect()
                .await
                .map_err(|error| CallError::NoAnswer(error.to_string()))?;
            Ok(Answer {
                head,
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(CALL_TIMEOUT, answer)
            .await
            .unwrap_or_else(|_| {
                Err(CallError::NoAnswer(format!(
                    "nothing whole within {} s",
                    CALL_TIMEOUT.as_secs()
                )))
            })
    }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn tls(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let mut authorities = Vec::new();
    if let Some(ca) = ca {
        let unreadable = |error| format!("{} holds no readable PEM certificates: {error}", ca.display());
        for authority in CertificateDer::pem_file_iter(ca).map_err(unreadable)? {
            authorities.push(authority.map_err(unreadable)?);
        }
        if authorities.is_empty() {
            return Err(format!("{} holds no PEM certificate", ca.display()));
        }
    }
    // An image without any authorities can still speak to a provider on loopback; with https it says so then.
    match Verifier::new_with_extra_roots(authorities, provider) {
        Ok(verifier) => Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth()),
        Err(error) if ca.is_none() => {
            tracing::warn!(%error, "the system's trusted authorities cannot be read: https to the provider will fail");
            Ok(builder
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth())
        }
        Err(error) => Err(format!("the trusted authorities cannot be read: {error}")),
    }
}

type Stream = hyper_rustls::MaybeHttpsStream<TokioIo<TcpStream>>;
type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// The way to the provider: straight, or through the proxy that the environment names.
#[derive(Clone)]
struct Route {
    tcp: HttpConnector<Resolver>,
    tls: ClientConfig,
    matcher: Arc<Matcher>,
}

impl Service<Uri> for Route {
    type Response = Stream;
    type Error = BodyError;
    type Future = Boxed<Stream, BodyError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tcp, tls, matcher } = self.clone();
        Box::pin(async move {
            let local = uri
                .host()
                .is_some_and(|host| crate::protocol::origin::is_loopback_name(host));
            let proxy = if local { None } else { matcher.intercept(&uri) };
            let connecting: Boxed<Stream, BodyError> = match proxy {
                // RFC 9110 §9.3.6: a tunnel, for http as well: the proxy sees neither headers nor bodies.
                Some(proxy) => {
                    let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                    if let Some(credentials) = proxy.basic_auth() {
                        tunnel = tunnel.with_auth(credentials.clone());
                    }
                    Box::pin(HttpsConnector::from((tunnel, tls)).oneshot(uri))
                }
                None => Box::pin(HttpsConnector::from((tcp, tls)).oneshot(uri)),
            };
            tokio::time::timeout(CONNECT_TIMEOUT, connecting)
                .await
                .unwrap_or_else(|_| Err("no connection in time".into()))
        })
    }
}

/// The system's resolver, but `localhost` and `*.localhost` are this machine (RFC 6761 §6.3).
#[derive(Clone, Debug)]
struct Resolver;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Boxed<Self::Response, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let bare = name.as_str().trim_end_matches('.').to_ascii_lowercase();
            if bare == "localhost" || bare.ends_with(".localhost") {
                let here: [SocketAddr; 2] =
                    [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
                return Ok(Vec::from(here).into_iter());
            }
            Ok(tokio::net::lookup_host((name.as_str(), 0))
                .await?
                .collect::<Vec<_>>()
                .into_iter())
        })
    }
}

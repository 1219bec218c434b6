//! Connections to upstreams: names, TCP, TLS, and one deadline over the three; or a socket of this machine's.
//!
//! `localhost` and `*.localhost` are this machine, whatever the resolver says (RFC 6761 §6.3).

use super::CONNECT_TIMEOUT;
use super::flow::Flow;
use super::origin::Address;
use crate::protocol::BodyError;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tower::Service;

/// The connection was not there in time.
#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
pub struct Late;

/// Which versions of HTTP an upstream may choose from in the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Offer {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 or HTTP/1.1.
    Either,
}

/// A connection, over whatever it goes.
pub type Stream = TokioIo<Flow>;

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Connects to origins, within [`CONNECT_TIMEOUT`].
#[derive(Clone, Debug)]
pub struct Connector {
    tcp: HttpConnector<Resolver>,
    http1: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
}

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Connector {
    /// The system's authorities are read only where TLS is needed: an image without any can still speak http.
    pub fn new(needs_tls: bool, ca: Option<&Path>) -> Result<Self, String> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Tunnels and streams have no other bound than TCP's own.
        tcp.set_keepalive(Some(Duration::from_mins(1)));
        let mut http1 = tls(needs_tls, ca)?;
        http1.alpn_protocols = vec![b"http/1.1".into()];
        let mut either = http1.clone();
        either.alpn_protocols.insert(0, b"h2".into());
        Ok(Self {
            tcp,
            http1: Arc::new(http1),
            either: Arc::new(either),
        })
    }

    /// Connects to an origin, and says whether it has chosen HTTP/2.
    ///
    /// # Errors
    /// [`Late`], or what the system or TLS says.
    pub async fn connect(&self, address: &Address, offer: Offer) -> Result<(Stream, bool), BodyError> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.connect_some_time(address, offer))
            .await
            .unwrap_or_else(|_| Err(Late.into()))
    }

    async fn connect_some_time(&self, address: &Address, offer: Offer) -> Result<(Stream, bool), BodyError> {
        let uri = match address {
            Address::Unix(path) => return Ok((flowing(UnixStream::connect(path).await?), false)),
            Address::Tcp(uri) => uri,
        };
        let tcp = self.tcp.clone().call(uri.clone()).await?.into_inner();
        if !address.needs_tls() {
            return Ok((flowing(tcp), false));
        }
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let config = match offer {
            Offer::Http1 => &self.http1,
            Offer::Either => &self.either,
        };
        let tls = TlsConnector::from(config.clone())
            .connect(ServerName::try_from(host)?, tcp)
            .await?;
        let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((flowing(tls), is_http2))
    }
}

fn flowing(stream: impl Io + 'static) -> Stream {
    TokioIo::new(Flow::over(stream))
}

fn tls(needed: bool, ca: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    if !needed {
        let nobody = rustls::RootCertStore::empty();
        return Ok(builder.with_root_certificates(nobody).with_no_client_auth());
    }
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
    let verifier = Verifier::new_with_extra_roots(authorities, provider)
        .map_err(|error| format!("the trusted authorities cannot be read: {error}"))?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// The system's resolver, but for this machine's own names.
#[derive(Clone, Debug)]
pub struct Resolver;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Boxed<Self::Response, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let name = name.as_str();
            let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            if bare == "localhost" || bare.ends_with(".localhost") {
                let here: [SocketAddr; 2] =
                    [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
                return Ok(Vec::from(here).into_iter());
            }
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
            Ok(addresses.into_iter())
        })
    }
}

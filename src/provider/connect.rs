//! How a connection to a provider comes about: name, proxy, TCP, TLS.
//!
//! Stands under `http`. Whatever fails here, nothing of a request has been sent yet.
//!
//! INVARIANT: a certificate is checked against the system's authorities and the provider's own `ca`, its name and its
//! dates; there is no way to switch that off.
//! INVARIANT: `localhost` and all names below it are this machine (RFC 6761 §6.3), whatever DNS says, and this
//! machine is never asked through a proxy.

use crate::config::ProxyEnvironment;
use crate::protocol::metadata::{is_link_local, is_loopback_host};
use crate::protocol::origin::is_loopback_name;
use crate::secret::Secret;
use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt as _};

/// How long name, TCP, proxy and TLS may take together.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
/// A connection below the provider's TLS: plain, or TLS to an `https` proxy.
type Wire = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Opens connections to a provider, within [`CONNECT_LIMIT`].
#[derive(Clone)]
pub struct Connector {
    https: HttpsConnector<Dial>,
}

impl Connector {
    /// Trusts the system's authorities and `authorities` beside them.
    ///
    /// # Errors
    /// A sentence, where one of `authorities` is no certificate authority that can be used.
    pub fn new(authorities: Vec<CertificateDer<'static>>, proxy: &ProxyEnvironment) -> Result<Self, String> {
        let tls = tls_config(authorities)?;
        let url = |proxy: &Option<Secret>| {
            proxy
                .as_ref()
                .map_or_else(String::new, |url| url.expose().to_owned())
        };
        let mut direct = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        direct.enforce_http(false);
        direct.set_nodelay(true);
        direct.set_connect_timeout(Some(CONNECT_LIMIT));
        let dial = Dial {
            to_proxy: over_tls(tls.clone(), direct.clone()),
            direct,
            matcher: Arc::new(
                Matcher::builder()
                    .https(url(&proxy.https))
                    .http(url(&proxy.http))
                    .no(proxy.no.clone().unwrap_or_default())
                    .build(),
            ),
        };
        Ok(Self {
            https: over_tls(tls, dial),
        })
    }
}

fn over_tls<C>(tls: ClientConfig, below: C) -> HttpsConnector<C> {
    HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(below)
}

fn tls_config(authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, String> {
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&crypto))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let has_own = !authorities.is_empty();
    match Verifier::new_with_extra_roots(authorities, crypto) {
        Ok(verifier) => Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth()),
        Err(error) if has_own => Err(format!("holds a certificate that cannot be used: {error}")),
        Err(error) => {
            // An image without any authority may still serve a provider on loopback; everyone else is refused.
            tracing::warn!(
                %error,
                "this system has no certificate authorities, so no provider can be asked over TLS; \
                 install the package ca-certificates, or name the provider's own with `ca`"
            );
            Ok(builder
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth())
        }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Wire>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.https.clone().oneshot(uri);
        Box::pin(async move {
            tokio::time::timeout(CONNECT_LIMIT, connecting)
                .await
                .map_err(|_| format!("no connection within {} s", CONNECT_LIMIT.as_secs()))?
        })
    }
}

/// Opens what is below the provider's TLS: straight, or through the environment's proxy with `CONNECT`.
#[derive(Clone)]
struct Dial {
    direct: HttpConnector<Resolver>,
    to_proxy: HttpsConnector<HttpConnector<Resolver>>,
    matcher: Arc<Matcher>,
}

impl Service<Uri> for Dial {
    type Response = Wire;
    type Error = BoxError;
    type Future = Connecting<Wire>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let is_here = uri.host().is_some_and(is_loopback_host);
        let proxy = if is_here {
            None
        } else {
            self.matcher.intercept(&uri)
        };
        let Some(proxy) = proxy else {
            let connecting = self.direct.clone().oneshot(uri);
            return Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) });
        };
        if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
            return Box::pin(async {
                Err("the proxy that the environment names is not http or https".into())
            });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        Box::pin(async move { Ok(tunnel.oneshot(uri).await?) })
    }
}

/// The system's resolver, which does not know that all of `*.localhost` is here.
#[derive(Clone)]
struct Resolver(GaiResolver);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        // RFC 6761 §6.3: "Name resolution APIs and libraries SHOULD recognize localhost names as special and SHOULD
        // always return the IP loopback address"
        if is_loopback_name(&name.as_str().trim_end_matches('.').to_ascii_lowercase()) {
            let here = vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
            return Box::pin(async move { Ok(here.into_iter()) });
        }
        let resolving = self.0.clone().oneshot(name);
        Box::pin(async move {
            let found: Vec<_> = resolving.await?.collect();
            // What a discovery document names must not lead to a cloud's metadata service.
            let usable: Vec<_> = found
                .iter()
                .copied()
                .filter(|to| !is_link_local(to.ip()))
                .collect();
            if usable.is_empty() && !found.is_empty() {
                return Err("its name leads to a link-local address".into());
            }
            Ok(usable.into_iter())
        })
    }
}

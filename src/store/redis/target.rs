//! Where Redis is and who we are there: the URL, the password and the trusted authorities.
//!
//! The URL and the password are read again for each new connection, so a rotated file needs no restart.

use super::fault::Fault;
use crate::config::{RedisSettings, SecretSource};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// A byte stream to Redis, whatever is below.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where Redis is and who we are there.
#[derive(Debug)]
pub(super) struct Target {
    url: SecretSource,
    password: Option<SecretSource>,
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, String> {
        if settings.sentinel.is_some() || settings.cluster.is_some() {
            return Err(
                "`session.store.redis`: Sentinel and Cluster are not supported yet; set `url`".into(),
            );
        }
        let url = settings
            .url
            .clone()
            .ok_or("`session.store.redis` needs a `url`")?;
        let mut target = Self {
            url,
            password: settings.password.clone(),
            tls: None,
        };
        if let ConnectionAddr::TcpTls { .. } = target.current()?.addr() {
            target.tls = Some(Arc::new(tls(settings.ca.as_deref())?));
        }
        Ok(target)
    }

    /// The address and credentials as they are now.
    pub(super) fn current(&self) -> Result<ConnectionInfo, String> {
        let url = self
            .url
            .current()
            .map_err(|why| format!("`session.store.redis.url`: {why}"))?;
        // The library's error may quote the URL, and with it the password: it is not passed on.
        let info = url.expose().into_connection_info().map_err(|_| {
            "`session.store.redis.url` is no Redis URL: `redis://[user:password@]host[:port][/database]` is wanted, or \
             `rediss://` for TLS (reserved characters in user and password percent-encoded)"
        })?;
        if let ConnectionAddr::TcpTls { insecure: true, .. } = info.addr() {
            return Err(
                "`session.store.redis.url`: `#insecure` is not supported; name the authority in `ca`".into(),
            );
        }
        // CLIENT SETINFO would be one more command for the ACL to allow.
        let mut redis = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(password) = &self.password {
            let password = password
                .current()
                .map_err(|why| format!("`session.store.redis.password`: {why}"))?;
            redis = redis.set_password(password.expose());
        }
        Ok(info.set_redis_settings(redis))
    }

    /// Opens a byte stream to the server.
    pub(super) async fn open(&self, address: &ConnectionAddr) -> Result<Box<dyn Stream>, Fault> {
        let named = |error: std::io::Error| Fault::said(format!("{address}: {error}"));
        match address {
            ConnectionAddr::Tcp(host, port) => Ok(Box::new(tcp(host, *port).await.map_err(named)?)),
            ConnectionAddr::TcpTls { host, port, .. } => {
                let tls = self
                    .tls
                    .clone()
                    .ok_or_else(|| Fault::said("the URL has become `rediss://`: restart to use TLS"))?;
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| Fault::said(format!("{address}: no name that a certificate can hold")))?;
                let stream = tcp(host, *port).await.map_err(named)?;
                let stream = TlsConnector::from(tls).connect(name, stream).await;
                Ok(Box::new(stream.map_err(|error| {
                    Fault::said(format!("{address}: TLS: {error}"))
                })?))
            }
            ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(named)?)),
            _ => Err(Fault::said("the URL's kind of address is not supported")),
        }
    }
}

async fn tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn tls(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let Some(path) = ca else {
        let builder = builder.with_platform_verifier().map_err(|error| {
            format!("the system's authorities cannot be used: {error}; name one in `session.store.redis.ca`")
        })?;
        return Ok(builder.with_no_client_auth());
    };
    let unusable = |why: String| format!("`session.store.redis.ca`: {}: {why}", path.display());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("no certificate in it".into()));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

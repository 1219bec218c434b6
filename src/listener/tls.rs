//! TLS on a listener: the handshake.
//!
//! Comes before the first byte of HTTP. TLS 1.2 and 1.3 with the library's default suites, none of which lacks forward
//! secrecy; HTTP/2 or HTTP/1.1 by ALPN; no early data, so nothing can be replayed.
//!
//! Sources: RFC 8446 §8 (no 0-RTT), RFC 7301 (ALPN), RFC 9113 §3.2, §9.2; RFC 9325.

use crate::config::{Certificate, TlsFiles};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What ALPN calls HTTP/2.
pub const HTTP_2: &[u8] = b"h2";

/// What a listener needs for TLS. Clones share it.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads certificate and key; they are read again when their files change.
    ///
    /// # Errors
    /// A sentence for the operator: what was found and what is wanted.
    pub fn watching(files: &TlsFiles) -> Result<Self, String> {
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificate =
            Certificate::read(files, crypto.clone()).map_err(|why| format!("server.tls: {why}"))?;
        let mut config = ServerConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Current(certificate)));
        config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands on a fresh connection.
    ///
    /// # Errors
    /// The browser's or the network's.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Every handshake gets the certificate as it is then; connections under way keep theirs.
#[derive(Debug)]
struct Current(Certificate);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

//! TLS around the suite's parts: an authority of our own, and relays that put TLS on a plain server or take it off.

use super::runtime;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority that nobody else trusts.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
    folder: TempDir,
}

/// A certificate of its, and the key.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// PEM.
    pub cert: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A fresh one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority for tests");
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), &root).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            root,
            folder,
        }
    }

    /// Its own certificate, PEM.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for this name.
    pub fn leaf(&self, name: &str) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = Leaf {
            cert: self.folder.path().join(format!("{name}.crt")),
            key: self.folder.path().join(format!("{name}.key")),
        };
        std::fs::write(&leaf.cert, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&leaf.key, key.serialize_pem()).unwrap();
        leaf
    }

    /// Trust in it alone.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.root.as_bytes());
        roots.add(root.unwrap()).unwrap();
        roots
    }

    /// A client that trusts this authority alone, and offers these protocols.
    pub fn client(&self, alpn: &[&str]) -> TlsConnector {
        TlsConnector::from(Arc::new(self.client_of(rustls::ALL_VERSIONS, alpn)))
    }

    /// The same, of these versions and not yet made.
    pub fn client_of(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> ClientConfig {
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(crypto)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// A plain port from which HTTP/1.1 goes on over TLS to `server`, which has to be `name`.
    pub async fn plain_port_to(&self, server: SocketAddr, name: &'static str) -> u16 {
        let connector = self.client(&["http/1.1"]);
        relay(move |plain| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(server).await?;
                let name = ServerName::try_from(name).unwrap();
                let mut secured = connector.connect(name, stream).await?;
                let mut plain = plain;
                copy_bidirectional(&mut plain, &mut secured).await.map(drop)
            }
        })
        .await
    }
}

/// A port that speaks TLS with this certificate, in front of a plain server.
pub async fn tls_port_to(server: SocketAddr, leaf: &Leaf) -> u16 {
    let chain = vec![CertificateDer::from_pem_file(&leaf.cert).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&leaf.key).unwrap();
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    relay(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut secured = acceptor.accept(stream).await?;
            let mut plain = TcpStream::connect(server).await?;
            copy_bidirectional(&mut secured, &mut plain).await.map(drop)
        }
    })
    .await
}

async fn relay<F, R>(carry: F) -> u16
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let bound = runtime().spawn(TcpListener::bind("127.0.0.1:0")).await.unwrap();
    let listener = bound.unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A connection that breaks off here breaks off at both ends, and is judged there.
            runtime().spawn(carry(stream));
        }
    });
    port
}

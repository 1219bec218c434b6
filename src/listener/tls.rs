//! TLS on a listener: the handshake.
//!
//! Comes before the first byte of HTTP. TLS 1.2 and 1.3 with the library's default suites, none of which lacks forward
//! secrecy; HTTP/2 or HTTP/1.1 by ALPN; no early data, so nothing can be replayed. A session is resumed with a ticket,
//! which the browser keeps: its key is this process's own and lives for twelve hours, a fresh one each six.
//!
//! Sources: RFC 8446 §4.4.2.2, §8 (no 0-RTT), RFC 7301 (ALPN), RFC 6066 §3 (SNI), RFC 5077, RFC 9113 §3.2, §9.2; RFC 9325.

use crate::config::{AdminTls, Certificate, ClientCa, TlsFiles};
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What ALPN calls HTTP/2.
pub const HTTP_2: &[u8] = b"h2";

tokio::task_local! {
    /// The address at which the connection arrived whose handshake this is.
    static REACHED_AT: IpAddr;
}

/// What a listener needs for TLS. Clones share it.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads certificates and keys; they are read again when their files change.
    ///
    /// # Errors
    /// A sentence for the operator: what was found and what is wanted.
    pub fn watching(pairs: &[TlsFiles]) -> Result<Self, String> {
        let crypto = Arc::new(default_provider());
        let read = |(i, files)| {
            Certificate::read(files, crypto.clone()).map_err(|why| match pairs {
                [_] => format!("server.tls: {why}"),
                _ => format!("server.tls[{i}]: {why}"),
            })
        };
        let certificates = pairs.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        let mut config = config(crypto, None, certificates)?;
        config.ticketer = Ticketer::new().map_err(|error| no_tls(&error))?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The same for the admin listener, which may take the clients of one authority only. Its sessions are not resumed: a
    /// client's certificate is judged with each connection, by the authority as its file says it then.
    ///
    /// # Errors
    /// A sentence for the operator: what was found and what is wanted.
    pub fn of_admin(files: &AdminTls) -> Result<Self, String> {
        let crypto = Arc::new(default_provider());
        let certificate = Certificate::read(&files.pair(), crypto.clone())
            .map_err(|why| format!("server.admin_tls: {why}"))?;
        let clients = files.client_ca.as_ref().map(|file| {
            let clients = ClientCa::read(file, crypto.clone());
            clients.map_err(|why| format!("server.admin_tls.client_ca: {why}"))
        });
        let mut config = config(crypto.clone(), clients.transpose()?, vec![certificate])?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands on a fresh connection.
    ///
    /// # Errors
    /// The browser's or the network's.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let reached_at = stream.local_addr()?.ip().to_canonical();
        REACHED_AT.scope(reached_at, self.0.accept(stream)).await
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

fn config(
    crypto: Arc<CryptoProvider>,
    clients: Option<ClientCa>,
    certificates: Vec<Certificate>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .map_err(|error| no_tls(&error))?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(Arc::new(clients)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Current(certificates)));
    // Ours, the strongest first: what scanners look for. None of the library's suites is one to avoid.
    config.ignore_client_order = true;
    config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn no_tls(error: &rustls::Error) -> String {
    format!("TLS cannot be set up: {error}")
}

/// Every handshake gets the certificates as they are then; connections under way keep theirs.
#[derive(Debug)]
struct Current(Vec<Certificate>);

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let all: Vec<_> = self.0.iter().map(Certificate::current).collect();
        if let [only] = all.as_slice() {
            return Some(only.clone());
        }
        // "Literal IPv4 and IPv6 addresses are not permitted in 'HostName'" (RFC 6066 §3): who asks for an address says
        // nothing, and has reached it.
        let name = match hello.server_name() {
            Some(name) => ServerName::try_from(name).ok(),
            None => REACHED_AT.try_with(|ip| ServerName::from(*ip)).ok(),
        };
        let named = |one: &&Arc<CertifiedKey>| name.as_ref().is_some_and(|name| holds(one, name));
        // "The certificate MUST allow the key to be used for signing […] with a signature scheme indicated in the client's
        // 'signature_algorithms'" (RFC 8446 §4.4.2.2).
        let checked = |one: &&Arc<CertifiedKey>| one.key.choose_scheme(hello.signature_schemes()).is_some();
        let fitting: Vec<_> = all.iter().filter(named).collect();
        let mut candidates = if fitting.is_empty() {
            all.iter().collect()
        } else {
            fitting
        };
        candidates.retain(checked);
        candidates.first().map(|one| Arc::clone(one))
    }
}

/// Whether a certificate is one for this name, as browsers see it: its subject alternative names count, and a `*` is one
/// whole label.
fn holds(certified: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = certified.end_entity_cert().and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

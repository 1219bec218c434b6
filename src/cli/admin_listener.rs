//! How a command reaches the admin listener of a running cloakroom: at which address, whom it trusts there, and which
//! certificate it shows.
//!
//! INVARIANT: the listener of the config at hand has to show the very certificate that the config names, so it need not be
//! one for 127.0.0.1; any other has to show one of an authority, for its name.

use crate::config::{Certificate, Server, TlsFiles};
use bytes::Bytes;
use clap::Args;
use http_body_util::Empty;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use std::error::Error as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Asks.
pub(super) type Asker = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// What the command line says of TLS.
#[derive(Debug, Default, Args)]
pub(super) struct TlsArguments {
    /// A PEM file of authorities, one of which made the certificate of an https listener. Default: the system's; for the
    /// config's own listener its `server.admin_tls.cert` itself.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The certificate to show where `server.admin_tls.client_ca` wants one, PEM. Default: for the config's own listener
    /// `server.admin_tls.cert`.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, PEM, not encrypted.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
}

/// Where the config's admin listener is reached from this machine, without a path.
///
/// # Errors
/// A sentence for the operator.
pub(super) fn url_of(server: &Server) -> Result<String, String> {
    let (mut ip, port) = (server.admin.ip(), server.admin.port());
    if port == 0 {
        return Err("`server.admin` takes any free port: say which one with --url".into());
    }
    if ip.is_unspecified() {
        ip = match ip {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
    }
    let scheme = if server.admin_tls.is_some() {
        "https"
    } else {
        "http"
    };
    Ok(format!("{scheme}://{}", SocketAddr::from((ip, port))))
}

impl TlsArguments {
    /// What asks at `url`. `own`: the config's pair, where it is the config's own listener that is asked.
    ///
    /// # Errors
    /// A sentence for the operator: which file cannot be used.
    pub fn asker(&self, url: &str, own: Option<&TlsFiles>) -> Result<Asker, String> {
        let crypto = Arc::new(aws_lc_rs::default_provider());
        let own = own.map(|files| read(files, &crypto)).transpose()?;
        let trust: Arc<dyn ServerCertVerifier> = match (&self.ca, &own) {
            (Some(file), _) => of_authorities(file, &crypto)?,
            (None, Some(own)) => Arc::new(Only {
                certificate: own.cert[0].clone(),
                crypto: crypto.clone(),
            }),
            (None, None) if url.starts_with("https:") => {
                let system = Verifier::new(crypto.clone());
                Arc::new(system.map_err(|error| {
                    format!("the system's authorities cannot be used: {error}; name one with --ca")
                })?)
            }
            // In clear nothing is shown, and nobody trusted for it.
            (None, None) => Arc::new(Only {
                certificate: Vec::new().into(),
                crypto: crypto.clone(),
            }),
        };
        let shown = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let (cert, key) = (cert.clone(), key.clone());
                Some(read(&TlsFiles { cert, key }, &crypto)?)
            }
            _ => own,
        };
        let builder = ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(trust);
        let config = match shown {
            Some(shown) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown))),
            None => builder.with_no_client_auth(),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Client::builder(TokioExecutor::new()).build(connector))
    }
}

fn read(files: &TlsFiles, crypto: &Arc<CryptoProvider>) -> Result<Arc<CertifiedKey>, String> {
    let read = Certificate::read(files, crypto.clone());
    read.map(|certificate| certificate.current())
        .map_err(|why| why.to_string())
}

fn of_authorities(file: &Path, crypto: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let unusable = |why: String| format!("--ca: {} cannot be used: {why}", file.display());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))? {
        let authority = authority.map_err(|error| unusable(error.to_string()))?;
        roots
            .add(authority)
            .map_err(|error| unusable(error.to_string()))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto.clone())
        .build()
        .map_err(|error| unusable(error.to_string()))
}

/// Why an address cannot be asked, in words for the operator.
pub(super) fn why(error: &legacy::Error) -> String {
    match causes(error).find_map(of_tls) {
        Some(Error::AlertReceived(alert)) => format!(
            "it ends the handshake, {alert:?}: it may want a certificate of its `client_ca`, which --cert and --key name"
        ),
        Some(Error::InvalidCertificate(fault)) => format!(
            "its certificate is not trusted, {fault}: --ca names the authority that made it, and the certificate has to be for this address"
        ),
        Some(Error::General(ours)) => ours.clone(),
        Some(Error::InvalidMessage(_)) => "it speaks no TLS: ask by http".to_owned(),
        // What the machine says of it is the innermost.
        _ => causes(error)
            .last()
            .map_or_else(|| error.to_string(), ToString::to_string),
    }
}

fn causes(error: &legacy::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

/// What TLS says, however deep it is wrapped.
fn of_tls<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e Error> {
    if let Some(found) = cause.downcast_ref() {
        return Some(found);
    }
    of_tls(cause.downcast_ref::<io::Error>()?.get_ref()?)
}

/// Trusts this one certificate, whatever name it is for.
#[derive(Debug)]
struct Only {
    certificate: CertificateDer<'static>,
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General(
            "its certificate is not the one in the config's `server.admin_tls.cert`".to_owned(),
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configs_listener_is_asked_where_this_machine_reaches_it() {
        let at = |address: &str| Server {
            admin: address.parse().unwrap(),
            ..Server::default()
        };
        let url = |address: &str| url_of(&at(address));
        assert_eq!(url("127.0.0.1:9090").unwrap(), "http://127.0.0.1:9090");
        assert_eq!(url("0.0.0.0:9090").unwrap(), "http://127.0.0.1:9090");
        assert_eq!(url("[::]:9090").unwrap(), "http://[::1]:9090");
        assert_eq!(url("10.0.0.7:9").unwrap(), "http://10.0.0.7:9");
        assert!(url("127.0.0.1:0").unwrap_err().contains("--url"));
        let mut secured = at("[::]:9090");
        secured.admin_tls = serde_json::from_str(r#"{"cert": "/a", "key": "/b"}"#).unwrap();
        assert_eq!(url_of(&secured).unwrap(), "https://[::1]:9090");
    }
}

//! TLS to Redis: whom we trust and what certificate we show.
//!
//! INVARIANT: what the files hold now counts for each new connection, and sessions of TLS are not resumed: a server
//! always judges the certificate that is in use.

use crate::config::{Certificate, RedisSettings};
use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use rustls_platform_verifier::BuilderVerifierExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// How TLS is spoken to all servers.
#[derive(Debug)]
pub(super) struct Tls {
    /// Instead of the system's authorities.
    ca: Option<PathBuf>,
    shown: Option<Arc<Shown>>,
    /// With the system's authorities: reading them takes a while.
    system: OnceLock<Arc<ClientConfig>>,
}

/// The certificate that we show, as it stands in its files.
#[derive(Debug)]
struct Shown(Certificate);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Tls {
    /// # Errors
    /// What of the files cannot be used.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, String> {
        let shown = settings.client_cert.as_ref().map(|files| {
            let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let read = Certificate::read(files, crypto).map(|certificate| Arc::new(Shown(certificate)));
            read.map_err(|why| format!("`session.store.redis.client_cert`: {why}"))
        });
        Ok(Self {
            ca: settings.ca.clone(),
            shown: shown.transpose()?,
            system: OnceLock::new(),
        })
    }

    /// What a connection that begins now takes.
    ///
    /// # Errors
    /// What of the files cannot be used.
    pub(super) fn current(&self) -> Result<Arc<ClientConfig>, String> {
        if let Some(config) = self.system.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.build()?);
        if self.ca.is_none() {
            return Ok(Arc::clone(self.system.get_or_init(|| config)));
        }
        Ok(config)
    }

    fn build(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &self.ca {
            Some(path) => builder.with_root_certificates(authorities(path)?),
            None => builder.with_platform_verifier().map_err(|error| {
                format!(
                    "the system's authorities cannot be used: {error}; name one in `session.store.redis.ca`"
                )
            })?,
        };
        let mut config = match &self.shown {
            Some(shown) => builder.with_client_cert_resolver(Arc::<Shown>::clone(shown)),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn authorities(path: &Path) -> Result<rustls::RootCertStore, String> {
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
    Ok(roots)
}

//! The authority whose clients a listener takes, read again when its file changes.
//!
//! Comes during the handshake of `listener::Tls`: who shows no certificate of this authority says not one byte of HTTP.
//!
//! INVARIANT: a file without a certificate in it never takes the last good authority away (`watched`), so nobody is let in
//! because a file is broken.
//!
//! Sources: RFC 8446 §4.4.2, RFC 5280 §6.

use super::secrets::SecretSource;
use super::watched::Watched;
use crate::secret::Secret;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Takes clients with a certificate of the authorities in a PEM file, and nobody else.
pub struct ClientCa {
    file: PathBuf,
    crypto: Arc<CryptoProvider>,
    watched: Watched<Arc<dyn ClientCertVerifier>>,
}

impl ClientCa {
    /// Reads the file.
    ///
    /// # Errors
    /// What was found and what is wanted.
    pub fn read(file: &Path, crypto: Arc<CryptoProvider>) -> Result<Self, String> {
        let source = SecretSource::file(file);
        let contents = vec![source.current()?];
        let made = verifier(&contents, file, &crypto)?;
        Ok(Self {
            file: file.to_owned(),
            crypto,
            watched: Watched::new(vec![source], contents, made),
        })
    }

    fn current(&self) -> Arc<Arc<dyn ClientCertVerifier>> {
        let made = self
            .watched
            .look_again(|contents| verifier(contents, &self.file, &self.crypto));
        match made {
            None => {}
            Some(Ok(())) => {
                tracing::info!(client_ca = %self.file.display(), "the clients' authority has changed and is in use");
            }
            Some(Err(why)) => {
                tracing::warn!(
                    "the clients' authority has changed and cannot be used, the last one stays in use: {why}"
                );
            }
        }
        self.watched.in_use()
    }
}

fn verifier(
    contents: &[Secret],
    file: &Path,
    crypto: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let (file, wanted) = (
        file.display(),
        "wanted: a PEM file of the authorities that made the clients' certificates",
    );
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(contents[0].expose().as_bytes()) {
        let added = certificate.map(|certificate| roots.add(certificate));
        if !matches!(added, Ok(Ok(()))) {
            return Err(format!(
                "{file} holds a certificate that cannot be read; {wanted}"
            ));
        }
    }
    if roots.is_empty() {
        return Err(format!("{file} holds no certificate; {wanted}"));
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto.clone()).build();
    built.map_err(|error| format!("{file} cannot be used: {error}"))
}

impl fmt::Debug for ClientCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCa")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// As the verifier in use does it. Its names are no hint to clients: they would be borrowed from what may change.
impl ClientCertVerifier for ClientCa {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.watched.in_use().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.watched.in_use().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.watched.in_use().supported_verify_schemes()
    }
}

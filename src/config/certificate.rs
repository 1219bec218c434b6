//! A listener's certificate and its private key, or the one that Redis is shown, read again when their files change.
//!
//! Read at start; afterwards `listener` looks again with connections that come, and `store` with those that it opens, so
//! a renewed certificate needs no restart.
//!
//! INVARIANT: a pair of files that does not fit together never takes the last good pair away (`watched`).
//!
//! Sources: RFC 7468 (PEM), RFC 8446 §4.4.2 (the own certificate comes first).

use super::secrets::SecretSource;
use super::settings::TlsFiles;
use super::watched::Watched;
use crate::secret::Secret;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::Arc;

/// Why files make no certificate: a sentence about the one or the other, or about both together.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    /// About `cert`.
    Cert(String),
    /// About `key`.
    Key(String),
    /// About the two.
    Pair(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Cert(why) | Self::Key(why) | Self::Pair(why)) = self;
        f.write_str(why)
    }
}

/// Certificate chain and private key, as they stand in their files.
pub struct Certificate {
    files: TlsFiles,
    crypto: Arc<CryptoProvider>,
    watched: Watched<CertifiedKey>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// What was found and what is wanted.
    pub fn read(files: &TlsFiles, crypto: Arc<CryptoProvider>) -> Result<Self, Unusable> {
        let (cert, key) = (SecretSource::file(&files.cert), SecretSource::file(&files.key));
        let contents = vec![
            cert.current().map_err(Unusable::Cert)?,
            key.current().map_err(Unusable::Key)?,
        ];
        let made = certified(&contents, files, &crypto)?;
        Ok(Self {
            files: files.clone(),
            crypto,
            watched: Watched::new(vec![cert, key], contents, made),
        })
    }

    /// The certificate as it stands in its files now, at most a second old. Costs two `stat`s a second.
    #[must_use]
    pub fn current(&self) -> Arc<CertifiedKey> {
        let made = self
            .watched
            .look_again(|contents| certified(contents, &self.files, &self.crypto));
        match made {
            None => {}
            Some(Ok(())) => {
                tracing::info!(cert = %self.files.cert.display(), "the certificate has changed and is in use");
            }
            Some(Err(why)) => {
                tracing::warn!(
                    "the certificate has changed and cannot be used, the last one stays in use: {why}"
                );
            }
        }
        self.watched.in_use()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// `contents`: the certificate's file and the key's.
fn certified(
    contents: &[Secret],
    files: &TlsFiles,
    crypto: &CryptoProvider,
) -> Result<CertifiedKey, Unusable> {
    let (cert, key) = (files.cert.display(), files.key.display());
    let [chain, private] = [0, 1].map(|file| contents[file].expose().as_bytes());
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| {
            let wanted = "wanted: a PEM file, the own certificate first, then its chain";
            Unusable::Cert(format!("{cert} holds no certificate that can be read; {wanted}"))
        })?;
    let private = PrivateKeyDer::from_pem_slice(private).map_err(|_| {
        let wanted = "wanted: a PEM file with the certificate's private key, not encrypted";
        Unusable::Key(format!("{key} holds no private key that can be read; {wanted}"))
    })?;
    CertifiedKey::from_der(chain, private, crypto).map_err(|error| {
        Unusable::Pair(match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "the key in {key} does not belong to the first certificate in {cert}; wanted: the two that were made for each other"
            ),
            error => format!("{cert} and {key} cannot be used: {error}"),
        })
    })
}

//! A listener's certificate and its private key, or the one that Redis is shown, read again when their files change.
//!
//! Read at start; afterwards `listener` looks again with connections that come, and `store` with those that it opens, so
//! a renewed certificate needs no restart.
//!
//! INVARIANT: a pair of files that does not fit together, as it may be while they are replaced one after the other, never
//! takes the last good pair away.
//!
//! Sources: RFC 7468 (PEM), RFC 8446 §4.4.2 (the own certificate comes first).

use super::secrets::SecretSource;
use super::settings::TlsFiles;
use crate::secret::Secret;
use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How often the files are looked at, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    cert: SecretSource,
    key: SecretSource,
    crypto: Arc<CryptoProvider>,
    in_use: ArcSwap<CertifiedKey>,
    seen: Mutex<Seen>,
}

/// What the files held when they were looked at last, usable or not.
struct Seen {
    at: Instant,
    cert: Secret,
    key: Secret,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// What was found and what is wanted.
    pub fn read(files: &TlsFiles, crypto: Arc<CryptoProvider>) -> Result<Self, Unusable> {
        let (cert, key) = (SecretSource::file(&files.cert), SecretSource::file(&files.key));
        let seen = Seen {
            at: Instant::now(),
            cert: cert.current().map_err(Unusable::Cert)?,
            key: key.current().map_err(Unusable::Key)?,
        };
        let in_use = certified(&seen, files, &crypto)?;
        Ok(Self {
            files: files.clone(),
            cert,
            key,
            crypto,
            in_use: ArcSwap::from_pointee(in_use),
            seen: Mutex::new(seen),
        })
    }

    /// The certificate as it stands in its files now, at most a second old. Costs two `stat`s a second.
    #[must_use]
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.look_again();
        self.in_use.load_full()
    }

    fn look_again(&self) {
        // Whoever comes while somebody looks goes on with what is there.
        let mut seen = match self.seen.try_lock() {
            Ok(seen) => seen,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return,
        };
        if seen.at.elapsed() < LOOK_AGAIN {
            return;
        }
        seen.at = Instant::now();
        // What cannot be read was good once, and stays; that failure has been logged.
        let (Ok(cert), Ok(key)) = (self.cert.current(), self.key.current()) else {
            return;
        };
        if cert == seen.cert && key == seen.key {
            return;
        }
        (seen.cert, seen.key) = (cert, key);
        match certified(&seen, &self.files, &self.crypto) {
            Ok(fresh) => {
                self.in_use.store(Arc::new(fresh));
                tracing::info!(cert = %self.files.cert.display(), "the certificate has changed and is in use");
            }
            Err(why) => {
                tracing::warn!(
                    "the certificate has changed and cannot be used, the last one stays in use: {why}"
                );
            }
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn certified(seen: &Seen, files: &TlsFiles, crypto: &CryptoProvider) -> Result<CertifiedKey, Unusable> {
    let (cert, key) = (files.cert.display(), files.key.display());
    let chain = CertificateDer::pem_slice_iter(seen.cert.expose().as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| {
            let wanted = "wanted: a PEM file, the own certificate first, then its chain";
            Unusable::Cert(format!("{cert} holds no certificate that can be read; {wanted}"))
        })?;
    let private = PrivateKeyDer::from_pem_slice(seen.key.expose().as_bytes()).map_err(|_| {
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

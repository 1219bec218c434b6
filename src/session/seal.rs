//! Sealing: AEAD under keys derived from a server key and, for what belongs to one browser, from its cookie too.

use crate::secret::Secret;

/// What a sealed thing is for: part of its key derivation and of its associated data, so that nothing opens as
/// something else (contract 5.2, 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A session's record.
    Session,
    /// A login attempt's cookie.
    LoginAttempt,
    /// The mark that a finished login attempt leaves in its cookie.
    FinishedAttempt,
    /// What a finished login attempt brought, for a callback that comes twice.
    AttemptResult,
    /// The way on after a JSON logout.
    LogoutContinuation,
}

/// Why a sealed thing does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Sealed with a key that is not in the ring: the operator's fault.
    #[error("sealed with a key that is not in session.keys")]
    UnknownKey,
    /// A format of another release.
    #[error("sealed in a format this release does not know")]
    UnknownFormat,
    /// Tampered with, or not what it is taken for.
    #[error("does not open")]
    Broken,
}

/// The ordered server keys: the first seals, all open.
#[derive(Debug)]
pub struct KeyRing {
    _keys: Vec<Secret>,
}

impl KeyRing {
    /// A ring of one fresh random key, for a memory store.
    #[must_use]
    pub fn random(_public_url: &str) -> Self {
        unimplemented!()
    }

    /// From the configured keys (256 bits, base64url). `public_url` is bound into everything sealed.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn new(_public_url: &str, _keys: &[Secret]) -> Result<Self, String> {
        unimplemented!()
    }

    /// Seals. `cookie`: what only the browser knows, mixed into the key (empty where the sealed thing itself is the
    /// cookie); `context`: what else it is bound to (issuer and client id, a cookie's name).
    #[must_use]
    pub fn seal(&self, _purpose: Purpose, _cookie: &[u8], _context: &[&str], _plain: &[u8]) -> Vec<u8> {
        unimplemented!()
    }

    /// Opens.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(
        &self,
        _purpose: Purpose,
        _cookie: &[u8],
        _context: &[&str],
        _sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        unimplemented!()
    }
}

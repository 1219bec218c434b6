//! Sealing: AEAD under keys derived from a server key and, for what belongs to one browser, from its cookie too.
//!
//! On a request's way whatever leaves this process to be brought back later (a session's record, a login attempt's
//! cookie) is sealed and opened here.
//!
//! ```text
//! sealed   = format (1 byte) ‖ key id (8) ‖ salt (32) ‖ context tag (8) ‖ AES-256-GCM ciphertext and tag
//! bound    = label ‖ purpose ‖ public_url ‖ context…, each with its length in front
//! key      = HKDF-Expand-SHA256(what HKDF makes of the server key, info = salt ‖ SHA-256(cookie) ‖ bound)
//! nonce    = zeros
//! associated data = all that stands in front of the ciphertext ‖ bound
//! ```
//!
//! INVARIANT: a key seals once, because the 256-bit salt is new each time; so no nonce is ever used twice under a key.
//! INVARIANT: a sealed thing opens only for its own purpose, deployment, context and cookie (contract 5.2).
//! INVARIANT: an unknown key or format is not "broken": the first is the operator's fault and costs nobody a session.
//! INVARIANT: keys that are read again when their files change never take away what could be opened before: a key that
//! was configured once in this process opens until it ends, and only the first that is configured now seals.
//!
//! The context tag says which of several contexts (providers) it was sealed for, without trying each. It is keyed and
//! salted, so it tells a reader of the store nothing, not even which two are alike.
//!
//! Sources: RFC 5869 (HKDF), RFC 5116 and NIST SP 800-38D (AES-GCM), standards SE-03…SE-05.

mod keys;
#[cfg(test)]
mod tests;

use crate::config::SecretSource;
use crate::secret::{Secret, Wiped};
use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce};
use aws_lc_rs::{constant_time, hmac, rand};
use keys::Keys;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;
use tokio::time::Instant;

/// The format that is written, and the only one there is.
const FORMAT: u8 = 1;
const KEY_ID: usize = 8;
const SALT: usize = 32;
const TAG: usize = 8;
const HEADER: usize = 1 + KEY_ID + SALT + TAG;
/// How often the keys' sources are looked at, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    /// What lists show of a session.
    Listing,
    /// What a logout at the provider leaves.
    LogoutMark,
}

impl Purpose {
    const fn label(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::LoginAttempt => "login-attempt",
            Self::FinishedAttempt => "finished-attempt",
            Self::AttemptResult => "attempt-result",
            Self::LogoutContinuation => "logout-continuation",
            Self::Listing => "listing",
            Self::LogoutMark => "logout-mark",
        }
    }
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
    public_url: String,
    keys: ArcSwap<Keys>,
    /// Where the keys come from; none where they cannot change.
    sources: Vec<SecretSource>,
    looked: Mutex<Looked>,
}

/// The last look at the sources.
#[derive(Debug)]
struct Looked {
    at: Instant,
    found: Vec<Secret>,
}

/// The only one that each key is used with.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// Fills with random bytes.
///
/// A system without random bytes ends the request: there is no safe way on.
pub(super) fn fill(bytes: &mut [u8]) {
    rand::fill(bytes).expect("the system has random bytes");
}

impl KeyRing {
    fn of(public_url: &str, keys: Keys, sources: &[SecretSource], found: Vec<Secret>) -> Self {
        Self {
            public_url: public_url.to_owned(),
            keys: ArcSwap::from_pointee(keys),
            sources: sources.to_vec(),
            looked: Mutex::new(Looked {
                at: Instant::now(),
                found,
            }),
        }
    }

    /// A ring of one fresh random key, for a memory store.
    #[must_use]
    pub fn random(public_url: &str) -> Self {
        Self::of(public_url, Keys::random(), &[], Vec::new())
    }

    /// From keys (256 bits, base64url) that stay as they are. `public_url` is bound into everything sealed.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn new(public_url: &str, keys: &[Secret]) -> Result<Self, String> {
        Ok(Self::of(public_url, Keys::new(keys)?, &[], Vec::new()))
    }

    /// From the configured keys, which are looked at again about once a second while they are in use. Keys that cannot
    /// be read again or are none leave the last good ones in use, which is logged once a change.
    ///
    /// # Errors
    /// A sentence for the operator: a key that cannot be read now, or is none.
    pub fn watching(public_url: &str, sources: &[SecretSource]) -> Result<Self, String> {
        let found = read(sources)?;
        Ok(Self::of(public_url, Keys::new(&found)?, sources, found))
    }

    /// The keys as they are now.
    fn keys(&self) -> arc_swap::Guard<Arc<Keys>> {
        if !self.sources.is_empty() {
            self.look_again();
        }
        self.keys.load()
    }

    fn look_again(&self) {
        // Whoever comes while another looks goes on with what there is.
        let mut looked = match self.looked.try_lock() {
            Ok(looked) => looked,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return,
        };
        if looked.at.elapsed() < LOOK_AGAIN {
            return;
        }
        looked.at = Instant::now();
        // A source keeps its last good value by itself, and says so.
        let Ok(found) = read(&self.sources) else {
            return;
        };
        if found == looked.found {
            return;
        }
        match Keys::new(&found) {
            Ok(keys) => {
                self.keys.store(Arc::new(keys.after(&self.keys.load())));
                tracing::info!("the server keys have changed and were read again");
            }
            Err(problem) => {
                tracing::error!(
                    "the server keys have changed, and the last good ones stay in use: {problem}"
                );
            }
        }
        looked.found = found;
    }

    /// What a sealed thing is bound to, unambiguously: each part has its length in front.
    fn bound(&self, purpose: &str, context: &[&str]) -> Vec<u8> {
        self.followed_by_bound(&[], purpose, context)
    }

    /// The same behind what stands in front of it.
    fn followed_by_bound(&self, front: &[u8], purpose: &str, context: &[&str]) -> Vec<u8> {
        let mut bound = Vec::with_capacity(HEADER + 256);
        bound.extend_from_slice(front);
        for part in ["cloakroom/seal/1", purpose, &self.public_url]
            .iter()
            .chain(context)
        {
            bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bound.extend_from_slice(part.as_bytes());
        }
        bound
    }

    /// Seals. `cookie`: what only the browser knows, mixed into the key (empty where the sealed thing itself is the
    /// cookie); `context`: what else it is bound to (issuer and client id, a cookie's name).
    ///
    /// # Panics
    /// Where the system has no random bytes.
    #[must_use]
    pub fn seal(&self, purpose: Purpose, cookie: &[u8], context: &[&str], plain: &[u8]) -> Vec<u8> {
        let keys = self.keys();
        let key = &keys.first;
        let bound = self.bound(purpose.label(), context);
        let mut salt = [0; SALT];
        fill(&mut salt);
        // With room for the whole, so that no copy of the plain text is left behind by a buffer that grows.
        let mut sealed = Vec::with_capacity(HEADER + plain.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&key.context_tag(&salt, &bound));
        let associated = Aad::from([&sealed, &bound[..]].concat());
        sealed.extend_from_slice(plain);
        let tag = key
            .sealing(&salt, cookie, &bound)
            .seal_in_place_separate_tag(nonce(), associated, &mut sealed[HEADER..])
            .expect("AES-GCM seals up to 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(
        &self,
        purpose: Purpose,
        cookie: &[u8],
        context: &[&str],
        sealed: &[u8],
    ) -> Result<Wiped, OpenError> {
        match self.open_any(purpose, cookie, std::iter::once(context), sealed)? {
            Some((_, plain)) => Ok(plain),
            None => Err(OpenError::Broken),
        }
    }

    /// Opens what was sealed for one of `contexts`, and tells which (counted from 0). `None`: for none of them, or
    /// by another deployment.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open_any<'a>(
        &self,
        purpose: Purpose,
        cookie: &[u8],
        contexts: impl IntoIterator<Item = &'a [&'a str]>,
        sealed: &[u8],
    ) -> Result<Option<(usize, Wiped)>, OpenError> {
        if *sealed.first().ok_or(OpenError::Broken)? != FORMAT {
            return Err(OpenError::UnknownFormat);
        }
        let (header, ciphertext) = sealed.split_at_checked(HEADER).ok_or(OpenError::Broken)?;
        let (id, rest) = header[1..].split_at(KEY_ID);
        let (salt, tag) = rest.split_at(SALT);
        let keys = self.keys();
        let key = keys.all().find(|key| key.id == id).ok_or(OpenError::UnknownKey)?;
        let mut contexts = contexts.into_iter().enumerate().peekable();
        while let Some((n, context)) = contexts.next() {
            let associated = self.followed_by_bound(header, purpose.label(), context);
            let bound = &associated[HEADER..];
            let is_meant =
                || constant_time::verify_slices_are_equal(&key.context_tag(salt, bound), tag).is_ok();
            // The last one, and mostly it is the only one, is tried at once: the tag costs as much as the key.
            let is_last = contexts.peek().is_none();
            if !is_last && !is_meant() {
                continue;
            }
            let sealing = key.sealing(salt, cookie, bound);
            let mut plain = Wiped::new(ciphertext.to_vec());
            let Ok(opened) = sealing.open_in_place(nonce(), Aad::from(&associated), &mut plain) else {
                return if is_meant() {
                    Err(OpenError::Broken)
                } else {
                    Ok(None)
                };
            };
            let length = opened.len();
            plain.truncate(length);
            return Ok(Some((n, plain)));
        }
        Ok(None)
    }

    /// The name under which the store keeps what `hash` names: another in each deployment, so that two deployments
    /// on one Redis never meet each other's sessions (contract 5.2).
    #[must_use]
    pub fn scoped(&self, hash: [u8; 32]) -> [u8; 32] {
        super::id::hash(
            "cloakroom/store-key",
            &[self.public_url.as_bytes(), &[0], &hash].concat(),
        )
    }

    /// Signs `message` for this deployment and `purpose`, with the first key.
    #[must_use]
    pub fn sign(&self, purpose: &'static str, message: &[u8]) -> [u8; 32] {
        let mut signature = [0; 32];
        let signed = hmac::sign(&self.keys().first.signatures, &self.signed(purpose, message));
        signature.copy_from_slice(signed.as_ref());
        signature
    }

    /// As [`Self::sign`], with each of the keys, the first key's first: what was named under a key that has been rotated
    /// since is found under its old name.
    #[must_use]
    pub fn sign_with_all(&self, purpose: &'static str, message: &[u8]) -> Vec<[u8; 32]> {
        let signed = self.signed(purpose, message);
        let keys = self.keys();
        let signatures = keys.all().map(|key| {
            let mut signature = [0; 32];
            signature.copy_from_slice(hmac::sign(&key.signatures, &signed).as_ref());
            signature
        });
        signatures.collect()
    }

    /// Whether any of the keys signed `message` for this deployment and `purpose`. Takes the same time for every
    /// signature that is not right.
    #[must_use]
    pub fn verify(&self, purpose: &'static str, message: &[u8], signature: &[u8]) -> bool {
        let signed = self.signed(purpose, message);
        self.keys()
            .all()
            .any(|key| hmac::verify(&key.signatures, &signed, signature).is_ok())
    }

    fn signed(&self, purpose: &str, message: &[u8]) -> Vec<u8> {
        let mut signed = self.bound(purpose, &[]);
        signed.extend_from_slice(message);
        signed
    }
}

fn read(sources: &[SecretSource]) -> Result<Vec<Secret>, String> {
    sources.iter().map(SecretSource::current).collect()
}

//! Where sessions are kept: opaque, sealed bytes under hashed keys.
//!
//! The store cannot leak a token, because it cannot read one. It knows versions (for compare-and-swap), times to
//! live and leases. INVARIANT: every key has a TTL. INVARIANT: "not there" and "did not answer" are different types.

use bytes::Bytes;
use std::time::Duration;

/// What a key is for; part of the key's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A session's record.
    Session,
    /// The lease on a session's refresh.
    RefreshLock,
    /// A login attempt has been claimed by a callback.
    AttemptClaim,
    /// What a finished login attempt brought.
    AttemptResult,
    /// Where a logout that a script asked for leads on.
    LogoutContinuation,
}

/// A key in the store: a kind, and a hash that tells nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreKey {
    /// What it is for.
    pub kind: Kind,
    /// SHA-256 of what only the browser knows.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}/{:02x}{:02x}…", self.kind, self.hash[0], self.hash[1])
    }
}

/// A stored value and its version (1 when created, one more with each replacement).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The version.
    pub version: u64,
    /// The sealed bytes.
    pub sealed: Bytes,
}

/// How a compare-and-swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Written; this is the new version.
    Done(u64),
    /// Somebody else wrote since: read again.
    Changed,
    /// Not there any more; nothing was written.
    Gone,
}

/// The store did not do what was asked, and it is not known whether the key exists.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the session store does not answer: {0}")]
pub struct StoreError(pub String);

/// A session store.
#[derive(Debug)]
pub enum Store {}

impl Store {
    /// Reads a value: one round trip.
    /// # Errors
    /// [`StoreError`]: answer 503.
    pub async fn read(&self, _key: StoreKey) -> Result<Option<Record>, StoreError> {
        unimplemented!()
    }
    /// Writes a new value with version 1, over whatever was there.
    /// # Errors
    /// [`StoreError`]
    pub async fn create(&self, _key: StoreKey, _sealed: Bytes, _ttl: Duration) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Writes only if the version is still `expected`.
    /// # Errors
    /// [`StoreError`]: it is not known whether it was written.
    pub async fn replace(
        &self,
        _key: StoreKey,
        _expected: u64,
        _sealed: Bytes,
        _ttl: Duration,
    ) -> Result<Replaced, StoreError> {
        unimplemented!()
    }
    /// Deletes; true if it was there.
    /// # Errors
    /// [`StoreError`]: repeat until it is confirmed.
    pub async fn delete(&self, _key: StoreKey) -> Result<bool, StoreError> {
        unimplemented!()
    }
    /// Writes `owner` only if the key is not there: a claim, or a lease. True if it is now ours.
    /// # Errors
    /// [`StoreError`]
    pub async fn claim(&self, _key: StoreKey, _owner: &[u8; 16], _ttl: Duration) -> Result<bool, StoreError> {
        unimplemented!()
    }
    /// Prolongs a lease that `owner` holds. False if it is no longer ours.
    /// # Errors
    /// [`StoreError`]
    pub async fn renew(&self, _key: StoreKey, _owner: &[u8; 16], _ttl: Duration) -> Result<bool, StoreError> {
        unimplemented!()
    }
    /// Gives a claim or lease back, if `owner` holds it.
    /// # Errors
    /// [`StoreError`]
    pub async fn release(&self, _key: StoreKey, _owner: &[u8; 16]) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Asks whether the store is there.
    /// # Errors
    /// [`StoreError`]
    pub async fn ping(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
}

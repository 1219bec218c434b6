//! The lease that makes a refresh the only one over all replicas.
//!
//! INVARIANT: the lease outlasts the provider's timeout (10 s) and is renewed while the call runs; where its holder died,
//! the session is refreshed again after it, and until then a living token goes on. A process that was
//! paused for longer may hold it no more: then the compare-and-swap decides, and the loser uses what the winner wrote.
//! INVARIANT: a lease that may have been taken by a command whose answer never came is not waited for: its owner is
//! remembered, and the next try asks whether it is ours.

use crate::session::seal::fill;
use crate::store::{Store, StoreError, StoreKey};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a lease lasts if its holder is gone.
const LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(4);
/// The most owners that are remembered.
const MAX_UNSETTLED: usize = 10_000;

type Owner = [u8; 16];

/// The leases of this process.
#[derive(Debug)]
pub(in crate::session) struct Leases {
    /// What this process is called in records, while it lives.
    pub(super) replica: u64,
    /// Those of which it is not known whether they are held.
    unsettled: Mutex<HashMap<StoreKey, (Owner, Instant)>>,
}

impl Default for Leases {
    fn default() -> Self {
        let mut replica = [0; 8];
        fill(&mut replica);
        Self {
            replica: u64::from_be_bytes(replica),
            unsettled: Mutex::default(),
        }
    }
}

/// A lease that is ours.
pub(super) struct Lease {
    key: StoreKey,
    owner: Owner,
}

impl Leases {
    /// Takes the lease. `None`: another replica holds it.
    pub(super) async fn take(&self, store: &Store, key: StoreKey) -> Result<Option<Lease>, StoreError> {
        let unsettled = self.settle(key);
        let owner = unsettled.unwrap_or_else(|| {
            let mut owner = [0; 16];
            fill(&mut owner);
            owner
        });
        let taken = async {
            Ok(store.claim(key, &owner, LEASE).await?
                || (unsettled.is_some() && store.renew(key, &owner, LEASE).await?))
        };
        match taken.await {
            Ok(true) => Ok(Some(Lease { key, owner })),
            Ok(false) => Ok(None),
            Err(error) => {
                self.unsettle(key, owner);
                Err(error)
            }
        }
    }

    /// Gives the lease back.
    pub(super) async fn give_back(&self, store: &Store, lease: Lease) {
        if store.release(lease.key, &lease.owner).await.is_err() {
            self.unsettle(lease.key, lease.owner);
        }
    }

    fn settle(&self, key: StoreKey) -> Option<Owner> {
        let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        unsettled.remove(&key).map(|(owner, _)| owner)
    }

    fn unsettle(&self, key: StoreKey, owner: Owner) {
        let now = Instant::now();
        let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        if unsettled.len() >= MAX_UNSETTLED {
            unsettled.retain(|_, (_, until)| *until > now);
        }
        if unsettled.len() < MAX_UNSETTLED {
            unsettled.insert(key, (owner, now + LEASE));
        }
    }
}

impl Lease {
    /// Renews the lease for as long as it is polled.
    pub(super) async fn keep(&self, store: &Store) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(RENEWAL).await;
            match store.renew(self.key, &self.owner, LEASE).await {
                Ok(true) => {}
                // It ran out, and nobody has it yet.
                Ok(false) if store.claim(self.key, &self.owner, LEASE).await.unwrap_or(false) => {}
                // Nothing better can be done than to go on: what is written is written by compare-and-swap.
                Ok(false) => tracing::warn!(key = ?self.key, "the lease of a refresh was lost while it ran"),
                Err(error) => tracing::debug!(%error, "the lease of a refresh could not be renewed"),
            }
        }
    }
}

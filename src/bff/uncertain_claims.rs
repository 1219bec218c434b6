//! Claims of login attempts whose answer from the store was lost.
//!
//! A store that hangs may carry out a claim long after its caller gave up. Nobody would hold it then, and the attempt
//! would be lost to a user who only has to reload the page. So the owner under which it was tried is remembered, and the
//! next callback of this attempt tries under the same one. INVARIANT: bounded by [`MOST`]; one taker each.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The most claims that are remembered; what no longer fits costs its user a new login.
const MOST: usize = 10_000;

/// Owners by the hash of their attempt.
#[derive(Debug, Default)]
pub(super) struct UncertainClaims(Mutex<HashMap<[u8; 32], [u8; 16]>>);

impl UncertainClaims {
    pub(super) fn remember(&self, attempt: [u8; 32], owner: [u8; 16]) {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.len() >= MOST {
            owners.clear();
        }
        owners.insert(attempt, owner);
    }

    /// The owner, for one caller only.
    pub(super) fn take(&self, attempt: &[u8; 32]) -> Option<[u8; 16]> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(attempt)
    }
}

//! Files that make something together, such as a certificate and its key, read again when they change.
//!
//! INVARIANT: files that make nothing, as may be while they are replaced one after the other, never take away what the
//! last good ones made.

use super::secrets::SecretSource;
use crate::secret::Secret;
use arc_swap::ArcSwap;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How often the files are looked at, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What files make.
pub(super) struct Watched<T> {
    files: Vec<SecretSource>,
    in_use: ArcSwap<T>,
    seen: Mutex<Seen>,
}

/// What the files held when they were looked at last, usable or not.
struct Seen {
    at: Instant,
    contents: Vec<Secret>,
}

impl<T> Watched<T> {
    /// `contents`: what the files hold, in their order; `made`: what that makes.
    pub(super) fn new(files: Vec<SecretSource>, contents: Vec<Secret>, made: T) -> Self {
        let at = Instant::now();
        Self {
            files,
            in_use: ArcSwap::from_pointee(made),
            seen: Mutex::new(Seen { at, contents }),
        }
    }

    /// What is in use.
    pub(super) fn in_use(&self) -> Arc<T> {
        self.in_use.load_full()
    }

    /// Looks at the files, if that was more than a second ago, and makes something of what has changed. `None`: nothing
    /// has. Costs a `stat` a second for each file.
    pub(super) fn look_again<E>(
        &self,
        make: impl FnOnce(&[Secret]) -> Result<T, E>,
    ) -> Option<Result<(), E>> {
        // Whoever comes while somebody looks goes on with what is there.
        let mut seen = match self.seen.try_lock() {
            Ok(seen) => seen,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return None,
        };
        if seen.at.elapsed() < LOOK_AGAIN {
            return None;
        }
        seen.at = Instant::now();
        // What cannot be read was good once, and stays; that failure has been logged.
        let contents: Result<Vec<_>, _> = self.files.iter().map(SecretSource::current).collect();
        seen.contents = contents.ok().filter(|contents| *contents != seen.contents)?;
        Some(make(&seen.contents).map(|made| self.in_use.store(Arc::new(made))))
    }
}

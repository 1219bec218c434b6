//! Files in memory: what makes a request for one cost no look at the disk.
//!
//! On a request's way this stands in front of the disk. What was looked up is served for a second and then looked up
//! again, read whole again: no clock and no file system has to be trusted about whether it has changed.
//!
//! INVARIANT: bounded in bytes; how many look at the disk at once as well. INVARIANT: nothing is served that stood
//! there longer than a second ago. What is not there, and what is too large, is looked up each time.

use super::folder::{self, File, Found};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long what was looked up is served.
pub const FRESH_FOR: Duration = Duration::from_secs(1);

/// How much is kept of one folder, bytes.
pub const ROOM: u64 = 32 * 1024 * 1024;

/// What a file takes beside its content, bytes.
const OVERHEAD: u64 = 1024;

/// How many look-ups go on at once: who waits finds what was looked up meanwhile, so that a thousand requests for the same
/// file do not read it a thousand times.
pub const AT_ONCE: usize = 8;

/// What stands at the paths of one folder.
pub struct Kept {
    root: PathBuf,
    files: Cache<String, Look, Weight>,
    turns: Semaphore,
}

#[derive(Clone)]
struct Look {
    file: Arc<File>,
    until: Instant,
}

#[derive(Clone)]
struct Weight;

impl Weighter<String, Look> for Weight {
    fn weight(&self, path: &String, look: &Look) -> u64 {
        OVERHEAD + path.len() as u64 + look.file.in_memory().unwrap_or(0)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Kept {
    /// Nothing of this folder so far.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            // A guess at how many there will be, so low that the cache is one piece: it keeps nothing that is larger than a
            // piece of it.
            files: Cache::with_weighter(32, ROOM, Weight),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// What stands at a path, or stood there within the last second.
    ///
    /// # Errors
    /// There is a file, and it cannot be read.
    pub async fn find(&self, path: &str) -> io::Result<Found> {
        if let Some(file) = self.fresh(path) {
            return Ok(Found::File(file));
        }
        // It is never closed.
        let _turn = self.turns.acquire().await;
        if let Some(file) = self.fresh(path) {
            return Ok(Found::File(file));
        }
        let known = self.files.get(path);
        let was_known = known.is_some();
        let (root, asked) = (self.root.clone(), path.to_owned());
        let until = Instant::now() + FRESH_FOR;
        let found = tokio::task::spawn_blocking(move || {
            folder::look_up(&root, &asked, known.as_ref().map(|look| &*look.file))
        })
        .await??;
        match &found {
            Found::File(file) if file.in_memory().is_some() => {
                let file = file.clone();
                self.files.insert(path.to_owned(), Look { file, until });
            }
            _ if was_known => drop(self.files.remove(path)),
            _ => {}
        }
        Ok(found)
    }

    fn fresh(&self, path: &str) -> Option<Arc<File>> {
        let look = self.files.get(path)?;
        (Instant::now() < look.until).then_some(look.file)
    }

    /// How many bytes are kept.
    #[cfg(test)]
    pub fn weight(&self) -> u64 {
        self.files.weight()
    }
}

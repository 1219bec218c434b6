//! Secrets in the config: a plain string, `{ env: NAME }` or `{ file: PATH }`.
//!
//! Read at start, and again whenever a secret is needed: a file is looked at each time and read again when it has
//! changed, so a rotated secret needs no restart.
//!
//! INVARIANT: no message, log line or `Debug` holds a secret, not even a wrong one.
//! INVARIANT: what once could be read stays usable: a file that has become unreadable, empty or no text never takes
//! the last good value away.

use crate::clock::UnixTime;
use crate::secret::Secret;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The largest file that is taken for a secret, in bytes.
const LARGEST_FILE: u64 = 64 * 1024;
/// A file changed less than this many seconds ago may change again without its times showing it (they are as coarse
/// as a kernel tick or, on network file systems, a second), so it is read again until it has aged.
const SETTLED_SECS: u64 = 3;

/// Where a secret comes from.
#[derive(Clone)]
pub struct SecretSource(Source);

#[derive(Clone)]
enum Source {
    Plain(Secret),
    /// The variable's name, and its value at load: a process's environment does not change.
    Env(String, Result<Secret, String>),
    /// Shared by all clones, so that each change is read once.
    File(Arc<WatchedFile>),
}

impl SecretSource {
    /// The secret itself.
    #[must_use]
    pub fn plain(value: &str) -> Self {
        Self(Source::Plain(Secret::new(value)))
    }

    /// An environment variable, read now.
    #[must_use]
    pub fn env(name: &str) -> Self {
        let value = match std::env::var_os(name).map(std::ffi::OsString::into_string) {
            None => Err(format!("the environment variable {name} is not set")),
            Some(Err(_)) => Err(format!("the environment variable {name} holds no UTF-8 text")),
            Some(Ok(value)) if value.is_empty() => Err(format!("the environment variable {name} is empty")),
            Some(Ok(value)) => Ok(Secret::new(value)),
        };
        Self(Source::Env(name.to_owned(), value))
    }

    /// A file, read when the secret is asked for; one trailing line break is not part of the secret.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(Arc::new(WatchedFile {
            path: path.into(),
            seen: Mutex::new(Seen::default()),
        })))
    }

    /// The secret as it is now; never empty. A file is read again when it has changed; where that fails, the last
    /// good value stays (and the failure is logged once). Costs one `stat` for a file, nothing otherwise.
    ///
    /// # Errors
    /// A sentence for the operator, without the secret: what was looked for and what was found.
    pub fn current(&self) -> Result<Secret, String> {
        match &self.0 {
            Source::Plain(value) if value.is_empty() => Err("the secret is an empty text".into()),
            Source::Plain(value) => Ok(value.clone()),
            Source::Env(_, value) => value.clone(),
            Source::File(file) => file.current(),
        }
    }

    /// Whether the secret stands in the config itself.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.0, Source::Plain(_))
    }

    /// The file that the secret is read from.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.0 {
            Source::File(file) => Some(&file.path),
            _ => None,
        }
    }

    /// The file, where the secret is in one that every user of the machine may read.
    pub(super) fn file_for_everyone(&self) -> Option<&Path> {
        match &self.0 {
            Source::File(file) => {
                let mode = fs::metadata(&file.path).ok()?.mode();
                (mode & 0o004 != 0).then_some(file.path.as_path())
            }
            _ => None,
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Plain(_) => f.write_str("***"),
            Source::Env(name, _) => write!(f, "{{ env: {name} }}"),
            Source::File(file) => write!(f, "{{ file: {} }}", file.path.display()),
        }
    }
}

/// Equal where they come from the same place: not where two places hold the same secret.
impl PartialEq for SecretSource {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Source::Plain(a), Source::Plain(b)) => a == b,
            (Source::Env(a, _), Source::Env(b, _)) => a == b,
            (Source::File(a), Source::File(b)) => a.path == b.path,
            _ => false,
        }
    }
}

struct WatchedFile {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// What the file looked like when `value` was read; none where it may yet change unseen.
    stamp: Option<Stamp>,
    value: Option<Secret>,
    /// The failure that was logged last.
    complaint: Option<String>,
}

/// What tells one version of a file from another. The path is followed each time: Kubernetes and secret stores
/// replace a symlink, not the file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl WatchedFile {
    fn current(&self) -> Result<Secret, String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.stamp();
        if let (Ok(stamp), Some(value)) = (&stamp, &seen.value)
            && seen.stamp.as_ref() == Some(stamp)
        {
            return Ok(value.clone());
        }
        // The stamp is taken before the file is read: a change in between is then seen the next time.
        match stamp.and_then(|stamp| Ok((stamp, self.read()?))) {
            Ok((stamp, value)) => {
                let age = UnixTime::of_the_system()
                    .as_secs()
                    .saturating_sub(stamp.newest_secs());
                *seen = Seen {
                    stamp: (age >= SETTLED_SECS).then_some(stamp),
                    value: Some(value.clone()),
                    complaint: None,
                };
                Ok(value)
            }
            Err(problem) => {
                let Some(last_good) = seen.value.clone() else {
                    return Err(problem);
                };
                if seen.complaint.as_ref() != Some(&problem) {
                    tracing::warn!("a file cannot be read again, its last content stays in use: {problem}");
                    seen.complaint = Some(problem);
                }
                Ok(last_good)
            }
        }
    }

    fn stamp(&self) -> Result<Stamp, String> {
        let metadata = fs::metadata(&self.path).map_err(|error| self.unreadable(&error))?;
        if !metadata.is_file() {
            return Err(format!("{} is no regular file", self.path.display()));
        }
        Ok(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn read(&self) -> Result<Secret, String> {
        let file = File::open(&self.path).map_err(|error| self.unreadable(&error))?;
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        file.take(LARGEST_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.unreadable(&error))?;
        let path = self.path.display();
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(format!("{path} is larger than 64 KiB, which no secret is"));
        }
        let Ok(text) = str::from_utf8(&bytes) else {
            return Err(format!("{path} holds no UTF-8 text"));
        };
        let text = text
            .strip_suffix('\n')
            .map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        // Also what a file is for a moment while it is rewritten in place.
        if text.is_empty() {
            return Err(format!("{path} is empty"));
        }
        Ok(Secret::new(text))
    }

    fn unreadable(&self, error: &std::io::Error) -> String {
        format!(
            "{} cannot be read: {}",
            self.path.display(),
            super::file::reason(error)
        )
    }
}

impl Stamp {
    fn newest_secs(&self) -> u64 {
        u64::try_from(self.modified.0.max(self.changed.0)).unwrap_or(0)
    }
}

impl JsonSchema for SecretSource {
    fn schema_name() -> Cow<'static, str> {
        "SecretSource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-secret": true,
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "env": { "type": "string", "description": "The name of an environment variable." } },
                    "required": ["env"],
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "properties": {
                        "file": {
                            "type": "string",
                            "description": "The path of a file, read again when it changes; one trailing line break is not part of the secret.",
                        },
                    },
                    "required": ["file"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct AnySource;

        impl<'de> Visitor<'de> for AnySource {
            type Value = SecretSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, { env: NAME } or { file: PATH }")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<SecretSource, E> {
                Ok(SecretSource::plain(text))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretSource, A::Error> {
                let entry = map.next_entry::<String, String>()?;
                match entry.as_ref().map(|(key, value)| (key.as_str(), value)) {
                    Some(("env", name)) => Ok(SecretSource::env(name)),
                    Some(("file", path)) => Ok(SecretSource::file(path)),
                    _ => Err(A::Error::custom(
                        "wanted: a text, { env: NAME } or { file: PATH }",
                    )),
                }
            }
        }

        from.deserialize_any(AnySource)
    }
}

#[cfg(test)]
mod tests;

//! Secrets in the config: a plain string, `{ env: NAME }` or `{ file: PATH }`.
//!
//! A file is read again when it changes, so a rotated secret needs no restart.

use crate::secret::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use std::path::PathBuf;

/// Where a secret comes from.
#[derive(Clone, Debug, JsonSchema)]
#[serde(untagged)]
pub enum SecretSource {
    /// The secret itself.
    Plain(#[schemars(with = "String")] Secret),
    /// An environment variable.
    Env {
        /// Its name.
        env: String,
    },
    /// A file; one trailing line break is not part of the secret.
    File {
        /// Its path.
        file: PathBuf,
    },
}

impl SecretSource {
    /// The secret as it is now. A file is read again when it has changed; where that fails, the last good
    /// value stays (and the failure is logged once a change).
    ///
    /// # Errors
    /// A sentence for the operator, without the secret: what was looked for and what was found.
    pub fn current(&self) -> Result<Secret, String> {
        unimplemented!()
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        unimplemented!()
    }
}

/// serde for one secret or a list.
pub mod one_or_many {
    use super::{Deserializer, SecretSource};
    /// Reads a secret or a list.
    pub fn deserialize<'de, D: Deserializer<'de>>(_: D) -> Result<Vec<SecretSource>, D::Error> {
        unimplemented!()
    }
}

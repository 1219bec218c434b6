//! The config: read, layered (defaults ← file ← environment), checked, with every mistake at once.
//!
//! Only this folder reads files and the environment.

pub mod proxy_env;
pub mod secrets;
pub mod settings;
pub mod units;

pub use proxy_env::ProxyEnvironment;
pub use secrets::SecretSource;
pub use settings::*;

use std::path::Path;

/// One mistake: where, what was found, what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `file:line:column`, or the name of the environment variable.
    pub place: String,
    /// The key's path: `session.idle_timeout`, `routes[1].path`.
    pub key: String,
    /// What was found, what is wanted and what to do, in one sentence or two. Never a secret.
    pub message: String,
}

/// What `load` brings.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked config.
    pub settings: Settings,
    /// What is allowed but unwise or not used yet, one line each with the remedy.
    pub warnings: Vec<String>,
}

/// Reads and checks the config. `file: None` searches `$CLOAKROOM_CONFIG`, `./cloakroom.yaml`,
/// `/etc/cloakroom/cloakroom.yaml`.
///
/// # Errors
/// Every mistake in it, in the file's order.
pub fn load(_file: Option<&Path>) -> Result<Loaded, Vec<Mistake>> {
    unimplemented!()
}

/// As [`load`], from text (for the demo and for tests); the environment is not looked at.
///
/// # Errors
/// Every mistake in it.
pub fn load_text(_name: &str, _yaml: &str) -> Result<Loaded, Vec<Mistake>> {
    unimplemented!()
}

/// The JSON Schema of the config, pretty-printed.
#[must_use]
pub fn schema() -> String {
    unimplemented!()
}

fn providers_from_map<'de, D: serde::Deserializer<'de>>(_: D) -> Result<Vec<ProviderSettings>, D::Error> {
    unimplemented!()
}

//! The config: read, layered (defaults ← file ← environment), checked, with every mistake at once.
//!
//! Read at start, before the first request. Only this folder reads the config's file and the environment.
//!
//! | step          | what it does                                                              |
//! | ------------- | ------------------------------------------------------------------------- |
//! | `file`        | finds the file and reads its text                                         |
//! | `yaml`        | text → a tree in which everything knows its line and column               |
//! | `environment` | lays `CLOAKROOM_…` variables over it                                      |
//! | `walk`        | refuses what does not fit the schema, all of it, and puts stand-ins there |
//! | `layers`      | file and environment → [`Settings`]; serde has the defaults               |
//! | `checks`      | refuses what fits the types and makes no sense; warns about the unwise    |
//!
//! `settings` is the only list of keys: `schema` and `walk` come out of it.

pub mod certificate;
mod checks;
pub mod client_ca;
mod environment;
mod file;
mod layers;
mod one_or_many;
pub mod proxy_env;
mod report;
pub mod route_table;
mod schema;
pub mod secrets;
pub mod settings;
pub mod units;
mod walk;
mod wants;
mod watched;
mod yaml;

pub use certificate::Certificate;
pub use client_ca::ClientCa;
pub use proxy_env::ProxyEnvironment;
pub use report::Mistake;
pub use route_table::{Destination, RouteTable};
pub use secrets::SecretSource;
pub use settings::*;

use report::{Findings, Report};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use yaml::{Node, Place, Value};

/// What `load` brings.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked config.
    pub settings: Settings,
    /// What is allowed but unwise or not used yet, one line each with the remedy.
    pub warnings: Vec<String>,
}

/// Reads and checks the config. `file: None` searches `$CLOAKROOM_CONFIG`, `./cloakroom.yaml`,
/// `/etc/cloakroom/cloakroom.yaml`. Reads the files that it names, too: secrets, authorities, the folders of routes.
///
/// # Errors
/// Every mistake in it, in the file's order.
pub fn load(file: Option<&Path>) -> Result<Loaded, Vec<Mistake>> {
    load_with(file, std::env::vars_os())
}

fn load_with(
    file: Option<&Path>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Vec<Mistake>> {
    let no_file = |place: String, message| {
        vec![Mistake {
            place,
            key: String::new(),
            message,
        }]
    };
    let path = file::find(file).map_err(|problem| no_file("config".into(), problem))?;
    let name = path.display().to_string();
    let text = file::read(&path).map_err(|problem| no_file(name.clone(), problem))?;
    check(&name, &text, variables, true)
}

/// As [`load`], from text (for the demo and for tests); the environment is not looked at, and of the files that the
/// config names only the secrets are.
///
/// # Errors
/// Every mistake in it.
pub fn load_text(name: &str, yaml: &str) -> Result<Loaded, Vec<Mistake>> {
    check(name, yaml, std::iter::empty(), false)
}

/// As [`load_text`], with an environment: for the fuzz targets.
///
/// # Errors
/// Every mistake in it.
#[cfg(fuzzing)]
pub fn load_text_with(
    name: &str,
    yaml: &str,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Vec<Mistake>> {
    check(name, yaml, variables, false)
}

/// The JSON Schema of the config, pretty-printed.
#[must_use]
pub fn schema() -> String {
    schema::pretty()
}

/// All the steps from text to settings.
fn check(
    name: &str,
    text: &str,
    variables: impl Iterator<Item = (OsString, OsString)>,
    with_files: bool,
) -> Result<Loaded, Vec<Mistake>> {
    let name: Arc<str> = Arc::from(name);
    let mut report = Report::default();
    let parsed = yaml::parse(text, &|line, column| Place::File(Arc::clone(&name), line, column));
    let mut tree = match parsed {
        Ok(tree) => tree,
        Err((place, problem)) => {
            report.add(&place, String::new(), problem);
            let place = Place::File(name, 1, 1);
            Node {
                place,
                value: Value::Null,
            }
        }
    };
    let unreadable = report.has_mistakes();
    let mut in_pod = false;
    // Kubernetes sets it in every container.
    let variables = variables.inspect(|(name, _)| in_pod |= name == "KUBERNETES_SERVICE_HOST");
    environment::lay_over(&mut tree, variables, &mut report);
    if unreadable || tree.value == Value::Null {
        if !unreadable {
            let problem = "is empty; wanted: at least `public_url` and `providers`";
            report.add(&tree.place, String::new(), problem.into());
        }
        // Without the file there is nothing to compare the environment's part with.
        return Err(report.finish().err().unwrap_or_default());
    }
    walk::walk(&mut tree, &mut report);
    let mut settings = match layers::settings(&tree) {
        Ok(settings) => settings,
        Err((path, misfit)) => {
            // The walk knows less than a type: a fault of ours, but not one that should take the process down.
            report.add(&tree.place, path.to_string(), misfit);
            return Err(report.finish().err().unwrap_or_default());
        }
    };
    settings.name_redirect_paths();
    let mut findings = Findings::new(&tree, &mut report, in_pod);
    checks::meaning(&settings, &mut findings);
    if with_files {
        checks::files(&settings, &mut findings);
    }
    let warnings = report.finish()?;
    Ok(Loaded { settings, warnings })
}

/// Providers, each with its key as its name.
fn providers_from_map<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<ProviderSettings>, D::Error> {
    struct ByName;

    impl<'de> serde::de::Visitor<'de> for ByName {
        type Value = Vec<ProviderSettings>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("providers by name")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some((name, provider)) = map.next_entry::<String, ProviderSettings>()? {
                all.push(ProviderSettings { name, ..provider });
            }
            Ok(all)
        }
    }

    from.deserialize_map(ByName)
}

#[cfg(test)]
mod tests;

//! The config: settings or mistakes, each with its place, and never a secret (contract 1 `check`, 2.1–2.6).
//!
//! The fuzzer's bytes are the file's text; what comes after a zero byte are variables, `SESSION__IDLE_TIMEOUT=10m`, each
//! after a zero byte of its own. `hunter2` is the secret: wherever it stands as one and nowhere else, nobody may repeat it.

use cloakroom::config::{Loaded, Mistake, RouteTable, load_text_with};
use cloakroom::protocol::path::RequestPath;
use serde_json::Value;
use std::ffi::OsString;
use std::time::Duration;

/// Stands for every secret.
const SECRET: &str = "hunter2";
/// The keys whose texts, or lists of texts, are secrets.
const SECRET_KEYS: [&str; 4] = ["client_secret", "admin_token", "keys", "password"];
const NAME: &str = "f.yaml";

/// # Panics
/// Where a mistake has no place, a secret is told, or what was taken makes no sense.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // A secret's file is opened: none that is no file.
    if ["/dev", "/proc", "/sys"]
        .iter()
        .any(|folder| text.contains(folder))
    {
        return;
    }
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let variables: Vec<(String, String)> = parts
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (format!("CLOAKROOM_{name}"), value.to_owned()))
        .collect();
    let os = |(name, value): &(String, String)| (OsString::from(name), OsString::from(value));
    let outcome = load_text_with(NAME, file, variables.iter().map(os));
    let lines = match &outcome {
        Ok(loaded) => {
            check_settings(loaded);
            loaded.warnings.clone()
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a word");
            for mistake in mistakes {
                check_mistake(mistake, file, &variables);
            }
            mistakes.iter().map(ToString::to_string).collect()
        }
    };
    for line in &lines {
        assert!(
            !line.contains('\n') && !line.chars().any(char::is_control),
            "{line:?} is no line"
        );
    }
    if is_only_a_secret(file)
        && !variables
            .iter()
            .any(|(name, value)| [name, value].iter().any(|t| t.contains(SECRET)))
    {
        assert!(
            !lines.iter().any(|line| line.contains(SECRET)),
            "a secret is told: {lines:?}"
        );
        let debug = format!("{:?}", outcome.map(|loaded| loaded.settings));
        assert!(!debug.contains(SECRET), "a secret is in Debug");
    }
}

/// `file:line:column` inside of the file, or a variable's name.
fn check_mistake(mistake: &Mistake, file: &str, variables: &[(String, String)]) {
    let Mistake { place, message, .. } = mistake;
    assert!(!message.is_empty());
    if variables.iter().any(|(name, _)| name == place) {
        return;
    }
    let position = place
        .strip_prefix("f.yaml:")
        .unwrap_or_else(|| panic!("{place:?} is no place"));
    let (line, column) = position.split_once(':').expect("line and column");
    let (line, column): (usize, usize) = (line.parse().expect("a number"), column.parse().expect("a number"));
    // A parser of YAML ends lines at a carriage return as well; after the last line is where the end is.
    let lines: Vec<&str> = file.split(['\n', '\r']).collect();
    assert!(
        (1..=lines.len() + 1).contains(&line),
        "{place} of {} lines",
        lines.len()
    );
    let longest = lines
        .iter()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or_default();
    assert!(
        (1..=longest + 2).contains(&column),
        "{place} of {longest} columns"
    );
}

/// Whether the secret stands in the text as the value of a secret's key and nowhere else, for a second parser of YAML.
fn is_only_a_secret(text: &str) -> bool {
    let found = text.matches(SECRET).count();
    if found == 0 {
        return false;
    }
    serde_saphyr::from_str::<Value>(text).is_ok_and(|tree| secrets(&tree, false) == found)
}

/// How often the secret stands where a secret belongs.
fn secrets(value: &Value, is_secret: bool) -> usize {
    match value {
        Value::String(text) if is_secret => text.matches(SECRET).count(),
        Value::Array(items) => items
            .iter()
            .map(|item| secrets(item, is_secret && !item.is_object()))
            .sum(),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| secrets(value, SECRET_KEYS.contains(&key.as_str())))
            .sum(),
        _ => 0,
    }
}

/// What 2.5 and 2.6 say of a config that is taken.
fn check_settings(loaded: &Loaded) {
    let settings = &loaded.settings;
    let url = &settings.public_url;
    let is_v6 = url.authority().starts_with("[::1]");
    let host = url.authority().split(':').next().unwrap_or_default();
    let is_here = host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1" || is_v6;
    assert!(url.scheme() == "https" || is_here, "plain http for {host}");
    assert!(!settings.providers.is_empty());
    assert!(
        settings.session.idle_timeout > Duration::ZERO && settings.session.absolute_timeout > Duration::ZERO
    );
    let prefix = &settings.prefix;
    let own = format!("{prefix}/");
    for provider in &settings.providers {
        let path = provider.redirect_path.as_deref().unwrap_or_default();
        assert!(path.starts_with(&own), "{path} is outside of {prefix}");
    }
    for path in settings.routes.iter().map(|route| &route.path).chain([prefix]) {
        let parsed = RequestPath::parse(path).unwrap_or_else(|doubt| panic!("{path:?}: {doubt}"));
        assert!(path == "/" || !path.ends_with('/'), "{path:?} ends with a slash");
        assert_eq!(parsed.decoded(), path, "no request meets it");
    }
    assert!(
        !settings
            .routes
            .iter()
            .any(|route| route.path == *prefix || route.path.starts_with(&own))
    );
    let table = RouteTable::new(prefix, &settings.routes);
    assert_eq!(table.routes().len(), settings.routes.len());
    assert_eq!(settings.registrations().len(), settings.providers.len());
}

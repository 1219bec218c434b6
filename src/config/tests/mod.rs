//! The config as a whole: text in, settings or mistakes out.

mod bad;
mod environment;
mod files;
mod good;
mod unwise;

use super::{Loaded, Mistake, load_text};

/// A config that needs nothing else, in parts; a test brings the parts that it is about itself.
const PARTS: [(&str, &str); 3] = [
    ("public_url:", "public_url: https://app.example.com\n"),
    (
        "providers:",
        "providers: {main: {issuer: \"https://id.example.com\", client_id: app, client_secret: canary}}\n",
    ),
    (
        "routes:",
        "routes: [{path: /api, upstream: \"http://orders:8080\"}]\n",
    ),
];

/// `text` and the parts that it lacks after it, so that its lines keep their numbers.
fn complete(text: &str) -> String {
    let lacks = |key: &str| !text.lines().any(|line| line.starts_with(key));
    let parts: String = PARTS
        .iter()
        .filter(|(key, _)| lacks(key))
        .map(|(_, part)| *part)
        .collect();
    format!("{text}\n{parts}")
}

fn loaded(text: &str) -> Loaded {
    load_text("f", &complete(text)).unwrap_or_else(|mistakes| panic!("{text}\n{}", lines(&mistakes)))
}

fn lines(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Whether a warning about a key holds a text.
fn warns(loaded: &Loaded, key: &str, text: &str) -> bool {
    loaded
        .warnings
        .iter()
        .any(|warning| warning.contains(&format!(": {key}: ")) && warning.contains(text))
}

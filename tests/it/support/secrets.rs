//! What must never be seen, and the search for it (contract §1, design invariant 1).
//!
//! Everything the suite's provider issues begins with `CANARY-`; what cloakroom makes itself (cookies, states, nonces)
//! is remembered as the browser sees it. Every output of every cloakroom in the suite is searched for both.

use super::random;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashSet;
use std::sync::{Mutex, OnceLock};

/// The client id that every config of the suite uses.
pub const CLIENT_ID: &str = "app";

fn known() -> &'static Mutex<HashSet<String>> {
    static KNOWN: OnceLock<Mutex<HashSet<String>>> = OnceLock::new();
    KNOWN.get_or_init(Mutex::default)
}

fn is_token_byte(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Remembers a value that no output may show.
pub fn remember(value: &str) {
    let mut known = known().lock().unwrap();
    if value.chars().all(is_token_byte) && value.len() >= 20 {
        known.insert(value.to_owned());
    } else {
        let parts = value.split(|c| !is_token_byte(c)).filter(|part| part.len() >= 32);
        known.extend(parts.map(str::to_owned));
    }
}

/// A fresh secret that names its kind: `CANARY-at-…`.
pub fn canary(kind: &str) -> String {
    format!("CANARY-{kind}-{}", random(12))
}

/// Every secret that is to be seen in this text, with what stands before it.
pub fn found_in(text: &str) -> Vec<String> {
    let basic = STANDARD.encode(format!("{CLIENT_ID}:CANARY-c"));
    let mut found = Vec::new();
    // The head of every JWT that the suite issues begins with {"alg": in base64url.
    for pattern in ["CANARY-", "eyJhbGci", &basic] {
        for (at, _) in text.match_indices(pattern) {
            found.push(around(text, at));
        }
    }
    let known = known().lock().unwrap();
    for part in text.split(|c| !is_token_byte(c)) {
        if part.len() >= 20 && known.contains(part) {
            found.push(around(text, part.as_ptr() as usize - text.as_ptr() as usize));
        }
    }
    found
}

fn around(text: &str, at: usize) -> String {
    let from = text.floor_char_boundary(at.saturating_sub(160));
    let to = text.ceil_char_boundary((at + 80).min(text.len()));
    text[from..to].to_owned()
}

/// Panics where a secret is to be seen in this text.
pub fn assert_none_in(what: &str, text: &str) {
    let found = found_in(text);
    assert!(
        found.is_empty(),
        "{what} shows a secret, {} times; first:\n{}",
        found.len(),
        found[0]
    );
}

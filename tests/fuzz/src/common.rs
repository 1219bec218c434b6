//! What several targets need: a config, routes, and escapes read by a second decoder.

use cloakroom::config::{RouteTable, Settings, load_text};
use std::sync::LazyLock;

/// The session cookie's name by default.
pub const SESSION_COOKIE: &str = "__Host-Http-cloakroom";

/// Routes of every kind: open ones below guarded ones and the other way round, with and without encoded slashes.
pub static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let text = "
public_url: https://app.example.com
providers: {main: {issuer: https://id.example.com, client_id: app, client_secret: hunter2}}
routes:
  - {path: /, upstream: \"http://127.0.0.1:1\", auth: none, pages: true, encoded_slash: pass}
  - {path: /api, upstream: \"http://127.0.0.1:1\", encoded_slash: pass}
  - {path: /api/public, upstream: \"http://127.0.0.1:1\", auth: none, encoded_slash: pass}
  - {path: /api/public/admin, upstream: \"http://127.0.0.1:1\"}
  - {path: /open, upstream: \"http://127.0.0.1:1\", auth: none, pages: true, encoded_slash: pass}
  - {path: /open/admin, upstream: \"http://127.0.0.1:1\", pages: true, encoded_slash: pass}
  - {path: /admin, upstream: \"http://127.0.0.1:1\", auth: optional}
";
    load_text("routes", text)
        .expect("the targets' own config")
        .settings
});

/// The same, ready to be asked.
pub static ROUTES: LazyLock<RouteTable> =
    LazyLock::new(|| RouteTable::new(&SETTINGS.prefix, &SETTINGS.routes));

/// Decodes every escape once; what is no escape stays as it is.
#[must_use]
pub fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let escape = text.get(at + 1..at + 3).filter(|_| text[at] == b'%');
        let digits = escape.and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(text[at]);
            at += 1;
        }
    }
    decoded
}

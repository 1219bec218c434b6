//! `application/x-www-form-urlencoded`, both ways, and the parts of a URL.

use std::fmt::Write as _;

/// Encodes one value, leaving only unreserved characters.
pub fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").unwrap();
        }
    }
    out
}

/// Decodes one value; `+` is a space.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The pairs of a form or query, in order.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

/// The query of a URL, decoded into pairs.
pub fn query(url: &str) -> Vec<(String, String)> {
    let url = url.split('#').next().unwrap_or(url);
    url.split_once('?')
        .map(|(_, query)| pairs(query))
        .unwrap_or_default()
}

/// The one value of that name in a URL's query; panics where there are two.
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let found: Vec<_> = query(url).into_iter().filter(|(n, _)| n == name).collect();
    assert!(found.len() < 2, "{name} is there {} times", found.len());
    found.into_iter().next().map(|(_, value)| value)
}

/// The URL with one parameter of its query changed, or taken out.
pub fn with_parameter(url: &str, name: &str, value: Option<&str>) -> String {
    let (before, _) = url.split_once('?').unwrap_or((url, ""));
    let mut kept: Vec<String> = query(url)
        .into_iter()
        .filter(|(n, _)| n != name)
        .map(|(n, v)| format!("{}={}", encode(&n), encode(&v)))
        .collect();
    kept.extend(value.map(|value| format!("{name}={}", encode(value))));
    format!("{before}?{}", kept.join("&"))
}

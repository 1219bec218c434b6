//! Where a login may lead: the grammar of `return_to` (contract 3.2).
//!
//! A positive grammar, applied to the value after its one decoding: what it does not name is refused, so no second
//! decoding, path clean-up or concatenation further on can lead to another origin. Sources: RFC 9700 §4.11.

use super::path::RequestPath;

/// The longest `return_to`, bytes.
const MAX_LENGTH: usize = 1024;

/// Checks the grammar, and gives the path as the router sees it. `None`: not a path on this origin.
///
/// Whether the path meets a route where nobody may land is for the router to say.
#[must_use]
pub fn parse(value: &str) -> Option<RequestPath> {
    if value.len() > MAX_LENGTH || !value.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
        return None;
    }
    let (rest, fragment) = value.split_once('#').unwrap_or((value, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') || path.contains("//") || path.contains('\\') {
        return None;
    }
    if [query, fragment]
        .into_iter()
        .any(|part| part.contains(['\\', '"', '<', '>']))
    {
        return None;
    }
    if has_encoded_structure(path) {
        return None;
    }
    RequestPath::parse(path).ok()
}

/// Whether an escape hides what gives a path its shape: a control, percent sign, slash, backslash or dot.
fn has_encoded_structure(path: &str) -> bool {
    path.match_indices('%').any(|(at, _)| {
        match path.get(at + 1..at + 3).map(|hex| u8::from_str_radix(hex, 16)) {
            Some(Ok(byte)) => byte < 0x20 || matches!(byte, 0x7f | b'%' | b'/' | b'\\' | b'.'),
            _ => true,
        }
    })
}

//! Headers that belong to one connection and go no further.
//!
//! Source: RFC 9110 §7.6.1.

use http::HeaderMap;

/// Removes the hop-by-hop headers and whatever any `Connection` line names.
pub fn remove(_headers: &mut HeaderMap) {
    unimplemented!()
}

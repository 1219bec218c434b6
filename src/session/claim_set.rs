//! A session's claims: kept as the text that is stored, and read when somebody asks for one.
//!
//! On a request's way a record is read whenever its session is not in memory, and most routes ask for no claim: to build the
//! tree of all of them is half of what parsing the record costs.
//!
//! INVARIANT: a text that is no object counts as no claims, so that a route that wants one refuses. Only who has the key could
//! have sealed such a text.

use serde_json::{Map, Value};
use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;

/// The members of a JWT Claims Set (RFC 7519 §2), by name.
#[derive(Clone)]
pub struct ClaimSet {
    text: String,
    read: OnceLock<Map<String, Value>>,
}

impl Deref for ClaimSet {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Map<String, Value> {
        self.read.get_or_init(|| {
            serde_json::from_str(&self.text).unwrap_or_else(|error| {
                // Without the error's own words: these may quote a claim.
                let (why, column) = (error.classify(), error.column());
                tracing::error!(
                    ?why,
                    column,
                    "a session's claims make no sense, and count as none"
                );
                Map::new()
            })
        })
    }
}

impl From<Map<String, Value>> for ClaimSet {
    fn from(claims: Map<String, Value>) -> Self {
        let claims = Value::Object(claims);
        Self {
            text: claims.to_string(),
            read: OnceLock::new(),
        }
    }
}

impl fmt::Debug for ClaimSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl ClaimSet {
    /// Of what [`Self::text`] gave.
    pub(super) fn of_text(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            read: OnceLock::new(),
        }
    }

    /// A JSON object.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_the_same_after_they_were_stored() {
        let claims = json!({"sub": "a \"quoted\" \\ name", "groups": ["staff", "é"], "n": 1.5, "deep": {"a": [null, true]}});
        let set = ClaimSet::from(claims.as_object().unwrap().clone());
        let read = ClaimSet::of_text(set.text());
        assert_eq!(*read, *claims.as_object().unwrap());
        assert_eq!(read.text(), set.text());
    }

    #[test]
    fn what_is_no_claims_is_none() {
        for text in ["", "[]", "{", "null", "{}{}"] {
            assert!(ClaimSet::of_text(text).is_empty(), "{text}");
        }
    }
}

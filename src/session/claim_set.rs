//! A session's claims: kept as the text that is stored, and read when somebody asks for one.
//!
//! On a request's way a record is read whenever its session is not in memory, and most routes ask for no claim: to build the
//! tree of all of them is half of what parsing the record costs.
//!
//! INVARIANT: a text that is no object counts as no claims, so that a route that wants one refuses. Only who has the key could
//! have sealed such a text.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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

impl Serialize for ClaimSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// From a text with an object in it, or from the object itself.
impl<'de> Deserialize<'de> for ClaimSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ClaimSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("claims")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ClaimSet, E> {
                Ok(ClaimSet {
                    text: text.to_owned(),
                    read: OnceLock::new(),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ClaimSet, A::Error> {
                Map::deserialize(MapAccessDeserializer::new(map)).map(ClaimSet::from)
            }
        }

        deserializer.deserialize_any(Either)
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
        let stored = serde_json::to_string(&set).unwrap();
        let read: ClaimSet = serde_json::from_str(&stored).unwrap();
        assert_eq!(*read, *claims.as_object().unwrap());
        assert_eq!(serde_json::to_string(&read).unwrap(), stored);
        let read: ClaimSet = serde_json::from_value(claims.clone()).unwrap();
        assert_eq!(*read, *claims.as_object().unwrap());
    }

    #[test]
    fn what_is_no_claims_is_none() {
        for text in ["", "[]", "{", "null"] {
            let read: ClaimSet = serde_json::from_value(json!(text)).unwrap();
            assert!(read.is_empty(), "{text}");
        }
        for value in [json!(null), json!(1), json!(["a"])] {
            assert!(serde_json::from_value::<ClaimSet>(value).is_err());
        }
    }
}

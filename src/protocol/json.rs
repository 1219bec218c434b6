//! JSON from a provider, read so that it has one meaning.
//!
//! Stands under every parser of what a provider sends: metadata, keys, token answers, ID token headers and claims.
//!
//! INVARIANT: an object that names a member twice is refused, at any depth: two readers could take different ones.
//! Sources: RFC 7519 §4, RFC 7515 §4, RFC 7517 §4 (unique names), RFC 8259 §4.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Why a text is no usable JSON object. Holds nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, cut short, too deep, not UTF-8, followed by something, or a member came twice.
    #[error("is not well-formed JSON with unique member names")]
    Malformed,
    /// JSON, but an array or a lone value.
    #[error("is not a JSON object")]
    NotAnObject,
}

/// Reads one JSON object and nothing after it.
///
/// # Errors
/// [`JsonError`]; nothing of the text may be used then.
pub fn object(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    match serde_json::from_slice::<Unique>(text) {
        Ok(Unique(Value::Object(members))) => Ok(members),
        Ok(_) => Err(JsonError::NotAnObject),
        Err(_) => Err(JsonError::Malformed),
    }
}

/// A value in whose objects no member comes twice. `serde_json`'s own depth limit (128) holds.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with unique member names")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, Unique>()? {
            // RFC 7519 §4: "The Claim Names within a JWT Claims Set MUST be unique"
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member comes twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_15_a_member_that_comes_twice_is_refused_at_any_depth() {
        for twice in [
            r#"{"aud":"us","aud":"them"}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            assert_eq!(object(twice.as_bytes()), Err(JsonError::Malformed), "{twice}");
        }
        assert!(object(br#"{"a":{"b":1},"b":{"b":1}}"#).is_ok());
    }

    #[test]
    fn only_one_whole_object_is_read() {
        for (text, error) in [
            (&b"[]"[..], JsonError::NotAnObject),
            (b"null", JsonError::NotAnObject),
            (b"\"{}\"", JsonError::NotAnObject),
            (b"", JsonError::Malformed),
            (b"{} {}", JsonError::Malformed),
            (b"{}x", JsonError::Malformed),
            (b"\xEF\xBB\xBF{}", JsonError::Malformed),
            (b"{\"a\":\"\xFF\"}", JsonError::Malformed),
            (b"{\"a\":1", JsonError::Malformed),
            (b"{\"a\":NaN}", JsonError::Malformed),
            (b"{\"a\":1e999}", JsonError::Malformed),
            (b"<html>", JsonError::Malformed),
        ] {
            assert_eq!(object(text), Err(error), "{}", String::from_utf8_lossy(text));
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(object(deep.as_bytes()), Err(JsonError::Malformed));
        assert_eq!(object(b" {\"a\": 1.5} ").unwrap()["a"], 1.5);
    }
}

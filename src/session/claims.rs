//! What a session says of its user: text until somebody asks.
//!
//! On a request's way to an upstream nobody asks, unless its route requires a claim; a map of them, made and dropped with
//! each session that is read from the store, would cost more than its decryption.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::ops::Deref;
use std::sync::OnceLock;

/// Claims of an ID token, joined by userinfo's.
#[derive(Clone, Debug)]
pub struct Claims(Form);

#[derive(Clone, Debug)]
enum Form {
    Read(Map<String, Value>),
    /// As it stands in the record, and what was read of it.
    Text(Box<RawValue>, OnceLock<Map<String, Value>>),
}

impl From<Map<String, Value>> for Claims {
    fn from(claims: Map<String, Value>) -> Self {
        Self(Form::Read(claims))
    }
}

impl Deref for Claims {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        match &self.0 {
            Form::Read(claims) => claims,
            // An object was found there; what cannot be read of it all the same (a number beyond all numbers) requires
            // somebody who sealed it with our key, and then nothing is claimed.
            Form::Text(text, read) => {
                read.get_or_init(|| serde_json::from_str(text.get()).unwrap_or_default())
            }
        }
    }
}

impl Serialize for Claims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Form::Read(claims) => claims.serialize(serializer),
            Form::Text(text, _) => text.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        if text.get().starts_with('{') {
            Ok(Self(Form::Text(text, OnceLock::new())))
        } else {
            Err(de::Error::custom("claims are an object"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_text_is_the_same_claims_and_is_written_again_to_the_letter() {
        let text = r#"{"sub":"alex","groups":["a","b"],"n":12345678901234567890.5,"deep":{"x":null}}"#;
        let claims: Claims = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&claims).unwrap(), text);
        assert_eq!(claims["groups"], json!(["a", "b"]));
        let read = Claims::from((*claims).clone());
        assert_eq!(*read, *claims);
        let again: Claims = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(*again, *claims);
    }

    #[test]
    fn nothing_but_an_object_is_claims() {
        for other in ["null", "[]", "\"{}\"", "1", "{", "{\"a\":}", ""] {
            assert!(serde_json::from_str::<Claims>(other).is_err(), "{other}");
        }
    }
}

//! Who may pass, in the words that an ingress copies into the request that goes up (contract 6.2).
//!
//! Always all four headers, empty where there is nothing to say, so that an ingress that copies them overwrites what
//! the browser made up. Values are percent-encoded (RFC 3986 §2.1, UTF-8): a space, `%`, `,` and whatever is not
//! printable ASCII. So every name survives, and in the list of groups each comma stands between two groups.
//!
//! INVARIANT: an e-mail address that the provider itself calls unverified is nobody's: it is left out.

use crate::answer::{self, Body};
use crate::session::Session;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderName, HeaderValue, Response};
use serde_json::{Map, Value};
use std::fmt::Write;

const USER: HeaderName = HeaderName::from_static("x-auth-request-user");
const EMAIL: HeaderName = HeaderName::from_static("x-auth-request-email");
const GROUPS: HeaderName = HeaderName::from_static("x-auth-request-groups");

/// The answer that lets a request pass as nobody in particular.
pub(super) fn nobody() -> Response<Body> {
    passing(
        HeaderValue::from_static(""),
        [const { HeaderValue::from_static("") }; 3],
    )
}

/// The answer that lets a request pass as somebody, with a token that lives.
pub(super) fn somebody(bearer: HeaderValue, session: &Session) -> Response<Body> {
    passing(
        bearer,
        [
            encoded([session.sub.as_str()]),
            encoded(email(&session.claims)),
            encoded(groups(&session.claims)),
        ],
    )
}

fn passing(authorization: HeaderValue, [user, email, groups]: [HeaderValue; 3]) -> Response<Body> {
    let mut response = Response::new(answer::empty());
    let headers = response.headers_mut();
    headers.insert(AUTHORIZATION, authorization);
    headers.insert(USER, user);
    headers.insert(EMAIL, email);
    headers.insert(GROUPS, groups);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn email(claims: &Map<String, Value>) -> Option<&str> {
    let is_refuted = match claims.get("email_verified") {
        Some(Value::Bool(verified)) => !verified,
        // Some providers write it as a text.
        Some(Value::String(verified)) => verified != "true",
        _ => false,
    };
    claims.get("email")?.as_str().filter(|_| !is_refuted)
}

/// A list of names, or one name.
fn groups(claims: &Map<String, Value>) -> Vec<&str> {
    match claims.get("groups") {
        Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(group)) => vec![group],
        _ => Vec::new(),
    }
}

fn encoded<'a>(values: impl IntoIterator<Item = &'a str>) -> HeaderValue {
    let mut text = String::new();
    for value in values.into_iter().filter(|value| !value.is_empty()) {
        if !text.is_empty() {
            text.push(',');
        }
        for byte in value.bytes() {
            match byte {
                b'%' | b',' => {}
                byte if byte.is_ascii_graphic() => {
                    text.push(char::from(byte));
                    continue;
                }
                _ => {}
            }
            // Writing into a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn values_survive_whatever_they_hold() {
        for (values, wanted) in [
            (&["alice"][..], "alice"),
            (&["staff", "ops"], "staff,ops"),
            (
                &["CN=staff,OU=x", "Domain Users"],
                "CN=staff%2COU=x,Domain%20Users",
            ),
            (&["J\u{fc}rgen"], "J%C3%BCrgen"),
            (&["a%2Cb"], "a%252Cb"),
            (&["x\r\nX-Evil: 1", "\0"], "x%0D%0AX-Evil:%201,%00"),
            (&[" admin", "auth0|1"], "%20admin,auth0|1"),
            (&["", "a", ""], "a"),
            (&[], ""),
        ] {
            assert_eq!(encoded(values.iter().copied()), wanted, "{values:?}");
        }
    }

    #[test]
    fn only_an_address_that_is_not_refuted_is_said() {
        for (claims_are, wanted) in [
            (json!({ "email": "a@b.example" }), Some("a@b.example")),
            (
                json!({ "email": "a@b.example", "email_verified": true }),
                Some("a@b.example"),
            ),
            (
                json!({ "email": "a@b.example", "email_verified": "true" }),
                Some("a@b.example"),
            ),
            (json!({ "email": "a@b.example", "email_verified": false }), None),
            (json!({ "email": "a@b.example", "email_verified": "false" }), None),
            (json!({ "email": ["a@b.example"] }), None),
            (json!({}), None),
        ] {
            assert_eq!(email(&claims(&claims_are)), wanted, "{claims_are}");
        }
    }

    #[test]
    fn groups_are_a_list_of_names_or_one() {
        for (claims_are, wanted) in [
            (json!({ "groups": ["a", 1, null, "b"] }), &["a", "b"][..]),
            (json!({ "groups": "a" }), &["a"]),
            (json!({ "groups": { "a": 1 } }), &[]),
            (json!({}), &[]),
        ] {
            assert_eq!(groups(&claims(&claims_are)), wanted, "{claims_are}");
        }
    }
}

//! What the token endpoint answers (RFC 6749 §5), sorted into what it means for a session.
//!
//! Stands behind every code exchange and every refresh. What matters most is what an answer does *not* mean:
//!
//! | status | content type | body | means |
//! | --- | --- | --- | --- |
//! | 200 | JSON or none | object with a bearer token | [`TokenResponse`] |
//! | 200 | anything else, or `error` in it | | [`TokenError::NoAnswer`] |
//! | 400–499 but 408, 429 | JSON or none | `error` is `invalid_grant` | [`TokenError::InvalidGrant`] |
//! | the same | JSON or none | another `error` | [`TokenError::Refused`], or `NoAnswer` for a passing trouble |
//! | everything else | | | [`TokenError::NoAnswer`] |
//!
//! INVARIANT: only a well-formed refusal that says `invalid_grant`, to the letter, is [`TokenError::InvalidGrant`].
//! INVARIANT: nothing of a body but a short, cleaned error code gets into an error.

use crate::clock::UnixTime;
use crate::protocol::json;
use crate::secret::{AccessToken, IdToken, RefreshToken};
use serde_json::{Map, Value};
use std::time::Duration;

/// No access token is believed to live longer, whatever `expires_in` says.
const LONGEST_LIFETIME: Duration = Duration::from_hours(24);
/// No `Retry-After` is believed beyond this.
const LONGEST_RETRY: Duration = Duration::from_hours(1);

/// A successful answer.
#[derive(Clone, Debug)]
pub struct TokenResponse {
    /// `access_token`.
    pub access_token: AccessToken,
    /// `refresh_token`; where a refresh brings none, the old one stays (RFC 6749 §6).
    pub refresh_token: Option<RefreshToken>,
    /// `id_token`.
    pub id_token: Option<IdToken>,
    /// `expires_in`, or the configured default; at most 24 h.
    pub expires_in: Duration,
    /// The granted `scope`, where the answer names it.
    pub scope: Option<String>,
}

/// Why there are no tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// `invalid_grant`: the code or refresh token is no good. The only one that ends a session.
    #[error("the provider says invalid_grant")]
    InvalidGrant,
    /// `invalid_client`, `unauthorized_client` and the like: the operator's mistake, not the user's.
    #[error("the provider refused the client: {0}")]
    Refused(String),
    /// Nothing was sent: the provider could not be reached. The code or refresh token is still unused.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// Sent, but no answer that can be understood came back: timeout, 5xx, 429, not JSON.
    #[error("the provider gave no usable answer: {reason}")]
    NoAnswer {
        /// What came instead.
        reason: String,
        /// `Retry-After`, where it was sent.
        retry_after: Option<Duration>,
        /// Whether an answer did come that a provider in good health sends, and makes no sense: a bad answer rather
        /// than a lost one.
        unreadable: bool,
    },
}

/// An answer's parts, as they came.
#[derive(Clone, Copy, Debug)]
pub struct RawAnswer<'a> {
    /// The status code.
    pub status: u16,
    /// `Content-Type`, where there is one.
    pub content_type: Option<&'a str>,
    /// `Retry-After`, already read with [`retry_after`].
    pub retry_after: Option<Duration>,
    /// The whole body.
    pub body: &'a [u8],
}

impl RawAnswer<'_> {
    /// Reads it as the token endpoint's; `default_lifetime` holds where it names none.
    ///
    /// # Errors
    /// [`TokenError`], as the table above says.
    pub fn tokens(&self, default_lifetime: Duration) -> Result<TokenResponse, TokenError> {
        if self.status != 200 {
            return Err(self.refusal());
        }
        let members = self.json().map_err(|reason| self.no_answer(reason))?;
        tokens_of(&members, default_lifetime).map_err(|reason| self.no_answer(reason))
    }

    /// What an answer means that is not 200.
    #[must_use]
    pub fn refusal(&self) -> TokenError {
        // 408 and 429 are about the moment, whatever the body says of the grant.
        if !matches!(self.status, 400..=499) || matches!(self.status, 408 | 429) {
            return self.no_answer("not a success");
        }
        let members = match self.json() {
            Ok(members) => members,
            Err(reason) => return self.no_answer(reason),
        };
        match members.get("error") {
            // RFC 6749 §5.2: "invalid_grant: The provided authorization grant … or refresh token is invalid, expired,
            // revoked …"
            Some(Value::String(code)) if code == "invalid_grant" => TokenError::InvalidGrant,
            Some(Value::String(code)) if is_passing(code) => self.no_answer("a passing trouble"),
            Some(Value::String(code)) => TokenError::Refused(clean_code(code)),
            _ => self.no_answer("no error code in it"),
        }
    }

    fn json(&self) -> Result<Map<String, Value>, &'static str> {
        // RFC 6749 §5.1, §5.2: "using the application/json media type". A server that names none is believed to
        // follow that; one that names another is not.
        if !self
            .content_type
            .is_none_or(|named| is_media_type(named, "application/json"))
        {
            return Err("its content type is not application/json");
        }
        json::object(self.body).map_err(|_| "its body is no well-formed JSON object")
    }

    fn no_answer(&self, what: &str) -> TokenError {
        TokenError::NoAnswer {
            unreadable: self.status == 200,
            reason: format!("status {}, {what}", self.status),
            retry_after: self.retry_after,
        }
    }
}

/// Whether a `Content-Type` is this media type, parameters aside (RFC 9110 §8.3.1: case-insensitive).
#[must_use]
pub fn is_media_type(content_type: &str, wanted: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(wanted)
}

/// Reads `Retry-After` (RFC 9110 §10.2.3): seconds or a date. At most an hour.
#[must_use]
pub fn retry_after(value: &str, now: UnixTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST_RETRY));
    }
    Some(http_date(value)?.since(now).min(LONGEST_RETRY))
}

/// Reads an HTTP date (RFC 9110 §5.6.7).
#[must_use]
pub fn http_date(value: &str) -> Option<UnixTime> {
    let date = httpdate::parse_http_date(value).ok()?;
    let since_1970 = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(UnixTime::from_secs(since_1970.as_secs()))
}

fn tokens_of(
    members: &Map<String, Value>,
    default_lifetime: Duration,
) -> Result<TokenResponse, &'static str> {
    if members.contains_key("error") {
        return Err("an error in a success");
    }
    // RFC 6749 §5.1: "access_token REQUIRED"; §7.1: "The client MUST NOT use an access token if it does not
    // understand the token type"; §5.1: token_type "Value is case insensitive"
    let access_token = match members.get("access_token") {
        Some(Value::String(token)) if is_token(token) => AccessToken::new(token),
        _ => return Err("no usable access_token"),
    };
    match members.get("token_type") {
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => {}
        _ => return Err("its token_type is not bearer"),
    }
    Ok(TokenResponse {
        access_token,
        refresh_token: optional_token(members, "refresh_token")
            .map_err(|()| "its refresh_token is no token")?
            .map(RefreshToken::new),
        id_token: optional_token(members, "id_token")
            .map_err(|()| "its id_token is no token")?
            .map(IdToken::new),
        expires_in: lifetime(members.get("expires_in"), default_lifetime).min(LONGEST_LIFETIME),
        scope: scope_of(members.get("scope")),
    })
}

/// RFC 6749 appendix A.12, A.17: tokens are visible ASCII. A space or a control would tear the header it goes into.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

fn optional_token<'a>(members: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, ()> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(token)) if token.is_empty() => Ok(None),
        Some(Value::String(token)) if is_token(token) => Ok(Some(token)),
        Some(_) => Err(()),
    }
}

/// Numbers and decimal strings count, rounded down; zero and less mean "expired"; anything else is as if absent.
fn lifetime(expires_in: Option<&Value>, default: Duration) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) if text.len() <= 32 => text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.'))
            .then(|| text.parse().ok())
            .flatten(),
        _ => None,
    };
    match seconds {
        Some(seconds) => Duration::try_from_secs_f64(seconds.floor().max(0.0)).unwrap_or(LONGEST_LIFETIME),
        None => default,
    }
}

/// RFC 6749 §3.3 wants one string with spaces; some providers send a list, which says the same.
fn scope_of(scope: Option<&Value>) -> Option<String> {
    match scope? {
        Value::String(scope) => Some(scope.clone()),
        Value::Array(scopes) => {
            let scopes: Option<Vec<&str>> = scopes.iter().map(Value::as_str).collect();
            Some(scopes?.join(" "))
        }
        _ => None,
    }
}

/// Codes that speak of the moment and not of the request (RFC 6749 §4.1.2.1 borrowed by many token endpoints,
/// RFC 8628 §3.5).
fn is_passing(code: &str) -> bool {
    matches!(code, "temporarily_unavailable" | "server_error" | "slow_down")
}

/// RFC 6749 §5.2 lets a code be any printable ASCII; what is not a short plain word is not repeated.
fn clean_code(code: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !code.is_empty() && code.len() <= 40 && code.bytes().all(is_plain) {
        code.to_owned()
    } else {
        "an error code that is none".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Duration = Duration::from_mins(5);
    const JSON: Option<&str> = Some("application/json");

    fn read(status: u16, content_type: Option<&str>, body: &str) -> Result<TokenResponse, TokenError> {
        let answer = RawAnswer {
            status,
            content_type,
            retry_after: None,
            body: body.as_bytes(),
        };
        answer.tokens(DEFAULT)
    }

    fn is_no_answer(result: &Result<TokenResponse, TokenError>) -> bool {
        matches!(result, Err(TokenError::NoAnswer { .. }))
    }

    #[test]
    fn oa_05_a_success_is_a_json_object_with_a_bearer_token() {
        for body in [
            r#"{"access_token":"t","token_type":"Bearer"}"#,
            r#"{"access_token":"t","token_type":"bEaReR"}"#,
            r#"{"access_token":"t","token_type":"bearer","unknown":{"a":[1]},"foo":null}"#,
            r#" {"token_type":"BEARER","access_token":"t","refresh_token":null,"id_token":null,"scope":null} "#,
            r#"{"access_token":"t","token_type":"bearer","refresh_token":"","id_token":""}"#,
        ] {
            for content_type in [JSON, None, Some("Application/JSON; charset=utf-8")] {
                let tokens = read(200, content_type, body).unwrap();
                assert_eq!(tokens.access_token.expose(), "t", "{body}");
                assert!(tokens.refresh_token.is_none() && tokens.id_token.is_none());
                assert!(tokens.scope.is_none());
            }
        }
    }

    #[test]
    fn oa_05_what_is_no_usable_success_is_no_answer() {
        for body in [
            "",
            "null",
            "[]",
            "\"t\"",
            "<html>",
            "access_token=t&token_type=bearer",
            "{}",
            r#"{"access_token":"t"}"#,
            r#"{"access_token":"t","token_type":"mac"}"#,
            r#"{"access_token":"t","token_type":"DPoP"}"#,
            r#"{"access_token":"t","token_type":"bearer "}"#,
            r#"{"access_token":"t","token_type":["bearer"]}"#,
            r#"{"access_token":"","token_type":"bearer"}"#,
            r#"{"access_token":null,"token_type":"bearer"}"#,
            r#"{"access_token":7,"token_type":"bearer"}"#,
            r#"{"access_token":"a b","token_type":"bearer"}"#,
            r#"{"access_token":"a\r\nX: y","token_type":"bearer"}"#,
            r#"{"access_token":"é","token_type":"bearer"}"#,
            r#"{"access_token":"t","token_type":"bearer","refresh_token":["r"]}"#,
            r#"{"access_token":"t","token_type":"bearer","id_token":{}}"#,
            r#"{"access_token":"t","token_type":"bearer","error":"invalid_grant"}"#,
            r#"{"error":"invalid_grant"}"#,
            r#"{"access_token":"t","access_token":"u","token_type":"bearer"}"#,
            r#"{"access_token":"t","token_type":"bearer"}{}"#,
            r#"{"access_token":"t","token_type":"bearer""#,
        ] {
            assert!(is_no_answer(&read(200, JSON, body)), "{body}");
        }
        let good = r#"{"access_token":"t","token_type":"bearer"}"#;
        for content_type in [
            "text/html",
            "text/plain",
            "application/json-seq",
            "application/jsonp",
            "",
        ] {
            assert!(
                is_no_answer(&read(200, Some(content_type), good)),
                "{content_type}"
            );
        }
        for status in [201, 204, 206, 302, 307, 400, 401, 500] {
            assert!(is_no_answer(&read(status, JSON, good)), "{status}");
        }
    }

    #[test]
    fn oa_06_every_expires_in_has_a_defined_meaning() {
        for (expires_in, seconds) in [
            ("", 300),
            (r#","expires_in":null"#, 300),
            (r#","expires_in":60"#, 60),
            (r#","expires_in":"60""#, 60),
            (r#","expires_in":60.9"#, 60),
            (r#","expires_in":"60.9""#, 60),
            (r#","expires_in":0"#, 0),
            (r#","expires_in":-5"#, 0),
            (r#","expires_in":"-5""#, 0),
            (r#","expires_in":0.5"#, 0),
            (r#","expires_in":86401"#, 86400),
            (r#","expires_in":1e300"#, 86400),
            (r#","expires_in":18446744073709551616"#, 86400),
            (r#","expires_in":"99999999999999999999""#, 86400),
            (r#","expires_in":"soon""#, 300),
            (r#","expires_in":"inf""#, 300),
            (r#","expires_in":"NaN""#, 300),
            (r#","expires_in":"""#, 300),
            (r#","expires_in":true"#, 300),
            (r#","expires_in":[60]"#, 300),
        ] {
            let body = format!(r#"{{"access_token":"t","token_type":"bearer"{expires_in}}}"#);
            let tokens = read(200, JSON, &body).unwrap();
            assert_eq!(tokens.expires_in, Duration::from_secs(seconds), "{expires_in}");
        }
    }

    #[test]
    fn oa_07_errors_are_sorted_by_status_type_and_body() {
        let refused = |code: &str| TokenError::Refused(code.into());
        let says = |code: &str| format!(r#"{{"error":"{code}","error_description":"<b>"}}"#);
        for (status, content_type, body, wanted) in [
            (400, JSON, says("invalid_grant"), TokenError::InvalidGrant),
            (400, None, says("invalid_grant"), TokenError::InvalidGrant),
            (401, JSON, says("invalid_grant"), TokenError::InvalidGrant),
            (401, JSON, says("invalid_client"), refused("invalid_client")),
            (400, JSON, says("invalid_client"), refused("invalid_client")),
            (
                400,
                JSON,
                says("unauthorized_client"),
                refused("unauthorized_client"),
            ),
            (400, JSON, says("invalid_request"), refused("invalid_request")),
            (
                400,
                JSON,
                says("Invalid_Grant"),
                refused("an error code that is none"),
            ),
            (
                400,
                JSON,
                says("invalid_grant "),
                refused("an error code that is none"),
            ),
            (
                400,
                JSON,
                says("<script>alert(1)</script>"),
                refused("an error code that is none"),
            ),
            (
                400,
                JSON,
                says(&"a".repeat(41)),
                refused("an error code that is none"),
            ),
            (400, JSON, says(""), refused("an error code that is none")),
        ] {
            assert_eq!(
                read(status, content_type, &body).unwrap_err(),
                wanted,
                "{status} {body}"
            );
        }
        for (status, content_type, body) in [
            (400, Some("text/html"), says("invalid_grant")),
            (400, JSON, "<html>invalid_grant</html>".into()),
            (400, JSON, r#"["invalid_grant"]"#.into()),
            (400, JSON, r#"{"error":["invalid_grant"]}"#.into()),
            (400, JSON, r#"{"error":{"code":"invalid_grant"}}"#.into()),
            (400, JSON, r#"{"error":"x","error":"invalid_grant"}"#.into()),
            (400, JSON, String::new()),
            (400, JSON, says("temporarily_unavailable")),
            (408, JSON, says("invalid_grant")),
            (429, JSON, says("invalid_grant")),
            (500, JSON, says("invalid_grant")),
            (503, JSON, says("invalid_grant")),
            (302, JSON, says("invalid_grant")),
            (200, JSON, says("invalid_grant")),
        ] {
            assert!(
                is_no_answer(&read(status, content_type, &body)),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn no_error_repeats_what_was_sent() {
        for status in [200, 400, 401, 500] {
            for body in [
                r#"{"error":"CANARY canary","error_description":"CANARY"}"#,
                r#"{"access_token":"CANARY","token_type":"CANARY"}"#,
                "CANARY",
            ] {
                let error = read(status, JSON, body).unwrap_err();
                assert!(
                    !format!("{error} {error:?}").contains("CANARY"),
                    "{status} {body}"
                );
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = UnixTime::from_secs(784_111_777);
        for (value, seconds) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("99999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:49:47 GMT", Some(3600)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(
                retry_after(value, now),
                seconds.map(Duration::from_secs),
                "{value}"
            );
        }
    }

    #[test]
    fn a_granted_scope_is_recorded() {
        let with = |scope: &str| {
            let body = format!(r#"{{"access_token":"t","token_type":"bearer","scope":{scope}}}"#);
            read(200, JSON, &body).unwrap().scope
        };
        assert_eq!(with(r#""openid a""#).as_deref(), Some("openid a"));
        assert_eq!(with(r#"["openid","a"]"#).as_deref(), Some("openid a"));
        assert_eq!(with("7"), None);
        assert_eq!(with("[7]"), None);
    }
}

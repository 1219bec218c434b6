//! The ID token, checked step by step (OpenID Connect Core §3.1.3.7).
//!
//! The signature is checked by [`super::jwks`]; here it is decided what the claims of a verified token are worth.
//! INVARIANT: a token of another kind (logout token, access token) never passes for an ID token.

use super::jws::Compact;
use crate::clock::UnixTime;
use aws_lc_rs::{constant_time, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::time::Duration;

/// How far the provider's clock and ours may be apart.
const LEEWAY: Duration = Duration::from_secs(60);
/// How old an ID token may be when a login ends.
const OLDEST: Duration = Duration::from_secs(600);

/// A verified ID token's claims.
#[derive(Clone, Debug, PartialEq)]
pub struct IdTokenClaims {
    /// `iss`.
    pub iss: String,
    /// `sub`.
    pub sub: String,
    /// `sid`, where there is one (Back-Channel Logout §2.1).
    pub sid: Option<String>,
    /// `auth_time`, seconds since 1970, where there is one.
    pub auth_time: Option<u64>,
    /// `acr`, where there is one.
    pub acr: Option<String>,
    /// All claims.
    pub all: Map<String, Value>,
}

/// What a login asked for, and so the ID token must say.
#[derive(Clone, Debug)]
pub struct LoginExpectations<'a> {
    /// The attempt's nonce.
    pub nonce: &'a str,
    /// `max_age` that was sent, seconds: `auth_time` is enforced.
    pub max_age: Option<u64>,
    /// `acr_values` that were sent, space-separated: `acr` is enforced.
    pub acr_values: Option<&'a str>,
    /// The access token that came along, for `at_hash`.
    pub access_token: &'a str,
}

/// Why claims do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Another `iss`, `sub` or `aud` than it must be.
    #[error("the ID token is of another issuer, subject or audience")]
    Mismatch,
    /// Anything else.
    #[error("the ID token does not hold: {0}")]
    Bad(&'static str),
}

/// The steps that every ID token must pass: kind, `iss`, `aud`, `azp`, `exp`, `iat`, `nbf`, `sub`.
///
/// # Errors
/// [`ClaimError`]
pub fn check(
    token: &Compact<'_>,
    issuer: &str,
    client_id: &str,
    now: UnixTime,
) -> Result<IdTokenClaims, ClaimError> {
    let claims = &token.claims;
    // RFC 8725 §3.11, §3.12: one kind of JWT must not be taken for another.
    if token
        .typ
        .as_deref()
        .is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT"))
        || claims.contains_key("events")
    {
        return Err(ClaimError::Bad("it is a token of another kind"));
    }
    // §3.1.3.7(2): "The Issuer Identifier … MUST exactly match the value of the iss (issuer) Claim."
    if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
        return Err(ClaimError::Mismatch);
    }
    // §3.1.3.7(3): "The Client MUST validate that the aud (audience) Claim contains its client_id value … The ID Token
    // MUST be rejected if … it contains additional audiences not trusted by the Client." None other is trusted.
    let for_us = match claims.get("aud") {
        Some(Value::String(aud)) => aud == client_id,
        Some(Value::Array(list)) => !list.is_empty() && list.iter().all(|aud| aud == client_id),
        _ => false,
    };
    // §3.1.3.7(5): "If an azp Claim is present, the Client SHOULD verify that its client_id is the Claim Value."
    if !for_us || claims.get("azp").is_some_and(|azp| azp != client_id) {
        return Err(ClaimError::Mismatch);
    }
    // §3.1.3.7(9): "The current time MUST be before the time represented by the exp Claim."
    let exp = time(claims, "exp")?.ok_or(ClaimError::Bad("exp is missing"))?;
    if now >= exp.plus(LEEWAY) {
        return Err(ClaimError::Bad(
            "it has expired (or this machine's clock is wrong)",
        ));
    }
    let iat = time(claims, "iat")?.ok_or(ClaimError::Bad("iat is missing"))?;
    let nbf = time(claims, "nbf")?.unwrap_or(iat);
    if iat > now.plus(LEEWAY) || nbf > now.plus(LEEWAY) {
        return Err(ClaimError::Bad(
            "it is from the future (or this machine's clock is wrong)",
        ));
    }
    // §2: sub "MUST NOT exceed 255 ASCII characters in length."
    let sub = match claims.get("sub") {
        Some(Value::String(sub)) if (1..=255).contains(&sub.len()) && sub.is_ascii() => sub.clone(),
        _ => return Err(ClaimError::Bad("sub is missing or not a short text")),
    };
    let text = |name: &str| claims.get(name).and_then(Value::as_str).map(String::from);
    Ok(IdTokenClaims {
        iss: issuer.to_owned(),
        sub,
        sid: text("sid"),
        auth_time: time(claims, "auth_time")?.map(UnixTime::as_secs),
        acr: text("acr"),
        all: claims.clone(),
    })
}

/// What a login's ID token must say beyond [`check`]: `nonce`, its age, `at_hash`, and what was asked for.
///
/// # Errors
/// [`ClaimError`]
pub fn check_login(
    token: &Compact<'_>,
    claims: &IdTokenClaims,
    expect: &LoginExpectations<'_>,
    now: UnixTime,
) -> Result<(), ClaimError> {
    // §3.1.3.7(11): "its value checked to verify that it is the same value as the one that was sent"
    let nonce = claims
        .all
        .get("nonce")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if constant_time::verify_slices_are_equal(nonce.as_bytes(), expect.nonce.as_bytes()).is_err() {
        return Err(ClaimError::Bad("its nonce is not the one that was sent"));
    }
    if time(&claims.all, "iat")?.is_some_and(|iat| now.since(iat) > OLDEST + LEEWAY) {
        return Err(ClaimError::Bad(
            "it is too old (or this machine's clock is wrong)",
        ));
    }
    // §3.1.3.8: at_hash, where present, is checked; null or another type is present and wrong.
    if let Some(hash) = claims.all.get("at_hash") {
        let wanted = at_hash(&token.algorithm_name, expect.access_token);
        if hash.as_str() != Some(wanted.as_str()) {
            return Err(ClaimError::Bad("its at_hash is not the access token's"));
        }
    }
    if let Some(max_age) = expect.max_age {
        // §3.1.3.7(13): "it determines too much time has elapsed since the last End-User authentication"
        let at = claims.auth_time.ok_or(ClaimError::Bad(
            "auth_time is missing, though max_age was asked for",
        ))?;
        let oldest = Duration::from_secs(max_age).saturating_add(LEEWAY);
        if now.since(UnixTime::from_secs(at)) > oldest {
            return Err(ClaimError::Bad("the sign-in is older than was asked for"));
        }
    }
    if let Some(wanted) = expect.acr_values {
        // §3.1.3.7(12): "the Client SHOULD check that the asserted Claim Value is appropriate"
        let acr = claims.acr.as_deref().unwrap_or_default();
        if acr.is_empty() || !wanted.split(' ').any(|value| value == acr) {
            return Err(ClaimError::Bad("the sign-in is not of a kind that was asked for"));
        }
    }
    Ok(())
}

/// Core §3.1.3.6: the left half of the access token's hash, by the hash of the signature's algorithm.
fn at_hash(algorithm: &str, access_token: &str) -> String {
    let hash = match algorithm {
        name if name.ends_with("384") => &digest::SHA384,
        name if name.ends_with("256") => &digest::SHA256,
        // RS512 and the like, and Ed25519, whose hash is SHA-512 (RFC 8032 §5.1).
        _ => &digest::SHA512,
    };
    let digest = digest::digest(hash, access_token.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..digest.as_ref().len() / 2])
}

/// A `NumericDate` (RFC 7519 §2): a number of seconds, fractions allowed; nothing that is no sane time.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<UnixTime>, ClaimError> {
    match claims.get(name) {
        None => Ok(None),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the number was just found to be between 0 and 2^53"
        )]
        Some(Value::Number(number)) => match number.as_f64() {
            Some(seconds) if (0.0..9_007_199_254_740_992.0).contains(&seconds) => {
                Ok(Some(UnixTime::from_secs(seconds as u64)))
            }
            _ => Err(ClaimError::Bad("a time in it is none")),
        },
        Some(_) => Err(ClaimError::Bad("a time in it is no number")),
    }
}

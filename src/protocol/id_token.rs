//! The ID token, checked step by step (`OpenID` Connect Core §3.1.3.7).
//!
//! Stands at the end of a login and of each refresh that brings one: `jws` took the token apart, `jwks` found who
//! signed it, and here its claims are read. Nothing of a login is used before [`check_login`] has passed.
//!
//! INVARIANT: a token of another kind (logout, access, event) is never taken for an ID token (RFC 8725 §3.11, §3.12).
//! INVARIANT: an error names the step that failed, never what the token said.

use super::jws::Compact;
use crate::clock::UnixTime;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

/// How far the provider's clock and ours may be apart, seconds.
pub(super) const LEEWAY: u64 = 60;
/// How old an ID token may be when a login ends, and a logout token when it comes, seconds.
pub(super) const OLDEST: u64 = 600;
/// The end of the year 9999: a date beyond it is no sane time.
const LAST_TIME: f64 = 253_402_300_799.0;

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

/// Whose ID token it must be, and when it is read: where this machine's clock was set a moment ago, between two moments,
/// and what is right at either of them is taken. Nobody is signed in or kept out by that alone: a nonce or a `jti` is there
/// as well.
#[derive(Clone, Copy, Debug)]
pub struct Addressee<'a> {
    /// The issuer, to the letter.
    pub issuer: &'a str,
    /// Our `client_id`.
    pub client_id: &'a str,
    /// The earliest moment that it may be.
    pub earliest: UnixTime,
    /// The latest.
    pub latest: UnixTime,
}

/// The step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// `iss` is not the issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// `aud` is not our `client_id` alone.
    #[error("the token is for another client (is client_id right?)")]
    Audience,
    /// `azp` is not our `client_id`.
    #[error("the token was issued to another party")]
    AuthorizedParty,
    /// `sub` is not the session's.
    #[error("the token is about another user")]
    Subject,
    /// A required claim is missing or has the wrong form.
    #[error("the token's {0} is missing or malformed")]
    Claim(&'static str),
    /// `typ` or `events` says that it is something else.
    #[error("the token is of another kind")]
    Kind,
    /// `exp` has passed.
    #[error("the token has expired (are both clocks right?)")]
    Expired,
    /// `iat` or `nbf` is in the future.
    #[error("the token is from the future (are both clocks right?)")]
    Future,
    /// `iat` is long past.
    #[error("the token is too old for a login (are both clocks right?)")]
    Old,
    /// `nonce` is not the attempt's.
    #[error("the token belongs to another login")]
    Nonce,
    /// `at_hash` is not the access token's.
    #[error("the token does not belong to the access token")]
    AccessTokenHash,
    /// `auth_time` is older than the `max_age` asked for.
    #[error("the sign-in was longer ago than was asked for")]
    MaxAge,
    /// `acr` is none of the `acr_values` asked for.
    #[error("the sign-in was not of the strength asked for")]
    Acr,
}

/// Whether the claims come from that issuer and are for that client alone. Cheap: asked before any key is fetched,
/// so that junk fetches none.
///
/// # Errors
/// [`IdTokenError::Issuer`], [`IdTokenError::Audience`], [`IdTokenError::AuthorizedParty`] or [`IdTokenError::Claim`]
pub fn check_addressee(
    claims: &Map<String, Value>,
    issuer: &str,
    client_id: &str,
) -> Result<(), IdTokenError> {
    // Core §3.1.3.7 (2): "The Issuer Identifier for the OpenID Provider … MUST exactly match the value of the iss
    // (issuer) Claim"
    if text(claims, "iss")? != issuer {
        return Err(IdTokenError::Issuer);
    }
    // Core §3.1.3.7 (3): "The ID Token MUST be rejected if the ID Token does not list the Client as a valid audience,
    // or if it contains additional audiences not trusted by the Client"; none is trusted.
    let ours = |audience: &Value| audience == client_id;
    match claims.get("aud") {
        Some(audience @ Value::String(_)) if ours(audience) => {}
        Some(Value::Array(audiences)) if !audiences.is_empty() && audiences.iter().all(ours) => {}
        Some(Value::String(_) | Value::Array(_)) => return Err(IdTokenError::Audience),
        _ => return Err(IdTokenError::Claim("aud")),
    }
    // Core §2: azp "If present, it MUST contain the OAuth 2.0 Client ID of this party"
    match claims.get("azp") {
        Some(party) if party != client_id => Err(IdTokenError::AuthorizedParty),
        _ => Ok(()),
    }
}

/// Checks the ID token of a login, whose signature has been verified.
///
/// # Errors
/// The step that failed.
pub fn check_login(
    token: &Compact<'_>,
    who: Addressee<'_>,
    expect: &LoginExpectations<'_>,
) -> Result<IdTokenClaims, IdTokenError> {
    let claims = check(token, who)?;
    let now = who.earliest.as_secs();
    // Core §3.1.3.7 (10): "The iat Claim can be used to reject tokens that were issued too far away from the current
    // time"
    if time(&claims.all, "iat")? + OLDEST < now {
        return Err(IdTokenError::Old);
    }
    // Core §3.1.3.7 (11): "If a nonce value was sent in the Authentication Request, a nonce Claim MUST be present and
    // its value checked to verify that it is the same value as the one that was sent"
    let nonce = claims
        .all
        .get("nonce")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if nonce.is_empty() || verify_slices_are_equal(nonce.as_bytes(), expect.nonce.as_bytes()).is_err() {
        return Err(IdTokenError::Nonce);
    }
    check_access_token_hash(&claims.all, token.algorithm, expect.access_token)?;
    // Core §3.1.3.7 (13): "If the auth_time Claim was requested … the Client SHOULD check the auth_time Claim value";
    // §2: "When a max_age request is made … then this Claim is REQUIRED"
    if let Some(max_age) = expect.max_age {
        let auth_time = claims.auth_time.ok_or(IdTokenError::Claim("auth_time"))?;
        if auth_time.saturating_add(max_age).saturating_add(LEEWAY) < now {
            return Err(IdTokenError::MaxAge);
        }
    }
    // Core §3.1.3.7 (12): "If the acr Claim was requested, the Client SHOULD check that the asserted Claim Value is
    // appropriate"
    if let Some(accepted) = expect.acr_values {
        let acr = claims.acr.as_deref().ok_or(IdTokenError::Acr)?;
        if !accepted.split_ascii_whitespace().any(|value| value == acr) {
            return Err(IdTokenError::Acr);
        }
    }
    Ok(claims)
}

/// Checks the ID token of a refresh, whose signature has been verified, against the session's user.
///
/// # Errors
/// The step that failed.
pub fn check_refreshed(
    token: &Compact<'_>,
    who: Addressee<'_>,
    sub: &str,
) -> Result<IdTokenClaims, IdTokenError> {
    let claims = check(token, who)?;
    // Core §12.2: "its sub Claim Value MUST be the same as in the ID Token issued when the original authentication
    // occurred"
    if claims.sub != sub {
        return Err(IdTokenError::Subject);
    }
    Ok(claims)
}

/// What every ID token must say.
fn check(token: &Compact<'_>, who: Addressee<'_>) -> Result<IdTokenClaims, IdTokenError> {
    let claims = &token.claims;
    // RFC 8725 §3.11: explicit typing; logout+jwt, at+jwt, secevent+jwt and the like are other kinds of token.
    if !token
        .typ
        .as_deref()
        .is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"))
    {
        return Err(IdTokenError::Kind);
    }
    // Back-Channel Logout §2.4 and RFC 8417 mark their tokens with `events`; an ID token has none.
    if claims.contains_key("events") {
        return Err(IdTokenError::Kind);
    }
    check_addressee(claims, who.issuer, who.client_id)?;
    check_times(claims, &who)?;
    let auth_time = optional_time(claims, "auth_time")?;
    if auth_time.is_some_and(|auth_time| auth_time > who.latest.as_secs() + LEEWAY) {
        return Err(IdTokenError::Future);
    }
    Ok(IdTokenClaims {
        iss: who.issuer.to_owned(),
        sub: subject(claims)?,
        sid: optional_text(claims, "sid")?,
        auth_time,
        acr: optional_text(claims, "acr")?,
        all: claims.clone(),
    })
}

/// Whether a token's time is now: `exp`, `iat` and `nbf`.
pub(super) fn check_times(claims: &Map<String, Value>, who: &Addressee<'_>) -> Result<(), IdTokenError> {
    let (earliest, latest) = (who.earliest.as_secs(), who.latest.as_secs());
    // Core §3.1.3.7 (9): "The current time MUST be before the time represented by the exp Claim"
    if time(claims, "exp")?.saturating_add(LEEWAY) <= earliest {
        return Err(IdTokenError::Expired);
    }
    // Core §2: iat is REQUIRED
    if time(claims, "iat")? > latest + LEEWAY {
        return Err(IdTokenError::Future);
    }
    // RFC 7519 §4.1.5: "identifies the time before which the JWT MUST NOT be accepted for processing"
    if optional_time(claims, "nbf")?.is_some_and(|nbf| nbf > latest + LEEWAY) {
        return Err(IdTokenError::Future);
    }
    Ok(())
}

/// Core §2: `sub` "MUST NOT exceed 255 ASCII characters in length". Controls would tear a header that shows it.
pub(super) fn subject(claims: &Map<String, Value>) -> Result<String, IdTokenError> {
    let sub = text(claims, "sub")?;
    if sub.is_empty() || sub.len() > 255 || !sub.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Err(IdTokenError::Claim("sub"));
    }
    Ok(sub.to_owned())
}

/// Core §3.1.3.8: `at_hash` is "the left-most half of the hash of the octets of the ASCII representation of the
/// `access_token` value, where the hash algorithm used is the hash algorithm used in the alg Header Parameter".
fn check_access_token_hash(
    claims: &Map<String, Value>,
    algorithm: Algorithm,
    access_token: &str,
) -> Result<(), IdTokenError> {
    let claimed = match claims.get("at_hash") {
        None => return Ok(()),
        Some(Value::String(claimed)) => claimed,
        Some(_) => return Err(IdTokenError::AccessTokenHash),
    };
    let hash = match algorithm {
        Algorithm::RS256 | Algorithm::PS256 | Algorithm::ES256 => &digest::SHA256,
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => &digest::SHA384,
        // Ed25519 hashes with SHA-512 (RFC 8032 §5.1), and so do RS512 and PS512.
        _ => &digest::SHA512,
    };
    let hash = digest::digest(hash, access_token.as_bytes());
    let wanted = URL_SAFE_NO_PAD.encode(&hash.as_ref()[..hash.as_ref().len() / 2]);
    verify_slices_are_equal(claimed.as_bytes(), wanted.as_bytes()).map_err(|_| IdTokenError::AccessTokenHash)
}

pub(super) fn text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, IdTokenError> {
    claims
        .get(name)
        .and_then(Value::as_str)
        .ok_or(IdTokenError::Claim(name))
}

fn optional_text(claims: &Map<String, Value>, name: &'static str) -> Result<Option<String>, IdTokenError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(IdTokenError::Claim(name)),
    }
}

pub(super) fn time(claims: &Map<String, Value>, name: &'static str) -> Result<u64, IdTokenError> {
    optional_time(claims, name)?.ok_or(IdTokenError::Claim(name))
}

/// RFC 7519 §2: a `NumericDate` is a JSON number of seconds, fractions allowed. What is before 1970 or after the year
/// 9999 is no time at all.
fn optional_time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, IdTokenError> {
    let seconds = match claims.get(name) {
        None => return Ok(None),
        Some(value) => value.as_f64().ok_or(IdTokenError::Claim(name))?,
    };
    if !(0.0..=LAST_TIME).contains(&seconds) {
        return Err(IdTokenError::Claim(name));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the year 9999, and rounding down is meant"
    )]
    Ok(Some(seconds as u64))
}

#[cfg(test)]
#[path = "id_token_tests.rs"]
mod tests;

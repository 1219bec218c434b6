//! The ID token, checked step by step (`OpenID` Connect Core §3.1.3.7).

use serde_json::{Map, Value};

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

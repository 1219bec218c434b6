//! ID tokens and logout tokens: taken only when the provider signed them, and only as what they are (`OpenID` Connect Core
//! §3.1.3.7, Back-Channel Logout §2.6, RFC 8725; standards ID-01…, LO-11…).
//!
//! The fuzzer's first byte chooses: a token as it came, or header and claims (on two lines) that are signed here, so that what
//! stands behind the signature is reached; and whether they are changed after that.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cloakroom::clock::UnixTime;
use cloakroom::protocol::id_token::{self, Addressee, LoginExpectations};
use cloakroom::protocol::jwks::Jwks;
use cloakroom::protocol::jws::Compact;
use cloakroom::protocol::logout_token;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://id.example.com";
const ACCESS_TOKEN: &str = "access";
const NONCE: &str = "n1";
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const WHO: Addressee<'_> = Addressee {
    issuer: ISSUER,
    client_id: "app",
    earliest: UnixTime::from_secs(NOW),
    latest: UnixTime::from_secs(NOW),
};
const PLAIN: LoginExpectations<'_> = LoginExpectations {
    nonce: NONCE,
    max_age: None,
    acr_values: None,
    access_token: ACCESS_TOKEN,
};
const STRICT: LoginExpectations<'_> = LoginExpectations {
    nonce: NONCE,
    max_age: Some(60),
    acr_values: Some("gold silver"),
    access_token: ACCESS_TOKEN,
};

static KEY: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed"));
static JWKS: LazyLock<Jwks> = LazyLock::new(|| {
    let x = BASE64_URL_SAFE_NO_PAD.encode(KEY.public_key().as_ref());
    let keys = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "use": "sig", "x": x},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
    ]});
    Jwks::parse(keys.to_string().as_bytes()).expect("a key set")
});

/// # Panics
/// Where a token was taken that the rules refuse, or refused that they take.
pub fn check(data: &[u8]) {
    let [choice, rest @ ..] = data else {
        return;
    };
    match choice % 4 {
        0 => {
            if let Ok(text) = std::str::from_utf8(rest) {
                check_as_it_came(text);
            }
        }
        1 => check_keys(rest),
        _ => {
            let mut parts = rest.splitn(2, |byte| *byte == b'\n');
            let header = parts.next().unwrap_or_default();
            let claims = parts.next().unwrap_or_default();
            check_signed(header, claims);
            if choice % 4 == 3 {
                check_changed(header, claims);
            }
        }
    }
}

fn encoded(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn signed(part: &str) -> String {
    format!("{part}.{}", encoded(KEY.sign(part.as_bytes()).as_ref()))
}

/// Nobody but the provider signs: a signature that holds is the one that its key makes, and there is one of it.
fn check_as_it_came(token: &str) {
    let Ok(compact) = Compact::parse(token) else {
        return;
    };
    if JWKS.verify(&compact).is_ok() {
        let (part, _) = token.rsplit_once('.').expect("three parts");
        assert_eq!(signed(part), token, "another spelling of a signature");
    }
    check_claims(&compact);
}

/// A key set of the provider's, whatever it sent.
fn check_keys(document: &[u8]) {
    let Ok(keys) = Jwks::parse(document) else {
        return;
    };
    assert!(keys.len() <= 32);
    let token = signed(&format!("{}.{}", encoded(br#"{"alg":"EdDSA"}"#), encoded(b"{}")));
    let token = Compact::parse(&token).expect("a token");
    if keys.verify(&token).is_ok() {
        let own = Value::from(encoded(KEY.public_key().as_ref()));
        let sent: Value = serde_json::from_slice(document).expect("a key set");
        let mut sent = sent["keys"].as_array().expect("a list").iter();
        assert!(sent.any(|key| key["x"] == own), "another key made our signature");
    }
}

fn check_signed(header: &[u8], claims: &[u8]) {
    let token = signed(&format!("{}.{}", encoded(header), encoded(claims)));
    let Ok(compact) = Compact::parse(&token) else {
        return;
    };
    let names: Map<String, Value> = serde_json::from_slice(header).expect("a header");
    for refused in ["crit", "b64"] {
        assert!(!names.contains_key(refused), "{refused} is not understood");
    }
    assert_eq!(names["alg"], compact.algorithm_name.as_str());
    let is_ours = ["EdDSA", "Ed25519"].contains(&&*compact.algorithm_name)
        && compact.kid.as_deref().is_none_or(|kid| kid == "k1");
    assert_eq!(JWKS.verify(&compact).is_ok(), is_ours, "{names:?}");
    check_claims(&compact);
}

/// A byte of what was signed is another one.
fn check_changed(header: &[u8], claims: &[u8]) {
    let (header, payload) = (encoded(header), encoded(claims));
    let (_, signature) = signed(&format!("{header}.{payload}"))
        .rsplit_once('.')
        .map_or_else(
            || (String::new(), String::new()),
            |(part, signature)| (part.to_owned(), signature.to_owned()),
        );
    let more = encoded(&[claims, b" "].concat());
    for part in [
        format!("{header}.{more}"),
        format!("{payload}.{header}"),
        format!("{header}.{payload}A"),
    ] {
        let token = format!("{part}.{signature}");
        let is_taken = Compact::parse(&token).is_ok_and(|compact| JWKS.verify(&compact).is_ok());
        assert!(
            !is_taken || part == format!("{header}.{payload}"),
            "a changed token is taken"
        );
    }
}

/// The claims, judged as both kinds of token: as the rules say, and never as both.
fn check_claims(compact: &Compact<'_>) {
    let claims = &compact.claims;
    let typ = compact.typ.as_deref();
    let is_id = is_id_token(typ, claims);
    for expect in [PLAIN, STRICT] {
        let taken = id_token::check_login(compact, WHO, &expect);
        assert_eq!(
            taken.is_ok(),
            is_id && fits_login(&compact.algorithm_name, claims, &expect),
            "{typ:?} {claims:?}: {taken:?}"
        );
        if let Ok(taken) = taken {
            assert_eq!(claims["sub"], taken.sub);
            assert_eq!(claims.get("sid").and_then(Value::as_str), taken.sid.as_deref());
            assert_eq!(taken.iss, ISSUER);
        }
    }
    let refreshed = id_token::check_refreshed(compact, WHO, "alice");
    assert_eq!(
        refreshed.is_ok(),
        is_id && claims["sub"] == "alice",
        "{claims:?}: {refreshed:?}"
    );
    let logout = logout_token::check(compact, WHO);
    assert_eq!(
        logout.is_ok(),
        is_logout_token(typ, claims),
        "{typ:?} {claims:?}: {logout:?}"
    );
    if let Ok(logout) = logout {
        assert!(!is_id, "one token of both kinds");
        assert!(logout.sub.is_some() || logout.sid.is_some());
        assert!(logout.until > WHO.latest, "it holds and is forgotten");
    }
}

/// A time in seconds; `Err` where there is one that is none.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, ()> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if (0.0..=253_402_300_799.0).contains(&seconds) => Ok(Some(seconds.floor())),
            _ => Err(()),
        },
    }
}

/// `iss`, `aud`, `azp`, `exp`, `iat`, `nbf`.
fn is_for_us_now(claims: &Map<String, Value>) -> bool {
    let to_us = match claims.get("aud") {
        Some(Value::String(one)) => one == "app",
        Some(Value::Array(all)) => !all.is_empty() && all.iter().all(|one| one == "app"),
        _ => false,
    };
    let now = 1_800_000_000.0;
    claims.get("iss").is_some_and(|iss| iss == ISSUER)
        && to_us
        && claims.get("azp").is_none_or(|azp| azp == "app")
        && matches!(time(claims, "exp"), Ok(Some(exp)) if exp + 60.0 > now)
        && matches!(time(claims, "iat"), Ok(Some(iat)) if iat <= now + 60.0)
        && matches!(time(claims, "nbf"), Ok(nbf) if nbf.is_none_or(|nbf| nbf <= now + 60.0))
}

fn is_recent(claims: &Map<String, Value>) -> bool {
    matches!(time(claims, "iat"), Ok(Some(iat)) if iat + 600.0 >= 1_800_000_000.0)
}

fn is_subject(sub: &Value) -> bool {
    let is_plain =
        |text: &str| (1..=255).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    sub.as_str().is_some_and(is_plain)
}

fn is_id_token(typ: Option<&str>, claims: &Map<String, Value>) -> bool {
    let is_text = |name| matches!(claims.get(name), None | Some(Value::Null | Value::String(_)));
    typ.is_none_or(|typ| typ.eq_ignore_ascii_case("jwt"))
        && !claims.contains_key("events")
        && is_for_us_now(claims)
        && claims.get("sub").is_some_and(is_subject)
        && is_text("sid")
        && is_text("acr")
        && matches!(time(claims, "auth_time"), Ok(at) if at.is_none_or(|at| at <= 1_800_000_060.0))
}

fn fits_login(alg: &str, claims: &Map<String, Value>, expect: &LoginExpectations<'_>) -> bool {
    let algorithm = match alg.get(2..) {
        Some("256") => &digest::SHA256,
        Some("384") => &digest::SHA384,
        _ => &digest::SHA512,
    };
    let hash = digest::digest(algorithm, ACCESS_TOKEN.as_bytes());
    let hash = encoded(&hash.as_ref()[..hash.as_ref().len() / 2]);
    let auth_time = time(claims, "auth_time").ok().flatten();
    let acr = claims.get("acr").and_then(Value::as_str);
    is_recent(claims)
        && claims.get("nonce").is_some_and(|nonce| nonce == NONCE)
        && claims.get("at_hash").is_none_or(|own| *own == *hash)
        && expect.max_age.is_none_or(|age| {
            #[expect(clippy::cast_precision_loss, reason = "sixty")]
            auth_time.is_some_and(|at| at + age as f64 + 60.0 >= 1_800_000_000.0)
        })
        && expect.acr_values.is_none_or(|wanted| {
            acr.is_some_and(|acr| !acr.is_empty() && wanted.split(' ').any(|one| one == acr))
        })
}

fn is_logout_token(typ: Option<&str>, claims: &Map<String, Value>) -> bool {
    let is_some_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let (sub, sid) = (claims.get("sub"), claims.get("sid"));
    typ.is_none_or(|typ| ["jwt", "logout+jwt"].contains(&&*typ.to_ascii_lowercase()))
        && is_for_us_now(claims)
        && is_recent(claims)
        && (sub.is_some() || sid.is_some())
        && sub.is_none_or(is_subject)
        && sid.is_none_or(is_some_text)
        && claims
            .get("events")
            .and_then(|events| events.get(EVENT))
            .is_some_and(Value::is_object)
        && !claims.contains_key("nonce")
        && claims.get("jti").is_some_and(is_some_text)
}

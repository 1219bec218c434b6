//! The provider's public keys (RFC 7517) and the question whether one of them signed a token.
//!
//! Stands between `jws`, which takes a token apart, and `id_token`, which reads its claims. `provider` fetches the
//! document and keeps it.
//!
//! INVARIANT: a key verifies only with algorithms of its own kind, and only with its own `alg` where it names one.
//! INVARIANT: `oct` keys and keys for encryption never verify anything; a key that is bad spoils no other.

use super::json;
use super::jws::{self, Compact, JwsError};
use aws_lc_rs::signature::{self, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

/// The most keys of a document that are kept: what bounds the work for a token without `kid`.
const MOST_KEYS: usize = 32;

/// The usable keys of one document.
#[derive(Default)]
pub struct Jwks {
    keys: Vec<Key>,
}

struct Key {
    kid: Option<String>,
    kind: Kind,
    algorithm: Option<Algorithm>,
    public: DecodingKey,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Jwks {
    /// Reads a key set. Keys that cannot verify are left out, wherever they are.
    ///
    /// # Errors
    /// A sentence, where the document is no key set at all or names a member twice.
    pub fn parse(document: &[u8]) -> Result<Self, &'static str> {
        let members = json::object(document)
            .map_err(|_| "the key set is not one JSON object with unique member names")?;
        let Some(Value::Array(entries)) = members.get("keys") else {
            return Err("the key set has no list of keys");
        };
        // RFC 7517 §5: "Implementations SHOULD ignore JWKs within a JWK Set that use kty values that are not
        // understood by them, that are missing required members, or for which values are out of the supported ranges"
        let keys = entries.iter().filter_map(Value::as_object).filter_map(Key::read);
        Ok(Self {
            keys: keys.take(MOST_KEYS).collect(),
        })
    }

    /// How many keys are usable.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key is usable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether one of the keys made the token's signature. A token with `kid` is checked with the keys of that name
    /// and those without one; a token without, with every key of the right kind (Core §10.1).
    ///
    /// # Errors
    /// [`JwsError::Signature`]
    pub fn verify(&self, token: &Compact<'_>) -> Result<(), JwsError> {
        let verifies = |key: &Key| {
            key.fits(token)
                && jsonwebtoken::crypto::verify(
                    token.signature,
                    token.signed.as_bytes(),
                    &key.public,
                    token.algorithm,
                )
                .unwrap_or(false)
        };
        if self.keys.iter().any(verifies) {
            Ok(())
        } else {
            Err(JwsError::Signature)
        }
    }
}

impl Key {
    fn read(jwk: &Map<String, Value>) -> Option<Self> {
        // RFC 7517 §4.2: `use` is "sig" or "enc"; §4.3: `key_ops` names what the key is for
        if !jwk.get("use").is_none_or(|purpose| purpose == "sig") {
            return None;
        }
        let may_verify = |list: &Value| {
            list.as_array()
                .is_some_and(|list| list.iter().any(|operation| operation == "verify"))
        };
        if !jwk.get("key_ops").is_none_or(may_verify) {
            return None;
        }
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(name) => Some(jws::algorithm(name.as_str()?)?),
        };
        let name = match jwk.get("kid") {
            None => None,
            Some(name) => Some(name.as_str()?.to_owned()),
        };
        let (kind, public) = public_key(jwk)?;
        if algorithm.is_some_and(|algorithm| !kind.can_use(algorithm)) {
            return None;
        }
        Some(Self {
            kid: name,
            kind,
            algorithm,
            public,
        })
    }

    fn fits(&self, token: &Compact<'_>) -> bool {
        self.kind.can_use(token.algorithm)
            && self.algorithm.is_none_or(|own| own == token.algorithm)
            && match (&self.kid, &token.kid) {
                (Some(own), Some(named)) => own == named,
                _ => true,
            }
    }
}

impl Kind {
    fn can_use(self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Rsa => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Self::P256 => algorithm == ES256,
            Self::P384 => algorithm == ES384,
            Self::Ed25519 => algorithm == EdDSA,
        }
    }
}

fn public_key(jwk: &Map<String, Value>) -> Option<(Kind, DecodingKey)> {
    let text = |name: &str| jwk.get(name)?.as_str();
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    match text("kty")? {
        "RSA" => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            let n = without_leading_zeros(&n);
            let e = without_leading_zeros(&e);
            // RFC 7518 §3.3: "A key of size 2048 bits or larger MUST be used"; beyond 8192 it is a way to burn time.
            // An exponent of 1 verifies anything; even ones are no keys.
            let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
            let exponent = e.iter().try_fold(0_u64, |sum, byte| {
                (sum < 1 << 32).then_some(sum << 8 | u64::from(*byte))
            })?;
            if !(2048..=8192).contains(&bits) || !(3..1 << 33).contains(&exponent) || exponent % 2 == 0 {
                return None;
            }
            Some((Kind::Rsa, DecodingKey::from_rsa_raw_components(n, e)))
        }
        "EC" => {
            let (kind, size, algorithm) = match text("crv")? {
                "P-256" => (Kind::P256, 32, &signature::ECDSA_P256_SHA256_FIXED),
                "P-384" => (Kind::P384, 48, &signature::ECDSA_P384_SHA384_FIXED),
                _ => return None,
            };
            let (x, y) = (bytes("x")?, bytes("y")?);
            // RFC 7518 §6.2.1.2: "The length of this octet string MUST be the full size of a coordinate"
            if x.len() != size || y.len() != size {
                return None;
            }
            // A point that is not on the curve is no key (RFC 7518 §6.2.2, RFC 8725 §3.4).
            ParsedPublicKey::new(algorithm, [&[4], &x[..], &y[..]].concat()).ok()?;
            Some((
                kind,
                DecodingKey::from_ec_components(text("x")?, text("y")?).ok()?,
            ))
        }
        "OKP" if text("crv")? == "Ed25519" => {
            let x = bytes("x")?;
            ParsedPublicKey::new(&signature::ED25519, &x).ok()?;
            Some((Kind::Ed25519, DecodingKey::from_ed_der(&x)))
        }
        _ => None,
    }
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::signing::{self, SIGNERS, Signer, signer};
    use serde_json::json;

    fn verifies(keys: &Value, token: &str) -> bool {
        let jwks = Jwks::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        Compact::parse(token).is_ok_and(|token| jwks.verify(&token).is_ok())
    }

    fn signed(signer: &Signer, header: Value) -> String {
        signer.sign(header, &json!({"sub": "alice"}))
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "json! literals read best unborrowed"
    )]
    fn with(jwk: &Value, more: Value) -> Value {
        let mut jwk = jwk.clone();
        jwk.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        jwk
    }

    #[test]
    fn every_listed_algorithm_verifies_with_its_own_key_and_no_other() {
        for one in SIGNERS.iter() {
            let token = signed(one, json!({}));
            for other in SIGNERS.iter() {
                // RSA keys serve RS* and PS* alike where they name no `alg`: RFC 8017 keeps the signatures apart.
                let fits = one.key == other.key;
                assert_eq!(
                    verifies(&json!([other.jwk()]), &token),
                    fits,
                    "{} {}",
                    one.alg,
                    other.alg
                );
                let bound = with(&other.jwk(), json!({"alg": other.alg}));
                assert_eq!(
                    verifies(&json!([bound]), &token),
                    one.alg == other.alg,
                    "{} {}",
                    one.alg,
                    other.alg
                );
            }
        }
    }

    #[test]
    fn md_07_one_bad_key_does_not_poison_the_set() {
        let rs = signer("RS256");
        let good = rs.jwk();
        let token = signed(rs, json!({"kid": "rsa"}));
        for bad in [
            json!(null),
            json!("key"),
            json!([]),
            json!({}),
            json!({"kty": "XYZ"}),
            json!({"kty": 7}),
            json!({"kty": "RSA"}),
            json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "RSA", "n": "", "e": ""}),
            with(&good, json!({"n": "!!!", "kid": "rsa"})),
            with(&good, json!({"e": "AQ", "kid": "rsa"})),
            with(&good, json!({"e": "BA", "kid": "rsa"})),
            with(&good, json!({"e": "_____________w"})),
            with(&good, json!({"kid": 7})),
            with(&good, json!({"alg": 7})),
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
            json!({"kty": "EC", "crv": "P-256", "x": "A".repeat(43), "y": "A".repeat(43)}),
            json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
            json!({"kty": "OKP", "crv": "Ed448", "x": "AA"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}),
            json!({"kty": "oct", "k": "AA", "kid": "rsa"}),
        ] {
            assert!(verifies(&json!([bad, good]), &token), "{bad}");
            assert!(verifies(&json!([good, bad]), &token), "{bad}");
            assert!(!verifies(&json!([bad]), &token), "{bad}");
        }
    }

    #[test]
    fn md_07_keys_for_something_else_never_verify() {
        for one in SIGNERS.iter() {
            let token = signed(one, json!({}));
            for more in [
                json!({"use": "enc"}),
                json!({"use": null}),
                json!({"use": "SIG"}),
                json!({"key_ops": ["encrypt"]}),
                json!({"key_ops": []}),
                json!({"key_ops": "verify"}),
                json!({"alg": "HS256"}),
                json!({"alg": "RSA-OAEP"}),
                json!({"alg": "none"}),
                json!({"kty": "oct", "k": "AAAA"}),
            ] {
                assert!(
                    !verifies(&json!([with(&one.jwk(), more.clone())]), &token),
                    "{} {more}",
                    one.alg
                );
            }
            for more in [
                json!({"use": "sig"}),
                json!({"key_ops": ["sign", "verify"]}),
                json!({"unknown": {"a": 1}, "x5c": ["!"], "x5u": "https://evil"}),
            ] {
                assert!(
                    verifies(&json!([with(&one.jwk(), more.clone())]), &token),
                    "{} {more}",
                    one.alg
                );
            }
        }
    }

    #[test]
    fn md_07_documents_that_are_no_key_set_are_refused() {
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":null}"#,
            r#"{"keys":[]} x"#,
            "<html>",
            r#"{"keys":[],"keys":[]}"#,
            // ID-15
            r#"{"keys":[{"kid":"a","kid":"b"}]}"#,
        ] {
            assert!(Jwks::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(Jwks::parse(br#"{"keys":[],"more":1}"#).unwrap().is_empty());
        let many = json!({ "keys": vec![signer("EdDSA").jwk(); 1000] }).to_string();
        assert_eq!(Jwks::parse(many.as_bytes()).unwrap().len(), MOST_KEYS);
    }

    #[test]
    fn id_18_kid_selects_where_both_sides_have_one() {
        let (rs, es, ed) = (signer("RS256"), signer("ES256"), signer("EdDSA"));
        let bare = signed(rs, json!({}));
        let named = signed(rs, json!({"kid": "a"}));
        let key = |kid: &str| with(&rs.jwk(), json!({ "kid": kid }));
        for (keys, token, fits) in [
            (json!([key("a")]), &bare, true),
            (json!([es.jwk(), ed.jwk(), key("a")]), &bare, true),
            (json!([key("a")]), &named, true),
            (json!([rs.jwk()]), &named, true),
            (json!([key("b")]), &named, false),
            (json!([key("A")]), &named, false),
            (json!([]), &bare, false),
            // One name for two keys: the kind decides.
            (
                json!([with(&es.jwk(), json!({"kid": "a"})), key("a")]),
                &named,
                true,
            ),
        ] {
            assert_eq!(verifies(&keys, token), fits, "{keys:.80}");
        }
    }

    #[test]
    fn id_04_a_public_key_is_never_an_hmac_secret() {
        use aws_lc_rs::hmac;
        let rs = signer("RS256");
        let jwk = rs.jwk();
        let der = signing::rsa_public_der();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            base64::engine::general_purpose::STANDARD.encode(&der)
        );
        for secret in [pem.into_bytes(), der, jwk.to_string().into_bytes()] {
            for (alg, algorithm) in [
                ("HS256", hmac::HMAC_SHA256),
                ("HS384", hmac::HMAC_SHA384),
                ("HS512", hmac::HMAC_SHA512),
            ] {
                let text = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
                let signed = format!(
                    "{}.{}",
                    text(json!({ "alg": alg })),
                    text(json!({"sub": "alice"}))
                );
                let tag = hmac::sign(&hmac::Key::new(algorithm, &secret), signed.as_bytes());
                let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
                assert!(!verifies(&json!([jwk]), &token));
                let oct = json!({"kty": "oct", "alg": alg, "k": URL_SAFE_NO_PAD.encode(&secret)});
                assert!(!verifies(&json!([oct, jwk]), &token));
                // The same tag under the name of a signature.
                let header = text(json!({"alg": "RS256"}));
                let claimed = format!("{header}.{}", text(json!({"sub": "alice"})));
                let tag = hmac::sign(&hmac::Key::new(algorithm, &secret), claimed.as_bytes());
                assert!(!verifies(
                    &json!([oct, jwk]),
                    &format!("{claimed}.{}", URL_SAFE_NO_PAD.encode(tag))
                ));
            }
        }
    }

    #[test]
    fn md_08_a_token_does_not_bring_its_own_key() {
        let (rs, es) = (signer("RS256"), signer("ES256"));
        let token = signed(
            es,
            json!({"jwk": es.jwk(), "jku": "https://evil/jwks", "x5u": "https://evil", "x5c": []}),
        );
        assert!(!verifies(&json!([rs.jwk()]), &token));
        assert!(verifies(&json!([es.jwk()]), &token));
    }

    #[test]
    fn id_01_no_changed_byte_is_ever_accepted() {
        for one in SIGNERS.iter() {
            let jwks = Jwks::parse(json!({"keys": [one.jwk()]}).to_string().as_bytes()).unwrap();
            let token = signed(one, json!({"kid": "k"}));
            for place in 0..token.len() {
                for change in [1_u8, 2, 4, 16, 32, 64] {
                    let mut bytes = token.clone().into_bytes();
                    bytes[place] ^= change;
                    let Ok(changed) = std::str::from_utf8(&bytes) else {
                        continue;
                    };
                    let accepted = Compact::parse(changed).is_ok_and(|token| jwks.verify(&token).is_ok());
                    assert!(!accepted, "{} at {place}", one.alg);
                }
                for shorter in [&token[..place], &token[place..]] {
                    if shorter != token {
                        let accepted = Compact::parse(shorter).is_ok_and(|token| jwks.verify(&token).is_ok());
                        assert!(!accepted, "{} cut at {place}", one.alg);
                    }
                }
            }
        }
    }
}

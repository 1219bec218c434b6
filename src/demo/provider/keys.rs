//! The embedded provider's signing key: a fresh one each start, published as a JWK Set.
//!
//! Sources: RFC 7515, RFC 7517, RFC 7518 §3.4 (ES256), RFC 7638 (the key's thumbprint is its `kid`).

use super::random;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value, json};

/// What a JWT is for: its `typ`, so that none passes for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An access token (RFC 9068 §2.1).
    Access,
    /// An ID token.
    Id,
    /// A logout token (Back-Channel Logout §2.4).
    Logout,
}

impl Purpose {
    const fn typ(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Id => "JWT",
            Self::Logout => "logout+jwt",
        }
    }
}

/// An ES256 key pair.
pub struct Keys {
    signing: EncodingKey,
    verifying: DecodingKey,
    kid: String,
    jwks: Value,
}

impl Keys {
    /// Makes a new one.
    ///
    /// # Errors
    /// A sentence, where the system has no randomness.
    pub fn generate() -> Result<Self, String> {
        let failed = |_| "no signing key could be made".to_owned();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(failed)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())
            .map_err(|_| "no signing key could be read".to_owned())?;
        // An uncompressed point: 4, then x and y of 32 bytes each (SEC 1 §2.3.3).
        let point = pair.public_key().as_ref();
        let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else {
            return Err("the signing key has no such point".into());
        };
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // RFC 7638 §3.2: the required members only, in lexicographic order.
        let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, thumbprint.as_bytes()));
        let jwks = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": "ES256", "kid": kid,
        }]});
        Ok(Self {
            signing: EncodingKey::from_ec_der(pkcs8.as_ref()),
            verifying: DecodingKey::from_ec_components(&x, &y)
                .map_err(|_| "the signing key cannot verify".to_owned())?,
            kid,
            jwks,
        })
    }

    /// The public half, as a JWK Set.
    #[must_use]
    pub fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// Signs claims. `None` where signing fails.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, claims: &Value) -> Option<String> {
        let header = Header {
            typ: Some(purpose.typ().into()),
            kid: Some(self.kid.clone()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, claims, &self.signing).ok()
    }

    /// The claims of a JWT that this key signed for that purpose. Times, issuer and audience are the caller's to judge.
    #[must_use]
    pub fn verify(&self, purpose: Purpose, token: &str) -> Option<Map<String, Value>> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let data = jsonwebtoken::decode::<Map<String, Value>>(token, &self.verifying, &validation).ok()?;
        (data.header.typ.as_deref() == Some(purpose.typ())).then_some(data.claims)
    }
}

/// SHA-256, base64url: how secrets are kept here, and what they are compared by.
#[must_use]
pub fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

/// `at_hash` (Core §3.1.3.6): the left half of the hash, base64url.
#[must_use]
pub fn half_hash(text: &str) -> String {
    let whole = digest(&SHA256, text.as_bytes());
    URL_SAFE_NO_PAD.encode(&whole.as_ref()[..16])
}

/// 256 random bits, base64url (43 characters).
#[must_use]
pub fn unguessable() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_verifies_under_the_published_jwks_and_for_its_purpose_only() {
        let keys = Keys::generate().unwrap();
        let token = keys.sign(Purpose::Access, &json!({"sub": "alex"})).unwrap();
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(keys.jwks()["keys"][0].clone()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        let published = DecodingKey::from_jwk(&jwk).unwrap();
        let data = jsonwebtoken::decode::<Value>(&token, &published, &validation).unwrap();
        assert_eq!(data.header.kid.as_deref(), keys.jwks()["keys"][0]["kid"].as_str());
        assert_eq!(data.claims["sub"], "alex");
        assert!(keys.verify(Purpose::Access, &token).is_some());
        assert!(keys.verify(Purpose::Id, &token).is_none());
        assert!(
            Keys::generate()
                .unwrap()
                .verify(Purpose::Access, &token)
                .is_none()
        );
    }
}

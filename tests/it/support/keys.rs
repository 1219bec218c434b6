//! Signing keys of the suite's provider, made once, and JWTs made by hand so that they can also be wrong.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use std::sync::OnceLock;

/// Which key signs, and by which algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// RS256 with the first RSA key: the usual one.
    Rs256,
    /// RS256 with the second RSA key.
    Rs256Other,
    /// PS256 with the first RSA key.
    Ps256,
    /// ES256.
    Es256,
    /// `EdDSA` with Ed25519.
    EdDsa,
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// As it should be.
    With(Key),
    /// As it should be, then one bit of the signature turned.
    Broken(Key),
    /// `alg` in this spelling and an empty signature.
    None(&'static str),
    /// HS256 with the RSA key's modulus, as the JWK spells it, for a secret.
    HsUnderPublicKey,
    /// HS256 with the client secret.
    HsUnderClientSecret,
    /// The header says this, the first RSA key signs RS256.
    Claims(&'static str),
}

struct Keys {
    rsa: [RsaKeyPair; 2],
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        rsa: [(); 2].map(|()| RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        ed: Ed25519KeyPair::generate().unwrap(),
    })
}

fn modulus(key: &RsaKeyPair) -> String {
    BASE64.encode(key.public_key().modulus().big_endian_without_leading_zero())
}

impl Key {
    /// The name in JWKS and headers.
    pub fn kid(self) -> &'static str {
        match self {
            Self::Rs256 | Self::Ps256 => "rsa-1",
            Self::Rs256Other => "rsa-2",
            Self::Es256 => "ec-1",
            Self::EdDsa => "ed-1",
        }
    }

    /// The name of its algorithm.
    pub fn alg(self) -> &'static str {
        match self {
            Self::Rs256 | Self::Rs256Other => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Its public half.
    pub fn jwk(self) -> Value {
        let keys = keys();
        let mut jwk = match self {
            Self::Rs256 | Self::Ps256 => json!({ "kty": "RSA", "e": "AQAB", "n": modulus(&keys.rsa[0]) }),
            Self::Rs256Other => json!({ "kty": "RSA", "e": "AQAB", "n": modulus(&keys.rsa[1]) }),
            Self::Es256 => {
                let point = keys.ec.public_key().as_ref();
                let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..65]));
                json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
            }
            Self::EdDsa => {
                let x = BASE64.encode(keys.ed.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "x": x })
            }
        };
        jwk["kid"] = self.kid().into();
        jwk["use"] = "sig".into();
        jwk
    }

    fn sign(self, text: &[u8]) -> Vec<u8> {
        let (keys, random) = (keys(), SystemRandom::new());
        let rsa = |key: &RsaKeyPair, pss: bool| {
            let mut signature = vec![0; key.public_modulus_len()];
            if pss {
                key.sign(&RSA_PSS_SHA256, &random, text, &mut signature).unwrap();
            } else {
                key.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature)
                    .unwrap();
            }
            signature
        };
        match self {
            Self::Rs256 => rsa(&keys.rsa[0], false),
            Self::Ps256 => rsa(&keys.rsa[0], true),
            Self::Rs256Other => rsa(&keys.rsa[1], false),
            Self::Es256 => keys.ec.sign(&random, text).unwrap().as_ref().to_vec(),
            Self::EdDsa => keys.ed.sign(text).as_ref().to_vec(),
        }
    }
}

impl Sign {
    /// The header that belongs to it.
    pub fn header(self) -> Value {
        let (alg, kid) = match self {
            Self::With(key) | Self::Broken(key) => (key.alg(), key.kid()),
            Self::None(alg) | Self::Claims(alg) => (alg, "rsa-1"),
            Self::HsUnderPublicKey | Self::HsUnderClientSecret => ("HS256", "rsa-1"),
        };
        json!({ "alg": alg, "kid": kid, "typ": "JWT" })
    }

    /// The compact form.
    pub fn compact(self, header: &Value, claims: &Value, client_secret: &str) -> String {
        let text = format!(
            "{}.{}",
            BASE64.encode(header.to_string()),
            BASE64.encode(claims.to_string())
        );
        let hs = |secret: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes())
                .as_ref()
                .to_vec()
        };
        let signature = match self {
            Self::With(key) => key.sign(text.as_bytes()),
            Self::Broken(key) => {
                let mut signature = key.sign(text.as_bytes());
                signature[9] ^= 4;
                signature
            }
            Self::None(_) => Vec::new(),
            Self::HsUnderPublicKey => hs(modulus(&keys().rsa[0]).as_bytes()),
            Self::HsUnderClientSecret => hs(client_secret.as_bytes()),
            Self::Claims(_) => Key::Rs256.sign(text.as_bytes()),
        };
        format!("{text}.{}", BASE64.encode(signature))
    }
}

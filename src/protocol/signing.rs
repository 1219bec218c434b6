//! Keys that tests sign with: one of each kind, made once. Only compiled for tests.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::LazyLock;

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static P256: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
static P384: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap());
static ED25519: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

/// One algorithm with the key that it signs with.
pub struct Signer {
    pub alg: &'static str,
    pub key: &'static str,
}

/// One for each algorithm.
pub static SIGNERS: LazyLock<Vec<Signer>> = LazyLock::new(|| {
    [
        ("RS256", "rsa"),
        ("RS384", "rsa"),
        ("RS512", "rsa"),
        ("PS256", "rsa"),
        ("PS384", "rsa"),
        ("PS512", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("EdDSA", "ed25519"),
    ]
    .map(|(alg, key)| Signer { alg, key })
    .into()
});

/// The signer for an algorithm.
pub fn signer(alg: &str) -> &'static Signer {
    SIGNERS.iter().find(|signer| signer.alg == alg).unwrap()
}

/// The RSA public key as `SubjectPublicKeyInfo`.
pub fn rsa_public_der() -> Vec<u8> {
    let der: PublicKeyX509Der<'_> = RSA.public_key().as_der().unwrap();
    der.as_ref().to_vec()
}

impl Signer {
    /// The public key, without `kid` or `alg`.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = |crv: &str, key: &EcdsaKeyPair| {
            let (x, y) = key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
            json!({"kty": "EC", "crv": crv, "x": text(x), "y": text(y)})
        };
        match self.key {
            "rsa" => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(RSA.public_key());
                json!({"kty": "RSA", "n": text(&public.n), "e": text(&public.e)})
            }
            "p256" => point("P-256", &P256),
            "p384" => point("P-384", &P384),
            _ => json!({"kty": "OKP", "crv": "Ed25519", "x": text(ED25519.public_key().as_ref())}),
        }
    }

    /// A compact token; `alg` is added to the header unless it is there.
    pub fn sign(&self, mut header: Value, claims: &Value) -> String {
        let members = header.as_object_mut().unwrap();
        members.entry("alg").or_insert_with(|| self.alg.into());
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        self.sign_raw(&format!(
            "{header}.{}",
            URL_SAFE_NO_PAD.encode(claims.to_string())
        ))
    }

    /// Signs these bytes and appends the signature.
    pub fn sign_raw(&self, signed: &str) -> String {
        let message = signed.as_bytes();
        let random = SystemRandom::new();
        let rsa = |encoding: &'static dyn signature::RsaEncoding| {
            let mut out = vec![0; RSA.public_modulus_len()];
            RSA.sign(encoding, &random, message, &mut out).unwrap();
            out
        };
        let signature = match self.alg {
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            "ES256" => P256.sign(&random, message).unwrap().as_ref().to_vec(),
            "ES384" => P384.sign(&random, message).unwrap().as_ref().to_vec(),
            _ => ED25519.sign(message).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

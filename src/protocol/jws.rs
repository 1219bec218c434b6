//! A signed token in compact form (RFC 7515 §3.1, §7.1): taken apart strictly, and nothing believed yet.
//!
//! Stands before `id_token`: what [`Compact`] holds is only well-formed; [`super::jwks::Jwks::verify`] says whether
//! the provider signed it.
//!
//! INVARIANT: the algorithm comes from a fixed list of public-key signatures. `none` and the HMACs are not on it, so a
//! public key can never be taken for a secret (RFC 8725 §2.1, §3.1, §3.2).
//! INVARIANT: `jku`, `x5u`, `jwk`, `x5c` are never looked at (RFC 8725 §3.10): a token does not bring its own key.

use super::json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

/// The longest token that is looked at, in bytes.
const LONGEST_TOKEN: usize = 64 * 1024;

/// Why a signed token cannot be used. Holds nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not three parts of plain base64url with a JSON object in the first two, or longer than 64 KiB.
    #[error("it is not a signed token in compact form, or longer than 64 KiB")]
    Malformed,
    /// `alg` is missing, not on the list, or not one that the provider's metadata names.
    #[error("its signature algorithm is not acceptable (RS, PS, ES and EdDSA are, HS256 and none are not)")]
    Algorithm,
    /// The header demands something that is not understood, or a member has the wrong type.
    #[error("its header demands what is not understood")]
    Header,
    /// No key of the provider made this signature.
    #[error("no key that the provider publishes made its signature")]
    Signature,
}

/// The algorithm of that name, if it is one that may sign for a provider.
#[must_use]
pub fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        // RFC 9864 names the curve; older ones say only EdDSA. Here both are Ed25519.
        "EdDSA" | "Ed25519" => Algorithm::EdDSA,
        _ => return None,
    })
}

/// A token taken apart: well-formed, but not verified.
pub struct Compact<'a> {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `alg` as it was written.
    pub algorithm_name: String,
    /// `kid`, where there is one.
    pub kid: Option<String>,
    /// `typ`, where there is one.
    pub typ: Option<String>,
    /// The payload.
    pub claims: Map<String, Value>,
    /// Header and payload as they were signed.
    pub(super) signed: &'a str,
    /// The signature, base64url.
    pub(super) signature: &'a str,
}

impl<'a> Compact<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`JwsError`]
    pub fn parse(token: &'a str) -> Result<Self, JwsError> {
        if token.len() > LONGEST_TOKEN {
            return Err(JwsError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
        // A fourth part would leave a dot in `payload`, which is not base64url.
        let (header, payload) = signed.split_once('.').ok_or(JwsError::Malformed)?;
        if signature.is_empty() || decode(signature).is_none() {
            return Err(JwsError::Malformed);
        }
        let header = part(header)?;
        let claims = part(payload)?;
        // RFC 7515 §4.1.11: "If any of the listed extension Header Parameters are not understood and supported by the
        // recipient, then the JWS is invalid"; none is. RFC 7797 §6: `b64` is such an extension.
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(JwsError::Header);
        }
        let algorithm_name = text(&header, "alg")?.ok_or(JwsError::Algorithm)?;
        Ok(Self {
            algorithm: algorithm(&algorithm_name).ok_or(JwsError::Algorithm)?,
            algorithm_name,
            kid: text(&header, "kid")?,
            typ: text(&header, "typ")?,
            claims,
            signed,
            signature,
        })
    }
}

/// RFC 7515 §2: base64url "with all trailing '=' characters omitted … and without the inclusion of any line breaks,
/// whitespace, or other additional characters". Bits left over at the end must be zero: one token, one spelling.
fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn part(encoded: &str) -> Result<Map<String, Value>, JwsError> {
    let bytes = decode(encoded).ok_or(JwsError::Malformed)?;
    json::object(&bytes).map_err(|_| JwsError::Malformed)
}

fn text(header: &Map<String, Value>, name: &str) -> Result<Option<String>, JwsError> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(JwsError::Header),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str, signature: &str) -> String {
        format!(
            "{}.{}.{signature}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload)
        )
    }

    fn error_of(token: &str) -> JwsError {
        Compact::parse(token).err().expect("refused")
    }

    #[test]
    fn id_01_only_the_strict_compact_form_is_taken() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
        let good = format!("{header}.e30.AAAA");
        assert!(Compact::parse(&good).is_ok());
        for wrong in [
            String::new(),
            ".".into(),
            "..".into(),
            "...".into(),
            header.clone(),
            format!("{header}.e30"),
            format!("{header}.e30."),
            format!("{header}.e30.AAAA."),
            format!("{header}.e30.AAAA.AAAA"),
            format!("{header}.e30.AAAA.AAAA.AAAA"),
            format!(" {good}"),
            format!("{good}\n"),
            format!("{header}=.e30.AAAA"),
            format!("{header}.e30=.AAAA"),
            format!("{header}.e30.AA+A"),
            format!("{header}.e30.AA/A"),
            format!("{header}.e30.AA=="),
            format!("{header}.e30.AB"),
            format!("{header}.e3.AAAA"),
            format!("{header}..AAAA"),
            token(r#"{"alg":"RS256"}"#, "[]", "AAAA"),
            token(r#"{"alg":"RS256"}"#, "{}{}", "AAAA"),
            token("\u{feff}{\"alg\":\"RS256\"}", "{}", "AAAA"),
            token("[]", "{}", "AAAA"),
            token(
                r#"{"alg":"RS256"}"#,
                &format!("{{\"a\":{}}}", "[".repeat(5000)),
                "AAAA",
            ),
            token(
                r#"{"alg":"RS256"}"#,
                &format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024)),
                "AAAA",
            ),
            // ID-15
            token(r#"{"alg":"RS256","alg":"RS256"}"#, "{}", "AAAA"),
            token(r#"{"alg":"RS256"}"#, r#"{"aud":"us","aud":"them"}"#, "AAAA"),
        ] {
            assert_eq!(error_of(&wrong), JwsError::Malformed, "{wrong:.80}");
        }
    }

    #[test]
    fn id_02_id_03_only_listed_public_key_algorithms_are_known() {
        for name in [
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519",
        ] {
            let token = token(&format!(r#"{{"alg":"{name}"}}"#), "{}", "AAAA");
            assert_eq!(Compact::parse(&token).unwrap().algorithm_name, name);
        }
        for name in [
            "none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "hs256", "rs256", "RS1", "RS256 ",
            "ES512", "ES256K", "ES224", "RSA1_5", "A128KW", "dir", "Ed448",
        ] {
            let token = token(&format!(r#"{{"alg":"{name}"}}"#), "{}", "AAAA");
            assert_eq!(error_of(&token), JwsError::Algorithm, "{name}");
        }
        assert_eq!(error_of(&token("{}", "{}", "AAAA")), JwsError::Algorithm);
        assert_eq!(
            error_of(&token(r#"{"alg":"none"}"#, "{}", "")),
            JwsError::Malformed
        );
        assert_eq!(
            error_of(&token(r#"{"alg":null}"#, "{}", "AAAA")),
            JwsError::Header
        );
        assert_eq!(
            error_of(&token(r#"{"alg":["RS256"]}"#, "{}", "AAAA")),
            JwsError::Header
        );
    }

    #[test]
    fn id_14_what_a_header_demands_must_be_understood() {
        for more in [
            r#""crit":["x"]"#,
            r#""crit":[]"#,
            r#""crit":["exp"],"exp":1"#,
            r#""crit":null"#,
            r#""b64":false"#,
            r#""b64":false,"crit":["b64"]"#,
            r#""kid":7"#,
            r#""kid":null"#,
            r#""typ":["JWT"]"#,
        ] {
            let token = token(&format!(r#"{{"alg":"RS256",{more}}}"#), "{}", "AAAA");
            assert_eq!(error_of(&token), JwsError::Header, "{more}");
        }
        let extra = token(
            r#"{"alg":"RS256","jku":"https://evil","jwk":{},"x5c":[],"unknown":1}"#,
            "{}",
            "AAAA",
        );
        assert!(Compact::parse(&extra).is_ok());
    }
}

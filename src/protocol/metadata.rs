//! The provider's metadata: where its endpoints are and what it supports.
//!
//! INVARIANT: nothing of a document is used whose issuer is not the configured one, to the letter.
//! Sources: OpenID Connect Discovery 1.0 §3, §4.1, §4.3; RFC 8414 §2; RFC 9207 §3.

use super::json;
use super::origin::is_loopback_name;
use serde_json::{Map, Value};

/// What is known of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Where the browser is sent to sign in.
    pub authorization: Option<String>,
    /// Where codes and refresh tokens are exchanged.
    pub token: Option<String>,
    /// Where the signing keys are.
    pub jwks: Option<String>,
    /// Where claims are asked for.
    pub userinfo: Option<String>,
    /// Where tokens are revoked.
    pub revocation: Option<String>,
    /// Where the browser is sent to sign out.
    pub end_session: Option<String>,
    /// `token_endpoint_auth_methods_supported`, where it is named.
    pub auth_methods: Option<Vec<String>>,
    /// `id_token_signing_alg_values_supported`, where it is named.
    pub algorithms: Option<Vec<String>>,
    /// Whether authorization responses are promised to carry `iss` (RFC 9207 §3).
    pub promises_iss: bool,
}

/// Where the document of an issuer is (Discovery §4.1): "any terminating / MUST be removed before appending".
#[must_use]
pub fn discovery_url(issuer: &str) -> String {
    format!(
        "{}/.well-known/openid-configuration",
        issuer.strip_suffix('/').unwrap_or(issuer)
    )
}

impl Metadata {
    /// Reads a discovery document.
    ///
    /// # Errors
    /// A sentence; nothing of the document may be used then.
    pub fn parse(document: &[u8], issuer: &str) -> Result<Self, String> {
        let members = json::object(document)
            .map_err(|_| "the discovery document is not one JSON object with unique member names")?;
        // Discovery §4.3: "The issuer value returned MUST be identical to the Issuer URL that was directly used to
        // retrieve the configuration information"
        if members.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err("the discovery document names another issuer than the config: compare `issuer` in both, to the \
                 letter (a trailing slash counts)"
                .into());
        }
        Ok(Self {
            authorization: endpoint(&members, "authorization_endpoint")?,
            token: endpoint(&members, "token_endpoint")?,
            jwks: endpoint(&members, "jwks_uri")?,
            userinfo: endpoint(&members, "userinfo_endpoint")?,
            revocation: endpoint(&members, "revocation_endpoint")?,
            end_session: endpoint(&members, "end_session_endpoint")?,
            auth_methods: words(&members, "token_endpoint_auth_methods_supported"),
            algorithms: words(&members, "id_token_signing_alg_values_supported"),
            promises_iss: members.get("authorization_response_iss_parameter_supported")
                == Some(&Value::Bool(true)),
        })
    }
}

fn endpoint(members: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(url)) if is_endpoint(url) => Ok(Some(url.clone())),
        Some(_) => Err(format!(
            "`{name}` in the discovery document is no https URL without user name and fragment"
        )),
    }
}

/// https, loopback excepted; no user name, no fragment (RFC 8414 §2).
#[must_use]
pub fn is_endpoint(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let secure =
        scheme == "https" || (scheme == "http" && is_loopback_name(&authority.host().to_ascii_lowercase()));
    secure && !authority.as_str().contains('@') && !url.contains('#')
}

fn words(members: &Map<String, Value>, name: &str) -> Option<Vec<String>> {
    let list = members.get(name)?.as_array()?;
    Some(list.iter().filter_map(Value::as_str).map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md_01_the_document_is_at_the_issuer_without_its_last_slash() {
        for (issuer, url) in [
            (
                "https://id.example",
                "https://id.example/.well-known/openid-configuration",
            ),
            (
                "https://id.example/",
                "https://id.example/.well-known/openid-configuration",
            ),
            (
                "https://id.example/realms/a",
                "https://id.example/realms/a/.well-known/openid-configuration",
            ),
        ] {
            assert_eq!(discovery_url(issuer), url);
        }
    }

    #[test]
    fn md_02_another_issuer_is_refused_to_the_letter() {
        let document = |issuer: &str| serde_json::json!({ "issuer": issuer }).to_string().into_bytes();
        assert!(Metadata::parse(&document("https://id.example"), "https://id.example").is_ok());
        for other in [
            "https://id.example/",
            "https://ID.example",
            "http://id.example",
            "",
        ] {
            assert!(
                Metadata::parse(&document(other), "https://id.example").is_err(),
                "{other}"
            );
        }
    }

    #[test]
    fn md_03_endpoints_are_https_off_loopback() {
        for good in [
            "https://id.example/token",
            "http://127.0.0.1:1/token",
            "http://op.localhost/x?y=z",
        ] {
            assert!(is_endpoint(good), "{good}");
        }
        for bad in [
            "http://id.example/token",
            "https://u@id.example/",
            "https://id.example/#f",
            "/token",
            "",
            "ftp://a/",
        ] {
            assert!(!is_endpoint(bad), "{bad}");
        }
    }
}

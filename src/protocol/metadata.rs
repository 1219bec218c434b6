//! The provider's metadata (`OpenID` Connect Discovery §3, RFC 8414 §2).
//!
//! Stands before everything that is asked of a provider: which endpoints there are, and what they understand.
//!
//! INVARIANT: of a document that names another issuer, or an endpoint that is not `https`, nothing is used.
//! INVARIANT: endpoints come from here or from the config, never from a token or a browser.

use super::json;
use super::origin::is_loopback_name;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// What is known of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Where the browser is sent to sign in.
    pub authorization_endpoint: String,
    /// Where codes and refresh tokens are exchanged.
    pub token_endpoint: String,
    /// Where the signing keys are.
    pub jwks_uri: String,
    /// Where claims are asked for.
    pub userinfo_endpoint: Option<String>,
    /// Where tokens are revoked.
    pub revocation_endpoint: Option<String>,
    /// Where the browser is sent to sign out.
    pub end_session_endpoint: Option<String>,
    /// `id_token_signing_alg_values_supported`, where it is named.
    pub id_token_algorithms: Option<Vec<String>>,
    /// `userinfo_signing_alg_values_supported`, where it is named.
    pub userinfo_algorithms: Option<Vec<String>>,
    /// `token_endpoint_auth_methods_supported`, where it is named.
    pub client_auth_methods: Option<Vec<String>>,
    /// Whether each authorization response names its issuer (RFC 9207 §3).
    pub names_issuer_in_response: bool,
}

/// Where an issuer's document is.
#[must_use]
pub fn discovery_url(issuer: &str) -> String {
    // Discovery §4.1: "If the Issuer value contains a path component, any terminating / MUST be removed before
    // appending /.well-known/openid-configuration"
    let base = issuer.strip_suffix('/').unwrap_or(issuer);
    format!("{base}/.well-known/openid-configuration")
}

impl Metadata {
    /// Reads a discovery document. `plain_http`: whether endpoints on loopback may be plain `http`, because the
    /// issuer is one too.
    ///
    /// # Errors
    /// A sentence; nothing of the document may be used then.
    pub fn parse(document: &[u8], issuer: &str, plain_http: bool) -> Result<Self, String> {
        let members = json::object(document).map_err(|error| {
            if document.trim_ascii_start().starts_with(b"<") {
                return "the discovery document is HTML and not JSON: either there is none at this issuer, or a login \
                        page or a proxy answers in its place"
                    .to_owned();
            }
            format!("the discovery document {error}")
        })?;
        // Discovery §4.3: "The issuer value returned MUST be identical to the Issuer URL that was used as the prefix
        // to /.well-known/openid-configuration"
        let named = members.get("issuer").and_then(Value::as_str).unwrap_or_default();
        if named != issuer {
            // What it names is no secret, and the remedy; a name that is none is not repeated.
            let is_name =
                named.len() <= 255 && named.contains("://") && named.bytes().all(|b| b.is_ascii_graphic());
            let named = if is_name { named } else { "no URL" };
            return Err(format!(
                "the discovery document names another issuer than the config does: {named} (they must be equal to the \
                 letter, a slash at the end included)"
            ));
        }
        let endpoint = |name: &str| match members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(url)) => match check_endpoint(url, plain_http) {
                Ok(()) => Ok(Some(url.clone())),
                Err(fault) => Err(format!("{name} of the discovery document {fault}")),
            },
            Some(_) => Err(format!("{name} of the discovery document is no text")),
        };
        let required =
            |name: &str| endpoint(name)?.ok_or_else(|| format!("the discovery document has no {name}"));
        Ok(Self {
            authorization_endpoint: required("authorization_endpoint")?,
            token_endpoint: required("token_endpoint")?,
            jwks_uri: required("jwks_uri")?,
            userinfo_endpoint: endpoint("userinfo_endpoint")?,
            revocation_endpoint: endpoint("revocation_endpoint")?,
            end_session_endpoint: endpoint("end_session_endpoint")?,
            id_token_algorithms: names(&members, "id_token_signing_alg_values_supported"),
            userinfo_algorithms: names(&members, "userinfo_signing_alg_values_supported"),
            client_auth_methods: names(&members, "token_endpoint_auth_methods_supported"),
            names_issuer_in_response: members.get("authorization_response_iss_parameter_supported")
                == Some(&Value::Bool(true)),
        })
    }
}

fn names(members: &Map<String, Value>, name: &str) -> Option<Vec<String>> {
    let list = members.get(name)?.as_array()?;
    Some(list.iter().filter_map(Value::as_str).map(String::from).collect())
}

/// Whether a URL may be an endpoint: `https` (plain `http` only on loopback, and only where that is accepted), with
/// a host, without user name and fragment, and not on a link-local address.
///
/// # Errors
/// What is wrong with it, to follow its name.
pub fn check_endpoint(url: &str, plain_http: bool) -> Result<(), &'static str> {
    // RFC 6749 §3.1: "The endpoint URI MUST NOT include a fragment component". http::Uri would drop it silently.
    if url.contains('#') {
        return Err("has a fragment");
    }
    let uri: http::Uri = url.parse().map_err(|_| "is not a URL")?;
    let authority = uri.authority().ok_or("is not an absolute URL")?;
    let host = authority.host();
    if authority.as_str().contains('@') {
        return Err("holds a user name");
    }
    if host.is_empty() {
        return Err("has no host");
    }
    // No provider lives on 169.254.0.0/16 or fe80::/10; the metadata services of clouds do (RFC 9728 §7.7's concern).
    if ip_of(host).is_some_and(is_link_local) {
        return Err("is on a link-local address");
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if plain_http && is_loopback_host(host) => Ok(()),
        _ => Err("is not https"),
    }
}

/// Whether a host of a URL is this machine, by name or address.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    is_loopback_name(&host.to_ascii_lowercase()) || ip_of(host).is_some_and(|ip| ip.is_loopback())
}

/// Whether a URL's host is this machine.
#[must_use]
pub fn is_on_loopback(url: &str) -> bool {
    url.parse::<http::Uri>()
        .is_ok_and(|uri| uri.host().is_some_and(is_loopback_host))
}

fn ip_of(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether an address is link-local, IPv4 in IPv6 included.
#[must_use]
pub fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ISSUER: &str = "https://id.example.com/realms/acme";

    fn document() -> Value {
        json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://id.example.com/auth?a=b",
            "token_endpoint": "https://id.example.com/token",
            "jwks_uri": "https://keys.example.com/jwks",
            "end_session_endpoint": null,
            "unknown": [{"a": 1}],
        })
    }

    fn parse(document: &Value) -> Result<Metadata, String> {
        Metadata::parse(document.to_string().as_bytes(), ISSUER, false)
    }

    #[test]
    fn md_01_the_document_is_under_the_issuer_less_one_slash() {
        for (issuer, base) in [
            ("https://id.example.com", "https://id.example.com"),
            ("https://id.example.com/", "https://id.example.com"),
            ("https://id.example.com//", "https://id.example.com/"),
            ("https://id.example.com/a", "https://id.example.com/a"),
            ("https://id.example.com/a/", "https://id.example.com/a"),
            ("https://id.example.com/a/b", "https://id.example.com/a/b"),
            ("https://id.example.com:8443", "https://id.example.com:8443"),
            ("http://op.localhost:3000/x", "http://op.localhost:3000/x"),
        ] {
            assert_eq!(
                discovery_url(issuer),
                format!("{base}/.well-known/openid-configuration")
            );
        }
    }

    #[test]
    fn md_02_the_issuer_is_equal_to_the_letter() {
        assert!(parse(&document()).is_ok());
        for other in [
            json!("https://id.example.com/realms/acme/"),
            json!("https://ID.example.com/realms/acme"),
            json!("https://id.example.com:443/realms/acme"),
            json!("https://id.example.com/realms/%61cme"),
            json!("http://id.example.com/realms/acme"),
            json!([ISSUER]),
            json!(null),
        ] {
            let mut changed = document();
            changed["issuer"] = other.clone();
            assert!(parse(&changed).is_err(), "{other}");
        }
    }

    #[test]
    fn md_03_every_endpoint_is_https_and_nothing_else() {
        for name in [
            "authorization_endpoint",
            "token_endpoint",
            "jwks_uri",
            "userinfo_endpoint",
            "revocation_endpoint",
            "end_session_endpoint",
        ] {
            for wrong in [
                json!("http://id.example.com/x"),
                json!("http://localhost/x"),
                json!("ftp://id.example.com/x"),
                json!("javascript:alert(1)"),
                json!("//id.example.com/x"),
                json!("/x"),
                json!(""),
                json!("https://user:pass@id.example.com/x"),
                json!("https://user@id.example.com/x"),
                json!("https://id.example.com/x#y"),
                json!("https://169.254.169.254/latest"),
                json!("https://[fe80::1]/x"),
                json!("https://[::ffff:169.254.169.254]/x"),
                json!(7),
                json!(["https://id.example.com/x"]),
            ] {
                let mut changed = document();
                changed[name] = wrong.clone();
                assert!(parse(&changed).is_err(), "{name} {wrong}");
            }
        }
        for name in ["authorization_endpoint", "token_endpoint", "jwks_uri"] {
            let mut changed = document();
            changed.as_object_mut().unwrap().remove(name);
            assert!(parse(&changed).is_err(), "{name}");
        }
        for wrong in [&b""[..], b"[]", b"<html>", b"{}", b"null"] {
            assert!(Metadata::parse(wrong, ISSUER, false).is_err());
        }
        let twice = document().to_string().replacen('{', r#"{"issuer":"x","#, 1);
        assert!(Metadata::parse(twice.as_bytes(), ISSUER, false).is_err());
    }

    #[test]
    fn plain_http_is_for_loopback_beside_a_loopback_issuer() {
        for host in [
            "localhost",
            "op.localhost",
            "OP.localhost",
            "127.0.0.1",
            "127.0.0.2",
            "[::1]",
        ] {
            let url = format!("http://{host}:3000/token");
            assert_eq!(check_endpoint(&url, true), Ok(()), "{url}");
            assert!(check_endpoint(&url, false).is_err(), "{url}");
        }
        for host in [
            "id.example.com",
            "localhost.example.com",
            "notlocalhost",
            "10.0.0.1",
            "0.0.0.0",
        ] {
            assert!(
                check_endpoint(&format!("http://{host}/token"), true).is_err(),
                "{host}"
            );
        }
        assert!(is_on_loopback("http://op.localhost:1/x") && !is_on_loopback("https://id.example.com"));
    }

    #[test]
    fn optional_members_are_taken_where_they_make_sense() {
        let mut changed = document();
        changed["id_token_signing_alg_values_supported"] = json!(["ES256", 7, "none"]);
        changed["token_endpoint_auth_methods_supported"] = json!("client_secret_post");
        changed["authorization_response_iss_parameter_supported"] = json!("true");
        let metadata = parse(&changed).unwrap();
        assert_eq!(
            metadata.id_token_algorithms,
            Some(vec!["ES256".into(), "none".into()])
        );
        assert_eq!(metadata.client_auth_methods, None);
        assert!(!metadata.names_issuer_in_response && metadata.end_session_endpoint.is_none());
        changed["authorization_response_iss_parameter_supported"] = json!(true);
        assert!(parse(&changed).unwrap().names_issuer_in_response);
    }
}

//! The authorization request and its answer (RFC 6749 §4.1, RFC 7636, RFC 9207, `OpenID` Connect Core §3.1.2).
//!
//! Stands at a login's beginning: `bff` makes the secrets and the wishes, `provider` knows the endpoint, and the
//! browser is sent to what [`Request::url`] says.
//!
//! INVARIANT: `response_type=code` with PKCE `S256`, `state` and `nonce`, always (RFC 9700 §2.1.1): nothing here can
//! ask for less, and nothing a browser wishes for can replace or double a parameter of ours.

use crate::secret::{CodeVerifier, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oauth2::basic::BasicClient;
use oauth2::{
    AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope as OAuthScope,
};
use std::borrow::Cow;

/// The longest `login_hint` or `acr_values` that is passed on, in bytes.
const LONGEST_WISH: usize = 256;

/// What goes into the authorization URL beside what the provider's settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `prompt`.
    pub prompt: Option<String>,
    /// `login_hint`.
    pub login_hint: Option<String>,
    /// `acr_values`.
    pub acr_values: Option<String>,
    /// `max_age`, seconds.
    pub max_age: Option<u64>,
}

impl Wishes {
    /// Takes the wishes out of a login request's decoded query parameters. What is not on the list, malformed, longer
    /// than 256 bytes or there twice is no wish: it is left out, never an error.
    #[must_use]
    pub fn from_query<N: AsRef<str>, V: AsRef<str>>(parameters: &[(N, V)]) -> Self {
        let only = |name: &str| {
            let mut values = parameters.iter().filter(|(n, _)| n.as_ref() == name);
            let (_, value) = values.next()?;
            values.next().is_none().then_some(value.as_ref())
        };
        let is_short = |value: &&str| !value.is_empty() && value.len() <= LONGEST_WISH;
        Self {
            prompt: only("prompt").filter(|v| is_prompt(v)).map(String::from),
            login_hint: only("login_hint")
                .filter(is_short)
                .filter(|v| !v.chars().any(char::is_control))
                .map(String::from),
            acr_values: only("acr_values")
                .filter(is_short)
                .filter(|v| v.bytes().all(|b| matches!(b, b' '..=b'~')) && !v.trim().is_empty())
                .map(String::from),
            max_age: only("max_age")
                .filter(|v| v.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|v| v.parse().ok()),
        }
    }
}

/// Core §3.1.2.1: a list of known values; "If this parameter contains none with any other value, an error is returned".
fn is_prompt(value: &str) -> bool {
    let known = |v: &str| matches!(v, "login" | "consent" | "select_account" | "create");
    value == "none" || (value.len() <= LONGEST_WISH && value.split(' ').all(known))
}

/// The secrets of one login attempt: fresh for each, 256 random bits each, base64url (43 characters).
#[derive(Clone, Debug)]
pub struct AttemptSecrets {
    /// `state` (RFC 6749 §10.12).
    pub state: Secret,
    /// `nonce` (Core §15.5.2).
    pub nonce: Secret,
    /// `code_verifier` (RFC 7636 §4.1).
    pub code_verifier: CodeVerifier,
}

impl AttemptSecrets {
    /// Makes fresh ones from the system's randomness.
    ///
    /// # Panics
    /// If the system has no randomness to give: nothing that follows would be safe.
    #[must_use]
    pub fn fresh() -> Self {
        Self {
            state: Secret::new(random_text()),
            nonce: Secret::new(random_text()),
            code_verifier: CodeVerifier::new(random_text()),
        }
    }
}

/// RFC 7636 §4.1 recommends 32 octets, base64url: 43 characters. The same serves `state` and `nonce`.
fn random_text() -> String {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).expect("the system's randomness does not fail");
    URL_SAFE_NO_PAD.encode(*bytes)
}

/// One authorization request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The authorization endpoint; a query of its own is kept.
    pub endpoint: &'a str,
    /// `client_id`.
    pub client_id: &'a str,
    /// `redirect_uri`, as it will be named at the token endpoint again.
    pub redirect_uri: &'a str,
    /// `scope`.
    pub scopes: &'a [String],
    /// `state`, `nonce` and what `code_challenge` is made from.
    pub secrets: &'a AttemptSecrets,
    /// What the login asked for.
    pub wishes: &'a Wishes,
}

impl Request<'_> {
    /// The URL to send the browser to.
    ///
    /// # Errors
    /// A sentence, where the endpoint or the redirect URI is no URL.
    pub fn url(&self) -> Result<String, &'static str> {
        let endpoint =
            AuthUrl::new(self.endpoint.to_owned()).map_err(|_| "the authorization endpoint is not a URL")?;
        let redirect_uri =
            RedirectUrl::new(self.redirect_uri.to_owned()).map_err(|_| "the redirect URI is not a URL")?;
        let verifier = PkceCodeVerifier::new(self.secrets.code_verifier.expose().to_owned());
        let client = BasicClient::new(ClientId::new(self.client_id.to_owned())).set_auth_uri(endpoint);
        let mut request = client
            .authorize_url(|| CsrfToken::new(self.secrets.state.expose().to_owned()))
            .set_redirect_uri(Cow::Owned(redirect_uri))
            .add_scopes(self.scopes.iter().cloned().map(OAuthScope::new))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .add_extra_param("nonce", self.secrets.nonce.expose());
        let Wishes {
            prompt,
            login_hint,
            acr_values,
            max_age,
        } = self.wishes;
        for (name, value) in [
            ("prompt", prompt),
            ("login_hint", login_hint),
            ("acr_values", acr_values),
        ] {
            if let Some(value) = value {
                request = request.add_extra_param(name, value.as_str());
            }
        }
        if let Some(seconds) = max_age {
            request = request.add_extra_param("max_age", seconds.to_string());
        }
        Ok(request.url().0.into())
    }
}

/// The error code itself, where it is one that a specification names (RFC 6749 §4.1.2.1, RFC 8707 §2, Core §3.1.2.6 and
/// its extensions): only such may be repeated in a log.
#[must_use]
pub fn known_error(code: &str) -> Option<&'static str> {
    const KNOWN: [&str; 19] = [
        "invalid_request",
        "unauthorized_client",
        "access_denied",
        "unsupported_response_type",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
        "invalid_target",
        "invalid_client",
        "interaction_required",
        "login_required",
        "account_selection_required",
        "consent_required",
        "invalid_request_uri",
        "invalid_request_object",
        "request_not_supported",
        "request_uri_not_supported",
        "registration_not_supported",
        "unmet_authentication_requirements",
    ];
    KNOWN.into_iter().find(|known| *known == code)
}

/// Checks the `iss` of an authorization response. `None`: there was none.
///
/// # Errors
/// A sentence; the code must go nowhere then.
pub fn check_issuer(iss: Option<&str>, issuer: &str, is_promised: bool) -> Result<(), &'static str> {
    // RFC 9207 §2.4: "Clients MUST reject authorization responses without the iss parameter from authorization
    // servers that do support the parameter"
    let Some(iss) = iss else {
        return if is_promised {
            Err("the answer does not name its issuer, although the provider says it does")
        } else {
            Ok(())
        };
    };
    // RFC 9207 §2.4: clients "MUST compare the result to the issuer identifier of the authorization server … If the
    // value does not match the expected issuer identifier, clients MUST reject the authorization response"
    if iss != issuer {
        return Err("the answer came from another issuer");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oauth2::url::Url;
    use std::collections::HashSet;

    fn url_of(endpoint: &str, secrets: &AttemptSecrets, wishes: &Wishes) -> Url {
        let request = Request {
            endpoint,
            client_id: "app & co",
            redirect_uri: "https://app.example.com/bff/callback",
            scopes: &["openid".to_owned(), "orders.read".to_owned()],
            secrets,
            wishes,
        };
        request.url().unwrap().parse().unwrap()
    }

    #[test]
    fn az_01_every_request_has_code_pkce_state_and_nonce_once() {
        let secrets = AttemptSecrets::fresh();
        let wishes = Wishes {
            prompt: Some("login".into()),
            login_hint: Some("a&scope=admin".into()),
            acr_values: Some("gold silver".into()),
            max_age: Some(0),
        };
        let url = url_of("https://id.example.com/auth?tenant=a%26b", &secrets, &wishes);
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        let one = |name: &str| {
            let values: Vec<_> = pairs.iter().filter(|(n, _)| n == name).collect();
            assert_eq!(values.len(), 1, "{name}");
            values[0].1.clone()
        };
        for (name, value) in [
            ("tenant", "a&b"),
            ("response_type", "code"),
            ("client_id", "app & co"),
            ("redirect_uri", "https://app.example.com/bff/callback"),
            ("scope", "openid orders.read"),
            ("state", secrets.state.expose()),
            ("nonce", secrets.nonce.expose()),
            ("code_challenge_method", "S256"),
            ("prompt", "login"),
            ("login_hint", "a&scope=admin"),
            ("acr_values", "gold silver"),
            ("max_age", "0"),
        ] {
            assert_eq!(one(name), value, "{name}");
        }
        assert_eq!(pairs.len(), 13);
        assert!(!url.as_str().contains(secrets.code_verifier.expose()));
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            secrets.code_verifier.expose().as_bytes(),
        );
        assert_eq!(one("code_challenge"), URL_SAFE_NO_PAD.encode(digest));
    }

    #[test]
    fn az_02_secrets_are_fresh_and_43_characters_of_base64url() {
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            let AttemptSecrets {
                state,
                nonce,
                code_verifier,
            } = AttemptSecrets::fresh();
            for text in [state.expose(), nonce.expose(), code_verifier.expose()] {
                assert_eq!(text.len(), 43);
                assert!(
                    text.bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                );
                assert!(seen.insert(text.to_owned()));
            }
        }
    }

    #[test]
    fn az_15_only_listed_and_sane_wishes_are_passed_on() {
        let none = Wishes::default();
        for ignored in [
            ("scope", "admin"),
            ("redirect_uri", "//evil"),
            ("prompt", "none login"),
            ("prompt", "evil"),
            ("prompt", ""),
            ("max_age", "-1"),
            ("max_age", "+1"),
            ("max_age", "1.5"),
            ("max_age", ""),
            ("max_age", "99999999999999999999999"),
            ("login_hint", ""),
            ("login_hint", "a\r\nb"),
            ("acr_values", " "),
            ("acr_values", "é"),
        ] {
            assert_eq!(Wishes::from_query(&[ignored]), none, "{ignored:?}");
        }
        assert_eq!(Wishes::from_query(&[("login_hint", "a".repeat(257))]), none);
        assert_eq!(
            Wishes::from_query(&[("prompt", "login"), ("prompt", "none")]),
            none
        );
        let all = [
            ("prompt", "login consent"),
            ("login_hint", "é@x"),
            ("acr_values", "urn:a b"),
            ("max_age", "60"),
        ];
        let wishes = Wishes::from_query(&all);
        assert_eq!(wishes.prompt.as_deref(), Some("login consent"));
        assert_eq!(wishes.login_hint.as_deref(), Some("é@x"));
        assert_eq!(wishes.acr_values.as_deref(), Some("urn:a b"));
        assert_eq!(wishes.max_age, Some(60));
    }

    #[test]
    fn az_10_the_issuer_of_an_answer_is_compared_byte_for_byte() {
        let issuer = "https://id.example.com/a";
        assert!(check_issuer(Some(issuer), issuer, true).is_ok());
        assert!(check_issuer(Some(issuer), issuer, false).is_ok());
        assert!(check_issuer(None, issuer, false).is_ok());
        assert!(check_issuer(None, issuer, true).is_err());
        for other in [
            "https://id.example.com/a/",
            "https://ID.example.com/a",
            "https://id.example.com/%61",
            "",
        ] {
            assert!(check_issuer(Some(other), issuer, false).is_err(), "{other}");
        }
    }
}

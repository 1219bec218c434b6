//! Requests in which cloakroom proves who it is: code exchange, refresh, revocation.
//!
//! Stands before the token endpoint. The `oauth2` crate writes them; what comes back is read by
//! `protocol::token_response`, whose table is stricter.
//!
//! INVARIANT: exactly one client authentication method in a request (RFC 6749 §2.3).

use crate::config::ClientAuth;
use crate::protocol::metadata::Metadata;
use crate::secret::{AuthorizationCode, CodeVerifier, RefreshToken, Secret};
use http::header::AUTHORIZATION;
use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, PkceCodeVerifier, RedirectUrl,
    RequestTokenError, RevocationUrl, StandardRevocableToken, TokenUrl,
};
use std::borrow::Cow;
use std::fmt;

/// What is asked for.
pub enum Asked<'a> {
    /// Tokens for a code (RFC 6749 §4.1.3).
    Exchange {
        /// The code.
        code: &'a AuthorizationCode,
        /// The attempt's verifier.
        verifier: &'a CodeVerifier,
        /// As it was named in the authorization request.
        redirect_uri: &'a str,
    },
    /// Tokens for a refresh token (RFC 6749 §6).
    Refresh(&'a RefreshToken),
    /// The end of a token (RFC 7009 §2.1).
    Revoke(StandardRevocableToken),
}

impl Asked<'_> {
    /// For logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exchange { .. } => "code exchange",
            Self::Refresh(_) => "refresh",
            Self::Revoke(_) => "revocation",
        }
    }

    /// Writes the request.
    ///
    /// # Errors
    /// A sentence, where a URL is none.
    pub fn request(
        &self,
        endpoint: &str,
        client_id: &str,
        secret: &Secret,
        method: AuthType,
    ) -> Result<HttpRequest, &'static str> {
        let client = BasicClient::new(ClientId::new(client_id.to_owned()))
            .set_client_secret(ClientSecret::new(secret.expose().to_owned()))
            .set_auth_type(method);
        let no_url = |_| "the endpoint is not a URL";
        let token_url = || TokenUrl::new(endpoint.to_owned()).map_err(no_url);
        let written = match self {
            Self::Exchange {
                code,
                verifier,
                redirect_uri,
            } => {
                let redirect_uri = RedirectUrl::new((*redirect_uri).to_owned())
                    .map_err(|_| "the redirect URI is not a URL")?;
                client
                    .set_token_uri(token_url()?)
                    .exchange_code(oauth2::AuthorizationCode::new(code.expose().to_owned()))
                    .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose().to_owned()))
                    .set_redirect_uri(Cow::Owned(redirect_uri))
                    .request(&keep)
                    .map(drop)
                    .map_err(written_in)
            }
            Self::Refresh(token) => client
                .set_token_uri(token_url()?)
                .exchange_refresh_token(&oauth2::RefreshToken::new(token.expose().to_owned()))
                .request(&keep)
                .map(drop)
                .map_err(written_in),
            Self::Revoke(token) => {
                // The crate insists on https, which has been checked already: plain http is on loopback here.
                let https = match endpoint.strip_prefix("http://") {
                    Some(rest) => format!("https://{rest}"),
                    None => endpoint.to_owned(),
                };
                client
                    .set_revocation_url(RevocationUrl::new(https).map_err(no_url)?)
                    .revoke_token(token.clone())
                    .map_err(|_| "the revocation endpoint is not https")?
                    .request(&keep)
                    .map_err(written_in)
            }
        };
        let Err(Some(mut request)) = written else {
            return Err("the request could not be written");
        };
        *request.uri_mut() = endpoint.parse().map_err(|_| "the endpoint is not a URL")?;
        if let Some(credentials) = request.headers_mut().get_mut(AUTHORIZATION) {
            credentials.set_sensitive(true);
        }
        Ok(request)
    }
}

/// The crate sends through a client of ours; this one keeps what it was given instead.
#[derive(thiserror::Error)]
#[error("kept")]
struct Kept(Box<HttpRequest>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(***)")
    }
}

fn keep(request: HttpRequest) -> Result<HttpResponse, Kept> {
    Err(Kept(Box::new(request)))
}

fn written_in<T: oauth2::ErrorResponse>(error: RequestTokenError<Kept, T>) -> Option<HttpRequest> {
    match error {
        RequestTokenError::Request(Kept(request)) => Some(*request),
        _ => None,
    }
}

/// The method to prove with: the configured one, or what the provider offers, Basic first (Core §9: the default).
pub fn method(configured: ClientAuth, metadata: &Metadata) -> AuthType {
    match configured {
        ClientAuth::ClientSecretBasic => AuthType::BasicAuth,
        ClientAuth::ClientSecretPost => AuthType::RequestBody,
        ClientAuth::Auto => {
            let offers = |method: &str| {
                let offered = metadata.client_auth_methods.as_ref();
                offered.is_some_and(|offered| offered.iter().any(|one| one == method))
            };
            if offers("client_secret_post") && !offers("client_secret_basic") {
                AuthType::RequestBody
            } else {
                AuthType::BasicAuth
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use oauth2::url::form_urlencoded;

    const ENDPOINT: &str = "https://id.example.com/token?tenant=a";

    fn exchange(method: AuthType) -> HttpRequest {
        let asked = Asked::Exchange {
            code: &AuthorizationCode::new("c&o=d+e"),
            verifier: &CodeVerifier::new("v".repeat(43)),
            redirect_uri: "https://app.example.com/bff/callback",
        };
        asked
            .request(ENDPOINT, "app:1", &Secret::new("a:b%c+d é"), method)
            .unwrap()
    }

    fn pairs(request: &HttpRequest) -> Vec<(String, String)> {
        form_urlencoded::parse(request.body()).into_owned().collect()
    }

    #[test]
    fn ca_02_basic_is_form_urlencoded_before_base64() {
        let request = exchange(AuthType::BasicAuth);
        let header = request.headers()[AUTHORIZATION].to_str().unwrap();
        let decoded = STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(
            String::from_utf8(decoded).unwrap(),
            "app%3A1:a%3Ab%25c%2Bd+%C3%A9"
        );
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
        assert!(
            !pairs(&request)
                .iter()
                .any(|(name, _)| name.starts_with("client_"))
        );
        assert_eq!(request.uri(), ENDPOINT);
        assert_eq!(request.method(), "POST");
    }

    #[test]
    fn ca_02_there_is_exactly_one_method_in_a_request() {
        let request = exchange(AuthType::RequestBody);
        assert!(!request.headers().contains_key(AUTHORIZATION));
        let mut sent = pairs(&request);
        sent.sort();
        let wanted = [
            ("client_id", "app:1"),
            ("client_secret", "a:b%c+d é"),
            ("code", "c&o=d+e"),
            ("code_verifier", &"v".repeat(43)),
            ("grant_type", "authorization_code"),
            ("redirect_uri", "https://app.example.com/bff/callback"),
        ];
        assert_eq!(
            sent,
            wanted.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn refresh_and_revocation_name_their_token() {
        let secret = Secret::new("s");
        let refresh = RefreshToken::new("r");
        let request = Asked::Refresh(&refresh)
            .request(ENDPOINT, "app", &secret, AuthType::BasicAuth)
            .unwrap();
        let mut sent = pairs(&request);
        sent.sort();
        assert_eq!(
            sent,
            [("grant_type", "refresh_token"), ("refresh_token", "r")].map(|(n, v)| (n.into(), v.into()))
        );
        let token = StandardRevocableToken::RefreshToken(oauth2::RefreshToken::new("r".into()));
        let endpoint = "http://op.localhost:1/revoke";
        let request = Asked::Revoke(token)
            .request(endpoint, "app", &secret, AuthType::BasicAuth)
            .unwrap();
        assert_eq!(request.uri(), endpoint);
        let mut sent = pairs(&request);
        sent.sort();
        assert_eq!(
            sent,
            [("token", "r"), ("token_type_hint", "refresh_token")].map(|(n, v)| (n.into(), v.into()))
        );
    }

    #[test]
    fn ca_01_the_method_is_the_configured_one_or_what_is_offered() {
        let offered = |methods: Option<&[&str]>| Metadata {
            client_auth_methods: methods.map(|methods| methods.iter().map(|m| (*m).to_owned()).collect()),
            ..Metadata::default()
        };
        let is_post =
            |configured, methods| matches!(method(configured, &offered(methods)), AuthType::RequestBody);
        assert!(!is_post(ClientAuth::Auto, None));
        assert!(!is_post(ClientAuth::Auto, Some(&[])));
        assert!(!is_post(
            ClientAuth::Auto,
            Some(&["client_secret_post", "client_secret_basic"])
        ));
        assert!(!is_post(ClientAuth::Auto, Some(&["private_key_jwt"])));
        assert!(is_post(
            ClientAuth::Auto,
            Some(&["private_key_jwt", "client_secret_post"])
        ));
        assert!(is_post(
            ClientAuth::ClientSecretPost,
            Some(&["client_secret_basic"])
        ));
        assert!(!is_post(
            ClientAuth::ClientSecretBasic,
            Some(&["client_secret_post"])
        ));
    }
}

//! The demo's embedded `OpenID` Provider: small, but it keeps the rules.
//!
//! It listens on a port of its own, as `http://127.0.0.1:PORT`, so that browsers take it for another site than the
//! app on `localhost`. One client, four invented people, no passwords: whoever opens the form picks who to be.
//!
//! INVARIANT: loopback only, everything in memory, nothing of it outlives the process.
//!
//! Sources: `OpenID` Connect Core and Discovery, RFC 6749, 7009, 7636, 9068, 9207, RP-Initiated Logout,
//! Back-Channel Logout.

mod authorize;
mod keys;
mod page;
mod request;
mod sign_out;
mod state;
mod token;

#[cfg(test)]
mod tests;

use super::form::Form;
use super::server::{self, Answer};
use crate::clock::Clock;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use keys::{Keys, Purpose};
use serde_json::{Map, Value, json};
use state::State;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long an access token lives: short, so that one can watch it being refreshed.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(30);
/// How long an ID token is good for.
const ID_LIFETIME: Duration = Duration::from_mins(5);
/// Who access tokens are for (RFC 9068 §2.2).
const AUDIENCE: &str = "cloakroom-demo-api";

/// The provider, with its one client.
pub struct Provider {
    issuer: String,
    client_id: String,
    client_secret_hash: String,
    app_origin: String,
    redirect_uri: String,
    post_logout_redirect_uri: String,
    backchannel_logout: (SocketAddr, String),
    keys: Keys,
    clock: Clock,
    state: Mutex<State>,
}

/// The provider's one client, as it is registered.
pub struct Registration {
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`, of which a hash is kept.
    pub client_secret: String,
    /// The origin of the app; the URIs below begin with it.
    pub origin: String,
    /// Where the app listens.
    pub address: SocketAddr,
}

impl Provider {
    /// A provider that calls itself `issuer`, an `http` origin.
    ///
    /// # Errors
    /// A sentence, where no key could be made.
    pub fn new(issuer: String, client: &Registration, clock: Clock) -> Result<Self, String> {
        Ok(Self {
            issuer,
            client_id: client.client_id.clone(),
            client_secret_hash: keys::hash(&client.client_secret),
            app_origin: client.origin.clone(),
            redirect_uri: format!("{}/bff/callback", client.origin),
            post_logout_redirect_uri: format!("{}/", client.origin),
            backchannel_logout: (
                client.address,
                format!("{}/bff/backchannel-logout", client.origin),
            ),
            keys: Keys::generate()?,
            clock,
            state: Mutex::new(State::default()),
        })
    }

    /// The origin of the app.
    #[must_use]
    pub fn app_origin(&self) -> &str {
        &self.app_origin
    }

    /// The claims of an access token that is good here and now, else why not.
    ///
    /// # Errors
    /// A sentence for `error_description` (RFC 6750 §3).
    pub fn check_access_token(&self, headers: &HeaderMap) -> Result<Map<String, Value>, &'static str> {
        let token = bearer(headers).ok_or("no bearer token")?;
        let claims = self
            .keys
            .verify(Purpose::Access, token)
            .ok_or("not a token of our provider")?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("iss") != self.issuer || text("aud") != AUDIENCE {
            return Err("the token is for somebody else");
        }
        if claims.get("exp").and_then(Value::as_u64).unwrap_or(0) <= self.clock.now().as_secs() {
            return Err("the token has expired");
        }
        if self.state().revoked.find(text("jti")).is_some() {
            return Err("the token was revoked");
        }
        Ok(claims)
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Answer {
        let authority = self.issuer.trim_start_matches("http://");
        if !server::is_for(request.headers(), authority) {
            return server::words(
                StatusCode::MISDIRECTED_REQUEST,
                "this is not the provider's name\n",
            );
        }
        let get = [Method::GET, Method::HEAD].contains(request.method());
        let post = request.method() == Method::POST;
        let path = request.uri().path().to_owned();
        let headers = request.headers().clone();
        match path.as_str() {
            "/.well-known/openid-configuration" if get => server::json(StatusCode::OK, &self.metadata()),
            "/jwks" if get => server::json(StatusCode::OK, self.keys.jwks()),
            "/" if get => page::account(self.signed_in(&headers)),
            "/provider.css" if get => page::style(),
            // RFC 6750 §2 and Core §5.3.1: GET and POST, with the token in the header.
            "/userinfo" if get || post => self.userinfo(&headers),
            "/authorize" | "/end-session" if get => match Form::parse(request.uri().query().unwrap_or("")) {
                Some(form) if path == "/authorize" => self.authorize(&headers, &form),
                Some(form) => self.end_session(&headers, &form),
                None => page::refusal(StatusCode::BAD_REQUEST, "The address holds a malformed question."),
            },
            "/authorize" | "/end-session" | "/sign-in" | "/sign-out" | "/token" | "/revoke" if post => {
                let form = match server::read_form(request).await {
                    Ok(form) => form,
                    Err(answer) => return answer,
                };
                match path.as_str() {
                    "/authorize" => self.authorize(&headers, &form),
                    "/end-session" => self.end_session(&headers, &form),
                    "/sign-in" => self.sign_in(&headers, &form),
                    "/sign-out" => self.sign_out(&headers).await,
                    "/token" => self.token(&headers, &form),
                    _ => self.revoke(&headers, &form),
                }
            }
            "/" | "/jwks" | "/provider.css" | "/.well-known/openid-configuration" => {
                server::method_not_allowed("GET, HEAD")
            }
            "/sign-in" | "/sign-out" | "/token" | "/revoke" => server::method_not_allowed("POST"),
            "/authorize" | "/end-session" | "/userinfo" => server::method_not_allowed("GET, HEAD, POST"),
            _ => page::refusal(StatusCode::NOT_FOUND, "There is no such page here."),
        }
    }

    fn userinfo(&self, headers: &HeaderMap) -> Answer {
        let claims = match self.check_access_token(headers) {
            Ok(claims) => claims,
            Err(why) => return unauthorized(why),
        };
        let person = claims
            .get("sub")
            .and_then(Value::as_str)
            .and_then(super::people::find);
        let Some(person) = person else {
            return unauthorized("nobody of that name has an account");
        };
        let mut answer = json!({
            "sub": person.sub, "name": person.name, "preferred_username": person.sub,
            "groups": person.groups, "roles": person.roles,
        });
        let scope = request::words(claims.get("scope").and_then(Value::as_str));
        if scope.iter().any(|word| word == "email") {
            answer["email"] = json!(person.email);
            answer["email_verified"] = json!(true);
        }
        server::json(StatusCode::OK, &answer)
    }

    /// The discovery document (Discovery §3).
    fn metadata(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "jwks_uri": at("/jwks"),
            "userinfo_endpoint": at("/userinfo"),
            "revocation_endpoint": at("/revoke"),
            "end_session_endpoint": at("/end-session"),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": request::SCOPES,
            "claims_supported": ["sub", "name", "preferred_username", "email", "email_verified", "groups", "roles",
                "auth_time", "acr", "sid"],
            "acr_values_supported": ["0"],
            "prompt_values_supported": ["none", "login", "consent", "select_account"],
            "authorization_response_iss_parameter_supported": true,
            "backchannel_logout_supported": true,
            "backchannel_logout_session_supported": true,
            "request_parameter_supported": false,
            "request_uri_parameter_supported": false,
            "claims_parameter_supported": false,
        })
    }

    /// What is remembered. Never held across an `await`.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token of the only `Authorization: Bearer` (RFC 6750 §2.1).
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    let (scheme, token) = line.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start_matches(' '))
}

/// 401 (RFC 6750 §3).
#[must_use]
pub fn unauthorized(why: &'static str) -> Answer {
    let mut answer = server::json(
        StatusCode::UNAUTHORIZED,
        &json!({"error": "invalid_token", "error_description": why}),
    );
    // RFC 6750 §3.1: a request "lacks any authentication information" gets the scheme alone.
    let challenge = http::HeaderValue::from_static("Bearer error=\"invalid_token\"");
    answer
        .headers_mut()
        .insert(http::header::WWW_AUTHENTICATE, challenge);
    answer
}

/// Random bytes.
///
/// # Panics
/// Where the system has no randomness: nothing of this provider could be trusted then.
#[must_use]
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    bytes
}

//! The token and revocation endpoints (RFC 6749 §4.1.3, §5, §6; RFC 7636 §4.6; RFC 7009).
//!
//! INVARIANT: a code is exchanged once; a second try ends the grant that the first one made (RFC 6749 §4.1.2).
//! INVARIANT: a refresh token is good once; a second try ends its whole family (RFC 9700 §4.14.2).

use super::keys::{Purpose, half_hash, hash, unguessable};
use super::request::words;
use super::state::{Grant, SignIn, State};
use super::{ACCESS_LIFETIME, AUDIENCE, ID_LIFETIME, Provider};
use crate::demo::form::{Form, decode};
use crate::demo::people;
use crate::demo::server::{self, Answer};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

/// An error of the token endpoint: its code (RFC 6749 §5.2).
type Refusal = &'static str;

impl Provider {
    /// The token endpoint.
    #[must_use]
    pub fn token(&self, headers: &HeaderMap, form: &Form) -> Answer {
        let answer = self
            .authenticate_client(headers, form)
            .and_then(|()| match form.value("grant_type") {
                Some("authorization_code") => self.exchange_code(form),
                Some("refresh_token") => self.exchange_refresh_token(form),
                Some(_) => Err("unsupported_grant_type"),
                None => Err("invalid_request"),
            });
        match answer {
            Ok(tokens) => server::json(StatusCode::OK, &tokens),
            Err(error) => refuse(error),
        }
    }

    /// The revocation endpoint.
    #[must_use]
    pub fn revoke(&self, headers: &HeaderMap, form: &Form) -> Answer {
        if let Err(error) = self.authenticate_client(headers, form) {
            return refuse(error);
        }
        let Some(token) = form.value("token") else {
            return refuse("invalid_request");
        };
        let mut state = self.state();
        if let Some(claims) = self.keys.verify(Purpose::Access, token) {
            if let Some(jti) = claims.get("jti").and_then(Value::as_str) {
                state.revoked.insert(jti.to_owned(), ());
            }
        } else if let Some((id, _)) = token.split_once('.') {
            // RFC 7009 §2.1: revoking the refresh token "SHOULD also invalidate all access tokens" of its grant.
            state.end_grant(id);
        }
        // RFC 7009 §2.2: "invalid tokens do not cause an error response".
        server::words(StatusCode::OK, "")
    }

    /// RFC 6749 §2.3: "The client MUST NOT use more than one authentication method in each request."
    fn authenticate_client(&self, headers: &HeaderMap, form: &Form) -> Result<(), Refusal> {
        let posted = form.value("client_secret");
        let (id, secret) = match (headers.get(AUTHORIZATION), posted) {
            (Some(_), Some(_)) => return Err("invalid_request"),
            (Some(line), None) => {
                let (id, secret) = basic(line).ok_or("invalid_client")?;
                if form.value("client_id").is_some_and(|posted| posted != id) {
                    return Err("invalid_request");
                }
                (id, secret)
            }
            (None, Some(secret)) => (
                form.value("client_id").ok_or("invalid_client")?.to_owned(),
                secret.to_owned(),
            ),
            (None, None) => return Err("invalid_client"),
        };
        let is_secret =
            verify_slices_are_equal(hash(&secret).as_bytes(), self.client_secret_hash.as_bytes()).is_ok();
        if id == self.client_id && is_secret {
            Ok(())
        } else {
            Err("invalid_client")
        }
    }

    fn exchange_code(&self, form: &Form) -> Result<Value, Refusal> {
        let key = hash(form.value("code").ok_or("invalid_request")?);
        let verifier = form.value("code_verifier").ok_or("invalid_request")?;
        let now = self.clock.now();
        let mut state = self.state();
        let code = state.codes.find_mut(&key).ok_or("invalid_grant")?;
        // RFC 6749 §4.1.2: "If an authorization code is used more than once, the authorization server MUST deny the
        // request and SHOULD revoke (when possible) all tokens previously issued based on that authorization code."
        if let Some(grant) = code.grant.clone() {
            state.end_grant(&grant);
            return Err("invalid_grant");
        }
        let grant = unguessable();
        code.grant = Some(grant.clone());
        let code = code.clone();
        // RFC 6749 §4.1.3: "if the redirect_uri parameter was included in the initial authorization request …
        // ensure that their values are identical".
        let redirect_matches = form.value("redirect_uri") == Some(&code.redirect_uri);
        // RFC 7636 §4.6: "If the values are not equal, an error response … MUST be returned."
        if now > code.expires || !redirect_matches || hash(verifier) != code.challenge {
            return Err("invalid_grant");
        }
        self.issue(
            &mut state,
            grant,
            &code.sign_in,
            &code.scope,
            &code.scope,
            code.nonce.as_deref(),
        )
        .ok_or("server_error")
    }

    fn exchange_refresh_token(&self, form: &Form) -> Result<Value, Refusal> {
        let token = form.value("refresh_token").ok_or("invalid_request")?;
        let (id, _) = token.split_once('.').ok_or("invalid_grant")?;
        let mut state = self.state();
        let grant = state.grants.find(id).ok_or("invalid_grant")?.clone();
        if grant.refresh_hash != Some(hash(token)) {
            // Whoever knows the family's name held one of its tokens: it is an old one, and somebody has two.
            state.end_grant(id);
            return Err("invalid_grant");
        }
        // RFC 6749 §6: "The requested scope MUST NOT include any scope not originally granted".
        let scope = match form.value("scope") {
            None => grant.scope.clone(),
            asked => words(asked),
        };
        if scope.iter().any(|word| !grant.scope.contains(word)) {
            return Err("invalid_scope");
        }
        self.issue(
            &mut state,
            id.to_owned(),
            &grant.sign_in,
            &grant.scope,
            &scope,
            None,
        )
        .ok_or("server_error")
    }

    /// Makes tokens, and the grant that stands behind them.
    fn issue(
        &self,
        state: &mut State,
        grant: String,
        sign_in: &SignIn,
        granted: &[String],
        scope: &[String],
        nonce: Option<&str>,
    ) -> Option<Value> {
        let person = people::find(sign_in.sub)?;
        let now = self.clock.now();
        let jti = unguessable();
        let access_token = self.keys.sign(
            Purpose::Access,
            &json!({
                "iss": self.issuer, "sub": person.sub, "aud": AUDIENCE, "client_id": self.client_id, "jti": jti,
                "iat": now.as_secs(), "exp": now.plus(ACCESS_LIFETIME).as_secs(), "scope": scope.join(" "),
                "name": person.name, "groups": person.groups, "roles": person.roles,
            }),
        )?;
        let mut id_token = json!({
            "iss": self.issuer, "sub": person.sub, "aud": self.client_id, "sid": sign_in.sid, "acr": "0",
            "iat": now.as_secs(), "exp": now.plus(ID_LIFETIME).as_secs(), "auth_time": sign_in.at.as_secs(),
            "at_hash": half_hash(&access_token), "name": person.name, "preferred_username": person.sub,
            "groups": person.groups, "roles": person.roles,
        });
        if scope.iter().any(|word| word == "email") {
            id_token["email"] = json!(person.email);
            id_token["email_verified"] = json!(true);
        }
        // Core §12.2: a refreshed ID token "SHOULD NOT have a nonce Claim".
        if let Some(nonce) = nonce {
            id_token["nonce"] = json!(nonce);
        }
        let id_token = self.keys.sign(Purpose::Id, &id_token)?;
        let mut tokens = json!({
            "access_token": access_token, "token_type": "Bearer", "expires_in": ACCESS_LIFETIME.as_secs(),
            "scope": scope.join(" "), "id_token": id_token,
        });
        let refresh_hash = granted.iter().any(|word| word == "offline_access").then(|| {
            let refresh_token = format!("{grant}.{}", unguessable());
            let kept = hash(&refresh_token);
            tokens["refresh_token"] = json!(refresh_token);
            kept
        });
        let value = Grant {
            sign_in: sign_in.clone(),
            scope: granted.to_vec(),
            refresh_hash,
            last_jti: jti,
        };
        state.grants.insert(grant, value);
        Some(tokens)
    }
}

fn refuse(error: Refusal) -> Answer {
    let status = match error {
        "invalid_client" => StatusCode::UNAUTHORIZED,
        "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut answer = server::json(status, &json!({ "error": error }));
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6749 §5.2: "the authorization server MUST … include the "WWW-Authenticate" response header field".
        let scheme = HeaderValue::from_static("Basic realm=\"cloakroom demo provider\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    answer
}

/// Name and secret out of `Basic` (RFC 6749 §2.3.1: both are form-urlencoded first).
fn basic(line: &HeaderValue) -> Option<(String, String)> {
    let (scheme, credentials) = line.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (id, secret) = credentials.split_once(':')?;
    Some((decode(id)?, decode(secret)?))
}

//! Signing out: because the app asks (RP-Initiated Logout §2), or at the provider itself, which then tells the app
//! (Back-Channel Logout §2.5).

use super::keys::{Purpose, unguessable};
use super::state::SignIn;
use super::{Provider, page};
use crate::demo::form::{Form, encode};
use crate::demo::server::{self, Answer};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, StatusCode};
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use std::time::Duration;

/// How long a logout token is good for (Back-Channel Logout §4: "preferably at most two minutes").
const LOGOUT_TOKEN_LIFETIME: Duration = Duration::from_mins(2);
/// How long the app may take to answer it.
const PATIENCE: Duration = Duration::from_secs(3);

impl Provider {
    /// The end-session endpoint. With an ID token of ours it signs out at once; else it asks.
    #[must_use]
    pub fn end_session(&self, headers: &HeaderMap, form: &Form) -> Answer {
        // RP-Initiated Logout §2: an expired ID token is good enough as a hint.
        let hint = form
            .value("id_token_hint")
            .and_then(|token| self.keys.verify(Purpose::Id, token));
        let text = |name: &str| {
            hint.as_ref()
                .and_then(|claims| claims.get(name))
                .and_then(Value::as_str)
        };
        let is_ours = text("iss") == Some(&self.issuer) && text("aud") == Some(&self.client_id);
        // §2: "the OP MUST verify that the Client Identifier matches the one used when issuing the ID Token".
        let is_client = form.value("client_id").is_none_or(|id| id == self.client_id);
        if !is_ours || !is_client {
            // §2: "the OP MUST ask the End-User whether to log out" where no hint vouches for the request.
            return page::account(self.signed_in(headers));
        }
        if self
            .signed_in(headers)
            .is_some_and(|sign_in| text("sid") == Some(&sign_in.sid))
        {
            self.forget_sign_in(headers);
        }
        match form.value("post_logout_redirect_uri") {
            // §3: "MUST NOT perform post-logout redirection if the … value supplied does not exactly match".
            Some(uri) if uri == self.post_logout_redirect_uri => {
                let state = form
                    .value("state")
                    .map(|state| format!("?state={}", encode(state)));
                server::see_other(&format!("{uri}{}", state.unwrap_or_default()))
            }
            _ => page::signed_out(None),
        }
    }

    /// The button on the provider's own page: signs out here, and tells the app behind the browser's back.
    pub async fn sign_out(&self, headers: &HeaderMap) -> Answer {
        if !server::is_from_own_page(headers, &self.issuer) {
            return page::refusal(
                StatusCode::FORBIDDEN,
                "This form was sent by another page than ours.",
            );
        }
        let Some(sign_in) = self.signed_in(headers) else {
            return page::signed_out(None);
        };
        self.forget_sign_in(headers);
        let told = tokio::time::timeout(PATIENCE, self.tell_app(&sign_in)).await;
        page::signed_out(Some(matches!(told, Ok(Some(StatusCode::OK)))))
    }

    /// Posts a logout token to the app; its answer's status, where there was one.
    async fn tell_app(&self, sign_in: &SignIn) -> Option<StatusCode> {
        let now = self.clock.now();
        // Back-Channel Logout §2.4; "nonce MUST NOT be present".
        let token = self.keys.sign(
            Purpose::Logout,
            &json!({
                "iss": self.issuer, "aud": self.client_id, "sub": sign_in.sub, "sid": sign_in.sid,
                "iat": now.as_secs(), "exp": now.plus(LOGOUT_TOKEN_LIFETIME).as_secs(), "jti": unguessable(),
                "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
            }),
        )?;
        let (address, uri) = &self.backchannel_logout;
        let uri: http::Uri = uri.parse().ok()?;
        let request = Request::post(uri.path())
            .header(HOST, uri.authority()?.as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(format!("logout_token={}", encode(&token)))))
            .ok()?;
        server::send(*address, request)
            .await
            .ok()
            .map(|answer| answer.status())
    }
}

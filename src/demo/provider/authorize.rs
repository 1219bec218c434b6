//! The authorization endpoint and the sign-in form behind it (RFC 6749 §4.1, Core §3.1.2).
//!
//! `GET` or `POST /authorize` shows the form at once, with those who can sign in as buttons, whoever is signed in
//! already first; `prompt=none` alone answers without asking. The form carries the request in hidden fields, so an
//! unfinished login costs the provider nothing; `POST /sign-in` reads that request anew, as strictly as the first time.

use super::Provider;
use super::keys::{hash, unguessable};
use super::page;
use super::request::{AuthorizationRequest, Refusal};
use super::state::{Code, SignIn};
use crate::demo::form::{Form, encode};
use crate::demo::people::{self, PEOPLE, Person};
use crate::demo::server::{self, Answer};
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::time::Duration;

/// The provider's own cookie. Without `Secure`: this provider speaks plain http on 127.0.0.1 only.
const COOKIE: &str = "cloakroom_demo_provider";
/// How long a sign-in is remembered.
const SIGN_IN_LIFETIME: Duration = Duration::from_hours(8);
/// How long a code may be exchanged (RFC 6749 §4.1.2: at most ten minutes).
const CODE_LIFETIME: Duration = Duration::from_mins(1);

impl Provider {
    /// Who is signed in with this browser.
    #[must_use]
    pub fn signed_in(&self, headers: &HeaderMap) -> Option<SignIn> {
        let cookie = server::cookie(headers, COOKIE)?;
        let sign_in = self.state().sign_ins.find(&hash(cookie)).cloned()?;
        (self.clock.now().since(sign_in.at) < SIGN_IN_LIFETIME).then_some(sign_in)
    }

    /// Forgets who is signed in with this browser.
    pub fn forget_sign_in(&self, headers: &HeaderMap) {
        if let Some(cookie) = server::cookie(headers, COOKIE) {
            self.state().sign_ins.remove(&hash(cookie));
        }
    }

    /// The authorization endpoint.
    #[must_use]
    pub fn authorize(&self, headers: &HeaderMap, form: &Form) -> Answer {
        let request = match AuthorizationRequest::read(self, form) {
            Ok(request) => request,
            Err(refusal) => return refuse(&refusal),
        };
        let usable = self.usable(&request, headers);
        if request.prompts("none") {
            // Core §3.1.2.6: login_required where the End-User would have to be asked.
            return match usable {
                Some(sign_in) => self.send_back_with_code(&request, sign_in),
                None => self.send_back_with_error(&request, "login_required", "nobody is signed in here"),
            };
        }
        let people = arrange(usable.as_ref(), request.login_hint.as_deref());
        page::sign_in(self, &request, &people, usable.map(|sign_in| sign_in.sub))
    }

    /// The sign-in form, sent.
    #[must_use]
    pub fn sign_in(&self, headers: &HeaderMap, form: &Form) -> Answer {
        // Login CSRF: a foreign page must not sign somebody in as a person of its choice.
        if !server::is_from_own_page(headers, &self.issuer) {
            return page::refusal(
                StatusCode::FORBIDDEN,
                "This form was sent by another page than ours.",
            );
        }
        let request = match AuthorizationRequest::read(self, form) {
            Ok(request) => request,
            Err(refusal) => return refuse(&refusal),
        };
        if form.value("cancel").is_some() {
            return self.send_back_with_error(&request, "access_denied", "the sign-in was cancelled");
        }
        let usable = self.usable(&request, headers);
        // A form sent without any button (by the Enter key) means its first one (HTML, implicit submission).
        let first = arrange(usable.as_ref(), request.login_hint.as_deref())[0];
        let Some(person) = form.value("person").map_or(Some(first), people::find) else {
            return page::refusal(
                StatusCode::BAD_REQUEST,
                "Nobody of that name has an account here.",
            );
        };
        if let Some(sign_in) = usable.filter(|sign_in| sign_in.sub == person.sub) {
            return self.send_back_with_code(&request, sign_in);
        }
        self.forget_sign_in(headers);
        let cookie = unguessable();
        let sign_in = SignIn {
            sub: person.sub,
            at: self.clock.now(),
            sid: unguessable(),
        };
        self.state().sign_ins.insert(hash(&cookie), sign_in.clone());
        let mut answer = self.send_back_with_code(&request, sign_in);
        let line = format!("{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Lax");
        if let Ok(line) = HeaderValue::from_str(&line) {
            answer.headers_mut().insert(SET_COOKIE, line);
        }
        answer
    }

    /// The sign-in that may answer this request without asking again.
    fn usable(&self, request: &AuthorizationRequest, headers: &HeaderMap) -> Option<SignIn> {
        if request.prompts("login") {
            return None;
        }
        let sign_in = self.signed_in(headers)?;
        // Core §3.1.2.1: "If the elapsed time is greater than this value, the OP MUST attempt to actively
        // re-authenticate the End-User."
        let age = self.clock.now().since(sign_in.at).as_secs();
        request.max_age.is_none_or(|most| age <= most).then_some(sign_in)
    }

    fn send_back_with_code(&self, request: &AuthorizationRequest, sign_in: SignIn) -> Answer {
        let code = unguessable();
        let value = Code {
            sign_in,
            challenge: request.code_challenge.clone(),
            redirect_uri: request.redirect_uri.clone(),
            nonce: request.nonce.clone(),
            scope: request.scope.clone(),
            expires: self.clock.now().plus(CODE_LIFETIME),
            grant: None,
        };
        self.state().codes.insert(hash(&code), value);
        let answer = format!("code={}", encode(&code));
        server::see_other(&self.answer_url(&request.redirect_uri, request.state.as_deref(), &answer))
    }

    fn send_back_with_error(&self, request: &AuthorizationRequest, error: &str, why: &str) -> Answer {
        server::see_other(&self.error_url(&request.redirect_uri, request.state.as_deref(), error, why))
    }
}

fn refuse(refusal: &Refusal) -> Answer {
    match refusal {
        Refusal::Page(why) => page::refusal(StatusCode::BAD_REQUEST, why),
        Refusal::Back(url) => server::see_other(url),
    }
}

/// The people in the form's order: who is signed in first, else who the hint names, else as they stand.
fn arrange(signed_in: Option<&SignIn>, hint: Option<&str>) -> Vec<&'static Person> {
    let mut people: Vec<&'static Person> = PEOPLE.iter().collect();
    people.sort_by_key(|person| {
        let is_signed_in = signed_in.is_some_and(|sign_in| sign_in.sub == person.sub);
        let is_hinted = hint.is_some_and(|hint| [person.sub, person.email].contains(&hint));
        (!is_signed_in, !is_hinted)
    });
    people
}

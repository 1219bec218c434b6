//! The embedded provider's pages: the sign-in form, who is signed in, signed out, refused. No script on any of them.

use super::Provider;
use super::request::AuthorizationRequest;
use super::state::SignIn;
use crate::demo::assets::escape;
use crate::demo::people::{self, Person};
use crate::demo::server::{self, Answer};
use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};
use std::fmt::Write;

/// The style sheet of all of them.
#[must_use]
pub fn style() -> Answer {
    server::content(
        StatusCode::OK,
        "text/css; charset=utf-8",
        include_str!("../spa/provider.css"),
    )
}

/// The sign-in form: a button for each person, and a way out.
#[must_use]
pub fn sign_in(
    provider: &Provider,
    request: &AuthorizationRequest,
    people: &[&Person],
    signed_in: Option<&str>,
) -> Answer {
    let mut form = String::from("<form method=\"post\" action=\"/sign-in\">\n");
    for (name, value) in &request.parameters {
        let (name, value) = (escape(name), escape(value));
        let _ = writeln!(form, "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">");
    }
    form.push_str("<ul class=\"people\">\n");
    for (place, person) in people.iter().enumerate() {
        let greeting = if signed_in == Some(person.sub) {
            "Continue as "
        } else {
            ""
        };
        let autofocus = if place == 0 { " autofocus" } else { "" };
        let _ = writeln!(
            form,
            "<li><button class=\"person\" name=\"person\" value=\"{sub}\"{autofocus}>\
             <span class=\"tag\" aria-hidden=\"true\">{initial}</span>\
             <span class=\"who\"><strong>{greeting}{name}</strong> <span>{about}</span></span></button></li>",
            sub = person.sub,
            initial = &person.name[..1],
            name = person.name,
            about = person.about,
        );
    }
    form.push_str(
        "</ul>\n<button class=\"quiet\" name=\"cancel\" value=\"yes\">Cancel and go back</button>\n</form>",
    );
    let body = format!(
        "<h1>Who are you today?</h1>\n\
         <p class=\"lead\">The app at <strong>{app}</strong> asks you to sign in. These people are invented, so there is \
         no password: pick one.</p>\n{form}",
        app = escape(provider.app_origin()),
    );
    // Browsers hold the redirect that answers a form to form-action as well, so the app's origin belongs there.
    page(StatusCode::OK, "Sign in", &body, provider.app_origin())
}

/// Who is signed in here, with a button to sign out everywhere.
#[must_use]
pub fn account(signed_in: Option<SignIn>) -> Answer {
    let Some(person) = signed_in.and_then(|sign_in| people::find(sign_in.sub)) else {
        let body =
            "<h1>Nobody is signed in</h1>\n<p class=\"lead\">Begin at the app: it will send you here.</p>";
        return page(StatusCode::OK, "Your account", body, "");
    };
    let body = format!(
        "<h1>You are {name}</h1>\n<p class=\"lead\">{about} Sign out here, and the provider tells the app behind your \
         browser’s back: its session ends at once, open streams and all.</p>\n\
         <form method=\"post\" action=\"/sign-out\"><button class=\"strong\">Sign out everywhere</button></form>",
        name = person.name,
        about = person.about,
    );
    page(StatusCode::OK, "Your account", &body, "")
}

/// Signed out; `told`: whether the app took note, where it was told.
#[must_use]
pub fn signed_out(told: Option<bool>) -> Answer {
    let what = match told {
        None => "You are signed out at the provider.",
        Some(true) => "You are signed out at the provider, and the app has ended its session.",
        Some(false) => "You are signed out at the provider, but the app did not take note of it.",
    };
    let body = format!("<h1>Signed out</h1>\n<p class=\"lead\">{what} You may close this tab.</p>");
    page(StatusCode::OK, "Signed out", &body, "")
}

/// A refusal. `why` is ours: nothing that was sent is shown.
#[must_use]
pub fn refusal(status: StatusCode, why: &'static str) -> Answer {
    let body = format!("<h1>This does not work</h1>\n<p class=\"lead\">{why}</p>");
    page(status, "Refused", &body, "")
}

fn page(status: StatusCode, title: &str, body: &str, form_target: &str) -> Answer {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title} · Front desk</title>\n<link rel=\"stylesheet\" href=\"/provider.css\">\n</head>\n<body>\n\
         <main>\n<p class=\"sign\">Front desk <span>the demo’s OpenID Provider</span></p>\n{body}\n</main>\n\
         <footer>It runs inside <code>cloakroom demo</code>, on another site than the app.</footer>\n\
         </body>\n</html>\n"
    );
    let mut answer = server::content(status, "text/html; charset=utf-8", html);
    let policy = format!(
        "default-src 'none'; style-src 'self'; form-action 'self' {form_target}; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    // Not no-referrer: under that, browsers send a form's Origin as null.
    answer
        .headers_mut()
        .insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    answer
}

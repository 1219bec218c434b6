//! Writes the answers that are cloakroom's own: the one mapping from failures to HTTP (contract 4.14).
//!
//! The last stop of a request that is not let through. INVARIANT: nothing that was sent is reflected, and every
//! answer carries `Cache-Control: no-store`. Sources: RFC 9457 (problem details), RFC 9110 §15.

mod page;
mod problem;
mod session_list;

pub use page::{Link, blank, move_on, page, sign_in};
pub use session_list::{incomplete_ends, listed};

use crate::listener::Refusal;
use crate::protocol::BodyError;
use crate::protocol::origin::PublicUrl;
use crate::unique;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use std::time::Duration;

/// A year (RFC 6797 §6.1.1).
const HSTS: &str = "max-age=31536000";

/// A response body: ours, a file's or an upstream's.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// What stops a request on its way. Only `answer` turns it into HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 401: no usable session. `clear_cookie` only where a healthy store says that the session is gone, or after
    /// `invalid_grant` (contract 4.1).
    Unauthenticated {
        /// Whether the session cookie is cleared.
        clear_cookie: bool,
    },
    /// 403 `csrf`: it may come from another site. Says which rule.
    Csrf(&'static str),
    /// 403 `forbidden`: the session lacks what the route requires.
    Forbidden(&'static str),
    /// 404.
    NotFound,
    /// 400. Says what is wrong.
    BadRequest(&'static str),
    /// 405. The methods that are allowed, for `Allow`.
    MethodNotAllowed(&'static str),
    /// 413.
    TooLarge,
    /// 408: its body comes too slowly.
    TooSlow,
    /// 414.
    TargetTooLong,
    /// 417. Only `100-continue` can be expected here.
    ExpectationFailed,
    /// 431.
    HeadTooLarge,
    /// 429, and when to come again.
    TooManyRequests(Duration),
    /// 429: the session has as many `WebSocket`s as it may.
    TooManySockets,
    /// 421: a `Host` that is not `public_url`'s.
    Misdirected,
    /// 503: a browser that only looks ahead (contract 3.10).
    Prefetch,
    /// 503: never a logout, never anonymous (contract 4.6).
    StoreUnavailable,
    /// 503 (contract 4.7).
    ProviderUnavailable,
    /// 502 (contract 4.13).
    UpstreamUnavailable,
    /// 504 (contract 4.13).
    UpstreamTimeout,
    /// 503: the cookie is cleared, the delete is repeated (contract 3.8).
    LogoutIncomplete,
    /// 508: a route's upstream leads back here.
    Loop,
    /// 500.
    Internal,
}

/// What must be known of a request to answer it with a failure.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Our request id.
    pub request_id: &'a str,
    /// A navigation gets a page, everything else a problem document.
    pub navigation: bool,
    /// The path of the login endpoint.
    pub login_path: &'a str,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Fragment => Self::BadRequest("A request's target has no fragment (`#`)."),
            Refusal::PlainHttp => Self::BadRequest("TLS is spoken here: use https instead of http."),
            Refusal::OddSpace => Self::BadRequest("A header's value begins or ends with a space."),
            Refusal::TargetTooLong => Self::TargetTooLong,
            Refusal::HeadTooLarge => Self::HeadTooLarge,
            Refusal::Panic => Self::Internal,
        }
    }
}

impl Failure {
    /// Status, code, title and a sentence for people.
    #[expect(clippy::too_many_lines, reason = "a table is as long as it has rows")]
    fn words(&self) -> (StatusCode, &'static str, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::Unauthenticated { .. } => (
                S::UNAUTHORIZED,
                "unauthenticated",
                "Please sign in",
                "There is no session for this request.",
            ),
            Self::Csrf(why) => (S::FORBIDDEN, "csrf", "Request refused", why),
            Self::Forbidden(why) => (S::FORBIDDEN, "forbidden", "Not allowed", why),
            Self::NotFound => (
                S::NOT_FOUND,
                "not_found",
                "Not found",
                "There is nothing at this address.",
            ),
            Self::BadRequest(why) => (S::BAD_REQUEST, "bad_request", "Bad request", why),
            Self::MethodNotAllowed(_) => (
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
                "This address does not answer this method.",
            ),
            Self::TooLarge => (
                S::PAYLOAD_TOO_LARGE,
                "too_large",
                "Too large",
                "The request's body is larger than this address takes.",
            ),
            Self::TooSlow => (
                S::REQUEST_TIMEOUT,
                "bad_request",
                "Too slow",
                "The request's body came too slowly, or stopped coming.",
            ),
            Self::ExpectationFailed => (
                S::EXPECTATION_FAILED,
                "bad_request",
                "Expectation failed",
                "The request expects something else than 100-continue.",
            ),
            Self::TargetTooLong => (
                S::URI_TOO_LONG,
                "bad_request",
                "Address too long",
                "The request's target is longer than 8 KiB.",
            ),
            Self::HeadTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "bad_request",
                "Request head too large",
                "The request has too many header lines, or too long ones. Most often that is cookies: delete those of this site.",
            ),
            Self::TooManyRequests(_) => (
                S::TOO_MANY_REQUESTS,
                "too_many_requests",
                "Too many requests",
                "Too many logins were begun from this address. Please wait a moment.",
            ),
            Self::TooManySockets => (
                S::TOO_MANY_REQUESTS,
                "too_many_requests",
                "Too many WebSockets",
                "This session has as many WebSockets open as it may. Close some of them first.",
            ),
            Self::Misdirected => (
                S::MISDIRECTED_REQUEST,
                "misdirected",
                "Wrong host name",
                "This service is reached under another host name.",
            ),
            Self::Prefetch => (
                S::SERVICE_UNAVAILABLE,
                "bad_request",
                "Not in advance",
                "This address changes something, so it is not loaded before it is asked for.",
            ),
            Self::StoreUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "Temporarily unavailable",
                "Sessions cannot be read at the moment. You are still signed in; please try again.",
            ),
            Self::ProviderUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "provider_unavailable",
                "Temporarily unavailable",
                "The sign-in service does not answer at the moment. Please try again.",
            ),
            Self::UpstreamUnavailable => (
                S::BAD_GATEWAY,
                "upstream_unavailable",
                "Bad gateway",
                "The service behind this address does not answer.",
            ),
            Self::UpstreamTimeout => (
                S::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "Gateway timeout",
                "The service behind this address did not answer in time.",
            ),
            Self::LogoutIncomplete => (
                S::SERVICE_UNAVAILABLE,
                "logout_incomplete",
                "Almost signed out",
                "You are signed out here; ending the session everywhere takes a little longer.",
            ),
            Self::Loop => (
                S::LOOP_DETECTED,
                "internal",
                "Loop detected",
                "The service behind this address leads back to this one.",
            ),
            Self::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "Internal error",
                "Something went wrong here.",
            ),
        }
    }

    /// Seconds for `Retry-After`, where trying again makes sense.
    fn retry_after(&self) -> Option<u64> {
        match self {
            // Whole seconds (RFC 9110 §10.2.3), rounded up: who comes back then is not too early.
            Self::TooManyRequests(after) => {
                let begun = u64::from(after.subsec_nanos() > 0);
                Some(after.as_secs().saturating_add(begun).max(1))
            }
            Self::StoreUnavailable | Self::ProviderUnavailable | Self::LogoutIncomplete => Some(2),
            _ => None,
        }
    }

    /// Turns the failure into its answer: a page for a navigation, a problem document for everything else.
    #[must_use]
    pub fn answer(&self, asking: Asking<'_>) -> Response<Body> {
        let (status, code, title, detail) = self.words();
        let mut response = if asking.navigation {
            let link = match self {
                Self::Unauthenticated { .. } => Link {
                    href: asking.login_path,
                    text: "Sign in",
                },
                _ => Link {
                    href: "/",
                    text: "Go to the start page",
                },
            };
            page(status, title, &[detail], &[link], Some(asking.request_id))
        } else {
            let login_url = matches!(self, Self::Unauthenticated { .. }).then_some(asking.login_path);
            problem::document(status, code, title, detail, asking.request_id, login_url)
        };
        self.add_headers(&mut response);
        response
    }

    /// The failure's problem document in words of its own, where more can be said: to operators, and to scripts about what
    /// is their user's own. Nothing of what was sent belongs into `detail`.
    #[must_use]
    pub fn explain(&self, detail: &str, request_id: &str) -> Response<Body> {
        let (status, code, title, _) = self.words();
        let mut response = problem::document(status, code, title, detail, request_id, None);
        self.add_headers(&mut response);
        response
    }

    fn add_headers(&self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        match self {
            // RFC 9110 §15.5.2: a 401 MUST carry a challenge; this scheme opens no dialog in any browser.
            Self::Unauthenticated { .. } => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Cloakroom"));
            }
            Self::MethodNotAllowed(allowed) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            _ => {}
        }
    }
}

/// The answer to a request for another host name (contract 2.8): names the origin where this service is reached, which
/// everybody may know, and not the one that was asked for.
#[must_use]
pub fn misdirected(asking: Asking<'_>, origin: &str) -> Response<Body> {
    let (status, code, title, _) = Failure::Misdirected.words();
    let detail = format!("This service is reached at {origin}.");
    if asking.navigation {
        let link = Link {
            href: origin,
            text: "Go there",
        };
        return page(status, title, &[&detail], &[link], Some(asking.request_id));
    }
    problem::document(status, code, title, &detail, asking.request_id, None)
}

/// Keeps browsers on https (RFC 6797 §7.1). For answers that are our own: what an upstream says of its pages is its own
/// affair.
pub fn mark(response: &mut Response<Body>, public_url: &PublicUrl) {
    if public_url.scheme() == "https" {
        response
            .headers_mut()
            .insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
    }
}

/// 128 random bits, in hex: names one request in logs and answers; not a secret.
#[must_use]
pub fn request_id() -> String {
    let mut id = Vec::with_capacity(32);
    // A request without a unique name is still a request.
    unique::push_hex(&mut id, &unique::bytes::<16>().unwrap_or_default());
    String::from_utf8(id).unwrap_or_default()
}

/// A JSON answer of our own: never stored, never sniffed.
#[must_use]
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    own_headers(headers);
    response
}

/// 200, and nothing to say: for who only wants to know that it was done.
#[must_use]
pub fn done() -> Response<Body> {
    let mut response = Response::new(empty());
    own_headers(response.headers_mut());
    response
}

/// A redirect: 302 or 303, never 307 or 308 (RFC 9700 §4.12).
///
/// `location` is a path of ours or a URL out of the provider's metadata; where it is no header value, the answer
/// is 500.
#[must_use]
pub fn redirect(status: StatusCode, location: &str) -> Response<Body> {
    located(status, location)
}

/// 308 to the same thing on https: only where nothing but GET and HEAD is answered, and never in a login.
#[must_use]
pub fn moved(location: &str) -> Response<Body> {
    located(StatusCode::PERMANENT_REDIRECT, location)
}

fn located(status: StatusCode, location: &str) -> Response<Body> {
    let Ok(mut location) = HeaderValue::from_str(location) else {
        let asking = Asking {
            request_id: "",
            navigation: true,
            login_path: "/",
        };
        return Failure::Internal.answer(asking);
    };
    location.set_sensitive(true);
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    own_headers(headers);
    response
}

/// What every answer of our own carries.
fn own_headers(headers: &mut http::HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
}

/// A body of bytes.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// No body.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_retry_after_is_not_too_early() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_900, 2), (59_001, 60)] {
            let failure = Failure::TooManyRequests(Duration::from_millis(millis));
            assert_eq!(failure.retry_after(), Some(seconds), "{millis} ms");
        }
    }
}

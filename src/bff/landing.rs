//! Where a login leads, and what a browser sees that does not keep our cookie.

use super::Bff;
use crate::answer::{self, Body, Link};
use crate::protocol::fetch_metadata::Site;
use crate::protocol::return_to;
use http::{HeaderMap, Response, StatusCode, header};
use std::time::Duration;

/// A browser that comes back without its session so soon after a login does not keep the cookie.
const JUST_SIGNED_IN: Duration = Duration::from_mins(1);

impl Bff {
    /// The `return_to` itself where a login may land there, else `login.landing` (contract 3.2). Checked when a login
    /// begins and again when it ends: the browser's cookie is sealed, but the routes may have changed since.
    pub(super) fn landing_for(&self, return_to: Option<&str>) -> String {
        let Some(value) = return_to else {
            return self.settings.login.landing.clone();
        };
        if return_to::parse(value).is_some_and(|path| self.routes.may_land(&path)) {
            return value.to_owned();
        }
        tracing::info!(target: "cloakroom::audit", event = "return_to_refused");
        self.settings.login.landing.clone()
    }

    /// Leads the browser on after a login. Under `Strict` it is told by a page of ours, because a redirect from the
    /// provider's site would not carry the cookie (RFC 6265bis §8.8.2); else by a redirect.
    pub(super) fn land(&self, return_to: &str) -> Response<Body> {
        if self.cookie.is_strict() {
            answer::move_on(return_to)
        } else {
            answer::redirect(StatusCode::SEE_OTHER, return_to)
        }
    }

    /// Contract 3.6: the page for a browser that was just signed in and did not bring the session cookie back; it
    /// ends the loop that would follow. The marks go, so that the next try is a new one.
    #[must_use]
    pub fn stuck(&self, headers: &HeaderMap, site: Site) -> Option<Response<Body>> {
        // A request from another site does not bring a Strict cookie, and that is as it should be.
        let would_bring = matches!(site, Site::SameOrigin | Site::None | Site::Absent);
        let just = self
            .attempts
            .finished_within(headers, self.clock.now(), JUST_SIGNED_IN);
        if !would_bring || !just || self.cookie.came(headers) {
            return None;
        }
        tracing::warn!(target: "cloakroom::audit", event = "login_failed", reason = "cookie_not_kept");
        self.metrics.login("", "failed", "cookie_not_kept");
        let address = format!(
            "The page was opened under another name than {}; use that address.",
            self.settings.public_url.origin()
        );
        let plain_http =
            "The connection is plain http, and this browser keeps secure cookies only over https.";
        let mut reasons = vec![
            "You signed in, but your browser did not send the session cookie back, so you would only be sent around \
             in a circle. One of these is usually why:",
            "Cookies are blocked for this site, by a setting or an extension; allow them and try again.",
            &address,
        ];
        if self.settings.public_url.scheme() == "http" {
            reasons.push(plain_http);
        }
        let login = self.own_path("/login");
        let mut response = answer::page(
            StatusCode::BAD_REQUEST,
            "Your browser did not keep the cookie",
            &reasons,
            &[Link {
                href: &login,
                text: "Try to sign in again",
            }],
            None,
        );
        for cookie in self.settle_marks(headers) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Some(response)
    }
}

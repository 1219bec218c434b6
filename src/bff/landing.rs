//! Where a login leads.

use super::Bff;
use crate::answer::{self, Body};
use crate::protocol::return_to;
use http::{Response, StatusCode};

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
}

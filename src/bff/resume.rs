//! `GET /bff/login/resume?return_to=/x`: the page that asks for `return_to` again from our own origin (contract 4.1).
//!
//! A Strict cookie does not come from another site. On a route that cloakroom serves itself it puts this page in the
//! place of the answer; an ingress that only asks (`forward_auth`) sends the browser here for it. It starts no login: if
//! the cookie is still missing then, the next answer does.

use super::{Bff, Visit};
use crate::answer::{self, Body, Failure};
use http::Response;

impl Bff {
    pub(super) fn resume(&self, visit: &Visit<'_>) -> Result<Response<Body>, Failure> {
        if !visit.provenance.navigation {
            return Err(Failure::Csrf("This address is gone to, not called by a script."));
        }
        Ok(answer::move_on(&self.return_to(visit)))
    }
}

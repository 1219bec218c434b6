//! `/bff/logout/continue`: the way on after a logout that a script asked for (contract 3.8).
//!
//! The script gets a path of ours that works once, within 60 s, in this browser only; the navigation to it gets the
//! redirect to the provider, with the `id_token_hint` that no script may see.

use super::logout::append_cookies;
use super::{Bff, Visit};
use crate::answer::{self, Body, Failure};
use crate::protocol::cookie::{self, SameSite};
use crate::protocol::query::{self, Parameter};
use crate::secret::Secret;
use crate::session::SessionId;
use crate::session::seal::{KeyRing, Purpose};
use crate::store::{Kind, StoreKey};
use aws_lc_rs::digest;
use http::{Method, Response, StatusCode};
use serde_json::json;
use std::time::Duration;

/// How long the way on is open.
const LIFETIME: Duration = Duration::from_mins(1);

impl Bff {
    fn continuation_cookie(&self) -> String {
        format!("{}-logout", self.cookie.name())
    }

    /// Keeps the target and gives the script the path that leads there.
    pub(super) async fn continue_later(&self, target: Option<&Secret>) -> Result<Response<Body>, Failure> {
        let Some(target) = target else {
            return Ok(self.continue_to_landing());
        };
        // One random value names the entry and stands in the path, the other binds it to this browser.
        let (name, ticket) = (
            SessionId::random().cookie_value(),
            SessionId::random().cookie_value(),
        );
        let sealed = self.keys.seal(
            Purpose::LogoutContinuation,
            ticket.as_bytes(),
            &[name.as_str()],
            target.expose().as_bytes(),
        );
        if let Err(error) = self
            .store
            .create(key(&self.keys, &name), sealed.into(), LIFETIME)
            .await
        {
            // The session is gone already; only the sign-out at the provider is lost.
            tracing::warn!(%error, "a logout cannot lead on to the provider");
            return Ok(self.continue_to_landing());
        }
        let path = format!("{}?id={name}", self.own_path("/logout/continue"));
        let mut response = answer::json(StatusCode::OK, &json!({ "redirect_to": path }));
        let ticket = cookie::set(
            &self.continuation_cookie(),
            &ticket,
            SameSite::Lax,
            Some(LIFETIME),
        );
        append_cookies(&mut response, vec![ticket]);
        Ok(response)
    }

    /// Nobody to sign out at: a path of the same kind, which ends on the page after a logout and costs no entry.
    fn continue_to_landing(&self) -> Response<Body> {
        let path = format!("{}?id=", self.own_path("/logout/continue"));
        answer::json(StatusCode::OK, &json!({ "redirect_to": path }))
    }

    /// The navigation: the redirect, once. Late or doubled, it ends on the page after a logout.
    pub(super) async fn logout_continue(&self, visit: &Visit<'_>) -> Result<Response<Body>, Failure> {
        if !visit.provenance.navigation || visit.method != Method::GET {
            return Err(Failure::Csrf(
                "This address is for the browser to go to, not for a script.",
            ));
        }
        let target = self.take_continuation(visit).await;
        let location = target
            .as_ref()
            .map_or(self.settings.logout.landing.as_str(), Secret::expose);
        let mut response = answer::redirect(StatusCode::SEE_OTHER, location);
        if target.is_some() {
            let gone = cookie::clear(&self.continuation_cookie(), SameSite::Lax);
            append_cookies(&mut response, vec![gone]);
        }
        Ok(response)
    }

    async fn take_continuation(&self, visit: &Visit<'_>) -> Option<Secret> {
        let parameters = query::parse(visit.query?)?;
        let Parameter::One(name) = query::find(&parameters, "id") else {
            return None;
        };
        let cookie_name = self.continuation_cookie();
        let mut tickets = cookie::values(visit.headers, &cookie_name);
        let (ticket, None) = (tickets.next()?, tickets.next()) else {
            return None;
        };
        let record = self.store.read(key(&self.keys, name)).await.ok()??;
        let plain = self
            .keys
            .open(Purpose::LogoutContinuation, ticket, &[name], &record.sealed)
            .ok()?;
        // Whoever deletes it goes on: two navigations at once do not both.
        if !self.store.delete(key(&self.keys, name)).await.ok()? {
            return None;
        }
        std::str::from_utf8(&plain).ok().map(Secret::new)
    }
}

fn key(keys: &KeyRing, name: &str) -> StoreKey {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"cloakroom logout continuation v1\0");
    context.update(name.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    StoreKey {
        kind: Kind::LogoutContinuation,
        hash: keys.scoped(hash),
    }
}

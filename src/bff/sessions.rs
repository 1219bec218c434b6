//! `/bff/sessions`: a user's own sessions, for a page that shows them and ends those that should not be (standards SE-09).
//!
//! | request                      | answer                                                                       |
//! | ---------------------------- | ---------------------------------------------------------------------------- |
//! | `GET /bff/sessions`          | 200, a list: what the index shows of each, the oldest first                  |
//! | `DELETE /bff/sessions/{ref}` | 200, 1 has ended; 404 where none of the caller's sessions has this reference |
//! | `DELETE /bff/sessions`       | 200, how many have ended: all but the one that asks                          |
//!
//! Whose they are is the session's own word: its provider's issuer and its `sub`. Contract 4.3 and 4.4 hold as for
//! `/bff/user`, and none of it extends the session that asks.
//!
//! The tokens of a session that is ended from another cannot be revoked: its record opens with its own cookie alone
//! (contract 5.2). They are gone with the record. Those of the session that asks are revoked, as at a logout; it does not
//! sign out at the provider, which takes a navigation (`/bff/logout`).
//!
//! No mark keeps a login out that is under way, unlike where the provider or an administrator ends all: the user is there,
//! and would be refused a login of their own.
//!
//! INVARIANT: never a token and never cookie bits. INVARIANT: nothing but the caller's own list is looked at, so a
//! reference of somebody else's is the same 404 as one that there never was.
//! INVARIANT: an end that the store does not confirm is 503; this replica refuses the session from then on and repeats the
//! delete.
//!
//! Sources: ASVS 7.4.5 and 7.5.2, RFC 9457.

use super::ending::{Asker, Ends};
use super::logout::append_cookies;
use super::{Bff, Visit};
use crate::answer::{self, Body, Failure};
use crate::guard::authenticate::{self, Presented};
use crate::session::{Listed, Reference, Session, Wanted};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

/// What `Allow` names for the list.
const METHODS: &str = "GET, HEAD, DELETE";

impl Bff {
    /// All of the caller's sessions.
    pub(super) async fn own_sessions(&self, visit: &Visit<'_>) -> Result<Response<Body>, Failure> {
        match *visit.method {
            Method::GET | Method::HEAD => self.list_own(visit).await,
            Method::DELETE => self.end_others(visit).await,
            _ => Err(Failure::MethodNotAllowed(METHODS)),
        }
    }

    /// The one session that a path names.
    pub(super) async fn own_session(&self, visit: &Visit<'_>, name: &str) -> Result<Response<Body>, Failure> {
        if visit.method != Method::DELETE {
            return Err(Failure::MethodNotAllowed("DELETE"));
        }
        refuse_query(visit)?;
        self.check_where_cookie(visit)?;
        let wanted = name.parse::<Reference>().ok();
        if let Presented::Id(id) = self.cookie.presented(visit.headers)
            && wanted == Some(self.sessions.reference(&id))
        {
            return self.end_current(visit).await;
        }
        let (own, session) = self.caller(visit).await?;
        let mut found = self.of_same_user(&session, Wanted::ToEnd).await?;
        found.retain(|listed| Some(listed.reference()) == wanted);
        let by = Some(self.sessions.reference(&own));
        let ends = self.end_listed(&found, asker(visit, by)).await;
        if ends.ended == 0 && ends.unconfirmed == 0 {
            let detail = "None of your sessions has this reference: it has ended, or there never was one.";
            return Ok(Failure::NotFound.explain(detail, visit.request_id));
        }
        Ok(ended(visit, &ends))
    }

    async fn list_own(&self, visit: &Visit<'_>) -> Result<Response<Body>, Failure> {
        self.check_where_cookie(visit)?;
        let (own, session) = self.caller(visit).await?;
        let current = self.sessions.reference(&own);
        let found = self.of_same_user(&session, Wanted::There).await?;
        let shown = found.iter().map(|listed| {
            let mut document = answer::listed(&self.sessions, listed);
            document.insert("current".to_owned(), (listed.reference() == current).into());
            Value::from(document)
        });
        Ok(answer::json(StatusCode::OK, &shown.collect()))
    }

    async fn end_others(&self, visit: &Visit<'_>) -> Result<Response<Body>, Failure> {
        refuse_query(visit)?;
        self.check_where_cookie(visit)?;
        let (own, session) = self.caller(visit).await?;
        let current = self.sessions.reference(&own);
        let mut found = self.of_same_user(&session, Wanted::ToEnd).await?;
        found.retain(|listed| listed.reference() != current);
        let ends = self.end_listed(&found, asker(visit, Some(current))).await;
        Ok(ended(visit, &ends))
    }

    /// The session that asks: as a logout, also while the store is away, for its cookie is proof enough.
    async fn end_current(&self, visit: &Visit<'_>) -> Result<Response<Body>, Failure> {
        let ending = self.ending_by_cookie(visit).await;
        let ends = self.end_noted(&ending, asker(visit, None)).await;
        if ends.unconfirmed == 0 && ends.ended == 0 {
            return Err(Failure::Unauthenticated { clear_cookie: true });
        }
        if ends.unconfirmed == 0 {
            let _the_page_stays = self.sign_out_at_provider(&ending).await;
        }
        let mut response = ended(visit, &ends);
        append_cookies(&mut response, self.clear_cookies(visit.headers));
        Ok(response)
    }

    async fn of_same_user(&self, session: &Session, wanted: Wanted) -> Result<Vec<Listed>, Failure> {
        let found = self.sessions.of_same_user(session, wanted).await;
        found.map_err(|error| authenticate::unavailable(&error))
    }
}

fn ended(visit: &Visit<'_>, ends: &Ends) -> Response<Body> {
    if ends.unconfirmed > 0 {
        let detail = answer::incomplete_ends(ends.ended, ends.unconfirmed);
        return Failure::LogoutIncomplete.explain(&detail, visit.request_id);
    }
    answer::json(StatusCode::OK, &json!({ "ended": ends.ended }))
}

fn asker<'a>(visit: &Visit<'a>, by: Option<Reference>) -> Asker<'a> {
    Asker {
        cause: "sessions",
        by,
        request_id: Some(visit.request_id),
    }
}

/// What cannot be asked for must not end more than was meant.
fn refuse_query(visit: &Visit<'_>) -> Result<(), Failure> {
    match visit.query {
        None | Some("") => Ok(()),
        Some(_) => Err(Failure::BadRequest(
            "Sessions are ended without a query: one by its reference in the path, or all but this one.",
        )),
    }
}

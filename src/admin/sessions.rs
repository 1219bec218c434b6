//! `/sessions` on the admin listener: whose sessions there are, and their end (contract §7).
//!
//! | request                               | answer                                                       |
//! | ------------------------------------- | ------------------------------------------------------------ |
//! | `GET /sessions?sub=…[&provider=]`     | 200, a list: what the index shows of each, the oldest first  |
//! | `DELETE /sessions?sub=…[&provider=]`  | 200, how many have ended; logins under way will              |
//! | `GET /sessions/{ref}`                 | 200, one of that list; 404                                   |
//! | `DELETE /sessions/{ref}`              | 200, 1 has ended; 404                                        |
//!
//! All of them: 404 where no `admin_token` is set, 403 without it, 503 while the store is away.
//!
//! INVARIANT: never a token and never cookie bits: a session is named by its reference.
//! INVARIANT: what does not say clearly what it is about ends nothing: parameters that are unknown, empty or doubled are
//! refused.
//! INVARIANT: when all of a user's sessions end, logins of that user that were begun before end as well (standards LO-17).
//! INVARIANT: an end that the store does not confirm is 503; this replica refuses the session from then on and repeats the
//! delete.
//!
//! Sources: RFC 6750 §2.1, RFC 9457, standards SE-09, OB-02.

use super::Inner;
use crate::answer::{self, Body, Failure};
use crate::config::SecretSource;
use crate::protocol::query::{self, Parameter};
use crate::session::{Listed, Reference, SessionError, Wanted};
use aws_lc_rs::{constant_time, digest};
use http::{HeaderMap, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::net::IpAddr;

/// What `Allow` names.
const METHODS: &str = "GET, HEAD, DELETE";
/// Everything here.
const PATH: &str = "/sessions";

/// In any case (RFC 9110 §11.1).
const SCHEME: &[u8] = b"Bearer ";

/// What a store that does not answer means for a user's sessions.
const NOTHING_DONE: &str =
    "The session store does not answer, so nothing was listed and nothing has ended. Please try again.";

/// Why a request is not done, in words for operators. Nothing of what was sent is in them.
struct Refusal(Failure, Cow<'static, str>);

/// One request.
struct Call<'a> {
    inner: &'a Inner,
    peer: IpAddr,
    request_id: &'a str,
}

/// What a request is about.
enum Subject<'a> {
    User { sub: String, provider: Option<String> },
    One(&'a str),
}

/// Whether a path belongs here.
pub(super) fn is_about_sessions(path: &str) -> bool {
    path.strip_prefix(PATH)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request to a path that belongs here.
pub(super) async fn answer(inner: &Inner, request: &Request<Incoming>, peer: IpAddr) -> Response<Body> {
    let request_id = &answer::request_id();
    let call = Call {
        inner,
        peer,
        request_id,
    };
    let answered = call.answer(request).await;
    answered.unwrap_or_else(|Refusal(failure, detail)| failure.explain(&detail, request_id))
}

fn bad(why: &'static str) -> Refusal {
    Refusal(Failure::BadRequest(why), why.into())
}

impl Call<'_> {
    async fn answer(&self, request: &Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let Some(token) = &self.inner.settings.server.admin_token else {
            let detail = "Sessions are not administered here: no `server.admin_token` is set.";
            return Err(Refusal(Failure::NotFound, detail.into()));
        };
        if !is_shown(token, request.headers()) {
            let (peer, request_id) = (self.peer, self.request_id);
            tracing::warn!(
                target: "cloakroom::audit", event = "admin_refused", %peer, request_id,
                "a request for sessions came without the admin token"
            );
            let detail = "This takes `Authorization: Bearer` with the token of `server.admin_token`.";
            return Err(Refusal(Failure::Forbidden(detail), detail.into()));
        }
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        if !is_read && request.method() != Method::DELETE {
            let detail = "Sessions can be read (GET) and ended (DELETE).";
            return Err(Refusal(Failure::MethodNotAllowed(METHODS), detail.into()));
        }
        match (subject(request)?, is_read) {
            (Subject::User { sub, provider }, true) => self.list(&sub, provider.as_deref()).await,
            (Subject::User { sub, provider }, false) => self.end_all(&sub, provider.as_deref()).await,
            (Subject::One(text), true) => self.show(reference(text)?).await,
            (Subject::One(text), false) => self.end(reference(text)?).await,
        }
    }

    async fn list(&self, sub: &str, provider: Option<&str>) -> Result<Response<Body>, Refusal> {
        let found = self.find(sub, provider, Wanted::There).await?;
        let (peer, request_id, count) = (self.peer, self.request_id, found.len());
        tracing::info!(
            target: "cloakroom::audit", event = "sessions_listed", sub, provider, count, %peer, request_id
        );
        let found: Vec<Value> = found.iter().map(|listed| self.document(listed)).collect();
        Ok(answer::json(StatusCode::OK, &found.into()))
    }

    async fn show(&self, reference: Reference) -> Result<Response<Body>, Refusal> {
        let found = self.inner.sessions.by_reference(reference).await;
        let found = found
            .map_err(|error| self.away(&error, "The session store does not answer. Please try again."))?
            .ok_or_else(unknown)?;
        let (peer, request_id) = (self.peer, self.request_id);
        tracing::info!(
            target: "cloakroom::audit", event = "sessions_listed", session = %reference, count = 1, %peer, request_id
        );
        Ok(answer::json(StatusCode::OK, &self.document(&found)))
    }

    async fn end(&self, reference: Reference) -> Result<Response<Body>, Refusal> {
        let sessions = &self.inner.sessions;
        let (ended, whose) = match sessions.by_reference(reference).await {
            // One without a summary ends all the same.
            Ok(whose) => (sessions.end_known(reference.hash()).await, whose),
            // The store was just asked for its whole patience: do not ask again before answering.
            Err(error) => {
                sessions.refuse_known(reference.hash());
                (Err(error), None)
            }
        };
        self.note(reference, whose.as_ref(), &ended);
        match ended {
            Ok(true) => Ok(answer::json(StatusCode::OK, &json!({ "ended": 1 }))),
            Ok(false) => Err(unknown()),
            Err(_) => Err(incomplete(0, 1)),
        }
    }

    async fn end_all(&self, sub: &str, provider: Option<&str>) -> Result<Response<Body>, Refusal> {
        self.is_known(provider)?;
        let marked = self.inner.sessions.keep_out_logins_under_way(sub, provider).await;
        marked.map_err(|error| self.away(&error, NOTHING_DONE))?;
        let found = self.find(sub, provider, Wanted::ToEnd).await?;
        let ends = self.inner.sessions.end_all(&found).await;
        let (mut ended, mut unconfirmed) = (0_usize, 0_usize);
        for (listed, end) in found.iter().zip(ends) {
            self.note(listed.reference(), Some(listed), &end);
            ended += usize::from(matches!(end, Ok(true)));
            unconfirmed += usize::from(end.is_err());
        }
        if unconfirmed > 0 {
            return Err(incomplete(ended, unconfirmed));
        }
        Ok(answer::json(StatusCode::OK, &json!({ "ended": ended })))
    }

    /// Whether a provider that is asked for is one of the config's.
    fn is_known(&self, provider: Option<&str>) -> Result<(), Refusal> {
        let is_known = |name: &str| {
            let mut providers = self.inner.providers.iter();
            providers.any(|provider| provider.settings().name == name)
        };
        if provider.is_some_and(|name| !is_known(name)) {
            return Err(bad(
                "`provider` is none of the names under `providers` in the config.",
            ));
        }
        Ok(())
    }

    async fn find(&self, sub: &str, provider: Option<&str>, wanted: Wanted) -> Result<Vec<Listed>, Refusal> {
        self.is_known(provider)?;
        let found = self.inner.sessions.of_user(sub, provider, wanted).await;
        found.map_err(|error| self.away(&error, NOTHING_DONE))
    }

    /// 503: it cannot be said.
    fn away(&self, error: &SessionError, detail: &'static str) -> Refusal {
        tracing::warn!(%error, request_id = self.request_id, "sessions could not be looked up");
        let detail = match error {
            SessionError::Store(_) => detail,
            SessionError::Unreadable(_) | SessionError::Elsewhere => {
                "What is stored of these sessions is sealed with a key that is not in `session.keys`, or by a newer release."
            }
        };
        Refusal(Failure::StoreUnavailable, detail.into())
    }

    /// Leaves a trace of a session's end, or of one that is not confirmed yet.
    fn note(&self, session: Reference, whose: Option<&Listed>, ended: &Result<bool, SessionError>) {
        let (peer, request_id, cause) = (self.peer, self.request_id, "admin");
        let provider = whose.map(|listed| &listed.provider[..]);
        let sub = whose.map(|listed| &listed.sub[..]);
        match ended {
            Ok(was_there) => {
                self.inner.metrics.logouts(cause, usize::from(*was_there));
                tracing::info!(
                    target: "cloakroom::audit", event = "logout", cause, %session, provider, sub, was_there, %peer, request_id
                );
            }
            Err(error) => {
                tracing::warn!(
                    target: "cloakroom::audit", event = "logout", cause, %session, provider, sub, %error, %peer, request_id,
                    "incomplete"
                );
            }
        }
    }

    fn document(&self, listed: &Listed) -> Value {
        let mut document = answer::listed(&self.inner.sessions, listed);
        document.insert("sub".to_owned(), json!(listed.sub));
        document.insert("sid".to_owned(), json!(listed.sid));
        document.into()
    }
}

/// Whether the request bears the token.
fn is_shown(token: &SecretSource, headers: &HeaderMap) -> bool {
    // One that cannot be read lets nobody in; why it cannot is in the log.
    let Ok(token) = token.current() else {
        return false;
    };
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return false;
    };
    let Some((scheme, shown)) = line.as_bytes().split_at_checked(SCHEME.len()) else {
        return false;
    };
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return false;
    }
    // Of equal length, whatever was sent: the time that it takes tells nothing of the token.
    let hash = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
    let (shown, token) = (hash(shown), hash(token.expose().as_bytes()));
    constant_time::verify_slices_are_equal(shown.as_ref(), token.as_ref()).is_ok()
}

/// What a request is about, where it says so clearly.
fn subject(request: &Request<Incoming>) -> Result<Subject<'_>, Refusal> {
    let rest = request.uri().path().strip_prefix(PATH).unwrap_or_default();
    let asked = request.uri().query().unwrap_or_default();
    if let Some(text) = rest.strip_prefix('/') {
        if !asked.is_empty() {
            return Err(bad("A session is named by its reference alone, without a query."));
        }
        return Ok(Subject::One(text));
    }
    user(asked).map_err(bad)
}

/// Whose sessions a query asks for.
fn user(asked: &str) -> Result<Subject<'static>, &'static str> {
    let parameters = query::parse(asked).ok_or("The query holds a malformed escape, or is no UTF-8.")?;
    if parameters
        .iter()
        .any(|(name, _)| !matches!(&name[..], "sub" | "provider"))
    {
        return Err("Only `sub` and `provider` can be asked for.");
    }
    let sub = match query::find(&parameters, "sub") {
        Parameter::One(sub) if !sub.is_empty() => sub.to_owned(),
        Parameter::One(_) | Parameter::Absent => return Err("`sub` is missing: the user at the provider."),
        Parameter::Doubled => return Err("`sub` stands there more than once."),
    };
    let provider = match query::find(&parameters, "provider") {
        Parameter::One("") => return Err("`provider` is empty; leave it out to ask for all."),
        Parameter::One(name) => Some(name.to_owned()),
        Parameter::Absent => None,
        Parameter::Doubled => return Err("`provider` stands there more than once."),
    };
    Ok(Subject::User { sub, provider })
}

fn reference(text: &str) -> Result<Reference, Refusal> {
    text.parse()
        .map_err(|_| bad("A session's reference is 64 hexadecimal digits."))
}

fn unknown() -> Refusal {
    let detail = "There is no session of this reference: it has ended, or there never was one.";
    Refusal(Failure::NotFound, detail.into())
}

/// 503: this replica does what it can (contract 3.8).
fn incomplete(ended: usize, unconfirmed: usize) -> Refusal {
    let detail = answer::incomplete_ends(ended, unconfirmed);
    Refusal(Failure::LogoutIncomplete, detail.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_the_one_token_in_one_header_is_shown() {
        let token = SecretSource::plain("canary-token");
        let shown = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(line).unwrap());
            }
            is_shown(&token, &headers)
        };
        assert!(shown(&["Bearer canary-token"]) && shown(&["bearer canary-token"]));
        for lines in [
            &[][..],
            &["Bearer canary-tokem"],
            &["Bearer canary-token2"],
            &["Bearer canary-toke"],
            &["Bearer "],
            &["Bearer"],
            &[""],
            &["canary-token"],
            &["Basic canary-token"],
            &["Bearer  canary-token"],
            &["Bearer canary-token, Bearer canary-token"],
            &["Bearer canary-token", "Bearer canary-token"],
            &["Bearer canary-token", "Basic x"],
        ] {
            assert!(!shown(lines), "{lines:?}");
        }
        let missing = SecretSource::file("/nonexistent/token");
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer "));
        assert!(!is_shown(&missing, &headers));
    }

    #[test]
    fn a_query_says_clearly_whose_sessions_are_meant() {
        let read = |asked: &str| match user(asked) {
            Ok(Subject::User { sub, provider }) => Ok((sub, provider)),
            Ok(Subject::One(_)) => panic!("{asked}"),
            Err(why) => Err(why),
        };
        assert_eq!(read("sub=alice"), Ok(("alice".into(), None)));
        let both = Ok(("auth0|a b/ü".into(), Some("main".into())));
        assert_eq!(read("provider=main&sub=auth0%7Ca%20b%2F%C3%BC"), both);
        for (asked, word) in [
            ("", "missing"),
            ("sub", "missing"),
            ("sub=", "missing"),
            ("provider=main", "missing"),
            ("sub=a&sub=a", "more than once"),
            ("sub=a&provider=x&provider=x", "more than once"),
            ("sub=a&provider=", "empty"),
            ("sub=a&provder=main", "Only"),
            ("Sub=a", "Only"),
            ("sub=%", "escape"),
            ("sub=%ff", "escape"),
        ] {
            let why = read(asked).unwrap_err();
            assert!(why.contains(word), "{asked}: {why}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_not_about_sessions() {
        assert!(is_about_sessions("/sessions") && is_about_sessions("/sessions/x"));
        for other in ["/", "/session", "/sessionsx", "/x/sessions"] {
            assert!(!is_about_sessions(other), "{other}");
        }
    }
}

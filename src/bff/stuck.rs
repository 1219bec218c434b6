//! A browser that signs in and comes back as a stranger: it gets a page that says why, and not a circle (contract 3.6).
//!
//! On a request's way `router` asks here before it sends a browser to sign in, and so does a login before it begins. What
//! tells a circle are the marks that finished logins leave for ten minutes.

use super::Bff;
use crate::answer::{self, Body, Link};
use crate::guard::authenticate::{self, Caller, Presented};
use crate::protocol::fetch_metadata::Site;
use crate::protocol::origin::PublicUrl;
use http::{HeaderMap, Response, StatusCode, header};
use std::time::Duration;

/// A browser that comes back without its session so soon after a login does not keep the cookie.
const JUST_SIGNED_IN: Duration = Duration::from_mins(1);
/// So many logins within that time, each of whose sessions was gone at once, are a circle.
const CIRCLE: usize = 3;

/// Why a browser would only be sent round in a circle.
#[derive(Clone, Copy)]
enum Stuck {
    /// It brings no session cookie.
    NotKept,
    /// It brings something that is no session's cookie, or two.
    Altered,
    /// It brings a session that the store does not know, again and again.
    Unknown,
}

impl Bff {
    /// Contract 3.6: the page for a browser that was just signed in and would be sent to sign in again; it ends the loop
    /// that would follow. `is_gone`: the cookie came, and the store does not know its session. The marks go, so that the
    /// next try is a new one.
    #[must_use]
    pub fn stuck(&self, headers: &HeaderMap, site: Site, is_gone: bool) -> Option<Response<Body>> {
        let logins = self
            .attempts
            .finished_within(headers, self.clock.now(), JUST_SIGNED_IN);
        // A request from another site does not bring a Strict cookie, and that is as it should be.
        let would_bring = matches!(site, Site::SameOrigin | Site::None | Site::Absent);
        let stuck = match self.cookie.presented(headers) {
            Presented::Nothing if logins > 0 && would_bring => Stuck::NotKept,
            Presented::Unusable if logins > 0 => Stuck::Altered,
            Presented::Id(_) if is_gone && logins >= CIRCLE => Stuck::Unknown,
            _ => return None,
        };
        let reason = stuck.reason();
        tracing::warn!(target: "cloakroom::audit", event = "login_failed", reason, "{}", stuck.for_operator());
        self.metrics.login("", "failed", reason);
        let (title, reasons) = stuck.for_people(&self.settings.public_url);
        let reasons: Vec<&str> = reasons.iter().map(String::as_str).collect();
        let login = self.own_path("/login");
        let link = Link {
            href: &login,
            text: "Try to sign in again",
        };
        let mut response = answer::page(StatusCode::BAD_REQUEST, title, &reasons, &[link], None);
        for cookie in self.settle_marks(headers) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Some(response)
    }

    /// Whether a browser with a circle's worth of logins brings a session that the store does not know. The store is asked
    /// only then; one that does not answer ends nothing.
    pub(super) async fn is_lost_again(&self, headers: &HeaderMap) -> bool {
        let logins = self
            .attempts
            .finished_within(headers, self.clock.now(), JUST_SIGNED_IN);
        logins >= CIRCLE
            && matches!(
                authenticate::authenticate(&self.cookie, &self.sessions, headers).await,
                Ok(Caller::Gone)
            )
    }

    /// A browser brings a session that the store does not know. That is how sessions end; so soon after a login it is how
    /// a deployment shows that it has more than one store.
    pub fn note_gone(&self, headers: &HeaderMap) {
        let just = self
            .attempts
            .finished_within(headers, self.clock.now(), JUST_SIGNED_IN);
        if just > 0
            && let Some(unsaid) = self.gone_soon.due()
        {
            tracing::warn!(
                unsaid,
                "a browser that signed in less than a minute ago brings a session that the store does not know: several \
                 replicas with the memory store or with a Redis each, a Redis that drops keys, or another deployment \
                 under this host name with the same session.cookie.name"
            );
        }
    }
}

impl Stuck {
    /// For metrics and logs.
    fn reason(self) -> &'static str {
        match self {
            Self::NotKept => "cookie_not_kept",
            Self::Altered => "cookie_altered",
            Self::Unknown => "session_unknown",
        }
    }

    fn for_operator(self) -> &'static str {
        match self {
            Self::NotKept => {
                "a browser that has just signed in does not bring the session cookie back: it blocks cookies, is under \
                 another address than public_url, or a proxy in front drops Cookie or Set-Cookie"
            }
            Self::Altered => {
                "a browser that has just signed in brings the session cookie back twice or altered: a proxy in front \
                 changes cookies"
            }
            Self::Unknown => {
                "a browser has signed in three times within a minute, and the store knows none of its sessions: see that \
                 all replicas use one Redis, which drops no keys"
            }
        }
    }

    fn for_people(self, public_url: &PublicUrl) -> (&'static str, Vec<String>) {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        match self {
            Self::NotKept => {
                let mut reasons: Vec<String> = own(&[
                    "You signed in, but your browser did not send the session cookie back, so you would only be sent \
                     around in a circle. One of these is usually why:",
                    "Cookies are blocked for this site, by a setting or an extension; allow them and try again.",
                ]);
                reasons.push(format!(
                    "The page was opened under another name than {}; use that address.",
                    public_url.origin()
                ));
                if public_url.scheme() == "http" {
                    reasons.push(
                        "The connection is plain http, and this browser keeps secure cookies only over https.".into(),
                    );
                }
                ("Your browser did not keep the cookie", reasons)
            }
            Self::Altered => (
                "Your session cookie came back changed",
                own(&[
                    "You signed in, but the session cookie came back twice or changed, so you would only be sent around in \
                     a circle.",
                    "Something between your browser and this site changes cookies: an extension, or a proxy. If you know of \
                     none, tell whoever runs this site.",
                ]),
            ),
            Self::Unknown => (
                "Your session is lost again and again",
                own(&[
                    "You signed in several times within a minute, and each time your session was gone at once, so you would \
                     only be sent around in a circle.",
                    "This is a fault of this site and not of your browser; tell whoever runs it.",
                ]),
            ),
        }
    }
}

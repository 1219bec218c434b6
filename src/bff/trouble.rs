//! Why a login failed, in words for people, and the page that says so (contract 3.4).
//!
//! INVARIANT: nothing that was sent is reflected: every word stands here.

use super::{Bff, Visit, clear_attempt};
use crate::answer::{self, Body, Link};
use http::{Response, StatusCode, header};
use serde::{Deserialize, Serialize};

/// Why a login failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Trouble {
    /// The parameters cannot be an authorization response.
    Malformed,
    /// No attempt of this browser belongs to it.
    NoAttempt,
    /// `iss` is not the provider's that was asked (RFC 9207).
    WrongIssuer,
    /// `access_denied`.
    Denied,
    /// Another error from the provider.
    Refused,
    /// The provider does not take the code.
    CodeRefused,
    /// An answer that does not hold.
    BadAnswer,
    /// The provider cannot be reached; the code was not sent.
    ProviderAway,
    /// The code was sent, and the answer was lost.
    AnswerLost,
    /// The session store does not answer.
    StoreAway,
    /// The provider, or an administrator, has logged the user out meanwhile.
    LoggedOut,
}

impl Trouble {
    /// Status, a word for metrics and logs, title, explanation.
    pub(super) fn words(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::Malformed => (
                S::BAD_REQUEST,
                "malformed",
                "This sign-in cannot be finished",
                "The address that your browser was sent to is incomplete. Please start again.",
            ),
            Self::NoAttempt => (
                S::BAD_REQUEST,
                "no_attempt",
                "This sign-in cannot be finished",
                "Your browser did not bring the cookie of this sign-in. Perhaps it took longer than ten minutes, was \
                 begun in another browser, under another host name or over plain http, or cookies are blocked for this \
                 site. Please start again.",
            ),
            Self::WrongIssuer => (
                S::BAD_REQUEST,
                "wrong_issuer",
                "This sign-in was stopped",
                "The answer does not come from the sign-in service that was asked. Nothing was passed on; please start \
                 again.",
            ),
            Self::Denied => (
                S::FORBIDDEN,
                "access_denied",
                "Sign-in was cancelled",
                "The sign-in service reports that access was denied or cancelled. You are not signed in.",
            ),
            Self::Refused => (
                S::BAD_REQUEST,
                "provider_refused",
                "The sign-in service refused",
                "The sign-in service did not sign you in. Please start again; if it happens again, tell whoever runs \
                 this site.",
            ),
            Self::CodeRefused => (
                S::BAD_REQUEST,
                "code_refused",
                "This sign-in cannot be finished",
                "The sign-in service does not accept this answer (any more). Please start again.",
            ),
            Self::BadAnswer => (
                S::BAD_GATEWAY,
                "bad_answer",
                "The sign-in service gave a wrong answer",
                "What the sign-in service answered could not be accepted. Please start again; if it happens again, \
                 tell whoever runs this site.",
            ),
            Self::ProviderAway => (
                S::SERVICE_UNAVAILABLE,
                "provider_away",
                "Sign-in is not available",
                "The sign-in service does not answer at the moment. Please try again in a little while.",
            ),
            Self::AnswerLost => (
                S::SERVICE_UNAVAILABLE,
                "answer_lost",
                "This sign-in was interrupted",
                "The sign-in service was asked, and its answer was lost. Please sign in anew.",
            ),
            Self::StoreAway => (
                S::SERVICE_UNAVAILABLE,
                "store_away",
                "Sign-in is not available",
                "Sessions cannot be kept at the moment. Please try again in a little while.",
            ),
            Self::LoggedOut => (
                S::BAD_REQUEST,
                "logged_out",
                "This sign-in was ended",
                "You were signed out meanwhile. Please start again.",
            ),
        }
    }
}

impl Bff {
    /// The page of a failed callback. `attempt`: the cookie of an attempt that is over.
    pub(super) fn failed(
        &self,
        visit: &Visit<'_>,
        provider: &str,
        attempt: Option<&str>,
        trouble: Trouble,
    ) -> Response<Body> {
        self.failed_because(visit, provider, attempt, trouble, None)
    }

    /// As [`Bff::failed`]; `why` is for the operator, in words of ours.
    pub(super) fn failed_because(
        &self,
        visit: &Visit<'_>,
        provider: &str,
        attempt: Option<&str>,
        trouble: Trouble,
        why: Option<&str>,
    ) -> Response<Body> {
        let (status, reason, title, text) = trouble.words();
        let request_id = visit.request_id;
        tracing::warn!(target: "cloakroom::audit", event = "login_failed", provider, reason, why, request_id, "a login failed");
        self.metrics.login(provider, "failed", reason);
        let login = self.own_path("/login");
        let links = [
            Link {
                href: &login,
                text: "Sign in again",
            },
            Link {
                href: &self.settings.login.landing,
                text: "Go to the start page",
            },
        ];
        let mut response = answer::page(status, title, &[text], &links, Some(visit.request_id));
        if let Some(name) = attempt {
            response
                .headers_mut()
                .append(header::SET_COOKIE, clear_attempt(name));
        }
        response
    }
}

//! Writes the answers that are cloakroom's own: the one mapping from failures to HTTP (contract 4.14).

use crate::protocol::BodyError;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use std::time::Duration;

/// A response body: ours, a file's or an upstream's.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// What stops a request on its way. Only `answer` turns it into HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 401; `clear_cookie` only where a healthy store says that the session is gone, or after `invalid_grant`.
    Unauthenticated {
        /// Whether the session cookie is cleared.
        clear_cookie: bool,
    },
    /// 403 `csrf`.
    Csrf(&'static str),
    /// 403 `forbidden`.
    Forbidden(&'static str),
    /// 404.
    NotFound,
    /// 400.
    BadRequest(&'static str),
    /// 405.
    MethodNotAllowed(&'static str),
    /// 413.
    TooLarge,
    /// 429.
    TooManyRequests(Duration),
    /// 421.
    Misdirected,
    /// 503.
    StoreUnavailable,
    /// 503.
    ProviderUnavailable,
    /// 502.
    UpstreamUnavailable,
    /// 504.
    UpstreamTimeout,
    /// 503: the cookie is cleared, the delete is repeated.
    LogoutIncomplete,
    /// 500.
    Internal,
}

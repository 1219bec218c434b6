//! Header names that are read or written on every request and that the `http` crate has no constant for.
//!
//! A name in a string is checked and copied each time it is used; these are not.

use http::HeaderName;

/// W3C Fetch Metadata §2.1.
pub static SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
/// W3C Fetch Metadata §2.2.
pub static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// W3C Fetch Metadata §2.3.
pub static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// W3C Trace Context §3.2.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C Trace Context §3.3.
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The header that no form can send (contract 4.3).
pub static X_CSRF: HeaderName = HeaderName::from_static("x-csrf");
/// Who asks, as proxies say it.
pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The host that was asked.
pub static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `http` or `https`.
pub static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// A request's name in everybody's logs.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

//! What must hold of any request's head before anybody asks where it goes (contract 2.8, 4.2).

use crate::answer::{self, Body, Failure};
use crate::protocol::path::RequestPath;
use crate::protocol::{framing, host};
use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use hyper::Request;
use hyper::body::Incoming;

/// The longest request target, bytes.
const LONGEST_TARGET: usize = 8 * 1024;
/// What `Allow` names where a method is refused everywhere.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The host that a request is for, if its head can be read in one way only and its method is one that is forwarded.
///
/// # Errors
/// [`Failure::BadRequest`], [`Failure::MethodNotAllowed`], [`Failure::ExpectationFailed`]
pub(super) fn check(request: &Request<Incoming>) -> Result<&str, Failure> {
    let (method, headers) = (request.method(), request.headers());
    let host =
        host::authority(request.version(), method, request.uri(), headers).map_err(Failure::BadRequest)?;
    if !framing::is_plain(headers) {
        return Err(Failure::BadRequest(
            "The request's body is framed in a way that is not taken here.",
        ));
    }
    if matches!(*method, Method::TRACE | Method::CONNECT) || method.as_str().eq_ignore_ascii_case("TRACK") {
        return Err(Failure::MethodNotAllowed(METHODS));
    }
    // "A server that receives an Expect field value containing a member other than 100-continue MAY respond with a 417
    // (Expectation Failed) status code", and none that came over HTTP/1.0 counts (RFC 9110 §10.1.1).
    let expects_else = |line: &HeaderValue| !line.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if request.version() > Version::HTTP_10 && headers.get_all(header::EXPECT).iter().any(expects_else) {
        return Err(Failure::ExpectationFailed);
    }
    Ok(host)
}

/// One parse of the path, for everybody (contract 4.2).
///
/// # Errors
/// [`Failure::BadRequest`] where it can be read in two ways, [`Failure::TargetTooLong`].
pub(super) fn parse_path(request: &Request<Incoming>) -> Result<RequestPath, Failure> {
    let uri = request.uri();
    if uri.path_and_query().map_or(0, |target| target.as_str().len()) > LONGEST_TARGET {
        return Err(Failure::TargetTooLong);
    }
    RequestPath::parse(uri.path()).map_err(|doubt| Failure::BadRequest(doubt.0))
}

/// Path and query as sent.
pub(super) fn target(request: &Request<Incoming>) -> &str {
    request
        .uri()
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str)
}

/// The `Cookie` lines, kept for the answer when the request itself has gone up.
pub(super) fn cookie_headers(request: &Request<Incoming>) -> http::HeaderMap {
    request
        .headers()
        .get_all(header::COOKIE)
        .iter()
        .map(|line| (header::COOKIE, line.clone()))
        .collect()
}

/// An answer that says nothing: to `OPTIONS *`.
pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(answer::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// 128 random bits, in hex: names one request in logs and answers; not a secret.
pub(super) fn request_id() -> String {
    let mut bytes = [0; 16];
    // A request without a unique name is still a request.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    format!("{:032x}", u128::from_be_bytes(bytes))
}

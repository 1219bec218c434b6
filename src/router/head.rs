//! What must hold of any request's head before anybody asks where it goes (contract 2.8, 4.2).

use crate::answer::{self, Body, Failure};
use crate::guard::gate;
use crate::protocol::websocket;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use hyper::Request;
use hyper::body::Incoming;
use hyper::ext::Protocol;

/// The host that a request is for, if its head can be read in one way only and its method is one that is forwarded.
///
/// # Errors
/// [`Failure::BadRequest`], [`Failure::MethodNotAllowed`], [`Failure::ExpectationFailed`]
pub(super) fn check(request: &Request<Incoming>) -> Result<&str, Failure> {
    let host = gate::check_head(
        request.version(),
        request.method(),
        request.uri(),
        request.headers(),
    )?;
    gate::check_method(request.method())?;
    // ":path" "MUST NOT be empty for 'http' or 'https' URIs; […] that do not contain a path component MUST include a value
    // of '/'" (RFC 9113 §8.3.1). An absolute target of HTTP/1.1 may leave the path out.
    if request.version() == Version::HTTP_2 && target(request).starts_with('?') {
        return Err(Failure::BadRequest("the path does not begin with a slash"));
    }
    Ok(host)
}

/// Makes of a WebSocket's handshake over HTTP/2 what it is over HTTP/1.1, so that one set of rules holds for both.
/// Whether it was one.
pub(super) fn read_extended_connect(request: &mut Request<Incoming>) -> bool {
    let Some(protocol) = request.extensions_mut().remove::<Protocol>() else {
        return false;
    };
    let mut method = request.method().clone();
    let is_one = websocket::read_extended_connect(protocol.as_str(), &mut method, request.headers_mut());
    *request.method_mut() = method;
    is_one
}

/// Makes the answer to a handshake over HTTP/2 of what it would be over HTTP/1.1.
///
/// # Errors
/// [`Failure::BadRequest`] for an answer that is none to a handshake, and would open a WebSocket with nothing behind it.
pub(super) fn answer_extended_connect(mut response: Response<Body>) -> Result<Response<Body>, Failure> {
    let mut status = response.status();
    if !websocket::answer_extended_connect(&mut status, response.headers_mut()) {
        return Err(Failure::BadRequest("There is no WebSocket at this address."));
    }
    *response.status_mut() = status;
    Ok(response)
}

/// Path and query as sent.
pub(super) fn target(request: &Request<Incoming>) -> &str {
    request
        .uri()
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str)
}

/// The `Cookie` lines, kept for the answer when the request itself has gone up.
pub(super) fn cookies(request: &Request<Incoming>) -> Vec<HeaderValue> {
    request
        .headers()
        .get_all(header::COOKIE)
        .iter()
        .cloned()
        .collect()
}

/// Headers with nothing in them but these cookies.
pub(super) fn only(cookies: Vec<HeaderValue>) -> HeaderMap {
    cookies.into_iter().map(|line| (header::COOKIE, line)).collect()
}

/// An answer that says nothing: to `OPTIONS *`.
pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(answer::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

//! What must hold of any request's head before anybody asks where it goes (contract 2.8, 4.2).

use crate::answer::{self, Body, Failure};
use crate::guard::gate;
use crate::protocol::websocket;
use http::request::Parts;
use http::{Response, StatusCode, Version};
use hyper::ext::Protocol;

/// The host that a request is for, if its head can be read in one way only and its method is one that is forwarded.
///
/// # Errors
/// [`Failure::BadRequest`], [`Failure::MethodNotAllowed`], [`Failure::ExpectationFailed`]
pub(super) fn check(head: &Parts) -> Result<&str, Failure> {
    let host = gate::check_head(head.version, &head.method, &head.uri, &head.headers)?;
    gate::check_method(&head.method)?;
    // ":path" "MUST NOT be empty for 'http' or 'https' URIs; […] that do not contain a path component MUST include a value
    // of '/'" (RFC 9113 §8.3.1). An absolute target of HTTP/1.1 may leave the path out.
    if head.version == Version::HTTP_2 && target(head).starts_with('?') {
        return Err(Failure::BadRequest("the path does not begin with a slash"));
    }
    Ok(host)
}

/// Makes of a WebSocket's handshake over HTTP/2 what it is over HTTP/1.1, so that one set of rules holds for both.
/// Whether it was one.
pub(super) fn read_extended_connect(head: &mut Parts) -> bool {
    let protocol = head.extensions.remove::<Protocol>();
    protocol.is_some_and(|protocol| {
        websocket::read_extended_connect(protocol.as_str(), &mut head.method, &mut head.headers)
    })
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
pub(super) fn target(head: &Parts) -> &str {
    let target = head.uri.path_and_query();
    target.map_or("/", http::uri::PathAndQuery::as_str)
}

/// An answer that says nothing: to `OPTIONS *`.
pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(answer::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

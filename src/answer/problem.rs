//! Problem documents: what scripts get (RFC 9457).

use super::{Body, full, own_headers};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

/// An `application/problem+json` answer.
pub(super) fn document(
    status: StatusCode,
    code: &str,
    title: &str,
    detail: &str,
    request_id: &str,
    login_url: Option<&str>,
) -> Response<Body> {
    let mut document = json!({
        "type": format!("urn:cloakroom:problem:{code}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
        "request_id": request_id,
    });
    if let Some(login_url) = login_url {
        document["login_url"] = login_url.into();
    }
    let mut response = Response::new(full(document.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    own_headers(headers);
    response
}

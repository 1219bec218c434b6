//! Pages: what people get. One layout, no script, nothing from elsewhere.
//!
//! INVARIANT: everything that is put into a page is escaped, and the policy would not run it anyway: the one style
//! is allowed by its hash, everything else is refused.

use super::{Body, full, own_headers};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Response, StatusCode, header};
use std::fmt::Write;
use std::sync::LazyLock;

/// The style of all our pages.
const STYLE: &str = include_str!("page.css");

/// Scripts, frames, forms to elsewhere and plugins are refused; the style is known by its hash (CSP Level 3 §8.3).
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        STYLE.as_bytes(),
    ));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy)
        .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"))
});

/// A way on from a page.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// A path of ours.
    pub href: &'a str,
    /// What it says.
    pub text: &'a str,
}

/// A page with a title, paragraphs and ways on.
#[must_use]
pub fn page(
    status: StatusCode,
    title: &str,
    paragraphs: &[&str],
    links: &[Link<'_>],
    request_id: Option<&str>,
) -> Response<Body> {
    // Writing into a String cannot fail.
    let mut content = String::new();
    for text in paragraphs {
        let _ = write!(content, "<p>{}</p>", escape(text));
    }
    content.push_str("<p class=\"on\">");
    for link in links {
        let (href, text) = (escape(link.href), escape(link.text));
        let _ = write!(content, "<a href=\"{href}\">{text}</a> ");
    }
    content.push_str("</p>");
    if let Some(id) = request_id {
        let _ = write!(content, "<footer>Request <code>{}</code></footer>", escape(id));
    }
    document(status, title, "", &content)
}

/// The page that moves on by itself to a path of ours, so that the browser asks for it from our own origin and sends
/// even a `SameSite=Strict` cookie along. A refresh after zero seconds replaces the history entry (HTML §4.2.5.3),
/// so the back button does not lead here.
#[must_use]
pub fn move_on(to: &str) -> Response<Body> {
    let refresh = format!("<meta http-equiv=\"refresh\" content=\"0;url={}\">", escape(to));
    let content = format!(
        "<p>You are being taken on.</p><p class=\"on\"><a href=\"{}\">Continue</a></p>",
        escape(to)
    );
    document(StatusCode::OK, "One moment", &refresh, &content)
}

/// The page to choose a provider on.
#[must_use]
pub fn sign_in(choices: &[(String, String)]) -> Response<Body> {
    let mut items = String::new();
    for (href, label) in choices {
        let (href, label) = (escape(href), escape(label));
        let _ = write!(items, "<li><a href=\"{href}\">{label}</a></li>");
    }
    document(
        StatusCode::OK,
        "Sign in",
        "",
        &format!("<p>Choose how you sign in.</p><ul class=\"choices\">{items}</ul>"),
    )
}

/// A page with nothing on it, which only the pages of `origin` may show in a frame; nobody's where it is no header value.
#[must_use]
pub fn blank(origin: Option<&str>) -> Response<Body> {
    let policy = |by: &str| {
        let policy = format!("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors {by}");
        HeaderValue::from_str(&policy)
    };
    let mut response = Response::new(full("<!doctype html><title>Signed out</title>"));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    let policy = policy(origin.unwrap_or("'none'")).or_else(|_| policy("'none'"));
    if let Ok(policy) = policy {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    own_headers(headers);
    response
}

fn document(status: StatusCode, title: &str, head: &str, content: &str) -> Response<Body> {
    let title = escape(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"robots\" content=\"noindex\">\
         <title>{title}</title>{head}<style>{STYLE}</style></head>\
         <body><main><h1>{title}</h1>{content}</main></body></html>"
    );
    let mut response = Response::new(full(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(
        "cross-origin-opener-policy",
        HeaderValue::from_static("same-origin"),
    );
    own_headers(headers);
    response
}

/// Text for HTML, in content and in double-quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn class_j_nothing_gets_into_a_page_unescaped() {
        let hostile = "\"><script>alert('x')</script>&";
        let response = page(
            StatusCode::OK,
            hostile,
            &[hostile],
            &[Link {
                href: hostile,
                text: hostile,
            }],
            Some(hostile),
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let html = String::from_utf8(body.to_vec()).unwrap();
        assert!(!html.contains("<script"), "{html}");
        assert!(!html.contains("href=\"\"") && html.contains("&quot;&gt;&lt;script&gt;"));
    }

    #[test]
    fn hy_06_pages_carry_a_policy_that_names_the_style_and_nothing_else() {
        let response = move_on("/x");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(policy.contains("style-src 'sha256-"));
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[header::REFERRER_POLICY], "no-referrer");
    }
}

//! What the browser sends, and what it gets.

use super::browser::SESSION;
use super::html;
use super::jar::{Cookie, Site};
use super::wire::{Fields, Head, values};
use serde_json::Value;

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    pub(super) site: Site,
    pub(super) navigation: bool,
    pub(super) cookies: bool,
}

impl Request {
    /// Only method, target and cookies; no `Sec-Fetch-*`, no `Accept`.
    pub fn bare(method: &str, url: &str) -> Self {
        Self {
            method: method.to_owned(),
            url: url.to_owned(),
            fields: Vec::new(),
            body: Vec::new(),
            site: Site::SameOrigin,
            navigation: false,
            cookies: true,
        }
    }

    /// What a top-level navigation sends.
    pub fn navigate(url: &str, site: Site) -> Self {
        let mut request = Self::bare("GET", url)
            .with(
                "Accept",
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            )
            .with("Sec-Fetch-Site", site.word())
            .with("Sec-Fetch-Mode", "navigate")
            .with("Sec-Fetch-Dest", "document")
            .with("Sec-Fetch-User", "?1")
            .with("Upgrade-Insecure-Requests", "1");
        request.site = site;
        request.navigation = true;
        request
    }

    /// What `fetch()` in a page of ours sends (`Origin` is added on unsafe methods).
    pub fn fetch(method: &str, url: &str) -> Self {
        Self::bare(method, url)
            .with("Accept", "*/*")
            .with("Sec-Fetch-Site", "same-origin")
            .with("Sec-Fetch-Mode", "cors")
            .with("Sec-Fetch-Dest", "empty")
    }

    /// With another header line.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without the lines of that name.
    pub fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    /// With a body and its length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Without the jar's cookies.
    pub fn anonymous(mut self) -> Self {
        self.cookies = false;
        self
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Fields,
}

impl Reply {
    /// The first value of that header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.value(name)
    }

    /// All values of that header.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        values(&self.head.fields, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Where it redirects to.
    pub fn location(&self) -> &str {
        assert!(
            matches!(self.status, 302 | 303),
            "no redirect: {} {}",
            self.status,
            self.text()
        );
        self.header("location").expect("a Location")
    }

    /// The `code` of a problem document of this status, whose shape is checked (contract 4.14).
    pub fn problem(&self) -> String {
        let kind = self.header("content-type").unwrap_or_default().to_owned();
        assert!(
            kind.starts_with("application/problem+json"),
            "{} {kind}: {}",
            self.status,
            self.text()
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        for member in ["type", "title", "detail", "code", "request_id"] {
            assert!(problem[member].is_string(), "no {member}: {problem}");
        }
        assert_eq!(problem["login_url"].is_string(), self.status == 401, "{problem}");
        problem["code"].as_str().unwrap().to_owned()
    }

    /// Holds a page of cloakroom's own to contract §3 (headers) and returns its text.
    pub fn page(&self) -> String {
        let kind = self
            .header("content-type")
            .unwrap_or_default()
            .to_ascii_lowercase();
        assert!(
            kind.starts_with("text/html") && kind.contains("utf-8"),
            "{} {kind}",
            self.status
        );
        assert_eq!(self.header("cache-control"), Some("no-store"), "{:?}", self.head);
        assert_eq!(
            self.header("x-content-type-options"),
            Some("nosniff"),
            "{:?}",
            self.head
        );
        assert_eq!(
            self.header("referrer-policy"),
            Some("no-referrer"),
            "{:?}",
            self.head
        );
        let csp = self.header("content-security-policy").unwrap_or_default();
        assert!(csp.contains("frame-ancestors 'none'"), "{csp}");
        assert!(csp.contains("default-src 'none'"), "{csp}");
        assert!(!csp.contains("unsafe-"), "{csp}");
        self.text()
    }

    /// The cookies that it sets or takes away.
    pub fn cookies(&self) -> Vec<Cookie> {
        self.headers("set-cookie")
            .iter()
            .map(|line| Cookie::parse("", line))
            .collect()
    }

    /// Whether it takes the session cookie away, with the attributes that it was given with (LO-04).
    pub fn clears_session(&self) -> bool {
        let cookies = self.cookies();
        let Some(cookie) = cookies.iter().find(|cookie| cookie.name == SESSION) else {
            return false;
        };
        if !cookie.deletes() {
            return false;
        }
        let kept = cookie.attributes.iter().map(String::as_str);
        let kept: Vec<_> = kept
            .filter(|a| !a.starts_with("max-age") && !a.starts_with("expires"))
            .collect();
        assert!(
            kept == ["httponly", "path=/", "samesite=strict", "secure"]
                || kept == ["httponly", "path=/", "samesite=lax", "secure"],
            "{kept:?}"
        );
        true
    }

    /// Where a page or redirect leads by itself; `None` where it stays. Without script it is the same as by hand.
    pub fn leads_to(&self) -> Option<String> {
        if matches!(self.status, 301..=303 | 307 | 308) {
            return Some(self.location().to_owned());
        }
        let header = self.header("refresh").and_then(html::refresh_url);
        let target = header.or_else(|| html::refresh_target(&self.text()))?;
        let links = html::links(&self.text());
        assert!(
            links.is_empty() || links.contains(&target),
            "{target} is not among {links:?}"
        );
        Some(target)
    }
}

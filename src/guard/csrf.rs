//! Which requests may come from another site (contract 4.1, 4.3–4.5).
//!
//! A session cookie is sent by the browser, not by the page, so every request that it would authenticate must prove
//! that our own origin asked. The rules are a pure function of what the browser says. Sources: OWASP CSRF cheat sheet
//! (Fetch Metadata, standard headers), draft-ietf-oauth-browser-based-apps §6.1.3.3, RFC 6455 §10.2 (`WebSocket`s).

use crate::answer::Failure;
use crate::protocol::fetch_metadata::{self, Origin, Site};
use crate::protocol::header_name::X_CSRF;
use crate::protocol::origin::PublicUrl;
use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::{HeaderMap, Method};

/// What the browser says of where a request comes from, read once.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that do not depend on each other"
)]
pub struct Provenance {
    /// `Sec-Fetch-Site`.
    pub site: Site,
    /// `Origin`.
    pub origin: Origin,
    /// Whether it is a navigation.
    pub navigation: bool,
    /// Whether it asks for a WebSocket.
    pub websocket: bool,
    /// Whether the method is safe (RFC 9110 §9.2.1).
    pub safe: bool,
    /// Whether `X-CSRF: 1` is there, once.
    pub header: bool,
    /// Whether it is a CORS preflight (Fetch §4.8).
    preflight: bool,
}

impl Provenance {
    /// Reads a request's head.
    #[must_use]
    pub fn of(method: &Method, headers: &HeaderMap, public_url: &PublicUrl) -> Self {
        let mut tokens = headers.get_all(&X_CSRF).iter();
        Self {
            site: fetch_metadata::site(headers),
            origin: fetch_metadata::origin(headers, |origin| public_url.is_origin(origin)),
            navigation: fetch_metadata::is_navigation(method, headers),
            websocket: fetch_metadata::is_websocket(method, headers),
            safe: matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS),
            header: tokens.next().is_some_and(|value| value.as_bytes() == b"1") && tokens.next().is_none(),
            preflight: *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD),
        }
    }

    /// Whether it is a navigation that another origin started.
    #[must_use]
    pub fn is_foreign_navigation(&self) -> bool {
        self.navigation && matches!(self.site, Site::SameSite | Site::CrossSite)
    }

    /// Contract 4.3 and 4.4. `landing`: navigations from elsewhere may come here.
    ///
    /// # Errors
    /// [`Failure::Csrf`]
    pub fn check(&self, landing: bool) -> Result<(), Failure> {
        // 4.4: a foreign `Origin` is refused on every method, whatever else is there.
        match self.origin {
            Origin::Foreign => return Err(Failure::Csrf("The request comes from another origin.")),
            Origin::Null if self.site != Site::SameOrigin => {
                return Err(Failure::Csrf(
                    "The request comes from a document without an origin.",
                ));
            }
            _ => {}
        }
        match self.site {
            Site::SameOrigin => Ok(()),
            Site::None if self.safe => Ok(()),
            Site::None => Err(Failure::Csrf(
                "The request changes something and no page of ours asked for it.",
            )),
            Site::SameSite | Site::CrossSite if self.navigation && landing => Ok(()),
            Site::SameSite | Site::CrossSite => Err(Failure::Csrf("The request comes from another site.")),
            Site::Absent if self.safe || self.origin == Origin::Ours => Ok(()),
            Site::Absent if self.origin == Origin::Absent && self.header => Ok(()),
            Site::Absent => Err(Failure::Csrf(
                "The request changes something; send it with Origin, or with the header X-CSRF: 1.",
            )),
        }
    }

    /// Contract 4.5: a WebSocket handshake is judged by `Origin` alone, which must be there.
    ///
    /// # Errors
    /// [`Failure::Csrf`]
    pub fn check_websocket(&self) -> Result<(), Failure> {
        match self.origin {
            Origin::Ours => Ok(()),
            _ => Err(Failure::Csrf(
                "A WebSocket must be opened by a page of this origin.",
            )),
        }
    }

    /// A preflight asks whether another origin may call: it may not, and the upstream is not asked.
    ///
    /// # Errors
    /// [`Failure::Csrf`]
    pub fn check_preflight(&self) -> Result<(), Failure> {
        if self.preflight && self.origin != Origin::Ours {
            return Err(Failure::Csrf("Other origins may not call this address."));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    const OURS: &str = "https://app.example";

    fn judge(method: &str, headers: &[(&'static str, &'static str)], landing: bool) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let url = PublicUrl::parse(OURS).unwrap();
        Provenance::of(&method.parse().unwrap(), &map, &url)
            .check(landing)
            .is_ok()
    }

    #[test]
    fn cs_01_site_decides_first() {
        for method in ["GET", "POST", "DELETE"] {
            assert!(judge(method, &[("sec-fetch-site", "same-origin")], false));
            assert!(!judge(method, &[("sec-fetch-site", "same-site")], false));
            assert!(!judge(
                method,
                &[("sec-fetch-site", "cross-site"), ("x-csrf", "1")],
                false
            ));
            assert!(!judge(method, &[("sec-fetch-site", "nonsense")], true));
        }
        assert!(judge("GET", &[("sec-fetch-site", "none")], false));
        assert!(!judge(
            "POST",
            &[("sec-fetch-site", "none"), ("origin", OURS)],
            false
        ));
        let twice = [
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert!(!judge("GET", &twice, false));
    }

    #[test]
    fn cs_03_a_foreign_origin_is_refused_whatever_else_is_there() {
        for method in ["GET", "POST"] {
            for origin in [
                "https://evil.example",
                "https://app.example.evil",
                "http://app.example",
            ] {
                assert!(
                    !judge(
                        method,
                        &[("sec-fetch-site", "same-origin"), ("origin", origin)],
                        true
                    ),
                    "{origin}"
                );
                assert!(
                    !judge(method, &[("origin", origin), ("x-csrf", "1")], true),
                    "{origin}"
                );
            }
        }
        assert!(judge(
            "POST",
            &[("sec-fetch-site", "same-origin"), ("origin", "null")],
            false
        ));
        assert!(!judge("GET", &[("origin", "null")], false));
    }

    #[test]
    fn without_fetch_metadata_an_unsafe_method_needs_origin_or_header() {
        assert!(judge("GET", &[], false));
        assert!(!judge("POST", &[], false));
        assert!(judge("POST", &[("origin", OURS)], false));
        assert!(judge("POST", &[("x-csrf", "1")], false));
        assert!(!judge("POST", &[("x-csrf", "2")], false));
        assert!(!judge("POST", &[("x-csrf", "1"), ("x-csrf", "1")], false));
        assert!(!judge("POST", &[("origin", "null"), ("x-csrf", "1")], false));
    }

    #[test]
    fn only_navigations_may_land_from_elsewhere() {
        let from_elsewhere = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(judge("GET", &from_elsewhere, true));
        assert!(!judge("GET", &from_elsewhere, false));
        assert!(!judge("POST", &from_elsewhere, true));
    }
}

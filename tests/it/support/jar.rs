//! A cookie jar as strict as browsers are (RFC 6265bis §5.6, §5.7, §5.8; `__Host-` and `__Host-Http-` prefixes).
//!
//! Plain http on a loopback name counts as trustworthy, as in current browsers: `Secure` cookies are kept and sent.

use super::secrets::remember;

/// Where a request comes from, as `Sec-Fetch-Site` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the header's own words")]
pub enum Site {
    /// Typed, or from a bookmark.
    None,
    /// A page of ours.
    SameOrigin,
    /// A sibling.
    SameSite,
    /// Anywhere else.
    CrossSite,
}

impl Site {
    /// The header's value.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SameOrigin => "same-origin",
            Self::SameSite => "same-site",
            Self::CrossSite => "cross-site",
        }
    }
}

/// A kept cookie.
#[derive(Clone, Debug)]
pub struct Cookie {
    /// The host that set it.
    pub host: String,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The attributes as they were sent, without name and value, sorted, lower case.
    pub attributes: Vec<String>,
}

impl Cookie {
    /// Reads a `Set-Cookie` value.
    pub fn parse(host: &str, line: &str) -> Self {
        let mut parts = line.split(';').map(str::trim);
        let (name, value) = parts.next().unwrap_or_default().split_once('=').expect("a name");
        let mut attributes: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
        attributes.sort();
        Self {
            host: host.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
            attributes,
        }
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find_map(|attribute| {
            let (found, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            (found == name).then_some(value)
        })
    }

    fn allowed(&self) -> bool {
        let has = |name| self.attribute(name).is_some();
        let host = !self.name.starts_with("__Host-")
            || has("secure") && self.attribute("path") == Some("/") && !has("domain");
        let http = !self.name.starts_with("__Host-Http-") || has("httponly");
        let none = self.attribute("samesite") != Some("none") || has("secure");
        host && http && none && self.name.len() + self.value.len() <= 4096
    }

    /// Whether it goes along.
    fn sent(&self, from: Site, top_level_safe: bool) -> bool {
        match self.attribute("samesite") {
            Some("none") => true,
            Some("strict") => from != Site::CrossSite,
            _ => from != Site::CrossSite || top_level_safe,
        }
    }

    /// Whether it takes the cookie away.
    pub fn deletes(&self) -> bool {
        self.attribute("max-age")
            .is_some_and(|age| age.parse().is_ok_and(|age: i64| age <= 0))
            || self.attribute("expires").is_some_and(|at| at.contains("1970"))
    }
}

/// The jar.
#[derive(Clone, Debug, Default)]
pub struct Jar {
    kept: Vec<Cookie>,
    /// Cookies of these names are refused, as a browser with cookies off would.
    pub refused: Vec<String>,
}

impl Jar {
    /// Takes what an answer of `host` sets.
    pub fn take(&mut self, host: &str, lines: &[&str]) {
        for line in lines {
            let cookie = Cookie::parse(host, line);
            if !cookie.allowed() || self.refused.contains(&cookie.name) {
                continue;
            }
            let at = self
                .kept
                .iter()
                .position(|kept| kept.name == cookie.name && kept.host == host);
            if let Some(at) = at {
                self.kept.remove(at);
            }
            if !cookie.deletes() {
                remember(&cookie.value);
                self.kept.push(cookie);
            }
        }
    }

    /// What goes along in a `Cookie` header.
    pub fn header(&self, host: &str, from: Site, top_level_safe: bool) -> Option<String> {
        let mine = self.kept.iter().filter(|cookie| cookie.host == host);
        let sent = mine.filter(|cookie| cookie.sent(from, top_level_safe));
        let pairs: Vec<_> = sent
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// Every cookie of `host` whose name begins so.
    pub fn named(&self, host: &str, prefix: &str) -> Vec<&Cookie> {
        self.kept
            .iter()
            .filter(|cookie| cookie.host == host && cookie.name.starts_with(prefix))
            .collect()
    }

    /// Puts a cookie in by force.
    pub fn plant(&mut self, host: &str, name: &str, value: &str) {
        let line = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict");
        self.kept.retain(|kept| kept.name != name);
        self.kept.push(Cookie::parse(host, &line));
    }

    /// Forgets the cookies whose names begin so.
    pub fn forget(&mut self, prefix: &str) {
        self.kept.retain(|cookie| !cookie.name.starts_with(prefix));
    }
}

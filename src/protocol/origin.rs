//! The origin that browsers see (`public_url`) and what is compared with it: `Host` and `Origin`.
//!
//! Sources: RFC 6454 §4, RFC 9110 §7.2.

use http::HeaderValue;
use serde::{Deserialize, Deserializer};

/// An origin: scheme, host and port, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    https: bool,
    host: String,
    port: Option<u16>,
    origin: String,
    authority: HeaderValue,
}

impl PublicUrl {
    /// Parses `https://app.example.com[:port]`. Plain http only for `localhost`, `*.localhost`, `127.0.0.1`, `[::1]`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what is wanted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = "wanted: an origin such as https://app.example.com, without a path";
        let uri: http::Uri = text.parse().map_err(|_| format!("is not a URL; {wanted}"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("has no http or https scheme; {wanted}")),
        };
        let authority = uri.authority().ok_or_else(|| format!("has no host; {wanted}"))?;
        if authority.as_str().contains('@') {
            return Err(format!("holds a user name; {wanted}"));
        }
        let path_is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.contains('#');
        if !path_is_bare {
            return Err(format!("holds more than an origin; {wanted}"));
        }
        let host = authority.host().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
        if host.is_empty() {
            return Err(format!("has no host; {wanted}"));
        }
        if host.ends_with('.') {
            return Err(format!("has a host that is none; {wanted}"));
        }
        if !https && !is_loopback_name(&host) {
            return Err(
                "is plain http, which is accepted only for localhost, *.localhost, 127.0.0.1 and [::1] \
                 (browsers keep Secure cookies there); use https"
                    .into(),
            );
        }
        let default_port = if https { 443 } else { 80 };
        let port = match authority.as_str().rsplit_once(':') {
            Some((before, digits)) if !before.is_empty() && !digits.contains(']') => {
                let port: u16 = digits
                    .parse()
                    .map_err(|_| format!("has a port that is none; {wanted}"))?;
                (port != default_port).then_some(port)
            }
            _ => None,
        };
        let scheme = if https { "https" } else { "http" };
        let origin = match port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        let authority = origin[scheme.len() + "://".len()..]
            .parse()
            .map_err(|_| format!("has a host that is none; {wanted}"))?;
        Ok(Self {
            https,
            host,
            port,
            origin,
            authority,
        })
    }

    /// As browsers write it in `Origin`: `https://app.example.com`, with a port where it is not the scheme's own.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Host and port as in `Host`.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.origin
            .split_once("://")
            .map_or("", |(_, authority)| authority)
    }

    /// The same, as the header's value.
    #[must_use]
    pub fn authority_value(&self) -> HeaderValue {
        self.authority.clone()
    }

    /// The host, in small letters, without its port.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// A URL on this origin; `path` begins with `/`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Whether a `Host` names this origin: case and a trailing dot aside; the scheme's own port may be left out.
    #[must_use]
    pub fn is_host(&self, host: &str) -> bool {
        // As nearly everybody writes it.
        if self.authority == host {
            return true;
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, Some(port)),
            _ => (host, None),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let default_port = if self.https { 443 } else { 80 };
        let port = match port.map(str::parse::<u16>) {
            None => default_port,
            Some(Ok(port)) => port,
            Some(Err(_)) => return false,
        };
        name.eq_ignore_ascii_case(&self.host) && port == self.port.unwrap_or(default_port)
    }

    /// Whether an `Origin` header is this origin, byte for byte.
    #[must_use]
    pub fn is_origin(&self, origin: &[u8]) -> bool {
        origin == self.origin.as_bytes()
    }
}

/// Whether browsers treat the name as this machine, with `Secure` cookies over plain http.
#[must_use]
pub fn is_loopback_name(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]") || host.ends_with(".localhost")
}

impl<'de> Deserialize<'de> for PublicUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_compared_without_case_and_trailing_dot() {
        let url = PublicUrl::parse("https://App.example.com").unwrap();
        for host in [
            "app.example.com",
            "APP.example.com",
            "app.example.com.",
            "app.example.com:443",
        ] {
            assert!(url.is_host(host), "{host}");
        }
        for host in [
            "app.example.com:80",
            "app.example.com:",
            "app.example.com.evil",
            "xapp.example.com",
            "",
            "app.example.com:x",
        ] {
            assert!(!url.is_host(host), "{host}");
        }
        let url = PublicUrl::parse("http://localhost:8080").unwrap();
        assert!(url.is_host("localhost:8080") && url.is_host("LOCALHOST.:8080"));
        assert!(!url.is_host("localhost") && !url.is_host("localhost:80"));
        assert_eq!(url.origin(), "http://localhost:8080");
        let url = PublicUrl::parse("http://[::1]:8080").unwrap();
        assert!(url.is_host("[::1]:8080") && !url.is_host("[::1]"));
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        assert!(PublicUrl::parse("http://app.example.com").is_err());
        assert!(PublicUrl::parse("http://app.localhost").is_ok());
        for wrong in [
            "app.example.com",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://u@a",
            "https://a..",
            "ftp://a",
            "https://a#b",
            "",
        ] {
            assert!(PublicUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}

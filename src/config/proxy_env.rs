//! The outbound proxy, as the environment names it: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.
//!
//! Read once at start, for the calls to providers only; upstreams are asked directly. A proxy's URL may hold a
//! password, so the values are secrets.

use crate::secret::Secret;

/// What the environment says of proxies; nothing where it says nothing.
#[derive(Clone, Debug, Default)]
pub struct ProxyEnvironment {
    /// The proxy for `http` URLs.
    pub http: Option<Secret>,
    /// The proxy for `https` URLs.
    pub https: Option<Secret>,
    /// What is asked without a proxy: names (with all below them), addresses, networks, `*`; separated by commas.
    pub no: Option<String>,
}

impl ProxyEnvironment {
    /// Reads the environment; small letters come before capitals, as is the custom.
    #[must_use]
    pub fn read() -> Self {
        let all = || named("ALL_PROXY");
        Self {
            http: named("HTTP_PROXY").or_else(all).map(Secret::new),
            https: named("HTTPS_PROXY").or_else(all).map(Secret::new),
            no: named("NO_PROXY"),
        }
    }
}

fn named(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "config is what reads the environment")]
    let value = |name: String| std::env::var(name).ok().filter(|value| !value.is_empty());
    value(name.to_ascii_lowercase()).or_else(|| value(name.to_owned()))
}

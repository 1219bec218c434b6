//! The outbound proxy, as the environment names it: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.
//!
//! Read once at start, for the calls to providers only; upstreams are asked directly. A proxy's URL may hold a
//! password, so the values are secrets.

use crate::secret::Secret;

/// What the environment says of proxies; empty where it says nothing.
#[derive(Clone, Debug)]
pub struct ProxyEnvironment {
    /// The proxy for `https` URLs.
    pub https: Secret,
    /// The proxy for `http` URLs.
    pub http: Secret,
    /// The proxy where the other two are silent.
    pub all: Secret,
    /// What is asked without a proxy: names (with all below them), addresses, networks, `*`; separated by commas.
    pub no_proxy: String,
}

impl ProxyEnvironment {
    /// Reads the environment; capitals come before small letters, as curl does it.
    #[must_use]
    pub fn read() -> Self {
        Self {
            https: Secret::new(first_of(["HTTPS_PROXY", "https_proxy"])),
            http: Secret::new(first_of(["HTTP_PROXY", "http_proxy"])),
            all: Secret::new(first_of(["ALL_PROXY", "all_proxy"])),
            no_proxy: first_of(["NO_PROXY", "no_proxy"]),
        }
    }

    /// No proxy at all.
    #[must_use]
    pub fn none() -> Self {
        let nothing = || Secret::new("");
        Self {
            https: nothing(),
            http: nothing(),
            all: nothing(),
            no_proxy: String::new(),
        }
    }
}

fn first_of(names: [&str; 2]) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "config is where the environment is read"
    )]
    let value = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    names.into_iter().find_map(value).unwrap_or_default()
}

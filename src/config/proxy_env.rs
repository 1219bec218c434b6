//! `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`: the way to the provider where the network has only one.

/// The proxies that the environment names; in lower case first, as is the custom.
#[derive(Clone, Debug, Default)]
pub struct ProxyEnvironment {
    /// For http.
    pub http: Option<String>,
    /// For https.
    pub https: Option<String>,
    /// What is reached without any.
    pub no: Option<String>,
}

impl ProxyEnvironment {
    /// Reads the environment.
    #[must_use]
    pub fn read() -> Self {
        #[expect(clippy::disallowed_methods, reason = "config is what reads the environment")]
        let one = |name: &str| {
            [name.to_lowercase(), name.to_owned()]
                .into_iter()
                .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        };
        Self {
            http: one("HTTP_PROXY"),
            https: one("HTTPS_PROXY").or_else(|| one("ALL_PROXY")),
            no: one("NO_PROXY"),
        }
    }
}

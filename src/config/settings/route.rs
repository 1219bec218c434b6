//! `routes`: what is served where, to whom.

use crate::config::one_or_many;
use crate::config::units;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const fn default_timeout() -> Duration {
    Duration::from_secs(30)
}

/// One route.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    /// Begins with `/`; no trailing slash except for `/` itself. Matched on whole segments.
    pub path: String,
    /// Where requests go: an http or https origin, a socket as in `unix:/run/orders.sock`, or a list of them.
    #[serde(default, deserialize_with = "one_or_many::deserialize")]
    #[schemars(with = "one_or_many::OneOrMany<String>")]
    pub upstream: Vec<String>,
    /// Files to serve instead.
    #[serde(default, rename = "static")]
    pub files: Option<Files>,
    /// Who may pass. Default: `required` with an upstream, `none` with files.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// Whether a navigation from elsewhere may land here. Default: true for files and for the path `/`.
    #[serde(default)]
    pub pages: Option<bool>,
    /// How cross-site requests are told from our own.
    #[serde(default)]
    pub csrf: Csrf,
    /// What the session must bring, else 403.
    #[serde(default)]
    pub require: Require,
    /// Whether the route's path is cut off before the request goes up.
    #[serde(default)]
    pub strip_prefix: bool,
    /// The version of HTTP that the upstream speaks.
    #[serde(default)]
    pub protocol: Protocol,
    /// The `Host` that the upstream sees.
    #[serde(default)]
    pub host: HostMode,
    /// What happens to `%2F` in the path.
    #[serde(default)]
    pub encoded_slash: EncodedSlash,
    /// What happens to the browser's own `Authorization`.
    #[serde(default)]
    pub authorization: AuthorizationMode,
    /// How long until the upstream's response head.
    #[serde(default = "default_timeout", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
    /// The largest request body; no limit by default.
    #[serde(default, deserialize_with = "units::optional_size")]
    #[schemars(with = "Option<units::SizeText>")]
    pub body_limit: Option<u64>,
    /// A PEM file of authorities trusted for an https upstream, beside the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

impl RouteSettings {
    /// Who may pass, with the default that depends on what is served.
    #[must_use]
    pub fn auth(&self) -> Auth {
        self.auth.unwrap_or(if self.files.is_some() {
            Auth::None
        } else {
            Auth::Required
        })
    }

    /// Whether a navigation from elsewhere may land here, with the default that depends on what is served.
    #[must_use]
    pub fn pages(&self) -> bool {
        self.pages.unwrap_or(self.files.is_some() || self.path == "/")
    }
}

/// Files to serve.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The folder.
    pub root: PathBuf,
    /// What answers where no file is, for a single-page app: usually `index.html`.
    #[serde(default)]
    pub fallback: Option<String>,
}

/// Who may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Only with a session.
    Required,
    /// With or without one.
    Optional,
    /// Everybody; the session is not looked at.
    None,
}

/// How cross-site requests are told from our own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Csrf {
    /// `Sec-Fetch-Site`, `Origin`, then `X-CSRF`.
    #[default]
    Auto,
    /// Also `X-CSRF: 1` on every request but WebSocket upgrades.
    Header,
    /// Not at all.
    Off,
}

/// What the session must bring.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Require {
    /// All of these scopes.
    pub scopes: Vec<String>,
    /// Every claim listed; any one of its values suffices. Dots descend.
    pub claims: BTreeMap<String, Vec<String>>,
}

/// The version of HTTP that an upstream speaks. Upgrades go over HTTP/1.1 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/2 where an https upstream chooses it in the TLS handshake, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in clear text, by prior knowledge: gRPC servers inside a cluster.
    H2c,
}

/// The `Host` that the upstream sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostMode {
    /// The upstream's own name.
    #[default]
    Rewrite,
    /// `public_url`'s.
    Keep,
}

/// What happens to `%2F` in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodedSlash {
    /// 400.
    #[default]
    Refuse,
    /// It goes up as sent.
    Pass,
}

/// What happens to the browser's own `Authorization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthorizationMode {
    /// It is dropped.
    #[default]
    Replace,
    /// It goes up; only with `auth: none`.
    Pass,
}

//! Every key of the config: its type, its default and its meaning, once.
//!
//! Read at start, before the first request. From these definitions come the JSON Schema (`cloakroom schema`), the
//! checks of the file and the names of the environment variables; `config/reference.yaml` is tested against them.
//! There is no second list of keys anywhere.

mod provider;
mod route;
mod server;
mod session;

pub use provider::*;
pub use route::*;
pub use server::*;
pub use session::*;

use super::units;
use crate::protocol::origin::PublicUrl;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

fn default_prefix() -> String {
    "/bff".into()
}

/// The whole config, checked: what `config::load` returns.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The origin that browsers see. It decides redirect URIs, cookies and origin checks.
    #[schemars(with = "units::OriginText")]
    pub public_url: PublicUrl,
    /// Where cloakroom's own endpoints live.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// Listeners and stopping.
    #[serde(default)]
    pub server: Server,
    /// `OpenID` Providers by name (`[a-z0-9_]+`); with one, `/bff/login` goes straight there. In the file's order.
    #[serde(deserialize_with = "super::providers_from_map")]
    #[schemars(
        with = "BTreeMap<String, ProviderSettings>",
        extend("propertyNames" = { "pattern": "^[a-z0-9_]+$" }, "minProperties" = 1)
    )]
    pub providers: Vec<ProviderSettings>,
    /// Sessions: cookie, lifetimes, keys, store.
    #[serde(default)]
    pub session: SessionSettings,
    /// After a login.
    #[serde(default)]
    pub login: Landing,
    /// After a logout.
    #[serde(default)]
    pub logout: Landing,
    /// What is served where: the longest matching path wins, on whole segments.
    #[serde(default)]
    pub routes: Vec<RouteSettings>,
    /// Limits for strangers.
    #[serde(default)]
    pub limits: Limits,
    /// What `/readyz` depends on.
    #[serde(default)]
    pub readiness: Readiness,
    /// Logs, on stderr.
    #[serde(default)]
    pub log: LogSettings,
}

/// What has to be registered at a provider, to the letter, for sign-in and sign-out to lead back here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The provider's name.
    pub provider: String,
    /// Where a login comes back to.
    pub redirect_uri: String,
    /// Where a logout comes back to.
    pub post_logout_redirect_uri: String,
    /// Where the provider says that somebody signed out there; under one of `server.hosts` it will do as well.
    pub backchannel_logout_uri: String,
    /// Where the provider's page says so, if it may.
    pub frontchannel_logout_uri: Option<String>,
}

impl Settings {
    /// What has to be registered at each provider, in the config's order.
    #[must_use]
    pub fn registrations(&self) -> Vec<Registration> {
        let own = |endpoint: &str| self.public_url.url(&format!("{}/{endpoint}", self.prefix));
        let registration = |provider: &ProviderSettings| Registration {
            provider: provider.name.clone(),
            redirect_uri: self
                .public_url
                .url(provider.redirect_path.as_deref().unwrap_or_default()),
            post_logout_redirect_uri: self.public_url.url(&self.logout.landing),
            backchannel_logout_uri: own("backchannel-logout"),
            frontchannel_logout_uri: provider.frontchannel_logout.then(|| own("frontchannel-logout")),
        };
        self.providers.iter().map(registration).collect()
    }

    /// Gives every provider without a `redirect_path` its own: `PREFIX/callback` for the first one,
    /// `PREFIX/callback/NAME` for the others.
    pub(super) fn name_redirect_paths(&mut self) {
        let prefix = &self.prefix;
        for (i, provider) in self.providers.iter_mut().enumerate() {
            let name = &provider.name;
            provider.redirect_path.get_or_insert_with(|| {
                if i == 0 {
                    format!("{prefix}/callback")
                } else {
                    format!("{prefix}/callback/{name}")
                }
            });
        }
    }
}

/// Where a login or logout ends.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Landing {
    /// A path on `public_url`.
    pub landing: String,
}

/// Limits for strangers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Logins begun per client address, such as `30/m`; `off` by default. Beyond it: 429 with `Retry-After`.
    #[serde(with = "units::rate")]
    #[schemars(with = "units::RateText")]
    pub logins_per_address: Option<units::Rate>,
}

/// What `/readyz` depends on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Readiness {
    /// Whether a store outage makes `/readyz` answer 503.
    pub store: bool,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// `json`, one object a line, or `text`. Default: text on a terminal, else json.
    pub format: Option<LogFormat>,
    /// The least severe level that is logged.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures that need a person.
    Error,
    /// What is allowed but unwise, or went wrong and was survived.
    Warn,
    /// What happened.
    Info,
    /// Why it happened.
    Debug,
    /// Everything.
    Trace,
}

impl Default for Landing {
    fn default() -> Self {
        Self { landing: "/".into() }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: None,
            level: LogLevel::Info,
        }
    }
}

//! Every key of the config: its type, its default and its meaning, once.
//!
//! Read at start, before the first request. From these definitions come the JSON Schema (`cloakroom schema`), the
//! reference (`config/reference.yaml`) and the checks; there is no second list of keys anywhere.

use super::secrets::SecretSource;
use super::units;
use crate::protocol::origin::PublicUrl;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The whole config, checked: what `config::load` returns.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The origin that browsers see. It decides redirect URIs, cookies and origin checks.
    #[schemars(with = "String")]
    pub public_url: PublicUrl,
    /// Where cloakroom's own endpoints live.
    #[serde(default = "defaults::prefix")]
    pub prefix: String,
    /// Listeners and stopping.
    #[serde(default)]
    pub server: Server,
    /// `OpenID` Providers by name (`[a-z0-9_]+`); with one, `/bff/login` goes straight there. In the file's order.
    #[serde(deserialize_with = "super::providers_from_map")]
    #[schemars(with = "BTreeMap<String, ProviderSettings>")]
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

/// Listeners and stopping.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Where browsers are listened to: an address, or a list of them.
    #[serde(deserialize_with = "units::one_or_many_addresses::deserialize")]
    #[schemars(with = "units::OneOrMany<String>")]
    pub listen: Vec<SocketAddr>,
    /// Where health, readiness and metrics are served.
    #[schemars(with = "String")]
    pub admin: SocketAddr,
    /// The bearer token for `/sessions` on the admin listener.
    pub admin_token: Option<SecretSource>,
    /// Where an ingress asks whether a request may pass; off by default, needs `trusted_proxies`.
    #[schemars(with = "Option<String>")]
    pub forward_auth: Option<SocketAddr>,
    /// How the ingress names the original request.
    pub forward_auth_dialect: Dialect,
    /// Further names under which `/bff/backchannel-logout` may be called (in-cluster).
    pub hosts: Vec<String>,
    /// Certificate and key for TLS on `listen`.
    pub tls: Option<Tls>,
    /// Networks whose `X-Forwarded-*` is believed.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// After a stop signal: readiness is false, requests are still accepted.
    #[serde(deserialize_with = "units::duration::deserialize")]
    #[schemars(with = "units::DurationText")]
    pub drain_delay: Duration,
    /// Then requests under way may finish.
    #[serde(deserialize_with = "units::duration::deserialize")]
    #[schemars(with = "units::DurationText")]
    pub drain_timeout: Duration,
    /// How long a browser may take to send a request's head.
    #[serde(deserialize_with = "units::duration::deserialize")]
    #[schemars(with = "units::DurationText")]
    pub header_timeout: Duration,
    /// The largest request head, in bytes.
    #[serde(deserialize_with = "units::size::deserialize")]
    #[schemars(with = "units::SizeText")]
    pub max_header_size: u64,
    /// The most header lines in a request.
    pub max_headers: usize,
    /// The most connections at one time, on all public listeners together.
    pub max_connections: usize,
}

/// How an ingress names the original request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri`: Traefik, Caddy.
    Forwarded,
    /// `X-Original-URL`, `X-Original-Method`: nginx.
    Nginx,
}

/// Certificate and key, PEM.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// One `OpenID` Provider.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// The provider's name: its key in `providers`.
    #[serde(skip)]
    pub name: String,
    /// The issuer identifier, to the letter; https, loopback excepted.
    pub issuer: String,
    /// How the provider knows cloakroom.
    pub client_id: String,
    /// A secret, or a list while rotating: the first is tried first.
    #[serde(deserialize_with = "super::secrets::one_or_many::deserialize")]
    #[schemars(with = "units::OneOrMany<SecretSource>")]
    pub client_secret: Vec<SecretSource>,
    /// How the secret is sent (`OpenID` Connect Core §9). Default: what the provider's metadata offers, Basic first.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Scopes asked for.
    #[serde(default = "defaults::scopes")]
    pub scopes: Vec<String>,
    /// Whether the userinfo endpoint is asked.
    #[serde(default)]
    pub userinfo: Userinfo,
    /// A PEM file of authorities trusted for this provider, beside the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Where the discovery document is, if not at the issuer.
    #[serde(default)]
    pub discovery_url: Option<String>,
    /// Endpoints that override what discovery says.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// How long an access token lives where the provider sends no `expires_in`.
    #[serde(
        default = "defaults::default_token_lifetime",
        deserialize_with = "units::duration::deserialize"
    )]
    #[schemars(with = "units::DurationText")]
    pub default_token_lifetime: Duration,
    /// The path of the redirect URI. Default: `/bff/callback` for the first provider, `/bff/callback/NAME` for the others.
    #[serde(default)]
    pub redirect_path: Option<String>,
    /// What the sign-in page calls this provider. Default: its name.
    #[serde(default)]
    pub label: Option<String>,
}

/// How the client secret is sent to the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// What the provider's metadata offers; `client_secret_basic` where it says nothing.
    #[default]
    Auto,
    /// HTTP Basic, form-urlencoded first (RFC 6749 §2.3.1).
    ClientSecretBasic,
    /// In the request's body.
    ClientSecretPost,
}

/// When the userinfo endpoint is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Userinfo {
    /// Never.
    #[default]
    Never,
    /// At login and at each refresh: its claims join the ID token's.
    OnLogin,
}

/// Endpoints that override what discovery says.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoints {
    /// Where the browser is sent to sign in.
    pub authorization: Option<String>,
    /// Where codes and refresh tokens are exchanged.
    pub token: Option<String>,
    /// Where the signing keys are.
    pub jwks: Option<String>,
    /// Where claims are asked for.
    pub userinfo: Option<String>,
    /// Where tokens are revoked (RFC 7009).
    pub revocation: Option<String>,
    /// Where the browser is sent to sign out.
    pub end_session: Option<String>,
}

/// Sessions.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionSettings {
    /// The session cookie.
    pub cookie: Cookie,
    /// A session ends when nothing was asked for this long.
    #[serde(deserialize_with = "units::duration::deserialize")]
    #[schemars(with = "units::DurationText")]
    pub idle_timeout: Duration,
    /// A session ends this long after login, whatever happens.
    #[serde(deserialize_with = "units::duration::deserialize")]
    #[schemars(with = "units::DurationText")]
    pub absolute_timeout: Duration,
    /// A token with less left than this (or than half its lifetime, if that is less) is refreshed in the background.
    #[serde(deserialize_with = "units::duration::deserialize")]
    #[schemars(with = "units::DurationText")]
    pub refresh_before: Duration,
    /// The claims that `/bff/user` shows.
    pub claims: Vec<String>,
    /// Session encryption keys: the first seals, all open. A memory store makes its own.
    pub keys: Vec<SecretSource>,
    /// A local cache of opened sessions, or `off`.
    pub cache: Cache,
    /// Where sessions are kept.
    pub store: StoreSettings,
}

/// The session cookie.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cookie {
    /// Its name; begins with `__Host-`.
    pub name: String,
    /// `SameSite`.
    pub same_site: SameSite,
    /// Whether it outlives the browser (`Max-Age`, the absolute timeout).
    pub persistent: bool,
}

/// The cookie attribute of that name (RFC 6265bis §5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Sent with requests from our own site only.
    Strict,
    /// Also with top-level navigations from elsewhere.
    Lax,
    /// Always.
    None,
}

/// The local cache of opened sessions.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Cache {
    /// `off`: the store is read on every request.
    Off(Off),
    /// On.
    On(CacheLimits),
}

/// The word `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Off {
    /// `off`
    Off,
}

/// Bounds of the local cache.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheLimits {
    /// How long an opened session may be served from memory.
    #[serde(deserialize_with = "units::duration::deserialize")]
    #[schemars(with = "units::DurationText")]
    pub ttl: Duration,
    /// The most sessions in it.
    pub max: usize,
}

/// Where sessions are kept: exactly one of these.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum StoreSettings {
    /// In this process: one machine, lost on restart.
    Memory(MemoryLimits),
    /// In Redis, shared by all replicas.
    Redis(RedisSettings),
}

/// Bounds of the memory store.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryLimits {
    /// The most sessions; beyond it the longest idle goes first.
    pub max_sessions: usize,
}

/// How Redis is reached.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://` or `rediss://`, with user, password and database index.
    #[serde(default)]
    pub url: Option<SecretSource>,
    /// The password, where it should not stand in the URL.
    #[serde(default)]
    pub password: Option<SecretSource>,
    /// A PEM file of authorities trusted for `rediss://`, instead of the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// What every key begins with.
    #[serde(default = "defaults::key_prefix")]
    pub key_prefix: String,
    /// Sentinel: how the primary is found.
    #[serde(default)]
    pub sentinel: Option<Sentinel>,
    /// Cluster: nodes to begin with.
    #[serde(default)]
    pub cluster: Option<Vec<SecretSource>>,
}

/// Redis Sentinel.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sentinel {
    /// The name of the monitored primary.
    pub master: String,
    /// The sentinels.
    pub urls: Vec<SecretSource>,
}

/// Where a login or logout ends.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Landing {
    /// A path on `public_url`.
    pub landing: String,
}

/// One route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    /// Begins with `/`; no trailing slash except for `/` itself. Matched on whole segments.
    pub path: String,
    /// Where requests go: an http or https origin, or a list of them.
    #[serde(default, deserialize_with = "units::one_or_many_strings::deserialize")]
    #[schemars(with = "units::OneOrMany<String>")]
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
    #[serde(
        default = "defaults::route_timeout",
        deserialize_with = "units::duration::deserialize"
    )]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
    /// The largest request body; no limit by default.
    #[serde(default, deserialize_with = "units::optional_size::deserialize")]
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
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The folder.
    pub root: PathBuf,
    /// What answers where no file is, for a single-page app: usually `index.html`.
    #[serde(default)]
    pub fallback: Option<String>,
}

/// Who may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Require {
    /// All of these scopes.
    pub scopes: Vec<String>,
    /// Every claim listed; any one of its values suffices. Dots descend.
    pub claims: BTreeMap<String, Vec<String>>,
}

/// The `Host` that the upstream sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostMode {
    /// The upstream's own name.
    #[default]
    Rewrite,
    /// `public_url`'s.
    Keep,
}

/// What happens to `%2F` in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodedSlash {
    /// 400.
    #[default]
    Refuse,
    /// It goes up as sent.
    Pass,
}

/// What happens to the browser's own `Authorization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthorizationMode {
    /// It is dropped.
    #[default]
    Replace,
    /// It goes up; only with `auth: none`.
    Pass,
}

/// Limits for strangers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Logins begun per client address, such as `30/m`; `off` by default. Beyond it: 429 with `Retry-After`.
    #[serde(deserialize_with = "units::rate::deserialize")]
    #[schemars(with = "String")]
    pub logins_per_address: Option<units::Rate>,
}

/// What `/readyz` depends on.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Readiness {
    /// Whether a store outage makes `/readyz` answer 503.
    pub store: bool,
}

/// Logs.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// `json`, one object a line, or `text`. Default: text on a terminal, else json.
    pub format: Option<LogFormat>,
    /// The least severe level that is logged.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
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

/// Defaults that are more than a literal.
mod defaults {
    use std::time::Duration;

    pub fn prefix() -> String {
        "/bff".into()
    }
    pub fn scopes() -> Vec<String> {
        ["openid", "profile", "offline_access"].map(String::from).to_vec()
    }
    pub const fn default_token_lifetime() -> Duration {
        Duration::from_secs(300)
    }
    pub fn key_prefix() -> String {
        "cloakroom:".into()
    }
    pub const fn route_timeout() -> Duration {
        Duration::from_secs(30)
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 8080))],
            admin: SocketAddr::from(([127, 0, 0, 1], 9090)),
            admin_token: None,
            forward_auth: None,
            forward_auth_dialect: Dialect::Forwarded,
            hosts: Vec::new(),
            tls: None,
            trusted_proxies: Vec::new(),
            drain_delay: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(20),
            header_timeout: Duration::from_secs(10),
            max_header_size: 32 * 1024,
            max_headers: 100,
            max_connections: 10_000,
        }
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            cookie: Cookie::default(),
            idle_timeout: Duration::from_secs(30 * 60),
            absolute_timeout: Duration::from_secs(12 * 3600),
            refresh_before: Duration::from_secs(60),
            claims: [
                "sub",
                "name",
                "given_name",
                "family_name",
                "middle_name",
                "nickname",
                "preferred_username",
                "profile",
                "picture",
                "website",
                "gender",
                "birthdate",
                "zoneinfo",
                "locale",
                "updated_at",
                "email",
                "email_verified",
                "groups",
                "roles",
            ]
            .map(String::from)
            .to_vec(),
            keys: Vec::new(),
            cache: Cache::On(CacheLimits::default()),
            store: StoreSettings::Memory(MemoryLimits::default()),
        }
    }
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            name: "__Host-Http-cloakroom".into(),
            same_site: SameSite::Strict,
            persistent: false,
        }
    }
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            max: 10_000,
        }
    }
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            max_sessions: 100_000,
        }
    }
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

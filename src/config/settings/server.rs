//! `server`: listeners, limits on what arrives, stopping.

use crate::config::one_or_many;
use crate::config::secrets::SecretSource;
use crate::config::units;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Listeners and stopping.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Where browsers are listened to: an address, or a list of them.
    #[serde(deserialize_with = "one_or_many::deserialize")]
    #[schemars(with = "one_or_many::OneOrMany<units::AddressText>")]
    pub listen: Vec<SocketAddr>,
    /// Where health, readiness and metrics are served.
    #[schemars(with = "units::AddressText")]
    pub admin: SocketAddr,
    /// TLS on `admin`, and whose clients it takes. By default it speaks plain http.
    pub admin_tls: Option<AdminTls>,
    /// The bearer token for `/sessions` on the admin listener, where sessions are listed and ended. Without one there is no
    /// `/sessions`.
    pub admin_token: Option<SecretSource>,
    /// Where an ingress asks whether a request may pass, and is told the token: an address that browsers never reach. Off
    /// by default; needs `trusted_proxies`, who alone may ask.
    #[schemars(with = "Option<units::AddressText>")]
    pub forward_auth: Option<SocketAddr>,
    /// How the ingress names the original request.
    pub forward_auth_dialect: Dialect,
    /// Further host names under which the provider may call `/bff/backchannel-logout`, and nothing else, from inside the
    /// cluster: with a port, on that one; without, on any.
    pub hosts: Vec<String>,
    /// Certificate and key for TLS on `listen`, with HTTP/2 by ALPN; or a list of such pairs. Of several, a browser gets
    /// the first that holds the name it asks for and whose key it knows how to check; where none holds it, or it names
    /// none, the first. The files are read again when they change, each pair by itself.
    #[serde(deserialize_with = "one_or_many::deserialize")]
    #[schemars(with = "one_or_many::OneOrMany<TlsFiles>")]
    pub tls: Vec<TlsFiles>,
    /// Where plain http is answered with a redirect to `public_url`, which has to be https: an address, or a list of them.
    /// Off by default. Only pages are led on; what else comes in clear is refused.
    #[serde(deserialize_with = "one_or_many::deserialize")]
    #[schemars(with = "one_or_many::OneOrMany<units::AddressText>")]
    pub redirect: Vec<SocketAddr>,
    /// Networks (or single addresses) whose `X-Forwarded-For` is believed, and who may ask on `forward_auth`; nobody's by
    /// default.
    #[serde(deserialize_with = "units::networks")]
    #[schemars(with = "Vec<units::NetworkText>")]
    pub trusted_proxies: Vec<IpNet>,
    /// After a stop signal: readiness is false, requests are still accepted.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub drain_delay: Duration,
    /// Then requests under way may finish.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub drain_timeout: Duration,
    /// How long a browser may take to send a request's head.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub header_timeout: Duration,
    /// The largest request head, in bytes; a single line may take half of it.
    #[serde(with = "units::size")]
    #[schemars(with = "units::SizeText")]
    pub max_header_size: u64,
    /// The most header lines in a request.
    pub max_headers: usize,
    /// The most connections at one time, on all public listeners together.
    pub max_connections: usize,
}

/// How an ingress names the original request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri`: Traefik, Caddy.
    Forwarded,
    /// `X-Original-URL`, `X-Original-Method`: nginx.
    Nginx,
}

/// Certificate and key, PEM.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The own certificate first, then its chain.
    pub cert: PathBuf,
    /// The certificate's private key, not encrypted.
    pub key: PathBuf,
}

/// TLS on the admin listener: PEM files, read again when they change.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// The own certificate first, then its chain.
    pub cert: PathBuf,
    /// The certificate's private key, not encrypted.
    pub key: PathBuf,
    /// The authority of those who may connect: who shows no certificate of it is refused in the handshake. Without it
    /// anybody may.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

impl AdminTls {
    /// Certificate and key.
    #[must_use]
    pub fn pair(&self) -> TlsFiles {
        TlsFiles {
            cert: self.cert.clone(),
            key: self.key.clone(),
        }
    }

    /// Whether everybody who comes has shown who it is.
    #[must_use]
    pub fn knows_its_clients(&self) -> bool {
        self.client_ca.is_some()
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 8080))],
            admin: SocketAddr::from(([127, 0, 0, 1], 9090)),
            admin_tls: None,
            admin_token: None,
            forward_auth: None,
            forward_auth_dialect: Dialect::Forwarded,
            hosts: Vec::new(),
            tls: Vec::new(),
            redirect: Vec::new(),
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

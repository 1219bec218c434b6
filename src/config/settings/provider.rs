//! `providers`: who signs people in.

use crate::config::one_or_many;
use crate::config::secrets::SecretSource;
use crate::config::units;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

fn default_scopes() -> Vec<String> {
    ["openid", "profile", "offline_access"].map(String::from).to_vec()
}

const fn default_token_lifetime() -> Duration {
    Duration::from_mins(5)
}

/// One `OpenID` Provider.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
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
    #[serde(deserialize_with = "one_or_many::deserialize")]
    #[schemars(with = "one_or_many::OneOrMany<SecretSource>")]
    pub client_secret: Vec<SecretSource>,
    /// How the secret is sent (`OpenID` Connect Core §9). Default: what the provider's metadata offers, Basic first.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Scopes asked for.
    #[serde(default = "default_scopes")]
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
    #[serde(default = "default_token_lifetime", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub default_token_lifetime: Duration,
    /// The path of the redirect URI. Default: `/bff/callback` for the first provider, `/bff/callback/NAME` for the
    /// others; once loaded it is always there.
    #[serde(default)]
    pub redirect_path: Option<String>,
    /// What the sign-in page calls this provider. Default: its name.
    #[serde(default)]
    pub label: Option<String>,
    /// Whether `/bff/frontchannel-logout` ends sessions of this provider. Off by default: nobody signs that call, and
    /// browsers that keep third-party cookies from the provider's frames do not make it. Back-channel logout needs no setting.
    #[serde(default)]
    pub frontchannel_logout: bool,
}

/// How the client secret is sent to the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Userinfo {
    /// Never.
    #[default]
    Never,
    /// At login and at each refresh: its claims join the ID token's.
    OnLogin,
}

/// Endpoints that override what discovery says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
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

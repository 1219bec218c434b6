//! `cloakroom check --online`: can the provider be asked, and if not, what to do about it?

use super::http::CALL_LIMIT;
use super::{Provider, ProviderError, requests};
use crate::config::ClientAuth;
use std::time::Duration;
use tokio::time::Instant;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnlineStep {
    /// What was tried, and where.
    pub tried: String,
    /// How long it took.
    pub took: Duration,
    /// What failed, and what to do about it.
    pub outcome: Result<(), String>,
}

impl Provider {
    /// Asks the provider for its metadata and its keys, whatever is known already, and says how that went.
    pub async fn check_online(&self) -> Vec<OnlineStep> {
        let name = &self.settings.name;
        let mut steps = Vec::new();
        let url = self.source.discovery_url();
        let began = Instant::now();
        let found = self.source.fetch_metadata(CALL_LIMIT).await;
        // Where the config names all that a login needs, the rest is welcome but not needed.
        let in_config = self.source.metadata_at_hand();
        steps.push(OnlineStep {
            tried: format!("discovery at {url}"),
            took: began.elapsed(),
            outcome: match &found {
                Err(error) if in_config.is_none() => Err(format!("{error}; {}", advice(error, name))),
                _ => Ok(()),
            },
        });
        let Some(metadata) = found.ok().or_else(|| in_config.as_deref().cloned()) else {
            return steps;
        };
        let began = Instant::now();
        let keys = self.source.fetch_keys(&metadata.jwks_uri, CALL_LIMIT).await;
        steps.push(OnlineStep {
            tried: format!("signing keys at {}", metadata.jwks_uri),
            took: began.elapsed(),
            outcome: match keys {
                Ok(keys) if keys.is_empty() => Err(
                    "there is no key that could verify an ID token; let the provider sign with RS256, PS256, ES256 or \
                     EdDSA (HS256 and encrypted tokens are not supported)"
                        .to_owned(),
                ),
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error}; {}", advice(&error, name))),
            },
        });
        steps.push(OnlineStep {
            tried: "client authentication".to_owned(),
            took: Duration::ZERO,
            outcome: self.check_client_auth(&metadata),
        });
        steps
    }

    /// RFC 8414 §2: what the token endpoint understands. A provider that lists methods refuses the others.
    fn check_client_auth(&self, metadata: &crate::protocol::metadata::Metadata) -> Result<(), String> {
        let method = match requests::method(self.settings.client_auth, metadata) {
            oauth2::AuthType::RequestBody => "client_secret_post",
            _ => "client_secret_basic",
        };
        for source in &self.settings.client_secret {
            source
                .current()
                .map_err(|fault| format!("a client secret cannot be read: {fault}"))?;
        }
        match &metadata.client_auth_methods {
            Some(offered) if !offered.iter().any(|one| one == method) => {
                let remedy = match self.settings.client_auth {
                    ClientAuth::Auto => "let the client authenticate with a secret at the provider",
                    _ => "leave out client_auth, or change it at the provider",
                };
                Err(format!("the provider does not offer {method}; {remedy}"))
            }
            _ => Ok(()),
        }
    }
}

fn advice(error: &ProviderError, name: &str) -> String {
    match error {
        ProviderError::Away(_) => format!(
            "check that its name resolves and its port is open from here (HTTPS_PROXY and NO_PROXY count); for an \
             unknown certificate issuer, name its PEM file in providers.{name}.ca"
        ),
        ProviderError::Bad(_) | ProviderError::Mismatch(_) => {
            format!("compare providers.{name}.issuer with the issuer that the provider itself names")
        }
    }
}

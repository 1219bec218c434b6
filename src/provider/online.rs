//! What `cloakroom check --online` asks of a provider.

use super::{Provider, discovery};
use std::time::{Duration, Instant};

/// One step of the check.
#[derive(Clone, Debug)]
pub struct OnlineStep {
    /// What was tried.
    pub tried: String,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, with what to do about it.
    pub outcome: Result<(), String>,
}

impl Provider {
    /// Discovery, then the signing keys.
    pub async fn check_online(&self) -> Vec<OnlineStep> {
        let settings = &self.settings;
        let issuer = &settings.issuer;
        let began = Instant::now();
        let found = discovery::discover(&self.http, settings).await;
        let mut steps = vec![OnlineStep {
            tried: format!("discovery of {issuer}"),
            took: began.elapsed(),
            outcome: found.as_ref().map(|_| ()).map_err(|error| {
                format!("{error}. Is `issuer` right to the letter, and can this machine reach it (HTTPS_PROXY, `ca`)?")
            }),
        }];
        let from_discovery = found.ok().and_then(|metadata| metadata.jwks);
        if let Some(url) = settings.endpoints.jwks.clone().or(from_discovery) {
            let began = Instant::now();
            let keys = discovery::fetch_keys(&self.http, &url).await;
            steps.push(OnlineStep {
                tried: format!("signing keys at {url}"),
                took: began.elapsed(),
                outcome: keys
                    .map(|_| ())
                    .map_err(|error| format!("{error}. Set `endpoints.jwks` if they are elsewhere")),
            });
        }
        steps
    }
}

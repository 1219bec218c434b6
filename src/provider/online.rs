//! `cloakroom check --online`: can the provider be asked, and if not, what to do about it?

use super::http::CALL_LIMIT;
use super::{Provider, advice, requests};
use crate::config::ClientAuth;
use crate::protocol::authorization::{AttemptSecrets, Wishes, known_error};
use crate::protocol::metadata::Metadata;
use crate::protocol::query::{self, Parameter};
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
    /// What could not be told although nothing failed.
    pub doubt: Option<String>,
}

impl OnlineStep {
    fn new(tried: impl Into<String>, began: Instant, outcome: Result<(), String>) -> Self {
        Self {
            tried: tried.into(),
            took: began.elapsed(),
            outcome,
            doubt: None,
        }
    }
}

impl Provider {
    /// Asks the provider for its metadata and its keys, whatever is known already, and for a login that nobody sees, and
    /// says how that went. `redirect_uri` is ours there.
    pub async fn check_online(&self, redirect_uri: &str) -> Vec<OnlineStep> {
        let name = &self.settings.name;
        let mut steps = Vec::new();
        let began = Instant::now();
        let found = self.source.fetch_metadata(CALL_LIMIT).await;
        // Where the config names all that a login needs, the rest is welcome but not needed.
        let in_config = self.source.metadata_at_hand();
        let outcome = match &found {
            Err(error) if in_config.is_none() => Err(format!("{error}; {}", advice::on_error(error, name))),
            _ => Ok(()),
        };
        let tried = format!("discovery at {}", self.source.discovery_url());
        steps.push(OnlineStep::new(tried, began, outcome));
        let Some(metadata) = found.ok().or_else(|| in_config.as_deref().cloned()) else {
            return steps;
        };
        let began = Instant::now();
        let keys = self.source.fetch_keys(&metadata.jwks_uri, CALL_LIMIT).await;
        let outcome = match keys {
            Ok(keys) if keys.is_empty() => Err(
                "there is no key that could verify an ID token; let the provider sign with RS256, PS256, ES256 or \
                 EdDSA (HS256 and encrypted tokens are not supported)"
                    .to_owned(),
            ),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error}; {}", advice::on_error(&error, name))),
        };
        let tried = format!("signing keys at {}", metadata.jwks_uri);
        steps.push(OnlineStep::new(tried, began, outcome));
        let outcome = self.check_client_auth(&metadata);
        steps.push(OnlineStep::new("client authentication", Instant::now(), outcome));
        steps.extend(self.check_clock());
        steps.push(self.check_sign_in(&metadata, redirect_uri).await);
        steps
    }

    /// RFC 8414 §2: what the token endpoint understands. A provider that lists methods refuses the others.
    fn check_client_auth(&self, metadata: &Metadata) -> Result<(), String> {
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

    /// The provider's clock as its answers showed it; nothing where they did not.
    fn check_clock(&self) -> Option<OnlineStep> {
        let (offset, is_far) = self.source.clock_offset()?;
        let outcome = if is_far {
            let seconds = offset.unsigned_abs();
            let side = if offset > 0 { "ahead of" } else { "behind" };
            Err(format!(
                "the provider's clock is {seconds} s {side} ours: ID tokens will be refused as expired or from the \
                 future; set both by NTP"
            ))
        } else {
            Ok(())
        };
        Some(OnlineStep::new("clock", Instant::now(), outcome))
    }

    /// Asks for a login that shows nothing (`prompt=none`): a provider that knows client and redirect URI answers by
    /// sending the browser back there (Core §3.1.2.6), and one that does not MUST NOT (RFC 6749 §4.1.2.1).
    async fn check_sign_in(&self, metadata: &Metadata, redirect_uri: &str) -> OnlineStep {
        let (name, began) = (&self.settings.name, Instant::now());
        let tried = format!("sign-in with the redirect URI {redirect_uri}");
        let wishes = Wishes {
            prompt: Some("none".to_owned()),
            ..Wishes::default()
        };
        let url = self.authorization_request(metadata, redirect_uri, &AttemptSecrets::fresh(), &wishes);
        let mut request = http::Request::new(Vec::new());
        match url.map(|url| url.parse()) {
            Ok(Ok(url)) => *request.uri_mut() = url,
            Ok(Err(_)) => {
                return OnlineStep::new(tried, began, Err("the authorization endpoint is no URL".into()));
            }
            Err(fault) => return OnlineStep::new(tried, began, Err(fault.to_string())),
        }
        let answer = self.source.ask("authorization", request, CALL_LIMIT).await;
        let mut step = OnlineStep::new(tried, began, Ok(()));
        let doubt = match answer {
            Ok(answer) => match answer.location().and_then(|to| to.strip_prefix(redirect_uri)) {
                Some(rest) => {
                    step.outcome = check_redirect(rest, name);
                    return step;
                }
                None if answer.status == 400 => {
                    step.outcome = Err(format!(
                        "the provider refuses it with status 400: register exactly this redirect URI there, and \
                         compare providers.{name}.client_id"
                    ));
                    return step;
                }
                None => format!(
                    "the provider answers with status {} and a page of its own",
                    answer.status
                ),
            },
            // Browsers go there, and their way may be another one than ours.
            Err(error) => error.to_string(),
        };
        step.doubt = Some(format!(
            "it cannot be told from here whether the provider knows this redirect URI ({doubt}); try it in a browser"
        ));
        step
    }
}

/// What the way back to our redirect URI says.
fn check_redirect(rest: &str, name: &str) -> Result<(), String> {
    let parameters = query::readable(rest.split('#').next().unwrap_or_default().trim_start_matches('?'));
    let Parameter::One(code) = query::find(&parameters, "error") else {
        return Ok(());
    };
    match known_error(code) {
        // "Nobody is signed in": what was to be expected.
        Some(code) if code.ends_with("_required") => Ok(()),
        Some(code) => Err(format!(
            "the provider refuses: {code}; {}",
            advice::on_refusal(code, name)
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check_redirect;

    #[test]
    fn what_the_provider_sends_back_tells_whether_it_knows_the_client() {
        for good in [
            "?error=login_required&state=x",
            "?code=x&state=y",
            "",
            "?error=odd",
            "?error=interaction_required",
        ] {
            assert_eq!(check_redirect(good, "main"), Ok(()), "{good}");
        }
        let refused =
            check_redirect("?state=x&error=invalid_scope&error_description=canary", "main").unwrap_err();
        assert!(
            refused.contains("invalid_scope; providers.main.scopes") && !refused.contains("canary"),
            "{refused}"
        );
    }
}

//! `GET /bff/login`: sends the browser to the provider (contract 3.1).
//!
//! INVARIANT: only a navigation begins a login, so a page full of failing API calls costs no cookies and no loops.
//! INVARIANT: a caller chooses among an allow-list of wishes; scope, redirect URI, state and the like are never theirs.

use super::{Bff, Visit, clear_attempt};
use crate::answer::{self, Body, Failure, Link};
use crate::guard::authenticate::Presented;
use crate::protocol::authorization::{AttemptSecrets, Wishes};
use crate::protocol::cookie::{self, SameSite};
use crate::protocol::fetch_metadata::Site;
use crate::protocol::query::{self, Parameter};
use crate::provider::Provider;
use crate::session::login_attempt::{LIFETIME, LoginAttempt};
use http::{Response, StatusCode, header};

impl Bff {
    pub(super) async fn login(&self, visit: &Visit<'_>) -> Result<Response<Body>, Failure> {
        if !visit.provenance.navigation {
            return Err(Failure::Csrf(
                "A login is begun by going to this address, not by a script.",
            ));
        }
        // What cannot be decoded is no `return_to`, and no error either (contract 3.2).
        let parameters = query::readable(visit.query.unwrap_or_default());
        let return_to = self.return_to_in(&parameters);
        // Behind an ingress nobody but the login sees the circle of lost sessions.
        let is_gone = self.is_lost_again(visit.headers).await;
        if let Some(page) = self.stuck(visit.headers, visit.provenance.site, is_gone) {
            return Ok(page);
        }
        // From another site nobody chooses anything but where it leads (contract 3.1).
        let foreign = matches!(visit.provenance.site, Site::SameSite | Site::CrossSite);
        let (name, wishes) = if foreign {
            (None, Wishes::default())
        } else {
            read_wishes(&parameters)?
        };
        let provider = match (name, self.providers.as_slice()) {
            (Some(name), _) => self
                .provider(&name)
                .ok_or(Failure::BadRequest("There is no sign-in provider of this name."))?,
            (None, [only]) => only,
            (None, _) => return Ok(self.choose(&return_to, &wishes)),
        };
        if let Some(limit) = &self.login_rate {
            limit
                .count(visit.client, tokio::time::Instant::now())
                .map_err(Failure::TooManyRequests)?;
        }
        self.begin(visit, provider, return_to, wishes).await
    }

    /// Where a query says that it leads, as far as it may (contract 3.2).
    fn return_to_in(&self, parameters: &[(String, String)]) -> String {
        match query::find(parameters, "return_to") {
            Parameter::One(value) => self.landing_for(Some(value)),
            Parameter::Absent => self.landing_for(None),
            Parameter::Doubled => self.landing_for(Some("")),
        }
    }

    /// Where a visit leads on to.
    pub(super) fn return_to(&self, visit: &Visit<'_>) -> String {
        // What cannot be decoded is no `return_to`, and no error either (contract 3.2).
        self.return_to_in(&query::readable(visit.query.unwrap_or_default()))
    }

    async fn begin(
        &self,
        visit: &Visit<'_>,
        provider: &Provider,
        return_to: String,
        wishes: Wishes,
    ) -> Result<Response<Body>, Failure> {
        let attempt = LoginAttempt {
            secrets: AttemptSecrets::fresh(),
            return_to,
            provider: provider.settings().name.clone(),
            replaces: match self.cookie.presented(visit.headers) {
                Presented::Id(id) => Some(id.store_key()),
                Presented::Nothing | Presented::Unusable => None,
            },
            silent: wishes
                .prompt
                .as_deref()
                .is_some_and(|prompt| prompt.split(' ').any(|word| word == "none")),
            max_age: wishes.max_age,
            acr_values: wishes.acr_values.clone(),
            begun: self.clock.now(),
        };
        if self.attempts.have_strangers(visit.headers)
            && let Some(unsaid) = self.strangers.due()
        {
            tracing::warn!(
                unsaid,
                "this browser brings login cookies that were sealed with a key that is not here: another deployment under \
                 this host name with the same session.cookie.name, a replica with other session.keys, or one without any \
                 that was restarted"
            );
        }
        let redirect_uri = self.settings.public_url.url(&self.redirect_path(provider));
        let location = match provider
            .authorization_url(&redirect_uri, &attempt.secrets, &wishes)
            .await
        {
            Ok(location) => location,
            Err(error) => return Ok(self.provider_away(visit, provider, &error)),
        };
        let mut response = answer::redirect(StatusCode::FOUND, &location);
        let name = self.attempts.cookie_name(attempt.secrets.state.expose());
        let value = self.attempts.seal(&attempt);
        let headers = response.headers_mut();
        for gone in self
            .attempts
            .crowded_out(visit.headers, name.len() + value.len(), attempt.begun)
        {
            headers.append(header::SET_COOKIE, clear_attempt(&gone));
        }
        headers.append(
            header::SET_COOKIE,
            cookie::set(&name, &value, SameSite::Lax, Some(LIFETIME)),
        );
        Ok(response)
    }

    fn provider_away(
        &self,
        visit: &Visit<'_>,
        provider: &Provider,
        error: &crate::provider::ProviderError,
    ) -> Response<Body> {
        let name = &provider.settings().name;
        tracing::warn!(target: "cloakroom::audit", event = "login_failed", provider = %name, reason = "provider_away", %error, request_id = visit.request_id);
        self.metrics.login(name, "failed", "provider_away");
        let again = self.own_path("/login");
        let mut response = answer::page(
            StatusCode::SERVICE_UNAVAILABLE,
            "Sign-in is not available",
            &["The sign-in service does not answer at the moment. Please try again in a little while."],
            &[
                Link {
                    href: &again,
                    text: "Try again",
                },
                Link {
                    href: &self.settings.login.landing,
                    text: "Go to the start page",
                },
            ],
            Some(visit.request_id),
        );
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, http::HeaderValue::from_static("5"));
        response
    }

    /// The sign-in page, where there are several providers.
    fn choose(&self, return_to: &str, wishes: &Wishes) -> Response<Body> {
        let choices: Vec<(String, String)> = self
            .providers
            .iter()
            .map(|provider| {
                let settings = provider.settings();
                let mut href = format!(
                    "{}?provider={}",
                    self.own_path("/login"),
                    query::encode(&settings.name)
                );
                let max_age = wishes.max_age.map(|seconds| seconds.to_string());
                for (name, value) in [
                    ("return_to", Some(return_to)),
                    ("prompt", wishes.prompt.as_deref()),
                    ("login_hint", wishes.login_hint.as_deref()),
                    ("acr_values", wishes.acr_values.as_deref()),
                    ("max_age", max_age.as_deref()),
                ] {
                    if let Some(value) = value {
                        href = format!("{href}&{name}={}", query::encode(value));
                    }
                }
                (
                    href,
                    settings.label.clone().unwrap_or_else(|| settings.name.clone()),
                )
            })
            .collect();
        answer::sign_in(&choices)
    }
}

/// The provider's name and the wishes in a query. One that is doubled or malformed is refused rather than left out: an
/// app that asks for a stronger login must not get a weaker one.
fn read_wishes(parameters: &[(String, String)]) -> Result<(Option<String>, Wishes), Failure> {
    let wishes = Wishes::from_query(parameters);
    let asked = |name: &str| {
        parameters
            .iter()
            .any(|(key, value)| key == name && !value.is_empty())
    };
    let understood = asked("prompt") == wishes.prompt.is_some()
        && asked("login_hint") == wishes.login_hint.is_some()
        && asked("acr_values") == wishes.acr_values.is_some()
        && asked("max_age") == wishes.max_age.is_some();
    let provider = match query::find(parameters, "provider") {
        Parameter::Absent | Parameter::One("") => None,
        Parameter::One(name) => Some(name.to_owned()),
        Parameter::Doubled => return Err(Failure::BadRequest("The parameter provider stands there twice.")),
    };
    if !understood {
        return Err(Failure::BadRequest(
            "One of prompt, login_hint, acr_values and max_age is malformed, too long, or stands there twice.",
        ));
    }
    Ok((provider, wishes))
}

//! `cloakroom check`: every mistake in the config at once, and with `--online` what the config names.

use super::output::{complain, print_line};
use super::{BAD_CONFIG, FAILED, print_mistakes, runtime};
use crate::app::Parts;
use crate::config::{self, Settings};
use crate::router::Target;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub(super) fn check(file: Option<&Path>, online: bool) -> ExitCode {
    try_check(file, online).err().unwrap_or(ExitCode::SUCCESS)
}

/// `Err`: how it ended before its time, or badly.
fn try_check(file: Option<&Path>, online: bool) -> Result<(), ExitCode> {
    let loaded = match config::load(file) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            print_mistakes(&mistakes);
            return Err(ExitCode::from(BAD_CONFIG));
        }
    };
    for warning in &loaded.warnings {
        print_line(&format!("warning: {warning}"))?;
    }
    let runtime = runtime()?;
    // Upstreams are made inside a runtime, which their pools live on.
    let parts = match runtime.block_on(async { Parts::make(&loaded.settings) }) {
        Ok(parts) => parts,
        Err(reason) => {
            complain(&format!("cloakroom: {reason}"));
            return Err(ExitCode::from(BAD_CONFIG));
        }
    };
    print_line("The config is good.")?;
    for registered in loaded.settings.registrations() {
        let frontchannel = registered
            .frontchannel_logout_uri
            .map_or_else(String::new, |uri| format!(", front-channel logout URI {uri}"));
        print_line(&format!(
            "Provider {} has to know, to the letter: redirect URI {}, post-logout redirect URI {}, \
             back-channel logout URI {}{frontchannel}",
            registered.provider,
            registered.redirect_uri,
            registered.post_logout_redirect_uri,
            registered.backchannel_logout_uri
        ))?;
    }
    if !online {
        return Ok(());
    }
    let steps = runtime.block_on(ask(&loaded.settings, &parts));
    let mut failed = 0;
    for step in &steps {
        print_line(&step.to_string())?;
        failed += usize::from(step.outcome.is_err());
    }
    if failed == 0 {
        return Ok(());
    }
    complain(&format!(
        "cloakroom: {failed} of {} online checks failed",
        steps.len()
    ));
    Err(ExitCode::from(FAILED))
}

/// One line: what was tried, how long it took, and what to do about a failure.
struct Step {
    tried: String,
    took: Duration,
    outcome: Result<(), String>,
    doubt: Option<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tried, millis) = (&self.tried, self.took.as_millis());
        match (&self.outcome, &self.doubt) {
            (Ok(()), None) => write!(f, "ok      {tried} ({millis} ms)"),
            (Ok(()), Some(doubt)) => write!(f, "unsure  {tried} ({millis} ms): {doubt}"),
            (Err(remedy), _) => write!(f, "FAILED  {tried} ({millis} ms): {remedy}"),
        }
    }
}

/// Asks everything that the config names, a step each.
async fn ask(settings: &Settings, parts: &Parts) -> Vec<Step> {
    let mut steps = Vec::new();
    for (provider, registered) in parts.providers.iter().zip(settings.registrations()) {
        let name = &registered.provider;
        let asked = provider.check_online(&registered.redirect_uri).await;
        steps.extend(asked.into_iter().map(|step| Step {
            tried: format!("provider {name}: {}", step.tried),
            took: step.took,
            outcome: step.outcome,
            doubt: step.doubt,
        }));
    }
    steps.extend(parts.store.check_online().await.into_iter().map(|step| Step {
        tried: format!("store: {}", step.tried),
        took: step.took,
        outcome: step.outcome,
        doubt: step.doubt,
    }));
    for (route, target) in parts.routes.routes().iter().zip(&parts.targets) {
        if let Target::Upstream(upstream) = target {
            steps.extend(upstream.check_online().await.into_iter().map(|step| Step {
                tried: format!("route {}: connect to {}", route.path, step.origin),
                took: step.took,
                outcome: step.outcome,
                doubt: None,
            }));
        }
    }
    steps
}

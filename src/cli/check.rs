//! `cloakroom check`: every mistake in the config at once, and with `--online` what the config names.

use super::{BAD_CONFIG, FAILED, print_mistakes, runtime};
use crate::app::Parts;
use crate::config::{self, OnlineCheck};
use crate::router::Target;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn check(file: Option<&Path>, online: bool) -> ExitCode {
    let loaded = match config::load(file) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            print_mistakes(&mistakes);
            return ExitCode::from(BAD_CONFIG);
        }
    };
    for warning in &loaded.warnings {
        println!("warning: {warning}");
    }
    let parts = match Parts::make(&loaded.settings) {
        Ok(parts) => parts,
        Err(reason) => {
            eprintln!("cloakroom: {reason}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    println!("The config is good.");
    if !online {
        return ExitCode::SUCCESS;
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let steps = runtime.block_on(ask(&parts));
    let mut failed = 0;
    for step in &steps {
        println!("{step}");
        failed += usize::from(step.outcome.is_err());
    }
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    eprintln!("cloakroom: {failed} of {} online checks failed", steps.len());
    ExitCode::from(FAILED)
}

/// Asks everything that the config names, a step each.
async fn ask(parts: &Parts) -> Vec<OnlineCheck> {
    let mut steps = Vec::new();
    for provider in &parts.providers {
        steps.extend(provider.check_online().await);
    }
    steps.extend(parts.store.check_online().await);
    for target in &parts.targets {
        if let Target::Upstream(upstream) = target {
            steps.extend(upstream.check_online().await);
        }
    }
    steps
}

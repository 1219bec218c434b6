//! `cloakroom run`: serves until it is told to stop.

use super::output::complain;
use super::{BAD_CONFIG, FAILED, descriptors, logs, print_mistakes, serving_runtime};
use crate::{app, config};
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

pub(super) fn run(file: Option<&Path>) -> ExitCode {
    let loaded = match config::load(file) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            print_mistakes(&mistakes);
            return ExitCode::from(BAD_CONFIG);
        }
    };
    logs::start(&loaded.settings.log);
    let scarce = descriptors::raise(loaded.settings.server.max_connections);
    for warning in loaded.warnings.iter().chain(&scarce) {
        tracing::warn!("{warning}");
    }
    serve(loaded.settings)
}

/// Serves these settings until SIGTERM or SIGINT.
pub(super) fn serve(settings: config::Settings) -> ExitCode {
    let runtime = match serving_runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    // Upstreams are made inside a runtime, which their pools live on.
    let parts = match runtime.block_on(async { app::Parts::make(&settings) }) {
        Ok(parts) => parts,
        Err(reason) => {
            complain(&format!("cloakroom: {reason}"));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let ended = runtime.block_on(async {
        let stop = stop_signal().map_err(|error| format!("cannot listen for signals: {error}"))?;
        app::run(settings, parts, stop).await
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            complain(&format!("cloakroom: {reason}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Ready at the first SIGTERM or SIGINT.
pub(super) fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

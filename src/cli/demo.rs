//! `cloakroom demo`: the whole thing on one machine with nothing else installed.

use super::output::{complain, print_line};
use super::run::stop_signal;
use super::{FAILED, logs, serving_runtime};
use crate::{app, config, demo};
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

pub(super) fn demo(port: u16) -> ExitCode {
    let runtime = match serving_runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(serve(port)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            complain(&format!("cloakroom: {reason}"));
            ExitCode::from(FAILED)
        }
    }
}

async fn serve(port: u16) -> Result<(), String> {
    let stop = stop_signal().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let demo = demo::start(port)?;
    let loaded = config::load_text("demo", &demo.config_yaml).map_err(|mistakes| {
        mistakes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    logs::start(&loaded.settings.log);
    let invitation = format!(
        "cloakroom demo: open {} in your browser. Ctrl-C stops it.",
        demo.url
    );
    // Whoever cannot read it may still know the address.
    let _said_or_complained = print_line(&invitation);
    // The demo's own servers go on while cloakroom finishes what is under way.
    let behind = CancellationToken::new();
    let (ended, demo_ended) = tokio::join!(
        async {
            let parts = app::Parts::make(&loaded.settings);
            let ended = match parts {
                Ok(parts) => app::run(loaded.settings, parts, stop).await,
                Err(reason) => Err(reason),
            };
            behind.cancel();
            ended
        },
        demo.serve(behind.clone()),
    );
    ended.and(demo_ended)
}

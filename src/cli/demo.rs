//! `cloakroom demo`: the whole thing on one machine with nothing else installed.

use super::run::stop_signal;
use super::{FAILED, logs, runtime};
use crate::{app, config, demo};
use std::process::ExitCode;

pub(super) fn demo(port: u16) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(serve(port)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("cloakroom: {reason}");
            ExitCode::from(FAILED)
        }
    }
}

async fn serve(port: u16) -> Result<(), String> {
    let stop = stop_signal().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let demo = demo::start(port).await?;
    let loaded = config::load_text("demo", &demo.config_yaml)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    logs::start(&loaded.settings.log);
    println!("cloakroom demo: open http://localhost:{port} in your browser. Ctrl-C stops it.");
    let ended = app::run(loaded.settings, stop).await;
    demo.stop().await;
    ended
}

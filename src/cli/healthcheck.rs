//! `cloakroom healthcheck`: a probe for images without a shell, and for an admin listener that wants a certificate.

use super::admin_listener::{Asker, TlsArguments, url_of, why};
use super::output::{complain, print_last};
use super::{FAILED, print_mistakes, runtime};
use crate::config::{self, AdminTls};
use clap::Args;
use http_body_util::Empty;
use hyper::Request;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked, and how.
#[derive(Debug, Args)]
pub(super) struct Healthcheck {
    #[arg(long, default_value = "http://127.0.0.1:9090/healthz", help = "What to ask")]
    url: String,
    /// Ask the admin listener of this config instead, for /healthz: at its `server.admin`, by its `server.admin_tls`.
    #[arg(long, conflicts_with = "url")]
    config: Option<PathBuf>,
    /// And there for /readyz.
    #[arg(long, requires = "config", conflicts_with = "url")]
    ready: bool,
    #[command(flatten)]
    tls: TlsArguments,
}

pub(super) fn healthcheck(probe: &Healthcheck) -> ExitCode {
    let (url, asker) = match whom(probe) {
        Ok(whom) => whom,
        Err(code) => return code,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(ask(&url, &asker)) {
        Ok(()) => print_last("healthy"),
        Err(reason) => unhealthy(&reason),
    }
}

fn unhealthy(reason: &str) -> ExitCode {
    complain(&format!("cloakroom: not healthy: {reason}"));
    ExitCode::from(FAILED)
}

/// What is asked.
fn whom(probe: &Healthcheck) -> Result<(String, Asker), ExitCode> {
    let (url, own) = match &probe.config {
        None => (probe.url.clone(), None),
        Some(file) => {
            let loaded = config::load(Some(file)).map_err(|mistakes| {
                print_mistakes(&mistakes);
                ExitCode::from(FAILED)
            })?;
            let server = loaded.settings.server;
            let url = url_of(&server).map_err(|reason| unhealthy(&reason))?;
            let path = if probe.ready { "readyz" } else { "healthz" };
            (
                format!("{url}/{path}"),
                server.admin_tls.as_ref().map(AdminTls::pair),
            )
        }
    };
    let asker = probe.tls.asker(&url, own.as_ref());
    asker
        .map(|asker| (url, asker))
        .map_err(|reason| unhealthy(&reason))
}

async fn ask(url: &str, asker: &Asker) -> Result<(), String> {
    let request = Request::get(url)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|_| format!("{url:?} is not a URL; wanted: something like http://127.0.0.1:9090/healthz"))?;
    let answer = tokio::time::timeout(PATIENCE, asker.request(request))
        .await
        .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
        .map_err(|error| {
            let why = why(&error);
            format!("cannot be asked ({why}); is it running, and is this its server.admin address?")
        })?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("it answered {}", answer.status()))
    }
}

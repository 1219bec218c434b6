//! `cloakroom healthcheck`: a probe for images without a shell.

use super::output::{complain, print_last};
use super::{FAILED, runtime};
use http_body_util::Empty;
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::process::ExitCode;
use std::time::Duration;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn healthcheck(url: &str) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(ask(url)) {
        Ok(()) => print_last("healthy"),
        Err(reason) => {
            complain(&format!("cloakroom: not healthy: {reason}"));
            ExitCode::from(FAILED)
        }
    }
}

async fn ask(url: &str) -> Result<(), String> {
    let request = Request::get(url)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|_| format!("{url:?} is not a URL; wanted: something like http://127.0.0.1:9090/healthz"))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = tokio::time::timeout(PATIENCE, client.request(request))
        .await
        .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
        .map_err(|error| {
            format!("cannot be asked ({error}); is it running, and is this its server.admin address?")
        })?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("it answered {}", answer.status()))
    }
}

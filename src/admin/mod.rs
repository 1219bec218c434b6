//! The admin listener: alive, ready, metrics, and sessions for who has the token (contract §7). Never on the public
//! listener.
//!
//! INVARIANT: liveness depends on nothing but the process; readiness on the store once, and on later outages only
//! where `readiness.store` says so; never on the provider.

mod sessions;

use crate::answer::{self, Body};
use crate::config::Settings;
use crate::listener::{Refusal, Service};
use crate::metrics::Metrics;
use crate::protocol::host::is_authority;
use crate::provider::Provider;
use crate::session::Sessions;
use crate::store::Store;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde_json::json;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// How long `/readyz` waits for the store.
const STORE_PATIENCE: Duration = Duration::from_millis(500);

/// The admin listener's service.
#[derive(Clone, Debug)]
pub struct Admin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Arc<Settings>,
    store: Arc<Store>,
    sessions: Arc<Sessions>,
    providers: Vec<Arc<Provider>>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    store_answered: AtomicBool,
    draining: AtomicBool,
}

impl Admin {
    /// Puts it together.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        store: Arc<Store>,
        sessions: Arc<Sessions>,
        providers: Vec<Arc<Provider>>,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
    ) -> Self {
        Self(Arc::new(Inner {
            settings,
            store,
            sessions,
            providers,
            metrics,
            tasks,
            store_answered: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }))
    }

    /// From now on `/readyz` is 503.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    async fn ready(&self) -> Response<Body> {
        let inner = &self.0;
        // A probe's own patience is a second by default: a store that hangs must not look like a cloakroom that does.
        let store = inner.store.clone();
        // In a task of its own, so that a connection which takes longer than the probe is made all the same.
        let ping = inner.tasks.spawn(async move { store.ping().await.is_ok() });
        let store = matches!(tokio::time::timeout(STORE_PATIENCE, ping).await, Ok(Ok(true)));
        let answered = inner.store_answered.fetch_or(store, Ordering::SeqCst) || store;
        let draining = inner.draining.load(Ordering::SeqCst);
        let ready = !draining && answered && (store || !inner.settings.readiness.store);
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let providers: serde_json::Map<String, serde_json::Value> = inner
            .providers
            .iter()
            .map(|provider| {
                let state = if provider.is_known() {
                    "known"
                } else {
                    "not known yet"
                };
                (provider.settings().name.clone(), state.into())
            })
            .collect();
        answer::json(
            status,
            &json!({
                "ready": ready,
                "draining": draining,
                "store": if store { "ok" } else { "away" },
                "providers": providers,
            }),
        )
    }

    async fn answer(&self, request: &Request<Incoming>, peer: IpAddr) -> Response<Body> {
        // A page in an operator's browser must not reach this by rebinding a name of its own to this address.
        if !request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .is_some_and(is_local_name)
        {
            return word(
                StatusCode::MISDIRECTED_REQUEST,
                "ask by IP address or as localhost\n",
            );
        }
        let known = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
        if known && !matches!(*request.method(), Method::GET | Method::HEAD) {
            return word(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        }
        match request.uri().path() {
            "/healthz" => word(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready().await,
            "/metrics" => {
                let mut response = word(StatusCode::OK, &self.0.metrics.encode());
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
                response
            }
            path if sessions::is_about_sessions(path) => sessions::answer(&self.0, request, peer).await,
            _ => word(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}

impl Service for Admin {
    type Body = Body;

    async fn call(&self, request: Request<Incoming>, peer: SocketAddr) -> Result<Response<Body>, Infallible> {
        Ok(self.answer(&request, peer.ip().to_canonical()).await)
    }

    fn refuse(
        &self,
        refusal: Refusal,
        _request: Option<&Request<Incoming>>,
        _peer: SocketAddr,
    ) -> Option<Response<Body>> {
        let is_clear = refusal == Refusal::PlainHttp;
        is_clear.then(|| {
            word(
                refusal.status(),
                "TLS is spoken here: use https instead of http\n",
            )
        })
    }
}

fn word(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(answer::full(text.to_owned()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// An IP address or `localhost`, with any port.
fn is_local_name(host: &str) -> bool {
    if !is_authority(host) {
        return false;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_answers_to_addresses_and_localhost_only() {
        for name in [
            "localhost",
            "LOCALHOST:9090",
            "127.0.0.1:9090",
            "[::1]:9090",
            "10.0.0.7",
        ] {
            assert!(is_local_name(name), "{name}");
        }
        for name in [
            "evil.example",
            "localhost.evil.example",
            "app.localhost",
            "",
            "127.0.0.1.evil",
        ] {
            assert!(!is_local_name(name), "{name}");
        }
    }
}

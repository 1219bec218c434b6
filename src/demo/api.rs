//! The demo's API, and the single-page app beside it: what the demo's routes `/api` and `/` forward to.
//!
//! Every path under `/api` wants a bearer token that the provider vouches for. What the API received is shown with
//! the token cut short, so that the page can show that one came without being handed it.
//!
//! INVARIANT: no answer holds a token.

use super::assets::{self, Origins};
use super::form::Form;
use super::provider::{self, Provider};
use super::server::{self, Answer};
use super::streams;
use crate::clock::Clock;
use aws_lc_rs::digest::{SHA256, digest};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The largest body that `/api/echo` takes, bytes.
const MAX_ECHO: usize = 10 * 1024 * 1024;
/// How much of it comes back, bytes.
const ECHOED: usize = 4 * 1024;
/// The longest that `/api/slow` waits.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The API and the single-page app.
pub struct Api {
    /// Vouches for tokens.
    pub provider: Arc<Provider>,
    /// What the pages have to know.
    pub origins: Origins,
    /// The time of day.
    pub clock: Clock,
    /// Ends streams and sockets.
    pub stop: CancellationToken,
    /// Carries sockets.
    pub tracker: TaskTracker,
    /// How often a coat was handed over, as our own page asked.
    pub handed_over: AtomicU64,
    /// How many requests arrived that the attacker's page made.
    pub forged: AtomicU64,
}

impl Api {
    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let get = [Method::GET, Method::HEAD].contains(request.method());
        if path != "/api" && !path.starts_with("/api/") {
            return match path {
                _ if !get => server::method_not_allowed("GET, HEAD"),
                "/demo.json" => self.places(),
                _ => assets::app(path, &self.origins),
            };
        }
        let query = Form::parse(request.uri().query().unwrap_or("")).unwrap_or_default();
        // The attacker's page marks what it sends, so that this count says how much of it got this far: with a bearer
        // token or without.
        if query.value("to") == Some("attacker") {
            self.forged.fetch_add(1, Ordering::Relaxed);
        }
        let claims = match self.provider.check_access_token(request.headers()) {
            Ok(claims) => claims,
            Err(why) => return provider::unauthorized(why),
        };
        let post = request.method() == Method::POST;
        match path {
            "/api/whoami" if get => {
                let received = received(&request.into_parts().0);
                server::json(StatusCode::OK, &self.whoami(&claims, &received))
            }
            "/api/echo" if post => echo(request).await,
            "/api/events" if get => streams::events(&request, self.clock.clone(), self.stop.clone()),
            "/api/ws" if get => streams::websocket(request, &claims, &self.tracker, self.stop.clone()),
            "/api/slow" if get => slow(&query).await,
            "/api/back-office" if get => server::json(
                StatusCode::OK,
                &json!({"room": "back office", "visitor": claims.get("name"), "groups": claims.get("groups")}),
            ),
            "/api/hand-over" if get || post => {
                if post {
                    self.handed_over.fetch_add(1, Ordering::Relaxed);
                }
                let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                server::json(
                    StatusCode::OK,
                    &json!({"handed_over": count(&self.handed_over), "forged": count(&self.forged)}),
                )
            }
            "/api/echo" => server::method_not_allowed("POST"),
            "/api/whoami" | "/api/events" | "/api/ws" | "/api/slow" | "/api/back-office" => {
                server::method_not_allowed("GET, HEAD")
            }
            "/api/hand-over" => server::method_not_allowed("GET, HEAD, POST"),
            _ => server::json(StatusCode::NOT_FOUND, &json!({"error": "not_found"})),
        }
    }

    /// Where the other pages of the demo are.
    fn places(&self) -> Answer {
        let Origins {
            app,
            provider,
            attacker,
        } = &self.origins;
        server::json(
            StatusCode::OK,
            &json!({"app": app, "provider": provider, "attacker": attacker}),
        )
    }

    fn whoami(&self, claims: &Map<String, Value>, received: &Value) -> Value {
        let moment = |name: &str| claims.get(name).and_then(Value::as_u64).unwrap_or(0);
        json!({
            "sub": claims.get("sub"), "name": claims.get("name"), "groups": claims.get("groups"),
            "token": {
                "expires_in": moment("exp").saturating_sub(self.clock.now().as_secs()),
                "issued_at": moment("iat"),
                "lifetime": moment("exp").saturating_sub(moment("iat")),
                "fingerprint": claims.get("jti").and_then(Value::as_str).map(fingerprint),
            },
            "received": received,
        })
    }
}

/// A few characters that tell one token from another and give nothing of it away.
#[must_use]
pub fn fingerprint(jti: &str) -> String {
    let whole = digest(&SHA256, jti.as_bytes());
    whole
        .as_ref()
        .iter()
        .take(4)
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

async fn echo(request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body = match server::read_body(body, MAX_ECHO).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let shown = String::from_utf8_lossy(&body[..body.len().min(ECHOED)]);
    server::json(
        StatusCode::OK,
        &json!({"received": received(&head), "body": shown, "body_bytes": body.len()}),
    )
}

async fn slow(query: &Form) -> Answer {
    let asked = query
        .value("ms")
        .and_then(|ms| ms.parse().ok())
        .map_or(Duration::from_secs(3), Duration::from_millis);
    let waited = asked.min(MAX_WAIT);
    tokio::time::sleep(waited).await;
    server::json(
        StatusCode::OK,
        &json!({"waited_ms": u64::try_from(waited.as_millis()).unwrap_or(u64::MAX)}),
    )
}

/// The request's head as it arrived, the token cut short.
fn received(head: &Parts) -> Value {
    json!({
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        "headers": shown_headers(&head.headers),
    })
}

fn shown_headers(headers: &HeaderMap) -> Map<String, Value> {
    let mut shown = Map::new();
    for name in headers.keys() {
        let lines: Vec<String> = headers
            .get_all(name)
            .iter()
            .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned())
            .collect();
        let text = lines.join(", ");
        shown.insert(
            name.to_string(),
            json!(if name == AUTHORIZATION {
                cut_short(&text)
            } else {
                text
            }),
        );
    }
    shown
}

/// The first characters of a bearer token say only how it is signed.
fn cut_short(line: &str) -> String {
    match line.split_once(' ') {
        Some((scheme, token)) => {
            let beginning: String = token.chars().take(8).collect();
            format!("{scheme} {beginning}…({} characters)", token.chars().count())
        }
        None => "…".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_is_shown_without_the_token() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer eyJhbGciOiJ.canary.canary".parse().unwrap());
        headers.insert("x-request-id", "1".parse().unwrap());
        let shown = Value::Object(shown_headers(&headers));
        assert_eq!(shown["authorization"], "Bearer eyJhbGci…(25 characters)");
        assert_eq!(shown["x-request-id"], "1");
        assert!(!shown.to_string().contains("canary"));
    }
}

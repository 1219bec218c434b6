//! The demo's own small HTTP server: hyper's http1 on a loopback socket, one closure that answers.
//!
//! The embedded provider, the API and the attacker's page stand on it, each on its own port.
//!
//! INVARIANT: connections and request bodies are bounded; a connection's task runs on the demo's tracker.

use super::form::Form;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, LOCATION, ORIGIN};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The body of every answer here.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
/// An answer.
pub type Answer = Response<Body>;

/// The most connections at one time on one listener.
const MAX_CONNECTIONS: usize = 4096;
/// How long a connection may be idle, and how long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// The largest form that is read, bytes.
const MAX_FORM: usize = 64 * 1024;
/// The largest answer that is read, bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// Serves connections until `stop` is cancelled; those under way then finish on `tracker`.
pub async fn serve<F, A>(listener: TcpListener, stop: CancellationToken, tracker: TaskTracker, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, usually: asking again at once would only burn a core.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (answer, stop) = (answer.clone(), stop.clone());
        tracker.spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let answering = answer(request);
                async move { Ok::<_, Infallible>(answering.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => {}
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
}

/// An answer with a body of that type, never cached.
#[must_use]
pub fn content(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

/// A JSON answer, never cached.
#[must_use]
pub fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    content(status, "application/json", value.to_string())
}

/// An answer of plain words, never cached.
#[must_use]
pub fn words(status: StatusCode, text: &'static str) -> Answer {
    content(status, "text/plain; charset=utf-8", text)
}

/// 405, naming what is allowed.
#[must_use]
pub fn method_not_allowed(allowed: &'static str) -> Answer {
    let mut answer = words(
        StatusCode::METHOD_NOT_ALLOWED,
        "this method is not for this path\n",
    );
    answer
        .headers_mut()
        .insert(http::header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// 303 to a place; a place that no header can hold is a 400.
#[must_use]
pub fn see_other(place: &str) -> Answer {
    let Ok(place) = HeaderValue::from_str(place) else {
        return words(
            StatusCode::BAD_REQUEST,
            "this cannot be answered with a redirect\n",
        );
    };
    let mut answer = words(StatusCode::SEE_OTHER, "");
    answer.headers_mut().insert(LOCATION, place);
    answer
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// The answer: 413 for a longer one, 400 for one that breaks off.
pub async fn read_body(body: Incoming, limit: usize) -> Result<Bytes, Answer> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(words(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n"))
        }
        Err(_) => Err(words(StatusCode::BAD_REQUEST, "the body broke off\n")),
    }
}

/// Reads a posted form.
///
/// # Errors
/// The answer: 415 for another content type, else as [`read_body`], 400 for a malformed form.
pub async fn read_form(request: Request<Incoming>) -> Result<Form, Answer> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let essence = content_type.and_then(|v| v.split(';').next()).map(str::trim);
    if !essence.is_some_and(|e| e.eq_ignore_ascii_case("application/x-www-form-urlencoded")) {
        return Err(words(StatusCode::UNSUPPORTED_MEDIA_TYPE, "wanted: a form\n"));
    }
    let body = read_body(request.into_body(), MAX_FORM).await?;
    std::str::from_utf8(&body)
        .ok()
        .and_then(Form::parse)
        .ok_or_else(|| words(StatusCode::BAD_REQUEST, "the form is malformed\n"))
}

/// The value of the cookie of exactly that name; none where it is there twice.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers
        .get_all(http::header::COOKIE)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim_matches([' ', '\t']).split_once('='))
        .filter(|(found, _)| *found == name);
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// Whether the only `Host` is this authority: a name that somebody pointed at 127.0.0.1 is not.
#[must_use]
pub fn is_for(headers: &HeaderMap, authority: &str) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    matches!((hosts.next(), hosts.next()), (Some(host), None) if host == authority)
}

/// Whether a form was sent by a page of `origin`, or by something that is no browser.
#[must_use]
pub fn is_from_own_page(headers: &HeaderMap, origin: &str) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => headers.get(ORIGIN).is_none_or(|sent| sent == origin),
    }
}

/// Sends one request to a loopback server and reads the whole answer.
///
/// # Errors
/// A sentence, where no answer came.
///
/// # Cancel safety
/// The request may or may not have arrived.
pub async fn send(
    to: std::net::SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, &'static str> {
    let stream = tokio::net::TcpStream::connect(to)
        .await
        .map_err(|_| "nobody listens there")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| "no HTTP is spoken there")?;
    let asking = async {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(|_| "no answer came")?
            .into_parts();
        let body = Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map_err(|_| "the answer broke off")?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // The connection may be done (closed by the other side) before the answer's last bytes are read here.
        _ = connection => asking.await,
    }
}

//! The HTTP client for calls to a provider.
//!
//! Stands under everything that is asked of a provider. It follows no redirect, keeps no cookie, reads at most 1 MiB,
//! and gives up in time; upstreams have a client of their own.
//!
//! INVARIANT: [`CallError::Unreachable`] means that not one byte of the request has left; in doubt it is
//! [`CallError::Lost`]. A code may be tried again after the first and never after the second.

use super::connect::Connector;
use crate::config::ProxyEnvironment;
use crate::protocol::token_response::{self, RawAnswer};
use bytes::Bytes;
use http::header::{
    AGE, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use std::error::Error;
use std::time::Duration;

/// How long a call may take from its beginning to the last byte of its answer.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 1024 * 1024;

const NAME: HeaderValue = HeaderValue::from_static(concat!("cloakroom/", env!("CARGO_PKG_VERSION")));

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Name, TCP, proxy or TLS failed: nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// Something may have been sent, and no whole answer came back.
    #[error("{0}")]
    Lost(String),
}

/// A whole answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, at most 1 MiB.
    pub body: Bytes,
    headers: HeaderMap,
}

impl Answer {
    /// `Content-Type`, where there is one that can be read.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.text(&CONTENT_TYPE)
    }

    /// Where it leads on to.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.text(&LOCATION)
    }

    /// The provider's clock, where it says. An answer that a cache kept (RFC 9111 §5.1) is as old as nobody knows here.
    #[must_use]
    pub fn date(&self) -> Option<crate::clock::UnixTime> {
        if self.headers.contains_key(AGE) {
            return None;
        }
        token_response::http_date(self.text(&DATE)?)
    }

    /// As the token endpoint's parser takes it.
    #[must_use]
    pub fn raw(&self, now: crate::clock::UnixTime) -> RawAnswer<'_> {
        RawAnswer {
            status: self.status,
            // A type that is not even text is not JSON.
            content_type: self
                .headers
                .get(CONTENT_TYPE)
                .map(|value| value.to_str().unwrap_or_default()),
            retry_after: self
                .text(&RETRY_AFTER)
                .and_then(|value| token_response::retry_after(value, now)),
            body: &self.body,
        }
    }

    fn text(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Calls one provider.
pub struct HttpClient {
    client: Client<Connector, Full<Bytes>>,
}

impl HttpClient {
    /// Trusts the system's authorities and `authorities` beside them.
    ///
    /// # Errors
    /// A sentence, where one of `authorities` cannot be used.
    pub fn new(authorities: Vec<CertificateDer<'static>>, proxy: &ProxyEnvironment) -> Result<Self, String> {
        // A request that crosses with the closing of an idle connection is lost, and with it a code or a refresh
        // token; calls are rare enough to go without idle connections.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(Connector::new(authorities, proxy)?);
        Ok(Self { client })
    }

    /// Makes one call and reads its whole answer, within `limit`.
    ///
    /// # Errors
    /// [`CallError`]
    ///
    /// # Cancel safety
    /// When dropped, the request may have been sent all the same.
    pub async fn send(&self, request: http::Request<Vec<u8>>, limit: Duration) -> Result<Answer, CallError> {
        let mut request = request.map(|body| Full::new(Bytes::from(body)));
        request.headers_mut().insert(USER_AGENT, NAME);
        let call = async {
            let response = self.client.request(request).await.map_err(|error| {
                let reason = reason_of(&error);
                if error.is_connect() {
                    CallError::Unreachable(reason)
                } else {
                    CallError::Lost(reason)
                }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER)
                .collect()
                .await
                .map_err(|error| CallError::Lost(format!("its answer broke off or is too large: {error}")))?;
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            let millis = limit.as_millis();
            Err(CallError::Lost(format!("no whole answer within {millis} ms")))
        })
    }
}

/// What went wrong at the bottom; the layers above only say that something did.
fn reason_of(error: &(dyn Error + 'static)) -> String {
    let mut reasons: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if reasons.last() != Some(&reason) {
            reasons.push(reason);
        }
        cause = error.source();
    }
    if reasons.is_empty() {
        reasons.push(error.to_string());
    }
    reasons.join(": ")
}

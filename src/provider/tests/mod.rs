//! The provider against a server that misbehaves on command; over real sockets, on loopback.

mod certificates;
mod publishing;
mod server;
mod silence;
mod tokens;
mod verifying;

use super::*;
use crate::clock::UnixTime;
use crate::config::{ClientAuth, Endpoints, SecretSource, Userinfo};
use crate::protocol::signing::signer;
use crate::secret::{AccessToken, AuthorizationCode, CodeVerifier, RefreshToken};
use serde_json::{Value, json};
use server::{Reply, Seen, Server};
use std::time::Instant;

const NOW: u64 = 1_800_000_000;
const NONCE: &str = "nonce-of-the-attempt";
const ACCESS: &str = "access-token";

fn settings(issuer: &str) -> ProviderSettings {
    ProviderSettings {
        name: "main".into(),
        issuer: issuer.into(),
        client_id: "app".into(),
        client_secret: vec![SecretSource::plain("secret")],
        client_auth: ClientAuth::Auto,
        scopes: vec!["openid".into()],
        userinfo: Userinfo::Never,
        ca: None,
        discovery_url: None,
        endpoints: Endpoints::default(),
        default_token_lifetime: Duration::from_mins(5),
        redirect_path: None,
        label: None,
        frontchannel_logout: false,
    }
}

fn clock() -> Clock {
    Clock::manual(UnixTime::from_secs(NOW))
}

fn made(settings: ProviderSettings) -> Provider {
    Provider::new(settings, &ProxyEnvironment::default(), clock()).unwrap()
}

async fn running() -> (Server, Provider) {
    let server = Server::start().await;
    let provider = made(settings(&server.origin));
    (server, provider)
}

fn claims(server: &Server) -> Value {
    json!({"iss": server.origin, "sub": "alice", "aud": "app", "exp": NOW + 300, "iat": NOW, "nonce": NONCE})
}

fn changed(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn expect() -> LoginExpectations<'static> {
    LoginExpectations {
        nonce: NONCE,
        max_age: None,
        acr_values: None,
        access_token: ACCESS,
    }
}

fn id_token(alg: &str, claims: &Value) -> IdToken {
    IdToken::new(signer(alg).sign(json!({}), claims))
}

async fn begin(provider: &Provider) -> Result<String, ProviderError> {
    let (secrets, wishes) = (AttemptSecrets::fresh(), Wishes::default());
    provider
        .authorization_url("https://app.example.com/bff/callback", &secrets, &wishes)
        .await
}

#[expect(clippy::needless_pass_by_value, reason = "asked of calls, in place")]
fn is_away<T: fmt::Debug>(result: Result<T, ProviderError>) -> bool {
    matches!(result, Err(ProviderError::Away(_)))
}

#[expect(clippy::needless_pass_by_value, reason = "asked of calls, in place")]
fn is_bad<T: fmt::Debug>(result: Result<T, ProviderError>) -> bool {
    matches!(result, Err(ProviderError::Bad(_)))
}

/// All at once, on this task.
pub(super) async fn all_of<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures
        .into_iter()
        .map(|future| (Box::pin(future), None))
        .collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut waiting {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if waiting.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

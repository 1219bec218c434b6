//! `cloakroom demo`: the whole thing on one machine, with nothing else installed.
//!
//! Beside cloakroom itself it runs three small servers, each on a loopback port of its own:
//!
//! | server         | origin                  | what for                                                        |
//! | -------------- | ----------------------- | --------------------------------------------------------------- |
//! | [`provider`]   | `http://127.0.0.1:PORT` | an `OpenID` Provider: another *site* than the app on `localhost` |
//! | [`api`]        | reached by cloakroom    | `/api`, and the single-page app beside it                        |
//! | [`assets`]     | `http://127.0.0.1:PORT` | an attacker's page, whose requests are refused                   |
//!
//! [`start`] binds them and writes the config that goes with them; `app` runs cloakroom with that config, as it would
//! with any other: nothing in cloakroom knows that it is the demo.
//!
//! INVARIANT: loopback only, memory only; secrets are made anew at each start.

pub mod api;
pub mod assets;
mod form;
mod people;
pub mod provider;
mod server;
mod streams;

use crate::clock::Clock;
use api::Api;
use assets::Origins;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use provider::{Provider, Registration};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A demo whose servers are bound and wait to be served.
pub struct Demo {
    /// The config of the cloakroom that belongs to it: text, with a fresh client secret in it. Not to be logged.
    pub config_yaml: String,
    /// Where a browser begins: `http://localhost:PORT`.
    pub url: String,
    /// Where health and metrics are served.
    pub admin: SocketAddr,
    /// The embedded provider's issuer.
    pub issuer: String,
    provider: (TcpListener, Arc<Provider>),
    api: (TcpListener, Api),
    attacker: TcpListener,
}

/// Binds the demo's servers and writes its config. `port` is cloakroom's own; 0 takes one that is free.
///
/// # Errors
/// A sentence for the terminal: which port is taken, or that no key could be made.
pub fn start(port: u16) -> Result<Demo, String> {
    let (port, listen) = own_addresses(port)?;
    let admin = address_of(&bind()?)?;
    let (provider_listener, api_listener, attacker) = (bind()?, bind()?, bind()?);
    let origin_of = |listener| address_of(listener).map(|address| format!("http://{address}"));
    let origins = Origins {
        app: format!("http://localhost:{port}"),
        provider: origin_of(&provider_listener)?,
        attacker: origin_of(&attacker)?,
    };
    let registration = Registration {
        client_id: "cloakroom-demo".into(),
        client_secret: fresh_secret()?,
        origin: origins.app.clone(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
    };
    let upstream = origin_of(&api_listener)?;
    let config_yaml = config(&origins, &listen, admin, &registration, &upstream);
    let provider = Arc::new(Provider::new(
        origins.provider.clone(),
        &registration,
        Clock::System,
    )?);
    let api = Api {
        provider: provider.clone(),
        origins: origins.clone(),
        clock: Clock::System,
        stop: CancellationToken::new(),
        tracker: TaskTracker::new(),
        handed_over: AtomicU64::new(0),
        forged: AtomicU64::new(0),
    };
    Ok(Demo {
        config_yaml,
        url: origins.app,
        admin,
        issuer: origins.provider,
        provider: (provider_listener, provider),
        api: (api_listener, api),
        attacker,
    })
}

impl Demo {
    /// Serves provider, API and attacker's page until `stop` is cancelled; returns when nothing is under way any more.
    ///
    /// # Errors
    /// A sentence, where a bound socket cannot be served.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), String> {
        let mut api = self.api.1;
        api.stop = stop.clone();
        let (tracker, origins) = (api.tracker.clone(), api.origins.clone());
        let (api, provider) = (Arc::new(api), self.provider.1);
        let served = |listener: TcpListener| {
            tokio::net::TcpListener::from_std(listener)
                .map_err(|error| format!("a socket cannot be served: {error}"))
        };
        let answer_provider = move |request| {
            let provider = provider.clone();
            async move { provider.answer(request).await }
        };
        let answer_api = move |request| {
            let api = api.clone();
            async move { api.answer(request).await }
        };
        let answer_attacker = move |request: hyper::Request<hyper::body::Incoming>| {
            let answer = assets::attacker(request.uri().path(), &origins);
            async move { answer }
        };
        let (provider_listener, api_listener, attacker_listener) = (
            served(self.provider.0)?,
            served(self.api.0)?,
            served(self.attacker)?,
        );
        tokio::join!(
            server::serve(provider_listener, stop.clone(), tracker.clone(), answer_provider),
            server::serve(api_listener, stop.clone(), tracker.clone(), answer_api),
            server::serve(attacker_listener, stop, tracker.clone(), answer_attacker),
        );
        tracker.close();
        tracker.wait().await;
        Ok(())
    }
}

/// The port and the addresses that cloakroom itself will listen on. `localhost` may mean either family, so both are
/// taken where there are both; they are tried here, so that a port in use is named before anything else happens.
fn own_addresses(port: u16) -> Result<(u16, Vec<SocketAddr>), String> {
    let taken = |error| format!("port {port} cannot be had ({error}); choose another one with --port");
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(taken)?;
    let port = address_of(&first)?.port();
    let mut addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        TcpListener::bind((Ipv6Addr::LOCALHOST, port)).map_err(taken)?;
        addresses.push(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    }
    Ok((port, addresses))
}

fn bind() -> Result<TcpListener, String> {
    let failed = |error| format!("no loopback port can be had: {error}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener
        .local_addr()
        .map_err(|error| format!("a socket has no address: {error}"))
}

fn fresh_secret() -> Result<String, String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system has no randomness".to_owned())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn config(
    origins: &Origins,
    listen: &[SocketAddr],
    admin: SocketAddr,
    client: &Registration,
    upstream: &str,
) -> String {
    let listen: Vec<String> = listen.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        r#"# The demo's config: a small app, an API behind it, one provider.
public_url: {app}

server:
  listen: [{listen}]
  admin: "{admin}"
  drain_delay: 0s
  drain_timeout: 2s

providers:
  demo:
    issuer: {issuer}
    client_id: {client_id}
    client_secret: "{client_secret}"
    scopes: [openid, profile, email, offline_access]
    label: Front desk

session:
  idle_timeout: 10m
  absolute_timeout: 1h
  refresh_before: 10s       # access tokens live 30 s here: one can watch them being refreshed
  store: {{ memory: {{ max_sessions: 10000 }} }}

routes:
  - path: /api
    upstream: {upstream}
    auth: required
  - path: /api/back-office
    upstream: {upstream}
    auth: required
    require: {{ claims: {{ groups: [staff] }} }}
  - path: /
    upstream: {upstream}
    auth: none
"#,
        app = origins.app,
        listen = listen.join(", "),
        issuer = origins.provider,
        client_id = client.client_id,
        client_secret = client.client_secret,
    )
}

//! For tests: a provider that rotates refresh tokens and detects their reuse, and sessions over it.

use super::refresh::{Asking, RefreshAt};
use super::seal::KeyRing;
use super::{NewSession, Session, SessionId, Sessions, Tokens};
use crate::clock::{Clock, UnixTime};
use crate::config::SessionSettings;
use crate::protocol::id_token::IdTokenClaims;
use crate::protocol::token_response::{TokenError, TokenResponse};
use crate::provider::ProviderError;
use crate::secret::{AccessToken, IdToken, RefreshToken, Secret};
use crate::store::Store;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

pub(crate) const BEGIN: UnixTime = UnixTime::from_secs(1_800_000_000);
/// How long the access tokens of these tests live.
pub(crate) const LIFETIME: Duration = Duration::from_mins(5);

/// What userinfo answers.
type Userinfo = Result<Map<String, Value>, ProviderError>;

/// A provider out of a test's head.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) name: String,
    pub(crate) client_id: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// The number of the refresh token that is good now.
    pub(crate) current: u32,
    /// The refresh tokens that were shown, in order.
    pub(crate) calls: Vec<String>,
    /// How often a token came that had been used before.
    pub(crate) reuses: u32,
    /// The tokens that were revoked.
    pub(crate) revoked: Vec<String>,
    /// How long a call takes until the token is rotated, and from then until its answer.
    pub(crate) delays: (Duration, Duration),
    /// The next calls fail with these, after half of the delays.
    pub(crate) failures: VecDeque<TokenError>,
    /// Whether refresh tokens stay as they are.
    pub(crate) keeps_refresh_token: bool,
    /// The scope that answers name.
    pub(crate) scope: Option<String>,
    /// The claims of the ID tokens that come along, or what is wrong with them.
    pub(crate) id_token: Option<Result<Map<String, Value>, ProviderError>>,
    pub(crate) verify_delay: Duration,
    pub(crate) userinfo: Option<(Duration, Userinfo)>,
}

impl Scripted {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            client_id: "app".into(),
            state: Mutex::default(),
        })
    }

    /// Looks at or changes what it does.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    pub(crate) fn calls(&self) -> usize {
        self.with(|state| state.calls.len())
    }
}

impl RefreshAt for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    fn issuer(&self) -> &'static str {
        "https://id.example.com"
    }

    fn client_id(&self) -> &str {
        &self.client_id
    }

    fn asks_userinfo(&self) -> bool {
        self.with(|state| state.userinfo.is_some())
    }

    fn refresh<'a>(&'a self, token: &'a RefreshToken) -> Asking<'a, Result<TokenResponse, TokenError>> {
        Box::pin(async move {
            let delays = self.with(|state| {
                state.calls.push(token.expose().to_owned());
                state.delays
            });
            sleep(delays.0).await;
            let answer = self.with(|state| {
                if let Some(error) = state.failures.pop_front() {
                    return Err(error);
                }
                if token.expose() != format!("refresh-{}", state.current) {
                    state.reuses += 1;
                    return Err(TokenError::InvalidGrant);
                }
                if !state.keeps_refresh_token {
                    state.current += 1;
                }
                let n = state.calls.len();
                Ok(TokenResponse {
                    access_token: AccessToken::new(format!("access-{n}")),
                    refresh_token: (!state.keeps_refresh_token)
                        .then(|| RefreshToken::new(format!("refresh-{}", state.current))),
                    id_token: state.id_token.as_ref().map(|_| IdToken::new(format!("id-{n}"))),
                    expires_in: LIFETIME,
                    scope: state.scope.clone(),
                })
            });
            sleep(delays.1).await;
            answer
        })
    }

    fn verify_refreshed<'a>(
        &'a self,
        _token: &'a IdToken,
        sub: &'a str,
    ) -> Asking<'a, Result<IdTokenClaims, ProviderError>> {
        Box::pin(async move {
            sleep(self.with(|state| state.verify_delay)).await;
            let all = self.with(|state| state.id_token.clone()).unwrap()?;
            Ok(IdTokenClaims {
                iss: self.issuer().into(),
                sub: sub.into(),
                sid: None,
                auth_time: None,
                acr: None,
                all,
            })
        })
    }

    fn userinfo<'a>(&'a self, _token: &'a AccessToken, _sub: &'a str) -> Asking<'a, Userinfo> {
        Box::pin(async move {
            let (delay, answer) = self.with(|state| state.userinfo.clone()).unwrap();
            sleep(delay).await;
            answer
        })
    }

    fn revoke<'a>(
        &'a self,
        refresh: Option<&'a RefreshToken>,
        access: Option<&'a AccessToken>,
    ) -> Asking<'a, ()> {
        Box::pin(async move {
            let tokens = [refresh.map(RefreshToken::expose), access.map(AccessToken::expose)];
            self.with(|state| {
                state
                    .revoked
                    .extend(tokens.into_iter().flatten().map(str::to_owned));
            });
        })
    }
}

/// One replica, its store, its provider and its clock.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) store: Arc<Store>,
    pub(crate) provider: Arc<Scripted>,
    pub(crate) tasks: TaskTracker,
    pub(crate) sessions: Arc<Sessions>,
}

impl World {
    /// Over a memory store.
    pub(crate) fn new() -> Self {
        let clock = Clock::manual(BEGIN);
        Self::over(
            Store::memory(1000, clock.clone()).into(),
            clock,
            Scripted::new("main"),
        )
    }

    pub(crate) fn over(store: Arc<Store>, clock: Clock, provider: Arc<Scripted>) -> Self {
        let tasks = TaskTracker::new();
        let keys = key_ring("https://app.example.com", 1);
        let sessions = replica(&store, keys, &[Arc::clone(&provider)], &clock, &tasks);
        Self {
            clock,
            store,
            provider,
            tasks,
            sessions,
        }
    }

    /// The same with other settings: another replica over the same store, in its place.
    pub(crate) fn with(mut self, settings: &SessionSettings) -> Self {
        self.sessions = replica_with(
            &self.store,
            key_ring("https://app.example.com", 1),
            std::slice::from_ref(&self.provider),
            &self.clock,
            &self.tasks,
            settings,
        );
        self
    }

    /// Another replica over the same store.
    pub(crate) fn another(&self) -> Self {
        Self::over(
            Arc::clone(&self.store),
            self.clock.clone(),
            Arc::clone(&self.provider),
        )
    }

    pub(crate) async fn begin(&self) -> (SessionId, Session) {
        self.sessions.begin(new_session(&self.clock)).await.unwrap()
    }

    pub(crate) async fn look_up(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.sessions.look_up(id).await.unwrap()
    }

    /// Waits until nothing runs in the background.
    pub(crate) async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

pub(crate) fn key_ring(public_url: &str, key: u8) -> KeyRing {
    KeyRing::new(
        public_url,
        &[Secret::new(BASE64_URL_SAFE_NO_PAD.encode([key; 32]))],
    )
    .unwrap()
}

pub(crate) fn replica(
    store: &Arc<Store>,
    keys: KeyRing,
    providers: &[Arc<Scripted>],
    clock: &Clock,
    tasks: &TaskTracker,
) -> Arc<Sessions> {
    replica_with(store, keys, providers, clock, tasks, &SessionSettings::default())
}

fn replica_with(
    store: &Arc<Store>,
    keys: KeyRing,
    providers: &[Arc<Scripted>],
    clock: &Clock,
    tasks: &TaskTracker,
    settings: &SessionSettings,
) -> Arc<Sessions> {
    Arc::new(Sessions::new(
        Arc::clone(store),
        Arc::new(keys),
        settings,
        providers,
        clock.clone(),
        tasks.clone(),
        Arc::default(),
    ))
}

pub(crate) fn new_session(clock: &Clock) -> NewSession {
    let now = clock.now();
    NewSession {
        provider: "main".into(),
        sub: "canary-sub".into(),
        sid: Some("canary-sid".into()),
        claims: json!({"sub": "canary-sub", "groups": ["staff"]})
            .as_object()
            .unwrap()
            .clone(),
        tokens: Tokens {
            access_token: AccessToken::new("access-0"),
            obtained: now,
            expires: now.plus(LIFETIME),
            refresh_token: Some(RefreshToken::new("refresh-0")),
            id_token: None,
            scopes: vec!["openid".into()],
        },
        attempted: now,
    }
}

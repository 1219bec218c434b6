//! A provider of our own that does what a test tells it: correct unless its script says otherwise.
//!
//! The authorization endpoint is answered by the test itself ([`Rogue::authorize`] mints the code); discovery, JWKS,
//! token, userinfo and revocation are served over HTTP. Everything that it issues is a canary.

use super::form;
use super::keys::{Key, Sign};
use super::rogue_endpoints::serve;
use super::secrets::{CLIENT_ID, canary, remember};
use super::wire::{Fields, Wire};
use super::{free_port, now, random, runtime};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

/// Changes a JSON document before it goes out.
pub type Change = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// Something to tell the provider.
pub type Direction = Box<dyn Fn(&mut Script)>;

/// A change, from a closure.
#[expect(clippy::unnecessary_wraps, reason = "the script's fields are optional")]
pub fn change(with: impl Fn(&mut Value) + Send + Sync + 'static) -> Option<Change> {
    Some(Arc::new(with))
}

/// What happens to one token request.
#[derive(Clone, Debug)]
pub enum Step {
    /// The work is done after this long.
    Late(Duration),
    /// This answer instead of the work: status line and headers, body.
    Answer(u16, &'static str, String),
    /// The connection ends before the work.
    DropBefore,
    /// The work is done, its answer is lost.
    DropAfter,
    /// The work is done, its answer waits for this.
    Held(Arc<Notify>),
}

/// What the provider does. The default is correct.
#[derive(Clone, Default)]
pub struct Script {
    /// On the discovery document.
    pub discovery: Option<Change>,
    /// On the key set.
    pub jwks: Option<Change>,
    /// On the ID token's header.
    pub header: Option<Change>,
    /// On the claims of a login's ID token.
    pub claims: Option<Change>,
    /// On the claims of a refresh's ID token.
    pub refreshed_claims: Option<Change>,
    /// On the answer to a code.
    pub token: Option<Change>,
    /// On the answer to a refresh token.
    pub refreshed: Option<Change>,
    /// On the userinfo answer.
    pub userinfo: Option<Change>,
    /// Which key signs, and how.
    pub sign: Option<Sign>,
    /// Next token requests, one each.
    pub steps: VecDeque<Step>,
    /// All token requests after those.
    pub always: Option<Step>,
    /// Refresh tokens stay the same.
    pub keeps_refresh_tokens: bool,
    /// What `expires_in` says, and when access tokens end.
    pub lifetime: Option<u64>,
    /// Whole answers (raw bytes) by path, instead of everything.
    pub raw: BTreeMap<&'static str, Vec<u8>>,
    /// The client secrets that are accepted.
    pub secrets: Vec<String>,
    /// Delay of every answer of this path.
    pub late: BTreeMap<&'static str, Duration>,
}

/// A token request as it came.
#[derive(Clone, Debug)]
pub struct Call {
    /// The path.
    pub path: String,
    /// Its fields.
    pub fields: Fields,
    /// Its form.
    pub form: Vec<(String, String)>,
}

impl Call {
    /// The form's value of that name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.form
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What an authorization code stands for.
#[derive(Clone, Debug)]
pub struct Grant {
    pub(super) nonce: Option<String>,
    pub(super) challenge: String,
    pub(super) redirect_uri: String,
    pub(super) sub: String,
    pub(super) sid: String,
    pub(super) scope: String,
    pub(super) family: u64,
}

/// All that the provider knows.
#[derive(Default)]
pub struct Books {
    pub(super) script: Script,
    pub(super) codes: BTreeMap<String, Grant>,
    pub(super) refresh_tokens: BTreeMap<String, Grant>,
    pub(super) spent: BTreeMap<String, u64>,
    pub(super) access_tokens: BTreeMap<String, Grant>,
    pub(super) revoked: Vec<String>,
    pub(super) calls: Vec<Call>,
    pub(super) families: u64,
    pub(super) sids: Vec<String>,
}

/// The provider.
pub struct Rogue {
    /// Its issuer identifier.
    pub issuer: String,
    port: u16,
    books: Arc<Mutex<Books>>,
    served: Option<JoinHandle<()>>,
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.served.take().inspect(JoinHandle::abort);
    }
}

impl Rogue {
    /// Starts on a free port.
    pub async fn start() -> Self {
        let port = free_port();
        let issuer = format!("http://127.0.0.1:{port}");
        let mut rogue = Self {
            issuer,
            port,
            books: Arc::default(),
            served: None,
        };
        rogue.books().script.secrets = vec![canary("client-secret")];
        rogue.open().await;
        rogue
    }

    /// Listens (again).
    pub async fn open(&mut self) {
        let (books, issuer, port) = (self.books.clone(), self.issuer.clone(), self.port);
        let listener = runtime()
            .spawn(TcpListener::bind(("127.0.0.1", port)))
            .await
            .unwrap()
            .unwrap();
        self.served = Some(runtime().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(Wire::new(stream), books.clone(), issuer.clone()));
            }
        }));
    }

    /// Stops listening and ends all connections: from now on they are refused.
    pub async fn close(&mut self) {
        if let Some(served) = self.served.take() {
            served.abort();
            let _ended = served.await;
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// The secret that it knows the client by.
    pub fn client_secret(&self) -> String {
        self.books().script.secrets[0].clone()
    }

    /// Changes what it does from now on.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.books().script);
    }

    /// Correct again (the client secrets stay).
    pub fn behave(&self) {
        let mut books = self.books();
        let secrets = std::mem::take(&mut books.script.secrets);
        books.script = Script {
            secrets,
            ..Script::default()
        };
    }

    /// Every request on that path so far.
    pub fn calls(&self, path: &str) -> Vec<Call> {
        self.books()
            .calls
            .iter()
            .filter(|call| call.path == path)
            .cloned()
            .collect()
    }

    /// How many requests on that path so far.
    pub fn count(&self, path: &str) -> usize {
        self.calls(path).len()
    }

    /// How many token requests of that grant so far.
    pub fn grants(&self, grant_type: &str) -> usize {
        let calls = self.calls("/token");
        calls
            .iter()
            .filter(|call| call.value("grant_type") == Some(grant_type))
            .count()
    }

    /// The tokens that were revoked.
    pub fn revoked(&self) -> Vec<String> {
        self.books().revoked.clone()
    }

    /// Whether this access token is one of ours, and whose.
    pub fn subject_of(&self, access_token: &str) -> Option<String> {
        self.books()
            .access_tokens
            .get(access_token)
            .map(|grant| grant.sub.clone())
    }

    /// How many access tokens it has issued.
    pub fn issued(&self) -> usize {
        self.books().access_tokens.len()
    }

    /// Its own session of the last login.
    pub fn sid(&self) -> String {
        self.books().sids.last().unwrap().clone()
    }

    /// A good logout token with these claims of its own beside the usual ones; null takes one away.
    pub fn logout_token(&self, claims: &Value) -> String {
        self.logout_token_as(Sign::With(Key::Rs256), |_| (), claims)
    }

    /// As [`Rogue::logout_token`], with this signature, under this header.
    pub fn logout_token_as(&self, sign: Sign, header: impl FnOnce(&mut Value), claims: &Value) -> String {
        let mut said = json!({
            "iss": self.issuer, "aud": CLIENT_ID, "iat": now(), "exp": now() + 120, "jti": random(16),
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        let members = said.as_object_mut().unwrap();
        for (name, value) in claims.as_object().unwrap() {
            if value.is_null() {
                members.remove(name);
            } else {
                members.insert(name.clone(), value.clone());
            }
        }
        let mut head = sign.header();
        head["typ"] = "logout+jwt".into();
        header(&mut head);
        let token = sign.compact(&head, &said, &self.client_secret());
        remember(&token);
        token
    }

    /// Refresh tokens answer `invalid_grant` from now on.
    pub fn forget_refresh_tokens(&self) {
        self.books().refresh_tokens.clear();
    }

    /// Alice signs in: where the browser is sent back to.
    pub fn authorize(&self, url: &str) -> String {
        self.authorize_as(url, "alice")
    }

    /// Somebody signs in: where the browser is sent back to.
    pub fn authorize_as(&self, url: &str, sub: &str) -> String {
        assert!(
            url.starts_with(&format!("{}/authorize?", self.issuer)),
            "not ours: {url}"
        );
        let value = |name: &str| form::parameter(url, name);
        assert_eq!(value("client_id").as_deref(), Some(CLIENT_ID));
        assert_eq!(value("code_challenge_method").as_deref(), Some("S256"));
        let code = canary("code");
        let redirect_uri = value("redirect_uri").unwrap();
        let mut books = self.books();
        books.families += 1;
        let grant = Grant {
            nonce: value("nonce"),
            challenge: value("code_challenge").unwrap(),
            redirect_uri: redirect_uri.clone(),
            sub: sub.to_owned(),
            sid: random(12),
            scope: value("scope").unwrap_or_default(),
            family: books.families,
        };
        books.sids.push(grant.sid.clone());
        books.codes.insert(code.clone(), grant);
        format!(
            "{redirect_uri}?code={code}&state={}",
            form::encode(&value("state").unwrap())
        )
    }

    /// The provider refuses: where the browser is sent back to.
    pub fn refuse(&self, url: &str, error: &str) -> String {
        assert!(url.starts_with(&self.issuer), "not ours: {url}");
        let value = |name: &str| form::parameter(url, name).unwrap();
        format!(
            "{}?error={error}&state={}",
            value("redirect_uri"),
            form::encode(&value("state"))
        )
    }
}

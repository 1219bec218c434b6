//! A provider of our own that does what a test tells it: correct unless its script says otherwise.
//!
//! The authorization endpoint is answered by the test itself ([`Rogue::authorize`] mints the code); discovery, JWKS,
//! token, userinfo and revocation are served over HTTP. Everything that it issues is a canary.

use super::form;
use super::keys::{Key, Sign};
use super::secrets::{CLIENT_ID, canary, remember};
use super::wire::{Fields, Head, Wire, values};
use super::{free_port, now, random, runtime};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
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

#[derive(Clone, Debug)]
struct Grant {
    nonce: Option<String>,
    challenge: String,
    redirect_uri: String,
    sub: String,
    sid: String,
    scope: String,
    family: u64,
}

#[derive(Default)]
struct Books {
    script: Script,
    codes: BTreeMap<String, Grant>,
    refresh_tokens: BTreeMap<String, Grant>,
    spent: BTreeMap<String, u64>,
    access_tokens: BTreeMap<String, Grant>,
    revoked: Vec<String>,
    calls: Vec<Call>,
    families: u64,
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

async fn serve(mut wire: Wire<TcpStream>, books: Arc<Mutex<Books>>, issuer: String) {
    while let Ok(Some(head)) = wire.head().await {
        let Ok(body) = wire.body(head.request_framing()).await else {
            return;
        };
        let Some(answer) = answer(&head, &body, &books, &issuer).await else {
            return;
        };
        if wire.send(&answer).await.is_err() {
            return;
        }
    }
}

/// A whole answer with a JSON body.
pub fn json_answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

async fn answer(head: &Head, body: &[u8], books: &Mutex<Books>, issuer: &str) -> Option<Vec<u8>> {
    let target = head.start.split(' ').nth(1)?;
    let path = target.split('?').next()?;
    let form = form::pairs(&String::from_utf8_lossy(body));
    let call = Call {
        path: path.to_owned(),
        fields: head.fields.clone(),
        form,
    };
    let (late, raw) = {
        let mut books = books.lock().unwrap();
        books.calls.push(call.clone());
        (
            books.script.late.get(path).copied(),
            books.script.raw.get(path).cloned(),
        )
    };
    if let Some(late) = late {
        tokio::time::sleep(late).await;
    }
    if raw.is_some() {
        return raw;
    }
    let document = match path {
        "/.well-known/openid-configuration" => discovery(&books.lock().unwrap().script, issuer),
        "/jwks" => jwks(&books.lock().unwrap().script),
        "/token" => return token(&call, books, issuer).await,
        "/userinfo" => return Some(userinfo(&call, &books.lock().unwrap())),
        "/revoke" => return Some(revoke(&call, &mut books.lock().unwrap())),
        _ => return Some(json_answer(404, "", "{}")),
    };
    Some(json_answer(200, "", &document.to_string()))
}

fn changed(mut document: Value, change: Option<&Change>) -> Value {
    if let Some(change) = change {
        change(&mut document);
    }
    document
}

fn discovery(script: &Script, issuer: &str) -> Value {
    let document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "end_session_endpoint": format!("{issuer}/end"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "id_token_signing_alg_values_supported": ["RS256", "PS256", "ES256", "EdDSA"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
    });
    changed(document, script.discovery.as_ref())
}

fn jwks(script: &Script) -> Value {
    let keys = [Key::Rs256, Key::Es256, Key::EdDsa].map(Key::jwk);
    changed(json!({ "keys": keys }), script.jwks.as_ref())
}

/// Who the client says it is: HTTP Basic (RFC 6749 §2.3.1) or the form; never both.
fn client_secret(call: &Call) -> Option<String> {
    let basic = values(&call.fields, "authorization");
    let post = call.value("client_secret");
    match (basic.as_slice(), post) {
        ([], Some(secret)) => (call.value("client_id") == Some(CLIENT_ID)).then(|| secret.to_owned()),
        ([basic], None) => {
            let pair = STANDARD.decode(basic.strip_prefix("Basic ")?).ok()?;
            let pair = String::from_utf8(pair).ok()?;
            let (id, secret) = pair.split_once(':')?;
            (form::decode(id) == CLIENT_ID).then(|| form::decode(secret))
        }
        _ => None,
    }
}

fn refused(status: u16, error: &str) -> Vec<u8> {
    json_answer(status, "", &json!({ "error": error }).to_string())
}

async fn token(call: &Call, books: &Mutex<Books>, issuer: &str) -> Option<Vec<u8>> {
    let step = {
        let mut books = books.lock().unwrap();
        let next = books.script.steps.pop_front();
        next.or_else(|| books.script.always.clone())
    };
    match step {
        Some(Step::Late(late)) => tokio::time::sleep(late).await,
        Some(Step::Answer(status, headers, body)) => return Some(json_answer(status, headers, &body)),
        Some(Step::DropBefore) => return None,
        Some(Step::DropAfter) | None => {}
    }
    let mut books = books.lock().unwrap();
    let known = client_secret(call).is_some_and(|secret| books.script.secrets.contains(&secret));
    let done = if !known {
        refused(401, "invalid_client")
    } else if call.value("grant_type") == Some("authorization_code") {
        redeem(call, &mut books, issuer)
    } else {
        renew(call, &mut books, issuer)
    };
    if matches!(step, Some(Step::DropAfter)) {
        None
    } else {
        Some(done)
    }
}

fn redeem(call: &Call, books: &mut Books, issuer: &str) -> Vec<u8> {
    let grant = call.value("code").and_then(|code| books.codes.remove(code));
    let Some(grant) = grant else {
        return refused(400, "invalid_grant");
    };
    let verifier = call.value("code_verifier").unwrap_or_default();
    remember(verifier);
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    if challenge != grant.challenge || call.value("redirect_uri") != Some(&grant.redirect_uri) {
        return refused(400, "invalid_grant");
    }
    let refresh = grant.scope.contains("offline_access").then(|| canary("rt"));
    issue(books, &grant, refresh, false, issuer)
}

fn renew(call: &Call, books: &mut Books, issuer: &str) -> Vec<u8> {
    let presented = call.value("refresh_token").unwrap_or_default().to_owned();
    if let Some(family) = books.spent.get(&presented).copied() {
        // A rotated token came again: the whole family dies (RFC 9700 §4.14.2).
        books.refresh_tokens.retain(|_, grant| grant.family != family);
        return refused(400, "invalid_grant");
    }
    let Some(grant) = books.refresh_tokens.get(&presented).cloned() else {
        return refused(400, "invalid_grant");
    };
    let next = if books.script.keeps_refresh_tokens {
        None
    } else {
        books.refresh_tokens.remove(&presented);
        books.spent.insert(presented, grant.family);
        Some(canary("rt"))
    };
    issue(books, &grant, next, true, issuer)
}

fn issue(books: &mut Books, grant: &Grant, refresh: Option<String>, again: bool, issuer: &str) -> Vec<u8> {
    let access_token = canary("at");
    let id_token = id_token(books, grant, &access_token, again, issuer);
    let mut answer = json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": books.script.lifetime.unwrap_or(300),
        "id_token": id_token,
        "scope": grant.scope,
    });
    books.access_tokens.insert(access_token, grant.clone());
    if let Some(refresh) = refresh {
        answer["refresh_token"] = refresh.clone().into();
        books.refresh_tokens.insert(refresh, grant.clone());
    }
    let change = if again {
        &books.script.refreshed
    } else {
        &books.script.token
    };
    json_answer(200, "", &changed(answer, change.as_ref()).to_string())
}

fn id_token(books: &Books, grant: &Grant, access_token: &str, again: bool, issuer: &str) -> String {
    let script = &books.script;
    let half = digest(&SHA256, access_token.as_bytes());
    let mut claims = json!({
        "iss": issuer, "sub": grant.sub, "aud": CLIENT_ID,
        "exp": now() + 300, "iat": now(), "auth_time": now(),
        "sid": grant.sid,
        "name": "Alice Example", "preferred_username": grant.sub, "email": format!("{}@example.com", grant.sub),
        "email_verified": true, "groups": ["staff", "readers"], "realm_access": { "roles": ["clerk"] },
        "secret_claim": "not on the list",
    });
    let sign = script.sign.unwrap_or(Sign::With(Key::Rs256));
    if sign != Sign::With(Key::EdDsa) {
        claims["at_hash"] = URL_SAFE_NO_PAD.encode(&half.as_ref()[..16]).into();
    }
    if !again && let Some(nonce) = &grant.nonce {
        claims["nonce"] = nonce.clone().into();
    }
    let change = if again {
        &script.refreshed_claims
    } else {
        &script.claims
    };
    let claims = changed(claims, change.as_ref());
    let header = changed(sign.header(), script.header.as_ref());
    sign.compact(&header, &claims, &script.secrets[0])
}

fn userinfo(call: &Call, books: &Books) -> Vec<u8> {
    let bearer = values(&call.fields, "authorization");
    let token = bearer.first().and_then(|value| value.strip_prefix("Bearer "));
    let Some(grant) = token.and_then(|token| books.access_tokens.get(token)) else {
        return refused(401, "invalid_token");
    };
    let document = json!({ "sub": grant.sub, "picture": "https://pictures.example/alice.png" });
    json_answer(
        200,
        "",
        &changed(document, books.script.userinfo.as_ref()).to_string(),
    )
}

fn revoke(call: &Call, books: &mut Books) -> Vec<u8> {
    if !client_secret(call).is_some_and(|secret| books.script.secrets.contains(&secret)) {
        return refused(401, "invalid_client");
    }
    let token = call.value("token").unwrap_or_default().to_owned();
    books.refresh_tokens.remove(&token);
    books.access_tokens.remove(&token);
    books.revoked.push(token);
    json_answer(200, "", "")
}

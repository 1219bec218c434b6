//! The rogue provider's endpoints: right answers, bent as its script says.

use super::form;
use super::keys::{Key, Sign};
use super::now;
use super::rogue::{Books, Call, Change, Grant, Script, Step};
use super::secrets::{CLIENT_ID, canary, remember};
use super::wire::{Head, Wire, values};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::net::TcpStream;

/// One connection.
pub async fn serve(mut wire: Wire<TcpStream>, books: Arc<Mutex<Books>>, issuer: String) {
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
    let (length, date) = (body.len(), httpdate::fmt_http_date(SystemTime::now()));
    format!(
        "HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
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
    match &step {
        Some(Step::Late(late)) => tokio::time::sleep(*late).await,
        Some(Step::Answer(status, headers, body)) => return Some(json_answer(*status, headers, body)),
        Some(Step::DropBefore) => return None,
        Some(Step::DropAfter | Step::Held(_)) | None => {}
    }
    let done = work(call, &mut books.lock().unwrap(), issuer);
    match step {
        Some(Step::DropAfter) => return None,
        Some(Step::Held(released)) => released.notified().await,
        _ => {}
    }
    Some(done)
}

fn work(call: &Call, books: &mut Books, issuer: &str) -> Vec<u8> {
    let known = client_secret(call).is_some_and(|secret| books.script.secrets.contains(&secret));
    if !known {
        refused(401, "invalid_client")
    } else if call.value("grant_type") == Some("authorization_code") {
        redeem(call, books, issuer)
    } else {
        renew(call, books, issuer)
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

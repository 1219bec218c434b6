//! The embedded provider, API and pages over real sockets, as a browser and a relying party meet them.

use super::keys::{Purpose, half_hash, hash, unguessable};
use crate::demo::form::{Form, encode};
use crate::demo::{Demo, server, start};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A running demo, without cloakroom.
struct Desk {
    issuer: String,
    app: String,
    api: String,
    attacker: String,
    secret: String,
    verifier: String,
    _stop: DropGuard,
}

impl Desk {
    fn open() -> Self {
        Self::serve(start(0).unwrap())
    }

    fn serve(demo: Demo) -> Self {
        let line = |key: &str| {
            let text = demo.config_yaml.split_once(key).unwrap().1;
            text.lines().next().unwrap().trim().trim_matches('"').to_owned()
        };
        let desk = Self {
            issuer: demo.issuer.clone(),
            app: demo.url.clone(),
            api: line("upstream: "),
            attacker: format!("http://{}", demo.attacker.local_addr().unwrap()),
            secret: line("client_secret: "),
            verifier: unguessable(),
            _stop: CancellationToken::new().drop_guard(),
        };
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(demo.serve(stop.clone()));
        Self {
            _stop: stop.drop_guard(),
            ..desk
        }
    }

    async fn send(&self, origin: &str, request: http::request::Builder, body: String) -> Response<Bytes> {
        let authority = origin.trim_start_matches("http://");
        let request = request
            .header(HOST, authority)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        server::send(authority.parse().unwrap(), request).await.unwrap()
    }

    async fn ask(&self, path: &str, cookie: &str) -> Response<Bytes> {
        self.send(
            &self.issuer,
            Request::get(path).header(COOKIE, cookie),
            String::new(),
        )
        .await
    }

    async fn post(&self, path: &str, form: &str, cookie: &str) -> Response<Bytes> {
        let request = Request::post(path)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(COOKIE, cookie);
        self.send(&self.issuer, request, form.to_owned()).await
    }

    fn query(&self) -> String {
        format!(
            "client_id=cloakroom-demo&response_type=code&scope=openid%20email%20offline_access&state=s%26%C3%A4\
             &nonce=n&code_challenge={}&code_challenge_method=S256&redirect_uri={}",
            hash(&self.verifier),
            encode(&format!("{}/bff/callback", self.app)),
        )
    }

    /// Signs somebody in: the answer's parameters and the provider's cookie.
    async fn sign_in(&self, person: &str) -> (Form, String) {
        let answer = self
            .post("/sign-in", &format!("{}&person={person}", self.query()), "")
            .await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let cookie = answer.headers()[SET_COOKIE]
            .to_str()
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        (self.answer_of(&answer), cookie)
    }

    fn answer_of(&self, answer: &Response<Bytes>) -> Form {
        let (uri, query) = answer.headers()[LOCATION]
            .to_str()
            .unwrap()
            .split_once('?')
            .unwrap();
        assert_eq!(uri, format!("{}/bff/callback", self.app));
        Form::parse(query).unwrap()
    }

    async fn token(&self, form: &str) -> (StatusCode, Value) {
        let credentials = STANDARD.encode(format!("cloakroom-demo:{}", self.secret));
        let request = Request::post("/token")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(AUTHORIZATION, format!("Basic {credentials}"));
        let answer = self.send(&self.issuer, request, form.to_owned()).await;
        (answer.status(), serde_json::from_slice(answer.body()).unwrap())
    }

    fn exchange(&self, code: &str, verifier: &str) -> String {
        let uri = encode(&format!("{}/bff/callback", self.app));
        format!("grant_type=authorization_code&code={code}&code_verifier={verifier}&redirect_uri={uri}")
    }

    async fn tokens(&self, person: &str) -> Value {
        let (answer, _) = self.sign_in(person).await;
        let (status, tokens) = self
            .token(&self.exchange(answer.value("code").unwrap(), &self.verifier))
            .await;
        assert_eq!(status, StatusCode::OK, "{tokens}");
        tokens
    }

    async fn refresh(&self, tokens: &Value) -> (StatusCode, Value) {
        let token = tokens["refresh_token"].as_str().unwrap();
        self.token(&format!("grant_type=refresh_token&refresh_token={token}"))
            .await
    }

    async fn call(&self, path: &str, tokens: &Value) -> (StatusCode, Value) {
        let token = format!("Bearer {}", tokens["access_token"].as_str().unwrap_or_default());
        let request = Request::get(path).header(AUTHORIZATION, token);
        let answer = self.send(&self.api, request, String::new()).await;
        (answer.status(), serde_json::from_slice(answer.body()).unwrap())
    }
}

#[tokio::test]
async fn the_sign_in_form_stands_at_the_authorization_endpoint() {
    let desk = Desk::open();
    let answer = desk.ask(&format!("/authorize?{}", desk.query()), "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(
        answer.headers()[CONTENT_TYPE]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("default-src 'none'")
            && policy.contains(&format!("form-action 'self' {};", desk.app))
    );
    let html = std::str::from_utf8(answer.body()).unwrap();
    assert!(html.contains("<form method=\"post\" action=\"/sign-in\">") && !html.contains("<script"));
    assert!(
        html.contains("name=\"state\" value=\"s&amp;ä\"") && html.contains("name=\"person\" value=\"sam\"")
    );

    let (answer, _) = desk.sign_in("sam").await;
    assert_eq!(answer.value("state"), Some("s&ä"));
    assert_eq!(answer.value("iss"), Some(desk.issuer.as_str()));
    let cancelled = desk
        .post("/sign-in", &format!("{}&cancel=yes", desk.query()), "")
        .await;
    assert_eq!(desk.answer_of(&cancelled).value("error"), Some("access_denied"));
}

#[tokio::test]
async fn a_redirect_uri_or_client_that_is_not_registered_gets_a_page_and_no_redirect() {
    let desk = Desk::open();
    for wrong in [
        desk.query().replace("/bff/callback", "/bff/callback/"),
        desk.query().replace("localhost", "127.0.0.1"),
        desk.query().replace("cloakroom-demo", "other"),
        "client_id=cloakroom-demo".into(),
        desk.query() + "&state=again",
    ] {
        let answer = desk.ask(&format!("/authorize?{wrong}"), "").await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{wrong}");
        assert!(answer.headers().get(LOCATION).is_none());
    }
    for (wrong, error) in [
        (desk.query().replace("S256", "plain"), "invalid_request"),
        (desk.query().replace("code_challenge=", "x="), "invalid_request"),
        (
            desk.query().replace("response_type=code", "response_type=token"),
            "unsupported_response_type",
        ),
        (
            desk.query().replace("scope=openid", "scope=profile"),
            "invalid_scope",
        ),
        (desk.query() + "&prompt=none%20login", "invalid_request"),
        (desk.query() + "&max_age=-1", "invalid_request"),
        (desk.query() + "&request=x", "request_not_supported"),
    ] {
        let answer = desk.ask(&format!("/authorize?{wrong}"), "").await;
        assert_eq!(desk.answer_of(&answer).value("error"), Some(error), "{wrong}");
        assert_eq!(desk.answer_of(&answer).value("state"), Some("s&ä"));
    }
}

#[tokio::test]
async fn a_code_under_another_verifier_is_refused_and_burnt() {
    let desk = Desk::open();
    let (answer, _) = desk.sign_in("alex").await;
    let code = answer.value("code").unwrap();
    for verifier in [unguessable(), desk.verifier.clone()] {
        let (status, error) = desk.token(&desk.exchange(code, &verifier)).await;
        assert_eq!(
            (status, &error["error"]),
            (StatusCode::BAD_REQUEST, &"invalid_grant".into())
        );
    }
    let (answer, _) = desk.sign_in("alex").await;
    let elsewhere = desk
        .exchange(answer.value("code").unwrap(), &desk.verifier)
        .replace("callback", "other");
    assert_eq!(desk.token(&elsewhere).await.1["error"], "invalid_grant");
}

#[tokio::test]
async fn a_code_is_good_once_and_its_second_use_ends_what_the_first_one_got() {
    let desk = Desk::open();
    let (answer, _) = desk.sign_in("alex").await;
    let exchange = desk.exchange(answer.value("code").unwrap(), &desk.verifier);
    let (status, tokens) = desk.token(&exchange).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(desk.call("/api/whoami", &tokens).await.0, StatusCode::OK);
    assert_eq!(desk.token(&exchange).await.1["error"], "invalid_grant");
    assert_eq!(desk.refresh(&tokens).await.1["error"], "invalid_grant");
    assert_eq!(
        desk.call("/api/whoami", &tokens).await.0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn refresh_tokens_rotate_and_an_old_one_ends_the_family() {
    let desk = Desk::open();
    let first = desk.tokens("robin").await;
    let (status, second) = desk.refresh(&first).await;
    assert_eq!((status, &second["expires_in"]), (StatusCode::OK, &30.into()));
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_ne!(first["access_token"], second["access_token"]);
    assert_eq!(desk.refresh(&first).await.1["error"], "invalid_grant");
    assert_eq!(desk.refresh(&second).await.1["error"], "invalid_grant");
    let wider = desk.tokens("robin").await;
    let token = wider["refresh_token"].as_str().unwrap();
    let wider = desk
        .token(&format!(
            "grant_type=refresh_token&scope=openid%20admin&refresh_token={token}"
        ))
        .await;
    assert_eq!(wider.1["error"], "invalid_scope");
}

#[tokio::test]
async fn prompt_none_answers_without_asking_and_prompt_login_always_asks() {
    let desk = Desk::open();
    let silent = format!("/authorize?{}&prompt=none", desk.query());
    assert_eq!(
        desk.answer_of(&desk.ask(&silent, "").await).value("error"),
        Some("login_required")
    );
    let (_, cookie) = desk.sign_in("sam").await;
    let answer = desk.answer_of(&desk.ask(&silent, &cookie).await);
    let (status, tokens) = desk
        .token(&desk.exchange(answer.value("code").unwrap(), &desk.verifier))
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(desk.call("/api/whoami", &tokens).await.1["sub"], "sam");

    let form = desk.ask(&format!("/authorize?{}", desk.query()), &cookie).await;
    assert!(
        std::str::from_utf8(form.body())
            .unwrap()
            .contains("Continue as Sam")
    );
    for fresh in ["prompt=login", "prompt=login&max_age=0"] {
        let form = desk
            .ask(&format!("/authorize?{}&{fresh}", desk.query()), &cookie)
            .await;
        assert_eq!(form.status(), StatusCode::OK);
        assert!(
            !std::str::from_utf8(form.body()).unwrap().contains("Continue as"),
            "{fresh}"
        );
    }
}

#[tokio::test]
async fn the_clients_secret_is_wanted_one_way_at_a_time() {
    let desk = Desk::open();
    let secret = desk.secret.clone();
    let right =
        format!("client_id=cloakroom-demo&client_secret={secret}&grant_type=refresh_token&refresh_token=x");
    for (form, status, error) in [
        (right.clone(), StatusCode::BAD_REQUEST, "invalid_grant"),
        (
            right.replace(&secret, "wrong"),
            StatusCode::UNAUTHORIZED,
            "invalid_client",
        ),
        (
            "grant_type=refresh_token&refresh_token=x".into(),
            StatusCode::UNAUTHORIZED,
            "invalid_client",
        ),
    ] {
        let answer = desk.post("/token", &form, "").await;
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!((answer.status(), &body["error"]), (status, &error.into()));
    }
    assert_eq!(desk.token(&right).await.1["error"], "invalid_request");
    let metadata = desk.ask("/.well-known/openid-configuration", "").await;
    let metadata: Value = serde_json::from_slice(metadata.body()).unwrap();
    assert_eq!(metadata["issuer"], desk.issuer);
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
}

#[tokio::test]
async fn id_tokens_verify_under_the_published_jwks() {
    let desk = Desk::open();
    let tokens = desk.tokens("alex").await;
    let jwks = desk.ask("/jwks", "").await;
    let jwks: jsonwebtoken::jwk::JwkSet = serde_json::from_slice(jwks.body()).unwrap();
    let token = tokens["id_token"].as_str().unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(jwks.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_issuer(&[&desk.issuer]);
    validation.set_audience(&["cloakroom-demo"]);
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation)
        .unwrap()
        .claims;
    assert_eq!((&claims["sub"], &claims["nonce"]), (&"alex".into(), &"n".into()));
    assert_eq!(claims["email"], "alex@cloakroom.example");
    assert_eq!(
        claims["at_hash"],
        half_hash(tokens["access_token"].as_str().unwrap())
    );
    let (_, refreshed) = desk.refresh(&tokens).await;
    let again = refreshed["id_token"].as_str().unwrap();
    let again = jsonwebtoken::decode::<Value>(again, &key, &validation)
        .unwrap()
        .claims;
    assert_eq!(
        (&again["sub"], &again["auth_time"]),
        (&claims["sub"], &claims["auth_time"])
    );
    assert!(again.get("nonce").is_none());
}

#[tokio::test]
async fn the_api_wants_a_token_and_never_shows_it() {
    let desk = Desk::open();
    let (status, _) = desk.call("/api/whoami", &Value::Null).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let tokens = desk.tokens("sam").await;
    let (status, who) = desk.call("/api/whoami?a=%2F", &tokens).await;
    assert_eq!((status, &who["name"]), (StatusCode::OK, &"Sam".into()));
    assert_eq!(who["received"]["path"], "/api/whoami?a=%2F");
    let token = tokens["access_token"].as_str().unwrap();
    let shown = who["received"]["headers"]["authorization"].as_str().unwrap();
    assert_eq!(
        shown,
        format!("Bearer {}…({} characters)", &token[..8], token.len())
    );
    assert!(!who.to_string().contains(&token[9..40]));
    // An ID token is no access token, whatever signed it.
    let confused = serde_json::json!({"access_token": tokens["id_token"]});
    assert_eq!(
        desk.call("/api/whoami", &confused).await.0,
        StatusCode::UNAUTHORIZED
    );

    assert_eq!(
        desk.call("/api/hand-over?to=attacker", &Value::Null).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(desk.call("/api/hand-over", &tokens).await.1["forged"], 1);
    let secret = &desk.secret;
    let form = format!("client_id=cloakroom-demo&client_secret={secret}&token={token}");
    assert_eq!(desk.post("/revoke", &form, "").await.status(), StatusCode::OK);
    assert_eq!(
        desk.call("/api/whoami", &tokens).await.0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn the_app_and_the_attackers_page_are_served() {
    let desk = Desk::open();
    let get = |path| Request::get(path);
    let page = desk.send(&desk.api, get("/some/where"), String::new()).await;
    assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    let places = desk.send(&desk.api, get("/demo.json"), String::new()).await;
    let places: Value = serde_json::from_slice(places.body()).unwrap();
    assert_eq!(places["attacker"], desk.attacker);
    let page = desk.send(&desk.attacker, get("/"), String::new()).await;
    assert!(std::str::from_utf8(page.body()).unwrap().contains(&desk.app));
}

#[tokio::test]
async fn signing_out_goes_back_only_to_the_registered_address() {
    let desk = Desk::open();
    let (answer, cookie) = desk.sign_in("kim").await;
    let (_, tokens) = desk
        .token(&desk.exchange(answer.value("code").unwrap(), &desk.verifier))
        .await;
    let hint = tokens["id_token"].as_str().unwrap();
    let back = encode(&format!("{}/", desk.app));
    let asked = desk
        .ask(&format!("/end-session?post_logout_redirect_uri={back}"), &cookie)
        .await;
    assert_eq!(asked.status(), StatusCode::OK);
    assert!(std::str::from_utf8(asked.body()).unwrap().contains("You are Kim"));
    let foreign =
        format!("/end-session?id_token_hint={hint}&post_logout_redirect_uri=https%3A%2F%2Fevil.example%2F");
    assert!(desk.ask(&foreign, "").await.headers().get(LOCATION).is_none());
    let right = format!("/end-session?id_token_hint={hint}&post_logout_redirect_uri={back}&state=1");
    let gone = desk.ask(&right, &cookie).await;
    assert_eq!(
        gone.headers()[LOCATION].to_str().unwrap(),
        format!("{}/?state=1", desk.app)
    );
    let silent = format!("/authorize?{}&prompt=none", desk.query());
    assert_eq!(
        desk.answer_of(&desk.ask(&silent, &cookie).await).value("error"),
        Some("login_required")
    );
}

#[tokio::test]
async fn signing_out_at_the_provider_tells_the_app_behind_the_browsers_back() {
    let demo = start(0).unwrap();
    let address: SocketAddr = format!("127.0.0.1:{}", demo.url.rsplit(':').next().unwrap())
        .parse()
        .unwrap();
    let provider = demo.provider.1.clone();
    let desk = Desk::serve(demo);
    let told = Arc::new(Mutex::new(None));
    let (seen, stop) = (told.clone(), CancellationToken::new());
    let app = tokio::net::TcpListener::bind(address).await.unwrap();
    let answer = move |request: Request<hyper::body::Incoming>| {
        let seen = seen.clone();
        async move {
            assert_eq!(request.uri().path(), "/bff/backchannel-logout");
            *seen.lock().unwrap() = server::read_form(request).await.ok();
            server::words(StatusCode::OK, "")
        }
    };
    TaskTracker::new().spawn(server::serve(app, stop.clone(), TaskTracker::new(), answer));
    let _guard = stop.drop_guard();

    let (_, cookie) = desk.sign_in("alex").await;
    let foreign = Request::post("/sign-out")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(COOKIE, cookie.as_str())
        .header("sec-fetch-site", "cross-site");
    assert_eq!(
        desk.send(&desk.issuer, foreign, String::new()).await.status(),
        StatusCode::FORBIDDEN
    );
    let answer = desk.post("/sign-out", "", &cookie).await;
    assert!(
        std::str::from_utf8(answer.body())
            .unwrap()
            .contains("the app has ended its session")
    );
    let form = told.lock().unwrap().clone().unwrap();
    let claims = provider
        .keys
        .verify(Purpose::Logout, form.value("logout_token").unwrap())
        .unwrap();
    assert_eq!(
        (&claims["sub"], &claims["aud"]),
        (&"alex".into(), &"cloakroom-demo".into())
    );
    assert!(claims.contains_key("sid") && !claims.contains_key("nonce"));
}

#[tokio::test]
async fn an_event_stream_counts_on_from_where_it_broke_off_and_ends_with_the_demo() {
    use http_body_util::BodyExt;
    let desk = Desk::open();
    let tokens = desk.tokens("sam").await;
    let authority = desk.api.trim_start_matches("http://");
    let stream = tokio::net::TcpStream::connect(authority).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    TaskTracker::new().spawn(connection);
    let request = Request::get("/api/events")
        .header(HOST, authority)
        .header("last-event-id", "41")
        .header(
            AUTHORIZATION,
            format!("Bearer {}", tokens["access_token"].as_str().unwrap()),
        )
        .body(Full::new(Bytes::new()))
        .unwrap();
    let mut answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers()[CONTENT_TYPE], "text/event-stream");
    let frame = answer
        .body_mut()
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert!(frame.starts_with(b"id: 42\nevent: tick\ndata: {"), "{frame:?}");
    drop(desk);
    while let Some(frame) = answer.body_mut().frame().await {
        assert!(frame.is_ok());
    }
}

#[tokio::test]
async fn a_websocket_says_back_what_it_is_told_and_is_closed_with_the_demo() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    use tokio_tungstenite::tungstenite::protocol::Message;
    let desk = Desk::open();
    let tokens = desk.tokens("sam").await;
    let url = format!("{}/api/ws", desk.api.replace("http", "ws"));
    assert!(
        tokio_tungstenite::connect_async(&url).await.is_err(),
        "without a token"
    );
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    request
        .headers_mut()
        .insert(AUTHORIZATION, bearer.parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let greeting = socket.next().await.unwrap().unwrap();
    assert_eq!(
        greeting.into_text().unwrap().as_str(),
        r#"{"hello":"Sam","sub":"sam"}"#
    );
    socket.send(Message::text("coat?")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("coat?"));
    drop(desk);
    let Some(Ok(Message::Close(Some(farewell)))) = socket.next().await else {
        panic!("no close frame");
    };
    assert_eq!(u16::from(farewell.code), 1001);
}

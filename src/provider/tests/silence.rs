//! What is logged, and what never is.

use super::*;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Everything that this thread logs from now on.
fn listening() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn nothing_secret_is_logged_or_put_in_an_error() {
    let (log, _guard) = listening();
    let server = Server::start().await;
    let mut own = settings(&server.origin);
    own.client_secret = vec![
        SecretSource::plain("CANARY-secret-1"),
        SecretSource::plain("CANARY-secret-2"),
    ];
    own.userinfo = Userinfo::OnLogin;
    let provider = made(own);
    let mut errors = Vec::new();
    let code = AuthorizationCode::new("CANARY-code");
    let verifier = CodeVerifier::new(format!("CANARY-verifier-{}", "v".repeat(43)));
    let refresh = RefreshToken::new("CANARY-refresh");
    let access = AccessToken::new("CANARY-access");
    let replies: [fn() -> Reply; 6] = [
        || {
            Reply::Json(
                200,
                json!({"access_token": "CANARY-new", "token_type": "bearer", "refresh_token": "CANARY-r"}),
            )
        },
        || {
            Reply::Json(
                401,
                json!({"error": "invalid_client", "error_description": "CANARY-said"}),
            )
        },
        || {
            Reply::Json(
                400,
                json!({"error": "CANARY said", "error_description": "CANARY-said"}),
            )
        },
        || {
            Reply::Json(
                400,
                json!({"error": "invalid_grant", "error_description": "CANARY-said"}),
            )
        },
        || {
            Reply::Raw(
                500,
                vec![("Content-Type", "text/html".into())],
                b"CANARY-said".to_vec(),
            )
        },
        || Reply::Drop,
    ];
    for reply in replies {
        for path in ["/token", "/revoke", "/userinfo"] {
            server.on(path, move |_| reply());
        }
        errors.push(format!(
            "{:?}",
            provider
                .exchange(&code, &verifier, "https://app.example.com/cb")
                .await
        ));
        errors.push(format!("{:?}", provider.refresh(&refresh).await));
        errors.push(format!("{:?}", provider.userinfo(&access, "alice").await));
        provider.revoke(Some(&refresh), Some(&access)).await;
    }
    let said = changed(claims(&server), "sub", json!("CANARY sub \u{e9}"));
    let token = id_token("RS256", &changed(said, "nonce", json!("CANARY-nonce")));
    errors.push(format!("{:?}", provider.verify_login(&token, &expect()).await));
    errors.push(format!("{:?}", provider.verify_refreshed(&token, "alice").await));
    let whole = log.text();
    assert!(
        whole.contains("code exchange") && whole.contains("took_ms") && whole.contains("invalid_client"),
        "{whole}"
    );
    for text in [whole, errors.concat(), format!("{provider:?}")] {
        assert!(!text.contains("CANARY"), "{text}");
    }
}

#[tokio::test]
async fn clocks_that_are_apart_are_said_once_an_hour() {
    let (log, _guard) = listening();
    let server = Server::start().await;
    let document = server.document().to_string().into_bytes();
    let at = |seconds: u64| {
        let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds));
        let document = document.clone();
        server.on("/.well-known/openid-configuration", move |_| {
            Reply::Raw(200, vec![("Date", date.clone())], document.clone())
        });
    };
    let provider = made(settings(&server.origin));
    for seconds in [NOW, NOW + 60, NOW - 60] {
        at(seconds);
        provider
            .source
            .fetch_metadata(Duration::from_secs(5))
            .await
            .unwrap();
        assert!(!log.text().contains("far apart"));
    }
    at(NOW - 3600);
    for _ in 0..3 {
        provider
            .source
            .fetch_metadata(Duration::from_secs(5))
            .await
            .unwrap();
    }
    let text = log.text();
    assert_eq!(text.matches("far apart").count(), 1);
    assert!(
        text.contains("seconds=3600") && text.contains("ours_is_ahead=true"),
        "{text}"
    );
}

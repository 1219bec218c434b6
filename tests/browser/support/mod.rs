//! The world of a test, and the parts that it is made of. Dropping it ends every process in it.

mod chrome;
mod cloakroom;
mod http;
mod process;
mod provider;
mod sites;
mod upstream;

pub use chrome::{Chrome, Cookie};
pub use cloakroom::{Behind, Cloakroom, DEADLINE, Ports, certificate, free_port};
pub use process::folder;
pub use provider::Provider;
pub use sites::Elsewhere;
pub use upstream::Upstream;

use crate::ingresses::{Ingress, Kind, Places};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What differs from test to test.
pub struct Wish {
    /// `session.cookie.same_site`.
    pub same_site: &'static str,
    /// Further lines under `session:`, each with two spaces in front.
    pub session: &'static str,
    /// Seconds that an access token lives.
    pub token_ttl: u32,
    /// The provider's `login`: `form`, or `auto` to sign alice in without a page.
    pub login: &'static str,
    /// The ingress that asks cloakroom and serves the app itself; `None`: cloakroom serves it.
    pub behind: Option<Kind>,
    /// Chromium preferences, by dotted path.
    pub prefs: Value,
    /// Whether the app is reached over TLS, with a certificate of its own.
    pub tls: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            same_site: "strict",
            session: "",
            token_ttl: 300,
            login: "form",
            behind: None,
            prefs: json!({}),
            tls: false,
        }
    }
}

/// Provider, upstream, cloakroom and browser, connected and ready. Fields are dropped in this order.
pub struct World {
    pub chrome: Chrome,
    _ingress: Option<Ingress>,
    pub app: Cloakroom,
    /// The port that leads from http to https, where the app speaks TLS.
    pub redirect: u16,
    pub provider: Provider,
    pub upstream: Upstream,
    /// Where the app's files are.
    pub folder: TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Wish::default()).await
    }

    pub async fn with(wish: Wish) -> Self {
        let folder = process::folder();
        let upstream = Upstream::start().await;
        let ports = Ports {
            public: free_port(),
            admin: free_port(),
            tls: wish.tls.then(|| folder.path().to_owned()),
            redirect: free_port(),
            behind: wish.behind.map(|kind| Behind {
                dialect: kind.dialect(),
                ingress: free_port(),
                forward_auth: free_port(),
            }),
        };
        let seen = ports
            .behind
            .as_ref()
            .map_or(ports.public, |behind| behind.ingress);
        let scheme = if wish.tls { "https" } else { "http" };
        let origin = format!("{scheme}://app.localhost:{seen}");
        // First of all, so that nobody else takes its port, which the others have to know.
        let ingress = wish.behind.zip(ports.behind.as_ref()).map(|(kind, behind)| {
            let places = Places {
                ingress: behind.ingress,
                public: ports.public,
                forward_auth: behind.forward_auth,
                app: upstream.port(),
            };
            Ingress::start(kind, places)
        });
        let provider = Provider::start(&json!({
            "issuer_host": "op.localhost", "login": wish.login, "access_token_ttl": wish.token_ttl, "rotate": true,
            "clients": [{
                "client_id": "app", "client_secret": "a secret of the tests & nobody else's",
                "redirect_uris": [format!("{origin}/bff/callback")],
                "post_logout_redirect_uris": [format!("{origin}/")],
                "backchannel_logout_uri": format!("{origin}/bff/backchannel-logout"),
            }],
        }));
        if wish.tls {
            certificate(folder.path());
        }
        let config = cloakroom::config(&origin, &ports, &provider, &upstream, &wish);
        let app = Cloakroom::run(folder.path(), origin, ports.admin, &config).await;
        let chrome = Chrome::start(wish.prefs).await;
        Self {
            chrome,
            _ingress: ingress,
            app,
            redirect: ports.redirect,
            provider,
            upstream,
            folder,
        }
    }

    /// An address on the app's origin.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.app.origin)
    }

    /// Signs alice in from the page, and waits until the page says so.
    pub async fn sign_in(&self) {
        self.chrome.goto(&self.url("/")).await;
        self.chrome.text("#state", "signed out").await;
        self.chrome.click("#sign-in").await;
        self.chrome.fill("#username", "alice").await;
        self.chrome.click("#sign-in").await;
        self.chrome.text("#state", "signed in as Alice").await;
    }

    /// The app's cookies whose names are ours.
    pub async fn own_cookies(&self) -> Vec<Cookie> {
        let all = self.chrome.cookies().await;
        all.into_iter()
            .filter(|cookie| cookie.domain == "app.localhost" && cookie.name.contains("cloakroom"))
            .collect()
    }

    /// The session cookie, if the browser has one.
    pub async fn session_cookie(&self) -> Option<Cookie> {
        self.own_cookies()
            .await
            .into_iter()
            .find(|cookie| cookie.name == "__Host-Http-cloakroom")
    }
}

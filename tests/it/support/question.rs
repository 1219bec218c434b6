//! What an ingress asks on the forward-auth listener, to the byte, and what it is told.
//!
//! The answers bear tokens, as they must; so unlike a browser's they are not searched for secrets here.

use super::browser::{Browser, SESSION};
use super::message::Reply;
use super::rig::Rig;
use super::wire::{Fields, Framing, Wire};
use super::{free_port, within};
use crate::support::config::Config;
use serde_json::json;
use std::fmt::Write as _;
use tokio::net::TcpStream;

/// `server.forward_auth_dialect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Traefik's and Caddy's.
    Forwarded,
    /// nginx's.
    Nginx,
}

impl Dialect {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Forwarded, Self::Nginx];

    fn word(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Nginx => "nginx",
        }
    }
}

/// A cloakroom that may be asked, and how it is asked.
pub struct Asked {
    /// The parts.
    pub rig: Rig,
    /// In which words.
    pub dialect: Dialect,
    /// The forward-auth listener's port.
    pub port: u16,
}

/// A question under construction.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its header lines.
    pub fields: Fields,
    /// Its request line without the version.
    pub start: String,
    /// Whether it begins with a `Host` of its own.
    pub has_host: bool,
}

impl Question {
    /// With another header line.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without the lines of that name.
    pub fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    /// With this value instead.
    pub fn set(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    /// Without the `Host` that every question has.
    pub fn without_host(mut self) -> Self {
        self.has_host = false;
        self
    }

    /// With this browser's session.
    pub fn of(self, browser: &Browser) -> Self {
        let cookie = format!("{SESSION}={}", browser.session().unwrap());
        self.with("Cookie", &cookie)
    }

    /// As a page of ours calls its API.
    pub fn fetched(self) -> Self {
        self.with("Sec-Fetch-Site", "same-origin")
            .with("Sec-Fetch-Mode", "cors")
            .with("Sec-Fetch-Dest", "empty")
    }

    /// As a top-level navigation from there.
    pub fn navigated(self, site: &str) -> Self {
        self.with("Sec-Fetch-Site", site)
            .with("Sec-Fetch-Mode", "navigate")
            .with("Sec-Fetch-Dest", "document")
    }

    /// Asks, on a connection of its own.
    pub async fn ask(&self, port: u16) -> Reply {
        let mut text = format!("{} HTTP/1.1\r\n", self.start);
        if self.has_host {
            text.push_str("Host: cloakroom\r\n");
        }
        for (name, value) in &self.fields {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text.push_str("\r\n");
        // Each character is a byte.
        let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap()).collect();
        let mut wire = Wire::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        wire.send(&bytes).await.unwrap();
        within(15, "an answer to an ingress", async {
            let head = wire.head().await.unwrap().expect("an answer");
            let framing = if self.start.starts_with("HEAD ") {
                Framing::Length(0)
            } else {
                head.response_framing("GET")
            };
            let body = wire.body(framing).await.unwrap();
            Reply {
                status: head.status(),
                head,
                body,
                trailers: Vec::new(),
            }
        })
        .await
    }
}

/// The config with a forward-auth listener.
pub fn asked(config: Config, dialect: Dialect, port: u16) -> Config {
    config
        .set("server.trusted_proxies", json!(["127.0.0.0/8"]))
        .set("server.forward_auth", format!("127.0.0.1:{port}"))
        .set("server.forward_auth_dialect", dialect.word())
}

impl Asked {
    /// The usual cloakroom.
    pub async fn start(dialect: Dialect) -> Self {
        Self::with(dialect, |config| config).await
    }

    /// With a changed config.
    pub async fn with(dialect: Dialect, change: impl FnOnce(Config) -> Config) -> Self {
        let port = free_port();
        let rig = Rig::with(|config| change(asked(config, dialect, port))).await;
        Self { rig, dialect, port }
    }

    /// A question about a request to our own host.
    pub fn question(&self, method: &str, target: &str) -> Question {
        let host = self.rig.config.public_url();
        let host = host.split("//").nth(1).unwrap();
        let question = Question {
            fields: Vec::new(),
            start: "GET /".to_owned(),
            has_host: true,
        };
        match self.dialect {
            Dialect::Forwarded => question
                .with("X-Forwarded-Method", method)
                .with("X-Forwarded-Proto", "http")
                .with("X-Forwarded-Host", host)
                .with("X-Forwarded-Uri", target),
            Dialect::Nginx => question
                .with("X-Original-Method", method)
                .with("X-Original-URL", &format!("http://{host}{target}")),
        }
    }

    /// Asks.
    pub async fn ask(&self, question: &Question) -> Reply {
        question.ask(self.port).await
    }

    /// The status alone; what is no 200 bears no token, and what is one bears all that is promised (6.2).
    pub async fn status(&self, question: &Question) -> u16 {
        let reply = self.ask(question).await;
        holds_to_the_contract(&reply);
        reply.status
    }
}

/// The four headers of an answer that lets pass: `Authorization`, user, e-mail, groups.
pub fn identity(reply: &Reply) -> [String; 4] {
    let names = [
        "authorization",
        "x-auth-request-user",
        "x-auth-request-email",
        "x-auth-request-groups",
    ];
    names.map(|name| {
        let values = reply.headers(name);
        assert_eq!(values.len(), 1, "{name}: {:?}", reply.head);
        values[0].to_owned()
    })
}

/// What holds for every answer to an ingress.
pub fn holds_to_the_contract(reply: &Reply) {
    assert!(reply.headers("set-cookie").is_empty(), "{:?}", reply.head);
    assert_eq!(
        reply.header("cache-control"),
        Some("no-store"),
        "{:?}",
        reply.head
    );
    assert_eq!(
        reply.header("location").is_some(),
        matches!(reply.status, 302 | 401),
        "{:?}",
        reply.head
    );
    if reply.status == 200 {
        identity(reply);
        assert!(reply.body.is_empty());
        return;
    }
    assert!(matches!(reply.status, 302 | 401 | 403 | 503), "{:?}", reply.head);
    assert!(reply.headers("authorization").is_empty(), "{:?}", reply.head);
    super::secrets::assert_none_in(
        "class_n: an answer to an ingress",
        &format!("{:?}{}", reply.head, reply.text()),
    );
}

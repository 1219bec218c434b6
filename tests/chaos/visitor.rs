//! A browser that takes whatever comes: refused and broken connections are answers like any other.

use crate::support::browser::{Reply, SESSION};
use crate::support::jar::{Jar, Site};
use crate::support::wire::Wire;
use std::io::{Error, ErrorKind, Result};
use std::time::Duration;
use tokio::net::TcpStream;

/// Longer than any answer may take; what is later is none.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// A browser with its cookies.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub origin: String,
    pub jar: Jar,
}

impl Visitor {
    pub fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            jar: Jar::default(),
        }
    }

    fn host(&self) -> &str {
        self.origin.split("//").nth(1).unwrap()
    }

    fn has_session(&self) -> bool {
        let domain = self.host().split(':').next().unwrap();
        self.jar
            .named(domain, SESSION)
            .iter()
            .any(|cookie| cookie.name == SESSION)
    }

    /// One request. `url` is a path of the app, which is reached at `port`, or a full URL.
    async fn ask(&mut self, port: u16, url: &str, site: Site, headers: &str) -> Result<Reply> {
        let path = url.strip_prefix(&self.origin).unwrap_or(url);
        let (host, path, port) = match path.split_once("//") {
            Some((_, rest)) if !path.starts_with('/') => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                let port = host.split(':').nth(1).and_then(|port| port.parse().ok());
                (host.to_owned(), format!("/{path}"), port.unwrap_or(80))
            }
            _ => (self.host().to_owned(), path.to_owned(), port),
        };
        let domain = host.split(':').next().unwrap_or_default().to_owned();
        let cookies = self
            .jar
            .header(&domain, site, headers.contains("navigate"))
            .map_or(String::new(), |cookies| format!("Cookie: {cookies}\r\n"));
        let site = site.word();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: {site}\r\n{headers}{cookies}\r\n"
        );
        let asked = async {
            let mut wire = Wire::new(TcpStream::connect(("127.0.0.1", port)).await?);
            wire.send(request.as_bytes()).await?;
            let head = wire.head().await?.ok_or(ErrorKind::UnexpectedEof)?;
            let body = wire.body(head.response_framing("GET")).await?;
            Ok(Reply {
                status: head.status(),
                head,
                body,
                trailers: wire.trailers,
            })
        };
        let reply = tokio::time::timeout(PATIENCE, asked).await;
        let reply = reply.unwrap_or_else(|_| Err(Error::new(ErrorKind::TimedOut, "no answer")))?;
        self.jar.take(&domain, &reply.headers("set-cookie"));
        Ok(reply)
    }

    /// `fetch()` in a page of ours.
    pub async fn fetch(&mut self, port: u16, path: &str) -> Result<Reply> {
        let headers = "Accept: */*\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n";
        self.ask(port, path, Site::SameOrigin, headers).await
    }

    /// Signs in by this name. The error: where it did not go on.
    pub async fn sign_in(&mut self, port: u16, name: &str) -> std::result::Result<(), String> {
        let headers = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
        let mut url = format!("{}/bff/login?return_to=/&login_hint={name}", self.origin);
        let mut site = Site::SameOrigin;
        for _ in 0..20 {
            let reply = self.ask(port, &url, site, headers).await;
            let reply = reply.map_err(|error| error.to_string())?;
            if self.has_session() {
                return Ok(());
            }
            let next = reply
                .leads_to()
                .ok_or_else(|| format!("{} {}", reply.status, reply.text()))?;
            if !next.starts_with('/') {
                url = next;
            } else if let Some(slash) = url[8..].find('/') {
                url.truncate(8 + slash);
                url.push_str(&next);
            }
            if !url.starts_with(&self.origin) {
                site = Site::CrossSite;
            }
        }
        Err(format!("a loop at {url}"))
    }
}

//! A browser over raw sockets: real `Sec-Fetch-*` headers, a strict jar, redirects one step at a time.
//!
//! Every answer of cloakroom's that it sees is searched for secrets, and answers under the prefix are held to what the
//! contract asks of all of them (`no-store`; redirects only 302 or 303).

use super::form;
use super::jar::{Cookie, Jar, Site};
pub use super::message::{Reply, Request};
use super::rogue::Rogue;
use super::secrets;
use super::wire::{Framing, Head, Wire, values};
use super::within;
use std::fmt::Write as _;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// The session cookie's name.
pub const SESSION: &str = "__Host-Http-cloakroom";
/// What the names of login-attempt cookies begin with.
pub const ATTEMPT: &str = "__Host-Http-cloakroom-login-";

/// The browser.
#[derive(Clone, Debug)]
pub struct Browser {
    /// The origin that it takes cloakroom for.
    pub origin: String,
    /// Where that origin is reached.
    pub address: SocketAddr,
    /// Its cookies.
    pub jar: Jar,
}

impl Browser {
    /// A fresh browser that reaches `origin` at this port.
    pub fn new(origin: &str, port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            origin: origin.to_owned(),
            address,
            jar: Jar::default(),
        }
    }

    /// The same browser, sent to another replica.
    pub fn at(&self, port: u16) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            ..self.clone()
        }
    }

    /// `Host` of the origin.
    pub fn host(&self) -> &str {
        self.origin.split("//").nth(1).unwrap()
    }

    /// The name that cookies belong to: ports do not separate them.
    pub fn domain(&self) -> &str {
        self.host().split(':').next().unwrap()
    }

    /// The session cookie's value.
    pub fn session(&self) -> Option<String> {
        let mine = self.jar.named(self.domain(), SESSION);
        mine.iter()
            .find(|cookie| cookie.name == SESSION)
            .map(|cookie| cookie.value.clone())
    }

    /// The login-attempt cookies.
    pub fn attempts(&self) -> Vec<&Cookie> {
        self.jar.named(self.domain(), ATTEMPT)
    }

    /// The request's bytes, its `Host`, and where it goes.
    fn spell(&self, request: &Request) -> (Vec<u8>, String, SocketAddr) {
        let (host, target, address) = match request.url.split_once("//") {
            Some((scheme, rest)) if scheme.starts_with("http") && !request.url.starts_with('/') => {
                let at = rest.find(['/', '?']).unwrap_or(rest.len());
                let (host, target) = (rest[..at].to_owned(), rest[at..].to_owned());
                let port = host
                    .rsplit(':')
                    .next()
                    .and_then(|port| port.parse().ok())
                    .unwrap_or(80);
                let elsewhere = SocketAddr::from(([127, 0, 0, 1], port));
                let address = if host == self.host() {
                    self.address
                } else {
                    elsewhere
                };
                (
                    host,
                    if target.starts_with('/') {
                        target
                    } else {
                        format!("/{target}")
                    },
                    address,
                )
            }
            _ => (self.host().to_owned(), request.url.clone(), self.address),
        };
        let target = target.split('#').next().unwrap_or_default();
        let mut text = format!("{} {target} HTTP/1.1\r\nHost: {host}\r\n", request.method);
        for (name, value) in &request.fields {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        let safe = matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        let fetch = request
            .fields
            .iter()
            .any(|(name, value)| name == "Sec-Fetch-Mode" && value == "cors");
        if !safe && fetch && values(&request.fields, "origin").is_empty() {
            write!(text, "Origin: {}\r\n", self.origin).unwrap();
        }
        if request.cookies && values(&request.fields, "cookie").is_empty() {
            let domain = host.split(':').next().unwrap_or_default();
            if let Some(cookies) = self.jar.header(domain, request.site, request.navigation && safe) {
                write!(text, "Cookie: {cookies}\r\n").unwrap();
            }
        }
        let streams = values(&request.fields, "transfer-encoding").len()
            + values(&request.fields, "content-length").len();
        if streams == 0 && (!safe || !request.body.is_empty()) {
            write!(text, "Content-Length: {}\r\n", request.body.len()).unwrap();
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend(&request.body);
        (bytes, host, address)
    }

    /// Sends a request, reads the answer's head, and leaves the rest to the caller.
    pub async fn open(&mut self, request: &Request) -> (Head, Wire<TcpStream>) {
        self.try_open(request).await.expect("an answer")
    }

    /// As [`Browser::open`]; `None` where the connection ends before a head.
    pub async fn try_open(&mut self, request: &Request) -> Option<(Head, Wire<TcpStream>)> {
        let (bytes, host, address) = self.spell(request);
        let stream = TcpStream::connect(address)
            .await
            .unwrap_or_else(|error| panic!("{address}: {error}"));
        let mut wire = Wire::new(stream);
        let _cut = wire.send(&bytes).await;
        let head = within(
            15,
            &format!("the answer to {} {}", request.method, request.url),
            async {
                loop {
                    let head = wire.head().await.unwrap()?;
                    if head.status() >= 200 || head.status() == 101 {
                        return Some(head);
                    }
                }
            },
        )
        .await?;
        if host == self.host() {
            self.judge(request, &head);
        }
        let domain = host.split(':').next().unwrap_or_default();
        self.jar.take(domain, &values(&head.fields, "set-cookie"));
        Some((head, wire))
    }

    /// What holds for every answer of cloakroom's.
    fn judge(&self, request: &Request, head: &Head) {
        let path = request.url.strip_prefix(&self.origin).unwrap_or(&request.url);
        let cookies = values(&head.fields, "set-cookie");
        let ours = cookies.iter().any(|line| line.starts_with(SESSION));
        if path == "/bff" || path.starts_with("/bff/") || ours {
            let cache = head.value("cache-control").unwrap_or_default();
            assert!(
                cache.contains("no-store"),
                "hy_01: {} {path}: {head:?}",
                request.method
            );
        }
        if path.starts_with("/bff/") {
            assert!(
                !matches!(head.status(), 301 | 307 | 308),
                "oa_13: {path}: {head:?}"
            );
            assert_ne!(head.status(), 500, "{path}: {head:?}");
        }
        for line in cookies.iter().filter(|line| line.starts_with(SESSION)) {
            let cookie = Cookie::parse("", line);
            for needed in ["httponly", "secure", "path=/"] {
                assert!(
                    cookie.attributes.iter().any(|a| a == needed),
                    "ck_01: {:?}",
                    cookie.attributes
                );
            }
            assert!(
                cookie.attribute("domain").is_none(),
                "ck_01: {:?}",
                cookie.attributes
            );
            assert!(
                cookie.attribute("samesite").is_some(),
                "ck_01: {:?}",
                cookie.attributes
            );
        }
        let mut fields = head.fields.clone();
        fields.retain(|(name, _)| !name.eq_ignore_ascii_case("set-cookie"));
        for (name, value) in &mut fields {
            if !name.eq_ignore_ascii_case("location") {
                continue;
            }
            if form::query(value).iter().any(|(name, _)| name == "id_token_hint") {
                // The one token that may pass the browser (design invariant 1).
                *value = form::with_parameter(value, "id_token_hint", None);
            }
            // What the provider has to be told; it is remembered, and must not turn up anywhere else.
            for name in ["state", "nonce"] {
                if let Some(secret) = form::parameter(value, name) {
                    *value = form::with_parameter(value, name, None);
                    secrets::remember(&secret);
                }
            }
        }
        let text: String = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect();
        secrets::assert_none_in(&format!("class_n: the head of the answer to {path}"), &text);
    }

    /// Sends a request and reads its whole answer.
    pub async fn send(&mut self, request: Request) -> Reply {
        let (head, mut wire) = self.open(&request).await;
        let framing = head.response_framing(&request.method);
        let framing = if head.status() == 101 {
            Framing::Length(0)
        } else {
            framing
        };
        let read = wire.body(framing);
        let body = within(15, "the rest of the answer", read).await;
        let body = body.unwrap_or_else(|error| panic!("{error} in the answer to {}: {head:?}", request.url));
        let shown = String::from_utf8_lossy(&body).into_owned();
        // What the real provider shows of its own is its own affair.
        if !request.url.contains("/auth") && !request.url.contains("/interaction/") {
            secrets::assert_none_in(&format!("class_n: the answer to {}", request.url), &shown);
        }
        Reply {
            status: head.status(),
            head,
            body,
            trailers: wire.trailers,
        }
    }

    /// A top-level navigation.
    pub async fn navigate(&mut self, url: &str, site: Site) -> Reply {
        self.send(Request::navigate(url, site)).await
    }

    /// `fetch()` in a page of ours.
    pub async fn fetch(&mut self, method: &str, url: &str) -> Reply {
        self.send(Request::fetch(method, url)).await
    }

    /// Begins a login: the authorization URL.
    pub async fn begin(&mut self, query: &str) -> String {
        let reply = self
            .navigate(&format!("/bff/login{query}"), Site::SameOrigin)
            .await;
        reply.location().to_owned()
    }

    /// Comes back from the provider: the browser counts that as another site, for it is one.
    pub async fn come_back(&mut self, callback: &str) -> Reply {
        self.navigate(callback, Site::CrossSite).await
    }

    /// The path that a finished login leads to; panics where it did not finish.
    pub fn landing(&self, reply: &Reply) -> String {
        let target = reply.leads_to();
        let target = target.unwrap_or_else(|| panic!("no way on: {} {}", reply.status, reply.text()));
        target.strip_prefix(&self.origin).unwrap_or(&target).to_owned()
    }

    /// Signs in from beginning to end, and returns where that leads.
    pub async fn login(&mut self, rogue: &Rogue, return_to: &str) -> String {
        self.login_as(rogue, "alice", return_to).await
    }

    /// As [`Browser::login`], as somebody.
    pub async fn login_as(&mut self, rogue: &Rogue, sub: &str, return_to: &str) -> String {
        let url = self
            .begin(&format!("?return_to={}", form::encode(return_to)))
            .await;
        let reply = self.come_back(&rogue.authorize_as(&url, sub)).await;
        let landing = self.landing(&reply);
        assert!(
            self.session().is_some(),
            "no session cookie after {} {}",
            reply.status,
            reply.text()
        );
        landing
    }

    /// Goes wherever it is led, up to `most` steps: the last answer, and the URLs on the way.
    pub async fn follow(
        &mut self,
        url: &str,
        site: Site,
        rogue: &Rogue,
        most: usize,
    ) -> (Reply, Vec<String>) {
        let (mut url, mut site, mut trace) = (url.to_owned(), site, Vec::new());
        loop {
            assert!(trace.len() < most, "a loop: {trace:#?}");
            trace.push(url.clone());
            let reply = self.navigate(&url, site).await;
            let Some(next) = reply.leads_to() else {
                return (reply, trace);
            };
            site = if reply.status == 200 {
                Site::SameOrigin
            } else {
                site
            };
            url = next;
            if url.starts_with(&format!("{}/authorize", rogue.issuer)) {
                trace.push(url.clone());
                url = rogue.authorize(&url);
                site = Site::CrossSite;
            }
        }
    }
}

/// Sends bytes to an address: the first answer, and whether the connection ended after it. `None` where nothing came.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> (Option<Reply>, bool) {
    let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
    let _cut = wire.send(bytes).await;
    let read = async {
        let head = wire.head().await.ok().flatten()?;
        let method = if bytes.starts_with(b"HEAD ") {
            "HEAD"
        } else {
            "GET"
        };
        let body = wire.body(head.response_framing(method)).await.ok()?;
        Some(Reply {
            status: head.status(),
            head,
            body,
            trailers: std::mem::take(&mut wire.trailers),
        })
    };
    let reply = within(15, "an answer to raw bytes", read).await;
    let end = tokio::time::timeout(std::time::Duration::from_millis(150), wire.line()).await;
    if let Some(reply) = &reply {
        secrets::assert_none_in("class_n: an answer", &format!("{:?}{}", reply.head, reply.text()));
    }
    (reply, !matches!(end, Err(_) | Ok(Ok(Some(_)))))
}

//! A config for one cloakroom of the suite: written as JSON, which is YAML.

use super::free_port;
use super::random;
use super::secrets::{CLIENT_ID, remember};
use super::system_clock::SystemClock;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A config under construction.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public listener's port.
    pub port: u16,
    /// The admin listener's port.
    pub admin: u16,
    /// The document.
    pub value: Value,
    /// What is in the environment beside the path.
    pub environment: Vec<(String, String)>,
    folder: Arc<TempDir>,
}

/// A fresh session key.
pub fn key() -> String {
    let key = random(32);
    remember(&key);
    key
}

impl Config {
    /// The usual one: a memory store, one provider, and the routes of the path corpus and a few more.
    pub fn new(issuer: &str, client_secret: &str, upstream: &str) -> Self {
        let (port, admin) = (free_port(), free_port());
        let folder = TempDir::new().unwrap();
        std::fs::write(
            folder.path().join("index.html"),
            "<!doctype html><title>home</title>home",
        )
        .unwrap();
        std::fs::write(folder.path().join("app.js"), "console.log('app')").unwrap();
        let value = json!({
            "public_url": format!("http://app.localhost:{port}"),
            "server": {
                "listen": format!("127.0.0.1:{port}"), "admin": format!("127.0.0.1:{admin}"),
                "drain_delay": "10ms", "drain_timeout": "5s",
            },
            "providers": { "main": {
                "issuer": issuer, "client_id": CLIENT_ID, "client_secret": client_secret,
                "scopes": ["openid", "profile", "email", "offline_access"],
            } },
            "session": { "store": { "memory": { "max_sessions": 1000 } } },
            "routes": [
                { "path": "/api", "upstream": upstream },
                { "path": "/api/public", "upstream": upstream, "auth": "none" },
                { "path": "/api/optional", "upstream": upstream, "auth": "optional" },
                { "path": "/pages", "upstream": upstream, "pages": true },
                { "path": "/", "static": { "root": folder.path().to_str().unwrap() } },
            ],
            "log": { "format": "json", "level": "trace" },
        });
        Self {
            port,
            admin,
            value,
            environment: Vec::new(),
            folder: Arc::new(folder),
        }
    }

    /// With this value at a dotted path; a number is an index.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let mut at = &mut self.value;
        for name in path.split('.') {
            at = match name.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[name],
            };
        }
        *at = value.into();
        self
    }

    /// With a system clock that the test sets.
    pub fn clock(mut self, clock: &SystemClock) -> Self {
        self.environment.extend(clock.environment());
        self
    }

    /// With one more route.
    pub fn route(mut self, route: Value) -> Self {
        self.value["routes"].as_array_mut().unwrap().push(route);
        self
    }

    /// With sessions in this Redis, under a fresh key.
    pub fn redis(self, url: &str) -> Self {
        self.set("session.store", json!({ "redis": { "url": url } }))
            .set("session.keys", json!([key()]))
    }

    /// The same deployment on other ports: another replica.
    pub fn replica(&self) -> Self {
        let (port, admin) = (free_port(), free_port());
        Self {
            port,
            admin,
            ..self.clone()
        }
        .set("server.listen", format!("127.0.0.1:{port}"))
        .set("server.admin", format!("127.0.0.1:{admin}"))
    }

    /// The origin that browsers see.
    pub fn public_url(&self) -> String {
        self.value["public_url"].as_str().unwrap().to_owned()
    }

    /// The folder that `/` serves.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes it to a file of its own.
    pub fn write(&self, into: &Path) -> PathBuf {
        let file = into.join("cloakroom.yaml");
        std::fs::write(&file, serde_json::to_string_pretty(&self.value).unwrap()).unwrap();
        file
    }
}

//! The usual rig behind a real ingress: cloakroom decides, and its upstream, the app, stands behind the ingress alone.

use super::browser::Browser;
use super::config::Config;
use super::free_port;
use super::rig::Rig;
use crate::ingresses::{Ingress, Kind, Places};
use serde_json::json;
use std::net::SocketAddr;

/// An ingress and what is behind it. Dropped in this order.
pub struct Behind {
    _ingress: Ingress,
    port: u16,
    /// What is behind it.
    pub rig: Rig,
}

impl Behind {
    /// The usual cloakroom behind it.
    pub async fn start(kind: Kind) -> Self {
        Self::with(kind, |config| config).await
    }

    /// With a changed config.
    pub async fn with(kind: Kind, change: impl FnOnce(Config) -> Config) -> Self {
        let (port, forward_auth) = (free_port(), free_port());
        let mut ingress = None;
        let rig = Rig::with(|config| {
            // First of all, so that nobody else takes its port, which cloakroom has to know.
            let app = config.value["routes"][0]["upstream"].as_str().unwrap();
            let places = Places {
                ingress: port,
                public: config.port,
                forward_auth,
                app: app.rsplit(':').next().unwrap().parse().unwrap(),
            };
            ingress = Some(Ingress::start(kind, places));
            let mut config = config
                .set("public_url", format!("http://app.localhost:{port}"))
                .set("server.trusted_proxies", json!(["127.0.0.0/8"]))
                .set("server.forward_auth", format!("127.0.0.1:{forward_auth}"))
                .set("server.forward_auth_dialect", kind.dialect());
            // The routes say who may pass; what is there stands behind the ingress.
            for route in config.value["routes"].as_array_mut().unwrap() {
                let route = route.as_object_mut().unwrap();
                route.remove("upstream");
                if route.remove("static").is_some() {
                    route.insert("auth".into(), "none".into());
                }
            }
            change(config)
        })
        .await;
        Self {
            _ingress: ingress.unwrap(),
            port,
            rig,
        }
    }

    /// Where browsers reach it.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A fresh browser in front of it.
    pub fn browser(&self) -> Browser {
        Browser::new(&self.rig.cloakroom.origin, self.port)
    }

    /// A browser that Alice has signed in with, through it.
    pub async fn signed_in(&self) -> Browser {
        let mut browser = self.browser();
        browser.login(&self.rig.rogue, "/").await;
        browser
    }
}

//! What most tests need: a provider, an upstream and a cloakroom between them.

use super::browser::Browser;
use super::cloakroom::Cloakroom;
use super::config::Config;
use super::redis::Redis;
use super::rogue::Rogue;
use super::upstream::Upstream;

/// The usual parts; dropped in this order, so that the log is searched while all else is still there.
pub struct Rig {
    /// The binary.
    pub cloakroom: Cloakroom,
    /// The provider.
    pub rogue: Rogue,
    /// The API.
    pub upstream: Upstream,
    /// The config that it was started with.
    pub config: Config,
    /// The store, where it is Redis.
    pub redis: Option<Redis>,
}

impl Rig {
    /// The usual config: a memory store.
    pub async fn start() -> Self {
        Self::with(|config| config).await
    }

    /// The usual config, changed.
    pub async fn with(change: impl FnOnce(Config) -> Config) -> Self {
        Self::build(None, change).await
    }

    /// On a Redis.
    pub async fn on_redis(change: impl FnOnce(Config) -> Config) -> Self {
        Self::build(Some(Redis::start().await), change).await
    }

    /// On this Redis.
    pub async fn build(redis: Option<Redis>, change: impl FnOnce(Config) -> Config) -> Self {
        let (rogue, upstream) = (Rogue::start().await, Upstream::start().await);
        let mut config = Config::new(&rogue.issuer, &rogue.client_secret(), &upstream.url());
        if let Some(redis) = &redis {
            config = config.redis(&redis.url);
        }
        let config = change(config);
        let cloakroom = Cloakroom::start(&config).await;
        Self {
            cloakroom,
            rogue,
            upstream,
            config,
            redis,
        }
    }

    /// A fresh browser.
    pub fn browser(&self) -> Browser {
        self.cloakroom.browser()
    }

    /// A browser that Alice has signed in with.
    pub async fn signed_in(&self) -> Browser {
        let mut browser = self.browser();
        browser.login(&self.rogue, "/").await;
        browser
    }
}

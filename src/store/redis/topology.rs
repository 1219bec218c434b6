//! One server, whichever is the primary, or a cluster: who is asked about a key.
//!
//! INVARIANT: every question ends within [`PATIENCE`], whatever it meets on its way.

use super::cluster::Cluster;
use super::fault::Fault;
use super::link::{Link, Place};
use super::live::Live;
use super::news::News;
use super::sentinel::Sentinels;
use super::target::{Login, Target};
use super::tls::Tls;
use crate::config::RedisSettings;
use crate::store::PATIENCE;
use redis::{Cmd, FromRedisValue, Value, cmd};
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Where the data is.
#[derive(Debug)]
pub(super) enum Topology {
    /// At one server.
    One(Arc<Link>),
    /// At whichever server the sentinels call the primary.
    Sentinel(Arc<Link>, Arc<Sentinels>),
    /// At many servers, each key at one of them.
    Cluster(Arc<Cluster>),
}

impl Topology {
    /// Nothing is connected yet: servers may be away.
    ///
    /// # Errors
    /// What in the settings cannot be used.
    pub(super) fn new(settings: &RedisSettings, news: &Arc<News>) -> Result<Self, String> {
        let tls = Arc::new(Tls::new(settings)?);
        let link = |place| Link::new(place, Arc::clone(&tls), Some(Arc::clone(news)));
        let login = || Login::of_data(settings);
        let topology = match (&settings.url, &settings.sentinel, &settings.cluster) {
            (Some(url), None, None) => {
                let target = Target::new("session.store.redis.url".into(), url, login())?;
                if target.is_tls() {
                    tls.current()?;
                }
                Self::One(link(Place::Named(target)))
            }
            (None, Some(sentinel), None) => {
                let sentinels = Arc::new(Sentinels::new(settings, sentinel, &tls)?);
                Self::Sentinel(link(Place::Primary(Arc::clone(&sentinels))), sentinels)
            }
            (None, None, Some(urls)) => {
                let seeds = urls
                    .iter()
                    .enumerate()
                    .map(|(i, url)| Target::new(format!("session.store.redis.cluster[{i}]"), url, login()));
                let seeds = seeds.collect::<Result<Vec<_>, _>>()?;
                Self::Cluster(Cluster::new(
                    settings,
                    &seeds,
                    Arc::clone(&tls),
                    Arc::clone(news),
                )?)
            }
            _ => return Err("`session.store.redis` needs one of `url`, `sentinel` and `cluster`".into()),
        };
        Ok(topology)
    }

    /// Sends one command about a key to whoever has it; the answer, and the connection that it came over. A `repeatable`
    /// command does the same when it is done twice.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        key: &str,
        command: &Cmd,
        repeatable: bool,
    ) -> Result<(T, Arc<Live>), Fault> {
        let deadline = Instant::now() + PATIENCE;
        match self {
            Self::One(link) | Self::Sentinel(link, _) => link.ask_over(command, repeatable, deadline).await,
            Self::Cluster(cluster) => {
                let asked = cluster.ask(key.as_bytes(), command, repeatable, deadline);
                timeout_at(deadline, asked)
                    .await
                    .unwrap_or_else(|_| Err(Fault::late()))
            }
        }
    }

    /// The servers that take writes, by name where there are several.
    pub(super) async fn primaries(&self) -> Result<Vec<(String, Arc<Link>)>, Fault> {
        match self {
            Self::One(link) | Self::Sentinel(link, _) => Ok(vec![(String::new(), Arc::clone(link))]),
            Self::Cluster(cluster) => {
                let primaries = cluster.primaries().await?;
                let named = primaries
                    .into_iter()
                    .map(|(address, link)| (address.to_string(), link));
                Ok(named.collect())
            }
        }
    }

    /// Whether each of them answers.
    pub(super) async fn ping(&self) -> Result<(), Fault> {
        let deadline = Instant::now() + PATIENCE;
        let asked = timeout_at(deadline, async {
            for (_, link) in self.primaries().await? {
                link.ask::<Value>(&cmd("PING"), true, deadline).await?;
            }
            Ok(())
        });
        asked.await.unwrap_or_else(|_| Err(Fault::late()))
    }
}

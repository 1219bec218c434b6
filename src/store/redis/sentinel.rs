//! Who the primary is, as the sentinels say it.
//!
//! All are asked at once, and what most of them say counts: one that was cut off from the others, or has just come back,
//! may still name the last one.
//!
//! INVARIANT: a connection to the primary counts as proved only while a majority of the sentinels has called its server
//! the primary within the last second, so a failover that is not heard of otherwise ends what is kept in memory.
//!
//! Source: Redis' guidelines for Sentinel clients.

use super::fault::Fault;
use super::link::{Link, Place};
use super::target::{Address, Login, Target};
use super::tls::Tls;
use crate::config::RedisSettings;
use crate::store::PATIENCE;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use redis::{Value, cmd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long the sentinels have to answer; those that are late have no say.
const ASKED_FOR: Duration = Duration::from_millis(500);
/// How often they are asked again while the primary is connected.
const ASKED_EVERY: Duration = Duration::from_millis(300);

/// The sentinels of one primary.
#[derive(Debug)]
pub(super) struct Sentinels {
    master: String,
    links: Vec<Arc<Link>>,
    /// Who we are at the primary.
    login: Login,
    tls: bool,
}

/// What the sentinels say.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) primary: Address,
    /// Whether more than half of all that are configured say so.
    by_majority: bool,
}

impl Sentinels {
    /// # Errors
    /// What of the settings cannot be used.
    pub(super) fn new(
        settings: &RedisSettings,
        sentinel: &crate::config::Sentinel,
        tls: &Arc<Tls>,
    ) -> Result<Self, String> {
        let login = Login::of_sentinels(sentinel);
        let mut links = Vec::new();
        let mut is_tls = false;
        for (i, url) in sentinel.urls.iter().enumerate() {
            let key = format!("session.store.redis.sentinel.urls[{i}]");
            let target = Target::new(key, url, login.clone())?;
            is_tls = target.is_tls();
            links.push(Link::new(Place::Named(target), Arc::clone(tls), None));
        }
        if links.is_empty() {
            return Err("`session.store.redis.sentinel.urls` names no sentinel".into());
        }
        Ok(Self {
            master: sentinel.master.clone(),
            links,
            login: Login::of_data(settings),
            tls: is_tls,
        })
    }

    pub(super) fn login_at(&self, primary: &Address) -> Result<redis::ConnectionInfo, String> {
        self.login.at(primary, self.tls)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.links.len()
    }

    /// What each of them says, in the config's order.
    pub(super) async fn each(&self) -> Vec<Result<Address, Fault>> {
        let deadline = Instant::now() + ASKED_FOR;
        join_all(self.links.iter().map(|link| self.ask(link, deadline))).await
    }

    /// Who the primary is. Boxed: a link to the primary asks the links to the sentinels.
    pub(super) fn verdict(&self) -> Pin<Box<dyn Future<Output = Result<Verdict, Fault>> + Send + '_>> {
        Box::pin(async move {
            let deadline = Instant::now() + ASKED_FOR;
            let mut asked: FuturesUnordered<_> =
                self.links.iter().map(|link| self.ask(link, deadline)).collect();
            let (mut votes, mut fault): (Vec<(Address, usize)>, Option<Fault>) = (Vec::new(), None);
            while let Some(said) = asked.next().await {
                let primary = match said {
                    Ok(primary) => primary,
                    Err(why) => {
                        fault.get_or_insert(why);
                        continue;
                    }
                };
                match votes.iter_mut().find(|(address, _)| *address == primary) {
                    Some((_, count)) => *count += 1,
                    None => votes.push((primary, 1)),
                }
                let most = votes.iter().map(|(_, count)| *count).max().unwrap_or(0);
                if most > self.links.len() / 2 {
                    break;
                }
            }
            let winner = votes.into_iter().max_by_key(|(_, count)| *count);
            match (winner, fault) {
                (Some((primary, count)), _) => Ok(Verdict {
                    primary,
                    by_majority: count > self.links.len() / 2,
                }),
                (None, Some(fault)) => Err(fault),
                (None, None) => Err(Fault::said("no sentinel has answered")),
            }
        })
    }

    async fn ask(&self, link: &Link, deadline: Instant) -> Result<Address, Fault> {
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let asked = timeout_at(
            deadline,
            link.ask::<Value>(&question, true, Instant::now() + PATIENCE),
        );
        let said = asked
            .await
            .unwrap_or_else(|_| Err(Fault::said("a sentinel does not answer")))
            .map_err(|fault| Fault::said(words(&fault)))?;
        match said {
            Value::Nil => Err(Fault::said(format!(
                "the sentinels know no primary called `{}`: check `session.store.redis.sentinel.master`",
                self.master
            ))),
            said => match redis::from_redis_value::<(String, u16)>(said) {
                Ok((host, port)) => Ok(Address { host, port }),
                Err(_) => Err(Fault::said(
                    "a sentinel's answer is no address: is it a sentinel?",
                )),
            },
        }
    }
}

/// What is wrong at a sentinel, which has an ACL and a password of its own.
fn words(fault: &Fault) -> String {
    let why = match fault.code() {
        Some("NOAUTH") => "it wants a password: set `session.store.redis.sentinel.password`".to_owned(),
        Some("NOPERM") => {
            "its ACL refuses the user: allow `+sentinel|get-master-addr-by-name +ping`".to_owned()
        }
        _ if fault.is_refused_login() => {
            "it refuses the user or password: check `session.store.redis.sentinel`".to_owned()
        }
        Some("ERR") => "it knows no SENTINEL command: is it a sentinel (port 26379, mostly)?".to_owned(),
        _ => fault.words(),
    };
    format!("a sentinel: {why}")
}

/// A primary to which a connection is open.
#[derive(Debug)]
pub(super) struct Watched {
    sentinels: Arc<Sentinels>,
    address: Address,
    /// When the question left that a majority answered with this address last.
    confirmed: Mutex<Option<Instant>>,
}

impl Watched {
    /// The primary that was named when the sentinels were asked at `asked`.
    pub(super) fn new(sentinels: &Arc<Sentinels>, verdict: Verdict, asked: Instant) -> Arc<Self> {
        Arc::new(Self {
            sentinels: Arc::clone(sentinels),
            address: verdict.primary,
            confirmed: Mutex::new(verdict.by_majority.then_some(asked)),
        })
    }

    /// When a majority last called it the primary.
    pub(super) fn confirmed(&self) -> Option<Instant> {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when the sentinels name another.
    pub(super) async fn until_it_is_another(&self) {
        loop {
            tokio::time::sleep(ASKED_EVERY).await;
            let asked = Instant::now();
            let Ok(verdict) = self.sentinels.verdict().await else {
                continue;
            };
            if verdict.primary != self.address {
                tracing::info!(primary = %verdict.primary, "the sentinels name another primary");
                return;
            }
            if verdict.by_majority {
                *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
            }
        }
    }
}

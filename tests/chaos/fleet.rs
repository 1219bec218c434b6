//! The replicas: killed without warning, and started again at once.

use crate::dice::Dice;
use crate::proxy::Proxy;
use crate::support::cloakroom::Cloakroom;
use crate::support::config::Config;
use crate::{Millis, now};
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// A replica that was killed.
#[derive(Clone, Debug)]
pub struct Death {
    pub replica: usize,
    /// The process's name in the provider's log.
    pub by: String,
    /// Just before the signal.
    pub at: Millis,
    /// When another process had taken its place.
    pub back: Option<Millis>,
}

/// A process that waited for the provider as long as it waits, and hung up.
#[derive(Clone, Debug)]
pub struct GaveUp {
    pub by: String,
    /// By its own log, in milliseconds since midnight.
    pub at: Millis,
}

/// What happened to all of them.
pub type Deaths = Arc<Mutex<Vec<Death>>>;

/// One replica, and the processes that it is, one after the other.
pub struct Replica {
    number: usize,
    generation: usize,
    config: Config,
    token_endpoint: String,
    running: Cloakroom,
    pub proxy: Arc<Proxy>,
    /// By all its processes that have ended.
    gave_up: Vec<GaveUp>,
}

impl Replica {
    pub async fn start(number: usize, config: Config, issuer: &str, proxy: Arc<Proxy>) -> Self {
        let token_endpoint = format!("{issuer}/token?by=");
        let running = Self::run(number, 1, &config, &token_endpoint).await;
        Self {
            number,
            generation: 1,
            config,
            token_endpoint,
            running,
            proxy,
            gave_up: Vec::new(),
        }
    }

    async fn run(number: usize, generation: usize, config: &Config, endpoint: &str) -> Cloakroom {
        let endpoints = json!({ "token": format!("{endpoint}{}", name(number, generation)) });
        Cloakroom::start(&config.clone().set("providers.main.endpoints", endpoints)).await
    }

    pub fn port(&self) -> u16 {
        self.config.port
    }

    /// Every time that one of its processes gave up on the provider.
    pub fn gave_up(&self) -> Vec<GaveUp> {
        let mut all = self.gave_up.clone();
        let log = self.running.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("refresh_failed") && line.contains("no whole answer"));
        all.extend(lines.filter_map(|line| {
            let by = name(self.number, self.generation);
            let time = line.split_once("\"timestamp\":\"")?.1.get(11..23)?;
            Some(GaveUp {
                by,
                at: since_midnight(time)?,
            })
        }));
        all
    }

    /// `kill -9`, and another process on the same ports.
    async fn replace(mut self, deaths: Deaths) -> Self {
        let death = Death {
            replica: self.number,
            by: name(self.number, self.generation),
            at: now(),
            back: None,
        };
        let entry = {
            let mut deaths = deaths.lock().unwrap();
            deaths.push(death);
            deaths.len() - 1
        };
        self.running.signal("KILL");
        self.running.ended().await;
        self.gave_up = self.gave_up();
        self.generation += 1;
        self.running = Self::run(self.number, self.generation, &self.config, &self.token_endpoint).await;
        deaths.lock().unwrap()[entry].back = Some(now());
        self
    }
}

/// `18:00:29.153`
fn since_midnight(time: &str) -> Option<Millis> {
    let (clock, millis) = time.split_once('.')?;
    let mut seconds = 0;
    for part in clock.split(':') {
        seconds = seconds * 60 + part.parse::<Millis>().ok()?;
    }
    Some(seconds * 1_000 + millis.parse::<Millis>().ok()?)
}

fn name(number: usize, generation: usize) -> String {
    format!("r{number}g{generation}")
}

/// Kills one replica now and then, or two at a time, until `over`; then all of them are there.
pub async fn kill_now_and_then(
    mut replicas: Vec<Replica>,
    deaths: Deaths,
    mut dice: Dice,
    over: Millis,
) -> Vec<Replica> {
    loop {
        tokio::time::sleep(dice.millis(1_000, 5_000)).await;
        if now() >= over {
            return replicas;
        }
        let mut replacing = JoinSet::new();
        for _ in 0..=usize::from(dice.percent(25)) {
            let replica = replicas.swap_remove(dice.below(replicas.len()));
            replacing.spawn(replica.replace(Arc::clone(&deaths)));
        }
        replicas.extend(replacing.join_all().await);
    }
}

//! Whether a full server drops sessions (SE-13): from `INFO memory`, which needs no right to read its configuration.

use super::news::News;
use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};
use std::time::Duration;

/// How often a connected server is asked.
const ASKED_EVERY: Duration = Duration::from_mins(1);

/// `maxmemory_policy` out of what INFO told; `noeviction` also where the server has no bound at all. `None`: not told.
pub(super) fn policy(told: &str) -> Option<String> {
    let value = |name: &str| {
        let mut lines = told.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    };
    let policy = value("maxmemory_policy")?;
    let is_word = policy.len() <= 32 && policy.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    match value("maxmemory") {
        Some("0") => Some("noeviction".to_owned()),
        _ => is_word.then(|| policy.to_owned()),
    }
}

/// Says it loudly where a full server would drop sessions; never ends.
pub(super) async fn watch_memory(mut connection: MultiplexedConnection, news: &News) {
    loop {
        let told = cmd("INFO")
            .arg("memory")
            .query_async::<Value>(&mut connection)
            .await;
        let told = told
            .ok()
            .and_then(|told| redis::from_redis_value::<String>(told).ok());
        if let Some(policy) = told.as_deref().and_then(policy)
            && policy != "noeviction"
            && news.eviction.due().is_some()
        {
            tracing::error!(
                policy,
                "when its memory is full, the session store drops sessions of people who are signed in: set \
                 `maxmemory-policy noeviction`"
            );
        }
        tokio::time::sleep(ASKED_EVERY).await;
    }
}

//! All secrets: each must be there now.

use super::super::report::{Findings, KeyPath};
use super::super::secrets::SecretSource;
use super::super::settings::{Settings, StoreSettings};
use std::path::Path;

pub fn check(settings: &Settings, findings: &mut Findings<'_>) {
    for (path, source) in all(settings) {
        if let Err(problem) = source.current() {
            findings.refuse(&path, problem);
        } else if source.is_plain() && !is_bare_redis_url(source) && findings.is_in_file(&path) {
            findings.warn(
                &path,
                "stands in the config itself; use { file: PATH } or { env: NAME }",
            );
        } else if let Some(file) = source.file_for_everyone() {
            let message = format!(
                "is in {}, which every user of the machine may read; chmod o-r it (Kubernetes: `defaultMode: 0440`)",
                file.display()
            );
            findings.warn(&path, &message);
        }
    }
}

/// The file of a secret that lies in a folder.
pub fn file_under<'s>(settings: &'s Settings, folder: &Path) -> Option<&'s Path> {
    let folder = folder.canonicalize().ok()?;
    let is_in = |file: &&Path| file.canonicalize().is_ok_and(|file| file.starts_with(&folder));
    all(settings)
        .into_iter()
        .filter_map(|(_, source)| source.path())
        .find(is_in)
}

/// Whether this is the URL of a Redis without user and password: nothing that has to be hidden.
fn is_bare_redis_url(source: &SecretSource) -> bool {
    source.current().is_ok_and(|text| {
        let text = text.expose();
        (text.starts_with("redis://") || text.starts_with("rediss://")) && !text.contains('@')
    })
}

/// Every secret with its key. A single one that could be a list has the index 0.
fn all(settings: &Settings) -> Vec<(KeyPath, &SecretSource)> {
    fn list<'a>(
        path: &KeyPath,
        sources: impl IntoIterator<Item = &'a SecretSource>,
    ) -> Vec<(KeyPath, &'a SecretSource)> {
        sources
            .into_iter()
            .enumerate()
            .map(|(i, source)| (path.index(i), source))
            .collect()
    }
    let admin_token = settings.server.admin_token.iter();
    let mut all: Vec<_> = admin_token
        .map(|source| (KeyPath::root("server").key("admin_token"), source))
        .collect();
    for provider in &settings.providers {
        let path = KeyPath::root("providers")
            .key(&provider.name)
            .key("client_secret");
        all.extend(list(&path, &provider.client_secret));
    }
    all.extend(list(
        &KeyPath::root("session").key("keys"),
        &settings.session.keys,
    ));
    if let StoreSettings::Redis(redis) = &settings.session.store {
        let at = KeyPath::root("session").key("store").key("redis");
        all.extend(redis.url.iter().map(|source| (at.key("url"), source)));
        all.extend(redis.password.iter().map(|source| (at.key("password"), source)));
        all.extend(list(
            &at.key("sentinel").key("urls"),
            redis.sentinel.iter().flat_map(|sentinel| &sentinel.urls),
        ));
        let sentinels = redis.sentinel.iter().flat_map(|sentinel| &sentinel.password);
        all.extend(sentinels.map(|source| (at.key("sentinel").key("password"), source)));
        all.extend(list(&at.key("cluster"), redis.cluster.iter().flatten()));
    }
    all
}

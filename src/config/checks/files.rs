//! The files and folders that the config names, other than secrets.

use super::super::certificate::{Certificate, Unusable};
use super::super::file::reason;
use super::super::report::{Findings, KeyPath};
use super::super::settings::{Settings, StoreSettings};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Checks that they are there.
pub fn files(settings: &Settings, findings: &mut Findings<'_>) {
    if let Some(files) = &settings.server.tls {
        let at = KeyPath::root("server").key("tls");
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        match Certificate::read(files, crypto) {
            Ok(_) => {}
            Err(Unusable::Cert(why)) => findings.refuse(&at.key("cert"), why),
            Err(Unusable::Key(why)) => findings.refuse(&at.key("key"), why),
            Err(Unusable::Pair(why)) => findings.refuse(&at, why),
        }
    }
    for provider in &settings.providers {
        let at = KeyPath::root("providers").key(&provider.name).key("ca");
        provider
            .ca
            .iter()
            .for_each(|file| certificates(file, &at, findings));
    }
    if let StoreSettings::Redis(redis) = &settings.session.store {
        let at = KeyPath::root("session").key("store").key("redis").key("ca");
        redis.ca.iter().for_each(|file| certificates(file, &at, findings));
    }
    for (i, route) in settings.routes.iter().enumerate() {
        let at = KeyPath::root("routes").index(i);
        route
            .ca
            .iter()
            .for_each(|file| certificates(file, &at.key("ca"), findings));
        let Some(files) = &route.files else { continue };
        let root = &files.root;
        let at = at.key("static");
        match fs::metadata(root) {
            Err(error) => {
                findings.refuse(
                    &at.key("root"),
                    format!("{} cannot be read: {}", root.display(), reason(&error)),
                );
            }
            Ok(found) if !found.is_dir() => {
                findings.refuse(
                    &at.key("root"),
                    format!(
                        "{} is no folder; wanted: the folder with the files",
                        root.display()
                    ),
                );
            }
            Ok(_) => {
                let missing = files
                    .fallback
                    .as_ref()
                    .map(|name| root.join(name))
                    .filter(|file| !file.is_file());
                if let Some(file) = missing {
                    findings.refuse(
                        &at.key("fallback"),
                        format!("{} is no file; wanted: a file in `root`", file.display()),
                    );
                }
            }
        }
    }
}

/// Refuses what cannot be a PEM file of authorities.
fn certificates(file: &Path, at: &KeyPath, findings: &mut Findings<'_>) {
    let path = file.display();
    match fs::metadata(file).and_then(|found| {
        if found.is_file() {
            fs::read(file)
        } else {
            Ok(Vec::new())
        }
    }) {
        Err(error) => findings.refuse(at, format!("{path} cannot be read: {}", reason(&error))),
        Ok(bytes) if !String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----") => {
            findings.refuse(
                at,
                format!("{path} holds no certificate; wanted: a PEM file of authorities"),
            );
        }
        Ok(_) => {}
    }
}

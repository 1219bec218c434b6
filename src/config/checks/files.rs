//! The files and folders that the config names, other than secrets; and what of them everybody would get to see.

use super::super::certificate::{Certificate, Unusable};
use super::super::client_ca::ClientCa;
use super::super::file::reason;
use super::super::report::{Findings, KeyPath};
use super::super::settings::{Settings, StoreSettings, TlsFiles};
use super::secrets;
use rustls::crypto::aws_lc_rs;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How far a folder that is served is looked through: so many entries, so deep.
const MOST_ENTRIES: usize = 5_000;
const DEEPEST: usize = 6;

/// Checks that they are there.
pub fn files(settings: &Settings, findings: &mut Findings<'_>) {
    for (i, files) in settings.server.tls.iter().enumerate() {
        certificate(files, &KeyPath::root("server").key("tls").index(i), findings);
    }
    if let Some(tls) = &settings.server.admin_tls {
        let at = KeyPath::root("server").key("admin_tls");
        certificate(&tls.pair(), &at, findings);
        if let Some(file) = &tls.client_ca
            && let Err(why) = ClientCa::read(file, Arc::new(aws_lc_rs::default_provider()))
        {
            findings.refuse(&at.key("client_ca"), why);
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
        let at = KeyPath::root("session").key("store").key("redis");
        redis
            .ca
            .iter()
            .for_each(|file| certificates(file, &at.key("ca"), findings));
        if let Some(files) = &redis.client_cert {
            certificate(files, &at.key("client_cert"), findings);
        }
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
                served(settings, root, &at.key("root"), findings);
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
                if route.path == "/" && files.fallback.is_none() && !root.join("index.html").is_file() {
                    let message = format!(
                        "{} holds no index.html, so the start page is 404; has the app been built, and is this its folder?",
                        root.display()
                    );
                    findings.warn(&at.key("root"), &message);
                }
            }
        }
    }
}

/// Warns about what has no business in a folder that is served. What begins with a dot is never served.
fn served(settings: &Settings, root: &Path, at: &KeyPath, findings: &mut Findings<'_>) {
    let remedy = "serve the folder that the build made, and nothing else";
    if let Some(secret) = secrets::file_under(settings, root) {
        let message = format!(
            "holds {}, which this config reads a secret from: whoever asks for it gets it; {remedy}",
            secret.display()
        );
        findings.warn(at, &message);
    } else if let Some((file, what)) = first_that_is_not_for_browsers(root) {
        let file = file.strip_prefix(root).unwrap_or(&file).display();
        findings.warn(
            at,
            &format!("holds {file}, {what}, which is served like any other file; {remedy}"),
        );
    }
}

/// The first file that is not for browsers, and what it is: near the top first.
fn first_that_is_not_for_browsers(root: &Path) -> Option<(PathBuf, &'static str)> {
    let (mut folders, mut seen) = (vec![root.to_owned()], 0);
    for depth in 0..DEEPEST {
        let mut below = Vec::new();
        for folder in &folders {
            let mut entries: Vec<_> = fs::read_dir(folder).ok()?.flatten().collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                seen += 1;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if seen > MOST_ENTRIES || name.starts_with('.') {
                    continue;
                }
                if let Some(what) = not_for_browsers(&name, depth == 0) {
                    return Some((entry.path(), what));
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    below.push(entry.path());
                }
            }
        }
        folders = below;
    }
    None
}

/// What a file's name says it is, where that is nothing for browsers. `is_top`: right in the folder that is served.
fn not_for_browsers(name: &str, is_top: bool) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let ending = Path::new(&name)
        .extension()
        .and_then(OsStr::to_str)
        .unwrap_or_default();
    match name.as_str() {
        "node_modules" | "package.json" | "cargo.toml" | "composer.json" if is_top => {
            return Some("so it is the project and not what its build made");
        }
        "cloakroom.yaml"
        | "cloakroom.yml"
        | "compose.yaml"
        | "compose.yml"
        | "docker-compose.yaml"
        | "docker-compose.yml" => return Some("a config"),
        "id_rsa" | "id_ecdsa" | "id_ed25519" => return Some("a private key"),
        _ => {}
    }
    match ending {
        "key" | "pem" | "p12" | "pfx" | "jks" | "kdbx" | "ppk" => Some("perhaps a private key"),
        "env" => Some("an environment file"),
        "sqlite" | "sqlite3" | "db" | "sql" | "dump" | "bak" => Some("data or a copy of it"),
        _ => None,
    }
}

/// Refuses files that are no certificate with its key.
fn certificate(files: &TlsFiles, at: &KeyPath, findings: &mut Findings<'_>) {
    let crypto = Arc::new(aws_lc_rs::default_provider());
    match Certificate::read(files, crypto) {
        Ok(_) => {}
        Err(Unusable::Cert(why)) => findings.refuse(&at.key("cert"), why),
        Err(Unusable::Key(why)) => findings.refuse(&at.key("key"), why),
        Err(Unusable::Pair(why)) => findings.refuse(at, why),
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

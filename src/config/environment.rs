//! The environment's layer: `CLOAKROOM_SESSION__IDLE_TIMEOUT=10m` over the file's `session.idle_timeout`.
//!
//! A variable's value is read as YAML and laid over the file before anything is checked, so it goes through the
//! same checks; its place in a message is the variable's name. Sections are merged, lists and everything else replaced.

use super::report::Report;
use super::schema::{PATHS, SCHEMA, key, taking};
use super::wants::nearest;
use super::yaml::{self, Key, Node, Place, Value};
use serde_json::Value as Schema;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

const PREFIX: &str = "CLOAKROOM_";

/// Whether a variable of ours is none of the config's: it names the file, or Kubernetes injects it for a Service.
fn is_ignored(name: &str) -> bool {
    name == "CLOAKROOM_CONFIG" || name.starts_with("CLOAKROOM_SERVICE_") || name.starts_with("CLOAKROOM_PORT")
}

/// Lays the variables over the file's tree.
pub(super) fn lay_over(
    tree: &mut Node,
    variables: impl Iterator<Item = (OsString, OsString)>,
    report: &mut Report,
) {
    let ours: BTreeMap<String, OsString> = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(PREFIX) && !is_ignored(name))
        .collect();
    let place = tree.place.clone();
    let mut layer = Node {
        place,
        value: Value::Map(Vec::new()),
    };
    // In the order of names, so a section comes before its keys.
    for (name, value) in &ours {
        let place = Place::Variable(Arc::from(name.as_str()));
        let path = name[PREFIX.len()..].to_lowercase();
        let path: Vec<&str> = path.split("__").collect();
        let is_known = !name.contains(|c: char| c.is_ascii_lowercase()) && schema_at(&path).is_some();
        if !is_known {
            if !is_named_by_a_secret(tree, name) {
                let near = nearest_variable(name, tree);
                report.warn(
                    &place,
                    "",
                    &format!("no key of the config has this variable; the nearest is {near}"),
                );
            }
            continue;
        }
        let key = path.join(".");
        match read(value, &place) {
            Ok(node) => {
                if let Err(other) = put(&mut layer, &path, node, &place) {
                    report.add(
                        &place,
                        key,
                        format!("cannot be set beside {other}, which sets the whole of it"),
                    );
                }
            }
            Err(problem) => report.add(&place, key, problem),
        }
    }
    if layer.value != Value::Map(Vec::new()) {
        merge(tree, layer, Some(&SCHEMA));
    }
}

/// The value, as YAML.
fn read(value: &OsString, place: &Place) -> Result<Node, String> {
    let text = value.to_str().ok_or("is no UTF-8 text")?;
    yaml::parse(text, &|_, _| place.clone())
        .map_err(|(_, problem)| format!("{problem}; a text with signs of YAML's own needs quotes"))
}

fn schema_at(path: &[&str]) -> Option<&'static Schema> {
    path.iter().try_fold(&*SCHEMA, |schema, name| {
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        key(schema, name).filter(|_| is_name)
    })
}

/// Puts a value at a path, making the sections on the way.
///
/// # Errors
/// The place of what stands in the way.
fn put(section: &mut Node, path: &[&str], node: Node, place: &Place) -> Result<(), Place> {
    let Some((name, rest)) = path.split_first() else {
        *section = node;
        return Ok(());
    };
    let Value::Map(entries) = &mut section.value else {
        return Err(section.place.clone());
    };
    let at = entries
        .iter()
        .position(|(key, _)| key.name == *name)
        .unwrap_or_else(|| {
            let key = Key {
                name: (*name).to_owned(),
                place: place.clone(),
            };
            entries.push((
                key,
                Node {
                    place: place.clone(),
                    value: Value::Map(Vec::new()),
                },
            ));
            entries.len() - 1
        });
    put(&mut entries[at].1, rest, node, place)
}

/// Lays one node over another.
fn merge(under: &mut Node, over: Node, schema: Option<&Schema>) {
    let is_choice = schema.is_some_and(|schema| taking(schema, "object").len() > 1);
    match (&mut under.value, over.value) {
        (Value::Map(below), Value::Map(above)) => {
            // Of a choice (memory or redis) the upper layer's takes the lower one's place.
            if is_choice
                && above
                    .iter()
                    .any(|(key, _)| below.iter().all(|(other, _)| other.name != key.name))
            {
                below.clear();
            }
            for (name, node) in above {
                let schema = schema.and_then(|schema| key(schema, &name.name));
                match below.iter_mut().find(|(other, _)| other.name == name.name) {
                    Some((_, under)) => merge(under, node, schema),
                    None => below.push((name, node)),
                }
            }
        }
        (_, value) => {
            *under = Node {
                place: over.place,
                value,
            }
        }
    }
}

/// Whether the file reads the variable itself, as `{ env: NAME }`.
fn is_named_by_a_secret(tree: &Node, name: &str) -> bool {
    match &tree.value {
        Value::Map(entries) => entries.iter().any(|(key, node)| {
            key.name == "env" && matches!(&node.value, Value::Text(text) if text == name)
                || is_named_by_a_secret(node, name)
        }),
        Value::List(items) => items.iter().any(|item| is_named_by_a_secret(item, name)),
        _ => false,
    }
}

/// The known variable that looks most like an unknown one.
fn nearest_variable(name: &str, tree: &Node) -> String {
    // Below a list there are no variables: it is replaced whole.
    let path = name[PREFIX.len()..].to_lowercase();
    let steps: Vec<&str> = path.split("__").collect();
    let list = (1..steps.len())
        .map(|length| &steps[..length])
        .find(|above| schema_at(above).is_some_and(|schema| !taking(schema, "array").is_empty()));
    if let Some(list) = list {
        return format!("{}, which replaces the whole list", variable(list));
    }
    let providers: Vec<&str> = match tree.get("providers").map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.iter().map(|(key, _)| key.name.as_str()).collect(),
        _ => vec!["main"],
    };
    let mut known = Vec::new();
    for path in PATHS.iter() {
        for provider in &providers {
            let named: Vec<&str> = path
                .iter()
                .map(|step| if *step == "*" { *provider } else { *step })
                .collect();
            known.push(variable(&named));
        }
    }
    nearest(name, known.iter().map(String::as_str))
        .unwrap_or_default()
        .to_owned()
}

fn variable(path: &[&str]) -> String {
    format!("{PREFIX}{}", path.join("__").to_uppercase())
}

//! Walks the tree along the schema and refuses whatever does not fit: every mistake, not only the first.
//!
//! What is refused is replaced by a stand-in of the right kind (or left out, where a default steps in), so that the
//! tree that comes out always fits the types and its meaning can be checked in the same run.
//!
//! INVARIANT: a value is repeated in a message only where no secret may stand.

use super::report::{KeyPath, Report, shown};
use super::schema::{self, form, holds_secret, is_secret, keys, taking, words};
use super::wants::{at_least, found_text, nearest, required, stand_in, stand_in_entry, wanted};
use super::yaml::{Key, Node, Place, Value};
use serde_json::Value as Schema;
use std::collections::HashMap;

/// Walks the whole config.
pub(super) fn walk(tree: &mut Node, report: &mut Report) {
    let place = tree.place.clone();
    let path = KeyPath::default();
    if !(Walk { report }).value(tree, &schema::SCHEMA, &path, &place) {
        tree.value = stand_in(&schema::SCHEMA);
    }
}

struct Walk<'a> {
    report: &'a mut Report,
}

impl Walk<'_> {
    /// Whether the node fits, after repairs inside it. `section` is where a missing key is missed.
    fn value(&mut self, node: &mut Node, schema: &Schema, path: &KeyPath, section: &Place) -> bool {
        let fits = match &mut node.value {
            Value::Map(entries) => match taking(schema, "object").as_slice() {
                [] => false,
                [one] => return self.section(entries, one, path, section),
                several => return self.choice(entries, schema, several, path, section),
            },
            Value::List(items) => match taking(schema, "array").first() {
                None => false,
                Some(list) => return self.list(items, list, path, section),
            },
            Value::Text(text) => return self.text(text, schema, path, &node.place),
            Value::Bool(_) => !taking(schema, "boolean").is_empty(),
            Value::Int(number) => taking(schema, "integer")
                .iter()
                .any(|integer| at_least(integer) <= *number),
            Value::Null | Value::Float(_) => false,
        };
        if !fits {
            self.misfit(node, schema, path);
        }
        fits
    }

    /// A section with these keys and no others.
    fn section(
        &mut self,
        entries: &mut Vec<(Key, Node)>,
        object: &Schema,
        path: &KeyPath,
        section: &Place,
    ) -> bool {
        let required = required(object);
        let mut seen: HashMap<String, Place> = HashMap::new();
        for (key, mut node) in std::mem::take(entries) {
            let here = path.key(&key.name);
            if let Some(first) = seen.get(&key.name) {
                self.report.add(
                    &key.place,
                    here.to_string(),
                    format!("is here a second time; it stands already at {first}"),
                );
                continue;
            }
            seen.insert(key.name.clone(), key.place.clone());
            let Some(schema) = schema::key(object, &key.name) else {
                self.unknown(&key, object, path);
                continue;
            };
            // A key that is required, or that is a name of the user's own, has no default to fall back to.
            let needed =
                required.contains(&key.name.as_str()) || object["properties"].get(&key.name).is_none();
            if node.value == Value::Null && !taking(schema, "object").is_empty() && !is_secret(schema) {
                // A section whose keys are all commented out.
                node.value = Value::Map(Vec::new());
                if !needed {
                    continue;
                }
            } else if node.value == Value::Null && !needed && !taking(schema, "null").is_empty() {
                continue;
            }
            if !self.value(&mut node, schema, &here, &key.place) {
                if !needed {
                    continue;
                }
                node.value = stand_in(schema);
            }
            entries.push((key, node));
        }
        for name in required {
            if !seen.contains_key(name) {
                let schema = &object["properties"][name];
                self.report.broken(
                    section,
                    &path.key(name),
                    format!("is missing; wanted: {}", wanted(schema)),
                );
                entries.push(stand_in_entry(name, schema, section));
            }
        }
        true
    }

    /// A section that is one of several, told apart by its only key.
    fn choice(
        &mut self,
        entries: &mut Vec<(Key, Node)>,
        schema: &Schema,
        several: &[&Schema],
        path: &KeyPath,
        section: &Place,
    ) -> bool {
        let first = entries.first().map(|(key, _)| key.clone());
        let stranger = entries
            .iter()
            .find(|(key, _)| schema::key(schema, &key.name).is_none());
        let chosen = several.iter().find(|one| {
            first
                .as_ref()
                .is_some_and(|key| schema::key(one, &key.name).is_some())
        });
        match (stranger, chosen) {
            _ if is_secret(schema) && (stranger.is_some() || entries.len() != 1) => {
                self.report.broken(
                    section,
                    path,
                    format!("found a section; wanted: {}", wanted(schema)),
                );
            }
            (Some((key, _)), _) => {
                let key = key.clone();
                self.unknown(&key, schema, path);
                return false;
            }
            (None, Some(chosen))
                if entries
                    .iter()
                    .all(|(key, _)| schema::key(chosen, &key.name).is_some()) =>
            {
                return self.section(entries, chosen, path, section);
            }
            _ => {
                let found = if entries.is_empty() {
                    "none"
                } else {
                    "more than one"
                };
                self.report.broken(
                    section,
                    path,
                    format!("found {found}; wanted: {}", wanted(schema)),
                );
            }
        }
        false
    }

    fn list(&mut self, items: &mut [Node], list: &Schema, path: &KeyPath, section: &Place) -> bool {
        if items.is_empty() && list.get("minItems").is_some() {
            self.report.broken(
                section,
                path,
                "found an empty list; wanted: at least one item".into(),
            );
            return false;
        }
        for (index, item) in items.iter_mut().enumerate() {
            let place = item.place.clone();
            if !self.value(item, &list["items"], &path.index(index), &place) {
                item.value = stand_in(&list["items"]);
            }
        }
        true
    }

    fn text(&mut self, text: &str, schema: &Schema, path: &KeyPath, place: &Place) -> bool {
        let texts = taking(schema, "string");
        let listed: Vec<&str> = texts.iter().flat_map(|choice| words(choice)).collect();
        if listed.contains(&text) {
            return true;
        }
        let doubt = match texts
            .iter()
            .find(|choice| words(choice).is_empty())
            .map(|free| form(free))
        {
            Some(None) => return true,
            Some(Some(form)) => match (form.check)(text) {
                Ok(()) => return true,
                Err(doubt) => format!(", which {doubt}"),
            },
            None => String::new(),
        };
        let hint = match nearest(text, listed.into_iter()) {
            Some(near) if text.eq_ignore_ascii_case(near) => "; capitals matter",
            _ if taking(schema, "boolean").is_empty() => "",
            _ if ["yes", "no", "on", "off"]
                .iter()
                .any(|word| text.eq_ignore_ascii_case(word)) =>
            {
                " (in YAML 1.2 yes, no, on and off are texts)"
            }
            _ => "",
        };
        let found = found_text(text, schema);
        self.report.broken(
            place,
            path,
            format!("found {found}{doubt}; wanted: {}{hint}", wanted(schema)),
        );
        false
    }

    /// A value of another type than the key's.
    fn misfit(&mut self, node: &Node, schema: &Schema, path: &KeyPath) {
        let secret = holds_secret(schema);
        let found = match &node.value {
            Value::Null => "no value".into(),
            Value::Text(text) => found_text(text, schema),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a section".into(),
            Value::Bool(_) if secret => "true or false".into(),
            Value::Int(_) | Value::Float(_) if secret => "a number".into(),
            Value::Bool(truth) => truth.to_string(),
            Value::Int(number) => format!("the number {number}"),
            Value::Float(number) => shown(&format!("the number {number}")),
        };
        let scalar = matches!(node.value, Value::Bool(_) | Value::Int(_) | Value::Float(_));
        let takes_texts = taking(schema, "string")
            .iter()
            .any(|text| words(text).is_empty() && form(text).is_none());
        let hint = if scalar && takes_texts {
            " (in quotes it is a text)"
        } else {
            ""
        };
        self.report.broken(
            &node.place,
            path,
            format!("found {found}; wanted: {}{hint}", wanted(schema)),
        );
    }

    fn unknown(&mut self, key: &Key, section: &Schema, path: &KeyPath) {
        let siblings = keys(section).into_iter().map(|(name, _)| name);
        let near = nearest(&key.name, siblings).unwrap_or_default();
        // A key of another section is more likely misplaced than misspelt.
        let elsewhere = || {
            let same_name = |path: &&Vec<&str>| path.last() == Some(&key.name.as_str());
            schema::PATHS.iter().find(same_name).map(|path| path.join("."))
        };
        let close = strsim::normalized_damerau_levenshtein(&key.name, near) > 0.5;
        let near = if close { None } else { elsewhere() }.unwrap_or_else(|| path.key(near).to_string());
        let message = format!("is no known key; the nearest is `{near}`");
        self.report.broken(&key.place, &path.key(&key.name), message);
    }
}

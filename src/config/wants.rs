//! What the schema wants, in words for people and in values to go on with.
//!
//! INVARIANT: a text that was found is repeated only where no secret may stand.

use super::report::quoted;
use super::schema::{self, alternatives, form, holds_secret, is_secret, keys, taking, words};
use super::yaml::{Key, Node, Place, Value};
use serde_json::Value as Schema;

/// The nearest of some words, however far it is.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let near = |known: &str| strsim::normalized_damerau_levenshtein(&word, &known.to_lowercase());
    known.max_by(|a, b| near(a).total_cmp(&near(b)))
}

/// A text that was found, repeated only where it can be no secret.
pub(super) fn found_text(text: &str, schema: &Schema) -> String {
    if holds_secret(schema) {
        "a text".into()
    } else {
        quoted(text)
    }
}

/// What a schema wants, for people.
pub(super) fn wanted(schema: &Schema) -> String {
    if is_secret(schema) {
        let list = if taking(schema, "array").is_empty() {
            ""
        } else {
            ", or a list of them"
        };
        return format!("a secret (a text, {{ env: NAME }} or {{ file: PATH }}){list}");
    }
    let choices = alternatives(schema);
    let listed: Vec<String> = choices
        .iter()
        .flat_map(|choice| words(choice))
        .map(|word| format!("`{word}`"))
        .collect();
    let mut phrases: Vec<String> = match listed.as_slice() {
        [] => Vec::new(),
        [word] => vec![word.clone()],
        [rest @ .., last] => vec![format!("{} or {last}", rest.join(", "))],
    };
    for choice in choices.iter().filter(|choice| words(choice).is_empty()) {
        for (kind, phrase) in [
            ("string", "a text"),
            ("boolean", "true or false"),
            ("array", "a list"),
        ] {
            if schema::takes(choice, kind) {
                phrases.push(form(choice).map_or(phrase, |form| form.wanted).to_owned());
            }
        }
        if schema::takes(choice, "integer") {
            phrases.push(format!("a whole number from {}", at_least(choice)));
        }
    }
    let sections = taking(schema, "object");
    let mut names: Vec<&str> = keys(schema).iter().map(|(name, _)| *name).collect();
    // The keys that have to be there say most about a section.
    let needed: Vec<&str> = sections.iter().flat_map(|section| required(section)).collect();
    names.sort_by_key(|name| !needed.contains(name));
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match (sections.len(), names.as_slice()) {
        (0, _) => {}
        (1, [name]) if name == "`*`" => phrases.push("a section, each key a name".into()),
        (1, names) => phrases.push(format!(
            "a section with keys such as {}",
            names[..names.len().min(4)].join(", ")
        )),
        (_, names) => phrases.push(format!("a section with exactly one of {}", names.join(", "))),
    }
    phrases.join(", or ")
}

/// The keys that a section (no choice) must have.
pub(super) fn required(object: &Schema) -> Vec<&str> {
    let names = object
        .get("required")
        .and_then(Schema::as_array)
        .map_or(&[][..], Vec::as_slice);
    names.iter().filter_map(Schema::as_str).collect()
}

/// The least number that a schema (no choice) takes.
pub(super) fn at_least(integer: &Schema) -> i64 {
    integer
        .get("minimum")
        .and_then(Schema::as_f64)
        .map_or(i64::MIN, |least| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the schema's own small whole number"
            )]
            let least = least as i64;
            least
        })
}

/// A value of the kind that a schema wants, for going on after a mistake.
pub(super) fn stand_in(schema: &Schema) -> Value {
    if is_secret(schema) {
        return Value::Text("stand-in".into());
    }
    let first = alternatives(schema)[0];
    if schema::takes(first, "string") || !words(first).is_empty() {
        let word = words(first).first().copied();
        return Value::Text(
            word.or(form(first).map(|form| form.stand_in))
                .unwrap_or_default()
                .into(),
        );
    }
    if schema::takes(first, "object") {
        let place = Place::Variable("stand-in".into());
        let entries = required(first)
            .into_iter()
            .map(|name| stand_in_entry(name, &first["properties"][name], &place));
        return Value::Map(entries.collect());
    }
    if schema::takes(first, "array") {
        return Value::List(Vec::new());
    }
    if schema::takes(first, "boolean") {
        Value::Bool(false)
    } else {
        Value::Int(at_least(first).max(1))
    }
}

/// A required key with such a value.
pub(super) fn stand_in_entry(name: &str, schema: &Schema, place: &Place) -> (Key, Node) {
    let key = Key {
        name: name.to_owned(),
        place: place.clone(),
    };
    (
        key,
        Node {
            place: place.clone(),
            value: stand_in(schema),
        },
    )
}
